//! Timers of agents: each is of the life in which it was set.

use super::Shard;
use crate::agent::{Token, index_of};
use crate::error::TimersFull;
use crate::timer::{Fired, TimerId};

/// The bits of a timer's owner that hold its incarnation: a generation leaves 8 of its 24 free.
const LIFE: u64 = 0xff << LIFE_SHIFT;
const LIFE_SHIFT: u32 = 48;
const _: () = assert!(crate::agent::GENERATIONS <= 1 << 16);

impl Shard {
    /// Gives a fired timer to its owner, unless the owner has been restarted since.
    pub(super) fn give_timer(&self, timer: &Fired) {
        let (owner, life) = (timer.owner & !LIFE, (timer.owner & LIFE) >> LIFE_SHIFT);
        let header = self.slab.header(index_of(owner));
        if header.is_none_or(|header| u64::from(header.incarnation.get()) != life) {
            return;
        }
        match timer.token {
            Some(token) => {
                let life = u8::try_from(life).expect("8 bits");
                self.queue_of(owner).send(self.mark(owner), Token { token, life });
            }
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

    /// How often a supervised agent was restarted, in 8 bits.
    pub(crate) fn life_of(&self, agent: u64) -> u8 {
        self.slab.header(index_of(agent)).map_or(0, |header| header.incarnation.get())
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
