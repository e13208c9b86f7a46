//! How agents are related: who watches whom, who ends with whom, who supervises whom. The tables are those of
//! the agent's shard; others are told by control messages.

use std::fmt;
use std::sync::{Arc, Weak};

use super::links::Link;
use super::{Addr, Agent, Control, generation_of, index_of, shard_of};
use crate::panics::drop_contained;
use crate::shard::slab::Role;
use crate::shard::{self, Shard};

/// Who an agent is, whatever its type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AgentId(pub(crate) u64);

impl AgentId {
    pub(crate) const fn of(handle: u64) -> Self {
        Self(handle)
    }

    /// The bits: core 8, generation 24, slot 32.
    #[must_use]
    pub const fn handle(self) -> u64 {
        self.0
    }

    /// Index of the shard it lived on when this was made.
    #[must_use]
    pub fn shard(self) -> usize {
        shard_of(self.0)
    }

    /// The address, if the caller knows its type: messages of another type are dead letters.
    #[must_use]
    pub const fn addr<A: Agent>(self) -> Addr<A> {
        Addr::new(self.0)
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}", shard_of(self.0), index_of(self.0), generation_of(self.0))
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentId({self})")
    }
}

/// Why an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// It returned [`Stop`](super::Stop).
    Stopped,
    /// A handler or a drop panicked.
    Panicked,
    /// It was ended by [`Cx::kill`](super::Cx::kill) or by its supervisor.
    Killed,
    /// An agent that it is linked to has failed.
    Linked,
    /// Its children failed more often than it may restart them.
    GaveUp,
    /// It had ended before it was watched.
    Gone,
    /// It has as many relations as `Config::relations_max` allows, so that nobody can watch it.
    Unwatchable,
}

impl End {
    /// Whether it ends those that are linked to it.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Stopped | Self::Unwatchable)
    }
}

/// Names one watch of one agent over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorId(pub(crate) u64);

/// The bit of the ids by which supervisors watch their children; below it are the supervisor's life (31 bits)
/// and the child's number (32).
pub(crate) const CHILD: u64 = 1 << 63;
/// Most lives of a supervised agent: the next restart fails.
pub(crate) const LIVES_MAX: u32 = (1 << 31) - 1;

/// The end of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Down {
    /// The watch; none for a linked agent.
    pub monitor: Option<MonitorId>,
    /// Who has ended.
    pub agent: AgentId,
    /// Why.
    pub why: End,
}

/// Why a relation was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelationError {
    /// The agent has as many relations as it may have.
    #[error("the agent has {max} relations, as many as Config::relations_max allows")]
    Full {
        /// Bound.
        max: u32,
    },
    /// A spawned future or a job is no agent: it cannot be told of an end.
    #[error("only an agent can have relations: this is a spawned future or a job")]
    NotAnAgent,
    /// The name is taken.
    #[error("the name is taken by agent {by}")]
    Taken {
        /// Who has it.
        by: AgentId,
    },
}

/// What an agent is told beside its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Notice {
    Down(Down),
    /// A supervisor's child lives.
    Started {
        child: u32,
        /// The life of the supervisor that asked for it.
        life: u32,
        agent: Option<AgentId>,
    },
}

/// Makes a supervised agent, again and again.
pub(crate) trait Make: Send + Sync {
    /// Spawns it as a child of a supervisor; `None` when the table is full, its name is taken or its maker
    /// panicked.
    fn spawn(self: Arc<Self>, shard: &Shard, bond: Bond) -> Option<u64>;
    /// Puts a new state into the slot of a failed one; `false` when its maker panicked.
    fn refill(&self, shard: &Shard, agent: u64) -> bool;
}

/// What ties a child to its supervisor.
#[derive(Clone)]
pub(crate) struct Bond {
    pub(crate) supervisor: u64,
    pub(crate) number: u32,
    /// The life of the supervisor that has started it: a later one knows nothing of it.
    pub(crate) life: u32,
    /// Held until it has ended for good and its names are free.
    pub(crate) tie: Arc<Tie>,
}

/// Held by all that one life of a supervisor has started, and by what these have started in turn. When the last
/// has let go the supervisor is told: a later life begins then, and meets none of its names.
pub(crate) struct Tie {
    supervisor: u64,
    /// The supervisor's own.
    _above: Option<Arc<Self>>,
}

impl Drop for Tie {
    fn drop(&mut self) {
        shard::with_current(|shard| shard.send_control(self.supervisor, Control::Untied));
    }
}

/// What a supervised agent knows of its supervisor.
#[derive(Clone)]
pub(crate) struct Child {
    pub(crate) bond: Bond,
    pub(crate) make: Arc<dyn Make>,
}

/// The relations of one agent.
#[derive(Default)]
pub(crate) struct Kin {
    /// Who is told of its end, and by which id.
    pub(crate) watchers: Vec<(u64, u64)>,
    /// Whose end it is told, and by which id.
    pub(crate) watched: Vec<(u64, u64)>,
    pub(crate) links: Vec<Link>,
    /// Its names and topics, with the address under which they are known.
    pub(crate) names: Vec<(u64, Box<str>)>,
    pub(crate) topics: Vec<(u64, Box<str>)>,
    pub(crate) child: Option<Child>,
    pub(crate) children: Vec<u64>,
    /// Children that have a place here and whose address is not known.
    pub(crate) unborn: usize,
    /// What its children hold, and those of its earlier lives that still do; whether it waits for these.
    tie: Option<Arc<Tie>>,
    earlier: Vec<Weak<Tie>>,
    waits: bool,
    /// Where it lived before it moved.
    pub(crate) homes: Vec<u64>,
}

impl Kin {
    fn len(&self) -> usize {
        let pairs = self.watchers.len() + self.watched.len() + self.links.len();
        let children = self.children.len() + self.unborn;
        pairs + self.names.len() + self.topics.len() + children + self.homes.len()
    }
}

/// The relations of a shard's agents; number 0 is nobody's.
#[derive(Default)]
pub(crate) struct Kins {
    slots: Vec<Option<Box<Kin>>>,
    free: Vec<u32>,
}

impl Kins {
    fn get(&mut self, number: u32) -> Option<&mut Kin> {
        self.slots.get_mut(number.checked_sub(1)? as usize)?.as_deref_mut()
    }

    fn add(&mut self, kin: Box<Kin>) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[number as usize - 1] = Some(kin);
            return number;
        }
        self.slots.push(Some(kin));
        u32::try_from(self.slots.len()).expect("one per slot of the slab at most")
    }

    fn take(&mut self, number: u32) -> Option<Box<Kin>> {
        let kin = self.slots.get_mut(number.checked_sub(1)? as usize)?.take()?;
        self.free.push(number);
        Some(kin)
    }

    /// Agents that have relations.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Shard {
    /// Works on the relations of an agent of this shard, which are made if it had none. `None` when there is no
    /// such agent.
    pub(crate) fn with_kin<R>(&self, agent: u64, work: impl FnOnce(&mut Kin) -> R) -> Option<R> {
        let header = self.slab.header(index_of(agent))?;
        let lives = header.generation.get() == generation_of(agent);
        if !lives || header.role() != Some(Role::Agent) {
            return None;
        }
        let mut kins = self.kins.borrow_mut();
        if header.kin.get() == 0 {
            header.kin.set(kins.add(Box::default()));
        }
        kins.get(header.kin.get()).map(work)
    }

    /// [`Shard::with_kin`] for one more relation, if there is room.
    pub(crate) fn relate<R>(
        &self,
        agent: u64,
        work: impl FnOnce(&mut Kin) -> R,
    ) -> Result<R, RelationError> {
        let max = self.config.relations_max;
        let related = self
            .with_kin(agent, |kin| if kin.len() >= max as usize { None } else { Some(work(kin)) });
        related.ok_or(RelationError::NotAnAgent)?.ok_or(RelationError::Full { max })
    }

    /// Takes the relations out of a slot.
    pub(crate) fn take_kin(&self, index: u32) -> Option<Box<Kin>> {
        let number = self.slab.header(index)?.kin.take();
        if number == 0 { None } else { self.kins.borrow_mut().take(number) }
    }

    /// Gives a slot the relations of its agent.
    pub(crate) fn put_kin(&self, index: u32, kin: Box<Kin>) {
        if let Some(header) = self.slab.header(index) {
            header.kin.set(self.kins.borrow_mut().add(kin));
        }
    }

    /// A number for a watch or a link, which no other has; its top 16 bits say who has given it.
    pub(super) fn bond_id(&self) -> u64 {
        let number = self.bonds.get() + 1;
        self.bonds.set(number);
        (self.index as u64) << 48 | number & (u64::MAX >> 16)
    }

    pub(crate) fn monitor(&self, me: u64, target: u64) -> Result<MonitorId, RelationError> {
        let id = self.bond_id();
        self.relate(me, |kin| kin.watched.push((target, id)))?;
        self.send_control(target, Control::Watch { watcher: me, id });
        Ok(MonitorId(id))
    }

    pub(crate) fn demonitor(&self, me: u64, monitor: MonitorId) -> bool {
        let target = self.with_kin(me, |kin| {
            let at = kin.watched.iter().position(|(_, id)| *id == monitor.0)?;
            Some(kin.watched.swap_remove(at).0)
        });
        let Some(Some(target)) = target else { return false };
        self.send_control(target, Control::Unwatch { id: monitor.0 });
        true
    }

    /// Whether an agent still wants to be told of what it watched; it is told once.
    pub(crate) fn awaits(&self, watcher: u64, down: &Down) -> bool {
        let Some(MonitorId(id)) = down.monitor else { return true };
        let found = self.with_kin(watcher, |kin| {
            let at = kin.watched.iter().position(|(_, watched)| *watched == id)?;
            kin.watched.swap_remove(at);
            Some(())
        });
        id & CHILD != 0 || found == Some(Some(()))
    }

    /// Tells those who watch or are linked; the relations that outlive a restart stay in `kin`.
    pub(crate) fn tell_of_end(&self, me: u64, kin: &mut Kin, why: End) {
        let agent = AgentId(me);
        for (watcher, id) in kin.watchers.drain(..) {
            let down = Down { monitor: Some(MonitorId(id)), agent, why };
            self.send_control(watcher, Control::Notice(Notice::Down(down)));
        }
        for (target, id) in kin.watched.drain(..) {
            self.send_control(target, Control::Unwatch { id });
        }
        self.tell_linked(me, kin, why);
        for (known_as, topic) in kin.topics.drain(..) {
            self.own().directory.leave(&topic, known_as);
        }
        for child in kin.children.drain(..) {
            self.send_control(child, Control::Release);
        }
        (kin.unborn, kin.waits) = (0, false);
        if let Some(tie) = kin.tie.take() {
            kin.earlier.push(Arc::downgrade(&tie));
        }
    }

    /// What a child that a supervisor starts now is to hold.
    pub(crate) fn tie(&self, supervisor: u64) -> Option<Arc<Tie>> {
        self.with_kin(supervisor, |kin| {
            let above = kin.child.as_ref().map(|child| Arc::clone(&child.bond.tie));
            let tie = kin.tie.get_or_insert_with(|| Arc::new(Tie { supervisor, _above: above }));
            Arc::clone(tie)
        })
    }

    /// Whether an agent that begins a life must wait for what its earlier ones have started.
    pub(crate) fn awaits_earlier(&self, me: u64) -> bool {
        let waits = self.with_kin(me, |kin| {
            kin.waits = !kin.earlier.is_empty();
            kin.waits
        });
        waits == Some(true)
    }

    /// All that one life of a supervisor has started has ended; whether it has waited for that, and may begin.
    pub(crate) fn untied(&self, me: u64) -> bool {
        let begins = self.with_kin(me, |kin| {
            kin.earlier.retain(|tie| tie.strong_count() > 0);
            kin.earlier.is_empty() && std::mem::take(&mut kin.waits)
        });
        begins == Some(true)
    }

    /// The end of an agent that does not come back.
    pub(crate) fn dissolve(&self, me: u64, mut kin: Box<Kin>, why: End) {
        self.untie(me, &mut kin, why);
        // What makes a child is the user's, and so is its drop.
        drop_contained(kin);
    }

    fn untie(&self, me: u64, kin: &mut Kin, why: End) {
        for (known_as, name) in kin.names.drain(..) {
            self.own().directory.remove(&name, known_as);
        }
        if self.is_closed() {
            return;
        }
        self.tell_of_end(me, kin, why);
        for home in kin.homes.drain(..) {
            self.send_control(home, Control::Vacate);
        }
    }
}
