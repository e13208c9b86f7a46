//! The notes of a window on one core: fixed room, and what found none is summed. Of times off the CPU, long turns and
//! late wake-ups the longest are kept: a core that is throttled, or shares its CPU, has thousands of short ones.

use tailbeam_probes::collect::perf::{OffCpu, Support};
use tailbeam_probes::record::latency::{LateWake, LatencyWindow, LongTurn, Off, TurnOff};

use super::longest::Longest;
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

/// What one core noted.
#[derive(Debug)]
pub(crate) struct Notes {
    ticks: Vec<Raw>,
    ticks_max: usize,
    /// Whether they were preemptions.
    off: Longest<bool>,
    /// Of these agents, and what of them was off the CPU.
    long: Longest<(u32, Option<TurnOff>)>,
    turns_read: bool,
    /// Of each the time that it was ready to run.
    late: Longest<Option<u64>>,
    /// The last one; others may come of the same park.
    waking: Option<LateWake>,
    self_ns: u64,
}

impl Notes {
    /// With room for so many ticks; the only allocation.
    pub(crate) fn new(ticks: usize) -> Self {
        Self {
            ticks: Vec::with_capacity(ticks),
            ticks_max: ticks.max(1),
            off: Longest::new(OFF_MAX),
            long: Longest::new(LONG_MAX),
            turns_read: false,
            late: Longest::new(LATE_MAX),
            waking: None,
            self_ns: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.ticks.clear();
        self.off.clear();
        self.long.clear();
        self.turns_read = false;
        self.late.clear();
        self.waking = None;
        self.self_ns = 0;
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

    /// Keeps time off the CPU that is long, and no park.
    fn off(&mut self, off: &OffCpu) {
        let OffCpu { from_ns, to_ns, preempted, .. } = *off;
        if to_ns - from_ns >= OFF_NS {
            self.off.keep(from_ns, to_ns - from_ns, preempted);
        }
    }

    /// Says that long turns are looked at for time off the CPU.
    pub(super) const fn reads_turns(&mut self) {
        self.turns_read = true;
    }

    /// Keeps a late wake-up. All that one park came late for is one, from the first of it on.
    pub(super) fn late_wake(&mut self, wake: LateWake) {
        match &mut self.waking {
            Some(last) if last.to_ns == wake.to_ns => {
                if wake.from_ns < last.from_ns {
                    *last = wake;
                }
            }
            last => {
                if let Some(before) = last.replace(wake) {
                    keep_wake(&mut self.late, before);
                }
            }
        }
    }

    /// Keeps a turn that took long, and how much of it was off the CPU.
    pub(super) fn long_turn(&mut self, turn: LongTurn, off: Option<TurnOff>) {
        self.long.keep(turn.from_ns, turn.len_ns, (turn.agent, off));
    }

    /// Writes them down. Allocates: not on the core.
    pub(crate) fn write(&self, support: Option<&Support>, into: &mut LatencyWindow) {
        into.ticks = self.ticks.iter().map(|raw| raw.record(support)).collect();
        let off = self.off.in_order();
        let record =
            |(from_ns, len_ns, preempted)| Off { from_ns, to_ns: from_ns + len_ns, preempted };
        into.off = off.into_iter().map(record).collect();
        into.off_left_out = self.off.left_out();
        let turns = self.long.in_order();
        let record = |&(from_ns, len_ns, (agent, _))| LongTurn { agent, from_ns, len_ns };
        into.long_turns = turns.iter().map(record).collect();
        into.long_turns_left_out = self.long.left_out();
        into.more.turn_off = turns.into_iter().filter_map(|(_, _, (_, off))| off).collect();
        into.more.turns_read = self.turns_read;
        (into.more.late_wakes, into.more.late_wakes_left_out) = self.late_wakes();
        into.self_ns = self.self_ns;
    }

    fn late_wakes(&self) -> (Vec<LateWake>, (u64, u64)) {
        let mut late = self.late.clone();
        if let Some(last) = self.waking {
            keep_wake(&mut late, last);
        }
        let record =
            |(from_ns, len_ns, ready_ns)| LateWake { from_ns, to_ns: from_ns + len_ns, ready_ns };
        (late.in_order().into_iter().map(record).collect(), late.left_out())
    }
}

fn keep_wake(late: &mut Longest<Option<u64>>, wake: LateWake) {
    late.keep(wake.from_ns, wake.to_ns - wake.from_ns, wake.ready_ns);
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

    /// A core with a hundred turns of 2 ms and one of 90 ms, which the quota held, must be able to say what was behind.
    #[test]
    fn without_room_the_longest_turns_are_kept_with_their_time_off_the_cpu() {
        let mut notes = Notes::new(1);
        let many = 3 * LONG_MAX as u64;
        for i in 0..many {
            let long = i.is_multiple_of(3);
            let turn = LongTurn { agent: 17, from_ns: i, len_ns: if long { 90 } else { 2 } };
            let off = TurnOff { from_ns: i, off_ns: 80, ready_ns: None };
            notes.long_turn(turn, long.then_some(off));
        }
        let mut window = LatencyWindow::default();
        notes.write(None, &mut window);
        let from: Vec<u64> = (0..many).filter(|i| i.is_multiple_of(3)).collect();
        assert!(window.long_turns.iter().map(|turn| turn.from_ns).eq(from.iter().copied()));
        assert!(window.more.turn_off.iter().map(|off| off.from_ns).eq(from));
        assert_eq!(window.long_turns_left_out, (4 * LONG_MAX as u64, 2 * LONG_MAX as u64));
    }

    #[test]
    fn of_one_park_there_is_one_late_wake_and_the_longest_are_kept() {
        let mut notes = Notes::new(1);
        let late = |from_ns, to_ns| LateWake { from_ns, to_ns, ready_ns: Some(from_ns) };
        for i in 0..2 * LATE_MAX as u64 {
            let at = i * 1_000;
            notes.late_wake(late(at + 100, at + 200));
            notes.late_wake(late(at + 100 - i.min(90), at + 200));
        }
        let mut window = LatencyWindow::default();
        notes.write(None, &mut window);
        let (kept, left) = (&window.more.late_wakes, window.more.late_wakes_left_out);
        assert_eq!((kept.len(), left.1), (LATE_MAX, LATE_MAX as u64));
        // 166 have the greatest length: of these the earlier ones.
        assert_eq!((kept[0], kept[LATE_MAX - 1].to_ns), (late(90_010, 90_200), 217_200));
    }

    #[test]
    fn what_finds_no_room_is_summed_and_never_grows_it() {
        let mut notes = Notes::new(2);
        let room =
            |of: &Notes| [of.ticks.capacity(), of.off.room(), of.long.room(), of.late.room()];
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
