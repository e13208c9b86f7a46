//! The scenarios: which faults each has, and what is done for a fault. Values only; who does it is elsewhere.

use serde::{Deserialize, Serialize};

use super::board::Knob;
use super::host::Call;

mod given;
mod table;

pub use table::RENEW_NS;

pub use given::{ScenarioError, check, drawn, swarm};

/// Value of [`Knob::RingWhat`] that has a subject's sockets suffer.
const SOCKETS: u64 = 2;

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
    /// Several at once: some by the kernel, others in process or by a proxy.
    Mixed,
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
            Self::Mixed => "by the kernel and in process or by a proxy",
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
    /// SIGKILL, one bit of an event in each of its logs is flipped, and another process that goes on with the run and these
    /// logs.
    KillAndFlip,
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
            Self::Together(acts) => {
                let any = |how| acts.iter().any(|act| act.how() == how);
                let own = any(How::InProcess) || any(How::Proxy);
                match any(How::Kernel) || any(How::Mixed) {
                    true if own => How::Mixed,
                    true => How::Kernel,
                    false if any(How::Proxy) => How::Proxy,
                    false => How::InProcess,
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
            // Nothing else of a subject is on sockets.
            Self::Knobs(knobs) => {
                knobs.iter().any(|&(knob, level)| knob == Knob::RingWhat && level & SOCKETS != 0)
            }
            Self::Together(acts) => acts.iter().any(Self::needs_peer),
            other => other.needs_proxy(),
        }
    }

    /// Whether the peer must be at the end of a cable.
    #[must_use]
    pub fn needs_cable(&self) -> bool {
        match self {
            Self::Partition(_) => true,
            Self::Together(acts) => acts.iter().any(Self::needs_cable),
            _ => false,
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
            Self::Kill
                | Self::KillAndFlip
                | Self::EndCore(_)
                | Self::PowerCut
                | Self::Refuse(Call::IoUringSetup)
        )
    }

    /// Whether it lasts: a process that ends and a copy that is damaged are so at once.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        !matches!(
            self,
            Self::Kill | Self::KillAndFlip | Self::EndCore(_) | Self::PowerCut | Self::Corrupt(_)
        )
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

/// Every scenario of the program.
#[must_use]
pub fn all() -> Vec<Scenario> {
    table::ALL.map(|of| of()).into()
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
        assert!(three.how() == How::Mixed && three.needs_peer() && !Act::Freeze.needs_peer());
        assert_eq!((together(Act::Freeze), Act::Kill.how()), (How::Mixed, How::Kernel));
        assert_eq!(Act::Together(vec![Act::Freeze, Act::CpuHog]).how(), How::Kernel);
        assert!(Act::Kill.restarts());
        let [counters, rings] = [Call::PerfEventOpen, Call::IoUringSetup].map(Act::Refuse);
        assert!(counters.is_of_the_start() && !counters.restarts());
        assert!(rings.restarts() && !rings.is_of_the_start());
    }
}
