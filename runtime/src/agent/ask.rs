//! Asks: a slot at the asker that the answer is delivered to, wherever it comes from. The deadline and the
//! slot's number travel with the message, so that nobody works for an asker that has given up.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::cancel::{Due, Told, WAIT_MAX_NS, slot_of};
use super::{Control, Cx, Job, handle, shard_of};
use crate::agent::parcel::Parcel;
use crate::channel::envelope::{ASK_MAX, Deliver};
use crate::error::AskError;
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
            shard.complete_ask(self.key, Parcel::new(answer));
            std::mem::forget(self);
            return Ok(());
        }
        let answer = Answer { key: self.key, parcel: Parcel::new(answer) };
        match shard.send_remote(self.key & !(u64::MAX >> 8), answer) {
            Ok(()) => {
                std::mem::forget(self);
                Ok(())
            }
            Err(answer) => Err(answer.parcel.open().ok().expect("packed as R three lines above")),
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
    fn deliver(self, _: u64, shard: &Shard) {
        shard.complete_ask(self.key, self.parcel);
    }
}

enum Got {
    Nothing,
    Answer(Parcel),
    /// The reply was dropped.
    Dropped,
}

struct Slot {
    asker: u64,
    generation: u32,
    open: bool,
    got: Got,
    /// Agents of the cycle that the ask was found to close.
    cycle: Option<u32>,
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

    /// The slot and its generation.
    fn open(&mut self, asker: u64, told: &Told) -> Option<(u32, u32)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|&i| i < self.max)?;
                let got = Got::Nothing;
                self.slots.push(Slot { asker, generation: 0, open: false, got, cycle: None });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = told.unmistakable(index, slot.generation);
        (slot.asker, slot.open) = (asker, true);
        Some((index, slot.generation))
    }

    fn slot(&mut self, key: u64) -> Option<&mut Slot> {
        let (index, generation) = slot_of(key);
        let slot = self.slots.get_mut(index as usize)?;
        Some(slot).filter(|slot| slot.open && slot.generation == generation)
    }

    /// Whether the ask of a message is still open.
    pub(super) fn is_open(&self, due: Due) -> bool {
        let (index, generation) = ((due.0 >> 8 & 0xff_ffff) as usize, due.0 & 0xff);
        let slot = self.slots.get(index);
        slot.is_none_or(|slot| slot.open && u64::from(slot.generation & 0xff) == generation)
    }

    /// Notes what became of an ask; returns who waits for it, or what was to be noted when nobody does.
    fn put(&mut self, key: u64, got: Got) -> Result<u64, Got> {
        let Some(slot) = self.slot(key) else { return Err(got) };
        slot.got = got;
        Ok(slot.asker)
    }

    /// Asks that are open.
    pub(crate) fn open_count(&self) -> u64 {
        (self.slots.len() - self.free.len()) as u64
    }

    /// Answers that nobody has taken.
    pub(crate) fn unread(&self) -> u64 {
        self.slots.iter().filter(|slot| matches!(slot.got, Got::Answer(_))).count() as u64
    }

    fn take(&mut self, key: u64) -> Got {
        self.slot(key).map_or(Got::Nothing, |slot| std::mem::replace(&mut slot.got, Got::Nothing))
    }

    /// Closes a slot; returns what nobody has taken, which is user's and must not be dropped under a borrow.
    fn close(&mut self, key: u64) -> Got {
        let Some(slot) = self.slot(key) else { return Got::Nothing };
        (slot.open, slot.cycle) = (false, None);
        slot.generation = slot.generation.wrapping_add(1);
        let got = std::mem::replace(&mut slot.got, Got::Nothing);
        self.free.push(slot_of(key).0);
        got
    }
}

impl Shard {
    fn key(&self, (slot, generation): (u32, u32)) -> u64 {
        handle(self.index, 0, generation) | u64::from(slot) << 32
    }

    fn complete_ask(&self, key: u64, answer: Parcel) {
        let asker = self.asks.borrow_mut().put(key, Got::Answer(answer));
        match asker {
            Ok(asker) => self.make_ready(asker),
            Err(got) => {
                self.count_dead_letters(1);
                self.has_ended(key, false);
                // Its drop is user code, and no handler's turn surrounds it.
                drop_contained(got);
            }
        }
    }

    /// Nobody will answer the ask; `forgotten` says that its cancel was noted here and is not any more.
    fn drop_ask(&self, key: u64, forgotten: bool) {
        if shard_of(key) == self.index {
            self.give_up_ask(key, forgotten);
        } else {
            self.send_control(key & !(u64::MAX >> 8), Control::DropAsk { key, forgotten });
        }
    }

    pub(crate) fn give_up_ask(&self, key: u64, forgotten: bool) {
        // An answer that has come is not taken back.
        let asker = match self.asks.borrow_mut().slot(key) {
            Some(slot) if matches!(slot.got, Got::Nothing) => {
                slot.got = Got::Dropped;
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

/// An open ask: closes its slot however it ends, and tells the callee when nobody waits any more.
struct Guard<'a> {
    shard: &'a Shard,
    me: u64,
    callee: u64,
    key: u64,
    deadline_ns: u64,
    answered: bool,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let got = self.shard.asks.borrow_mut().close(self.key);
        self.shard.waits_for(self.me, 0);
        let known = self.answered || !matches!(got, Got::Nothing);
        let target = shard_of(self.callee);
        if !known && target != self.shard.index && self.shard.seen_ns() < self.deadline_ns {
            self.shard.tell_of_cancel(self.key, target, Due::new(self.key, self.deadline_ns));
        }
        // Its drop is user code, which may panic: it is counted first.
        self.shard.count_dead_letters(u64::from(matches!(got, Got::Answer(_))));
        drop(got);
    }
}

/// Waits for an answer or the deadline.
pub(super) struct AskFuture<'a, R, M> {
    guard: Guard<'a>,
    /// Where the wait is in time: nowhere yet, before or after the search for a cycle.
    timer: Option<TimerId>,
    probed: bool,
    kind: PhantomData<fn() -> (R, M)>,
}

impl<R, M> AskFuture<'_, R, M> {
    fn wait_until(&mut self, at_ns: u64) -> bool {
        let guard = &self.guard;
        self.timer = guard.shard.timer(at_ns, guard.me, None).ok();
        self.timer.is_some()
    }

    /// The first timer: at half time for a search, or at the deadline.
    fn first_wait(&mut self) -> bool {
        let (deadline_ns, now_ns) = (self.guard.deadline_ns, self.guard.shard.seen_ns());
        let left_ns = deadline_ns.saturating_sub(now_ns);
        self.probed |= !(PROBE_MIN_NS..u64::MAX / 4).contains(&left_ns);
        self.wait_until(if self.probed { deadline_ns } else { now_ns + left_ns / 2 })
    }

    /// A wake that brought no answer: whether to wait on.
    fn look_again(&mut self) -> Poll<AskError<M>> {
        let Guard { shard, me, callee, key, deadline_ns, .. } = self.guard;
        let now_ns = shard.clock_ns();
        if now_ns >= deadline_ns {
            let cycle = shard.asks.borrow_mut().slot(key).and_then(|slot| slot.cycle);
            return Poll::Ready(match cycle {
                Some(agents) => AskError::Cycle { agents },
                None => AskError::Expired,
            });
        }
        let fired = self.timer.is_none_or(|timer| !shard.is_pending(timer));
        if fired {
            if !self.probed {
                self.probed = true;
                shard.send_control(callee, Control::Probe { origin: me, key, agents: 1 });
            }
            if !self.wait_until(deadline_ns) {
                return Poll::Ready(AskError::Full);
            }
        }
        Poll::Pending
    }
}

impl<R: Send + 'static, M> Future for AskFuture<'_, R, M> {
    type Output = Result<R, AskError<M>>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let key = self.guard.key;
        let got = self.guard.shard.asks.borrow_mut().take(key);
        match got {
            Got::Answer(parcel) => {
                self.guard.answered = true;
                let answer = parcel.open::<R>().ok();
                return Poll::Ready(Ok(answer.expect("the reply's type is the ask's type")));
            }
            Got::Dropped => {
                self.guard.answered = true;
                return Poll::Ready(Err(AskError::Dropped));
            }
            Got::Nothing => {}
        }
        if self.timer.is_some() {
            return self.look_again().map(Err);
        }
        if self.first_wait() { Poll::Pending } else { Poll::Ready(Err(AskError::Full)) }
    }
}

impl<R, M> Drop for AskFuture<'_, R, M> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.guard.shard.cancel(timer);
        }
    }
}

/// Sends the question; the future waits for what becomes of it.
pub(super) fn ask<'a, A, R, F>(
    (shard, me): (&'a Shard, u64),
    callee: u64,
    deadline_ns: u64,
    make: F,
) -> Result<AskFuture<'a, R, A::Msg>, AskError<A::Msg>>
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
    let slot = shard.asks.borrow_mut().open(me, &shard.told).ok_or(AskError::Full)?;
    let key = shard.key(slot);
    let guard = Guard { shard, me, callee, key, deadline_ns, answered: false };
    let due = Due::new(key, deadline_ns);
    match shard.send_asked::<A>(callee, due, make(Reply::new(key, deadline_ns))) {
        Ok(()) => {}
        Err(error) => {
            // The message holds the reply, whose drop must not be taken for an answer.
            let mut guard = guard;
            guard.answered = true;
            return Err(AskError::Send(error));
        }
    }
    shard.waits_for(me, callee);
    Ok(AskFuture { guard, timer: None, probed: false, kind: PhantomData })
}

/// Has a shard work for an answer; none when the table of asks is full.
pub(super) fn ask_shard<R: Send + 'static>(
    (shard, me): (&Shard, u64),
    at: usize,
    deadline_ns: u64,
    work: impl FnOnce(&Shard, Reply<R>) + Send + 'static,
) -> Option<AskFuture<'_, R, ()>> {
    let slot = shard.asks.borrow_mut().open(me, &shard.told)?;
    let key = shard.key(slot);
    let callee = handle(at, 0, 0);
    let guard = Guard { shard, me, callee, key, deadline_ns, answered: false };
    let reply = Reply::new(key, deadline_ns);
    let job: Job = Box::new(move |there| work(there, reply));
    shard.send_control(callee, Control::Asked { key, job });
    Some(AskFuture { guard, timer: None, probed: true, kind: PhantomData })
}

#[cfg(test)]
mod tests {
    use super::super::cancel::DUE_BITS;
    use super::*;

    #[test]
    fn a_slot_closes_once_and_knows_its_generation() {
        let mut asks = Asks::new(1);
        let told = Told::default();
        let (slot, generation) = asks.open(9, &told).expect("room");
        assert_eq!(asks.open(9, &told), None);
        let key = u64::from(slot) << 32 | u64::from(generation);
        assert!(asks.is_open(Due::new(key, 0)));
        assert!(matches!(asks.put(key, Got::Dropped), Ok(9)));
        assert!(matches!(asks.close(key), Got::Dropped));
        assert!(!asks.is_open(Due::new(key, 0)) && matches!(asks.close(key), Got::Nothing));
        assert!(asks.put(key, Got::Dropped).is_err());
        assert_eq!(asks.open_count(), 0);
        assert_eq!(asks.open(9, &told), Some((0, 1)));
    }

    /// A message says 8 bits of the generation: one that comes round must not be taken for one that was cancelled.
    #[test]
    fn a_slot_leaves_out_generations_that_a_callee_was_told_of() {
        let (mut asks, told) = (Asks::new(1), Told::default());
        let key = |generation: u32| handle(0, 0, generation);
        assert!(told.add(key(256), (1, Due::new(key(256), 9)), 1));
        assert!(!told.add(key(7), (1, Due::new(key(7), 9)), 1), "full");
        let crowd = told.crowd(key(7), 1).expect("full");
        assert!(told.take_over(crowd.clone(), 0).is_empty());
        assert_eq!(asks.open(9, &told), Some((0, 1)), "0 looks like 256");
        assert_eq!((told.take(key(1)), told.take(key(256)).is_some()), (None, true));
        asks.close(key(1));
        asks.slots[0].generation = 512;
        assert_eq!((asks.open(9, &told), told.len()), (Some((0, 512)), 0));
        assert!(told.add(key(7), (1, Due::new(key(7), 9)), 1));
        assert_eq!((told.take_over(crowd, 9 << DUE_BITS).len(), told.len()), (1, 0));
    }
}
