//! Sums of stages by latency: what a core keeps of a window. 30 KiB, allocated once.

use super::bucket::{BUCKETS, bucket_of, bucket_range};
use crate::record::latency::{BucketSums, STAGES, StageNs, Sums};

impl Sums {
    /// Adds one request. Sums stay at `u64::MAX` when they would pass it: 584 years.
    #[inline]
    pub fn add(&mut self, system_ns: u64, stages: &StageNs) {
        self.count += 1;
        self.system_ns = self.system_ns.saturating_add(system_ns);
        for (sum, ns) in self.stages.iter_mut().zip(stages) {
            *sum = sum.saturating_add(*ns);
        }
    }

    /// Adds other requests.
    pub fn merge(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.system_ns = self.system_ns.saturating_add(other.system_ns);
        for (sum, ns) in self.stages.iter_mut().zip(&other.stages) {
            *sum = sum.saturating_add(*ns);
        }
    }

    /// Sum of all stages, ns.
    #[must_use]
    pub fn staged_ns(&self) -> u128 {
        self.stages.iter().map(|ns| u128::from(*ns)).sum()
    }
}

/// Sums for each bucket of system latency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageTable {
    buckets: Box<[Sums; BUCKETS]>,
}

impl Default for StageTable {
    fn default() -> Self {
        Self::new()
    }
}

impl StageTable {
    /// An empty table; the only allocation.
    #[must_use]
    pub fn new() -> Self {
        const EMPTY: Sums = Sums { count: 0, system_ns: 0, stages: [0; STAGES] };
        Self { buckets: Box::new([EMPTY; BUCKETS]) }
    }

    /// Adds one request whose system latency its asker's clock measured. The two are independent: this
    /// does not compare them.
    #[inline]
    pub fn add(&mut self, system_ns: u64, stages: &StageNs) {
        self.buckets[bucket_of(system_ns)].add(system_ns, stages);
    }

    /// Adds what another table holds.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.buckets.iter_mut().zip(other.buckets.iter()) {
            to.merge(from);
        }
    }

    /// Adds what was recorded. A bucket that does not exist goes to the last.
    pub fn merge_sums(&mut self, recorded: &[BucketSums]) {
        for from in recorded {
            self.buckets[usize::from(from.bucket).min(BUCKETS - 1)].merge(&from.sums);
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.buckets.fill(Sums::default());
    }

    /// Buckets that hold requests, ascending, as they are recorded; empties the table. Allocates once.
    pub fn take(&mut self) -> Vec<BucketSums> {
        let held = self.held().count();
        let mut taken = Vec::with_capacity(held);
        taken.extend(self.held());
        self.clear();
        taken
    }

    /// Buckets that hold requests, ascending.
    pub fn held(&self) -> impl Iterator<Item = BucketSums> {
        (0u16..)
            .zip(self.buckets.iter())
            .filter(|(_, sums)| sums.count > 0)
            .map(|(bucket, sums)| BucketSums { bucket, sums: *sums })
    }

    /// Requests of one bucket.
    ///
    /// # Panics
    /// When there is no such bucket.
    #[must_use]
    pub fn bucket(&self, bucket: usize) -> &Sums {
        &self.buckets[bucket]
    }

    /// All requests together.
    #[must_use]
    pub fn total(&self) -> Sums {
        let mut total = Sums::default();
        self.buckets.iter().for_each(|sums| total.merge(sums));
        total
    }

    /// A latency, ns, that at most `permille` thousandths of the requests exceed: the end of a bucket,
    /// so up to 12.5 % above the exact one. `None` without requests. What the next window calls late is
    /// above `exceeded_by(10)`.
    #[must_use]
    pub fn exceeded_by(&self, permille: u64) -> Option<u64> {
        let count: u64 = self.buckets.iter().map(|sums| sums.count).sum();
        let allowed = u64::try_from(u128::from(count) * u128::from(permille) / 1_000).ok()?;
        let mut above = 0;
        for (bucket, sums) in self.buckets.iter().enumerate().rev() {
            above += sums.count;
            if above > allowed {
                return Some(bucket_range(bucket).1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::latency::Stage;

    fn stages(service: u64, hop: u64) -> StageNs {
        let mut stages = [0; STAGES];
        stages[Stage::Service.index()] = service;
        stages[Stage::Hop.index()] = hop;
        stages
    }

    #[test]
    fn a_table_gives_back_what_it_was_given() {
        let mut table = StageTable::new();
        table.add(1_000, &stages(600, 400));
        table.add(1_001, &stages(601, 400));
        table.add(1 << 40, &stages(1 << 40, 0));
        let total = table.total();
        assert_eq!((total.count, total.system_ns), (3, 2_001 + (1 << 40)));
        assert_eq!(total.staged_ns(), 2_001 + (1 << 40));
        let mut double = table.clone();
        double.merge(&table);
        let taken = table.take();
        assert_eq!(taken.len(), 2);
        assert_eq!(usize::from(taken[0].bucket), bucket_of(1_000));
        assert_eq!(taken[0].sums.stages[Stage::Service.index()], 1_201);
        assert_eq!(table, StageTable::new(), "taken is emptied");
        table.merge_sums(&taken);
        table.merge_sums(&taken);
        assert_eq!(table, double);
        table.clear();
        assert_eq!((table.total(), table.exceeded_by(10)), (Sums::default(), None));
    }

    #[test]
    fn late_is_what_one_in_a_hundred_exceeds() {
        let mut table = StageTable::new();
        for request in 0..1_000u64 {
            table.add(if request < 990 { 10_000 } else { 1_000_000 }, &stages(0, 0));
        }
        let late = table.exceeded_by(10).unwrap();
        assert!((10_001..=11_250).contains(&late), "{late}: ten are above, and ten are allowed");
        assert!(table.exceeded_by(9).unwrap() > 1_000_000);
        assert!((10_001..=11_250).contains(&table.exceeded_by(500).unwrap()));
    }

    #[test]
    fn a_full_sum_stays_full() {
        let mut sums = Sums { system_ns: u64::MAX - 1, ..Sums::default() };
        sums.add(5, &[0; STAGES]);
        sums.merge(&Sums { count: 1, system_ns: 9, stages: [1; STAGES] });
        assert_eq!((sums.count, sums.system_ns), (2, u64::MAX));
    }
}
