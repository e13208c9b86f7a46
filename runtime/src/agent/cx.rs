//! What a handler may do.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{
    Account, Addr, Agent, AgentId, Control, MonitorId, Placement, Published, RelationError, Reply,
    ask,
};
use crate::error::{AskError, SpawnError, TimersFull};
use crate::op::Ops;
use crate::shard::Shard;
use crate::timer::TimerId;

/// The context of a handler: the shard it runs on and the agent it runs for.
pub struct Cx<'a> {
    shard: &'a Shard,
    me: u64,
}

impl std::fmt::Debug for Cx<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cx").field("me", &self.me).finish_non_exhaustive()
    }
}

impl<'a> Cx<'a> {
    pub(crate) const fn new(shard: &'a Shard, me: u64) -> Self {
        Self { shard, me }
    }

    pub(crate) const fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// The running agent.
    pub(crate) const fn handle(&self) -> u64 {
        self.me
    }

    pub(crate) const fn ops(&self) -> &'a Rc<Ops> {
        &self.shard.ops
    }

    /// `CLOCK_MONOTONIC` when it was first asked for in this turn, ns. About 20 ns once per turn.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shard.turn_now_ns()
    }

    /// `CLOCK_MONOTONIC` now, ns. About 20 ns.
    pub fn fresh_ns(&mut self) -> u64 {
        self.shard.read_ns()
    }

    /// The time now, ns, for what is stamped often: with [`Config::turn_stamps`](crate::Config::turn_stamps) on by the
    /// processor's counter, within 0.2 us of `CLOCK_MONOTONIC`, never before this turn, about 10 ns; otherwise as
    /// [`fresh_ns`](Self::fresh_ns).
    pub fn stamp_ns(&mut self) -> u64 {
        self.shard.stamp_in_turn_ns()
    }

    /// How what the running handler has in hand came here: its message, or what its later poll waited for. Valid
    /// in every handler and hook; after an `await` it is of the poll that runs. A few loads.
    #[must_use]
    pub fn path(&self) -> crate::Path {
        self.shard.path()
    }

    /// When this turn began, `CLOCK_MONOTONIC` ns: the stamp that ended the turn before, within 0.2 us of the clock and
    /// never before an earlier turn of this core. One load. With `Config::turn_stamps` off it is the last look at
    /// the clock.
    #[inline]
    #[must_use]
    pub fn turn_ns(&self) -> u64 {
        self.shard.turn_began_ns()
    }

    /// Whether turns are stamped now: [`Cx::turn_ns`] is then no look of before.
    #[inline]
    #[must_use]
    pub const fn has_turn_stamps(&self) -> bool {
        self.shard.is_stamped()
    }

    /// Switches the stamps of this shard's turns off, or on again. While they are off, paths and [`Cx::turn_ns`] have
    /// the resolution of a look, as with `Config::turn_stamps` off, and no long turn is told of.
    pub fn set_turn_stamps(&mut self, on: bool) {
        self.shard.set_stamps(on);
    }

    /// `CLOCK_MONOTONIC` as this shard has last looked at it, ns: free, and behind by as long as this turn has run
    /// and some 2 us more. For deadlines that need not be exact.
    #[inline]
    #[must_use]
    pub const fn recent_ns(&self) -> u64 {
        self.shard.seen_ns()
    }

    /// Index of the shard.
    #[must_use]
    pub fn shard_index(&self) -> usize {
        self.shard.index
    }

    /// Address of the running agent; `A` must be its type, or what is sent to it is a dead letter.
    #[must_use]
    pub const fn me<A: Agent>(&self) -> Addr<A> {
        Addr::new(self.me)
    }

    /// Spawns an agent on this shard. Allocates.
    ///
    /// # Errors
    /// [`SpawnError`] with the agent when the table is full.
    pub fn spawn<A: Agent>(&mut self, agent: A) -> Result<Addr<A>, SpawnError<A>> {
        self.shard.spawn_agent(agent)
    }

    /// Spawns a future on this shard. Allocates.
    ///
    /// # Errors
    /// [`SpawnError`] with the future when the table is full.
    pub fn spawn_future<F: Future<Output = ()> + 'static>(
        &mut self,
        future: F,
    ) -> Result<(), SpawnError<F>> {
        self.shard.spawn_task(future)
    }

    /// Spawns a future that has a context of its own, for sockets, files and timers. Allocates.
    ///
    /// # Errors
    /// [`SpawnError`] with the closure when the table is full.
    pub fn spawn_with<F: AsyncFnOnce(&mut Cx<'_>) + 'static>(
        &mut self,
        run: F,
    ) -> Result<(), SpawnError<F>> {
        let max = self.shard.config.agents_max;
        let Some(shard) = Shard::here() else { return Err(SpawnError { agent: run, max }) };
        // The future holds its shard until the shard drops it, at its end at the latest.
        let make = |me, run: F| async move { run(&mut Cx::new(&shard, me)).await };
        self.shard.spawn_task_with(run, make)
    }

    /// Has `token` delivered to the running agent's [`Agent::on_timer`] at `at_ns` or up to 131 us later; up to
    /// `Config::timer_slack_ns` later if the shard sleeps.
    ///
    /// # Errors
    /// [`TimersFull`].
    pub fn notify_at(&mut self, at_ns: u64, token: u64) -> Result<TimerId, TimersFull> {
        self.shard.timer(at_ns, self.me, Some(token))
    }

    /// Cancels a timer; `false` when it has fired, or was set before the agent moved to this core: that one
    /// still comes. So does a token that is already in the mailbox.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.shard.cancel(timer)
    }

    /// Suspends the handler until `at_ns`.
    pub fn sleep_until(&mut self, at_ns: u64) -> SleepUntil<'a> {
        SleepUntil { shard: self.shard, me: self.me, at_ns, timer: None }
    }

    /// Asks another agent and suspends the handler until the answer or the deadline. The deadline
    /// travels with the message: a callee that gets to it later skips it. Dropping the future tells the
    /// callee too. A deadline more than 20 days ahead is one in 20 days. Allocates for an answer of more than 32
    /// bytes, and for a message of more than 16 that is handed back.
    #[inline]
    pub fn ask<A: Agent, R: Send + 'static, F: FnOnce(Reply<R>) -> A::Msg>(
        &mut self,
        to: Addr<A>,
        deadline_ns: u64,
        make: F,
    ) -> impl Future<Output = Result<R, AskError<A::Msg>>> + use<'a, A, R, F> {
        ask::ask::<A, R, F>((self.shard, self.me), to.0, deadline_ns, make)
    }

    /// Suspends the handler until the other agents that are ready have had their turn.
    pub fn yield_now(&mut self) -> YieldNow {
        YieldNow(false)
    }

    /// Whether this turn has lasted so long that others wait: `Config::stall_ns` / 4 or more. One load; it is
    /// set by the stall detector's thread. Hand over with [`Cx::yield_now`].
    #[inline]
    #[must_use]
    pub fn need_preempt(&self) -> bool {
        self.shard.own().beat.must_yield()
    }

    /// Watches another agent: [`Agent::on_down`] is called when it ends, or has ended already. From another
    /// core the notice may come before messages that the agent had sent. Allocates.
    ///
    /// # Errors
    /// [`RelationError`].
    pub fn monitor<A: Agent>(&mut self, of: Addr<A>) -> Result<MonitorId, RelationError> {
        self.shard.monitor(self.me, of.0)
    }

    /// Ends a watch; `false` when it had ended. No notice of it comes any more.
    pub fn demonitor(&mut self, monitor: MonitorId) -> bool {
        self.shard.demonitor(self.me, monitor)
    }

    /// Links the running agent and another: when one fails, the other ends too, or is told if it has
    /// [`Agent::TRAPS_EXITS`]. An end by [`Stop`](super::Stop) only ends the link. Allocates.
    ///
    /// # Errors
    /// [`RelationError`].
    pub fn link<A: Agent>(&mut self, with: Addr<A>) -> Result<(), RelationError> {
        self.shard.link(self.me, with.0)
    }

    /// Ends a link. An end of the other that is on its way still comes.
    pub fn unlink<A: Agent>(&mut self, with: Addr<A>) {
        self.shard.unlink(self.me, with.0);
    }

    /// Ends an agent, suspended or not: behind what was sent to it before from its own core, before that from
    /// another one. A supervised one may be restarted.
    pub fn kill(&mut self, agent: AgentId) {
        self.shard.send_control(agent.0, Control::Kill);
    }

    /// Gives the running agent, of type `A`, a name in this runtime; it is free again when the agent ends. An
    /// agent may have several. Takes a lock; allocates.
    ///
    /// # Errors
    /// [`RelationError`]; `Taken` when an agent has the name.
    pub fn register<A: Agent>(&mut self, name: &str) -> Result<(), RelationError> {
        self.shard.register::<A>(self.me, name)
    }

    /// The agent of that name; none when there is none, or it is of another type. Takes a lock: look up once
    /// and keep the address.
    #[must_use]
    pub fn find<A: Agent>(&self, name: &str) -> Option<Addr<A>> {
        self.shard.own().directory.find(name)
    }

    /// Has the running agent, of type `A`, get a copy of what is published under a topic, until it ends;
    /// `false` when the topic carries messages of another type. Takes a lock; allocates.
    ///
    /// # Errors
    /// [`RelationError`].
    pub fn subscribe<A: Agent>(&mut self, topic: &str) -> Result<bool, RelationError> {
        self.shard.subscribe::<A>(self.me, topic)
    }

    /// Ends a subscription. A copy that is on its way still comes.
    pub fn unsubscribe(&mut self, topic: &str) {
        self.shard.unsubscribe(self.me, topic);
    }

    /// Sends a copy of a message to each member of a topic, and says what became of each. Takes a lock for the
    /// list; one send per member.
    pub fn publish<M: Clone + Send + 'static>(&mut self, topic: &str, msg: &M) -> Published {
        self.shard.publish(topic, msg)
    }

    /// Spawns an agent on any shard; `make` runs there. `None` when that shard has no room, or has ended, or
    /// there is none, or the ring back is full, or no answer came within 10 s. Then, and when the future is
    /// dropped, an agent that was made all the same is killed. Allocates.
    pub fn spawn_at<A: Agent, F: FnOnce() -> A + Send + 'static>(
        &mut self,
        placement: Placement,
        make: F,
    ) -> impl Future<Output = Option<Addr<A>>> + use<'a, A, F> {
        let (shard, me) = (self.shard, self.me);
        let placed = shard.place(placement);
        let deadline_ns = shard.clock_ns().saturating_add(SPAWN_WAIT_NS);
        let asked = placed.map(|at| {
            ask::ask_shard((shard, me), at, deadline_ns, move |there, reply| {
                let cx = &mut Cx::new(there, u64::MAX);
                if !reply.is_cancelled(cx) {
                    let spawned = there.spawn_agent(make()).ok();
                    let newborn = Newborn(spawned.map(Addr::handle));
                    // Without room for it the asker is told that there is none.
                    drop(reply.send(cx, newborn));
                }
            })
        });
        async move { asked?.await.ok()?.taken().map(Addr::new) }
    }

    /// The account of an agent of this shard; none when it does not live here.
    #[must_use]
    pub fn account(&self, agent: AgentId) -> Option<Account> {
        self.shard.account(agent.0)
    }
}

/// An agent on its way to whoever has spawned it; one that does not get there ends.
struct Newborn(Option<u64>);

impl Newborn {
    fn taken(mut self) -> Option<u64> {
        self.0.take()
    }
}

impl Drop for Newborn {
    fn drop(&mut self) {
        if let Some(agent) = self.0 {
            crate::shard::with_current(|shard| shard.send_control(agent, Control::Kill));
        }
    }
}

/// Longest wait for a spawn on another shard, ns.
const SPAWN_WAIT_NS: u64 = 10_000_000_000;

/// Future of [`Cx::yield_now`].
#[must_use = "a yield does nothing until awaited"]
#[derive(Debug)]
pub struct YieldNow(bool);

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Future of [`Cx::sleep_until`]; cancels its timer when dropped.
#[must_use = "a sleep does nothing until awaited"]
pub struct SleepUntil<'a> {
    shard: &'a Shard,
    me: u64,
    at_ns: u64,
    timer: Option<TimerId>,
}

impl std::fmt::Debug for SleepUntil<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SleepUntil").field("at_ns", &self.at_ns).finish_non_exhaustive()
    }
}

impl Future for SleepUntil<'_> {
    type Output = Result<(), TimersFull>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.shard.clock_ns() >= self.at_ns {
            return Poll::Ready(Ok(()));
        }
        if self.timer.is_none() {
            match self.shard.timer(self.at_ns, self.me, None) {
                Ok(timer) => self.timer = Some(timer),
                Err(full) => return Poll::Ready(Err(full)),
            }
        }
        Poll::Pending
    }
}

impl Drop for SleepUntil<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shard.cancel(timer);
        }
    }
}
