//! Asks: a slot at the asker that the answer is delivered to, wherever it comes from. The deadline and the
//! slot's number travel with the message, so that nobody works for an asker that has given up.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::cancel::{Due, Told, WAIT_MAX_NS, slot_of};
use super::{Control, Cx, Job, generation_of, handle, shard_of};
use crate::agent::parcel::Parcel;
use crate::channel::envelope::{ASK_MAX, Deliver, Travels};
use crate::error::{AskError, SendError};
use crate::panics::drop_contained;
use crate::shard::{self, Shard};
use crate::timer::TimerId;

/// Asks that a shard can have open: a key has 24 bits for the slot.
pub(crate) const ASKS_MAX: u32 = (1 << 24) - 1;
/// Waits shorter than this are not searched for cycles, ns.
const PROBE_MIN_NS: u64 = 2_000_000;

/// The way back to an asker; carries the deadline. Dropping it tells the asker, which gets
/// [`AskError::Dropped`].
#[derive(Debug)]
pub struct Reply<R> {
    /// Shard 8 bits, slot 24, generation 32.
    key: u64,
    deadline_ns: u64,
    kind: PhantomData<fn(R)>,
}

impl<R: Send + 'static> Reply<R> {
    const fn new(key: u64, deadline_ns: u64) -> Self {
        Self { key, deadline_ns, kind: PhantomData }
    }

    /// When the asker gives up, monotonic ns.
    #[must_use]
    pub const fn deadline_ns(&self) -> u64 {
        self.deadline_ns
    }

    /// Whether the asker has given up: its deadline is over or it has dropped the ask. What is known here is
    /// as old as the last message from its core. Reads the clock.
    #[must_use]
    pub fn is_cancelled(&self, cx: &Cx<'_>) -> bool {
        let shard = cx.shard();
        let due = Due::new(self.key, self.deadline_ns);
        shard.clock_ns() >= self.deadline_ns || shard.is_cancelled(shard_of(self.key), due)
    }

    /// Answers. An answer to an asker that has given up is counted as a dead letter. Allocates if the answer
    /// has more than 32 bytes.
    ///
    /// # Errors
    /// The answer, when the ring to the asker's core is full; the asker is then told that there is none.
    pub fn send(self, cx: &mut Cx<'_>, answer: R) -> Result<(), R> {
        let shard = cx.shard();
        self.is_used(shard);
        if shard_of(self.key) == shard.index {
            shard.complete_ask(self.key, answer, |place, answer| place.put(answer));
            std::mem::forget(self);
            return Ok(());
        }
        let answer = Answer { key: self.key, parcel: Parcel::new(answer) };
        match shard.send_remote(self.key & !(u64::MAX >> 8), answer) {
            Ok(()) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(mut answer) => Err(answer.parcel.take().expect("packed as R four lines above")),
        }
    }
}

impl<R> Reply<R> {
    /// Nobody will look any more whether the ask was cancelled; whether that was noted here.
    #[inline]
    fn is_used(&self, shard: &Shard) -> bool {
        shard.cancelled.has_some() && {
            let due = Due::new(self.key, self.deadline_ns);
            shard.cancelled.remove(shard_of(self.key), due)
        }
    }
}

impl<R> Drop for Reply<R> {
    fn drop(&mut self) {
        // A reply that is dropped on a thread without a shard lets the ask expire.
        shard::with_current(|shard| shard.drop_ask(self.key, self.is_used(shard)));
    }
}

/// An answer on its way.
struct Answer {
    key: u64,
    parcel: Parcel,
}

impl Deliver for Answer {
    const TRAVELS: Travels = Travels::Freely;

    fn receiver(&self, to: u64, shard: &Shard) -> u64 {
        shard.asks.borrow_mut().slot(self.key).map_or(to, |slot| slot.asker)
    }

    fn deliver(self, _: u64, shard: &Shard) {
        shard.complete_ask(self.key, self.parcel, |place, parcel| *place = parcel);
    }
}

/// What has become of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its slot is free.
    Closed,
    Waits,
    Answered,
    /// The reply was dropped.
    Dropped,
    /// There was no room for its timer.
    Untimed,
    /// The question was not sent; why lies where the answer would.
    Refused,
}

/// An ask: all that its future would have to carry from turn to turn otherwise.
struct Slot {
    asker: u64,
    /// Who was asked; of generation 0 when a shard was.
    callee: u64,
    deadline_ns: u64,
    answer: Parcel,
    generation: u32,
    stage: Stage,
    /// Whether it is among the young.
    listed: bool,
    /// Whether the search for a cycle is behind it, or not worth it.
    probed: bool,
    /// Where the wait is in time, before or after the search; none while the ask is young.
    timer: Option<TimerId>,
    /// Agents of the cycle that the ask was found to close.
    cycle: Option<u32>,
}

/// The asks of one shard.
pub(crate) struct Asks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots of asks that were made since the last pass: most have their answer when it ends, and need no timer.
    young: Vec<u32>,
    max: u32,
}

/// What an ask leaves.
struct Closed {
    stage: Stage,
    callee: u64,
    deadline_ns: u64,
    timer: Option<TimerId>,
    asker: u64,
    /// What nobody has taken: user's, and not to be dropped under a borrow.
    answer: Parcel,
}

impl Asks {
    pub(crate) const fn new(max: u32) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), young: Vec::new(), max }
    }

    /// The slot and its generation.
    #[inline]
    fn open(
        &mut self,
        (asker, callee): (u64, u64),
        deadline_ns: u64,
        told: &Told,
    ) -> Option<(u32, u32)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.add()?,
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = told.unmistakable(index, slot.generation);
        (slot.asker, slot.callee, slot.deadline_ns) = (asker, callee, deadline_ns);
        (slot.stage, slot.probed) = (Stage::Waits, generation_of(callee) == 0);
        let generation = slot.generation;
        if !std::mem::replace(&mut slot.listed, true) {
            self.young.push(index);
        }
        Some((index, generation))
    }

    #[cold]
    fn add(&mut self) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok().filter(|&i| i < self.max)?;
        self.slots.push(Slot {
            asker: 0,
            callee: 0,
            deadline_ns: 0,
            answer: Parcel::none(),
            generation: 0,
            stage: Stage::Closed,
            listed: false,
            probed: false,
            timer: None,
            cycle: None,
        });
        Some(index)
    }

    #[inline]
    fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        let (index, generation) = slot_of(key);
        let slot = self.slots.get_mut(index as usize)?;
        Some(slot).filter(|slot| slot.stage != Stage::Closed && slot.generation == generation)
    }

    /// Whether the ask of a message is still open.
    #[inline]
    pub(super) fn is_open(&self, due: Due) -> bool {
        let (index, generation) = ((due.0 >> 8 & 0xff_ffff) as usize, due.0 & 0xff);
        let is_its = |slot: &Slot| {
            slot.stage != Stage::Closed && u64::from(slot.generation & 0xff) == generation
        };
        self.slots.get(index).is_none_or(is_its)
    }

    /// Asks that are open.
    pub(crate) fn open_count(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Who has an ask open, with repetitions.
    pub(crate) fn askers(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().filter(|slot| slot.stage != Stage::Closed).map(|slot| slot.asker)
    }

    /// Answers that nobody has taken.
    pub(crate) fn unread(&self) -> u64 {
        self.slots.iter().filter(|slot| slot.stage == Stage::Answered).count() as u64
    }

    /// Takes the answer and closes the slot; who asked, and the timer, which is the caller's to cancel.
    #[inline]
    fn take<R: Send + 'static>(&mut self, key: u64) -> (R, u64, Option<TimerId>) {
        let slot = self.slot(key).expect("an answer is in an open slot");
        let answer = slot.answer.take::<R>().expect("as `stage` says");
        (slot.stage, slot.cycle) = (Stage::Closed, None);
        slot.generation = slot.generation.wrapping_add(1);
        let (asker, timer) = (slot.asker, slot.timer.take());
        self.free.push(slot_of(key).0);
        (answer, asker, timer)
    }

    /// Closes a slot.
    fn close(&mut self, key: u64) -> Option<Closed> {
        let slot = self.slot(key)?;
        let stage = std::mem::replace(&mut slot.stage, Stage::Closed);
        slot.cycle = None;
        slot.generation = slot.generation.wrapping_add(1);
        let answer = std::mem::replace(&mut slot.answer, Parcel::none());
        let Slot { callee, deadline_ns, asker, .. } = *slot;
        let timer = slot.timer.take();
        self.free.push(slot_of(key).0);
        Some(Closed { stage, callee, deadline_ns, timer, asker, answer })
    }
}

impl Shard {
    /// Opens a slot; its key. None when the table is full.
    #[inline(never)]
    fn open_ask(&self, who: (u64, u64), deadline_ns: u64) -> Option<u64> {
        let (slot, generation) = self.asks.borrow_mut().open(who, deadline_ns, &self.told)?;
        Some(handle(self.index, 0, generation) | u64::from(slot) << 32)
    }

    /// The answer to an ask of this shard has come, and is put where it will be taken.
    #[inline]
    fn complete_ask<T>(&self, key: u64, answer: T, put: impl FnOnce(&mut Parcel, T)) {
        let mut asks = self.asks.borrow_mut();
        if let Some(slot) = asks.slot(key) {
            put(&mut slot.answer, answer);
            slot.stage = Stage::Answered;
            let asker = slot.asker;
            drop(asks);
            self.make_ready(asker);
        } else {
            drop(asks);
            self.come_too_late(key, answer);
        }
    }

    #[cold]
    fn come_too_late<T>(&self, key: u64, answer: T) {
        self.count_dead_letters(1);
        self.has_ended(key, false);
        // Its drop is user code, and no handler's turn surrounds it.
        drop_contained(answer);
    }

    /// Nobody will answer the ask; `forgotten` says that its cancel was noted here and is not any more.
    fn drop_ask(&self, key: u64, forgotten: bool) {
        // Lost on a link: its deadline speaks for it, unless the asker waits for word only to forget it.
        if self.drops_in_silence() && !forgotten {
            return;
        }
        if shard_of(key) == self.index {
            self.give_up_ask(key, forgotten);
        } else {
            self.send_control(key & !(u64::MAX >> 8), Control::DropAsk { key, forgotten });
        }
    }

    pub(crate) fn give_up_ask(&self, key: u64, forgotten: bool) {
        // An answer that has come is not taken back.
        let asker = match self.asks.borrow_mut().slot(key) {
            Some(slot) if matches!(slot.stage, Stage::Waits | Stage::Untimed) => {
                slot.stage = Stage::Dropped;
                Some(slot.asker)
            }
            _ => None,
        };
        match asker {
            Some(asker) => self.make_ready(asker),
            None => self.has_ended(key, forgotten),
        }
    }

    pub(crate) fn note_cycle(&self, key: u64, agents: u32) {
        if let Some(slot) = self.asks.borrow_mut().slot(key) {
            slot.cycle = Some(agents);
            self.stats.borrow_mut().ask_cycles += 1;
        }
    }

    fn waits_for(&self, me: u64, callee: u64) {
        if let Some(header) = self.slab.header(super::index_of(me)) {
            header.waits_for.set(callee);
        }
    }
}

impl Shard {
    /// Sets the timers of asks that have outlived the pass in which they were made, and notes for searches who
    /// waits for whom.
    #[inline]
    pub(crate) fn arm_asks(&self) {
        if !self.asks.borrow().young.is_empty() {
            self.arm_young();
        }
    }

    #[inline(never)]
    fn arm_young(&self) {
        let Asks { slots, young, .. } = &mut *self.asks.borrow_mut();
        let now_ns = self.seen_ns();
        for index in young.drain(..) {
            let slot = &mut slots[index as usize];
            slot.listed = false;
            if slot.stage != Stage::Waits || slot.timer.is_some() {
                continue;
            }
            if generation_of(slot.callee) != 0 {
                self.waits_for(slot.asker, slot.callee);
            }
            // At half time for a search, or at the deadline.
            let left_ns = slot.deadline_ns.saturating_sub(now_ns);
            slot.probed |= !(PROBE_MIN_NS..u64::MAX / 4).contains(&left_ns);
            let at_ns = if slot.probed { slot.deadline_ns } else { now_ns + left_ns / 2 };
            slot.timer = self.timer(at_ns, slot.asker, None).ok();
            if slot.timer.is_none() {
                slot.stage = Stage::Untimed;
                self.make_ready(slot.asker);
            }
        }
    }

    /// The future of an ask is dropped before its end: closes the slot, and tells the callee when nobody waits
    /// any more.
    #[inline(never)]
    fn abandon_ask(&self, key: u64) {
        let closed = self.asks.borrow_mut().close(key);
        let Some(Closed { stage, callee, deadline_ns, timer, asker, answer }) = closed else {
            return;
        };
        self.disarm(asker, timer);
        let target = shard_of(callee);
        let unknown = matches!(stage, Stage::Waits | Stage::Untimed);
        if unknown && target != self.index && self.seen_ns() < deadline_ns {
            self.tell_of_cancel(key, target, Due::new(key, deadline_ns));
        }
        self.count_dead_letters(u64::from(stage == Stage::Answered));
        // What its drop panics with is no failure of the asker, as with any answer that comes too late; and a second
        // panic while a handler unwinds would end the process.
        drop_contained(answer);
    }

    /// An ask that was no longer young has ended.
    #[inline]
    fn disarm(&self, asker: u64, timer: Option<TimerId>) {
        if let Some(timer) = timer {
            self.cancel(timer);
            self.waits_for(asker, 0);
        }
    }

    /// A wake of an ask that is not young and has no answer: whether to wait on.
    #[cold]
    fn look_again<M: Send + 'static>(&self, key: u64) -> Poll<AskError<M>> {
        let mut asks = self.asks.borrow_mut();
        let Some(slot) = asks.slot(key) else { return Poll::Ready(AskError::Expired) };
        match slot.stage {
            Stage::Dropped => return Poll::Ready(AskError::Dropped),
            Stage::Untimed => return Poll::Ready(AskError::Full),
            Stage::Refused => return Poll::Ready(asks.take(key).0),
            _ => {}
        }
        let Some(timer) = slot.timer else { return Poll::Pending };
        let now_ns = self.clock_ns();
        if now_ns >= slot.deadline_ns {
            return Poll::Ready(match slot.cycle {
                Some(agents) => AskError::Cycle { agents },
                None => AskError::Expired,
            });
        }
        if self.is_pending(timer) {
            return Poll::Pending;
        }
        let (callee, origin) = (slot.callee, slot.asker);
        let search = !std::mem::replace(&mut slot.probed, true);
        let Ok(timer) = self.timer(slot.deadline_ns, origin, None) else {
            return Poll::Ready(AskError::Full);
        };
        slot.timer = Some(timer);
        drop(asks);
        if search {
            self.send_control(callee, Control::Probe { origin, key, agents: 1 });
        }
        Poll::Pending
    }
}

/// Waits for an answer or the deadline. What it waits for lies in its slot: two words are returned in registers,
/// more would be copied from the stack to where they are awaited.
pub(super) struct Asking<'a, R, M> {
    shard: &'a Shard,
    /// [`NO_SLOT`] when it has none, or not any more.
    key: u64,
    kind: PhantomData<fn() -> (R, M)>,
}

/// No key: its slot is above [`ASKS_MAX`].
const NO_SLOT: u64 = u64::MAX;

impl<'a, R: Send + 'static, M: Send + 'static> Asking<'a, R, M> {
    #[inline]
    const fn new(shard: &'a Shard, key: u64) -> Self {
        Self { shard, key, kind: PhantomData }
    }

    /// The question was not sent. It holds the reply, whose drop must not be taken for an answer.
    #[cold]
    #[inline(never)]
    fn refuse(&self, error: SendError<M>) {
        let mut asks = self.shard.asks.borrow_mut();
        let slot = asks.slot(self.key).expect("just opened");
        slot.answer.put(AskError::Send(error));
        slot.stage = Stage::Refused;
    }
}

impl<R: Send + 'static, M: Send + 'static> Future for Asking<'_, R, M> {
    type Output = Result<R, AskError<M>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let (shard, key) = (self.shard, self.key);
        let mut asks = shard.asks.borrow_mut();
        let Some(slot) = asks.slot(key) else { return Poll::Ready(Err(AskError::Full)) };
        if slot.stage == Stage::Answered {
            let (answer, asker, timer) = asks.take::<R>(key);
            drop(asks);
            self.key = NO_SLOT;
            shard.disarm(asker, timer);
            return Poll::Ready(Ok(answer));
        }
        if slot.stage == Stage::Waits && slot.timer.is_none() {
            return Poll::Pending;
        }
        drop(asks);
        shard.look_again(key).map(Err)
    }
}

impl<R, M> Drop for Asking<'_, R, M> {
    #[inline]
    fn drop(&mut self) {
        if self.key != NO_SLOT {
            self.shard.abandon_ask(self.key);
        }
    }
}

/// Sends the question; the future waits for what becomes of it.
#[inline(always)]
#[expect(
    clippy::inline_always,
    reason = "message and future are made where they will lie: each copy waits for the stores before it"
)]
pub(super) fn ask<'a, A, R, F>(
    (shard, me): (&'a Shard, u64),
    callee: u64,
    deadline_ns: u64,
    make: F,
) -> Asking<'a, R, A::Msg>
where
    A: super::Agent,
    R: Send + 'static,
    F: FnOnce(Reply<R>) -> A::Msg,
{
    const {
        assert!(
            size_of::<A::Msg>() <= ASK_MAX,
            "a message of an agent that is asked has at most 40 bytes: box its content"
        );
    }
    let deadline_ns = deadline_ns.min(shard.seen_ns().saturating_add(WAIT_MAX_NS));
    let Some(key) = shard.open_ask((me, callee), deadline_ns) else {
        return Asking::new(shard, NO_SLOT);
    };
    let asking = Asking::new(shard, key);
    let reply = Reply::new(key, deadline_ns);
    let due = Due::new(key, deadline_ns);
    if let Err(error) = shard.send_asked::<A>(callee, due, move || make(reply)) {
        asking.refuse(error);
    }
    asking
}

/// Has a shard work for an answer; refused when the table of asks is full.
pub(super) fn ask_shard<R: Send + 'static>(
    (shard, me): (&Shard, u64),
    at: usize,
    deadline_ns: u64,
    work: impl FnOnce(&Shard, Reply<R>) + Send + 'static,
) -> Asking<'_, R, ()> {
    let callee = handle(at, 0, 0);
    let Some(key) = shard.open_ask((me, callee), deadline_ns) else {
        return Asking::new(shard, NO_SLOT);
    };
    let reply = Reply::new(key, deadline_ns);
    let job: Job = Box::new(move |there| work(there, reply));
    shard.send_control(callee, Control::Asked { key, job });
    Asking::new(shard, key)
}

#[cfg(test)]
mod tests;
