//! Control messages: relations, supervision and cancellation. They travel on rings of their own, so that they
//! never wait behind data; what bounds them is said at `Shard::send_control`.

use super::cancel::Due;
use super::kin::CHILD;
use super::links::Linker;
use super::{AgentId, Child, Down, End, Notice, generation_of, handle, index_of, shard_of};
use crate::channel::envelope::{Deliver, Envelope};
use crate::panics::contain;
use crate::shard::Shard;
use crate::shard::slab::{Header, Role};

/// Agents that a search for a cycle passes at most.
const CYCLE_MAX: u32 = 64;

/// Work for another shard.
pub(crate) type Job = Box<dyn FnOnce(&Shard) + Send>;

/// What one shard tells another, or an agent of its own.
pub(crate) enum Control {
    /// To an agent: `watcher` wants to know of its end.
    Watch {
        watcher: u64,
        id: u64,
    },
    Unwatch {
        id: u64,
    },
    /// To an agent: one links to it, by that number, in the place of another number.
    Link {
        by: Linker,
        id: u64,
        instead: u64,
    },
    /// To an agent: one ends that link, and any other between the two.
    Unlink {
        by: Linker,
        id: u64,
    },
    /// To an agent: there is no link of that number.
    Unlinked {
        id: u64,
    },
    /// To an agent: one that it is linked to has ended.
    Exit {
        from: AgentId,
        id: u64,
        why: End,
    },
    /// To an agent: end.
    Kill,
    /// To a supervisor: fail.
    GiveUp,
    /// To a supervised agent: end and wait for a restart.
    Halt,
    /// To a failed one: begin anew.
    Restart,
    /// To a supervised one: end for good.
    Release,
    /// To a supervisor: all that one of its lives has started has ended.
    Untied,
    /// To where an agent lived before it moved: it has ended.
    Vacate,
    /// To where an agent lived before: it lives there now.
    Shorten {
        to: u64,
    },
    /// To the same: what it has passed on has arrived there.
    Flushed {
        at: u64,
    },
    /// To an agent, for one of its hooks.
    Notice(Notice),
    /// To an agent: does the one you wait for lead back to `origin`?
    Probe {
        origin: u64,
        key: u64,
        agents: u32,
    },
    /// To a shard: the ask closes a cycle.
    Cycle {
        key: u64,
        agents: u32,
    },
    /// To a shard: nobody will answer the ask.
    DropAsk {
        key: u64,
        /// Its cancel was noted there, and is not any more.
        forgotten: bool,
    },
    /// To a shard: nobody waits for the ask.
    CancelAsk {
        origin: usize,
        due: Due,
    },
    /// To a shard: the reply of that ask has come to its end.
    ForgetCancel {
        origin: usize,
        due: Due,
    },
    /// To a shard.
    Job(Job),
    /// To a shard: work for the answer to an ask.
    Asked {
        key: u64,
        job: Job,
    },
}

impl Deliver for Control {
    const MESSAGE: bool = false;

    fn deliver(self, to: u64, shard: &Shard) {
        match self {
            Self::Cycle { key, agents } => shard.note_cycle(key, agents),
            Self::DropAsk { key, forgotten } => shard.give_up_ask(key, forgotten),
            Self::CancelAsk { origin, due } => shard.cancel_ask(origin, due),
            Self::ForgetCancel { origin, due } => shard.forget_cancelled(origin, due),
            Self::Job(job) | Self::Asked { job, .. } => {
                // A job calls user code: a maker of agents.
                let _ = contain(|| job(shard));
            }
            told => {
                let me = handle(shard.index, generation_of(to), index_of(to));
                let header = shard.slab.header(index_of(to));
                let lives = header.filter(|header| header.generation.get() == generation_of(to));
                match lives {
                    Some(header) if header.kind.get().is_some() => shard.told(header, me, to, told),
                    _ => shard.told_nobody(me, told),
                }
            }
        }
    }
}

/// Whether a notice is of a child that an earlier life of this supervisor has started.
fn is_of_another_life(header: &Header, notice: &Notice) -> bool {
    let of = match notice {
        Notice::Started { life, .. } => Some(*life),
        Notice::Down(down) => super::child_of(down).map(|(_, life)| life),
    };
    of.is_some_and(|life| life != header.incarnation.get())
}

impl Shard {
    /// Gives control over an agent that lives here.
    fn told(&self, header: &Header, me: u64, to: u64, control: Control) {
        if header.role() == Some(Role::Forward) {
            return self.told_place(header, me, control);
        }
        let index = index_of(me);
        if header.is_expected() && !matches!(control, Control::Release) {
            // Its relations are on their way: it is told when it has them.
            return self.wait(header, Envelope::new(to, control));
        }
        match control {
            Control::Watch { watcher, id } => self.add_watcher(me, watcher, id),
            Control::Unwatch { id } => {
                // By the id alone: the watcher may have moved, and ids are of one watch.
                self.with_kin(me, |kin| kin.watchers.retain(|(_, own)| *own != id));
            }
            Control::Link { by, id, instead } => self.add_link(me, &by, (id, instead)),
            Control::Unlink { by, id } => self.remove_links(me, &by, id),
            Control::Unlinked { id } => self.unlinked(me, id),
            Control::Exit { from, id, why } => self.linked_has_ended(header, me, (from, id), why),
            Control::Kill if !header.is_down() => self.end_agent(index, End::Killed),
            Control::Halt if !header.is_down() => self.end_agent(index, End::Killed),
            Control::GiveUp => self.end_agent(index, End::GaveUp),
            Control::Restart => self.restart(header, index),
            Control::Release => self.release_agent(index),
            Control::Untied if self.untied(me) => crate::supervise::begins(self, me),
            Control::Notice(notice) => self.notify(header, me, to, notice),
            Control::Probe { origin, key, agents } => self.probe(header, me, (origin, key), agents),
            _ => {}
        }
    }

    /// Answers for an agent that has ended.
    fn told_nobody(&self, me: u64, control: Control) {
        let (agent, why) = (AgentId(me), End::Gone);
        match control {
            Control::Watch { watcher, id } => {
                let down = Down { monitor: Some(super::MonitorId(id)), agent, why };
                self.send_control(watcher, Control::Notice(Notice::Down(down)));
            }
            Control::Link { by, id, .. } => {
                self.send_control(by.from, Control::Exit { from: agent, id, why });
            }
            // It is told of no end that it does not wait for.
            Control::Unwatch { id } => _ = self.retract((id >> 48) as usize, Key::Down(id)),
            Control::Unlink { by, id } => _ = self.retract(shard_of(by.from), Key::Exit(id)),
            // A child that was started for a supervisor that has ended since.
            Control::Notice(Notice::Started { agent: Some(child), .. }) => {
                self.send_control(child.0, Control::Release);
            }
            _ => {}
        }
    }

    fn add_watcher(&self, me: u64, watcher: u64, id: u64) {
        if self.relate(me, |kin| kin.watchers.push((watcher, id))).is_err() {
            let monitor = Some(super::MonitorId(id));
            let down = Down { monitor, agent: AgentId(me), why: End::Unwatchable };
            self.send_control(watcher, Control::Notice(Notice::Down(down)));
        }
    }

    /// Calls an agent's hook, or keeps the notice until it has finished what it does.
    pub(super) fn notify(&self, header: &Header, me: u64, to: u64, notice: Notice) {
        if is_of_another_life(header, &notice) {
            // A child that was started for an earlier life is nobody's.
            if let Notice::Started { agent: Some(child), .. } = notice {
                self.send_control(child.0, Control::Release);
            }
            return;
        }
        if header.is_busy() {
            return self.wait(header, Envelope::new(to, Control::Notice(notice)));
        }
        if let Notice::Down(down) = &notice
            && !self.awaits(me, down)
        {
            return;
        }
        self.call_hook(header, me, notice);
    }

    /// Follows the edge from an agent that is asked to the one that it asks.
    fn probe(&self, header: &Header, me: u64, (origin, key): (u64, u64), agents: u32) {
        let next = header.waits_for.get();
        if me == origin || next == origin {
            let agents = if me == origin { agents } else { agents + 1 };
            self.send_control(key & !(u64::MAX >> 8), Control::Cycle { key, agents });
        } else if next != 0 && agents < CYCLE_MAX {
            self.send_control(next, Control::Probe { origin, key, agents: agents + 1 });
        }
    }

    /// Tells a supervisor how its child is.
    pub(crate) fn tell_supervisor(&self, child: &Child, agent: u64, why: End) {
        let (supervisor, life) = (child.bond.supervisor, u64::from(child.bond.life));
        let number = u64::from(child.bond.number);
        let monitor = Some(super::MonitorId(CHILD | life << 32 | number));
        let down = Down { monitor, agent: AgentId(agent), why };
        self.send_control(supervisor, Control::Notice(Notice::Down(down)));
    }

    /// Sends control to an agent, or to the shard that a handle names. It never fails: what the ring has no room for
    /// waits in order. What may wait is bounded: it stands for a relation of some agent, a child, an open ask or one
    /// that a callee was told of, or is the only kill of its agent: what is begun and ended again while it waits is
    /// taken back, and what says the same is not sent twice (`control_coalesced`).
    pub(crate) fn send_control(&self, to: u64, control: Control) {
        if self.is_closed() {
            return;
        }
        let peer = shard_of(to);
        if peer == self.index {
            self.queue_control(to, control);
        } else if !self.is_undone(peer, to, &control) {
            let key = control.key(to);
            // There is such a shard, for it has agents; and it is not too late.
            let _ = self.push_control(peer, key, Envelope::new(self.mark(to), control));
        }
    }

    /// Whether what waits for room makes a message needless: it says the same, or goes with it.
    fn is_undone(&self, peer: usize, to: u64, control: &Control) -> bool {
        match control {
            Control::Kill => self.is_said(peer, Key::Kill(to)),
            Control::Unwatch { id } => self.retract(peer, Key::Watch(*id)),
            Control::Unlink { by, id: 0 } => {
                // The later one: the two may have linked again in between.
                self.retract(peer, Key::Unlink(to, by.from));
                false
            }
            _ => false,
        }
    }
}

/// What finds a message while it waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// To whom.
    Kill(u64),
    Watch(u64),
    Down(u64),
    Link(u64),
    Exit(u64),
    /// To whom and from whom, without a number.
    Unlink(u64, u64),
    /// Work that is asked for.
    Asked(u64),
}

impl Control {
    fn key(&self, to: u64) -> Option<Key> {
        match self {
            Self::Kill => Some(Key::Kill(to)),
            Self::Watch { id, .. } => Some(Key::Watch(*id)),
            Self::Notice(Notice::Down(Down { monitor: Some(super::MonitorId(id)), .. })) => {
                (id & CHILD == 0).then_some(Key::Down(*id))
            }
            Self::Link { id, .. } => Some(Key::Link(*id)),
            Self::Exit { id, .. } => Some(Key::Exit(*id)),
            Self::Unlink { by, id: 0 } => Some(Key::Unlink(to, by.from)),
            Self::Asked { key, .. } => Some(Key::Asked(*key)),
            _ => None,
        }
    }
}
