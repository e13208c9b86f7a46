//! What one piece of measuring takes on this host: the model that the measured cost stands beside.

use std::hint::black_box;

use tailbeam_probes::clock::{self, cycles::Counter, processor_counter};
use tailbeam_probes::record::latency::{Leg, Stamps};

use super::latency::{CoreLatency, Drawn, Parties, draws};
use crate::evidence::records::UnitCosts;
use crate::plan::Plan;

/// Pieces in a loop, and loops of which the quickest counts: the others were interrupted.
const PIECES: u32 = 4_096;
const LOOPS: usize = 5;

/// Measures both units on the calling thread, about 2 ms. In a loop code and tables are in the cache: in the run
/// they may not be, so the model is what measuring takes at least.
pub(crate) fn measure(plan: &Plan, shards: usize) -> UnitCosts {
    let counter = processor_counter();
    let turn_ns = quickest(|_| {
        black_box(stamp(counter.as_ref().ok()));
    });
    let mut latency = CoreLatency::of(plan, 0, 1);
    let request_ns = quickest(|k| request(&mut latency, k, true));
    let some = draws(plan, shards).staged_every() > 1;
    let undrawn_ns = some.then(|| quickest(|k| request(&mut latency, k, false)));
    UnitCosts { turn_ns, request_ns, undrawn_ns }
}

/// As the runtime stamps a turn: by the counter, or by the clock where it is not to be trusted.
fn stamp(counter: Option<&Counter>) -> u64 {
    counter.map_or_else(clock::monotonic_ns, |counter| counter.ticks_unfenced())
}

/// One request through the tables of its window, a little slower each time.
fn request(latency: &mut CoreLatency, k: u32, staged: bool) {
    let at = 1_000_000_000 + u64::from(k) * 1_000;
    let leg = |from: u64| Leg {
        published_ns: from + 100,
        seen_ns: from + 500,
        aside_ns: 0,
        turn_ns: from + 900 + u64::from(k % 512) * 16,
    };
    let out = leg(at);
    let answered_ns = out.turn_ns + 200;
    let back = leg(answered_ns);
    let stamps = Stamps {
        intended_ns: at - 300,
        sent_ns: at,
        out,
        polls: 1,
        service_ns: 200,
        answered_ns,
        back,
        closed_ns: back.turn_ns + 50,
        ..Stamps::default()
    };
    latency.in_hand(&stamps);
    latency.closed(
        Parties { asker: k, responder: k % 10_000 },
        &stamps,
        Drawn { staged, whole: false },
        None,
    );
}

/// The mean of a piece in the quickest loop, ns.
fn quickest(mut piece: impl FnMut(u32)) -> f64 {
    let mut one = || {
        let from = clock::monotonic_ns();
        (0..PIECES).for_each(&mut piece);
        clock::monotonic_ns().saturating_sub(from)
    };
    let least = (0..LOOPS).map(|_| one()).min().unwrap_or(0);
    least as f64 / f64::from(PIECES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_more_than_a_stamp_and_both_take_time() {
        let units = measure(&Plan::soak("ask"), 2);
        assert!(units.turn_ns > 0.0 && units.request_ns > units.turn_ns, "{units:?}");
    }
}
