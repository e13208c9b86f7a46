//! Faults of the links between shards, switched while the runtime runs: loss, delay, one way only, a share of the
//! agents only. They stand for a network between the cores, so that what is built on the runtime can be seen to
//! survive one.
//!
//! They act where a message or an answer is taken from the ring of another shard. What is lost is silence: its place
//! in the mailbox is given back, it is dropped, and nobody is told, so that an ask ends by its deadline, as behind a
//! dead link. What is delayed waits in the order in which it was sent. Messages within a shard, and the control rings
//! (stops, supervision, credits, cancels: the runtime's own, without which it could not keep its promises), never
//! suffer them; so an agent on the far side of a cut is still restarted, killed and awaited.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is wrong with the links into shards. All zero is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkFault {
    /// Messages lost, per million; from a million on all are.
    pub loss_ppm: u32,
    /// Time from when a message is taken from the ring until it is given to its agent, at least, ns. It is looked at
    /// anew while messages wait: with 0 again they all go on within 1 ms.
    pub delay_ns: u64,
    /// Bit `n % 64`: what shard `n` has sent suffers. 0 is all shards. One bit of two shards is a cut one way.
    pub from: u64,
    /// Of the receiving agents so many in a thousand suffer, chosen by the number of their slot: the same ones as long
    /// as they live, whoever sends. 0 and 1,000 are all.
    pub share_permille: u32,
}

impl LinkFault {
    /// Nothing comes through.
    pub const CUT: Self = Self { loss_ppm: 1_000_000, delay_ns: 0, from: 0, share_permille: 0 };

    /// Whether what this shard has sent suffers.
    pub(crate) const fn covers(&self, sender: usize) -> bool {
        self.from == 0 || self.from >> (sender % 64) & 1 == 1
    }
}

/// The settings: read by every shard that takes something, written rarely.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Settings {
    loss_ppm: AtomicU32,
    share_permille: AtomicU32,
    delay_ns: AtomicU64,
    from: AtomicU64,
    /// The shard that is to end, plus one.
    ends: AtomicU64,
}

/// What they have done, over all shards; on a line of its own, which a runtime without a fault never touches.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    dropped: AtomicU64,
    delayed: AtomicU64,
    overflowed: AtomicU64,
}

/// The faults of a runtime's links, for [`Config::link_faults`](crate::Config::link_faults). Two are equal when they
/// are the same one.
#[derive(Debug, Default)]
pub struct LinkFaults {
    settings: Settings,
    counts: Counts,
    seed: u64,
}

impl PartialEq for LinkFaults {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self, other)
    }
}

impl Eq for LinkFaults {}

impl LinkFaults {
    /// Links without a fault; which messages will be lost is drawn from `seed`, by each shard on its own.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets what is wrong from now on, in any order: a shard may see a part of a setting for one look. Each shard looks
    /// when it takes messages, and at least every 1 ms while some wait.
    pub fn set(&self, fault: LinkFault) {
        let settings = &self.settings;
        settings.from.store(fault.from, Ordering::Relaxed);
        settings.share_permille.store(fault.share_permille, Ordering::Relaxed);
        settings.delay_ns.store(fault.delay_ns, Ordering::Relaxed);
        settings.loss_ppm.store(fault.loss_ppm, Ordering::Relaxed);
    }

    /// Has the thread of a shard panic at its next look at what another shard has sent, between two turns: as by a mistake
    /// in the runtime, which nobody contains. Its agents are gone and nobody is told; what waits for them ends by its
    /// deadline; whoever drives the runtime learns of it as of any shard that has ended ([`Stopped`](crate::Stopped)).
    /// Does nothing to a runtime of one shard.
    pub fn end_shard(&self, shard: usize) {
        self.settings.ends.store(shard as u64 + 1, Ordering::Relaxed);
    }

    /// Whether this shard is to end.
    pub(crate) fn ends(&self, shard: usize) -> bool {
        self.settings.ends.load(Ordering::Relaxed) == shard as u64 + 1
    }

    /// Nothing is wrong any more: what is on its way arrives, what waits is given to its agents.
    pub fn heal(&self) {
        self.settings.ends.store(0, Ordering::Relaxed);
        self.set(LinkFault::default());
    }

    /// What is set.
    #[must_use]
    pub fn get(&self) -> LinkFault {
        let settings = &self.settings;
        LinkFault {
            loss_ppm: settings.loss_ppm.load(Ordering::Relaxed),
            delay_ns: settings.delay_ns.load(Ordering::Relaxed),
            from: settings.from.load(Ordering::Relaxed),
            share_permille: settings.share_permille.load(Ordering::Relaxed),
        }
    }

    /// Messages and answers lost so far, on all shards.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Messages and answers that were made to wait so far; those that waited behind others count.
    #[must_use]
    pub fn delayed(&self) -> u64 {
        self.counts.delayed.load(Ordering::Relaxed)
    }

    /// Messages and answers lost because [`Config::link_delayed_max`](crate::Config::link_delayed_max) of them waited
    /// already; not counted as dropped.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.counts.overflowed.load(Ordering::Relaxed)
    }

    /// Three loads of a line that nobody writes to while nothing is wrong.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.settings.loss_ppm.load(Ordering::Relaxed) != 0
            || self.settings.delay_ns.load(Ordering::Relaxed) != 0
            || self.settings.ends.load(Ordering::Relaxed) != 0
    }

    pub(crate) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(crate) fn note_dropped(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_delayed(&self) {
        self.counts.delayed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_overflowed(&self) {
        self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_what_was_set_and_covers_whom_it_says() {
        let faults = LinkFaults::new(1);
        assert!(!faults.is_on() && faults.get() == LinkFault::default());
        let fault = LinkFault { loss_ppm: 3, delay_ns: 5, from: 0b10, share_permille: 333 };
        faults.set(fault);
        assert!(faults.is_on() && faults.get() == fault);
        assert!(fault.covers(1) && fault.covers(65) && !fault.covers(0));
        assert!(LinkFault::CUT.covers(0) && LinkFault::CUT.covers(63));
        faults.heal();
        assert!(!faults.is_on());
        assert!(faults == faults && faults != LinkFaults::new(1));
    }
}
