//! Asks: a slot at the asker that the answer is delivered to, wherever it comes from.

use std::any::Any;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Cx, shard_of};
use crate::channel::envelope::Deliver;
use crate::error::AskError;
use crate::shard::Shard;
use crate::timer::TimerId;

/// The way back to an asker; carries the deadline. Dropping it lets the ask expire.
#[derive(Debug)]
pub struct Reply<R> {
    home: u64,
    key: u64,
    deadline_ns: u64,
    kind: PhantomData<fn(R)>,
}

impl<R: Send + 'static> Reply<R> {
    pub(crate) const fn new(home: u64, key: u64, deadline_ns: u64) -> Self {
        Self { home, key, deadline_ns, kind: PhantomData }
    }

    /// When the asker gives up, monotonic ns.
    #[must_use]
    pub const fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Answers. An answer to an asker that has given up is counted as a dead letter.
    ///
    /// # Errors
    /// The answer, when the ring to the asker's core is full.
    pub fn send(self, cx: &mut Cx<'_>, answer: R) -> Result<(), R> {
        let shard = cx.shard();
        if shard_of(self.home) == shard.index {
            shard.complete_ask(self.key, Box::new(answer));
            return Ok(());
        }
        let boxed: Box<dyn Any + Send> = Box::new(answer);
        shard
            .send_remote(self.home, Answer { key: self.key, boxed })
            .map_err(|answer| *answer.boxed.downcast::<R>().expect("packed as R three lines above"))
    }
}

/// An answer on its way.
struct Answer {
    key: u64,
    boxed: Box<dyn Any + Send>,
}

impl Deliver for Answer {
    fn deliver(self, _: u64, shard: &Shard) {
        shard.complete_ask(self.key, self.boxed);
    }
}

struct Slot {
    asker: u64,
    generation: u32,
    answer: Option<Box<dyn Any>>,
    open: bool,
}

/// The asks of one shard.
pub(crate) struct Asks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    max: u32,
}

impl Asks {
    pub(crate) const fn new(max: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), max }
    }

    pub(crate) fn open(&mut self, asker: u64) -> Option<u64> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|&i| i < self.max)?;
                self.slots.push(Slot { asker, generation: 0, answer: None, open: false });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        (slot.asker, slot.open) = (asker, true);
        Some(u64::from(slot.generation) << 32 | u64::from(index))
    }

    fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        let index = usize::try_from(key & u64::from(u32::MAX)).ok()?;
        self.slots
            .get_mut(index)
            .filter(|slot| slot.open && u64::from(slot.generation) == key >> 32)
    }

    /// Stores an answer; returns who waits for it, or the answer when nobody does.
    pub(crate) fn complete(&mut self, key: u64, answer: Box<dyn Any>) -> Result<u64, Box<dyn Any>> {
        let Some(slot) = self.slot(key) else { return Err(answer) };
        slot.answer = Some(answer);
        Ok(slot.asker)
    }

    /// Asks without an end.
    pub(crate) const fn open_asks(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Answers that nobody has taken.
    pub(crate) fn unread(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.answer.is_some()).count() as u64
    }

    fn take(&mut self, key: u64) -> Option<Box<dyn Any>> {
        self.slot(key)?.answer.take()
    }

    /// Ends an ask; returns the answer that nobody has taken.
    fn close(&mut self, key: u64) -> Option<Box<dyn Any>> {
        let slot = self.slot(key)?;
        slot.open = false;
        slot.generation = slot.generation.wrapping_add(1);
        let answer = slot.answer.take();
        self.free.push(u32::try_from(key & u64::from(u32::MAX)).expect("32 bits"));
        answer
    }
}

/// Closes the slot however the ask ends.
pub(super) struct Guard<'a> {
    pub(super) shard: &'a Shard,
    pub(super) key: Option<u64>,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let unread = self.shard.asks.borrow_mut().close(key);
        // Its drop is user code, which may panic: it is counted first.
        self.shard.count_dead_letters(u64::from(unread.is_some()));
    }
}

/// Waits for an answer or the deadline.
pub(super) struct AskFuture<'a, R, M> {
    shard: &'a Shard,
    me: u64,
    key: u64,
    deadline_ns: u64,
    timer: Option<TimerId>,
    kind: PhantomData<fn() -> (R, M)>,
}

impl<'a, R, M> AskFuture<'a, R, M> {
    pub(super) const fn new(shard: &'a Shard, me: u64, key: u64, deadline_ns: u64) -> Self {
        Self { shard, me, key, deadline_ns, timer: None, kind: PhantomData }
    }
}

impl<R: 'static, M> Future for AskFuture<'_, R, M> {
    type Output = Result<R, AskError<M>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.shard.asks.borrow_mut().take(self.key);
        if let Some(answer) = answer {
            let answer = answer.downcast::<R>().expect("the reply's type is the ask's type");
            return Poll::Ready(Ok(*answer));
        }
        if self.shard.clock_ns() >= self.deadline_ns {
            return Poll::Ready(Err(AskError::Expired));
        }
        if self.timer.is_none() {
            match self.shard.timer(self.deadline_ns, self.me, None) {
                Ok(timer) => self.timer = Some(timer),
                Err(_) => return Poll::Ready(Err(AskError::Full)),
            }
        }
        Poll::Pending
    }
}

impl<R, M> Drop for AskFuture<'_, R, M> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.shard.cancel(timer);
        }
    }
}
