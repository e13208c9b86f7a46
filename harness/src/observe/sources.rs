//! The sources of a core's thread: opened on it, read by it, closed by dropping.

use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::perf::{
    CounterBackend, Delta, OffCpu, Reading, Rules, Support, SwitchRing, ThreadOptions, between,
    open_thread, rules,
};
use tailbeam_probes::collect::schedstat::{Schedstat, Schedule};

/// Bytes of the ring of switches: room for 4,096. As many rings as cores fit under `perf_event_mlock_kb`.
const RING: usize = 256 << 10;
/// Records read by one drain; more come with the next.
const DRAIN_MAX: u64 = 16_384;

/// Something that a core cannot tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) thing: String,
    pub(crate) why: Unavailable,
}

/// What is open.
pub(super) struct Sources {
    backend: Box<dyn CounterBackend>,
    rules: Rules,
    before: Option<Reading>,
    ring: Option<SwitchRing>,
    schedstat: Option<Schedstat>,
    schedule: Option<Schedule>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn unwanted() -> Unavailable {
    Unavailable {
        source: "perf ring",
        cause: "the plan records no switches".to_owned(),
        remedy: "set observe.switches in the plan".to_owned(),
    }
}

impl Sources {
    /// Opens what the host allows for the calling thread.
    pub(super) fn open(switches: bool) -> (Self, Vec<Missing>) {
        let (backend, refused) = open_thread(ThreadOptions::default());
        let mut missing: Vec<Missing> = backend
            .support()
            .missing()
            .map(|(kind, why)| Missing { thing: kind.name().to_owned(), why: why.clone() })
            .collect();
        let mut note = |thing: &str, why: Unavailable| {
            missing.push(Missing { thing: thing.to_owned(), why });
        };
        if let Some(why) = refused {
            note("counter group", why);
        }
        let ring = if switches { SwitchRing::open(RING) } else { Err(unwanted()) };
        let ring = ring.map_err(|why| note("time off the CPU", why)).ok();
        let schedstat = Schedstat::own().map_err(|why| note("schedstat", why)).ok();
        // The thread is pinned, so where it is now is where it stays.
        let cpu = u32::try_from(rustix::thread::sched_getcpu()).ok();
        let sources =
            Self { backend, rules: rules(cpu), before: None, ring, schedstat, schedule: None };
        (sources, missing)
    }

    /// The source of its own count of waiting, if there is one.
    pub(super) const fn schedstat(&self) -> Option<&Schedstat> {
        self.schedstat.as_ref()
    }

    /// Whether switches are recorded.
    pub(super) const fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    pub(super) fn support(&self) -> &Support {
        self.backend.support()
    }

    /// What the counters counted since the last call; `None` at the first.
    pub(super) fn counters(&mut self, now_ns: u64) -> Option<Delta> {
        let mut now = Reading::default();
        self.backend.read(now_ns, &mut now);
        let before = self.before.replace(now)?;
        Some(between(self.backend.support(), &self.rules, &before, &now))
    }

    /// Time on the CPU and ready without it since the last call, ns.
    pub(super) fn schedule(&mut self) -> Option<(u64, u64)> {
        let now = self.schedstat.as_ref()?.read().ok()?;
        let since = now.since(&self.schedule.replace(now)?)?;
        Some((since.run_ns, since.wait_ns))
    }

    /// Time ready without a CPU since the last call of [`schedule`](Self::schedule), ns.
    pub(super) fn waited(&self) -> Option<u64> {
        let now = self.schedstat.as_ref()?.read().ok()?;
        Some(now.since(&self.schedule?)?.wait_ns)
    }

    /// Gives each interval off the CPU since the last call; how many records were lost. `None` without a
    /// ring.
    pub(super) fn drain(&mut self, each: impl FnMut(OffCpu)) -> Option<u64> {
        let drained = self.ring.as_mut()?.drain(DRAIN_MAX, each);
        // What is no record at all is lost as well.
        Some(drained.lost + drained.broken)
    }

    /// Forgets what was read: the next interval begins with the next call.
    pub(super) fn restart(&mut self) {
        (self.before, self.schedule) = (None, None);
    }
}
