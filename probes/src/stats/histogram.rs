//! A latency histogram: HDR, 1 ns to 3600 s, 3 significant digits, plus exact count, sum, minimum,
//! maximum and a counter of values above the range.
//!
//! | bytes | field, little endian |
//! |---|---|
//! | 0..8 | values recorded, overflow included |
//! | 8..16 | values above the range |
//! | 16..24 | exact minimum, ns (`u64::MAX` when empty) |
//! | 24..32 | exact maximum, ns |
//! | 32..48 | exact sum, ns |
//! | 48.. | HdrHistogram V2 encoding, uncompressed |

use hdrhistogram::Histogram as Hdr;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

/// Largest value with its own bucket, ns.
const RANGE_NS: u64 = 3_600 * 1_000_000_000;
const HEADER: usize = 48;

/// The histogram. Recording costs a few ns and never allocates.
#[derive(Debug, Clone)]
pub struct Histogram {
    hdr: Hdr<u64>,
    count: u64,
    overflow: u64,
    min: u64,
    max: u64,
    sum: u128,
}

/// Why bytes are not a histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a histogram: {cause}")]
pub struct DecodeError {
    /// What is wrong with the bytes.
    pub cause: String,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty histogram; allocates about 216 KiB once.
    #[must_use]
    pub fn new() -> Self {
        let hdr = Hdr::new_with_bounds(1, RANGE_NS, 3)
            .expect("the bounds are constants that hdrhistogram accepts");
        Self { hdr, count: 0, overflow: 0, min: u64::MAX, max: 0, sum: 0 }
    }

    /// Records one value in ns; above 3600 s it goes to the overflow counter, not to a bucket.
    pub fn record(&mut self, ns: u64) {
        self.count += 1;
        self.sum += u128::from(ns);
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        if ns > RANGE_NS {
            self.overflow += 1;
        } else {
            // Within the range this cannot fail: the bounds hold RANGE_NS and 0 shares the first bucket.
            let _ = self.hdr.record(ns);
        }
    }

    /// Adds another histogram's values. Exact: the buckets are the same.
    pub fn merge(&mut self, other: &Self) {
        self.hdr.add(&other.hdr).expect("every histogram of this type has the same bounds");
        self.count += other.count;
        self.overflow += other.overflow;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
    }

    /// Forgets every value, keeps the memory.
    pub fn clear(&mut self) {
        self.hdr.reset();
        (self.count, self.overflow, self.min, self.max, self.sum) = (0, 0, u64::MAX, 0, 0);
    }

    /// Values recorded, those above the range included.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Values above the range.
    #[must_use]
    pub const fn overflow(&self) -> u64 {
        self.overflow
    }

    /// Exact largest value, ns.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }

    /// Exact smallest value, ns.
    #[must_use]
    pub fn min(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min)
    }

    /// Exact sum, ns.
    #[must_use]
    pub const fn sum(&self) -> u128 {
        self.sum
    }

    /// Exact mean, ns.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum as f64 / self.count as f64)
    }

    /// Value at rank ceil(q x count), ns, to 3 digits and never above the exact maximum. `None` when
    /// empty, or when the rank falls among the values above the range.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((q * self.count as f64).ceil()).clamp(1.0, self.count as f64);
        let inside = self.count - self.overflow;
        if inside == 0 || rank > inside as f64 {
            return None;
        }
        // Half a rank lower: hdrhistogram rounds the product up again, and rank / n * n may exceed rank.
        Some(self.hdr.value_at_quantile((rank - 0.5) / inside as f64).min(self.max).max(self.min))
    }

    /// Values whose bucket lies above `ns`'s bucket; exact to the bucket width of 0.1 %.
    #[must_use]
    pub fn count_above(&self, ns: u64) -> u64 {
        if ns >= RANGE_NS {
            return self.overflow;
        }
        let below: u64 = self.hdr.count_between(0, ns);
        self.count - below
    }

    /// The bytes described at the top of this file. Allocates.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.overflow.to_le_bytes());
        bytes.extend_from_slice(&self.min.to_le_bytes());
        bytes.extend_from_slice(&self.max.to_le_bytes());
        bytes.extend_from_slice(&self.sum.to_le_bytes());
        bytes.extend(self.v2());
        bytes
    }

    /// HdrHistogram's own V2 bytes, uncompressed, without the values above the range. Allocates.
    #[must_use]
    pub fn v2(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2Serializer::new()
            .serialize(&self.hdr, &mut bytes)
            .expect("writing to a Vec cannot fail and u64 counts fit V2");
        bytes
    }

    /// Reads [`Histogram::encode`]'s bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are not such an encoding; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wrong = |cause: &str| DecodeError { cause: cause.to_owned() };
        let (header, mut rest) =
            bytes.split_at_checked(HEADER).ok_or_else(|| wrong("shorter than its header"))?;
        let word = |at: usize| {
            u64::from_le_bytes(
                header[at..at + 8].try_into().expect("eight bytes of a 48-byte header"),
            )
        };
        let mut sum = [0; 16];
        sum.copy_from_slice(&header[32..48]);
        let hdr: Hdr<u64> = Deserializer::new()
            .deserialize(&mut rest)
            .map_err(|error| DecodeError { cause: error.to_string() })?;
        let mut histogram = Self::new();
        if hdr.high() != RANGE_NS || hdr.sigfig() != 3 || hdr.low() != 1 {
            return Err(wrong("other bounds than 1 ns to 3600 s with 3 digits"));
        }
        histogram.hdr = hdr;
        (histogram.count, histogram.overflow) = (word(0), word(8));
        (histogram.min, histogram.max) = (word(16), word(24));
        histogram.sum = u128::from_le_bytes(sum);
        if histogram.hdr.len().checked_add(histogram.overflow) != Some(histogram.count) {
            return Err(wrong("its counts do not add up"));
        }
        Ok(histogram)
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranks of short lists")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_sorted_list(mut values in prop::collection::vec(1u64..10_000_000_000, 1..500), q in 0.01f64..1.0) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|&v| histogram.record(v));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1] as f64;
            let got = histogram.quantile(q).unwrap() as f64;
            prop_assert!((got - exact).abs() <= exact * 0.001 + 1.0, "{got} for {exact}");
            prop_assert_eq!(histogram.max(), values.last().copied());
            prop_assert_eq!(histogram.min(), values.first().copied());
            prop_assert_eq!(histogram.sum(), values.iter().map(|&v| u128::from(v)).sum::<u128>());
            let back = Histogram::decode(&histogram.encode()).unwrap();
            prop_assert_eq!(back.encode(), histogram.encode());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..400, flip in 1u8..) {
            let _ = Histogram::decode(&bytes);
            let mut real = Histogram::new();
            real.record(5);
            let mut bytes = real.encode();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let _ = Histogram::decode(&bytes);
        }
    }

    #[test]
    fn values_above_the_range_are_counted_not_clamped() {
        let mut histogram = Histogram::new();
        histogram.record(5);
        histogram.record(RANGE_NS + 1);
        assert_eq!((histogram.count(), histogram.overflow()), (2, 1));
        assert_eq!(histogram.max(), Some(RANGE_NS + 1));
        assert_eq!(histogram.quantile(0.5), Some(5));
        assert_eq!(histogram.quantile(1.0), None, "the rank lies above the range");
        assert_eq!(histogram.count_above(6), 1);
    }

    #[test]
    fn merging_is_adding() {
        let (mut a, mut b, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
        for v in [1, 10, 100] {
            a.record(v);
            both.record(v);
        }
        b.record(7);
        both.record(7);
        a.merge(&b);
        assert_eq!(a.encode(), both.encode());
        a.clear();
        assert_eq!((a.count(), a.max(), a.mean()), (0, None, None));
    }
}
