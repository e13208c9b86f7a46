#![expect(unsafe_code, reason = "the states of agents of any type in the slots of a slab")]
//! Agents on their shard: made, given messages and timers, resumed, ended.

use std::any::TypeId;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::task::Context;

use super::{Addr, Agent, Cx, Stop, generation_of, handle, index_of, shard_of};
use crate::channel::envelope::{Deliver, Envelope};
use crate::error::SpawnError;
use crate::shard::Shard;
use crate::shard::lane::{ACK_MAX, Ack, MAILBOX_MAX, arrears};
use crate::shard::slab::{self, AgentType, Header};
use crate::shard::suspended::{Outcome, Pending};

/// A message for an agent. The top byte of its handle says which shard it comes from.
pub(crate) struct ToAgent<A: Agent>(pub(crate) A::Msg);

/// A token for an agent's `on_timer`.
pub(crate) struct Token(pub(crate) u64);

/// A poll for an agent that waits.
pub(crate) struct WakeUp;

/// Gives each agent type its constants.
trait Hosted: Agent {
    const TYPE: AgentType = AgentType {
        id: TypeId::of::<Self>(),
        agent: true,
        align: placed::<Self>().1,
        drop_state: drop_state::<Self>,
        timer: timer::<Self>,
    };
    /// Whether the state lies in the slot, not in a box.
    const INLINE: bool = slab::fits(size_of::<Self>(), align_of::<Self>());
}

impl<A: Agent> Hosted for A {}

fn type_of<A: Agent>() -> &'static AgentType {
    const { &<A as Hosted>::TYPE }
}

/// Size and alignment of what lies in the slot.
const fn placed<A: Agent>() -> (usize, usize) {
    if <A as Hosted>::INLINE {
        (size_of::<A>(), align_of::<A>())
    } else {
        (size_of::<Box<A>>(), align_of::<Box<A>>())
    }
}

/// # Safety
/// `place` is the state of an occupied slot of this type.
unsafe fn state<A: Agent>(place: NonNull<u8>) -> NonNull<A> {
    if const { <A as Hosted>::INLINE } {
        place.cast()
    } else {
        // SAFETY: the caller's duty; such a slot holds a pointer that came from a Box.
        unsafe { place.cast::<NonNull<A>>().read() }
    }
}

/// # Safety
/// As [`state`]; the state is not used again.
unsafe fn drop_state<A: Agent>(place: NonNull<u8>) {
    // SAFETY: the caller's duty.
    let state = unsafe { state::<A>(place) };
    if const { <A as Hosted>::INLINE } {
        // SAFETY: initialised when the slot was occupied, and dropped this once.
        unsafe { state.drop_in_place() };
    } else {
        // SAFETY: it came from a Box, which is made anew this once.
        drop(unsafe { Box::from_raw(state.as_ptr()) });
    }
}

/// # Safety
/// As [`state`]; nobody else uses the state meanwhile.
unsafe fn timer<A: Agent>(
    shard: &Shard,
    place: NonNull<u8>,
    me: u64,
    token: u64,
) -> Result<(), Stop> {
    // SAFETY: the caller's duty.
    let mut state = unsafe { state::<A>(place) };
    // SAFETY: as above.
    let agent = unsafe { state.as_mut() };
    agent.on_timer(token, &mut Cx::new(shard, me))
}

/// The type of spawned futures, which have no state but their future.
static TASK: AgentType = AgentType {
    id: TypeId::of::<PhantomData<dyn Future<Output = ()>>>(),
    agent: false,
    align: 1,
    drop_state: |_| (),
    timer: |_, _, _, _| Ok(()),
};

impl<A: Agent> Deliver for ToAgent<A> {
    #[inline]
    fn deliver(self, to: u64, shard: &Shard) {
        let (index, generation) = (index_of(to), generation_of(to));
        let header = shard.slab.header(index);
        let Some(header) = header.filter(|header| header.generation.get() == generation) else {
            return shard.dead_letter(to, true, self.0);
        };
        if !header.is(type_of::<A>()) {
            return shard.dead_letter(to, false, self.0);
        }
        if header.is_busy() {
            return shard.wait(header, Envelope::new(to, self));
        }
        shard.credit(header, to, A::MAILBOX);
        header.messages.set(header.messages.get().wrapping_add(1));
        let me = handle(shard.index, generation, index);
        let (_, align) = placed::<A>();
        let Some(place) = shard.slab.state(index, align) else { return };
        shard.begin_turn(header);
        let waker = shard.waker(me);
        // SAFETY: the slot is occupied by an agent of this type: its header says so.
        let state = unsafe { state::<A>(place) };
        // SAFETY: initialised when the slot was occupied; nobody else uses it, as said below.
        let agent = unsafe { &mut *state.as_ptr() };
        // SAFETY: an agent is polled by its shard only, and by nobody else while it waits (it is busy then);
        // it is dropped by `end`, after its future. The shard outlives both.
        let outcome = unsafe {
            shard.scratch.start((shard, me), &mut Context::from_waker(&waker), move |cx| {
                agent.on(self.0, cx)
            })
        };
        shard.after(header, index, outcome);
    }
}

impl Deliver for Token {
    const MESSAGE: bool = false;

    fn deliver(self, to: u64, shard: &Shard) {
        let (index, generation) = (index_of(to), generation_of(to));
        let header = shard.slab.header(index);
        let Some(header) = header.filter(|header| header.generation.get() == generation) else {
            return;
        };
        if header.is_busy() {
            return shard.wait(header, Envelope::new(to, self));
        }
        let Some(kind) = header.kind.get() else { return };
        let me = handle(shard.index, generation, index);
        let Some(place) = shard.slab.state(index, kind.align) else { return };
        shard.begin_turn(header);
        // SAFETY: the slot is occupied by an agent of this kind, and nobody else uses its state: it is not
        // busy.
        let run = AssertUnwindSafe(|| unsafe { (kind.timer)(shard, place, me, self.0) });
        match catch_unwind(run) {
            Ok(Ok(())) => {}
            Ok(Err(Stop)) => shard.end_agent(index, false),
            Err(_) => shard.end_agent(index, true),
        }
    }
}

impl Deliver for WakeUp {
    const MESSAGE: bool = false;

    fn deliver(self, to: u64, shard: &Shard) {
        let (index, generation) = (index_of(to), generation_of(to));
        let header = shard.slab.header(index);
        if let Some(header) = header.filter(|header| header.generation.get() == generation) {
            shard.resume(header, index);
        }
    }
}

impl Shard {
    /// Spawns an agent in a slot of its own.
    pub(crate) fn spawn_agent<A: Agent>(&self, agent: A) -> Result<Addr<A>, SpawnError<A>> {
        const {
            assert!(A::MAILBOX >= 1 && A::MAILBOX <= MAILBOX_MAX, "MAILBOX is 1 to 50000");
        }
        let (size, align) = placed::<A>();
        let vacant =
            if self.is_closed() { None } else { self.slab.vacant(slab::class(size, align)) };
        let place = vacant.and_then(|index| Some((index, self.slab.state(index, align)?)));
        let Some((index, place)) = place else {
            return Err(SpawnError { agent, max: self.config.agents_max });
        };
        if const { <A as Hosted>::INLINE } {
            // SAFETY: the slot is vacant and large enough for the state.
            unsafe { place.cast::<A>().write(agent) };
        } else {
            // SAFETY: the slot is vacant and large enough for a pointer.
            unsafe { place.cast::<*mut A>().write(Box::into_raw(Box::new(agent))) };
        }
        Ok(Addr::new(self.occupy(index, type_of::<A>())))
    }

    /// Spawns a future, which is polled in its turn.
    pub(crate) fn spawn_task<F: Future<Output = ()> + 'static>(
        &self,
        future: F,
    ) -> Result<(), SpawnError<F>> {
        let vacant = if self.is_closed() { None } else { self.slab.vacant(0) };
        let Some(index) = vacant else {
            return Err(SpawnError { agent: future, max: self.config.agents_max });
        };
        let me = self.occupy(index, &TASK);
        let suspended = self.scratch.keep(async move {
            future.await;
            Err(Stop)
        });
        if let Some(header) = self.slab.header(index) {
            let mut pending = self.scratch.pending();
            pending.suspended = Some(suspended);
            header.pending.set(Some(pending));
            header.set_busy(true);
        }
        self.make_ready(me);
        Ok(())
    }

    /// Notes that a message of the sender in `to` was read, and tells it once for many.
    #[inline]
    fn credit(&self, header: &Header, to: u64, max: u32) {
        let (origin, index) = (shard_of(to), index_of(to));
        if origin == self.index {
            return self.release_own(index);
        }
        if usize::from(header.arrears_of.get()) != origin {
            self.settle(header, index, false);
            header.arrears_of.set(u8::try_from(origin).expect("a handle has 8 bits for it"));
        }
        let count = header.arrears.get() + 1;
        header.arrears.set(count);
        if u32::from(count) >= arrears(max).min(ACK_MAX.into()) {
            self.settle(header, index, false);
        }
    }

    /// Tells the core whose messages were read last how many that were.
    fn settle(&self, header: &Header, index: u32, gone: bool) {
        let count = header.arrears.take();
        if count > 0 {
            let generation = header.generation.get();
            let ack = Ack { index, generation, count, gone };
            self.acknowledge(usize::from(header.arrears_of.get()), ack);
        }
    }

    /// Drops a message that has no addressee, on its own: its drop is user code.
    #[cold]
    fn dead_letter<M>(&self, to: u64, gone: bool, message: M) {
        let (origin, index) = (shard_of(to), index_of(to));
        if origin != self.index {
            let generation = generation_of(to);
            self.acknowledge(origin, Ack { index, generation, count: 1, gone });
        } else if !gone {
            self.release_own(index);
        }
        let _ = catch_unwind(AssertUnwindSafe(move || drop(message)));
        self.count_dead_letters(1);
    }

    /// Keeps a message or a token for an agent that waits.
    fn wait(&self, header: &Header, item: Envelope) {
        let mut pending = header.pending.take().unwrap_or_else(|| self.scratch.pending());
        self.add_waiting(u64::from(item.is_message()));
        pending.items.push_back(item);
        header.pending.set(Some(pending));
    }

    /// What a first poll leaves.
    #[inline]
    fn after(&self, header: &Header, index: u32, outcome: Outcome) {
        match outcome {
            Outcome::Done(Ok(())) => {}
            Outcome::Done(Err(Stop)) => self.end_agent(index, false),
            Outcome::Panicked => self.end_agent(index, true),
            Outcome::Waits(suspended) => {
                let mut pending = header.pending.take().unwrap_or_else(|| self.scratch.pending());
                pending.suspended = Some(suspended);
                header.pending.set(Some(pending));
                header.set_busy(true);
            }
        }
    }

    /// Polls a suspended handler, and gives its agent what waited behind it, within the budget of a turn.
    fn resume(&self, header: &Header, index: u32) {
        header.unqueue();
        let Some(mut pending) = header.pending.take() else { return };
        if let Some(suspended) = pending.suspended.take() {
            self.begin_turn(header);
            let waker = self.waker(handle(self.index, header.generation.get(), index));
            match self.scratch.resume(suspended, &mut Context::from_waker(&waker)) {
                Outcome::Waits(suspended) => {
                    pending.suspended = Some(suspended);
                    return header.pending.set(Some(pending));
                }
                Outcome::Done(Ok(())) => {}
                end => {
                    header.pending.set(Some(pending));
                    return self.end_agent(index, matches!(end, Outcome::Panicked));
                }
            }
        }
        header.set_busy(false);
        self.catch_up(header, index, pending);
    }

    /// Gives an agent what waits in `pending`.
    fn catch_up(&self, header: &Header, index: u32, mut pending: Box<Pending>) {
        let generation = header.generation.get();
        self.begin_budget();
        loop {
            // A handler of an item may have suspended, or ended the agent and lost what it had.
            if header.is_busy() && header.generation.get() == generation {
                let newer = header.pending.take();
                pending.suspended = newer.and_then(|mut newer| newer.suspended.take());
                return header.pending.set(Some(pending));
            }
            let ended = header.generation.get() != generation;
            if !ended && !pending.items.is_empty() && !self.may_continue() {
                header.pending.set(Some(pending));
                header.set_busy(true);
                return self.make_ready(handle(self.index, generation, index));
            }
            let Some(item) = pending.items.pop_front() else { break };
            self.remove_waiting(u64::from(item.is_message()));
            item.deliver(self);
        }
        self.scratch.recycle(pending);
    }

    /// Ends an agent or a spawned future: its handler, its state, what waits for it.
    pub(crate) fn end_agent(&self, index: u32, panicked: bool) {
        let Some(header) = self.slab.header(index) else { return };
        let Some(kind) = header.kind.get() else { return };
        let pending = header.pending.take();
        let undelivered = pending.as_ref().map_or(0, |pending| messages(pending));
        let dropped = self.clear(header, index, kind, pending);
        self.remove_waiting(undelivered);
        self.count_dead_letters(undelivered);
        self.count_end(kind.agent, panicked || !dropped);
    }

    /// Drops all that a slot holds and gives it back; `false` when a drop panicked.
    fn clear(
        &self,
        header: &Header,
        index: u32,
        kind: &'static AgentType,
        pending: Option<Box<Pending>>,
    ) -> bool {
        self.settle(header, index, true);
        let (suspended, items) = match pending {
            Some(pending) => (pending.suspended, pending.items),
            None => Default::default(),
        };
        let mut dropped = suspended.is_none_or(|suspended| self.scratch.finish(suspended));
        // Of the next generation from here on: a drop that sends to its own agent finds it gone.
        header.kind.set(None);
        self.slab.end_generation(header);
        self.renew_own(index, header.generation.get());
        if let Some(state) = self.slab.state(index, kind.align) {
            // SAFETY: the slot was occupied by this kind and its handler is gone; `kind` is cleared, so
            // that nobody drops the state again, and the slot is not free yet, so nobody takes it.
            let drop = AssertUnwindSafe(|| unsafe { (kind.drop_state)(state) });
            dropped &= catch_unwind(drop).is_ok();
        }
        self.slab.free(index);
        for item in items {
            // A message whose drop panics takes neither the shard nor the others with it.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(item)));
        }
        dropped
    }
}

/// Messages that wait in `pending`.
pub(crate) fn messages(pending: &Pending) -> u64 {
    pending.items.iter().filter(|item| item.is_message()).count() as u64
}
