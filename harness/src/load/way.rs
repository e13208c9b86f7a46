//! How what a handler has in hand came to it, as the runtime tells.

use tailbeam_probes::record::latency::Leg;
use tailbeam_runtime::{Cx, poll_path};

use crate::observe::{self, BUILT};

/// The way of the message in hand.
pub(super) fn leg(cx: &Cx<'_>) -> Leg {
    if !BUILT {
        return Leg { turn_ns: cx.turn_ns(), ..Leg::default() };
    }
    let path = cx.path();
    observe::seen(path.published_ns, path.seen_ns);
    Leg {
        published_ns: path.published_ns,
        seen_ns: path.seen_ns,
        aside_ns: path.aside_ns,
        turn_ns: path.turn_ns,
    }
}

/// When the poll that runs became possible, and when it began, ns; `None` outside a shard.
pub(super) fn resumed() -> Option<(u64, u64)> {
    poll_path().map(|path| (path.seen_ns, path.turn_ns))
}
