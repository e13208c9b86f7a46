//! What a handler may do.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Addr, Agent, Reply, handle};
use crate::agent::ask::{self, AskFuture};
use crate::error::{AskError, SpawnError, TimersFull};
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

    /// `CLOCK_MONOTONIC` when it was first asked for in this turn, ns. About 20 ns once per turn.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.shard.turn_now_ns()
    }

    /// `CLOCK_MONOTONIC` now, ns. About 20 ns.
    pub fn fresh_ns(&mut self) -> u64 {
        let now_ns = self.shard.clock_ns();
        self.shard.now_ns.set(now_ns);
        now_ns
    }

    /// Index of the shard.
    #[must_use]
    pub fn shard_index(&self) -> usize {
        self.shard.index
    }

    /// Address of the running agent; `A` must be its type, or sends to it fail as `Gone`.
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

    /// Has `token` delivered to the running agent's [`Agent::on_timer`] at `at_ns` or up to 131 us later.
    ///
    /// # Errors
    /// [`TimersFull`].
    pub fn notify_at(&mut self, at_ns: u64, token: u64) -> Result<TimerId, TimersFull> {
        self.shard.timer(at_ns, self.me, Some(token))
    }

    /// Cancels a timer; `false` when it has fired. A token that is already in the mailbox still comes.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.shard.cancel(timer)
    }

    /// Suspends the handler until `at_ns`.
    pub fn sleep_until(&mut self, at_ns: u64) -> SleepUntil<'a> {
        SleepUntil { shard: self.shard, me: self.me, at_ns, timer: None }
    }

    /// Asks another agent and suspends the handler until the answer or the deadline. The deadline
    /// travels with the message, in the [`Reply`].
    pub fn ask<A: Agent, R: Send + 'static, F: FnOnce(Reply<R>) -> A::Msg>(
        &mut self,
        to: Addr<A>,
        deadline_ns: u64,
        make: F,
    ) -> impl Future<Output = Result<R, AskError<A::Msg>>> + use<'a, A, R, F> {
        let key = self.shard.asks.borrow_mut().open(self.me);
        let sent = match key {
            None => Err(AskError::Full),
            Some(key) => {
                let reply = Reply::new(handle(self.shard.index, 0, 0), key, deadline_ns);
                self.shard.send::<A>(to.0, make(reply)).map_err(AskError::Send)
            }
        };
        let (shard, me) = (self.shard, self.me);
        // Made here: a future that is dropped before its first poll has a slot to give back too.
        let guard = ask::Guard { shard, key };
        async move {
            let guard = guard;
            sent?;
            let key = guard.key.expect("a full table has returned above");
            AskFuture::new(shard, me, key, deadline_ns).await
        }
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
