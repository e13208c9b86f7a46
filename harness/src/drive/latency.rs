//! The controller's part of the attribution: who is in which leg, and each window's hand-over.

use std::sync::Arc;

use tailbeam_probes::collect::heap::live;
use tailbeam_probes::collect::perf::{Support, capabilities};
use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::stats::Histogram;
use tailbeam_runtime::StampSource;

use super::DriveError;
use super::controller::Controller;
use super::fleet::{Counts, FleetSeconds};
use super::occupancy::{Sampler, Samples, Shared, nap_ns};
use crate::evidence::records::{UnitCosts, UnknownThing};
use crate::load::account::take_readings;
use crate::load::legs::Legs;
use crate::load::{CoreLatency, Recorder, Series, SeriesSet, Workload, recorder, units};
use crate::observe::{self, Missing, Notes, Setup};
use crate::plan::Plan;

/// What a core fills in a window; two of them take turns.
#[derive(Debug)]
pub(super) struct Sheet {
    latency: Box<CoreLatency>,
    notes: Box<Notes>,
}

/// What the controller keeps for the attribution.
pub(super) struct Latency {
    pub(super) legs: Arc<[Legs]>,
    setup: Setup,
    /// Empty ones for the next hand-over, by shard.
    spares: Vec<Option<Sheet>>,
    supports: Vec<Option<Support>>,
    /// Of requests in legs, since the second began.
    pub(super) samples: Shared,
    /// What the window had of them before.
    of_window: Samples,
    /// Naps of the controller between two visits.
    naps: u64,
    /// Windows that are handed over and not written.
    ready: Vec<LatencyWindow>,
    fleet: FleetSeconds,
}

impl Latency {
    pub(super) fn new(plan: &Plan, shards: usize) -> Self {
        let setup = Setup::new(&plan.observe, plan.duration_ns);
        let sheet = |shard| {
            let latency = Box::new(CoreLatency::of(plan, shard, shards));
            Sheet { latency, notes: Box::new(Notes::new(setup.ticks)) }
        };
        Self {
            legs: (0..shards).map(|_| Legs::default()).collect(),
            setup,
            spares: (0..shards).map(|shard| setup.on.then(|| sheet(shard))).collect(),
            supports: vec![None; shards],
            samples: Shared::default(),
            of_window: Samples::default(),
            naps: 0,
            ready: Vec::new(),
            fleet: FleetSeconds::default(),
        }
    }

    /// How cores are observed.
    pub(super) const fn setup(&self) -> Setup {
        self.setup
    }

    /// What measuring took on the core that it took most of, in the windows that are handed over, ns.
    pub(super) fn self_ns(&self) -> u64 {
        self.ready.iter().map(|window| window.self_ns).max().unwrap_or(0)
    }

    /// How long to sleep until the next visit, ns: drawn, so that it does not keep step with the load.
    pub(super) fn nap_ns(&mut self) -> u64 {
        self.naps += 1;
        nap_ns(self.naps, 1)
    }

    /// What samples the requests in the legs.
    pub(super) fn sampler(&self) -> Sampler {
        Sampler::new(Arc::clone(&self.legs), Arc::clone(&self.samples))
    }

    /// Samples since the last call, which the window that runs has too.
    pub(super) fn take_samples(&mut self) -> Samples {
        let taken =
            std::mem::take(&mut *self.samples.lock().expect("nothing panics under the lock"));
        self.of_window.add(taken);
        taken
    }

    /// Forgets what was sampled before the first request was due.
    pub(super) fn restart_samples(&mut self) {
        self.take_samples();
        self.of_window = Samples::default();
    }

    /// An empty sheet for a shard whose window ends.
    pub(super) fn spare(&mut self, shard: usize) -> Option<Sheet> {
        self.spares[shard].take()
    }

    /// Makes a window of a full sheet, which is then the next empty one. `span`: its number, begin and end.
    pub(super) fn gather(&mut self, shard: usize, sheet: Sheet, span: (u32, u64, u64)) {
        let (window, from_ns, to_ns) = span;
        let mut made = LatencyWindow { window, from_ns, to_ns, ..LatencyWindow::default() };
        sheet.latency.write(&mut made);
        sheet.notes.write(self.supports[shard].as_ref(), &mut made);
        if shard == 0 {
            // A fact of the fleet: sent on one core, taken on another.
            let samples = std::mem::take(&mut self.of_window);
            (made.occupancy, made.occupancy_samples) = (samples.occupancy, samples.taken);
            made.more.samples_late = samples.late;
            (made.more.seconds, made.more.carried) = self.fleet.take();
        }
        self.ready.push(made);
        self.spares[shard] = Some(sheet);
    }

    /// Windows to write.
    pub(super) fn take(&mut self) -> Vec<LatencyWindow> {
        std::mem::take(&mut self.ready)
    }
}

/// Hands over a core's sheet for an empty one; on the core.
pub(super) fn hand_over(r: &mut Recorder, mut empty: Sheet) -> Sheet {
    empty.latency.restart(r.latency.late_ns());
    let latency = std::mem::replace(&mut r.latency, empty.latency);
    let mut notes = observe::take(empty.notes);
    notes.cost(take_readings().saturating_mul(r.reading_ns));
    Sheet { latency, notes }
}

impl<W: Workload> Controller<'_, W> {
    /// Opens the sources of every core; what they lack.
    pub(super) fn observe(&mut self) -> Result<Vec<UnknownThing>, DriveError> {
        let setup = self.latency.setup;
        let mut unknowns = Vec::new();
        if !setup.on {
            return Ok(unknowns);
        }
        for shard in 0..self.shards {
            let opened = self.on(shard, move |_| {
                let missing = observe::open(setup);
                (missing, observe::with(|core| Some(core.support().clone())))
            })?;
            self.latency.supports[shard] = opened.1;
            for Missing { thing, why } in opened.0 {
                note(&mut unknowns, UnknownThing { thing, unknown: why.cause, remedy: why.remedy });
            }
        }
        if let Err(why) = self.latency.fleet.open() {
            let thing = "time that a CPU quota held the process".to_owned();
            note(&mut unknowns, UnknownThing { thing, unknown: why.cause, remedy: why.remedy });
        }
        for (thing, unknown, remedy) in UNTOLD {
            let (thing, unknown) = (thing.to_owned(), unknown.to_owned());
            note(&mut unknowns, UnknownThing { thing, unknown, remedy: remedy.to_owned() });
        }
        if let Err(why) = live() {
            let thing = "allocations of a turn".to_owned();
            note(&mut unknowns, UnknownThing { thing, unknown: why.cause, remedy: why.remedy });
        }
        Ok(unknowns)
    }

    /// What one stamp and one request take here, by the first core.
    pub(super) fn units(&self) -> Result<Option<UnitCosts>, DriveError> {
        if !self.latency.setup.on {
            return Ok(None);
        }
        let (plan, shards) = (self.plan.clone(), self.shards);
        self.on(0, move |_| Some(units::measure(&plan, shards)))
    }

    /// What was done to all cores in the second that ends.
    pub(super) fn note_fleet_second(&mut self, from_ns: u64, to_ns: u64) {
        if self.latency.setup.on && to_ns > from_ns {
            let now = Counts::read(self.runtime, &self.latency.legs, self.fleet.far.as_deref());
            self.latency.fleet.second((from_ns, to_ns), now);
        }
    }

    /// Forgets what was noted before the first request was due.
    pub(super) fn restart_notes(&mut self) -> Result<(), DriveError> {
        if self.latency.setup.on {
            let now = Counts::read(self.runtime, &self.latency.legs, self.fleet.far.as_deref());
            self.latency.fleet.restart(now);
        }
        (0..self.shards)
            .try_for_each(|shard| self.on(shard, |_| observe::with(|core| core.restart())))
    }

    /// Closes the sources of every core.
    pub(super) fn unobserve(&self) -> Result<(), DriveError> {
        (0..self.shards).try_for_each(|shard| self.on(shard, |_| observe::close()))
    }

    /// Gives the cores the latency above which requests of the next window are late: this one's P99.
    pub(super) fn set_late(&self, sets: &[SeriesSet]) -> Result<(), DriveError> {
        let Some(late_ns) = p99_ns(sets) else { return Ok(()) };
        (0..self.shards).try_for_each(|shard| {
            self.on(shard, move |_| {
                recorder::with(|r| r.latency.set_late_ns(Some(late_ns)));
            })
        })
    }
}

/// What no host tells here.
const UNTOLD: [(&str, &str, &str); 1] = [(
    "holes in time (interrupts, the host, firmware) apart from turns",
    "the runtime tells when it looked on for work, not each look: a hole in a turn is part of the turn",
    "read steal and wait in `counters`; a hole of a shard that waits shows as a late hop",
)];

/// P99 of the system latency of a window.
pub(super) fn p99_ns(sets: &[SeriesSet]) -> Option<u64> {
    let mut all = Histogram::new();
    sets.iter().filter_map(|set| set.get(Series::System as usize)).for_each(|set| all.merge(set));
    all.quantile(0.99)
}

/// Adds it once: cores lack the same.
fn note(unknowns: &mut Vec<UnknownThing>, unknown: UnknownThing) {
    if !unknowns.contains(&unknown) {
        unknowns.push(unknown);
    }
}

/// Where the stamps of turns come from, in words.
pub(super) fn stamps(source: &StampSource) -> String {
    match source {
        StampSource::Off => "off".to_owned(),
        StampSource::Processor => "the processor's counter".to_owned(),
        StampSource::Kernel { why } => format!("the kernel's clock: {why}"),
    }
}

/// What this host allows, as the first table of a report shows it; a few ms.
pub(super) fn matrix(plan: &Plan) -> Vec<String> {
    if !plan.observe.on || !observe::BUILT {
        return Vec::new();
    }
    let rows = capabilities().rows;
    rows.iter().map(|row| format!("{}: {row}", row.area.name())).collect()
}
