//! What this process holds, for a board: the controller says it with each of its visits, every 20 ms.

use tailbeam_probes::collect::heap;
use tailbeam_runtime::Runtime;

use crate::chaos::board::{Board, Levels};

/// Says it. Some hundred loads and eight stores, on the controller's own thread.
pub(super) fn tell(board: &Board, runtime: &Runtime) {
    let mut levels = Levels::default();
    for shard in runtime.stats() {
        levels.slots += shard.slots_live;
        levels.timers += shard.timers_pending;
        levels.ops += shard.ops_live;
        levels.futures_bytes += shard.futures_bytes;
    }
    levels.heap = heap::live().ok().map(|live| (live.objects, live.bytes));
    board.set_levels(&levels);
}
