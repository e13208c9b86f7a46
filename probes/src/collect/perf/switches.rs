//! When the calling thread was off its CPU, from the kernel's own records, without any privilege.
//!
//! A dummy event with `context_switch` writes a record for each switch out and in, also at
//! `perf_event_paranoid` 2; whether the thread could have run is a bit of it. About 1 us per switch. The
//! ring is drained by its own thread on its tick; a ring that is full loses records, and says how many.
//! Dropping it unmaps and closes it: only both together end the event.

use std::marker::PhantomData;

use perf_event2::events::Software;
use perf_event2::{Builder, Clock, SampleFlag, Sampler};

use super::pairing::{BODY_MAX, OffCpu, Pairing, Record};
use super::{errno_of, explain, paranoid};
use crate::Unavailable;

/// The ring of the thread that opened it.
pub struct SwitchRing {
    sampler: Sampler,
    pairing: Pairing,
    _thread: PhantomData<*const ()>,
}

impl std::fmt::Debug for SwitchRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwitchRing").field("pairing", &self.pairing).finish_non_exhaustive()
    }
}

/// What a drain found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records read.
    pub records: u64,
    /// Intervals given.
    pub intervals: u64,
    /// Records that the kernel had no room for. With any of these, the time off the CPU since the last
    /// drain is a lower bound.
    pub lost: u64,
    /// Ends without a begin and begins without an end; besides the first of a ring, only by loss.
    pub unpaired: u64,
    /// Records that are not as the kernel documents them.
    pub broken: u64,
    /// `records_max` was reached: there may be more, and the next drain goes on.
    pub more: bool,
}

impl SwitchRing {
    /// Opens the ring of the calling thread with room for `bytes`, rounded up to a power of two of
    /// pages. A switch takes 64 bytes: 64 KiB hold a thousand.
    ///
    /// # Errors
    /// [`Unavailable`] when the kernel refuses: `perf_event_paranoid` 3 of Debian, a seccomp profile,
    /// no room under `perf_event_mlock_kb`.
    pub fn open(bytes: usize) -> Result<Self, Unavailable> {
        let level = paranoid();
        let refused = |error: &std::io::Error| explain(errno_of(error), level);
        let mut builder = Builder::new(Software::DUMMY);
        builder
            .observe_self()
            .any_cpu()
            .exclude_kernel(true)
            .context_switch(true)
            .sample_id_all(true)
            .sample(SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU)
            .clockid(Clock::MONOTONIC);
        let counter = builder.build().map_err(|error| refused(&error))?;
        let mut sampler = counter.sampled(bytes).map_err(|error| no_room(&error, bytes))?;
        sampler.enable().map_err(|error| refused(&error))?;
        Ok(Self { sampler, pairing: Pairing::default(), _thread: PhantomData })
    }

    /// Gives each interval that ended since the last drain, in order of time. Reads at most
    /// `records_max` records; allocates nothing.
    pub fn drain(&mut self, records_max: u64, mut each: impl FnMut(OffCpu)) -> Drained {
        let before = self.pairing.clone();
        let mut drained = Drained::default();
        while drained.records < records_max {
            let Some(record) = self.sampler.next_record() else { break };
            let mut body = [0u8; BODY_MAX];
            let length = gather(record.data(), &mut body);
            let parsed = Record::parse(record.ty(), record.misc(), &body[..length]);
            drop(record);
            drained.records += 1;
            if let Some(interval) = self.pairing.take(parsed) {
                drained.intervals += 1;
                each(interval);
            }
        }
        drained.more = drained.records == records_max;
        drained.lost = self.pairing.lost - before.lost;
        drained.unpaired = self.pairing.unpaired - before.unpaired;
        drained.broken = self.pairing.broken - before.broken;
        drained
    }
}

/// Copies what a record's one or two parts hold, as far as it is read; how much that is.
fn gather(parts: &[&[u8]], into: &mut [u8; BODY_MAX]) -> usize {
    let mut length = 0;
    for part in parts {
        let room = part.len().min(BODY_MAX - length);
        into[length..length + room].copy_from_slice(&part[..room]);
        length += room;
    }
    length
}

fn no_room(error: &std::io::Error, bytes: usize) -> Unavailable {
    Unavailable {
        source: "perf ring",
        cause: format!("mmap of {bytes} bytes: {error}"),
        remedy: "sysctl -w kernel.perf_event_mlock_kb=2048, ulimit -l unlimited, or a smaller ring"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_wraps_is_one_again_and_a_long_one_is_cut() {
        let mut body = [0; BODY_MAX];
        assert_eq!(gather(&[&[1, 2], &[3]], &mut body), 3);
        assert_eq!(body[..3], [1, 2, 3]);
        assert_eq!(gather(&[&[7; 30], &[8; 30]], &mut body), BODY_MAX);
    }
}
