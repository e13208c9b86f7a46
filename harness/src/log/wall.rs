//! The wall clock as logs are told it: the monotonic clock, and how far ahead of it the wall was when the run began.
//!
//! The one place where the harness turns an instant into a time of day that others will read beside their own: so a
//! skew that is planted here reaches everybody who does, and nobody else. Deadlines, limits, freshness and latency are
//! differences of monotonic instants and never ask for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A wall clock; clones are the same clock.
#[derive(Debug, Clone)]
pub struct Wall(Arc<Clock>);

#[derive(Debug)]
struct Clock {
    ahead_ns: i64,
    skew_ns: AtomicI64,
}

impl Wall {
    /// One that is `ahead_ns` ahead of the monotonic clock.
    #[must_use]
    pub fn ahead(ahead_ns: i64) -> Self {
        Self(Arc::new(Clock { ahead_ns, skew_ns: AtomicI64::new(0) }))
    }

    /// One that showed `real_ns`, ns since 1970, at the monotonic instant `mono_ns`.
    #[must_use]
    pub fn of(mono_ns: u64, real_ns: u64) -> Self {
        Self::ahead(real_ns.cast_signed().wrapping_sub(mono_ns.cast_signed()))
    }

    /// What it shows at a monotonic instant, ns since 1970; one load.
    #[must_use]
    pub fn real_ns(&self, mono_ns: u64) -> u64 {
        let skew_ns = self.0.skew_ns.load(Relaxed);
        mono_ns.saturating_add_signed(self.0.ahead_ns.saturating_add(skew_ns))
    }

    /// How far it is ahead of what is right, ns.
    #[must_use]
    pub fn skewed_ns(&self) -> i64 {
        self.0.skew_ns.load(Relaxed)
    }

    /// Sets it ahead of what is right, or behind, from now on.
    pub fn skew(&self, skew_ns: i64) {
        self.0.skew_ns.store(skew_ns, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skew_is_of_all_clones_and_ends() {
        let wall = Wall::of(1_000, 5_000);
        let other = wall.clone();
        assert_eq!(other.real_ns(1_500), 5_500);
        wall.skew(-300);
        assert_eq!(other.real_ns(1_500), 5_200);
        wall.skew(i64::MIN);
        assert_eq!(other.real_ns(1_500), 0, "no day before the first");
        wall.skew(0);
        assert_eq!(other.real_ns(1_500), 5_500);
    }
}
