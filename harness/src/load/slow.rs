//! Slowness planted in agents so that the attribution can be tested: each kind is slow in another stage.

use memmap2::MmapMut;
use tailbeam_runtime::Cx;

use super::recorder;
use crate::plan::{Plan, SlowKind, SlowPlant};

/// Bytes mapped at once for a storm of page faults, and of a page.
const MAPPED: usize = 1 << 20;
const PAGE: usize = 4_096;
/// Blocks allocated between two looks at the clock, and their bytes.
const BLOCKS: usize = 64;
const BLOCK: usize = 256;

/// How often it struck, and for how long together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Slowed {
    pub(crate) times: u64,
    pub(crate) ns: u64,
}

/// One slowness of one agent.
#[derive(Debug)]
pub(crate) struct Slow {
    plant: u8,
    what: SlowPlant,
    taken: u32,
}

/// Slowness that one request meets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    plant: u8,
    kind: SlowKind,
    ns: u64,
}

/// What is planted in an agent.
pub(super) fn of(plan: &Plan, index: u32) -> Box<[Slow]> {
    let mine = (0u8..).zip(&plan.slow).filter(|(_, slow)| slow.agent == index);
    mine.map(|(plant, what)| Slow { plant, what: *what, taken: 0 }).collect()
}

/// The agent that is flooded, and each how-many-th request goes to it.
pub(crate) fn flooded(plan: &Plan) -> Option<(u32, u32)> {
    let flood = plan.slow.iter().find(|slow| slow.kind == SlowKind::Flood)?;
    Some((flood.agent, flood.every.max(1)))
}

/// The slowness that the next request meets; of several the first.
pub(super) fn next(slows: &mut [Slow]) -> Option<Strike> {
    let mut strike = None;
    for slow in slows {
        slow.taken = slow.taken.wrapping_add(1);
        let every = if slow.what.kind == SlowKind::Flood { 1 } else { slow.what.every.max(1) };
        if slow.taken.is_multiple_of(every) {
            let next = Strike { plant: slow.plant, kind: slow.what.kind, ns: slow.what.ns };
            strike = strike.or(Some(next));
        }
    }
    strike
}

impl Strike {
    pub(super) const fn waits(self) -> bool {
        self.kind.waits()
    }

    /// Waits as planted, in the handler.
    pub(super) async fn wait(self, cx: &mut Cx<'_>) {
        let from = cx.fresh_ns();
        // Without room for the timer it does not wait, and is not counted.
        if cx.sleep_until(from + self.ns).await.is_ok() {
            self.count(cx.fresh_ns() - from);
        }
    }

    /// Keeps the core as planted.
    pub(super) fn work(self, cx: &mut Cx<'_>) {
        let from = cx.fresh_ns();
        let until = from + self.ns;
        match self.kind {
            SlowKind::Compute => compute(until, cx),
            SlowKind::Alloc => alloc(until, cx),
            SlowKind::Faults => faults(until, cx),
            SlowKind::Timer | SlowKind::Flood => return,
        }
        self.count(cx.fresh_ns() - from);
    }

    fn count(self, ns: u64) {
        recorder::with(|r| {
            if let Some(slowed) = r.slowed.get_mut(usize::from(self.plant)) {
                slowed.times += 1;
                slowed.ns += ns;
            }
        });
    }
}

#[inline(never)]
fn compute(until_ns: u64, cx: &mut Cx<'_>) {
    let mut value = 1u64;
    while cx.fresh_ns() < until_ns {
        for round in 0..256 {
            value = std::hint::black_box(value.wrapping_mul(round | 1));
        }
    }
}

#[inline(never)]
fn alloc(until_ns: u64, cx: &mut Cx<'_>) {
    while cx.fresh_ns() < until_ns {
        let blocks: [Box<[u8]>; BLOCKS] =
            std::array::from_fn(|_| vec![11; BLOCK].into_boxed_slice());
        std::hint::black_box(&blocks);
    }
}

#[inline(never)]
fn faults(until_ns: u64, cx: &mut Cx<'_>) {
    while cx.fresh_ns() < until_ns {
        let Ok(mut map) = MmapMut::map_anon(MAPPED) else { return };
        for page in map.chunks_mut(PAGE) {
            page[0] = 1;
            if cx.fresh_ns() >= until_ns {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_strikes_each_so_many_th_request_of_its_agent() {
        let mut plan = Plan::soak("x");
        let what = SlowPlant { kind: SlowKind::Compute, ns: 5_000, agent: 3, every: 4 };
        plan.slow = vec![what, SlowPlant { kind: SlowKind::Flood, agent: 4, ..what }];
        assert!(of(&plan, 2).is_empty());
        let mut slows = of(&plan, 3);
        let strikes: Vec<bool> = (0..12).map(|_| next(&mut slows).is_some()).collect();
        assert_eq!(strikes, [false, false, false, true].repeat(3));
        assert_eq!(flooded(&plan), Some((4, 4)));
        assert!(next(&mut of(&plan, 4)).is_some_and(Strike::waits), "each one of a flood");
    }
}
