//! What every agent has done so far, written down from time to time: a crash takes the counts of one part in 72
//! of the run, of a soak of three days those of an hour.

use super::DriveError;
use super::controller::Controller;
use super::writer::RunWriter;
use crate::load::{Workload, recorder};

/// Agents whose counts are copied in one visit to a core: 256 KiB.
const CHUNK: usize = 32_768;
/// Times that it is done in a run, at most.
const TIMES: u64 = 72;
/// And no more often than this, ns.
const EVERY_MIN_NS: u64 = 10_000_000_000;

/// Time between two of them, ns.
const fn every_ns(duration_ns: u64) -> u64 {
    let every = duration_ns / TIMES;
    if every > EVERY_MIN_NS { every } else { EVERY_MIN_NS }
}

/// How often it is done in a run of this length, at most.
pub(super) const fn times(duration_ns: u64) -> u64 {
    duration_ns / every_ns(duration_ns) + 2
}

impl<W: Workload> Controller<'_, W> {
    /// Does it, behind a window, when it is time.
    pub(super) fn checkpoint(
        &mut self,
        writer: &mut RunWriter,
        now_ns: u64,
    ) -> Result<(), DriveError> {
        if now_ns < self.checkpoint_ns {
            return Ok(());
        }
        self.checkpoint_ns = now_ns + every_ns(self.plan.duration_ns);
        let (agents, shards) = (self.fleet.agents as usize, self.shards);
        for shard in 0..shards {
            let total = (agents + shards - 1 - shard) / shards;
            for from in (0..total).step_by(CHUNK) {
                let to = total.min(from + CHUNK);
                let (attempts, completions) = self.on(shard, move |_| {
                    recorder::with(|r| {
                        (r.attempts[from..to].to_vec(), r.completions[from..to].to_vec())
                    })
                })?;
                writer.so_far(now_ns, (shard, shards), from, (&attempts, &completions))?;
            }
        }
        writer.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_at_most_seventy_two_times_and_not_more_often_than_each_ten_seconds() {
        const HOUR: u64 = 3_600_000_000_000;
        assert_eq!((every_ns(72 * HOUR), times(72 * HOUR)), (HOUR, 74));
        assert_eq!((every_ns(HOUR / 60), times(HOUR / 60)), (EVERY_MIN_NS, 8));
        assert_eq!(times(1), 2);
    }
}
