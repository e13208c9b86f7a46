//! What every peer fills in the same way: completions per agent and the latency of some asks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::clock;
use crate::histogram::{Apart, Histogram, Read};

/// Until every agent has its first message.
const START_NS: u64 = 20_000_000;

/// Shared by the agents of a round.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// Agents go on while this is set.
    open: Apart<AtomicBool>,
    /// By core, as agents are placed: those of agents 0, 2, 4.. and those of 1, 3, 5..
    completions: [Vec<AtomicU32>; 2],
    /// Messages that the receiver of a one-way stream has read.
    received: Apart<AtomicU64>,
    /// Sends that a full mailbox or ring refused; nobody answers those.
    refused: Apart<AtomicU64>,
    /// From when on agents with a schedule ask.
    start_ns: AtomicU64,
    /// Asks sent before this are not timed.
    warm_ns: AtomicU64,
    latency: Histogram,
    agents: u32,
}

impl Sheet {
    pub(crate) fn new(agents: u32) -> Self {
        Self {
            open: Apart(AtomicBool::new(true)),
            completions: [agents.div_ceil(2), agents / 2]
                .map(|count| (0..count + 32).map(|_| AtomicU32::new(0)).collect()),
            received: Apart(AtomicU64::new(0)),
            refused: Apart(AtomicU64::new(0)),
            start_ns: AtomicU64::new(0),
            warm_ns: AtomicU64::new(u64::MAX),
            latency: Histogram::new(),
            agents,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.0.load(Ordering::Relaxed)
    }

    /// Ends the round.
    pub(crate) fn close(&self) {
        self.open.0.store(false, Ordering::Relaxed);
    }

    /// Notes a send that was refused.
    pub(crate) fn refused(&self) {
        self.refused.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.refused.0.load(Ordering::Relaxed)
    }

    /// Notes how many messages the only receiver has read.
    pub(crate) fn received(&self, count: u64) {
        self.received.0.store(count, Ordering::Relaxed);
    }

    pub(crate) fn receipts(&self) -> u64 {
        self.received.0.load(Ordering::Relaxed)
    }

    /// All agents are there: schedules begin in a moment. Returns when.
    pub(crate) fn start(&self) -> u64 {
        let start_ns = clock::now_ns() + START_NS;
        self.start_ns.store(start_ns, Ordering::Relaxed);
        start_ns
    }

    /// When schedules begin.
    pub(crate) fn start_ns(&self) -> u64 {
        self.start_ns.load(Ordering::Relaxed)
    }

    /// The warm-up is over: asks are timed from now on.
    pub(crate) fn warmed_up(&self) {
        self.warm_ns.store(clock::now_ns(), Ordering::Relaxed);
    }

    /// Completions of each agent.
    pub(crate) fn counts(&self) -> Vec<u32> {
        (0..self.agents as usize)
            .map(|agent| self.completions[agent % 2][agent / 2].load(Ordering::Relaxed))
            .collect()
    }

    /// Notes a latency.
    pub(crate) fn timed(&self, ns: u64) {
        self.latency.note(ns);
    }

    /// Latencies noted so far.
    pub(crate) fn latency(&self) -> Read {
        self.latency.read()
    }
}

/// The asks of one agent.
#[derive(Debug)]
pub(crate) struct Tally {
    sheet: &'static Sheet,
    me: u32,
    /// One in so many asks is timed, a power of two, less one.
    mask: u32,
    /// Which of them it times first: if all timed the same, of some runs only bursts of them would be timed.
    phase: u32,
    count: u32,
    sent_ns: u64,
}

impl Tally {
    pub(crate) const fn new(sheet: &'static Sheet, me: u32, every: u32) -> Self {
        assert!(every.is_power_of_two(), "a division per ask would be part of the figure");
        Self { sheet, me, mask: every - 1, phase: me, count: 0, sent_ns: 0 }
    }

    pub(crate) const fn me(&self) -> u32 {
        self.me
    }

    pub(crate) const fn sheet(&self) -> &'static Sheet {
        self.sheet
    }

    #[inline(never)]
    fn time(&self) {
        if self.sent_ns >= self.sheet.warm_ns.load(Ordering::Relaxed) {
            self.sheet.timed(clock::now_ns().saturating_sub(self.sent_ns));
        }
    }

    #[inline]
    const fn is_timed(&self) -> bool {
        self.count.wrapping_add(self.phase) & self.mask == 0
    }

    /// An ask is sent.
    #[inline]
    pub(crate) fn ask(&mut self) {
        if self.is_timed() {
            self.sent_ns = clock::now_ns();
        }
    }

    /// An ask is sent that was meant for that instant.
    pub(crate) const fn ask_of(&mut self, intended_ns: u64) {
        self.sent_ns = intended_ns;
    }

    /// Its answer has come; whether to go on.
    #[inline]
    pub(crate) fn answered(&mut self) -> bool {
        if self.is_timed() {
            self.time();
        }
        self.count = self.count.wrapping_add(1);
        // Only the agent itself writes its count.
        self.sheet.completions[self.me as usize % 2][self.me as usize / 2]
            .store(self.count, Ordering::Relaxed);
        self.sheet.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet() -> &'static Sheet {
        Box::leak(Box::new(Sheet::new(3)))
    }

    #[test]
    fn an_agent_counts_for_itself_until_the_sheet_closes() {
        let sheet = sheet();
        let mut tally = Tally::new(sheet, 2, 16);
        assert!(tally.answered() && tally.answered());
        sheet.close();
        assert!(!tally.answered());
        assert_eq!(sheet.counts(), [0, 0, 3]);
    }

    #[test]
    fn asks_of_the_warm_up_are_not_timed() {
        let sheet = sheet();
        let mut tally = Tally::new(sheet, 0, 1);
        tally.ask();
        tally.answered();
        assert_eq!(sheet.latency().count, 0);
        sheet.warmed_up();
        tally.ask();
        tally.answered();
        assert_eq!(sheet.latency().count, 1);
    }
}
