//! Links: each end knows the other by the address that it was told, which may be one that the other has left, and
//! both know the link by its number. Signals are matched by that number, so that it does not matter who has moved.

use super::kin::Kin;
use super::{AgentId, Control, Down, End, Notice, RelationError, shard_of};
use crate::agent::control::Key;
use crate::shard::Shard;
use crate::shard::slab::Header;

/// One end's view of a link.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// The other end.
    at: u64,
    /// The number; never 0.
    id: u64,
    /// The number that it had before, which the other end may still know it by; 0 is none.
    instead: u64,
}

/// Who links or unlinks: where it lives, and where it has lived.
#[derive(Debug)]
pub(crate) struct Linker {
    pub(crate) from: u64,
    pub(crate) homes: Box<[u64]>,
}

impl Linker {
    fn is(&self, address: u64) -> bool {
        self.from == address || self.homes.contains(&address)
    }
}

impl Shard {
    fn linker(&self, me: u64) -> Linker {
        let homes = self.with_kin(me, |kin| kin.homes.clone().into());
        Linker { from: me, homes: homes.unwrap_or_default() }
    }

    pub(crate) fn link(&self, me: u64, other: u64) -> Result<(), RelationError> {
        let id = self.bond_id();
        let known = self.with_kin(me, |kin| kin.links.iter().position(|link| link.at == other));
        let instead = match known {
            Some(Some(place)) => self.renew_link(me, place, id),
            _ => {
                self.relate(me, |kin| kin.links.push(Link { at: other, id, instead: 0 }))?;
                0
            }
        };
        self.send_control(other, Control::Link { by: self.linker(me), id, instead });
        Ok(())
    }

    /// Gives a link another number; the one that the other end knows.
    fn renew_link(&self, me: u64, place: usize, id: u64) -> u64 {
        let old = self.with_kin(me, |kin| kin.links[place]);
        let Some(old) = old else { return 0 };
        let unsent = self.retract(shard_of(old.at), Key::Link(old.id));
        let instead = if unsent { old.instead } else { old.id };
        self.with_kin(me, |kin| kin.links[place] = Link { at: old.at, id, instead });
        instead
    }

    /// Another agent links.
    pub(super) fn add_link(&self, me: u64, by: &Linker, (id, instead): (u64, u64)) {
        let (at, link) = (by.from, Link { at: by.from, id, instead: 0 });
        let double = self.with_kin(me, |kin| {
            let own = kin.links.iter_mut().find(|link| by.is(link.at))?;
            own.at = at;
            // Of two numbers for one link both ends keep the larger, unless one was to take the other's place.
            let kept = if own.id == instead { id } else { own.id.max(id) };
            let other = if kept == id { own.id } else { id };
            (own.id, own.instead) = (kept, other);
            Some(other)
        });
        match double {
            Some(Some(other)) if other == instead => {}
            Some(Some(other)) => self.send_control(at, Control::Unlinked { id: other }),
            _ if self.relate(me, |kin| kin.links.push(link)).is_err() => {
                let (from, why) = (AgentId(me), End::Unwatchable);
                self.send_control(at, Control::Exit { from, id, why });
            }
            _ => {}
        }
    }

    pub(crate) fn unlink(&self, me: u64, other: u64) {
        let link = self.with_kin(me, |kin| {
            let place = kin.links.iter().position(|link| link.at == other)?;
            Some(kin.links.swap_remove(place))
        });
        let link = link.flatten();
        let unsent = link.is_some_and(|link| self.retract(shard_of(other), Key::Link(link.id)));
        if unsent && link.is_some_and(|link| link.instead == 0) {
            return;
        }
        // By another address the other end may know what this one cannot find.
        let id = link.map_or(0, |link| link.id);
        self.send_control(other, Control::Unlink { by: self.linker(me), id });
    }

    /// Another agent unlinks.
    pub(super) fn remove_links(&self, me: u64, by: &Linker, id: u64) {
        let mut others = Vec::new();
        self.with_kin(me, |kin| {
            kin.links.retain(|link| {
                let ends = link.id == id || by.is(link.at);
                others.extend((ends && link.id != id).then_some(link.id));
                !ends
            });
        });
        for id in others {
            self.send_control(by.from, Control::Unlinked { id });
        }
    }

    /// Another agent does not know a link by that number.
    pub(super) fn unlinked(&self, me: u64, id: u64) {
        self.with_kin(me, |kin| kin.links.retain(|link| link.id != id));
    }

    /// A linked agent has ended.
    pub(super) fn linked_has_ended(
        &self,
        header: &Header,
        me: u64,
        (from, id): (AgentId, u64),
        why: End,
    ) {
        let link = self.with_kin(me, |kin| {
            let fits = |link: &Link| link.id == id || link.instead == id;
            Some(kin.links.swap_remove(kin.links.iter().position(fits)?))
        });
        let Some(Some(link)) = link else { return };
        if link.id != id {
            // Linked anew before it was known: if the other lives again, it is not linked to that life.
            self.send_control(link.at, Control::Unlink { by: self.linker(me), id: link.id });
        }
        if header.is_down() {
            return;
        }
        if header.kind.get().is_some_and(|kind| kind.traps) {
            self.notify(header, me, me, Notice::Down(Down { monitor: None, agent: from, why }));
        } else if why.is_failure() {
            self.end_agent(super::index_of(me), End::Linked);
        }
    }

    /// Tells those that an agent is linked to of its end.
    pub(super) fn tell_linked(&self, me: u64, kin: &mut Kin, why: End) {
        for Link { at, id, .. } in kin.links.drain(..) {
            self.send_control(at, Control::Exit { from: AgentId(me), id, why });
        }
    }
}
