//! What measuring costs where the cores have nothing to spare: after the load a closed loop, in which each agent
//! asks again as soon as it is answered, in spans with measuring beside spans without.
//!
//! It comes when everything of the run is on disk, so that none of its requests is in a figure of the run. At a
//! given load CPU time tells the cost; here replies per second do.

use tailbeam_probes::analyse::overhead::{Second, on_first};
use tailbeam_probes::clock;

use super::controller::Controller;
use super::{DriveError, Progress};
use crate::evidence::records::CostPair;
use crate::load::{Workload, recorder};
use crate::plan::{CostPlan, Plan, PlanError};

const MS: u64 = 1_000_000;
/// Length of a span: long beside what switching takes, and short beside what changes on a host.
const SPAN_NS: u64 = 500 * MS;
/// The loop begins, caches fill.
const BEGIN_NS: u64 = 500 * MS;
/// Answers that are still out at the end are waited for so long.
const END_NS: u64 = 2_000 * MS;

/// Whether the plan's closed loop can be run with agents of `W`.
///
/// # Errors
/// Parts between the agents write logs, and what is in them is compared with the run.
pub(super) fn check<W: Workload>(plan: &Plan) -> Result<(), PlanError> {
    if plan.observe.saturate_ns == 0 || !W::MIDDLE {
        return Ok(());
    }
    Err(PlanError::OutOfRange {
        name: "--saturate",
        value: format!("{} s", plan.observe.saturate_ns as f64 / 1e9),
        min: "0 s".to_owned(),
        max: "0 s for this workload, whose logs are compared with the run".to_owned(),
        remedy: "measure it with --workload ask",
    })
}

impl<W: Workload> Controller<'_, W> {
    /// Runs the closed loop of the plan; its pairs. None when the plan has none, or the run was stopped.
    pub(super) fn saturate(
        &mut self,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<Vec<CostPair>, DriveError> {
        let pairs = self.plan.observe.saturate_ns / (2 * SPAN_NS);
        if pairs == 0 || !self.plan.observe.on || self.stopping() {
            return Ok(Vec::new());
        }
        let event = Some(format!("saturated phase: {pairs} pairs of spans"));
        progress(&Progress { phase: "saturate", event, ..Progress::default() });
        self.switch(Some(self.cost.detail()))?;
        self.closed_loop(true)?;
        self.begin(clock::monotonic_ns())?;
        self.wait_until(clock::monotonic_ns() + BEGIN_NS);
        let mut made = Vec::new();
        for number in 0..u32::try_from(pairs).unwrap_or(u32::MAX) {
            let on_first = on_first(self.plan.seed, number);
            let first = self.span(on_first)?;
            let last = self.span(!on_first)?;
            if self.stopping() {
                break;
            }
            let (on, off) = if on_first { (first, last) } else { (last, first) };
            made.push(CostPair::new(on, off));
        }
        self.closed_loop(false)?;
        self.wait_for_answers()?;
        Ok(made)
    }

    /// One span, with measuring or without; where like is compared with like nothing is switched.
    fn span(&mut self, on: bool) -> Result<Second, DriveError> {
        let detail = self.cost.detail();
        if self.plan.observe.cost != CostPlan::Same {
            self.switch(on.then_some(detail))?;
        }
        self.replies()?;
        let before = self.spent()?;
        self.wait_until(before.at_ns + SPAN_NS);
        let requests = self.replies()?;
        let after = self.spent()?;
        Ok(Second {
            len_ns: after.at_ns.saturating_sub(before.at_ns),
            cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
            requests,
            ..Second::default()
        })
    }

    /// Replies since the last call.
    fn replies(&self) -> Result<u64, DriveError> {
        (0..self.shards).try_fold(0, |sum, shard| {
            let counts = self.on(shard, |_| recorder::with(|r| std::mem::take(&mut r.second)))?;
            Ok(sum + counts.outcomes.ok + counts.outcomes.declined)
        })
    }

    fn closed_loop(&self, on: bool) -> Result<(), DriveError> {
        (0..self.shards).try_for_each(|shard| {
            self.on(shard, move |_| {
                recorder::with(|r| {
                    r.closed_loop = on;
                    r.end_ns = if on { u64::MAX } else { 0 };
                });
            })
        })
    }

    fn wait_for_answers(&self) -> Result<(), DriveError> {
        let until_ns = clock::monotonic_ns() + END_NS;
        while clock::monotonic_ns() < until_ns && !self.stopping() {
            let open = (0..self.shards).try_fold(0, |sum, shard| {
                Ok::<_, DriveError>(sum + self.on(shard, |_| recorder::with(|r| r.open.len()))?)
            })?;
            if open == 0 {
                break;
            }
            self.wait_until(clock::monotonic_ns() + 10 * MS);
        }
        Ok(())
    }
}
