//! What measuring costs, measured in the run: in each window one second without it, beside one with it, or four.
//!
//! Off means off: cores note no stages, turns are not stamped, descriptors are closed and rings unmapped. Stages
//! begin again with requests that were due after every core was switched on, so that no request has half its
//! stamps.

use tailbeam_probes::analyse::overhead::{Detail, Governor, Lowered, Second, on_first};
use tailbeam_probes::clock;

use super::DriveError;
use super::controller::Controller;
use crate::evidence::records::{CostPair, LoweredRecord};
use crate::load::{Workload, recorder};
use crate::observe::{self, BUILT};
use crate::plan::{CostPlan, Plan};

const SECOND_NS: u64 = 1_000_000_000;
/// Seconds of a window that have ended when a pair begins. The first second has the writing of the window before,
/// and the last one ends it.
const BEGINS: [usize; 4] = [1, 3, 5, 7];
/// Of them the one that is taken where there is one pair.
const ONLY: usize = 5;
/// Seconds of a window that can hold all pairs with a second on either side.
const WINDOW_SECONDS_MIN: u64 = 10;
/// Share of a core that measuring may take by its own meters.
const BUDGET: f64 = 0.01;

/// What the second that runs is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    /// None of a pair.
    Neither,
    First,
    Last,
}

/// CPU time of the shards' threads, looking on for work not counted, and when it was read, ns.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) at_ns: u64,
    pub(super) cpu_ns: u64,
}

/// The pairs of a run, and its governor.
#[derive(Debug)]
pub(super) struct OwnCost {
    how: CostPlan,
    seed: u64,
    governor: Governor,
    half: Half,
    /// Whether the first second of the pair is the one with measuring.
    on_first: bool,
    first: Second,
    /// When the second began, and the CPU time of the shards then.
    before: Spent,
    pairs: Vec<CostPair>,
    lowered: Vec<LoweredRecord>,
}

impl OwnCost {
    pub(super) fn new(plan: &Plan) -> Self {
        let long = plan.observe.window_ns() >= WINDOW_SECONDS_MIN * SECOND_NS;
        // Where nothing can be switched only like is compared with like.
        let asked = BUILT || plan.observe.cost == CostPlan::Same;
        let how = if plan.observe.on && long && asked { plan.observe.cost } else { CostPlan::Off };
        Self {
            how,
            seed: plan.seed,
            governor: Governor::new(BUDGET),
            half: Half::Neither,
            on_first: true,
            first: Second::default(),
            before: Spent::default(),
            pairs: Vec::new(),
            lowered: Vec::new(),
        }
    }

    /// How much is measured when it is on.
    pub(super) const fn detail(&self) -> Detail {
        self.governor.detail()
    }

    /// Whether measuring is on in the second that runs, by the pairs.
    const fn is_on(&self) -> bool {
        match self.half {
            Half::Neither => true,
            Half::First => self.on_first,
            Half::Last => !self.on_first,
        }
    }

    /// What of a window is written down.
    pub(super) fn take(&mut self) -> (Vec<CostPair>, Vec<LoweredRecord>) {
        (std::mem::take(&mut self.pairs), std::mem::take(&mut self.lowered))
    }

    /// Ends a second that had `second`, the `ended`th of window `window`; what the next one is.
    fn next(&mut self, second: Option<Second>, window: u32, ended: usize) {
        if let (Half::First, Some(second)) = (self.half, second) {
            (self.first, self.half) = (second, Half::Last);
            return;
        }
        if let (Half::Last, Some(second)) = (self.half, second) {
            let (on, off) = if self.on_first { (self.first, second) } else { (second, self.first) };
            self.pairs.push(CostPair::new(on, off));
        }
        self.half = Half::Neither;
        // The first window is where caches and tables fill.
        if window > 0 && self.begins(ended) {
            self.on_first =
                on_first(self.seed, window.wrapping_mul(16).wrapping_add(number(ended)));
            self.half = Half::First;
        }
    }

    /// Whether a pair begins when so many seconds of a window have ended.
    fn begins(&self, ended: usize) -> bool {
        match self.how.pairs_per_window() {
            0 => false,
            1 => ended == ONLY,
            _ => BEGINS.contains(&ended),
        }
    }
}

/// A window has few seconds.
fn number(ended: usize) -> u32 {
    u32::try_from(ended).unwrap_or(u32::MAX)
}

impl<W: Workload> Controller<'_, W> {
    /// A second has ended, the `ended`th of its window, with these replies and this system latency of all cores:
    /// closes its half of a pair, and switches for the next.
    pub(super) fn second_of_cost(
        &mut self,
        (window, ended): (u32, usize),
        mut second: Second,
    ) -> Result<(), DriveError> {
        let (now, before) = (self.spent()?, self.cost.before);
        second.len_ns = now.at_ns.saturating_sub(before.at_ns);
        second.cpu_ns = now.cpu_ns.saturating_sub(before.cpu_ns);
        // Before the first there is nothing to compare with.
        let second = (before.at_ns > 0).then_some(second);
        let was_on = self.cost.is_on();
        self.cost.next(second, window, ended);
        let on = self.cost.is_on();
        // A and A: the same seconds, and nothing is switched.
        if on != was_on && self.cost.how != CostPlan::Same {
            let detail = self.cost.detail();
            self.switch(on.then_some(detail))?;
        }
        // Read last: what switching took is in no second.
        self.cost.before = self.spent()?;
        Ok(())
    }

    /// What the shards have spent; each says it of itself, as of a running thread the kernel tells others what it
    /// knew at the last tick.
    pub(super) fn spent(&self) -> Result<Spent, DriveError> {
        let mut cpu_ns = 0u64;
        for shard in 0..self.shards {
            cpu_ns += self.on(shard, |_| clock::thread_cpu_ns())?;
        }
        let spun_ns: u64 = self.runtime.stats().iter().map(|shard| shard.spun_ns).sum();
        Ok(Spent { at_ns: clock::monotonic_ns(), cpu_ns: cpu_ns.saturating_sub(spun_ns) })
    }

    /// Lowers the detail when measuring took more of the busiest core than it may, over a minute.
    pub(super) fn govern(
        &mut self,
        self_ns: u64,
        len_ns: u64,
    ) -> Result<Option<String>, DriveError> {
        let Some(Lowered { from, to, share }) = self.cost.governor.note(self_ns, len_ns) else {
            return Ok(None);
        };
        self.cost.lowered.push(LoweredRecord {
            at_ns: clock::monotonic_ns(),
            from: from.name().to_owned(),
            to: to.name().to_owned(),
            share,
        });
        self.switch(Some(to))?;
        Ok(Some(format!(
            "measuring took {:.2} % of a core, more than {:.0} %: from here on {}",
            share * 100.0,
            BUDGET * 100.0,
            to.name()
        )))
    }

    /// Sets how much every core measures; `None` is nothing. Stages end first and begin last.
    pub(super) fn switch(&self, detail: Option<Detail>) -> Result<(), DriveError> {
        if detail.is_none() {
            self.stage(None, 0)?;
        }
        for shard in 0..self.shards {
            let setup = self.latency.setup();
            self.on(shard, move |cx| {
                cx.set_turn_stamps(detail.is_some());
                // What is not to be had was said when the run began.
                drop(observe::set_detail(detail, setup));
            })?;
        }
        if detail.is_some() {
            self.stage(detail, clock::monotonic_ns())?;
        }
        Ok(())
    }

    fn stage(&self, detail: Option<Detail>, from_ns: u64) -> Result<(), DriveError> {
        (0..self.shards).try_for_each(|shard| {
            self.on(shard, move |_| recorder::with(|r| r.set_detail(detail, from_ns)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(cpu_ns: u64) -> Option<Second> {
        Some(Second { len_ns: SECOND_NS, cpu_ns, requests: 1, ..Second::default() })
    }

    fn costs(how: CostPlan) -> OwnCost {
        let mut plan = Plan::soak("elicit");
        plan.observe.cost = how;
        OwnCost::new(&plan)
    }

    /// Seconds without measuring in 200 windows of 10 s, and pairs of each of them but the first.
    fn run(how: CostPlan, within: std::ops::RangeInclusive<usize>) -> (usize, Vec<usize>) {
        let mut cost = costs(how);
        let (mut off, mut pairs) = (0, Vec::new());
        for window in 0..200 {
            for ended in 1..=10 {
                let on = cost.is_on();
                off += usize::from(!on);
                assert!(on || within.contains(&ended), "window {window} second {ended}");
                cost.next(second(if on { 2 } else { 1 }), window, ended);
            }
            let (made, _) = cost.take();
            assert!(made.iter().all(|pair| (pair.on.cpu_ns, pair.off.cpu_ns) == (2, 1)));
            assert!(window > 0 || made.is_empty());
            pairs.push(made.len());
        }
        (off, pairs.split_off(1))
    }

    #[test]
    fn each_window_but_the_first_has_pairs_of_neighbours() {
        let (off, pairs) = run(CostPlan::Pairs, 6..=7);
        assert!(off == 199 && pairs.iter().all(|&pairs| pairs == 1));
        let (off, pairs) = run(CostPlan::Often, 2..=9);
        assert!(off == 4 * 199 && pairs.iter().all(|&pairs| pairs == 4));
        let (off, pairs) = run(CostPlan::Off, 1..=0);
        assert!(off == 0 && pairs.iter().all(|&pairs| pairs == 0));
    }

    #[test]
    fn a_second_that_was_not_read_ends_its_pair() {
        let mut cost = costs(CostPlan::Pairs);
        cost.next(second(1), 1, ONLY);
        assert_eq!(cost.half, Half::First);
        cost.next(None, 1, ONLY + 1);
        assert_eq!((cost.half, cost.is_on()), (Half::Neither, true));
        assert!(cost.take().0.is_empty());
    }
}
