//! Counters of threads and CPUs: one group each, read by its own thread, raw.
//!
//! What is counted and from where is a [`Support`]: a source or the reason why there is none. A
//! [`CounterBackend`] takes [`Reading`]s; [`between`] makes [`Delta`]s of two of them and judges their
//! quality. There are five: [`ThreadGroup`] (perf-event; all privileges that allow anything),
//! [`CpuGroup`] (perf-event2; needs paranoid 0 or CAP_PERFMON), [`TaskGroup`] (of another program), [`Plain`] (no perf at all) and
//! [`Scripted`] for tests. [`open_thread`] gives the best that this host allows.
//!
//! Faults and switches come from getrusage(2): at paranoid 2 perf opens `context-switches` with
//! exclude_kernel only, and then it reads 0 for ever. What getrusage counts is the same, exact, never
//! shared by time, and needs no privilege.
//!
//! Who reads: a group is read by the thread that opened it. That is 0.7 us; from another core it is 5
//! to 13 us and an interrupt there. The types are not `Send`.
//!
//! Off-CPU time is [`SwitchRing`]. What this host allows, tried out, is [`capabilities`]. [`left_open`]
//! proves that what was closed is closed: a ring that stays mapped keeps its event running.

mod capability;
mod cpu;
mod errno;
mod fake;
mod kind;
mod left;
mod open;
mod pairing;
mod plain;
mod quality;
mod reading;
mod switches;
mod task;
mod thread;

pub use capability::{Area, Capabilities, Environment, Row, capabilities};
pub use cpu::{CpuGroup, CpuOptions};
pub use errno::{explain, starved};
pub use fake::Scripted;
pub use kind::{KINDS, Kind, Scope, Source, Support};
pub use left::{Left, left_open};
pub use pairing::{OffCpu, Record};
pub use plain::Plain;
pub use quality::{Delta, Quality, Rules, Suspect, Unknown, Value, between};
pub use reading::{Reading, State};
pub use switches::{Drained, SwitchRing};
pub use task::TaskGroup;
pub(in crate::collect) use task::ended;
pub use thread::{ThreadGroup, ThreadOptions};

use crate::Unavailable;

/// Takes readings of one thread or one CPU.
pub trait CounterBackend {
    /// What is counted, and why the rest is not.
    fn support(&self) -> &Support;

    /// Reads all counters into `into`. `at_ns`: now, ns of `CLOCK_MONOTONIC`. Allocates nothing; a
    /// failure is the reading's [`State`].
    fn read(&mut self, at_ns: u64, into: &mut Reading);
}

/// Opens the counters of the calling thread: a group where the kernel lets us, or else what needs no
/// perf, and then why. Costs some ten system calls.
#[must_use]
pub fn open_thread(options: ThreadOptions) -> (Box<dyn CounterBackend>, Option<Unavailable>) {
    match ThreadGroup::open(options) {
        Ok(group) => (Box::new(group), None),
        Err(why) => (Box::new(Plain::new(&why)), Some(why)),
    }
}

/// Level of `perf_event_paranoid`; `None` when it cannot be read.
#[must_use]
pub fn paranoid() -> Option<i32> {
    std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?.trim().parse().ok()
}

/// The kernel hands counters from group to group this often where no PMU says otherwise: a tick of the
/// slowest usual kernel (HZ = 100).
const ROTATION_NS: u64 = 10_000_000;

/// The rules of this host for readings from `cpu`, or from any CPU. Reads some files of sysfs.
#[must_use]
pub fn rules(cpu: Option<u32>) -> Rules {
    let devices = std::path::Path::new("/sys/bus/event_source/devices");
    let slowest = std::fs::read_dir(devices)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|device| {
            let text = std::fs::read_to_string(device.path().join("perf_event_mux_interval_ms"));
            text.ok()?.trim().parse::<u64>().ok()
        })
        .max();
    let rotation_ns = slowest.map_or(ROTATION_NS, |ms| ms.saturating_mul(1_000_000));
    Rules { rotation_ns, cpu }
}

/// `None` where there is no such PMU, so no watchdog that could hold one of its counters.
fn watchdog() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/nmi_watchdog").is_ok_and(|text| text.trim() == "1")
}

/// errno of an I/O error; 0 when it has none.
pub(in crate::collect) fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
