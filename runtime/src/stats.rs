//! Counters that a shard publishes.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of one shard since its start, as last published: at least every 10 ms while busy
        /// and before each sleep.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ShardStats {
            /// CPU.
            pub core: usize,
            $($(#[$doc])* pub $name: u64,)*
        }

        /// Number of counters.
        pub(crate) const COUNTERS: usize = [$(stringify!($name)),*].len();

        impl ShardStats {
            pub(crate) fn read(core: usize, cells: &[AtomicU64; COUNTERS]) -> Self {
                let mut cells = cells.iter();
                let mut next = || cells.next().map_or(0, |cell| cell.load(Ordering::Relaxed));
                Self { core, $($name: next(),)* }
            }

            pub(crate) fn publish(&self, cells: &[AtomicU64; COUNTERS]) {
                for (cell, value) in cells.iter().zip([$(self.$name),*]) {
                    cell.store(value, Ordering::Relaxed);
                }
            }
        }
    };
}

counters! {
    /// Thread id of the shard.
    thread_id,
    /// Live agents.
    live_agents,
    /// Agents spawned.
    spawned,
    /// Agents that panicked.
    panicked,
    /// Panics of drops of what an earlier panic had left: what these left is never dropped.
    payloads_forgotten,
    /// Agents that stopped.
    stopped,
    /// Agents ended by others: killed, linked to one that failed, or with their supervisor.
    killed,
    /// Failed agents that their supervisors have restarted.
    restarted,
    /// Agents that have moved here.
    moved,
    /// Slots of agents that have moved away, kept for those who hold the old address until the agent ends.
    places_kept,
    /// Messages skipped because their asker had given up.
    asks_skipped,
    /// Cancels of asks that found no room, here or there; the deadline speaks for those asks.
    cancels_refused,
    /// Asks that were found to close a cycle.
    ask_cycles,
    /// Asks that are open.
    asks_open,
    /// Agents that have relations.
    agents_related,
    /// Turns of agents and futures.
    turns,
    /// Messages to agents of this shard from this shard.
    messages_local,
    /// Messages to other shards.
    messages_sent_remote,
    /// Messages from other shards. Of a runtime, what was sent to other shards is this, what links have dropped, what
    /// waits for their sake, and what is on its way.
    messages_received_remote,
    /// Messages and answers from other shards that were lost on a faulty link.
    link_dropped,
    /// Messages and answers from other shards that a faulty link has made wait.
    link_delayed,
    /// Messages and answers from other shards that were lost because too many waited on faulty links.
    link_overflowed,
    /// Messages and answers that wait on faulty links.
    link_waiting,
    /// Messages whose agent had ended.
    dead_letters,
    /// Sends refused by a full mailbox.
    full,
    /// Sends refused by a full ring.
    ring_full,
    /// Doorbells rung.
    doorbells,
    /// Times that new messages to another shard were made visible.
    publications,
    /// Most control messages that have waited for room at once.
    control_waiting_max,
    /// Control messages that were taken back or not sent, because one that waited for room said the same or the
    /// opposite.
    control_coalesced,
    /// Sleeps.
    parks,
    /// `io_uring_enter` calls.
    enters,
    /// Of those, failed for good; the shard then sleeps on its eventfd, at most 1 ms at a time.
    ring_failed,
    /// Operations on sockets and files given to the kernel.
    ops_submitted,
    /// Of those, ended.
    ops_completed,
    /// Operations that live: waiting, with the kernel, or ended and not yet taken.
    ops_live,
    /// Operations refused by a full table.
    ops_full,
    /// Cancellations asked for.
    ops_cancelled,
    /// Receives that found no buffer and waited for one.
    ops_starved,
    /// Receive buffers that users or streams hold.
    buffers_in_use,
    /// Timers fired.
    timers_fired,
    /// Timers pending.
    timers_pending,
    /// Largest lateness of a timer, ns.
    timer_late_max_ns,
    /// Time neither looking on nor asleep, ns.
    busy_ns,
    /// Time spent looking on for work, ns: CPU time that nothing was done with.
    spun_ns,
    /// Time asleep, ns.
    parked_ns,
    /// Slots of agents and spawned futures.
    slots_live,
    /// Memory of suspended handlers and spawned futures, bytes.
    futures_bytes,
    /// Bytes of slots, states, mailboxes and timers.
    state_bytes,
    /// Monotonic instant of this publication, ns.
    heartbeat_ns,
}
