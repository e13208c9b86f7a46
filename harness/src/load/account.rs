//! What serving one request took, poll by poll, until its answer is sent.
//!
//! The wrapper around a handler opens the account of each poll; [`ReplyTo::send`](super::ReplyTo::send),
//! somewhere below it, reads it. Between them stands a thread-local, as the workload's code knows nothing
//! of it.

use std::cell::Cell;

use tailbeam_probes::clock;
use tailbeam_probes::collect::turn::{AllocatorUnit, TurnReading, sum};
use tailbeam_probes::record::latency::{CARRIED, PollCounts, Stamps};

use crate::observe::{self, BUILT};

/// Polls of a request's handler so far. Instants and times in ns.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Account {
    /// Whose: the asker and its key.
    request: (u32, u64),
    polls: u32,
    /// Begin of the poll that runs, or of the last one.
    turn_ns: u64,
    /// End of the last poll.
    ended_ns: u64,
    service_ns: u64,
    suspended_ns: u64,
    resume_wait_ns: u64,
    due_ns: u64,
    timer_turn_ns: u64,
}

impl Account {
    /// Of a request that a turn has just taken.
    pub(super) fn new(request: (u32, u64), stamps: &Stamps) -> Self {
        let turn_ns = stamps.out.turn_ns;
        Self { request, turn_ns, due_ns: stamps.due_ns, ..Self::default() }
    }

    /// A poll begins at `turn_ns`, and could have since `ready_ns`.
    fn begins(&mut self, ready_ns: u64, turn_ns: u64) {
        self.polls += 1;
        if self.polls == 1 {
            return;
        }
        let turn = turn_ns.max(self.ended_ns);
        let ready = ready_ns.clamp(self.ended_ns, turn);
        self.suspended_ns += ready - self.ended_ns;
        self.resume_wait_ns += turn - ready;
        self.turn_ns = turn;
        if self.due_ns != 0 && self.timer_turn_ns == 0 && turn >= self.due_ns {
            self.at_due(turn);
        }
    }

    /// The turn of the plan's timer: what was before lies in the planned delay.
    const fn at_due(&mut self, turn_ns: u64) {
        self.timer_turn_ns = turn_ns;
        (self.service_ns, self.suspended_ns, self.resume_wait_ns) = (0, 0, 0);
    }

    fn ends(&mut self, now_ns: u64) {
        self.ended_ns = now_ns.max(self.turn_ns);
        self.service_ns += self.ended_ns - self.turn_ns;
    }

    /// Fills in the stamps of an answer that the running poll sends.
    fn answer(mut self, now_ns: u64, stamps: &mut Stamps) {
        let now = now_ns.max(self.turn_ns);
        let mut from = self.turn_ns;
        if self.due_ns != 0 && self.timer_turn_ns == 0 && now >= self.due_ns {
            // It worked on past the instant at which the answer was due.
            from = self.due_ns.max(from);
            self.at_due(from);
        }
        stamps.polls = self.polls;
        stamps.service_ns = self.service_ns + (now - from);
        stamps.suspended_ns = self.suspended_ns;
        stamps.resume_wait_ns = self.resume_wait_ns;
        stamps.timer_turn_ns = self.timer_turn_ns;
        stamps.answered_ns = now;
    }
}

/// Fills in the stamps of an answer that was kept, and is sent by another turn than its request's.
fn answer_kept(turn_ns: u64, now_ns: u64, stamps: &mut Stamps) {
    let now = now_ns.max(turn_ns);
    stamps.polls = 2;
    stamps.answered_ns = now;
    if stamps.due_ns == 0 {
        let turn = turn_ns.max(stamps.out.turn_ns);
        stamps.suspended_ns = turn - stamps.out.turn_ns;
        stamps.service_ns = now - turn;
    } else if now >= stamps.due_ns {
        stamps.timer_turn_ns = turn_ns.max(stamps.due_ns);
        stamps.service_ns = now - stamps.timer_turn_ns;
    }
}

/// Counters of the thread when the running poll began, and what earlier polls of its request took.
#[derive(Debug, Clone, Copy)]
struct Counting {
    before: TurnReading,
    so_far: Option<PollCounts>,
}

/// Fills in the stamps of an answer that another process has given, after it held the request for `held_ns`. Gives how
/// long that was on its way there and back: from the turn that took it here until its answer is in hand, without what
/// the other process held it.
pub(super) fn carried(now_ns: u64, held_ns: u64, stamps: &mut Stamps) -> u64 {
    let now = now_ns.max(stamps.out.turn_ns);
    let trip = now - stamps.out.turn_ns;
    // Two clocks of one machine: the other's cannot have seen more time than passed here.
    let held = held_ns.min(trip);
    stamps.polls = CARRIED;
    stamps.answered_ns = now;
    if stamps.due_ns == 0 {
        (stamps.service_ns, stamps.suspended_ns) = (held, trip - held);
        return trip - held;
    }
    let late = held.saturating_sub(stamps.planned_ns);
    stamps.timer_turn_ns = (stamps.due_ns + late).min(now.max(stamps.due_ns));
    stamps.suspended_ns = now.saturating_sub(stamps.timer_turn_ns);
    trip - held
}

thread_local! {
    static RUNNING: Cell<Option<Account>> = const { Cell::new(None) };
    static COUNTING: Cell<Option<Counting>> = const { Cell::new(None) };
    /// Counted requests that were answered or dropped since the last look.
    static DONE: Cell<u32> = const { Cell::new(0) };
    /// Readings taken since the last look.
    static READINGS: Cell<u64> = const { Cell::new(0) };
}

/// The account of a request whose handler may take several polls.
#[derive(Debug)]
pub(super) struct Serving {
    account: Account,
    agent: u32,
    counted: bool,
    so_far: Option<Box<PollCounts>>,
}

impl Serving {
    /// Of a handler of `agent`.
    pub(super) const fn new(account: Account, agent: u32, counted: bool) -> Self {
        Self { account, agent, counted, so_far: None }
    }

    /// Opens the account of a poll.
    pub(super) fn begins(&mut self) {
        if !BUILT {
            return;
        }
        if self.account.polls == 0 {
            self.account.begins(0, 0);
        } else {
            let (ready_ns, turn_ns) = super::way::resumed().unwrap_or_default();
            observe::runs(self.agent, turn_ns);
            self.account.begins(ready_ns, turn_ns);
        }
        RUNNING.set(Some(self.account));
        if self.counted {
            count_from_here(self.so_far.as_deref().copied());
        }
    }

    /// Closes it. Only a handler that goes on later needs to know when it stopped.
    pub(super) fn ends(&mut self, goes_on: bool) {
        if !BUILT {
            return;
        }
        RUNNING.set(None);
        let counting = COUNTING.take();
        if !goes_on {
            return;
        }
        self.account.ends(clock::monotonic_ns());
        if let Some(counting) = counting {
            self.so_far = Some(Box::new(counting.total(None)));
        }
    }
}

impl Counting {
    fn total(&self, unit: Option<AllocatorUnit>) -> PollCounts {
        let counts = read().since(&self.before, unit);
        self.so_far.map_or(counts, |before| sum(&before, &counts))
    }
}

fn read() -> TurnReading {
    READINGS.set(READINGS.get() + 1);
    TurnReading::now()
}

/// Readings that this thread has taken since the last call.
pub(crate) fn take_readings() -> u64 {
    READINGS.take()
}

/// Counts what the running turn takes.
fn count_from_here(so_far: Option<PollCounts>) {
    COUNTING.set(Some(Counting { before: read(), so_far }));
}

/// Counts a turn of an agent that holds counted requests, until [`end_turn`].
pub(super) fn begin_turn() {
    count_from_here(None);
}

/// Ends the count of a turn.
pub(super) fn end_turn() {
    COUNTING.set(None);
}

/// Fills in the stamps of an answer: the account of the running poll if it is the request's own, or else the
/// turn that began at `turn_ns`.
pub(super) fn answer(request: (u32, u64), turn_ns: u64, now_ns: u64, stamps: &mut Stamps) {
    if !BUILT {
        stamps.answered_ns = now_ns;
        return;
    }
    match RUNNING.get().filter(|account| account.request == request) {
        Some(account) => account.answer(now_ns, stamps),
        None => answer_kept(turn_ns, now_ns, stamps),
    }
}

/// What the polls of a counted request took until now.
pub(super) fn counts(unit: Option<AllocatorUnit>) -> Option<Box<PollCounts>> {
    COUNTING.get().map(|counting| {
        let mut counts = counting.total(unit);
        counts.allocator_ns = counts.allocations.zip(unit).map(|(n, unit)| unit.times(n));
        Box::new(counts)
    })
}

/// A counted request is done with.
pub(super) fn done() {
    DONE.set(DONE.get() + 1);
}

/// How many are since the last call.
pub(super) fn take_done() -> u32 {
    DONE.take()
}

#[cfg(test)]
mod tests {
    use tailbeam_probes::record::latency::Leg;

    use super::*;

    fn taken(due_ns: u64) -> Stamps {
        let out = Leg { turn_ns: 1_000, ..Leg::default() };
        Stamps { out, due_ns, ..Stamps::default() }
    }

    /// Answered less taken, or less due.
    fn adds_up(stamps: &Stamps) -> bool {
        let from = if stamps.due_ns == 0 { stamps.out.turn_ns } else { stamps.timer_turn_ns };
        let parts = stamps.service_ns + stamps.suspended_ns + stamps.resume_wait_ns;
        stamps.answered_ns - from == parts
    }

    #[test]
    fn polls_and_what_lies_between_them_add_up() {
        let mut stamps = taken(0);
        let mut account = Account::new((1, 2), &stamps);
        account.begins(0, 0);
        account.ends(1_100);
        account.begins(1_500, 1_700);
        account.ends(1_800);
        // Ready again before it had stopped, by the clock of a look.
        account.begins(1_700, 1_750);
        account.answer(1_900, &mut stamps);
        assert_eq!((stamps.polls, stamps.service_ns), (3, 100 + 100 + 100));
        assert_eq!((stamps.suspended_ns, stamps.resume_wait_ns), (400, 200));
        assert!(adds_up(&stamps), "{stamps:?}");
    }

    #[test]
    fn what_lies_in_the_planned_delay_is_no_service() {
        let mut stamps = taken(5_000);
        let mut account = Account::new((1, 2), &stamps);
        account.begins(0, 0);
        account.ends(4_000);
        account.begins(5_000, 5_300);
        account.answer(5_400, &mut stamps);
        assert_eq!((stamps.timer_turn_ns, stamps.service_ns, stamps.suspended_ns), (5_300, 100, 0));
        assert!(adds_up(&stamps), "{stamps:?}");
        // One poll that works past it.
        let mut stamps = taken(5_000);
        let mut account = Account::new((1, 2), &stamps);
        account.begins(0, 0);
        account.answer(6_000, &mut stamps);
        assert_eq!((stamps.timer_turn_ns, stamps.service_ns), (5_000, 1_000));
    }

    #[test]
    fn a_reply_that_was_kept_adds_up_too() {
        let mut stamps = taken(0);
        answer((1, 2), 3_000, 3_200, &mut stamps);
        assert_eq!((stamps.suspended_ns, stamps.service_ns), (2_000, 200));
        assert!(adds_up(&stamps), "{stamps:?}");
        let mut stamps = taken(5_000);
        answer((1, 2), 5_250, 5_300, &mut stamps);
        assert_eq!((stamps.timer_turn_ns, stamps.service_ns), (5_250, 50));
        assert!(adds_up(&stamps), "{stamps:?}");
    }

    #[test]
    fn what_another_process_answers_is_its_lateness_and_the_way() {
        let mut stamps = Stamps { planned_ns: 400, ..taken(1_400) };
        // On its way for 60, held for 430 of which 400 were planned, back for 10.
        assert_eq!(carried(1_500, 430, &mut stamps), 70);
        assert_eq!((stamps.timer_turn_ns, stamps.suspended_ns), (1_430, 70));
        assert_eq!((stamps.service_ns, stamps.answered_ns, stamps.polls), (0, 1_500, CARRIED));
        let mut stamps = taken(0);
        assert_eq!(carried(1_500, 30, &mut stamps), 470);
        assert_eq!((stamps.service_ns, stamps.suspended_ns), (30, 470));
        let mut early = Stamps { planned_ns: 400, ..taken(1_400) };
        carried(1_390, 9_000, &mut early);
        assert_eq!((early.timer_turn_ns, early.suspended_ns), (1_400, 0), "a clock that disagrees");
    }
}
