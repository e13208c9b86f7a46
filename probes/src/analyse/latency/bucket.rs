//! Buckets of latency: eight to an octave, from 256 ns to 2^37 ns (137 s), one below and one above.
//!
//! Within an octave they are equally wide, so a bucket spans 6.7 % to 12.5 % of its latency, 9 % in the
//! mean. What is told by buckets is known no finer.

/// Smallest latency above the first bucket: 2^8 ns.
const OCTAVE_FIRST: u32 = 8;
/// Smallest latency of the last bucket: 2^37 ns.
const OCTAVE_END: u32 = 37;
/// An octave has 2^3 buckets.
const SPLIT: u32 = 3;

/// Number of buckets.
pub const BUCKETS: usize = ((OCTAVE_END - OCTAVE_FIRST) << SPLIT) as usize + 2;

/// Bucket of a latency, below [`BUCKETS`]. Some instructions.
#[inline]
#[must_use]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 1 << OCTAVE_FIRST {
        return 0;
    }
    let octave = ns.ilog2();
    if octave >= OCTAVE_END {
        return BUCKETS - 1;
    }
    let part = (ns >> (octave - SPLIT)) & ((1 << SPLIT) - 1);
    1 + (((octave - OCTAVE_FIRST) << SPLIT) as usize | part as usize)
}

/// Latencies of a bucket, ns: from the first up to and without the second. The last has no end
/// (`u64::MAX`), and so has what is no bucket.
#[must_use]
pub const fn bucket_range(bucket: usize) -> (u64, u64) {
    if bucket == 0 {
        return (0, 1 << OCTAVE_FIRST);
    }
    if bucket >= BUCKETS - 1 {
        return (1 << OCTAVE_END, u64::MAX);
    }
    (edge(bucket - 1), edge(bucket))
}

/// Where the bucket after `steps` begins.
const fn edge(steps: usize) -> u64 {
    let octave = OCTAVE_FIRST as usize + (steps >> SPLIT);
    let part = (steps & ((1 << SPLIT) - 1)) as u64;
    ((1 << SPLIT) + part) << (octave - SPLIT as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_all_latencies() {
        let mut at = 0;
        for bucket in 0..BUCKETS {
            let (from, to) = bucket_range(bucket);
            assert_eq!(from, at, "bucket {bucket} begins where the one before ends");
            assert_eq!(bucket_of(from), bucket);
            assert_eq!(bucket_of(to - 1), bucket, "up to {to}");
            if bucket > 0 && bucket < BUCKETS - 1 {
                let width = (to - from) as f64 / from as f64;
                assert!((0.06..=0.125).contains(&width), "{from}: {width}");
            }
            at = to;
        }
        assert_eq!(at, u64::MAX);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_range(BUCKETS + 7), bucket_range(BUCKETS - 1));
        assert_eq!(BUCKETS, 234);
    }
}
