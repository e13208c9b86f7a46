//! A cell: what one core counted of the requests that were due in one slot of time.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Fate {
    /// Answered as asked.
    Ok = 0,
    /// Declined.
    Declined = 1,
    /// Cancelled by the asker.
    Cancelled = 2,
    /// No answer before the deadline.
    Expired = 3,
    /// Refused by a limit.
    Refused = 4,
    /// Could not be sent, or failed.
    Error = 5,
    /// Open when its agent ended.
    Lost = 6,
}

impl Fate {
    /// Every fate, in the order of their numbers.
    pub const ALL: [Self; FATES] = [
        Self::Ok,
        Self::Declined,
        Self::Cancelled,
        Self::Expired,
        Self::Refused,
        Self::Error,
        Self::Lost,
    ];

    /// Name, as in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Error => "error",
            Self::Lost => "lost",
        }
    }
}

/// Number of fates.
pub(super) const FATES: usize = 7;
/// Buckets of latency: sixteen to each doubling from 1,024 ns to 2^36 ns (68.7 s), so that a bucket is at most 6.25 % wide.
pub const BUCKETS: usize = 16 * OCTAVES;
const OCTAVES: usize = 26;
const FIRST_BITS: u32 = 10;
/// 32-bit words of a cell: due, fates, buckets.
pub(super) const CELL: usize = 1 + FATES + BUCKETS;

/// The bucket of a latency; what is shorter than the first is in it, what is longer than the last in that.
#[must_use]
pub const fn bucket(ns: u64) -> usize {
    if ns < 1 << FIRST_BITS {
        return 0;
    }
    let bits = 63 - ns.leading_zeros();
    let sixteenth = (ns >> (bits - 4)) as usize & 15;
    let at = (bits - FIRST_BITS) as usize * 16 + sixteenth;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// Where a bucket begins, ns; of one behind the last, where that ends.
#[must_use]
pub const fn bucket_from_ns(at: usize) -> u64 {
    let (octave, sixteenth) = (at / 16, at as u64 % 16);
    ((1 << FIRST_BITS) + (sixteenth << (FIRST_BITS - 4))) << octave
}

/// Where the bucket that is nearest begins, ns: within 3.1 % of what is asked for, and what lies above it is known exactly.
#[must_use]
pub fn nearest_edge_ns(ns: f64) -> u64 {
    let at = bucket(ns as u64);
    let (from, to) = (bucket_from_ns(at), bucket_from_ns(at + 1));
    if ns - from as f64 <= to as f64 - ns { from } else { to }
}

/// The sum of some cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Requests that were due.
    pub due: u64,
    /// What they came to, by [`Fate`].
    pub fates: [u64; FATES],
    /// System latencies, by [`bucket`].
    pub buckets: Vec<u64>,
}

impl Default for Cell {
    fn default() -> Self {
        Self { due: 0, fates: [0; FATES], buckets: vec![0; BUCKETS] }
    }
}

impl Cell {
    pub(super) fn add(&mut self, halves: &[AtomicU32]) {
        let mut halves = halves.iter().map(|half| u64::from(half.load(Relaxed)));
        self.due += halves.next().unwrap_or(0);
        for (sum, half) in self.fates.iter_mut().chain(&mut self.buckets).zip(halves) {
            *sum += half;
        }
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        self.due += other.due;
        let mine = self.fates.iter_mut().chain(&mut self.buckets);
        mine.zip(other.fates.iter().chain(&other.buckets)).for_each(|(mine, other)| *mine += other);
    }

    /// How many came to this.
    #[must_use]
    pub const fn fate(&self, fate: Fate) -> u64 {
        self.fates[fate as usize]
    }

    /// Answered, as asked or by a refusal of who was asked.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.fate(Fate::Ok) + self.fate(Fate::Declined)
    }

    /// That came to nothing yet.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.due.saturating_sub(self.fates.iter().sum())
    }

    /// Latencies that were recorded.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Where the bucket of a quantile ends, ns: at most 6.25 % above it. `None` without any.
    #[must_use]
    pub fn quantile_ns(&self, q: f64) -> Option<u64> {
        let total = self.timed();
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total.max(1));
        let mut seen = 0;
        let holds = |&(_, n): &(usize, &u64)| {
            seen += n;
            seen >= rank
        };
        self.buckets.iter().enumerate().find(holds).map(|(at, _)| bucket_from_ns(at + 1))
    }

    /// A quantile, ns, as if the latencies of its bucket lay evenly in it: off by less than 6.25 %. `None` without any.
    #[must_use]
    pub fn quantile_within_ns(&self, q: f64) -> Option<f64> {
        let rank = self.timed() as f64 * q;
        let mut below = 0;
        let holds = |&(_, &n): &(usize, &u64)| {
            below += n;
            n > 0 && below as f64 >= rank
        };
        let (at, &n) = self.buckets.iter().enumerate().find(holds)?;
        let part = ((rank - (below - n) as f64) / n as f64).clamp(0.0, 1.0);
        let (from, to) = (bucket_from_ns(at) as f64, bucket_from_ns(at + 1) as f64);
        Some(from + (to - from) * part)
    }

    /// Latencies in buckets that begin at `ns` or above.
    #[must_use]
    pub fn over(&self, ns: u64) -> u64 {
        let above = |&(at, _): &(usize, &u64)| bucket_from_ns(at) >= ns;
        self.buckets.iter().enumerate().filter(above).map(|(_, n)| n).sum()
    }
}
