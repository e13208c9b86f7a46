//! A log-linear histogram of ns that several threads fill, each its own part.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Sub-buckets per power of two: 3 %.
const SUB: u64 = 32;
const BUCKETS: usize = 64 * SUB as usize;
/// Threads that fill at once; further ones share a part.
const THREADS: usize = 4;

/// On cache lines of its own (128: the adjacent-line prefetcher pairs lines): what one core writes must not
/// slow the other, for that would be the bench's cost and not the peer's.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

/// Values by size; counts and sums are exact.
#[derive(Debug)]
pub(crate) struct Histogram {
    threads: AtomicUsize,
    buckets: Vec<Apart<[AtomicU64; BUCKETS]>>,
    sums: [Apart<AtomicU64>; THREADS],
}

/// What was noted, as read at the end.
#[derive(Debug)]
pub(crate) struct Read {
    buckets: Vec<u64>,
    /// Values noted.
    pub(crate) count: u64,
    sum_ns: u64,
}

thread_local! {
    static PART: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

fn bucket(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let power = 63 - u64::from(ns.leading_zeros());
    let sub = (ns >> (power - 5)) & (SUB - 1);
    ((power - 4) * SUB + sub) as usize
}

/// Largest value of a bucket.
fn top(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let (power, sub) = (bucket / SUB + 4, bucket % SUB);
    ((SUB + sub + 1) << (power - 5)) - 1
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            threads: AtomicUsize::new(0),
            buckets: (0..THREADS).map(|_| Apart([const { AtomicU64::new(0) }; BUCKETS])).collect(),
            sums: [const { Apart(AtomicU64::new(0)) }; THREADS],
        }
    }

    pub(crate) fn note(&self, ns: u64) {
        let part = PART.with(|part| {
            if part.get() == usize::MAX {
                part.set(self.threads.fetch_add(1, Ordering::Relaxed) % THREADS);
            }
            part.get()
        });
        self.buckets[part].0[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sums[part].0.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Read {
        let buckets: Vec<u64> = (0..BUCKETS)
            .map(|bucket| self.buckets.iter().map(|b| b.0[bucket].load(Ordering::Relaxed)).sum())
            .collect();
        Read {
            count: buckets.iter().sum(),
            sum_ns: self.sums.iter().map(|sum| sum.0.load(Ordering::Relaxed)).sum(),
            buckets,
        }
    }
}

impl Read {
    /// The value that a share of `q` does not exceed, to 3 %; none of nothing.
    pub(crate) fn quantile_ns(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((self.count as f64 * q).ceil() as u64).clamp(1, self.count);
        let mut seen = 0;
        let reached = self.buckets.iter().position(|&n| {
            seen += n;
            seen >= rank
        });
        Some(top(reached.expect("the ranks end with the count")))
    }

    pub(crate) fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_to_three_percent() {
        for ns in (0..2_000).chain([1_000_000, 123_456_789, u64::from(u32::MAX) * 7]) {
            let top = top(bucket(ns));
            assert!(top >= ns && (top - ns) as f64 <= ns as f64 / 31.0 + 1.0, "{ns} in {top}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_noted() {
        let histogram = Histogram::new();
        (0..99).for_each(|_| histogram.note(1_000));
        histogram.note(1_000_000);
        let read = histogram.read();
        assert_eq!((read.count, read.mean_ns()), (100, Some(10_990.0)));
        assert!(read.quantile_ns(0.99).is_some_and(|ns| (1_000..1_040).contains(&ns)));
        assert!(read.quantile_ns(1.0).is_some_and(|ns| ns >= 1_000_000));
    }

    #[test]
    fn nothing_has_no_quantile() {
        let read = Histogram::new().read();
        assert_eq!((read.quantile_ns(0.5), read.mean_ns()), (None, None));
    }
}
