//! Where the virtual CPUs lie: a cache line that goes there and back tells a shared cache from a far one.
//! The answer moves cross-core figures by 2 to 9 times, so every round carries it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// Round trips per probe.
const TRIPS: u64 = 20_000;
/// A round trip below this many ns is called near: a shared last-level cache gives 40 to 130 ns.
const NEAR_NS: f64 = 250.0;

/// Pins the calling thread.
pub(crate) fn pin(core: usize) {
    core_affinity::set_for_current(core_affinity::CoreId { id: core });
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
    let trip = |core, mine: u64| {
        pin(core);
        let start = Instant::now();
        for trip in 0..TRIPS {
            while ball.load(Ordering::Acquire) != 2 * trip + mine {
                std::hint::spin_loop();
            }
            ball.store(2 * trip + mine + 1, Ordering::Release);
        }
        start.elapsed().as_nanos() as f64 / TRIPS as f64
    };
    thread::scope(|scope| {
        let other = scope.spawn(|| trip(cores[1], 1));
        let here = scope.spawn(|| trip(cores[0], 0));
        let _ = other.join();
        here.join().unwrap_or(f64::NAN)
    })
}

/// Name of the regime.
pub(crate) fn regime(round_trip_ns: f64) -> &'static str {
    if round_trip_ns < NEAR_NS { "near" } else { "far" }
}
