//! Short real runs, and what they recorded.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "../../../runtime/tests/common/rings.rs"]
pub(crate) mod rings;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tailbeam_harness::drive::{self, Control};
use tailbeam_harness::evidence::{RunFrames, Store, read_latency, read_run};
use tailbeam_harness::load::{AgentInfo, Cx, ReplyTo, Workload};
use tailbeam_harness::plan::{Plan, SlowKind, SlowPlant, Span};
use tailbeam_probes::record::latency::{Exemplar, LatencyWindow, STAGES, Stage, StageNs, Sums};

/// Answers at once, or when the plan wants it.
pub(crate) struct Echo {
    held: Vec<Option<ReplyTo<Echo>>>,
}

impl Workload for Echo {
    const NAME: &'static str = "echo";
    const ABOUT: &'static str = "answers with what it was asked";
    type Request = u64;
    type Reply = u64;

    fn new(_: AgentInfo) -> Self {
        Self { held: Vec::new() }
    }

    fn request(&mut self, k: u64) -> u64 {
        k
    }

    async fn serve(&mut self, number: u64, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let due_ns = reply.due_ns();
        if due_ns <= cx.fresh_ns() {
            return reply.send(cx, number);
        }
        let token = self.held.len() as u64;
        self.held.push(Some(reply));
        cx.notify_at(due_ns, token).unwrap();
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        let held = usize::try_from(token).ok().and_then(|token| self.held.get_mut(token));
        if let Some(reply) = held.and_then(Option::take) {
            reply.send(cx, token);
        }
    }
}

/// What a run left on disk.
pub(crate) struct Ran {
    pub(crate) dir: PathBuf,
    pub(crate) run: RunFrames,
    pub(crate) windows: Vec<LatencyWindow>,
    /// The directory goes with it.
    _store: tempfile::TempDir,
}

/// A few hundred agents that ask each other for some seconds, in windows of one second.
pub(crate) fn plan(agents: u64, seconds: u64) -> Plan {
    let mut plan = Plan::soak(Echo::NAME);
    plan.agents = agents;
    plan.duration_ns = seconds * 1_000_000_000;
    plan.think = Span::ms(50, 150);
    plan.delay = Span::ms(0, 0);
    plan.timeout_ns = 5_000_000_000;
    plan.heap.sample_bytes = 0;
    plan.observe.window_ns = Some(1_000_000_000);
    plan.observe.tick_ns = Some(50_000_000);
    plan.gates.clear();
    plan
}

/// The same with slowness in agent 17.
pub(crate) fn slow(kind: SlowKind, ms: u64, every: u32) -> Plan {
    let mut plan = plan(200, 3);
    plan.slow = vec![SlowPlant { kind, ns: ms * 1_000_000, agent: 17, every }];
    plan
}

/// One run at a time: they would all be on the same cores.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs it; `None` where the host has no io_uring.
pub(crate) fn run(plan: &Plan) -> Option<Ran> {
    run_as::<Echo>(plan, || {})
}

/// Runs it with agents of `W`.
pub(crate) fn run_with<W: Workload>(plan: &Plan) -> Option<Ran> {
    run_as::<W>(plan, || {})
}

/// The same while `beside` is done on a thread of its own.
pub(crate) fn run_as<W: Workload>(plan: &Plan, beside: impl FnOnce() + Send) -> Option<Ran> {
    if !rings::has_rings() {
        return None;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let dir = std::thread::scope(|scope| {
        scope.spawn(beside);
        drive::run::<W>(plan, &store, &Control::default(), &mut |_| {}).unwrap()
    });
    let run = read_run(&dir).unwrap();
    let (windows, damage) = read_latency(&dir).unwrap();
    assert!(damage.is_empty() && run.damage.is_empty(), "{damage:?} {:?}", run.damage);
    Some(Ran { dir, run, windows, _store: root })
}

impl Ran {
    /// All requests of the run.
    pub(crate) fn total(&self) -> Sums {
        let mut total = Sums::default();
        let buckets = self.windows.iter().flat_map(|window| &window.buckets);
        buckets.for_each(|bucket| total.merge(&bucket.sums));
        total
    }

    /// Requests written down whole.
    pub(crate) fn exemplars(&self) -> impl Iterator<Item = &Exemplar> {
        self.windows.iter().flat_map(|window| &window.exemplars)
    }

    /// Requests that ended with an answer or by their deadline, and whose latency is known.
    pub(crate) fn closed(&self) -> u64 {
        let seconds = self.run.windows.iter().flat_map(|window| &window.seconds);
        let counts = seconds.map(|second| &second.counts);
        counts
            .map(|c| c.outcomes.ok + c.outcomes.declined + c.outcomes.expired - c.early_answers)
            .sum()
    }

    /// What the histograms of system latency hold, all windows together.
    pub(crate) fn histogram(&self) -> (u64, u128) {
        let system = &self.run.histograms[0];
        (system.count(), system.sum())
    }

    pub(crate) fn disordered(&self) -> u64 {
        self.windows.iter().map(|window| window.disordered).sum()
    }
}

/// The stage that takes most of these.
pub(crate) fn largest(stages: &StageNs) -> Stage {
    let place = (0..STAGES).max_by_key(|place| stages[*place]).unwrap();
    Stage::ALL[place]
}
