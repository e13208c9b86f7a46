#![expect(unsafe_code, reason = "the states of agents of any type in the slots of a slab")]
//! The life of an agent: made, failed and made anew, ended.

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::kin::{CHILD, LIVES_MAX};
use super::{Addr, Agent, Class, Cx, Down, End, MonitorId, Notice, Stop, handle, messages};
use crate::channel::envelope::MESSAGE_MAX;
use crate::error::SpawnError;
use crate::panics::{contain, drop_contained};
use crate::shard::Shard;
use crate::shard::lane::{Ack, MAILBOX_MAX};
use crate::shard::slab::{self, AgentType, Header, Role};
use crate::shard::suspended::Pending;

/// Gives each agent type its constants.
trait Hosted: Agent {
    const TYPE: AgentType = AgentType {
        id: TypeId::of::<Self>(),
        name: type_name::<Self>,
        message: type_name::<Self::Msg>,
        role: Role::Agent,
        class: Self::CLASS,
        traps: Self::TRAPS_EXITS,
        drop_state: drop_state::<Self>,
        timer: timer::<Self>,
        notice: notice::<Self>,
    };
    /// Whether the state lies in the slot, not in a box.
    const INLINE: bool = slab::fits(size_of::<Self>(), align_of::<Self>());
}

impl<A: Agent> Hosted for A {}

pub(crate) fn type_of<A: Agent>() -> &'static AgentType {
    const { &<A as Hosted>::TYPE }
}

/// Size of what lies in the slot.
pub(super) const fn placed<A: Agent>() -> usize {
    if <A as Hosted>::INLINE { size_of::<A>() } else { size_of::<Box<A>>() }
}

/// # Safety
/// `place` is the state of an occupied slot of this type that is not down.
pub(super) unsafe fn state<A: Agent>(place: NonNull<u8>) -> NonNull<A> {
    if const { <A as Hosted>::INLINE } {
        place.cast()
    } else {
        // SAFETY: the caller's duty; such a slot holds a pointer that came from a Box.
        unsafe { place.cast::<NonNull<A>>().read() }
    }
}

/// Puts a state into a slot.
///
/// # Safety
/// `place` is that of a slot for this type whose state, if it had one, is gone.
pub(super) unsafe fn fill<A: Agent>(place: NonNull<u8>, agent: A) {
    if const { <A as Hosted>::INLINE } {
        // SAFETY: the caller's duty: the slot is large enough for the state.
        unsafe { place.cast::<A>().write(agent) };
    } else {
        // SAFETY: the caller's duty: the slot is large enough for a pointer.
        unsafe { place.cast::<*mut A>().write(Box::into_raw(Box::new(agent))) };
    }
}

/// Takes the state out of a slot.
///
/// # Safety
/// As [`state`]; the state is not used again.
pub(super) unsafe fn take_state<A: Agent>(place: NonNull<u8>) -> A {
    // SAFETY: the caller's duty.
    let state = unsafe { state::<A>(place) };
    if const { <A as Hosted>::INLINE } {
        // SAFETY: initialised when the slot was filled, and moved out this once.
        unsafe { state.read() }
    } else {
        // SAFETY: it came from a Box, which is made anew this once.
        *unsafe { Box::from_raw(state.as_ptr()) }
    }
}

/// # Safety
/// As [`take_state`].
unsafe fn drop_state<A: Agent>(place: NonNull<u8>) {
    // SAFETY: the caller's duty.
    let state = unsafe { state::<A>(place) };
    if const { <A as Hosted>::INLINE } {
        // SAFETY: initialised when the slot was filled, and dropped this once.
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

/// # Safety
/// As [`timer`].
unsafe fn notice<A: Agent>(
    shard: &Shard,
    place: NonNull<u8>,
    me: u64,
    notice: Notice,
) -> Result<(), Stop> {
    // SAFETY: the caller's duty.
    let mut state = unsafe { state::<A>(place) };
    // SAFETY: as above.
    let agent = unsafe { state.as_mut() };
    match notice {
        Notice::Down(down) => agent.on_down(down, &mut Cx::new(shard, me)),
        Notice::Started { child, agent: started, .. } => {
            agent.on_started(child, started, &mut Cx::new(shard, me));
            Ok(())
        }
    }
}

const fn stateless(id: TypeId, name: fn() -> &'static str, role: Role) -> AgentType {
    AgentType {
        id,
        name,
        message: name,
        role,
        class: Class::Normal,
        traps: false,
        drop_state: |_| (),
        timer: |_, _, _, _| Ok(()),
        notice: |_, _, _, _| Ok(()),
    }
}

/// Gives each type of spawned futures its constants: they have no state but their future.
trait Spawned {
    const TASK: AgentType;
}

impl<F: Future<Output = ()>> Spawned for F {
    const TASK: AgentType = stateless(
        TypeId::of::<PhantomData<dyn Future<Output = ()>>>(),
        // Names the function whose `async` it is.
        type_name::<F>,
        Role::Task,
    );
}

/// The type of places from which an agent has moved.
pub(super) static FORWARD: AgentType =
    stateless(TypeId::of::<PhantomData<dyn FnOnce(u64)>>(), || "moved", Role::Forward);

impl Shard {
    /// A slot for an agent of a type, occupied and without a state; the handle.
    pub(super) fn reserve<A: Agent>(&self) -> Option<u64> {
        const {
            assert!(
                size_of::<A::Msg>() <= MESSAGE_MAX && align_of::<A::Msg>() <= 8,
                "a message has at most 48 bytes and is aligned to at most 8: box its content"
            );
            assert!(A::MAILBOX >= 1 && A::MAILBOX <= MAILBOX_MAX, "MAILBOX is 1 to 50000");
        }
        if self.is_closed() {
            return None;
        }
        let index = self.slab.vacant(slab::class(placed::<A>()))?;
        Some(self.occupy(index, type_of::<A>()))
    }

    /// Spawns an agent in a slot of its own.
    pub(crate) fn spawn_agent<A: Agent>(&self, agent: A) -> Result<Addr<A>, SpawnError<A>> {
        let max = self.config.agents_max;
        let Some(me) = self.reserve::<A>() else { return Err(SpawnError { agent, max }) };
        let Some(place) = self.slab.state(super::index_of(me)) else {
            return Err(SpawnError { agent, max });
        };
        // SAFETY: the slot was reserved for this type and has no state yet.
        unsafe { fill(place, agent) };
        Ok(Addr::new(me))
    }

    /// Spawns a future, which is polled in its turn.
    pub(crate) fn spawn_task<F: Future<Output = ()> + 'static>(
        &self,
        future: F,
    ) -> Result<(), SpawnError<F>> {
        self.spawn_task_with(future, |_, future| future)
    }

    /// Spawns the future that `make` makes of its handle and `seed`.
    pub(crate) fn spawn_task_with<S, F: Future<Output = ()> + 'static>(
        &self,
        seed: S,
        make: impl FnOnce(u64, S) -> F,
    ) -> Result<(), SpawnError<S>> {
        let vacant = if self.is_closed() { None } else { self.slab.vacant(0) };
        let Some(index) = vacant else {
            return Err(SpawnError { agent: seed, max: self.config.agents_max });
        };
        let me = self.occupy(index, const { &<F as Spawned>::TASK });
        let future = make(me, seed);
        let suspended = self.scratch.keep(async move {
            future.await;
            Err(Stop)
        });
        if let Some(header) = self.slab.header(index) {
            let mut pending = self.scratch.pending();
            pending.suspend(suspended, self.seen_ns());
            header.pending.set(Some(pending));
            header.set_busy(true);
        }
        self.make_ready(me);
        Ok(())
    }

    /// Ends an agent or a spawned future. One that is supervised loses its state only, and waits for what its
    /// supervisor decides.
    pub(crate) fn end_agent(&self, index: u32, why: End) {
        let Some(header) = self.slab.header(index) else { return };
        let Some(kind) = header.kind.get() else { return };
        let me = handle(self.index, header.generation.get(), index);
        let kin = self.take_kin(index);
        let supervised = kin.as_ref().is_some_and(|kin| kin.child.is_some());
        if supervised && !self.is_closed() {
            self.put_kin(index, kin.expect("just seen"));
            return self.fail(header, index, kind, why);
        }
        self.remove(header, index, kind, why);
        if let Some(kin) = kin {
            self.dissolve(me, kin, why);
        }
    }

    /// Takes a supervised agent's handler and state; what waits for it waits on.
    fn fail(&self, header: &Header, index: u32, kind: &'static AgentType, why: End) {
        if header.is_down() {
            return;
        }
        let me = handle(self.index, header.generation.get(), index);
        header.set_down(true);
        header.waits_for.set(0);
        self.begin_life(header, index);
        let suspended = header.pending.take().and_then(|mut pending| {
            let suspended = pending.suspended.take();
            pending.keep_messages();
            header.pending.set(Some(pending));
            suspended
        });
        let mut clean = suspended.is_none_or(|suspended| self.scratch.finish(suspended));
        clean &= self.drop_state(index, kind);
        let why = if clean { why } else { End::Panicked };
        self.count_failure(why);
        let Some(mut kin) = self.take_kin(index) else { return };
        self.tell_of_end(me, &mut kin, why);
        if let Some(child) = &kin.child {
            self.tell_supervisor(child, me, why);
        }
        self.put_kin(index, kin);
    }

    /// Gives a failed agent a new state.
    pub(super) fn restart(&self, header: &Header, index: u32) {
        let me = handle(self.index, header.generation.get(), index);
        let child = self.with_kin(me, |kin| kin.child.clone());
        let Some(Some(child)) = child else { return };
        if !header.is_down() {
            return;
        }
        if header.incarnation.get() < LIVES_MAX && child.make.refill(self, me) {
            self.stats.borrow_mut().restarted += 1;
        } else {
            self.count_failure(End::Panicked);
            self.tell_supervisor(&child, me, End::Panicked);
        }
    }

    /// Gives a failed agent the new state that its maker has made.
    pub(crate) fn refill<A: Agent>(&self, me: u64, agent: A) {
        let index = super::index_of(me);
        let (Some(header), Some(place)) = (self.slab.header(index), self.slab.state(index)) else {
            return;
        };
        assert!(header.is(type_of::<A>()) && header.is_down(), "`restart` has looked");
        // SAFETY: the slot is one for this type, and down: its state is gone.
        unsafe { fill(place, agent) };
        self.arrived(header, me);
    }

    /// A slot has its state now: it takes first what waits for it.
    pub(super) fn arrived(&self, header: &Header, me: u64) {
        header.set_down(false);
        header.set_busy(true);
        self.make_ready(me);
    }

    /// Ends an agent whatever its supervisor would do.
    pub(super) fn release_agent(&self, index: u32) {
        let Some(header) = self.slab.header(index) else { return };
        let Some(kind) = header.kind.get() else { return };
        let me = handle(self.index, header.generation.get(), index);
        let kin = self.take_kin(index);
        self.remove(header, index, kind, End::Killed);
        if let Some(kin) = kin {
            self.dissolve(me, kin, End::Killed);
        }
    }

    fn remove(&self, header: &Header, index: u32, kind: &'static AgentType, why: End) {
        let down = header.is_down();
        let pending = header.pending.take();
        let undelivered = pending.as_ref().map_or(0, |pending| messages(pending));
        let dropped = self.clear(header, index, kind, pending);
        self.remove_waiting(undelivered);
        self.count_dead_letters(undelivered);
        let why = if dropped { why } else { End::Panicked };
        // The end of one that is down was counted when it failed, or it has never arrived.
        self.count_end(kind.role, (!down).then_some(why));
    }

    /// Drops all that a slot holds and gives it back; `false` when a drop panicked.
    fn clear(
        &self,
        header: &Header,
        index: u32,
        kind: &'static AgentType,
        pending: Option<Box<Pending>>,
    ) -> bool {
        let down = header.is_down();
        self.settle(header, index, true);
        let (suspended, items) = match pending {
            Some(pending) => (pending.suspended, pending.items),
            None => Default::default(),
        };
        let mut dropped = suspended.is_none_or(|suspended| self.scratch.finish(suspended));
        // Relations that the handler made while it was dropped.
        if let Some(kin) = self.take_kin(index) {
            self.dissolve(handle(self.index, header.generation.get(), index), kin, End::Killed);
        }
        // Of the next generation from here on: a drop that sends to its own agent finds it gone.
        header.kind.set(None);
        self.leave_wakers(header, index, kind);
        self.slab.end_generation(header);
        self.renew_own(index, header.generation.get());
        if !down {
            dropped &= self.drop_state(index, kind);
        }
        self.slab.free(index);
        for item in items {
            // Each sender's core hears of the end, also one whose messages all wait here.
            let (to, message) = (item.to(), item.is_message());
            if message && super::shard_of(to) != self.index {
                let generation = super::generation_of(to);
                let ack = Ack { index, generation, count: 1, gone: true };
                self.acknowledge(super::shard_of(to), ack);
            }
            // A message whose drop panics takes neither the shard nor the others with it.
            drop_contained(item);
        }
        dropped
    }

    /// Drops the state in a slot that its owner has marked as down or vacant; `false` when that panicked.
    fn drop_state(&self, index: u32, kind: &'static AgentType) -> bool {
        let Some(state) = self.slab.state(index) else { return true };
        // SAFETY: the slot was occupied by this kind and its handler is gone; it is down or vacant now, so
        // that nobody drops or uses the state again, and not free yet, so nobody takes it.
        contain(|| unsafe { (kind.drop_state)(state) }).is_some()
    }
}

/// Whether a notice is of a supervisor's child: its number, and the life of the supervisor that started it.
pub(crate) fn child_of(down: &Down) -> Option<(u32, u32)> {
    let MonitorId(id) = down.monitor?;
    let number = u32::try_from(id & u64::from(u32::MAX)).expect("32 bits");
    let life = u32::try_from(id >> 32 & u64::from(LIVES_MAX)).expect("31 bits");
    (id & CHILD != 0).then_some((number, life))
}
