//! Handlers that wait and wakers that are out, read from the slots of a shard when somebody asks.
//!
//! A suspended handler is polled again when it is in the run queue, has an ask or a timer, or when somebody wakes
//! one of its wakers. One with none of these is forgotten: no poll of it can come, whatever happens, and its agent
//! takes no message any more. That is a proof and not a suspicion, for wakers are counted. It misses what keeps its own
//! waker (a cycle), which shows as a waker that is out.

use std::collections::BTreeMap;

use super::{AgentId, handle, index_of};
use crate::shard::Shard;
use crate::shard::shared::Woken;
use crate::shard::slab::{AgentType, Header, Role};
use crate::shard::waker::Wake;

/// Ended agents whose wakers are counted one by one; of more, only the number of wakers is known.
const LISTED: usize = 1 << 14;

/// What a suspended handler waits for; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WaitFor {
    /// Nothing: it will never be polled again, and holds what it holds until its agent is killed.
    Nothing,
    /// Whoever holds one of its wakers.
    Waker,
    /// A timer.
    Timer,
    /// An answer, or the deadline of its ask.
    Answer,
    /// Its turn.
    Turn,
}

/// Suspended handlers of one type of agents that wait for the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// The Rust type of the agents; of a spawned future its own, which names the function.
    pub type_name: &'static str,
    /// The type of the messages that they handle; none of a spawned future.
    pub message: Option<&'static str>,
    /// What they wait for.
    pub wait_for: WaitFor,
    /// How many.
    pub handlers: u64,
    /// Bytes of their futures, without what these point to.
    pub bytes: u64,
    /// Messages that wait behind them.
    pub messages: u64,
    /// Wakers of theirs that are out.
    pub wakers: u64,
    /// The one that has been suspended longest.
    pub oldest: AgentId,
    /// Since when it has, `CLOCK_MONOTONIC` ns.
    pub since_ns: u64,
    /// When it was last polled, ns.
    pub polled_ns: u64,
}

/// Wakers that are out for agents of one type that have ended: they wake nobody, and whoever keeps them does so for
/// nothing. They hold no slot and no memory of the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LateWakers {
    /// The Rust type of the agents, or of a spawned future.
    pub type_name: &'static str,
    /// The type of their messages; none of a spawned future.
    pub message: Option<&'static str>,
    /// Agents.
    pub agents: u64,
    /// Wakers.
    pub wakers: u64,
    /// The one that ended first.
    pub first: AgentId,
    /// When it did, `CLOCK_MONOTONIC` ns.
    pub ended_ns: u64,
}

/// What the shards know of waits and wakers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `CLOCK_MONOTONIC` when the last shard was read, ns.
    pub at_ns: u64,
    /// Suspended handlers, by type and by what they wait for.
    pub waiting: Vec<Waiting>,
    /// Wakers of agents that have ended, by type.
    pub late: Vec<LateWakers>,
    /// Those of agents that had no room in the shard's table of 16,384: whose they were is not known.
    pub late_unlisted: u64,
    /// Wakers of agents that are not suspended: they will be woken for nothing.
    pub idle_wakers: u64,
}

impl Registry {
    fn add(&mut self, one: Waiting) {
        let same = |other: &&mut Waiting| {
            (other.type_name, other.message, other.wait_for)
                == (one.type_name, one.message, one.wait_for)
        };
        let Some(all) = self.waiting.iter_mut().find(same) else { return self.waiting.push(one) };
        all.handlers += one.handlers;
        all.bytes += one.bytes;
        all.messages += one.messages;
        all.wakers += one.wakers;
        if one.since_ns < all.since_ns {
            (all.oldest, all.since_ns, all.polled_ns) = (one.oldest, one.since_ns, one.polled_ns);
        }
    }

    fn add_late(&mut self, one: LateWakers) {
        let same = |other: &&mut LateWakers| {
            (other.type_name, other.message) == (one.type_name, one.message)
        };
        let Some(all) = self.late.iter_mut().find(same) else { return self.late.push(one) };
        all.agents += one.agents;
        all.wakers += one.wakers;
        if one.ended_ns < all.ended_ns {
            (all.first, all.ended_ns) = (one.first, one.ended_ns);
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.at_ns = self.at_ns.max(other.at_ns);
        other.waiting.into_iter().for_each(|one| self.add(one));
        other.late.into_iter().for_each(|one| self.add_late(one));
        self.late_unlisted += other.late_unlisted;
        self.idle_wakers += other.idle_wakers;
    }

    /// Handlers that will never be polled again.
    pub fn forgotten(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|of| of.wait_for == WaitFor::Nothing)
    }
}

/// Wakers that are out for tasks that have ended.
#[derive(Default)]
pub(crate) struct Late {
    tasks: BTreeMap<Wake, Ended>,
    unlisted: u64,
}

struct Ended {
    agent: u64,
    kind: &'static AgentType,
    at_ns: u64,
    wakers: u32,
}

impl Late {
    fn leave(&mut self, wake: Wake, ended: Ended) {
        if self.tasks.len() < LISTED {
            self.tasks.insert(wake, ended);
        } else {
            self.unlisted += u64::from(ended.wakers);
        }
    }

    fn count(&mut self, wake: Wake, by: i64) {
        let Some(ended) = self.tasks.get_mut(&wake) else {
            self.unlisted = self.unlisted.saturating_add_signed(by);
            return;
        };
        ended.wakers = added(ended.wakers, by);
        if ended.wakers == 0 {
            self.tasks.remove(&wake);
        }
    }
}

fn added(wakers: u32, by: i64) -> u32 {
    u32::try_from(i64::from(wakers).saturating_add(by).max(0)).unwrap_or(u32::MAX)
}

/// A set of slots.
struct Slots(Vec<u64>);

impl Slots {
    fn of(slots: usize, handles: impl Iterator<Item = u64>) -> Self {
        let mut set = Self(vec![0; slots.div_ceil(64)]);
        for handle in handles {
            let index = index_of(handle) as usize;
            if let Some(word) = set.0.get_mut(index / 64) {
                *word |= 1 << (index % 64);
            }
        }
        set
    }

    fn has(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

fn message_of(kind: &AgentType) -> Option<&'static str> {
    (kind.role == Role::Agent).then(|| (kind.message)())
}

impl Shard {
    /// Counts wakers of a task that were made or are gone.
    pub(crate) fn count_wakers(&self, task: Wake, by: i64) {
        let header = self.slab.header(task.slot());
        let lives =
            |header: &&Header| header.kind.get().is_some() && task.is_for(header.generation.get());
        match header.filter(lives) {
            Some(header) => header.wakers.set(added(header.wakers.get(), by)),
            None => self.late.borrow_mut().count(task, by),
        }
    }

    /// A task ends: the wakers that are out are late now.
    pub(crate) fn leave_wakers(&self, header: &Header, index: u32, kind: &'static AgentType) {
        let wakers = header.wakers.take();
        if wakers == 0 {
            return;
        }
        let generation = header.generation.get();
        let agent = handle(self.index, generation, index);
        let ended = Ended { agent, kind, at_ns: self.seen_ns(), wakers };
        self.late.borrow_mut().leave(Wake::of(generation, index), ended);
    }

    /// Takes over what other threads did with wakers: who was woken is ready.
    pub(crate) fn take_woken(&self) {
        let Woken { tasks, wakers } = self.own().take_woken();
        tasks.into_iter().for_each(|task| self.make_woken_ready(task));
        wakers.into_iter().for_each(|(task, by)| self.count_wakers(task, by));
    }

    /// What it knows of waits and wakers.
    pub(crate) fn registry(&self) -> Registry {
        // A task may have been woken by its last waker a moment ago.
        self.take_woken();
        let slots = self.slab.slots();
        let asks = Slots::of(slots, self.asks.borrow().askers());
        let timers = Slots::of(slots, self.wheel.borrow().polled_owners());
        let late = self.late.borrow();
        let mut all = Registry {
            at_ns: self.clock_ns(),
            late_unlisted: late.unlisted,
            ..Registry::default()
        };
        late.tasks.values().map(late_wakers).for_each(|one| all.add_late(one));
        for index in self.slab.occupied() {
            let Some(header) = self.slab.header(index) else { continue };
            match self.waiting(header, index, (&asks, &timers)) {
                Some(one) => all.add(one),
                None => all.idle_wakers += u64::from(header.wakers.get()),
            }
        }
        all
    }

    fn waiting(
        &self,
        header: &Header,
        index: u32,
        (asks, timers): (&Slots, &Slots),
    ) -> Option<Waiting> {
        let kind = header.kind.get()?;
        let pending = header.pending.take();
        let waiting = pending.as_ref().and_then(|pending| {
            let suspended = pending.suspended.as_ref()?;
            let wakers = header.wakers.get();
            let wait_for = match () {
                () if header.is_queued() => WaitFor::Turn,
                () if asks.has(index) => WaitFor::Answer,
                () if timers.has(index) => WaitFor::Timer,
                () if wakers > 0 => WaitFor::Waker,
                () => WaitFor::Nothing,
            };
            Some(Waiting {
                type_name: (kind.name)(),
                message: message_of(kind),
                wait_for,
                handlers: 1,
                bytes: suspended.bytes() as u64,
                messages: super::messages(pending),
                wakers: wakers.into(),
                oldest: AgentId(handle(self.index, header.generation.get(), index)),
                since_ns: pending.since_ns,
                polled_ns: pending.polled_ns,
            })
        });
        header.pending.set(pending);
        waiting
    }
}

fn late_wakers(ended: &Ended) -> LateWakers {
    LateWakers {
        type_name: (ended.kind.name)(),
        message: message_of(ended.kind),
        agents: 1,
        wakers: ended.wakers.into(),
        first: AgentId(ended.agent),
        ended_ns: ended.at_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lifecycle::FORWARD;

    fn ended(wakers: u32) -> Ended {
        Ended { agent: handle(0, 1, 1), kind: &FORWARD, at_ns: 1, wakers }
    }

    #[test]
    fn late_wakers_are_counted_down_and_beyond_the_bound_as_one_number() {
        let mut late = Late::default();
        for slot in 0..u32::try_from(LISTED).expect("small") + 3 {
            late.leave(Wake::of(1, slot), ended(2));
        }
        assert_eq!((late.tasks.len(), late.unlisted), (LISTED, 6));
        late.count(Wake::of(1, 0), -1);
        assert_eq!(late.tasks[&Wake::of(1, 0)].wakers, 1);
        late.count(Wake::of(1, 0), -1);
        assert_eq!(late.tasks.len(), LISTED - 1);
        late.count(Wake::of(1, u32::MAX), -1);
        assert_eq!(late.unlisted, 5);
        late.count(Wake::of(1, u32::MAX), -9);
        assert_eq!(late.unlisted, 0, "never below 0");
        assert_eq!((added(0, -1), added(u32::MAX, 1), added(3, 4)), (0, u32::MAX, 7));
    }
}
