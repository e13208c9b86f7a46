//! Timers of agents: each is of the life in which it was set.

use super::Shard;
use super::slab::Header;
use crate::agent::{LIVES_MAX, Token, handle, index_of};
use crate::error::TimersFull;
use crate::timer::{Fired, TimerId};

/// The bits of a timer's owner that hold the low half of its life: a wheel knows its shard, and a generation has
/// 16 bits. When that half comes round, what earlier lives have left in the wheel is cancelled.
const LIFE_SHIFT: u32 = 48;
const LIFE: u64 = u64::MAX << LIFE_SHIFT;
const _: () = assert!(crate::agent::GENERATIONS <= 1 << 16);

impl Shard {
    /// Gives a fired timer to its owner, unless the owner has been restarted since.
    pub(super) fn give_timer(&self, timer: &Fired, fired_ns: u64) {
        let owner = self.mark(timer.owner & !LIFE);
        let Some(header) = self.slab.header(index_of(owner)) else { return };
        let life = header.incarnation.get();
        if timer.owner & LIFE != u64::from(life) << LIFE_SHIFT {
            return;
        }
        match timer.token {
            Some(token) => self.queue_of(owner).send(owner, Token { token, life, fired_ns }),
            None => self.make_ready(owner),
        }
    }

    pub(crate) fn timer(
        &self,
        at_ns: u64,
        owner: u64,
        token: Option<u64>,
    ) -> Result<TimerId, TimersFull> {
        let life = self.slab.header(index_of(owner)).map_or(0, |header| header.incarnation.get());
        let owner = owner & !LIFE | u64::from(life) << LIFE_SHIFT;
        let timer = self.wheel.borrow_mut().insert(at_ns, owner, token).ok_or(TimersFull)?;
        Ok(timer.at(self.index))
    }

    /// Whether a timer has neither fired nor been cancelled.
    pub(crate) fn is_pending(&self, timer: TimerId) -> bool {
        timer.is_at(self.index) && self.wheel.borrow().is_pending(timer)
    }

    pub(crate) fn cancel(&self, timer: TimerId) -> bool {
        timer.is_at(self.index) && self.wheel.borrow_mut().cancel(timer)
    }

    /// How often a supervised agent has failed.
    pub(crate) fn life_of(&self, agent: u64) -> u32 {
        self.slab.header(index_of(agent)).map_or(0, |header| header.incarnation.get())
    }

    /// A supervised agent has failed: what it does now is of another life.
    pub(crate) fn begin_life(&self, header: &Header, index: u32) {
        let life = (header.incarnation.get() + 1).min(LIVES_MAX);
        header.incarnation.set(life);
        if u64::from(life) << LIFE_SHIFT == 0 {
            let owner = handle(0, header.generation.get(), index);
            self.wheel.borrow_mut().cancel_all(|other| other & !LIFE == owner);
        }
    }

    /// Has an old place of a moved agent try again at that instant, or before. It needs no timer, for a full
    /// table of timers must not make it spin.
    pub(crate) fn retry_at(&self, place: u64, at_ns: u64) {
        self.blocked.borrow_mut().push(place);
        self.retry_ns.set(self.retry_ns.get().min(at_ns));
    }

    /// Has those try again whose time has come.
    pub(super) fn retry(&self, now_ns: u64) {
        if now_ns >= self.retry_ns.get() {
            self.retry_ns.set(u64::MAX);
            self.blocked.take().into_iter().for_each(|place| self.make_ready(place));
        }
    }
}
