#![expect(unsafe_code, reason = "the states of agents of any type in the slots of a slab")]
//! Agents on their shard: given messages, timers and notices, resumed, caught up with.

use std::ptr::NonNull;
use std::task::Context;

use super::cancel::Due;
use super::lifecycle::{state, type_of};
use super::{Agent, CLASSES, Class, Control, End, Notice, Stop};
use super::{generation_of, handle, index_of, shard_of};
use crate::channel::envelope::{Deliver, Envelope, Travels};
use crate::panics::{contain, drop_contained};
use crate::shard::Shard;
use crate::shard::lane::{ACK_MAX, Ack, arrears};
use crate::shard::slab::{AgentType, Header, Role};
use crate::shard::suspended::{Again, Outcome, Pending};

/// Time before a message that could not be passed on is tried again, ns.
const RETRY_NS: u64 = 1_000_000;
/// Times that this is doubled while all tries are in vain: to 32 ms.
const RETRIES_DOUBLED: u32 = 5;

/// A message for an agent. The top byte of its handle says which shard it comes from.
pub(crate) struct ToAgent<A: Agent>(pub(crate) A::Msg);

/// A message that asks: with its deadline and its slot at the asker.
pub(crate) struct Asked<A: Agent> {
    pub(crate) due: Due,
    pub(crate) msg: A::Msg,
}

/// A token for an agent's `on_timer`, and the life in which it was set.
pub(crate) struct Token {
    pub(crate) token: u64,
    pub(crate) life: u32,
    /// When it was put into the queue; 0 when turns are not stamped.
    pub(crate) fired_ns: u64,
}

/// A poll for an agent that waits, and how what it waited for came here: 0 when turns are not stamped.
#[derive(Default)]
pub(crate) struct WakeUp {
    pub(crate) published_ns: u64,
    pub(crate) seen_ns: u64,
}

impl<A: Agent> Deliver for ToAgent<A> {
    const TRAVELS: Travels = Travels::InPlace;

    #[inline]
    fn deliver(self, to: u64, shard: &Shard) {
        receive::<A>(self.0, None, to, shard);
    }
}

impl<A: Agent> Deliver for Asked<A> {
    const TRAVELS: Travels = Travels::InPlace;

    #[inline]
    fn deliver(self, to: u64, shard: &Shard) {
        receive::<A>(self.msg, Some(self.due), to, shard);
    }
}

fn pack<A: Agent>(to: u64, msg: A::Msg, due: Option<Due>) -> Envelope {
    match due {
        None => Envelope::new(to, ToAgent::<A>(msg)),
        Some(due) => Envelope::new(to, Asked::<A> { due, msg }),
    }
}

/// Has a message that a ring has brought wait among those of its class. Not inlined, as what follows: an envelope
/// on the stack would cost every message an aligned frame.
#[inline(never)]
fn put_off<A: Agent>(msg: A::Msg, due: Option<Due>, to: u64, shard: &Shard) {
    shard.queue_again(A::CLASS, pack::<A>(to, msg, due));
}

/// Has a message wait for an agent whose handler waits.
#[inline(never)]
fn set_aside<A: Agent>(header: &Header, msg: A::Msg, due: Option<Due>, to: u64, shard: &Shard) {
    shard.wait(header, pack::<A>(to, msg, due));
}

/// Gives an agent a message.
#[inline(always)]
#[expect(clippy::inline_always, reason = "one copy per kind of message: which it is, is known")]
fn receive<A: Agent>(msg: A::Msg, due: Option<Due>, to: u64, shard: &Shard) {
    // What a ring brings is not in the order of the classes.
    if !matches!(A::CLASS, Class::High) && shard.must_queue(A::CLASS) {
        return put_off::<A>(msg, due, to, shard);
    }
    let (index, generation) = (index_of(to), generation_of(to));
    let slot = shard.slab.slot(index);
    let Some((header, place)) = slot.filter(|(header, _)| header.generation.get() == generation)
    else {
        return shard.dead_letter(to, true, msg);
    };
    if !header.is(type_of::<A>()) {
        return misdirected::<A>(header, msg, due, to, shard);
    }
    if header.is_busy() {
        return set_aside::<A>(header, msg, due, to, shard);
    }
    shard.credit(header, to, A::MAILBOX);
    if let Some(due) = due
        && shard.is_unwanted(shard_of(to), due)
    {
        return shard.skip(shard_of(to), due, msg);
    }
    header.messages.set(header.messages.get().wrapping_add(1));
    shard.note_age(header);
    let me = handle(shard.index, generation, index);
    shard.begin_turn(header, me);
    let waker = shard.waker(me);
    // SAFETY: the slot is occupied by an agent of this type: its header says so, and it is not down.
    let state = unsafe { state::<A>(place) };
    // SAFETY: initialised when the slot was occupied; nobody else uses it, as said below.
    let agent = unsafe { &mut *state.as_ptr() };
    // SAFETY: an agent is polled by its shard only, and by nobody else while it waits (it is busy then);
    // it is dropped by `end_agent`, after its future. The shard outlives both.
    let outcome = unsafe {
        shard
            .scratch
            .start((shard, me), &mut Context::from_waker(&waker), move |cx| agent.on(msg, cx))
    };
    shard.end_turn(header);
    // Most handlers end in their first poll; what `after` needs is not even put together then.
    if !matches!(outcome, Outcome::Done(Ok(()))) {
        shard.after(header, index, outcome);
    }
}

/// A message for a slot that does not hold an agent of its type: one that has moved, or a stranger.
#[cold]
fn misdirected<A: Agent>(header: &Header, msg: A::Msg, due: Option<Due>, to: u64, shard: &Shard) {
    if header.role() != Some(Role::Forward) {
        return shard.dead_letter(to, false, msg);
    }
    if header.is_busy() {
        return shard.wait(header, pack::<A>(to, msg, due));
    }
    match shard.pass_on::<A>(header.waits_for.get(), msg, due.map(Due::without_slot)) {
        Ok(()) => {
            header.age_max.set(0);
            shard.credit(header, to, A::MAILBOX);
            shard.shorten(header, index_of(to), A::CLASS);
        }
        Err(crate::SendError::Gone(msg)) => {
            shard.credit(header, to, A::MAILBOX);
            shard.drop_letter(msg);
        }
        Err(refused) => {
            shard.wait(header, pack::<A>(to, refused.into_message(), due));
            shard.block(header, index_of(to));
        }
    }
}

/// Runs a hook of an agent, which is not suspended.
fn hook(
    shard: &Shard,
    header: &Header,
    me: u64,
    call: impl FnOnce(&'static AgentType, NonNull<u8>) -> Result<(), Stop>,
) {
    let Some(kind) = header.kind.get() else { return };
    let Some(place) = shard.slab.state(index_of(me)) else { return };
    header.count_poll();
    shard.begin_turn(header, me);
    let result = contain(|| call(kind, place));
    shard.end_turn(header);
    match result {
        Some(Ok(())) => {}
        Some(Err(Stop)) => shard.end_agent(index_of(me), End::Stopped),
        None => shard.end_agent(index_of(me), End::Panicked),
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
        if header.incarnation.get() != self.life {
            return;
        }
        if header.role() == Some(Role::Forward) {
            // It took the count of its lives along. The new core goes by a clock of its own, and sees this now.
            let new = header.waits_for.get();
            let job = move |shard: &Shard| {
                Self { fired_ns: shard.fired_ns(), ..self }.deliver(new, shard);
            };
            return shard.send_control(new, Control::Job(Box::new(job)));
        }
        if header.is_busy() {
            return shard.wait(header, Envelope::new(to, self));
        }
        let me = handle(shard.index, generation, index);
        // SAFETY: the slot is occupied by an agent of this kind, and nobody else uses its state: it is not
        // busy.
        let on_timer =
            |kind: &'static AgentType, place| unsafe { (kind.timer)(shard, place, me, self.token) };
        shard.with_in_hand((0, self.fired_ns), || hook(shard, header, me, on_timer));
    }
}

impl Deliver for WakeUp {
    const MESSAGE: bool = false;

    fn deliver(self, to: u64, shard: &Shard) {
        let (index, generation) = (index_of(to), generation_of(to));
        let header = shard.slab.header(index);
        if let Some(header) = header.filter(|header| header.generation.get() == generation) {
            shard.resume(header, index, (self.published_ns, self.seen_ns));
        }
    }
}

impl Shard {
    /// Calls an agent's hook for a notice.
    pub(crate) fn call_hook(&self, header: &Header, me: u64, notice: Notice) {
        // SAFETY: as in `Token::deliver`: `Shard::notify` has seen that it is not busy.
        hook(self, header, me, |kind, place| unsafe { (kind.notice)(self, place, me, notice) });
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
    pub(super) fn settle(&self, header: &Header, index: u32, gone: bool) {
        let count = header.arrears.take();
        if count > 0 {
            let generation = header.generation.get();
            let ack = Ack { index, generation, count, gone };
            self.acknowledge(usize::from(header.arrears_of.get()), ack);
        }
    }

    /// Drops a message that has no addressee, or one of another type.
    #[cold]
    fn dead_letter<M>(&self, to: u64, gone: bool, message: M) {
        let (origin, index) = (shard_of(to), index_of(to));
        if origin != self.index {
            let generation = generation_of(to);
            self.acknowledge(origin, Ack { index, generation, count: 1, gone });
        } else if !gone {
            self.release_own(index);
        }
        self.drop_letter(message);
    }

    /// Drops a message on its own: its drop is user code.
    fn drop_letter<M>(&self, message: M) {
        drop_contained(message);
        self.count_dead_letters(1);
    }

    /// Drops a message whose asker has given up.
    #[cold]
    fn skip<M>(&self, origin: usize, due: Due, message: M) {
        self.stats.borrow_mut().asks_skipped += 1;
        drop_contained(message);
        self.forget_cancelled(origin, due);
    }

    #[inline]
    fn is_unwanted(&self, origin: usize, due: Due) -> bool {
        due.is_over(self.seen_ns()) || self.is_cancelled(origin, due)
    }

    /// Keeps a message, a token or a notice for an agent that waits.
    pub(super) fn wait(&self, header: &Header, item: Envelope) {
        let mut pending = header.pending.take().unwrap_or_else(|| self.scratch.pending());
        self.add_waiting(u64::from(item.is_message()));
        pending.items.push_back(item);
        pending.arrivals.push_back(self.arrival(true));
        header.pending.set(Some(pending));
    }

    /// A moved agent's old place could not pass a message on: it tries again a little later, and later still as
    /// long as that is in vain. Such a place has no ages: their word counts its tries.
    pub(super) fn block(&self, header: &Header, index: u32) {
        header.set_busy(true);
        let me = handle(self.index, header.generation.get(), index);
        let tries = header.age_max.get().min(RETRIES_DOUBLED);
        header.age_max.set(tries + 1);
        self.retry_at(me, self.seen_ns() + (RETRY_NS << tries));
    }

    /// What a first poll leaves.
    #[inline(never)]
    fn after(&self, header: &Header, index: u32, outcome: Outcome) {
        match outcome {
            Outcome::Done(Ok(())) => {}
            Outcome::Done(Err(Stop)) => self.end_agent(index, End::Stopped),
            Outcome::Panicked => self.end_agent(index, End::Panicked),
            Outcome::Waits(suspended) => {
                let mut pending = header.pending.take().unwrap_or_else(|| self.scratch.pending());
                pending.suspend(suspended, self.seen_ns());
                header.pending.set(Some(pending));
                header.set_busy(true);
            }
        }
    }

    /// Polls a suspended handler, and gives its agent what waited behind it, within the budget of a turn.
    fn resume(&self, header: &Header, index: u32, way: (u64, u64)) {
        header.unqueue();
        if header.is_down() {
            return;
        }
        let Some(mut pending) = header.pending.take() else { return header.set_busy(false) };
        if pending.suspended.is_some() {
            let me = handle(self.index, header.generation.get(), index);
            header.count_poll();
            let waker = self.waker(me);
            let context = &mut Context::from_waker(&waker);
            let again = self.with_in_hand(way, || {
                self.begin_turn(header, me);
                let again = self.scratch.resume(&mut pending.suspended, context);
                self.end_turn(header);
                again
            });
            match again {
                Again::Waits => {
                    pending.polled_ns = self.seen_ns();
                    return header.pending.set(Some(pending));
                }
                Again::Done(Ok(())) => {}
                end => {
                    header.pending.set(Some(pending));
                    let panicked = matches!(end, Again::Panicked);
                    let why = if panicked { End::Panicked } else { End::Stopped };
                    return self.end_agent(index, why);
                }
            }
        }
        header.set_busy(false);
        self.catch_up(header, index, pending);
    }

    /// Gives an agent what waits in `pending`.
    fn catch_up(&self, header: &Header, index: u32, mut pending: Box<Pending>) {
        let generation = header.generation.get();
        let since_ns = self.since_ns();
        let done = || {
            self.set_since(since_ns);
            self.drop_hand();
        };
        self.begin_budget();
        loop {
            // A handler of an item may have suspended or failed, or ended the agent and lost what it had.
            if header.is_busy() && header.generation.get() == generation {
                if let Some(newer) = header.pending.take() {
                    pending.put_before(*newer);
                }
                header.pending.set(Some(pending));
                break done();
            }
            let ended = header.generation.get() != generation;
            if !ended && !pending.items.is_empty() && !self.may_continue() {
                header.pending.set(Some(pending));
                header.set_busy(true);
                done();
                break self.make_ready(handle(self.index, generation, index));
            }
            let Some(item) = pending.items.pop_front() else {
                self.scratch.recycle(pending);
                break done();
            };
            let arrival = pending.arrivals.pop_front().unwrap_or_default();
            self.set_since(arrival.seen_ns);
            self.take_in_hand(arrival);
            self.remove_waiting(u64::from(item.is_message()));
            item.deliver(self);
        }
    }
}

/// Messages that wait in `pending`.
pub(crate) fn messages(pending: &Pending) -> u64 {
    pending.items.iter().filter(|item| item.is_message()).count() as u64
}

const _: () = assert!(CLASSES == Class::Low as usize + 1);
