//! What the kernel and the runtime say of the process, as differences from the start of the measured part.

use tailbeam_probes::collect::process;
use tailbeam_runtime::{Runtime, ShardStats};

use crate::evidence::records::{CoreRecord, Reading, WindowRecord};

/// Counters at the start of the measured part.
pub(super) struct Before {
    cpu_ns: Result<u64, tailbeam_probes::Unavailable>,
    cores: Vec<ShardStats>,
    times: Vec<Times>,
}

type Times = Result<process::ThreadTimes, tailbeam_probes::Unavailable>;

fn times(cores: &[ShardStats]) -> Vec<Times> {
    cores.iter().map(|core| process::thread_times(core.thread_id)).collect()
}

impl Before {
    pub(super) fn read(runtime: &Runtime) -> Self {
        let cores = runtime.stats();
        Self { cpu_ns: process::cpu_time_ns(), times: times(&cores), cores }
    }

    /// CPU time of the process since then.
    pub(super) fn cpu_since(&self) -> Result<u64, tailbeam_probes::Unavailable> {
        let start = self.cpu_ns.as_ref().map_err(Clone::clone)?;
        Ok(process::cpu_time_ns()?.saturating_sub(*start))
    }

    /// What every core has done since then.
    pub(super) fn cores_since(&self, runtime: &Runtime) -> Vec<CoreRecord> {
        let now = runtime.stats();
        let spent = times(&now).into_iter().zip(&self.times).map(|(now, before)| {
            let (now, before) = (now?, before.as_ref().map_err(Clone::clone)?);
            Ok(process::ThreadTimes {
                cpu_ns: now.cpu_ns.saturating_sub(before.cpu_ns),
                run_delay_ns: now.run_delay_ns.saturating_sub(before.run_delay_ns),
            })
        });
        let cores = now.iter().zip(&self.cores).zip(spent);
        cores.map(|((now, before), spent)| core_record(now, before, &spent)).collect()
    }
}

/// Sums of the epochs before, so that what is cumulative is so over the whole run.
#[derive(Debug, Default)]
pub(super) struct Carried {
    cores: Vec<CoreRecord>,
    cpu_ns: Option<Reading>,
}

impl Carried {
    /// As the last window on disk says; nothing when there is none.
    pub(super) fn of(last: Option<&WindowRecord>) -> Self {
        last.map_or_else(Self::default, |last| Self {
            cores: last.cores.clone(),
            cpu_ns: Some(last.cpu_ns.clone()),
        })
    }

    /// CPU time of the run.
    pub(super) fn cpu(&self, own: Reading) -> Reading {
        self.cpu_ns.as_ref().map_or_else(|| own.clone(), |before| sum(before, &own))
    }

    /// Counters of the cores since the first request of the run.
    pub(super) fn cores(&self, mut own: Vec<CoreRecord>) -> Vec<CoreRecord> {
        for (now, before) in own.iter_mut().zip(&self.cores) {
            now.panicked += before.panicked;
            now.turns += before.turns;
            now.doorbells += before.doorbells;
            now.enters += before.enters;
            now.busy_ns += before.busy_ns;
            now.parked_ns += before.parked_ns;
            now.run_delay_ns = sum(&before.run_delay_ns, &now.run_delay_ns);
            now.cpu_ns = sum(&before.cpu_ns, &now.cpu_ns);
            now.spun_ns = sum(&before.spun_ns, &now.spun_ns);
            now.timer_late_max_ns = now.timer_late_max_ns.max(before.timer_late_max_ns);
            now.dead_letters += before.dead_letters;
        }
        own
    }
}

/// What is missing on one side is missing in the sum.
fn sum(before: &Reading, own: &Reading) -> Reading {
    match (before, own) {
        (Reading::Value(before), Reading::Value(own)) => Reading::Value(before + own),
        (missing @ Reading::Missing { .. }, _) | (_, missing) => missing.clone(),
    }
}

pub(super) fn no_pss() -> tailbeam_probes::Unavailable {
    tailbeam_probes::Unavailable {
        source: "/proc/self/smaps_rollup",
        cause: "the kernel gives no smaps_rollup for this process".to_owned(),
        remedy: "use a kernel with CONFIG_PROC_PAGE_MONITOR".to_owned(),
    }
}

pub(super) fn reading(value: Result<u64, tailbeam_probes::Unavailable>) -> Reading {
    match value {
        Ok(value) => Reading::Value(value),
        Err(gone) => Reading::Missing { unknown: gone.cause, remedy: gone.remedy },
    }
}

fn core_record(stats: &ShardStats, before: &ShardStats, spent: &Times) -> CoreRecord {
    let part = |take: fn(&process::ThreadTimes) -> u64| {
        reading(spent.as_ref().map(take).map_err(Clone::clone))
    };
    CoreRecord {
        core: stats.core as u64,
        agents: stats.live_agents,
        panicked: stats.panicked,
        turns: stats.turns - before.turns,
        doorbells: stats.doorbells - before.doorbells,
        enters: stats.enters - before.enters,
        busy_ns: stats.busy_ns - before.busy_ns,
        parked_ns: stats.parked_ns - before.parked_ns,
        run_delay_ns: part(|times| times.run_delay_ns),
        cpu_ns: part(|times| times.cpu_ns),
        spun_ns: Reading::Value(stats.spun_ns - before.spun_ns),
        timer_late_max_ns: stats.timer_late_max_ns,
        dead_letters: stats.dead_letters,
        state_bytes: stats.state_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_in_an_epoch_is_missing_in_the_sum() {
        let missing =
            || Reading::Missing { unknown: "no file".to_owned(), remedy: "mount it".to_owned() };
        assert_eq!(sum(&Reading::Value(3), &Reading::Value(4)), Reading::Value(7));
        assert_eq!(sum(&missing(), &Reading::Value(4)), missing());
        assert_eq!(sum(&Reading::Value(4), &missing()), missing());
        assert_eq!(Carried::default().cpu(Reading::Value(4)), Reading::Value(4));
    }
}
