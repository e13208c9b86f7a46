//! What each agent costs and how long it lets others wait, always on: counts are exact, CPU time is estimated
//! from a sample of turns, ages are known to a pass of the shard (about 20 us).

use std::cell::Cell;

use super::{AgentId, CLASSES, handle};
use crate::shard::Shard;
use crate::shard::slab::{Header, Role};

/// log2 of the unit of an age in a header, ns.
pub(crate) const AGE_BITS: u32 = 10;

const _: () = assert!(CLASSES == 3);

/// The account of one agent since it was spawned; it moves with the agent and survives restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub agent: AgentId,
    /// Its Rust type.
    pub type_name: &'static str,
    /// Messages handled. Wraps after 4 billion.
    pub messages: u32,
    /// Turns: first polls of handlers, later polls, timers and notices. Wraps after 4 billion.
    pub turns: u32,
    /// Time of its turns, ns, kernel and preemption included: that of a random sample of one turn in
    /// `Config::account_every`, times that number. Unbiased; exact when it is 1.
    pub cpu_ns: u64,
    /// Messages that wait because its handler is suspended. Those that wait for their turn are not among them.
    pub waiting: u32,
    /// Age of the oldest thing that waits, ns: a message, a timer or a notice; none when nothing waits.
    pub oldest_ns: Option<u64>,
    /// Longest time that a handled message has waited since its core first saw it, ns. To 1 us and a pass.
    pub age_max_ns: u64,
    /// Whether it has failed and waits for its supervisor, or has not arrived yet.
    pub down: bool,
}

/// What [`Runtime::accounts`](crate::Runtime::accounts) sorts by, largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum By {
    /// CPU time.
    Cpu,
    /// Messages handled.
    Messages,
    /// Messages that wait.
    Waiting,
    /// Longest wait of a message.
    AgeMax,
}

impl Account {
    fn of(&self, by: By) -> u64 {
        match by {
            By::Cpu => self.cpu_ns,
            By::Messages => self.messages.into(),
            By::Waiting => self.waiting.into(),
            By::AgeMax => self.age_max_ns,
        }
    }
}

/// Picks the turns that are timed: each with the same chance, so that no rhythm of an agent hides it.
#[derive(Debug)]
pub(crate) struct Sampler {
    every: u32,
    left: Cell<u32>,
    bits: Cell<u64>,
    from_ns: Cell<u64>,
    /// `left` of stamped turns, each of which is a next one.
    left_stamped: Cell<u32>,
}

impl Sampler {
    pub(crate) const fn new(every: u32, seed: u64) -> Self {
        let bits = Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self { every, left: Cell::new(1), bits, from_ns: Cell::new(0), left_stamped: Cell::new(1) }
    }

    /// Counts a turn; whether it is to be timed.
    #[inline]
    pub(crate) fn is_next(&self) -> bool {
        let left = self.left.get() - 1;
        self.left.set(left);
        left == 0
    }

    #[inline]
    pub(crate) const fn is_on(&self) -> bool {
        self.from_ns.get() != 0
    }

    #[cold]
    pub(crate) fn begin(&self, now_ns: u64) {
        self.left.set(self.gap());
        self.from_ns.set(now_ns.max(1));
    }

    /// Counts a stamped turn; whether it is to be timed.
    #[inline]
    pub(crate) fn is_next_stamped(&self) -> bool {
        self.left.set(1);
        let left = self.left_stamped.get() - 1;
        self.left_stamped.set(left);
        left == 0
    }

    /// Times a stamped turn.
    #[cold]
    pub(crate) fn begin_stamped(&self, now_ns: u64) {
        self.begin(now_ns);
        self.left_stamped.set(self.left.replace(1));
    }

    /// Turns are stamped from the next one on, or no more: what was left to the next that is timed goes on.
    pub(crate) fn set_stamped(&self, stamped: bool) {
        if stamped {
            self.left_stamped.set(self.left.replace(1));
        } else {
            self.left.set(self.left_stamped.get());
        }
    }

    #[cold]
    pub(crate) fn end(&self, header: &Header, now_ns: u64) {
        let spent_ns = now_ns.saturating_sub(self.from_ns.take());
        header.cpu_ns.set(header.cpu_ns.get().saturating_add(spent_ns * u64::from(self.every)));
    }

    /// Turns to the next that is timed: uniform over 1..=2 x every - 1, whose mean is `every` (xorshift64*).
    fn gap(&self) -> u32 {
        let mut bits = self.bits.get();
        bits ^= bits >> 12;
        bits ^= bits << 25;
        bits ^= bits >> 27;
        self.bits.set(bits);
        let range = 2 * u64::from(self.every) - 1;
        let drawn = ((bits.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) * range) >> 32;
        u32::try_from(drawn).expect("below the range") + 1
    }
}

impl Shard {
    /// The account of an agent of this shard.
    pub(crate) fn account(&self, agent: u64) -> Option<Account> {
        let index = super::index_of(agent);
        let header = self.slab.header(index)?;
        let lives = header.generation.get() == super::generation_of(agent);
        if lives { self.account_of(index, header) } else { None }
    }

    fn account_of(&self, index: u32, header: &Header) -> Option<Account> {
        let kind = header.kind.get().filter(|kind| kind.role == Role::Agent)?;
        let pending = header.pending.take();
        let waiting = pending.as_ref().map_or(0, |pending| super::messages(pending));
        let oldest = pending.as_ref().and_then(|pending| pending.arrivals.front().copied());
        header.pending.set(pending);
        Some(Account {
            agent: AgentId(handle(self.index, header.generation.get(), index)),
            type_name: (kind.name)(),
            messages: header.messages.get(),
            turns: header.messages.get().wrapping_add(header.polls.get()),
            cpu_ns: header.cpu_ns.get(),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            oldest_ns: oldest.map(|oldest| self.seen_ns().saturating_sub(oldest.seen_ns)),
            age_max_ns: u64::from(header.age_max.get()) << AGE_BITS,
            down: header.is_down(),
        })
    }

    /// The `count` largest accounts. Looks at every agent: about 10 ms for a million.
    pub(crate) fn accounts(&self, by: By, count: usize) -> Vec<Account> {
        let mut top: Vec<Account> = Vec::new();
        for index in self.slab.occupied() {
            let Some(header) = self.slab.header(index) else { continue };
            top.extend(self.account_of(index, header));
            if top.len() >= 2 * count + 1_024 {
                keep(&mut top, by, count);
            }
        }
        keep(&mut top, by, count);
        top
    }
}

/// Sorts and cuts.
pub(crate) fn keep(accounts: &mut Vec<Account>, by: By, count: usize) {
    accounts.sort_by_key(|account| std::cmp::Reverse(account.of(by)));
    accounts.truncate(count);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_in_so_many_is_timed() {
        for every in [1, 2, 64] {
            let sampler = Sampler::new(every, 7);
            let mut timed = 0u32;
            for now_ns in 0..1_000_000 {
                if sampler.is_next() {
                    sampler.begin(now_ns);
                    sampler.from_ns.set(0);
                    timed += 1;
                }
            }
            let wanted = 1_000_000 / every;
            assert!(timed.abs_diff(wanted) <= wanted / 50, "{timed} of {wanted}");
            // The same of stamped turns, each of which is a next one.
            let (stamped, mut again) = (Sampler::new(every, 7), 0u32);
            for now_ns in 0..1_000_000 {
                assert!(stamped.is_next());
                if stamped.is_next_stamped() {
                    stamped.begin_stamped(now_ns);
                }
                again += u32::from(stamped.from_ns.take() != 0);
            }
            assert_eq!(again, timed);
        }
    }
}
