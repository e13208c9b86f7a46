//! The notes of a window on one core: fixed room, and what found none is summed. Of times off the CPU the longest are
//! kept: a core that is throttled, or shares its CPU, has thousands of short ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tailbeam_probes::collect::perf::{OffCpu, Support};
use tailbeam_probes::record::latency::{LateWake, LatencyWindow, LongTurn, Off, TurnOff};

use super::tick::{Raw, Switched};

/// Off-CPU intervals that are kept, from this length on, ns.
const OFF_MAX: usize = 256;
const OFF_NS: u64 = 20_000;
/// Late wake-ups that are kept.
const LATE_MAX: usize = 128;
/// Long turns that are kept.
const LONG_MAX: usize = 128;
/// Parks between two drains.
const PARKS_MAX: usize = 1_024;

/// Time off the CPU by its length; of equals the earlier one is the longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kept {
    len_ns: Reverse<u64>,
    from_ns: u64,
    preempted: bool,
}

impl Kept {
    const fn record(self) -> Off {
        let Self { len_ns: Reverse(len_ns), from_ns, preempted } = self;
        Off { from_ns, to_ns: from_ns + len_ns, preempted }
    }
}

/// What one core noted.
#[derive(Debug)]
pub(crate) struct Notes {
    ticks: Vec<Raw>,
    ticks_max: usize,
    /// The shortest on top.
    off: BinaryHeap<Kept>,
    off_left_out: (u64, u64),
    long: Vec<LongTurn>,
    long_left_out: (u64, u64),
    turn_off: Vec<TurnOff>,
    turns_read: bool,
    late: Vec<LateWake>,
    late_left_out: (u64, u64),
    self_ns: u64,
}

impl Notes {
    /// With room for so many ticks; the only allocation.
    pub(crate) fn new(ticks: usize) -> Self {
        Self {
            ticks: Vec::with_capacity(ticks),
            ticks_max: ticks.max(1),
            off: BinaryHeap::with_capacity(OFF_MAX),
            off_left_out: (0, 0),
            long: Vec::with_capacity(LONG_MAX),
            long_left_out: (0, 0),
            turn_off: Vec::with_capacity(LONG_MAX),
            turns_read: false,
            late: Vec::with_capacity(LATE_MAX),
            late_left_out: (0, 0),
            self_ns: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.ticks.clear();
        self.off.clear();
        self.long.clear();
        self.turn_off.clear();
        self.turns_read = false;
        self.late.clear();
        self.late_left_out = (0, 0);
        (self.off_left_out, self.long_left_out, self.self_ns) = ((0, 0), (0, 0), 0);
    }

    /// Keeps a tick. Without room the last one gets longer.
    pub(super) fn keep(&mut self, raw: Raw) {
        if self.ticks.len() < self.ticks_max {
            self.ticks.push(raw);
        } else if let Some(last) = self.ticks.last_mut() {
            last.join(&raw);
        }
    }

    /// Our own work took so long.
    pub(crate) const fn cost(&mut self, ns: u64) {
        self.self_ns += ns;
    }

    /// Keeps time off the CPU that is long, and no park; without room the shortest is only summed.
    fn off(&mut self, off: &OffCpu) {
        let OffCpu { from_ns, to_ns, preempted, .. } = *off;
        let len_ns = to_ns - from_ns;
        if len_ns < OFF_NS {
            return;
        }
        let mut one = Kept { len_ns: Reverse(len_ns), from_ns, preempted };
        if self.off.len() < OFF_MAX {
            return self.off.push(one);
        }
        if let Some(mut shortest) = self.off.peek_mut()
            && one < *shortest
        {
            std::mem::swap(&mut *shortest, &mut one);
        }
        add(&mut self.off_left_out, one.len_ns.0);
    }

    /// Says that long turns are looked at for time off the CPU.
    pub(super) const fn reads_turns(&mut self) {
        self.turns_read = true;
    }

    /// Keeps a late wake-up. All that one park came late for is one, from the first of it on.
    pub(super) fn late_wake(&mut self, wake: LateWake) {
        if let Some(last) = self.late.last_mut().filter(|last| last.to_ns == wake.to_ns) {
            if wake.from_ns < last.from_ns {
                *last = wake;
            }
        } else if self.late.len() < LATE_MAX {
            self.late.push(wake);
        } else {
            add(&mut self.late_left_out, wake.to_ns - wake.from_ns);
        }
    }

    /// Keeps a turn that took long, and how much of it was off the CPU.
    pub(super) fn long_turn(&mut self, turn: LongTurn, off: Option<TurnOff>) {
        if self.long.len() < LONG_MAX {
            self.long.push(turn);
            self.turn_off.extend(off);
        } else {
            add(&mut self.long_left_out, turn.len_ns);
        }
    }

    /// Writes them down. Allocates: not on the core.
    pub(crate) fn write(&self, support: Option<&Support>, into: &mut LatencyWindow) {
        into.ticks = self.ticks.iter().map(|raw| raw.record(support)).collect();
        into.off = self.off.iter().map(|kept| kept.record()).collect();
        into.off.sort_unstable_by_key(|off| off.from_ns);
        into.off_left_out = self.off_left_out;
        into.long_turns.clone_from(&self.long);
        into.long_turns_left_out = self.long_left_out;
        into.more.turn_off.clone_from(&self.turn_off);
        into.more.turns_read = self.turns_read;
        into.more.late_wakes.clone_from(&self.late);
        into.more.late_wakes_left_out = self.late_left_out;
        into.self_ns = self.self_ns;
    }
}

fn add(left_out: &mut (u64, u64), ns: u64) {
    left_out.0 += ns;
    left_out.1 += 1;
}

/// Parks and switches since the last drain of the ring. A park is off the CPU too, and is no news.
#[derive(Debug)]
pub(super) struct Parks {
    parks: Vec<(u64, u64)>,
    at: usize,
    sums: Switched,
    /// Of the next tick.
    later: Switched,
}

impl Parks {
    pub(super) fn new() -> Self {
        Self {
            parks: Vec::with_capacity(PARKS_MAX),
            at: 0,
            sums: Switched::default(),
            later: Switched::default(),
        }
    }

    /// Notes a park; whether the ring must be drained now.
    pub(super) fn parked(&mut self, from_ns: u64, to_ns: u64) -> bool {
        if self.parks.len() < PARKS_MAX {
            self.parks.push((from_ns, to_ns));
        }
        self.parks.len() == PARKS_MAX
    }

    /// Takes an interval off the CPU, in order of time; one that began at `now_ns` or later is of the next tick.
    pub(super) fn off(&mut self, off: &OffCpu, now_ns: u64, notes: &mut Notes) {
        let len_ns = off.to_ns - off.from_ns;
        let sums = if off.from_ns >= now_ns { &mut self.later } else { &mut self.sums };
        let sum = if off.preempted { &mut sums.preempted_ns } else { &mut sums.blocked_ns };
        *sum += len_ns;
        while self.parks.get(self.at).is_some_and(|park| park.1 < off.from_ns) {
            self.at += 1;
        }
        let in_park = self
            .parks
            .get(self.at)
            .is_some_and(|park| park.0 <= off.from_ns && off.to_ns <= park.1);
        if off.preempted || !in_park {
            notes.off(off);
        }
    }

    /// The ring was drained: all parks so far have been matched.
    pub(super) fn drained(&mut self, lost: u64) {
        self.parks.clear();
        self.at = 0;
        self.sums.lost += lost;
    }

    /// Sums since the last call.
    pub(super) fn take(&mut self) -> Switched {
        std::mem::replace(&mut self.sums, std::mem::take(&mut self.later))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off(from_ns: u64, to_ns: u64, preempted: bool) -> OffCpu {
        OffCpu { from_ns, to_ns, preempted, moved: false }
    }

    #[test]
    fn a_park_is_no_news_and_a_preemption_always_is() {
        let (mut parks, mut notes) = (Parks::new(), Notes::new(1));
        assert!(!parks.parked(100_000, 200_000) && !parks.parked(300_000, 400_000));
        for interval in [
            off(10_000, 40_000, false),   // in a turn: a call that waits
            off(50_000, 60_000, false),   // short
            off(110_000, 190_000, false), // a park
            off(300_000, 400_000, true),  // a park that another thread made longer
            off(410_000, 450_000, true),
        ] {
            parks.off(&interval, 410_000, &mut notes);
        }
        parks.drained(3);
        let mut window = LatencyWindow::default();
        notes.write(None, &mut window);
        let kept: Vec<(u64, bool)> = window.off.iter().map(|o| (o.from_ns, o.preempted)).collect();
        assert_eq!(kept, [(10_000, false), (300_000, true), (410_000, true)]);
        let sums = Switched { preempted_ns: 100_000, blocked_ns: 120_000, lost: 3 };
        assert_eq!(parks.take(), sums);
        let later = Switched { preempted_ns: 40_000, ..Switched::default() };
        assert_eq!(parks.take(), later, "it began when the counters had been read");
        assert_eq!(parks.take(), Switched::default());
    }

    #[test]
    fn without_room_the_longest_times_off_the_cpu_are_kept() {
        let mut notes = Notes::new(1);
        let (many, most) = (3 * OFF_MAX as u64, OFF_MAX as u64);
        // Every third one is long; lengths all differ.
        let len_ns = |i: u64| if i.is_multiple_of(3) { 1_000_000 + i } else { OFF_NS + i };
        for i in 0..many {
            let from_ns = i * 2_000_000;
            notes.off(&off(from_ns, from_ns + len_ns(i), true));
        }
        let mut window = LatencyWindow::default();
        notes.write(None, &mut window);
        let kept: Vec<u64> = window.off.iter().map(|off| off.to_ns - off.from_ns).collect();
        let long: Vec<u64> = (0..many).filter(|i| i.is_multiple_of(3)).map(len_ns).collect();
        assert_eq!(kept, long, "in order of time");
        let short: u64 = (0..many).filter(|i| !i.is_multiple_of(3)).map(len_ns).sum();
        assert_eq!(window.off_left_out, (short, many - most));
    }

    #[test]
    fn what_finds_no_room_is_summed_and_never_grows_it() {
        let mut notes = Notes::new(2);
        let room = |of: &Notes| {
            [of.ticks.capacity(), of.off.capacity(), of.long.capacity(), of.turn_off.capacity()]
        };
        let before = room(&notes);
        for i in 0..1_000u64 {
            notes.keep(Raw { from_ns: i, to_ns: i + 1, turns: 1, ..Raw::default() });
            notes.off(&off(0, OFF_NS, true));
            let off = TurnOff { from_ns: 0, off_ns: OFF_NS, ready_ns: None };
            notes.long_turn(LongTurn { agent: 1, from_ns: 0, len_ns: 7 }, Some(off));
        }
        assert_eq!(before, room(&notes));
        let mut window = LatencyWindow::default();
        notes.write(None, &mut window);
        assert_eq!(window.ticks.iter().map(|tick| tick.turns).sum::<u64>(), 1_000);
        assert_eq!((window.off.len(), window.off_left_out.1), (OFF_MAX, 1_000 - OFF_MAX as u64));
        let left = 1_000 - LONG_MAX as u64;
        assert_eq!(window.long_turns_left_out, (7 * left, left));
        assert_eq!(window.more.turn_off.len(), LONG_MAX);
        notes.clear();
        notes.write(None, &mut window);
        assert!(window.ticks.is_empty() && window.off.is_empty() && window.long_turns.is_empty());
    }
}
