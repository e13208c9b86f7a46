//! What the windows of a run are made of, whoever fills them: the seconds and histograms of one window, emptied
//! into the record of the run when it ends. Its memory is that of one window, however long the run is.

use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::stats::Histogram;

use super::DriveError;
use super::writer::RunWriter;
use crate::evidence::StallsRecord;
use crate::evidence::records::{
    CoreRecord, CostPair, Gap, LoweredRecord, Reading, SecondRecord, WindowRecord,
};
use crate::load::{SecondCounts, Series, SeriesSet, empty_set};

/// What has been gathered of the current second.
#[derive(Default)]
pub(super) struct Second {
    pub(super) from_ns: u64,
    pub(super) open_sum: u64,
    pub(super) open_samples: u64,
    pub(super) oldest_open_ns: u64,
}

/// What all cores say at the end of a second.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) counts: SecondCounts,
    pub(super) live_agents: u64,
    pub(super) open: u64,
    pub(super) open_age_ns: u64,
    pub(super) issuing: bool,
}

/// What the kernel and the runtime say at the end of a window.
pub(super) struct Readings {
    pub(super) cores: Vec<CoreRecord>,
    pub(super) rss_bytes: Reading,
    pub(super) pss_bytes: Reading,
    pub(super) live_bytes: Reading,
    pub(super) cpu_ns: Reading,
    /// What measuring cost in it.
    pub(super) cost: Vec<CostPair>,
    /// Steps down in what is measured.
    pub(super) lowered: Vec<LoweredRecord>,
    /// Turns that kept a core from all others.
    pub(super) stalls: Option<StallsRecord>,
}

/// The window that runs.
pub(super) struct Windows {
    pub(super) second: Second,
    pub(super) number: u32,
    pub(super) from_ns: u64,
    pub(super) seconds: Vec<SecondRecord>,
    pub(super) gaps: Vec<Gap>,
    /// Histograms of the window so far, per core, and empty ones to give the cores for theirs.
    pub(super) sets: Vec<SeriesSet>,
    spares: Vec<SeriesSet>,
    /// Latencies of all cores in the last second, for whoever watches.
    pub(super) system: Histogram,
}

impl Windows {
    /// Of so many cores, from this window on.
    pub(super) fn new(shards: usize, number: u32) -> Self {
        Self {
            second: Second::default(),
            number,
            from_ns: 0,
            seconds: Vec::new(),
            gaps: Vec::new(),
            sets: (0..shards).map(|_| empty_set()).collect(),
            spares: (0..shards).map(|_| empty_set()).collect(),
            system: Histogram::new(),
        }
    }

    /// The first second begins.
    pub(super) const fn begin(&mut self, start_ns: u64) {
        (self.second.from_ns, self.from_ns) = (start_ns, start_ns);
    }

    /// Empty histograms for a core to go on with.
    pub(super) fn spare(&mut self, shard: usize) -> SeriesSet {
        std::mem::take(&mut self.spares[shard])
    }

    /// Adds a core's second to the window and empties its histograms for the next.
    pub(super) fn gather(&mut self, shard: usize, mut set: SeriesSet) {
        if let Some(system) = set.get(Series::System as usize) {
            self.system.merge(system);
        }
        for (sum, part) in self.sets[shard].iter_mut().zip(&mut set) {
            sum.merge(part);
            part.clear();
        }
        self.spares[shard] = set;
    }

    /// The record of the second that ends at `now_ns`.
    pub(super) fn second(&mut self, now_ns: u64, ended: Ended) -> SecondRecord {
        let next = Second { from_ns: now_ns, ..Second::default() };
        let second = std::mem::replace(&mut self.second, next);
        SecondRecord {
            from_ns: second.from_ns,
            len_ns: now_ns.saturating_sub(second.from_ns),
            counts: ended.counts,
            live_agents: ended.live_agents,
            open_sum: second.open_sum,
            open_samples: second.open_samples,
            oldest_open_ns: second.oldest_open_ns,
            open_end: ended.open,
            open_age_ns: ended.open_age_ns,
            issuing: ended.issuing,
            cut: false,
        }
    }

    /// Writes the window and begins the next.
    pub(super) fn write(
        &mut self,
        writer: &mut RunWriter,
        now_ns: u64,
        readings: Readings,
        latency: &[LatencyWindow],
    ) -> Result<(), DriveError> {
        let record = WindowRecord {
            window: self.number,
            seconds: std::mem::take(&mut self.seconds),
            cores: readings.cores,
            rss_bytes: readings.rss_bytes,
            pss_bytes: readings.pss_bytes,
            live_bytes: readings.live_bytes,
            cpu_ns: readings.cpu_ns,
            gaps: std::mem::take(&mut self.gaps),
            cost: readings.cost,
            lowered: readings.lowered,
            stalls: readings.stalls,
        };
        writer.window(now_ns, &record, &self.sets, latency)?;
        self.sets.iter_mut().flatten().for_each(Histogram::clear);
        self.number += 1;
        self.from_ns = record.seconds.last().map_or(now_ns, |s| s.from_ns + s.len_ns);
        Ok(())
    }
}
