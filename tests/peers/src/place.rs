//! Where the virtual CPUs lie: a cache line that goes there and back tells a shared cache from a far one.
//! The answer moves cross-core figures by 2 to 9 times, so every round carries it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::{clock, stats};

/// Round trips per batch, and batches per probe: 10 ms in all. The median of the batches leaves out those in
/// which another process had one of the CPUs.
const TRIPS: u64 = 1_000;
const BATCHES: u64 = 20;
/// A round trip below this many ns is called near: a shared last-level cache gives 40 to 130 ns.
const NEAR_NS: f64 = 250.0;

/// Which way a message goes between the two CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Regime {
    /// Through a cache that both share.
    Near,
    /// Further.
    Far,
}

impl Regime {
    pub(crate) const ALL: [Self; 2] = [Self::Near, Self::Far];

    pub(crate) fn of(round_trip_ns: f64) -> Self {
        if round_trip_ns < NEAR_NS { Self::Near } else { Self::Far }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// Pins the calling thread; panics where that is refused: what is not pinned measures something else.
pub(crate) fn pin(core: usize) {
    let pinned = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    assert!(pinned, "the kernel does not let a thread be pinned to CPU {core}");
}

/// The first two allowed CPUs.
pub(crate) fn cores() -> Result<[usize; 2], String> {
    let all = core_affinity::get_core_ids().unwrap_or_default();
    match all[..] {
        [one, two, ..] => Ok([one.id, two.id]),
        _ => Err("two allowed CPUs are needed".to_owned()),
    }
}

/// Round trip of one cache line between two CPUs, ns.
pub(crate) fn round_trip_ns(cores: [usize; 2]) -> f64 {
    let ball = AtomicU64::new(0);
    let batch = |batch: u64, mine: u64| {
        let start_ns = clock::now_ns();
        for trip in batch * TRIPS..(batch + 1) * TRIPS {
            while ball.load(Ordering::Acquire) != 2 * trip + mine {
                std::hint::spin_loop();
            }
            ball.store(2 * trip + mine + 1, Ordering::Release);
        }
        (clock::now_ns() - start_ns) as f64 / TRIPS as f64
    };
    let side = |core, mine| {
        pin(core);
        stats::median((0..BATCHES).map(|number| batch(number, mine)).collect())
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| side(cores[1], 1));
        let here = scope.spawn(|| side(cores[0], 0));
        other.join().expect("both sides are pinned");
        here.join().ok().flatten().expect("both sides are pinned, and there are batches")
    })
}
