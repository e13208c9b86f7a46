//! Names and topics of a whole runtime. A lookup or a publication takes a lock for some 100 ns: look up once
//! and keep the address.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Addr, Agent, AgentId, Placement, RelationError, Rotor};
use crate::error::SendError;
use crate::shard::Shard;

type Send<M> = fn(&Shard, u64, M) -> Result<(), SendError<M>>;

/// The address of an agent for whoever knows its messages only.
pub struct Recipient<M> {
    to: u64,
    send: Send<M>,
}

impl<M> Clone for Recipient<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Recipient<M> {}

impl<M> fmt::Debug for Recipient<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({})", AgentId(self.to))
    }
}

impl<M: std::marker::Send + 'static> Recipient<M> {
    pub(crate) fn of<A: Agent<Msg = M>>(addr: Addr<A>) -> Self {
        Self { to: addr.0, send: |shard, to, msg| shard.send::<A>(to, msg) }
    }

    /// Who it is.
    #[must_use]
    pub const fn id(self) -> AgentId {
        AgentId(self.to)
    }

    /// Sends a message. Never blocks.
    ///
    /// # Errors
    /// [`SendError`] with the message.
    pub fn try_send(self, cx: &mut super::Cx<'_>, msg: M) -> Result<(), SendError<M>> {
        (self.send)(cx.shard(), self.to, msg)
    }
}

/// What became of a publication, by member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Published {
    /// Members that will get the message.
    pub sent: u32,
    /// Members whose mailbox was full, or the ring to their core.
    pub full: u32,
    /// Members that have ended.
    pub gone: u32,
}

type Members<M> = Arc<Vec<Recipient<M>>>;

#[derive(Default)]
struct Tables {
    names: BTreeMap<Box<str>, (u64, TypeId)>,
    /// `Members<M>` by topic.
    topics: BTreeMap<Box<str>, Topic>,
}

struct Topic {
    members: Box<dyn Any + std::marker::Send + Sync>,
    /// Takes a member out; whether any is left.
    leave: fn(&mut Box<dyn Any + std::marker::Send + Sync>, u64) -> bool,
}

/// The names and topics of a runtime.
#[derive(Default)]
pub(crate) struct Directory {
    tables: Mutex<Tables>,
    pub(crate) rotor: Rotor,
}

impl Directory {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().expect("no user code runs under the lock")
    }

    pub(crate) fn add<A: Agent>(&self, name: &str, agent: u64) -> Result<(), RelationError> {
        let mut tables = self.tables();
        if let Some((by, _)) = tables.names.get(name) {
            return Err(RelationError::Taken { by: AgentId(*by) });
        }
        tables.names.insert(name.into(), (agent, TypeId::of::<A>()));
        Ok(())
    }

    pub(crate) fn remove(&self, name: &str, agent: u64) {
        let mut tables = self.tables();
        if tables.names.get(name).is_some_and(|(known_as, _)| *known_as == agent) {
            tables.names.remove(name);
        }
    }

    pub(crate) fn find<A: Agent>(&self, name: &str) -> Option<Addr<A>> {
        let tables = self.tables();
        let (agent, kind) = tables.names.get(name)?;
        (*kind == TypeId::of::<A>()).then(|| Addr::new(*agent))
    }

    /// Adds a member; `false` when the topic carries messages of another type.
    pub(crate) fn join<A: Agent>(&self, topic: &str, agent: u64) -> bool {
        let mut tables = self.tables();
        let topic = tables.topics.entry(topic.into()).or_insert_with(|| Topic {
            members: Box::new(Members::<A::Msg>::default()),
            leave: leave::<A::Msg>,
        });
        let Some(members) = topic.members.downcast_mut::<Members<A::Msg>>() else { return false };
        if members.iter().all(|member| member.to != agent) {
            Arc::make_mut(members).push(Recipient::of(Addr::<A>::new(agent)));
        }
        true
    }

    pub(crate) fn leave(&self, name: &str, agent: u64) {
        let mut tables = self.tables();
        if let Some(topic) = tables.topics.get_mut(name)
            && !(topic.leave)(&mut topic.members, agent)
        {
            tables.topics.remove(name);
        }
    }

    fn members<M: 'static>(&self, topic: &str) -> Option<Members<M>> {
        self.tables().topics.get(topic)?.members.downcast_ref::<Members<M>>().cloned()
    }
}

fn leave<M: std::marker::Send + 'static>(
    members: &mut Box<dyn Any + std::marker::Send + Sync>,
    agent: u64,
) -> bool {
    let Some(members) = members.downcast_mut::<Members<M>>() else { return true };
    Arc::make_mut(members).retain(|member| member.to != agent);
    !members.is_empty()
}

impl Shard {
    /// The shard that a placement names.
    pub(crate) fn place(&self, placement: Placement) -> Option<usize> {
        let stats = || self.peers.iter().map(|peer| peer.stats()).collect();
        placement.shard(&self.own().directory.rotor, &stats, self.peers.len())
    }

    /// Gives the running agent a name.
    pub(crate) fn register<A: Agent>(&self, me: u64, name: &str) -> Result<(), RelationError> {
        // Room first, so that a name is never without its agent.
        self.relate(me, |kin| kin.names.push((me, name.into())))?;
        self.own().directory.add::<A>(name, me).inspect_err(|_| {
            self.with_kin(me, |kin| kin.names.pop());
        })
    }

    /// Has a copy of each message of a topic sent to the running agent; `false` when its messages are of
    /// another type.
    pub(crate) fn subscribe<A: Agent>(&self, me: u64, topic: &str) -> Result<bool, RelationError> {
        let known = self.with_kin(me, |kin| kin.topics.iter().any(|(_, own)| **own == *topic));
        if known == Some(true) {
            return Ok(true);
        }
        self.relate(me, |kin| kin.topics.push((me, topic.into())))?;
        let joined = self.own().directory.join::<A>(topic, me);
        if !joined {
            self.with_kin(me, |kin| kin.topics.pop());
        }
        Ok(joined)
    }

    pub(crate) fn unsubscribe(&self, me: u64, topic: &str) {
        let known_as = self.with_kin(me, |kin| {
            let at = kin.topics.iter().position(|(_, own)| **own == *topic)?;
            Some(kin.topics.swap_remove(at).0)
        });
        if let Some(Some(known_as)) = known_as {
            self.own().directory.leave(topic, known_as);
        }
    }

    pub(crate) fn publish<M>(&self, topic: &str, msg: &M) -> Published
    where
        M: Clone + std::marker::Send + 'static,
    {
        let mut published = Published::default();
        let Some(members) = self.own().directory.members::<M>(topic) else { return published };
        for member in members.iter() {
            match (member.send)(self, member.to, msg.clone()) {
                Ok(()) => published.sent += 1,
                Err(SendError::Gone(_)) => published.gone += 1,
                Err(_) => published.full += 1,
            }
        }
        published
    }
}
