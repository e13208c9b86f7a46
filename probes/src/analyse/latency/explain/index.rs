//! What kept each core, in order of time.

use std::collections::BTreeMap;

use super::super::conserve::of_shard;
use super::fleet::Fleet;
use crate::record::latency::{LateWake, LatencyWindow, LongTurn, Off, TurnOff};

/// Something that took from an instant to another.
trait Took: Copy {
    fn begin_ns(&self) -> u64;
    fn end_ns(&self) -> u64;
}

impl Took for LongTurn {
    fn begin_ns(&self) -> u64 {
        self.from_ns
    }
    fn end_ns(&self) -> u64 {
        self.from_ns.saturating_add(self.len_ns)
    }
}

impl Took for Off {
    fn begin_ns(&self) -> u64 {
        self.from_ns
    }
    fn end_ns(&self) -> u64 {
        self.to_ns
    }
}

impl Took for LateWake {
    fn begin_ns(&self) -> u64 {
        self.from_ns
    }
    fn end_ns(&self) -> u64 {
        self.to_ns
    }
}

/// By begin, with the longest of all: what reaches into a span begins at most that long before it.
#[derive(Debug, Clone)]
struct Line<T> {
    list: Vec<T>,
    longest_ns: u64,
}

impl<T: Took> Line<T> {
    fn new(mut list: Vec<T>) -> Self {
        list.sort_by_key(Took::begin_ns);
        let longest = list.iter().map(|took| took.end_ns().saturating_sub(took.begin_ns())).max();
        Self { list, longest_ns: longest.unwrap_or(0) }
    }

    /// What touches the span, and the part of it in the span; in order.
    fn inside(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (T, u64, u64)> {
        let least = from_ns.saturating_sub(self.longest_ns);
        let first = self.list.partition_point(|took| took.begin_ns() < least);
        self.list[first..]
            .iter()
            .take_while(move |took| took.begin_ns() < to_ns)
            .map(move |took| (*took, took.begin_ns().max(from_ns), took.end_ns().min(to_ns)))
            .filter(|(_, from, to)| from < to)
    }
}

/// One core.
#[derive(Debug, Clone)]
pub(super) struct Core {
    turns: Line<LongTurn>,
    off: Line<Off>,
    late: Line<LateWake>,
    /// By begin of the turn: where no switches were recorded.
    turn_off: BTreeMap<u64, TurnOff>,
    /// Its switches were recorded: no interval is then no time off the CPU, and not ignorance.
    pub(super) switches: bool,
    /// In long turns it was looked for, without the switches.
    pub(super) turns_read: bool,
}

impl Core {
    /// Long turns in the span, with the part in it.
    pub(super) fn turns(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl Iterator<Item = (LongTurn, u64, u64)> {
        self.turns.inside(from_ns, to_ns)
    }

    /// Late wake-ups in the span, with the part in it.
    pub(super) fn late(
        &self,
        from_ns: u64,
        to_ns: u64,
    ) -> impl Iterator<Item = (LateWake, u64, u64)> {
        self.late.inside(from_ns, to_ns)
    }

    /// Time off the CPU in a long turn, at no known instant of it.
    pub(super) fn turn_off(&self, turn: &LongTurn) -> Option<&TurnOff> {
        self.turn_off.get(&turn.from_ns)
    }

    /// Intervals off the CPU in the span, with the part in it.
    pub(super) fn off(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = (Off, u64, u64)> {
        self.off.inside(from_ns, to_ns)
    }
}

/// What kept each core, for many questions. Building it sorts what was recorded.
#[derive(Debug, Clone)]
pub struct Index {
    cores: BTreeMap<u16, Core>,
    pub(super) fleet: Fleet,
    /// Long turns that were recorded only as a sum: their time, ns, and number.
    pub turns_left_out: (u64, u64),
    /// Intervals off the CPU that were recorded only as a sum: their time, ns, and number.
    pub off_left_out: (u64, u64),
}

impl Index {
    /// Of the windows of all cores.
    #[must_use]
    pub fn new(windows: &[LatencyWindow]) -> Self {
        let mut cores = BTreeMap::new();
        let (mut turns_left_out, mut off_left_out) = ((0, 0), (0, 0));
        let add = |sum: &mut (u64, u64), more: (u64, u64)| {
            *sum = (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        };
        for shard in super::super::conserve::shards(windows) {
            let own = of_shard(windows, shard);
            for window in &own {
                add(&mut turns_left_out, window.long_turns_left_out);
                add(&mut off_left_out, window.off_left_out);
            }
            let turns = own.iter().flat_map(|window| window.long_turns.iter().copied());
            let off = own.iter().flat_map(|window| window.off.iter().copied());
            let late = own.iter().flat_map(|window| &window.more.late_wakes);
            let turn_off = own.iter().flat_map(|window| &window.more.turn_off);
            let mut ticks = own.iter().flat_map(|window| &window.ticks);
            let core = Core {
                turns: Line::new(turns.collect()),
                off: Line::new(off.collect()),
                late: Line::new(late.copied().collect()),
                turn_off: turn_off.map(|of| (of.from_ns, *of)).collect(),
                turns_read: own.iter().any(|window| window.more.turns_read),
                switches: ticks.any(|tick| tick.preempted_ns.is_some()),
            };
            cores.insert(shard, core);
        }
        Self { cores, fleet: Fleet::new(windows), turns_left_out, off_left_out }
    }

    pub(super) fn core(&self, shard: u16) -> Option<&Core> {
        self.cores.get(&shard)
    }
}
