//! The agent of `ask`, `light` and the pair of `same`, message by message, as every peer runs it.

use crate::sheet::{Sheet, Tally};

/// One in so many asks of an agent is timed; a time stamp costs as much as a message.
const TIMED: u32 = 16;
/// Unread messages that a mailbox may hold.
pub(crate) const MAILBOX: usize = 64;
/// Thought before an ask of `light`.
const THINK_NS: u64 = 100_000_000;

/// What workers send each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Msg {
    Start,
    Ask(u32),
    Answer,
    /// The instant of [`Worker::due_ns`] has come.
    Due,
}

/// An agent that answers and asks.
#[derive(Debug)]
pub(crate) struct Worker {
    tally: Tally,
    agents: u32,
    dice: Dice,
    think: Option<Box<Think>>,
}

/// The schedule of an agent that asks at given instants, whether or not the last answer has come.
#[derive(Debug, Default)]
struct Think {
    /// Instant of the next timer; none before it is started.
    due_ns: Option<u64>,
    /// Intended instant of the next ask; behind `due_ns` when an answer is late.
    ask_ns: u64,
    waits: bool,
}

impl Worker {
    /// Asks again as soon as it has its answer.
    pub(crate) fn closed(sheet: &'static Sheet, me: u32, agents: u32) -> Self {
        Self { tally: Tally::new(sheet, me, TIMED), agents, dice: Dice::new(me), think: None }
    }

    /// Asks every 100 ms from the sheet's start on; the agents are spread evenly over the first 100 ms.
    pub(crate) fn thinking(sheet: &'static Sheet, me: u32, agents: u32) -> Self {
        let think = Some(Box::new(Think::default()));
        Self { tally: Tally::new(sheet, me, 1), think, ..Self::closed(sheet, me, agents) }
    }

    /// Whether it wants [`Msg::Due`] at times.
    pub(crate) const fn thinks(&self) -> bool {
        self.think.is_some()
    }

    /// When it wants [`Msg::Due`] next, after a message that moves this instant; none when the sheet has
    /// closed.
    #[inline]
    pub(crate) fn due_after(&self, msg: Msg) -> Option<u64> {
        if matches!(msg, Msg::Ask(_) | Msg::Answer) || !self.tally.sheet().is_open() {
            return None;
        }
        self.think.as_ref()?.due_ns
    }

    /// Handles a message; returns what to send to which agent. Inlined, and what only agents with a schedule
    /// do is not: a call that hands its result over in memory cost the fastest peer 12 % of its figure.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "in all peers, and not in those that a compiler picks"
    )]
    pub(crate) fn on(&mut self, msg: Msg) -> Option<(u32, Msg)> {
        match msg {
            Msg::Ask(from) => Some((from, Msg::Answer)),
            Msg::Start => self.start(),
            Msg::Answer => {
                let go_on = self.tally.answered();
                if self.think.is_some() { self.thought(go_on) } else { go_on.then(|| self.ask()) }
            }
            Msg::Due => self.due(),
        }
    }

    #[inline(never)]
    fn thought(&mut self, go_on: bool) -> Option<(u32, Msg)> {
        self.think.as_mut()?.waits = false;
        if go_on { self.ask_if_due() } else { None }
    }

    #[inline(never)]
    fn due(&mut self) -> Option<(u32, Msg)> {
        if let Some(due_ns) = self.think.as_mut().and_then(|think| think.due_ns.as_mut()) {
            *due_ns += THINK_NS;
        }
        self.ask_if_due()
    }

    #[inline(never)]
    fn start(&mut self) -> Option<(u32, Msg)> {
        let (me, agents) = (u64::from(self.tally.me()), u64::from(self.agents));
        let first_ns = self.tally.sheet().start_ns() + THINK_NS * me / agents;
        match &mut self.think {
            None => Some(self.ask()),
            Some(think) => {
                (think.due_ns, think.ask_ns) = (Some(first_ns), first_ns);
                None
            }
        }
    }

    /// Notes that a send was refused; it waits in vain for the answer, or another does.
    pub(crate) fn refused(&self) {
        self.tally.sheet().refused();
    }

    fn ask_if_due(&mut self) -> Option<(u32, Msg)> {
        let think = self.think.as_mut()?;
        if think.waits || think.due_ns.is_none_or(|due_ns| think.ask_ns >= due_ns) {
            return None;
        }
        think.waits = true;
        self.tally.ask_of(think.ask_ns);
        think.ask_ns += THINK_NS;
        Some((self.other(), Msg::Ask(self.tally.me())))
    }

    #[inline]
    fn ask(&mut self) -> (u32, Msg) {
        self.tally.ask();
        (self.other(), Msg::Ask(self.tally.me()))
    }

    fn other(&mut self) -> u32 {
        self.dice.other(self.tally.me(), self.agents)
    }
}

/// Where the next ask goes: xorshift64*, one state per agent.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn new(agent: u32) -> Self {
        Self((u64::from(agent) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Another agent than `me`.
    #[inline]
    fn other(&mut self, me: u32, agents: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let drawn = ((bits * u64::from(agents - 1)) >> 32) as u32;
        drawn + u32::from(drawn >= me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> &'static Sheet {
        let sheet = Box::leak(Box::new(Sheet::new(2)));
        sheet.warmed_up();
        sheet
    }

    #[test]
    fn nobody_asks_itself() {
        let mut dice = Dice::new(3);
        assert!((0..10_000).map(|_| dice.other(3, 5)).all(|other| other != 3 && other < 5));
    }

    #[test]
    fn a_closed_loop_has_one_ask_outstanding() {
        let sheet = sheet();
        let mut worker = Worker::closed(sheet, 0, 2);
        assert_eq!(worker.on(Msg::Start), Some((1, Msg::Ask(0))));
        assert_eq!(worker.on(Msg::Ask(1)), Some((1, Msg::Answer)));
        assert_eq!(worker.on(Msg::Answer), Some((1, Msg::Ask(0))));
        sheet.close();
        assert_eq!(worker.on(Msg::Answer), None);
        assert_eq!((sheet.counts(), worker.due_after(Msg::Start)), (vec![2, 0], None));
    }

    #[test]
    fn an_ask_behind_a_late_answer_keeps_its_intended_instant() {
        let sheet = sheet();
        let start_ns = sheet.start();
        let mut worker = Worker::thinking(sheet, 1, 2);
        assert_eq!(worker.on(Msg::Start), None);
        let first_ns = start_ns + THINK_NS / 2;
        assert_eq!(worker.due_after(Msg::Start), Some(first_ns));
        assert_eq!(worker.on(Msg::Due), Some((0, Msg::Ask(1))));
        assert_eq!(worker.due_after(Msg::Due), Some(first_ns + THINK_NS));
        assert_eq!(worker.due_after(Msg::Answer), None, "its timer runs already");
        assert_eq!(worker.on(Msg::Due), None, "its answer has not come");
        assert_eq!(worker.on(Msg::Answer), Some((0, Msg::Ask(1))), "it was due already");
        assert_eq!(worker.on(Msg::Answer), None);
        assert_eq!(sheet.latency().count, 2);
    }
}
