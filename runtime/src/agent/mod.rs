//! Agents: the trait, addresses, what a handler may do, and how agents are related.

pub(crate) mod account;
mod ask;
mod cancel;
mod control;
mod cx;
mod directory;
mod forward;
mod hosted;
mod kin;
mod lifecycle;
mod links;
mod moving;
mod parcel;
mod placement;
pub(crate) mod registry;

pub(crate) use account::Sampler;
pub use account::{Account, By};
pub use ask::Reply;
pub(crate) use ask::{ASKS_MAX, Asks};
pub(crate) use cancel::{Cancelled, Due, Told};
pub(crate) use control::{Control, Job, Key};
pub use cx::{Cx, SleepUntil, YieldNow};
pub(crate) use directory::Directory;
pub use directory::{Published, Recipient};
pub(crate) use hosted::{Asked, ToAgent, Token, WakeUp, messages};
pub use kin::{AgentId, Down, End, MonitorId, RelationError};
pub(crate) use kin::{Bond, Child, Kins, LIVES_MAX, Make, Notice};
pub(crate) use lifecycle::child_of;
pub use moving::MoveError;
pub(crate) use moving::move_agent;
pub use placement::Placement;
pub(crate) use placement::Rotor;
pub(crate) use registry::Late;
pub use registry::{LateWakers, Registry, WaitFor, Waiting};

use std::fmt;
use std::marker::PhantomData;

use crate::error::SendError;

/// Returned by a handler to end its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop;

/// How urgent an agent's turns are. Classes share a core's time as `Config::class_shares` says when all have
/// work; a class alone has all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// Before the others.
    High,
    /// As most are.
    #[default]
    Normal,
    /// After the others.
    Low,
}

/// Number of classes.
pub(crate) const CLASSES: usize = 3;

/// An agent: state on one core, one message at a time.
pub trait Agent: Sized + 'static {
    /// What it takes; at most 48 bytes, and at most 40 if it is asked, which the compiler checks.
    type Msg: Send + 'static;
    /// Unread messages that it may have from each core, 1 to 50,000; one more is handed back to the sender.
    /// Another core learns in batches what was read, so that it may count up to a quarter of them longer
    /// than they wait; it never calls a mailbox full that holds fewer than this from it.
    const MAILBOX: u32 = 32;
    /// How urgent its turns are.
    const CLASS: Class = Class::Normal;
    /// Whether it is told of the end of a linked agent by [`Agent::on_down`]. Otherwise a linked agent's
    /// failure ends it too.
    const TRAPS_EXITS: bool = false;

    /// Handles one message. While it is suspended the agent takes no other.
    fn on(&mut self, msg: Self::Msg, cx: &mut Cx<'_>) -> impl Future<Output = Result<(), Stop>>;

    /// A timer of [`Cx::notify_at`] fired. It comes in mailbox order and never counts as a message.
    ///
    /// # Errors
    /// [`Stop`] ends the agent.
    fn on_timer(&mut self, _token: u64, _cx: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }

    /// An agent that it watches ([`Cx::monitor`]), or is linked to ([`Agent::TRAPS_EXITS`]), has ended. It
    /// comes in mailbox order and never counts as a message.
    ///
    /// # Errors
    /// [`Stop`] ends the agent.
    fn on_down(&mut self, _down: Down, _cx: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }

    /// A child that this supervisor had started on another core lives there; none when it could not start.
    #[doc(hidden)]
    fn on_started(&mut self, _child: u32, _agent: Option<AgentId>, _cx: &mut Cx<'_>) {}
}

/// Address of an agent: 8 bytes (core 8 bits, generation 24, slot 32). A stale one fails cleanly: at once on
/// the agent's own core; another core hears of the end with the first message it sends in vain, which
/// counts as a dead letter, and fails every later one.
pub struct Addr<A>(pub(crate) u64, PhantomData<fn(A)>);

impl<A> Clone for Addr<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Addr<A> {}

impl<A> PartialEq for Addr<A> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<A> Eq for Addr<A> {}

impl<A> fmt::Debug for Addr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Addr({})", AgentId(self.0))
    }
}

/// Generations of a slot; one that has had them all is used no more.
pub(crate) const GENERATIONS: u32 = 1 << 16;

pub(crate) fn handle(shard: usize, generation: u32, index: u32) -> u64 {
    (shard as u64) << 56 | u64::from(generation) << 32 | u64::from(index)
}

pub(crate) fn shard_of(handle: u64) -> usize {
    usize::try_from(handle >> 56).expect("8 bits")
}

pub(crate) fn generation_of(handle: u64) -> u32 {
    u32::try_from(handle >> 32 & 0xff_ffff).expect("24 bits")
}

pub(crate) fn index_of(handle: u64) -> u32 {
    u32::try_from(handle & u64::from(u32::MAX)).expect("32 bits")
}

impl<A: Agent> Addr<A> {
    pub(crate) const fn new(handle: u64) -> Self {
        Self(handle, PhantomData)
    }

    /// Index of the shard the agent lives on.
    #[must_use]
    pub fn shard(self) -> usize {
        shard_of(self.0)
    }

    /// The bits.
    #[must_use]
    pub const fn handle(self) -> u64 {
        self.0
    }

    /// Who it is, whatever its type.
    #[must_use]
    pub const fn id(self) -> AgentId {
        AgentId(self.0)
    }

    /// Sends a message. Never blocks.
    ///
    /// # Errors
    /// [`SendError`] with the message.
    #[inline]
    pub fn try_send(self, cx: &mut Cx<'_>, msg: A::Msg) -> Result<(), SendError<A::Msg>> {
        cx.shard().send::<A>(self.0, msg)
    }

    /// The same address for whoever knows its messages only.
    #[must_use]
    pub fn recipient(self) -> Recipient<A::Msg> {
        Recipient::of(self)
    }
}
