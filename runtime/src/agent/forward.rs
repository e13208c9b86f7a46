//! Where an agent has lived before: a place that leads on. Each place knew the next one only, so that a message to
//! the first took as many hops as the agent had moved. A place that is used finds its way to the newest one by
//! itself, and keeps the order of what it passes on: it holds what comes, sends a marker behind what it has passed
//! on, and goes by the short way when that has arrived. Control takes every hop: a restart must not wait behind
//! messages to an agent that is down.
//!
//! A place is kept for as long as its agent lives, for nobody knows who holds its address; it costs a slot, and an
//! agent has at most `Config::relations_max` of them and other relations.
//!
//! The words of a place's header: `waits_for` where messages go, `messages` and `polls` the two halves of where
//! control goes, `cpu_ns` the newest place, `age_max` tries to pass a message on that were in vain.

use super::{Class, Control, generation_of, handle, index_of, shard_of};
use crate::channel::envelope::{Deliver, Envelope};
use crate::shard::Shard;
use crate::shard::slab::{Header, Role};

/// Follows the messages that a place has passed on.
pub(crate) struct Marker {
    home: u64,
    /// That of the messages: what a ring brings waits for its turn by class.
    class: Class,
}

impl Deliver for Marker {
    const MESSAGE: bool = false;

    fn deliver(self, to: u64, shard: &Shard) {
        if !matches!(self.class, Class::High) && shard.must_queue(self.class) {
            return shard.queue_again(self.class, Envelope::new(to, self));
        }
        let (index, generation) = (index_of(to), generation_of(to));
        let header = shard.slab.header(index);
        // Where there is none its agent has ended, which ends the place that has sent the marker.
        let Some(header) = header.filter(|header| header.generation.get() == generation) else {
            return;
        };
        if header.role() != Some(Role::Forward) {
            let at = handle(shard.index, generation, index);
            return shard.send_control(self.home, Control::Flushed { at });
        }
        if header.is_busy() {
            return shard.wait(header, Envelope::new(to, self));
        }
        if let Err(marker) = shard.send_marker(header.waits_for.get(), self) {
            shard.wait(header, Envelope::new(to, marker));
            shard.block(header, index);
        }
    }
}

impl Shard {
    fn send_marker(&self, to: u64, marker: Marker) -> Result<(), Marker> {
        if shard_of(to) == self.index {
            self.send_local(marker.class, to, marker)
        } else {
            self.send_remote(to, marker)
        }
    }

    /// An agent leaves this slot for another place.
    pub(super) fn lead_on(&self, header: &Header, to: u64) {
        header.waits_for.set(to);
        header.messages.set(u32::try_from(to >> 32).expect("32 bits"));
        header.polls.set(index_of(to));
    }

    /// A place has passed a message on: looks for a shorter way, if there is one.
    #[inline]
    pub(super) fn shorten(&self, header: &Header, index: u32, class: Class) {
        let (newest, next) = (header.cpu_ns.get(), header.waits_for.get());
        if newest == 0 || newest == next {
            return;
        }
        let home = handle(self.index, header.generation.get(), index);
        // Without room the next message tries again.
        if self.send_marker(next, Marker { home, class }).is_ok() {
            // It holds what comes.
            header.set_down(true);
        }
    }

    /// Gives control over an agent that has lived here.
    pub(super) fn told_place(&self, header: &Header, me: u64, control: Control) {
        match control {
            Control::Vacate => self.end_agent(index_of(me), super::End::Stopped),
            Control::Shorten { to } => header.cpu_ns.set(to),
            Control::Flushed { at } if header.is_down() => {
                // If the agent has moved on meanwhile, the next message tries again.
                header.waits_for.set(at);
                self.arrived(header, me);
            }
            Control::Flushed { .. } => {}
            other => {
                let next = u64::from(header.messages.get()) << 32 | u64::from(header.polls.get());
                self.send_control(next, other);
            }
        }
    }

    /// An agent has a new place: tells those that do not lead there.
    pub(super) fn tell_places(&self, me: u64) {
        let homes = self.with_kin(me, |kin| kin.homes.clone()).unwrap_or_default();
        let others = homes.split_last().map_or(&[][..], |(_, others)| others);
        for &home in others {
            self.send_control(home, Control::Shorten { to: me });
        }
    }
}
