//! The scenarios: which faults each has, and what is done for a fault. Values only; who does it is elsewhere.

use serde::{Deserialize, Serialize};

use super::board::Knob;
use super::host::Call;

mod given;

pub use given::{ScenarioError, check, drawn, swarm};

const MS: u64 = 1_000_000;
/// errno of an input or output error.
const EIO: u64 = 5;

/// How a fault reaches the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// By the kernel, from outside.
    Kernel,
    /// By the subject's own code, told from outside. What a kernel or a device would do besides is not there.
    InProcess,
    /// To a copy of what the subject has written.
    Copy,
    /// By a proxy between the subject and another process.
    Proxy,
}

impl How {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Kernel => "by the kernel",
            Self::InProcess => "injected in process",
            Self::Copy => "on a copy",
            Self::Proxy => "by a proxy on the way",
        }
    }
}

/// What is damaged in a copy of an event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// One bit of one record.
    BitFlip,
    /// Everything behind the middle of a record of the last segment.
    TruncatedTail,
    /// 4 KiB of zeros over records.
    ZeroedPage,
    /// A record again, over those behind it.
    DuplicatedRecord,
}

/// Which way a cable is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Both: the link is down.
    Both,
    /// What the subject sends does not arrive.
    There,
    /// What the second process sends does not arrive.
    Back,
    /// Of what the subject sends this share is lost, percent.
    Loss(u8),
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Knobs of the board are set, and to 0 again.
    Knobs(Vec<(Knob, u64)>),
    /// SIGKILL, and another process that goes on with the run and its logs.
    Kill,
    /// The thread of this core panics outside of any agent: the process ends itself, and another one goes on with the run
    /// and its logs, and with the agents of that core.
    EndCore(u32),
    /// CPU time of the subject, of all cores together, percent.
    CpuQuota(u32),
    /// Somebody computes on the subject's last core.
    CpuHog,
    /// The thread of the last core is stopped.
    HoldCore,
    /// Every thread is stopped.
    Freeze,
    /// A limit 32 MiB above what the subject's group has, and a neighbour in the group that takes so much of them, percent.
    Memory(u32),
    /// Bytes per second that the log's device writes.
    DiskThrottle(u64),
    /// The log's file system is filled.
    DiskFull,
    /// The log's file system is shut down as by a power cut, and the subject with it.
    PowerCut,
    /// The subject runs in a time namespace this far ahead, s: from its start, so one trial only.
    MonotonicOffset(i64),
    /// The subject gets no descriptor of this number or above (RLIMIT_NOFILE); what is open stays open. That it bit shows
    /// when a connection to a peer has to be made anew meanwhile, so it is done together with one that ends connections.
    Descriptors(u64),
    /// The cable between the subject and its second process is cut; each in a network namespace of its own.
    Partition(Way),
    /// A copy of the log is damaged and read.
    Corrupt(Damage),
    /// Several at once.
    Together(Vec<Act>),
    /// Knobs of the proxy between the subject and its peer are set, and to 0 again.
    Proxy(Vec<(Knob, u64)>),
    /// The kernel refuses the subject a system call: counters from its start, so one trial only; rings while it is to be
    /// started again.
    Refuse(Call),
}

impl Act {
    /// How it reaches the subject.
    #[must_use]
    pub fn how(&self) -> How {
        match self {
            Self::Knobs(_) | Self::EndCore(_) => How::InProcess,
            Self::Proxy(_) => How::Proxy,
            Self::Corrupt(_) => How::Copy,
            // One by the kernel among them, and it is not all of our own making.
            Self::Together(acts) => {
                let own = |act: &Self| matches!(act.how(), How::InProcess | How::Proxy);
                match acts.iter().find(|act| act.how() == How::Proxy) {
                    _ if !acts.iter().all(own) => How::Kernel,
                    Some(_) => How::Proxy,
                    None => How::InProcess,
                }
            }
            _ => How::Kernel,
        }
    }

    /// The knobs that it sets, when that is all that it does.
    #[must_use]
    pub fn knobs(&self) -> Option<&[(Knob, u64)]> {
        match self {
            Self::Knobs(knobs) | Self::Proxy(knobs) => Some(knobs),
            _ => None,
        }
    }

    /// Whether the subject must have a peer: a second process with half of its responders, reached over TCP.
    #[must_use]
    pub fn needs_peer(&self) -> bool {
        match self {
            Self::Partition(_) => true,
            Self::Together(acts) => acts.iter().any(Self::needs_peer),
            other => other.needs_proxy(),
        }
    }

    /// Whether it must reach that by a proxy.
    #[must_use]
    pub fn needs_proxy(&self) -> bool {
        match self {
            Self::Proxy(_) => true,
            Self::Together(acts) => acts.iter().any(Self::needs_proxy),
            _ => false,
        }
    }

    /// Whether the log must lie on a file system of its own.
    #[must_use]
    pub const fn needs_disk(&self) -> bool {
        matches!(self, Self::DiskThrottle(_) | Self::DiskFull | Self::PowerCut)
    }

    /// Whether the subject is ended by it and another one goes on.
    #[must_use]
    pub const fn restarts(&self) -> bool {
        matches!(
            self,
            Self::Kill | Self::EndCore(_) | Self::PowerCut | Self::Refuse(Call::IoUringSetup)
        )
    }

    /// Whether it lasts: a process that ends and a copy that is damaged are so at once.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        !matches!(self, Self::Kill | Self::EndCore(_) | Self::PowerCut | Self::Corrupt(_))
    }

    /// Whether the service is to be judged by it: a copy is none of its.
    #[must_use]
    pub const fn is_of_the_service(&self) -> bool {
        !matches!(self, Self::Corrupt(_))
    }

    /// Whether it fills mailboxes, so that it can be seen whether they keep their bound. Beside other faults it may well not.
    #[must_use]
    pub fn fills_mailboxes(&self) -> bool {
        matches!(self, Self::Knobs(knobs) if knobs.iter().any(|(knob, _)| *knob == Knob::Crowd))
    }

    /// Whether it is of the subject's whole life, and cannot be taken back while it runs.
    #[must_use]
    pub const fn is_of_the_start(&self) -> bool {
        matches!(self, Self::MonotonicOffset(_) | Self::Refuse(Call::PerfEventOpen))
    }
}

/// One fault of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Name, unique within its scenario.
    pub name: String,
    /// What it is, in a few words.
    pub what: String,
    /// What is done.
    pub act: Act,
    /// How long it lasts, ns; `None`: as long as the plan says.
    #[serde(default)]
    pub hold_ns: Option<u64>,
    /// Largest P99 of what is due while it lasts, ns.
    #[serde(default)]
    pub p99_max_ns: Option<u64>,
    /// Smallest share of what is due from the injection to the return that must be answered.
    #[serde(default)]
    pub answered_min: Option<f64>,
}

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name on the command line.
    pub name: String,
    /// What it asks, in a sentence.
    pub about: String,
    /// Its faults, in order.
    pub faults: Vec<Fault>,
}

fn fault(name: &str, what: &str, act: Act) -> Fault {
    let (name, what) = (name.to_owned(), what.to_owned());
    Fault { name, what, act, hold_ns: None, p99_max_ns: None, answered_min: None }
}

/// One during which the service goes on: so much is answered all the same, this fast.
fn unharmed(fault: Fault, answered_min: f64, p99_max_ns: Option<u64>) -> Fault {
    Fault { answered_min: Some(answered_min), p99_max_ns, ..fault }
}

fn scenario(name: &str, about: &str, faults: Vec<Fault>) -> Scenario {
    Scenario { name: name.to_owned(), about: about.to_owned(), faults }
}

fn knob(knob: Knob, level: u64) -> Act {
    Act::Knobs(vec![(knob, level)])
}

/// Every scenario of the program.
#[must_use]
pub fn all() -> Vec<Scenario> {
    [
        network_partition,
        process_crash,
        event_store_corruption,
        memory_exhaustion,
        cpu_throttling,
        disk_io_stress,
        clock_skew,
        dependency_failure,
        slow_consumer,
        thundering_herd,
        poison_message,
        fd_exhaustion,
    ]
    .map(|of: fn() -> Scenario| of())
    .into()
}

/// The faults of a word as on the command line, SCENARIO or SCENARIO/FAULT, each as SCENARIO/FAULT; none of a word that
/// is no scenario of the program.
#[must_use]
pub fn named(word: &str) -> Vec<(String, Fault)> {
    let (name, fault) = word.split_once('/').map_or((word, None), |(a, b)| (a, Some(b)));
    let of = all().into_iter().filter(|of| of.name == name).flat_map(|of| of.faults);
    of.filter(|of| fault.is_none_or(|fault| of.name == fault))
        .map(|of| (format!("{name}/{}", of.name), of))
        .collect()
}

fn network_partition() -> Scenario {
    let every = (Knob::LinkLossPpm, 1_000_000);
    scenario(
        "network_partition",
        "cores, or processes, cannot reach each other",
        vec![
            fault("total", "no message between cores arrives", Act::Knobs(vec![every])),
            fault(
                "one_way",
                "no message of core 0 arrives elsewhere",
                Act::Knobs(vec![(Knob::LinkFrom, 1), every]),
            ),
            fault(
                "third",
                "a third of the agents gets no message of other cores",
                Act::Knobs(vec![(Knob::LinkSharePermille, 333), every]),
            ),
            fault("loss", "one message in ten is lost", knob(Knob::LinkLossPpm, 100_000)),
            fault("delay", "messages take 50 ms longer", knob(Knob::LinkDelayNs, 50 * MS)),
            fault("tcp", "the link to half of the responders is down", Act::Partition(Way::Both)),
            fault(
                "tcp_one_way",
                "what half of the responders answer does not arrive",
                Act::Partition(Way::Back),
            ),
            fault(
                "tcp_loss",
                "of packets to half of the responders one in ten is lost",
                Act::Partition(Way::Loss(10)),
            ),
        ],
    )
}

fn process_crash() -> Scenario {
    scenario(
        "process_crash",
        "the process dies and is started again; a handler panics",
        vec![
            fault("kill", "SIGKILL, restart, replay of the log", Act::Kill),
            fault("core", "the thread of core 0 panics, restart, replay", Act::EndCore(0)),
            fault("panic", "every agent of core 0 panics once", knob(Knob::CorePanic, 1)),
        ],
    )
}

fn event_store_corruption() -> Scenario {
    scenario(
        "event_store_corruption",
        "what the log holds is not what was written",
        vec![
            fault("bit_flip", "one bit of a record", Act::Corrupt(Damage::BitFlip)),
            fault("truncated_tail", "the end is cut off", Act::Corrupt(Damage::TruncatedTail)),
            fault("zeroed_page", "4 KiB of zeros", Act::Corrupt(Damage::ZeroedPage)),
            fault("duplicate", "a record twice", Act::Corrupt(Damage::DuplicatedRecord)),
            fault("eio", "every write fails with EIO", knob(Knob::LogWriteErrno, EIO)),
            fault("short_write", "writes leave 100 bytes", knob(Knob::LogWriteShort, 101)),
        ],
    )
}

fn memory_exhaustion() -> Scenario {
    scenario(
        "memory_exhaustion",
        "memory runs short",
        vec![
            fault("limit", "32 MiB are left, and a neighbour takes them", Act::Memory(97)),
            unharmed(
                fault(
                    "allocation",
                    "one allocation in 10 fails where requests are made",
                    knob(Knob::AllocFailEvery, 10),
                ),
                0.85,
                None,
            ),
        ],
    )
}

fn cpu_throttling() -> Scenario {
    scenario(
        "cpu_throttling",
        "CPU time is withheld",
        vec![
            unharmed(
                fault("quota", "half of a core for all threads", Act::CpuQuota(50)),
                0.999,
                Some(300 * MS),
            ),
            fault("hog", "somebody computes on the last core", Act::CpuHog),
            fault("held_core", "the thread of the last core is stopped", Act::HoldCore),
            fault("frozen", "every thread is stopped", Act::Freeze),
        ],
    )
}

fn disk_io_stress() -> Scenario {
    scenario(
        "disk_io_stress",
        "the disk of the log is slow, full, gone",
        vec![
            unharmed(
                fault("throttle", "the device writes 1 MB/s", Act::DiskThrottle(1_000_000)),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "slow_sync",
                    "a sync takes 500 ms longer",
                    knob(Knob::LogSyncDelayNs, 500 * MS),
                ),
                0.999,
                None,
            ),
            fault("full", "the file system is full", Act::DiskFull),
            fault("power_cut", "what was not synced is gone", Act::PowerCut),
        ],
    )
}

fn clock_skew() -> Scenario {
    scenario(
        "clock_skew",
        "clocks say something else",
        vec![
            unharmed(
                fault(
                    "ahead",
                    "the wall clock jumps 300 s ahead",
                    knob(Knob::RealtimeOffsetNs, 300_000 * MS),
                ),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "behind",
                    "the wall clock jumps 300 s back",
                    knob(Knob::RealtimeOffsetNs, (300_000 * MS).wrapping_neg()),
                ),
                0.999,
                None,
            ),
            unharmed(
                fault("drift", "the wall clock gains 1 %", knob(Knob::RealtimeDriftPpm, 10_000)),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "namespace",
                    "the monotonic clock is 1,000 s ahead",
                    Act::MonotonicOffset(1_000),
                ),
                0.999,
                None,
            ),
        ],
    )
}

fn dependency_failure() -> Scenario {
    scenario(
        "dependency_failure",
        "something that the subject needs refuses",
        vec![
            fault("log_writer", "every sync of the log fails", knob(Knob::LogSyncErrno, EIO)),
            unharmed(
                fault(
                    "perf_source",
                    "the kernel refuses its counters",
                    Act::Refuse(Call::PerfEventOpen),
                ),
                0.999,
                None,
            ),
            fault(
                "io_uring",
                "killed, and the kernel refuses rings to those that are to go on",
                Act::Refuse(Call::IoUringSetup),
            ),
            fault(
                "proxy_reset",
                "every connection to the peer is reset",
                Act::Proxy(vec![(Knob::ProxyReset, 1)]),
            ),
            fault(
                "proxy_half_open",
                "connections to the peer stay and carry nothing",
                Act::Proxy(vec![(Knob::ProxyHalfOpen, 1)]),
            ),
            fault(
                "proxy_latency",
                "the peer is 50 ms away, each way",
                Act::Proxy(vec![(Knob::ProxyLatencyNs, 50 * MS)]),
            ),
        ],
    )
}

fn slow_consumer() -> Scenario {
    let percent = (Knob::SlowConsumerPermille, 10);
    scenario(
        "slow_consumer",
        "some agents do not read",
        vec![
            fault("percent", "1 % of the agents take no message", Act::Knobs(vec![percent])),
            fault(
                "crowd",
                "every second request is for one of two that take no message",
                Act::Knobs(vec![percent, (Knob::Crowd, 2)]),
            ),
        ],
    )
}

fn thundering_herd() -> Scenario {
    scenario(
        "thundering_herd",
        "all ask at once",
        vec![fault("all", "every agent asks at the same instant", knob(Knob::HerdNow, 1))],
    )
}

fn poison_message() -> Scenario {
    scenario(
        "poison_message",
        "messages that make their handler panic",
        vec![fault("panic", "one request in 1,000 does", knob(Knob::PollPanicEvery, 1_000))],
    )
}

fn fd_exhaustion() -> Scenario {
    scenario(
        "fd_exhaustion",
        "no descriptor is left",
        vec![fault(
            "limit",
            "nothing can be opened, and connections to half of the responders end",
            Act::Together(vec![Act::Descriptors(0), Act::Proxy(vec![(Knob::ProxyReset, 1)])]),
        )],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_eight_are_there() {
        let all = all();
        for name in [
            "network_partition",
            "process_crash",
            "event_store_corruption",
            "memory_exhaustion",
            "cpu_throttling",
            "disk_io_stress",
            "clock_skew",
            "dependency_failure",
        ] {
            assert_eq!(all.iter().filter(|of| of.name == name).count(), 1, "{name}");
        }
        for of in &all {
            for fault in &of.faults {
                assert_eq!(of.faults.iter().filter(|f| f.name == fault.name).count(), 1);
            }
        }
    }

    #[test]
    fn what_is_told_to_the_subject_is_said_to_be() {
        let faults = all().into_iter().flat_map(|of| of.faults);
        for fault in faults {
            let told = matches!(fault.act, Act::Knobs(_) | Act::EndCore(_));
            assert_eq!(fault.act.how() == How::InProcess, told, "{fault:?}");
            let on_the_way = matches!(fault.act, Act::Proxy(_));
            assert_eq!(fault.act.how() == How::Proxy, on_the_way, "{fault:?}");
        }
        let together = |act| Act::Together(vec![Act::Knobs(Vec::new()), act]).how();
        assert_eq!(together(Act::Knobs(Vec::new())), How::InProcess);
        assert_eq!(together(Act::Proxy(Vec::new())), How::Proxy);
        let three = Act::Together(vec![Act::Freeze, Act::Proxy(Vec::new())]);
        assert!(three.how() == How::Kernel && three.needs_peer() && !Act::Freeze.needs_peer());
        assert_eq!((together(Act::Freeze), Act::Kill.how()), (How::Kernel, How::Kernel));
        assert!(Act::Kill.restarts());
        let [counters, rings] = [Call::PerfEventOpen, Call::IoUringSetup].map(Act::Refuse);
        assert!(counters.is_of_the_start() && !counters.restarts());
        assert!(rings.restarts() && !rings.is_of_the_start());
    }
}
