//! How what a handler has in hand came to it, as the runtime tells.

use tailbeam_probes::record::latency::Leg;
use tailbeam_runtime::Cx;

/// The way of the message in hand.
pub(super) fn leg(cx: &mut Cx<'_>) -> Leg {
    Leg { published_ns: 0, seen_ns: 0, aside_ns: 0, turn_ns: cx.fresh_ns() }
}

/// When the turn that runs began.
pub(super) fn turn_ns(cx: &mut Cx<'_>) -> u64 {
    cx.now_ns()
}

/// When the poll that runs became possible, and when it began; `None` outside a poll.
pub(super) fn resumed() -> Option<(u64, u64)> {
    let now = tailbeam_probes::clock::monotonic_ns();
    Some((now, now))
}
