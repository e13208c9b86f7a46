//! A recording under way: drains the rings, looks at the threads when it is time, and writes what came.
//! Nothing that fails here touches the program: a recording that cannot go on ends, and says so.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tailbeam_harness::evidence::ProgramLog;
use tailbeam_probes::clock;
use tailbeam_probes::collect::profile::TreeOptions;
use tailbeam_probes::collect::program::{Watch, WatchOptions};
use tailbeam_probes::record::program::{ProgramEnd, ProgramStart, ProgramTotal};

use crate::args::Record;

/// Between two drains of the rings, ns: at 100,000 switches a second 256 KiB last 40 ms; 99 Hz need none.
const DRAIN_NS: u64 = 100_000_000;
/// Descriptors that we ask for.
const DESCRIPTORS: u64 = 65_536;

/// How to watch a program that is not started yet: within the limits that it will inherit.
pub(super) fn launch_options(args: &Record) -> WatchOptions {
    let now = getrlimit(Resource::Nofile).current.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    with_descriptors(args, usize::try_from(now).unwrap_or(usize::MAX))
}

/// How to watch, by the command line and by the descriptors that there are.
pub(super) fn options(args: &Record) -> WatchOptions {
    with_descriptors(args, descriptors())
}

fn with_descriptors(args: &Record, descriptors: usize) -> WatchOptions {
    let tree = TreeOptions {
        hz: if args.no_profile { 0 } else { args.hz },
        switches: args.switches,
        descriptors_max: descriptors / 2,
        ..TreeOptions::default()
    };
    // Nine counters at most.
    let groups_max = args.counted_threads.min(descriptors / 24);
    WatchOptions { tree, groups_max, cores_max: descriptors / 24, ..WatchOptions::default() }
}

/// Descriptors that this process may have. Asks for more up to the hard limit, so it is called when what
/// we start has its own limit already.
fn descriptors() -> usize {
    let now = getrlimit(Resource::Nofile);
    let wanted = now.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let current = now.current.unwrap_or(u64::MAX);
    if current < wanted {
        let raised = Rlimit { current: Some(wanted), maximum: now.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return usize::try_from(wanted).unwrap_or(usize::MAX);
        }
    }
    usize::try_from(current.min(DESCRIPTORS)).unwrap_or(usize::MAX)
}

/// A recording.
pub(super) struct Recording {
    parts: Option<(Watch, ProgramLog)>,
    interval_ns: u64,
    start_ns: u64,
    stop_ns: Option<u64>,
    next_ns: u64,
    threads: usize,
    samples: u64,
    self_ns: u64,
    /// What there is to say at the end.
    told: Vec<String>,
}

/// Gives the kernel's totals at the end.
type Totals<'a> = &'a mut dyn FnMut(&Watch) -> Option<ProgramTotal>;

impl Recording {
    /// Begins to write what `watch` sees.
    pub(super) fn begin(watch: Watch, start: &ProgramStart, args: &Record, dir: &Path) -> Self {
        let mut told = Vec::new();
        for mode in &start.modes {
            for (what, why) in &mode.missing {
                // What nobody asked for is in the report.
                if why.source != "switch records" {
                    let mode = &mode.part;
                    told.push(format!("unknown: {mode}: {what}: {}; {}", why.cause, why.remedy));
                }
            }
        }
        let parts = match ProgramLog::create(dir, start, args.max_disk) {
            Ok(log) => Some((watch, log)),
            Err(error) => {
                told.push(format!("not recorded: {error}"));
                None
            }
        };
        Self {
            parts,
            interval_ns: args.interval,
            start_ns: start.start_ns,
            stop_ns: args.duration.map(|ns| start.start_ns.saturating_add(ns)),
            next_ns: 0,
            threads: 0,
            samples: 0,
            self_ns: 0,
            told,
        }
    }

    /// How long nothing is to be done.
    pub(super) fn idle(&self, now_ns: u64) -> Duration {
        if self.parts.is_none() {
            return Duration::from_secs(3_600);
        }
        let mut next = self.next_ns.min(now_ns + DRAIN_NS);
        if let Some(stop) = self.stop_ns {
            next = next.min(stop);
        }
        Duration::from_nanos(next.saturating_sub(now_ns))
    }

    /// Whether it goes on.
    pub(super) const fn goes_on(&self) -> bool {
        self.parts.is_some()
    }

    /// The program as it is watched.
    pub(super) fn watch(&self) -> Option<&Watch> {
        self.parts.as_ref().map(|(watch, _)| watch)
    }

    /// Does what is due.
    pub(super) fn step(&mut self, now_ns: u64) {
        let Some((watch, log)) = &mut self.parts else { return };
        if self.stop_ns.is_some_and(|stop| now_ns >= stop) {
            self.end("duration", now_ns, None);
            return;
        }
        if now_ns < self.next_ns {
            watch.drain(now_ns);
            return;
        }
        // A look that comes late does not come twice.
        self.next_ns = now_ns + self.interval_ns;
        let batch = watch.look(now_ns);
        self.threads += batch.tick.born.len();
        self.samples += batch.tick.ring.samples;
        self.self_ns += batch.tick.self_ns;
        let written = log.window(&batch.tick, &batch.stacks, &batch.samples);
        let full = log.is_full();
        if let Err(error) = written {
            self.told.push(format!("recorded in part: {error}"));
            self.parts = None;
        } else if full {
            self.told.push("recorded in part: the recording has reached --max-disk".to_owned());
            self.end("disk budget", now_ns, None);
        }
    }

    /// Takes the last look and seals the run; `total` gives the kernel's totals, where there are any.
    pub(super) fn end(&mut self, reason: &str, now_ns: u64, total: Option<Totals<'_>>) {
        let Some((mut watch, mut log)) = self.parts.take() else { return };
        let batch = watch.last_look(now_ns);
        self.threads += batch.tick.born.len();
        self.samples += batch.tick.ring.samples;
        self.self_ns += batch.tick.self_ns;
        let end = ProgramEnd {
            reason: reason.to_owned(),
            ended_unix_ns: clock::realtime_ns(),
            end_ns: now_ns,
            total: total.and_then(|total| total(&watch)),
            samples_left_out: watch.samples_without_stack(),
            self_ns: self.self_ns,
        };
        let written =
            log.window(&batch.tick, &batch.stacks, &batch.samples).and_then(|()| log.end(&end));
        if let Err(error) = written {
            self.told.push(format!("recorded in part: {error}"));
        }
        let seconds = now_ns.saturating_sub(self.start_ns) as f64 / 1e9;
        let (threads, samples) = (self.threads, self.samples);
        self.told.push(format!("recorded {seconds:.1} s: {threads} threads, {samples} samples"));
    }

    /// What there is to say.
    pub(super) fn told(self) -> Vec<String> {
        self.told
    }
}
