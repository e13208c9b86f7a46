//! What the scenarios are.

use super::{Act, Damage, Fault, SOCKETS, Scenario, Way};
use crate::chaos::board::Knob;
use crate::chaos::host::Call;

const MS: u64 = 1_000_000;
/// errno of an input or output error, of a device that is full, and of an operation that was cancelled.
/// Time between two segments while a log is to begin them: two cores make 64 MB/s of zeros for it.
pub const RENEW_NS: u64 = 500 * MS;
const EIO: u64 = 5;
const ENOSPC: u64 = 28;
const ECANCELED: u64 = 125;
/// Value of [`Knob::RingWhat`] that has files suffer.
const FILES: u64 = 1;

/// Every one.
pub(super) const ALL: [fn() -> Scenario; 12] = [
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
];

/// One operation in ten of the rings on files fails with this.
fn failing(errno: u64) -> Act {
    Act::Knobs(vec![
        (Knob::RingFailPpm, 100_000),
        (Knob::RingFailErrno, errno),
        (Knob::RingWhat, FILES),
    ])
}

/// Half of the operations of the rings are short.
fn short(what: u64) -> Act {
    Act::Knobs(vec![(Knob::RingShortPpm, 500_000), (Knob::RingWhat, what)])
}

/// Half of the completions of the rings are up to 20 ms late.
fn late(what: u64) -> Vec<(Knob, u64)> {
    vec![(Knob::RingLatePpm, 500_000), (Knob::RingLateNs, 20 * MS), (Knob::RingWhat, what)]
}

/// The same, and others overtake them.
fn late_and_out_of_order(what: u64) -> Act {
    let mut knobs = late(what);
    knobs.push((Knob::RingReorder, 1));
    Act::Knobs(knobs)
}

pub(super) fn fault(name: &str, what: &str, act: Act) -> Fault {
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

/// A wrong time of day is written down where a segment begins.
fn clock(knob: Knob, level: u64) -> Act {
    Act::Knobs(vec![(knob, level), (Knob::LogRenewNs, RENEW_NS)])
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
            fault("restart", "SIGKILL, one bit of an event, restart on that log", Act::KillAndFlip),
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
            fault("ring_error", "one operation on files in ten fails with EIO", failing(EIO)),
            fault("ring_full", "one operation on files in ten fails with ENOSPC", failing(ENOSPC)),
            fault(
                "ring_cancelled",
                "one operation on files in ten is not done and says that it was cancelled",
                failing(ECANCELED),
            ),
            unharmed(
                fault("ring_short", "half of the reads and writes are short", short(FILES)),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "ring_late",
                    "half of the completions of files come up to 20 ms late",
                    Act::Knobs(late(FILES)),
                ),
                0.999,
                None,
            ),
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
                    clock(Knob::RealtimeOffsetNs, 300_000 * MS),
                ),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "behind",
                    "the wall clock jumps 300 s back",
                    clock(Knob::RealtimeOffsetNs, (300_000 * MS).wrapping_neg()),
                ),
                0.999,
                None,
            ),
            unharmed(
                fault("drift", "the wall clock gains 1 %", clock(Knob::RealtimeDriftPpm, 10_000)),
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
            unharmed(
                fault("ring_short", "half of the sends are short", short(SOCKETS)),
                0.999,
                None,
            ),
            unharmed(
                fault(
                    "ring_late",
                    "half of what sockets complete comes up to 20 ms late and out of order",
                    late_and_out_of_order(SOCKETS),
                ),
                0.999,
                None,
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
