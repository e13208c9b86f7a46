//! The cores of the host while a program runs: /proc/stat, and groups of whole CPUs where they are
//! allowed.

use super::reasons::Reasons;
use crate::Unavailable;
use crate::clock;
use crate::collect::cpu_times::{CpuTimes, CpuTimesReader};
use crate::collect::perf::{
    CounterBackend as _, CpuGroup, CpuOptions, Kind, Reading, Rules, between, rules,
};
use crate::record::program::{CoreWindow, Count, WHATS, What};

const COUNTED: [(What, Kind); 7] = [
    (What::Switches, Kind::Switches),
    (What::MajorFaults, Kind::MajorFaults),
    (What::Migrations, Kind::Migrations),
    (What::Cycles, Kind::Cycles),
    (What::Instructions, Kind::Instructions),
    (What::CacheMisses, Kind::CacheMisses),
    (What::BranchMisses, Kind::BranchMisses),
];

#[derive(Debug)]
struct Core {
    cpu: u32,
    times: Option<CpuTimes>,
    group: Result<(CpuGroup, Reading, Rules), Unavailable>,
}

/// The cores.
#[derive(Debug)]
pub(super) struct Cores {
    reader: Result<CpuTimesReader, Unavailable>,
    cores: Vec<Core>,
}

impl Cores {
    /// Of these CPUs; groups of at most `groups_max` of them.
    pub(super) fn open(cpus: &[u32], groups_max: usize) -> Self {
        let count = cpus.iter().max().map_or(1, |last| *last as usize + 1);
        let mut reader = CpuTimesReader::open(count);
        let cores = cpus
            .iter()
            .enumerate()
            .map(|(place, &cpu)| {
                let group = match place < groups_max {
                    true => CpuGroup::open(cpu, CpuOptions::default()),
                    false => Err(Unavailable {
                        source: "perf_event_open",
                        cause: format!("{groups_max} CPUs have counters already"),
                        remedy: "raise ulimit -n".to_owned(),
                    }),
                };
                let group = group.map(|mut group| {
                    let mut first = Reading::default();
                    group.read_from_afar(clock::monotonic_ns(), &mut first);
                    (group, first, rules(Some(cpu)))
                });
                let times = reader.as_mut().ok().and_then(|reader| reader.read(cpu).ok());
                Core { cpu, times, group }
            })
            .collect();
        Self { reader, cores }
    }

    /// Why whole CPUs are not counted, if they are not.
    pub(super) fn refused(&self) -> Option<&Unavailable> {
        self.cores.iter().find_map(|core| core.group.as_ref().err())
    }

    /// Why there are no times, if there are none.
    pub(super) fn no_times(&self) -> Option<&Unavailable> {
        self.reader.as_ref().err()
    }

    /// What each core did since the last look.
    pub(super) fn look(&mut self, reasons: &mut Reasons) -> Vec<CoreWindow> {
        let reader = &mut self.reader;
        let looked = self.cores.iter_mut().map(|core| {
            let now = match reader {
                Ok(reader) => reader.read(core.cpu),
                Err(why) => Err(why.clone()),
            };
            let times = times(core.times, &now, reasons);
            core.times = now.ok();
            let [busy_ns, idle_ns, irq_ns, steal_ns] = times;
            let counts = counts(&mut core.group, reasons);
            CoreWindow { cpu: core.cpu, busy_ns, idle_ns, irq_ns, steal_ns, counts }
        });
        looked.collect()
    }
}

/// Busy, idle, in interrupts and stolen.
fn times(
    before: Option<CpuTimes>,
    now: &Result<CpuTimes, Unavailable>,
    reasons: &mut Reasons,
) -> [Count; 4] {
    match (before, now) {
        (_, Err(why)) => [reasons.unavailable(why); 4],
        (None, Ok(_)) => {
            [reasons.say("/proc/stat", "the core came while we looked", "none needed"); 4]
        }
        (Some(a), Ok(b)) => {
            let ticks = |of: fn(&CpuTimes) -> u64| Count::Ticks(of(b).saturating_sub(of(&a)));
            [
                ticks(|t| t.user_ns + t.system_ns + t.irq_ns + t.softirq_ns),
                ticks(|t| t.idle_ns),
                ticks(|t| t.irq_ns + t.softirq_ns),
                ticks(|t| t.steal_ns),
            ]
        }
    }
}

fn counts(
    group: &mut Result<(CpuGroup, Reading, Rules), Unavailable>,
    reasons: &mut Reasons,
) -> [Count; WHATS] {
    let mut counts =
        [reasons.say("perf", "of a whole core this is not counted", "see its threads"); WHATS];
    match group {
        Ok((group, last, rules)) => {
            let mut now = Reading::default();
            group.read_from_afar(clock::monotonic_ns(), &mut now);
            let delta = between(group.support(), rules, last, &now);
            *last = now;
            for (what, kind) in COUNTED {
                counts[what.index()] = match group.support().of(kind) {
                    Err(why) => reasons.unavailable(why),
                    Ok(_) => reasons.value(&delta.of(kind)),
                };
            }
            let faults = (delta.of(Kind::PageFaults), delta.of(Kind::MajorFaults));
            if let (Some(all), Some(major)) = (faults.0.known(), faults.1.known()) {
                counts[What::MinorFaults.index()] = Count::Exact(all.saturating_sub(major));
            }
        }
        Err(why) => {
            let why = reasons.unavailable(why);
            for (what, _) in COUNTED {
                counts[what.index()] = why;
            }
            counts[What::MinorFaults.index()] = why;
        }
    }
    counts
}
