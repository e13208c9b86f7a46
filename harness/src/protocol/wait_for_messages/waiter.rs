//! One call of wait_for_messages, from its start to its reply: when to look, when to give up.

use super::index::{Item, Page};

/// Longest wait, 300 s, as shipped. A longer one is refused, not shortened in silence.
pub const TIMEOUT_MAX_NS: u64 = 300_000_000_000;

/// How it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Looks every `interval_ns`; shipped with 1 s.
    SleepPoll {
        /// Time between two looks, ns.
        interval_ns: u64,
    },
    /// Looks once and is then woken by an append.
    LongPoll,
}

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Sequence number of the last message that the receiver has; none at first.
    pub cursor: Option<u64>,
    /// Messages of one reply at most; shipped with 10.
    pub batch: usize,
    /// How long to wait, ns; shipped with 60 s.
    pub timeout_ns: u64,
    /// How.
    pub mode: Mode,
}

impl Default for Wait {
    /// As shipped: sleep-poll every second, ten messages, 60 s.
    fn default() -> Self {
        let mode = Mode::SleepPoll { interval_ns: 1_000_000_000 };
        Self { cursor: None, batch: 10, timeout_ns: 60_000_000_000, mode }
    }
}

/// Why a call makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Longer than [`TIMEOUT_MAX_NS`].
    #[error("a timeout of {0} ns is above {TIMEOUT_MAX_NS} ns")]
    Timeout(u64),
    /// A reply of no messages.
    #[error("a batch of 0 messages")]
    Batch,
    /// An interval of 0 would look for ever.
    #[error("an interval of 0 ns")]
    Interval,
}

/// What a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// There are messages.
    New,
    /// There were none until the deadline.
    Timeout,
}

/// The reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<T> {
    /// What.
    pub status: Status,
    /// Oldest first.
    pub items: Vec<Item<T>>,
    /// Whether more wait: ask again at once.
    pub more: bool,
    /// How long it waited, ns.
    pub waited_ns: u64,
    /// Cursor of the next call.
    pub cursor: Option<u64>,
}

/// What the caller must do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<T> {
    /// Look at this instant (or later), monotonic ns; nothing before it.
    LookAt(u64),
    /// Look when something is appended for this receiver, at this instant at the latest.
    WakeOrAt(u64),
    /// It is over.
    Done(Reply<T>),
}

/// A call that is under way.
#[derive(Debug, Clone)]
pub struct Waiter {
    wait: Wait,
    started_ns: u64,
    deadline_ns: u64,
    looks: u64,
}

impl Waiter {
    /// Begins a call; look at once.
    ///
    /// # Errors
    /// [`WaitError`].
    pub const fn begin(now_ns: u64, wait: Wait) -> Result<Self, WaitError> {
        if wait.timeout_ns > TIMEOUT_MAX_NS {
            return Err(WaitError::Timeout(wait.timeout_ns));
        }
        if wait.batch == 0 {
            return Err(WaitError::Batch);
        }
        if let Mode::SleepPoll { interval_ns: 0 } = wait.mode {
            return Err(WaitError::Interval);
        }
        let deadline_ns = now_ns.saturating_add(wait.timeout_ns);
        Ok(Self { wait, started_ns: now_ns, deadline_ns, looks: 0 })
    }

    /// What to ask the index: `index.after(now, receiver, waiter.cursor(), waiter.batch())`.
    #[must_use]
    pub const fn cursor(&self) -> Option<u64> {
        self.wait.cursor
    }

    /// Messages wanted.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.wait.batch
    }

    /// Looks so far.
    #[must_use]
    pub const fn looks(&self) -> u64 {
        self.looks
    }

    /// What a look at `now_ns` found.
    pub fn looked<T>(&mut self, now_ns: u64, page: Page<T>) -> Next<T> {
        self.looks += 1;
        let waited_ns = now_ns.saturating_sub(self.started_ns);
        if let Some(last) = page.items.last() {
            let (cursor, more) = (Some(last.seq), page.more);
            let (status, items) = (Status::New, page.items);
            return Next::Done(Reply { status, items, more, waited_ns, cursor });
        }
        if now_ns >= self.deadline_ns {
            let (status, cursor) = (Status::Timeout, self.wait.cursor);
            let (items, more) = (Vec::new(), false);
            return Next::Done(Reply { status, items, more, waited_ns, cursor });
        }
        match self.wait.mode {
            // The last look is at the deadline itself: what came in the last part of an interval counts.
            Mode::SleepPoll { interval_ns } => {
                Next::LookAt(now_ns.saturating_add(interval_ns).min(self.deadline_ns))
            }
            Mode::LongPoll => Next::WakeOrAt(self.deadline_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::index::{Index, IndexConfig};
    use super::*;

    const MS: u64 = 1_000_000;

    fn append(index: &mut Index<u32>, seq: u64, sent_ns: u64) {
        index.append(1, Item { seq, sent_ns, content: 0 }).unwrap();
    }

    /// Runs one call while messages arrive at `arrivals` (sorted). A kernel that sleeps exactly.
    fn run(now_ns: u64, wait: Wait, arrivals: &[u64]) -> (Reply<u32>, u64) {
        let mut index = Index::new(IndexConfig::default());
        let mut waiter = Waiter::begin(now_ns, wait).unwrap();
        let (mut at, mut sent) = (now_ns, 0);
        loop {
            while arrivals.get(sent).is_some_and(|&due| due <= at) {
                append(&mut index, sent as u64, arrivals[sent]);
                sent += 1;
            }
            let page = index.after(at, 1, waiter.cursor(), waiter.batch());
            match waiter.looked(at, page) {
                Next::LookAt(next) => at = next,
                Next::WakeOrAt(end) => at = arrivals.get(sent).map_or(end, |&due| due.min(end)),
                Next::Done(reply) => return (reply, waiter.looks()),
            }
        }
    }

    #[test]
    fn the_shipped_call_waits_to_the_next_look_and_a_long_poll_does_not() {
        let (reply, looks) = run(0, Wait::default(), &[1_300 * MS]);
        assert_eq!((reply.status, reply.waited_ns, looks), (Status::New, 2_000 * MS, 3));
        let long = Wait { mode: Mode::LongPoll, ..Wait::default() };
        let (reply, looks) = run(0, long, &[1_300 * MS]);
        assert_eq!((reply.status, reply.waited_ns, looks), (Status::New, 1_300 * MS, 2));
        for wait in [Wait::default(), long] {
            let (reply, _) = run(5, wait, &[]);
            assert_eq!(
                (reply.status, reply.waited_ns, reply.cursor),
                (Status::Timeout, 60_000 * MS, None)
            );
            let (reply, looks) = run(0, Wait { timeout_ns: 0, ..wait }, &[]);
            assert_eq!((reply.status, looks), (Status::Timeout, 1), "one look, no wait");
        }
    }

    #[test]
    fn a_message_of_the_last_part_interval_is_not_lost() {
        let wait = Wait { timeout_ns: 1_500 * MS, ..Wait::default() };
        let (reply, _) = run(0, wait, &[1_400 * MS]);
        assert_eq!((reply.status, reply.waited_ns), (Status::New, 1_500 * MS));
    }

    #[test]
    fn batches_go_through_everything_once() {
        let mut index = Index::new(IndexConfig::default());
        (0..25).for_each(|seq| append(&mut index, seq, 0));
        let (mut cursor, mut sizes) = (None, Vec::new());
        loop {
            let mut waiter = Waiter::begin(0, Wait { cursor, ..Wait::default() }).unwrap();
            let page = index.after(0, 1, waiter.cursor(), waiter.batch());
            let Next::Done(reply) = waiter.looked(0, page) else { break };
            assert_eq!(reply.more, reply.cursor != Some(24));
            cursor = reply.cursor;
            sizes.push(reply.items.len());
        }
        assert_eq!(
            (sizes, cursor),
            (vec![10, 10, 5], Some(24)),
            "the oldest ten do not starve the rest"
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let begin = |wait| Waiter::begin(0, wait).map(drop);
        let long = Wait { timeout_ns: TIMEOUT_MAX_NS + 1, ..Wait::default() };
        assert_eq!(begin(long), Err(WaitError::Timeout(TIMEOUT_MAX_NS + 1)));
        assert_eq!(begin(Wait { batch: 0, ..Wait::default() }), Err(WaitError::Batch));
        let mode = Mode::SleepPoll { interval_ns: 0 };
        assert_eq!(begin(Wait { mode, ..Wait::default() }), Err(WaitError::Interval));
    }

    proptest! {
        #[test]
        fn it_ends_in_time_and_with_the_first_message(
            interval in 1u64..50, timeout in 0u64..200, arrival in 0u64..300, long: bool
        ) {
            let mode = if long { Mode::LongPoll } else { Mode::SleepPoll { interval_ns: interval } };
            let wait = Wait { timeout_ns: timeout, mode, ..Wait::default() };
            let (reply, looks) = run(0, wait, &[arrival]);
            prop_assert!(reply.waited_ns <= timeout);
            prop_assert_eq!(reply.status == Status::New, arrival <= timeout);
            if long {
                prop_assert!(looks <= 2);
                prop_assert_eq!(reply.waited_ns, arrival.min(timeout));
            } else {
                prop_assert!(looks <= timeout / interval + 2);
                let due = arrival.div_ceil(interval) * interval;
                prop_assert_eq!(reply.waited_ns, due.min(timeout));
            }
        }
    }
}
