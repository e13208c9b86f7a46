//! Supervisors below supervisors, whose leaves fail and which are killed at any time: no leaf lives twice, no name
//! is that of two, and nothing is left when the uppermost has stopped.

use std::cell::RefCell;
use std::panic::resume_unwind;

use tailbeam_runtime::sim::{Faults, Held, Rng, Simulation};
use tailbeam_runtime::{
    Agent, AgentId, Backoff, ChildSpec, Config, Cx, Intensity, Placement, Restart, Stop, Strategy,
    Supervision, Supervisor, SupervisorMsg,
};

/// Failures and kills of a run.
const DEEDS: u32 = 60;

#[derive(Default)]
struct State {
    rng: Option<Rng>,
    /// Lives of each leaf that have begun and not ended.
    living: Vec<u32>,
    supervisors: u32,
    deeds_left: u32,
    lives: u64,
    wrong: Option<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn state<R>(work: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(work)
}

fn below(bound: u64) -> u64 {
    state(|s| s.rng.as_mut().expect("begun").below(bound))
}

/// Fails or stops when its timer says so.
struct Leaf(usize);

impl Leaf {
    fn begin(id: usize) -> Self {
        state(|s| {
            s.living[id] += 1;
            s.lives += 1;
            if s.living[id] > 1 {
                s.wrong.get_or_insert(format!("leaf {id} lives twice"));
            }
        });
        Self(id)
    }

    fn set_timer(cx: &mut Cx<'_>) {
        let at_ns = cx.fresh_ns() + 1_000_000 * below(8);
        let _ = cx.notify_at(at_ns, 0);
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        state(|s| s.living[self.0] -= 1);
    }
}

impl Agent for Leaf {
    type Msg = ();

    async fn on(&mut self, (): (), _: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }

    fn on_started(&mut self, _: u32, _: Option<AgentId>, cx: &mut Cx<'_>) {
        Self::set_timer(cx);
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        if !spend() {
            return Ok(());
        }
        match below(8) {
            0 => return Err(Stop),
            1..4 => resume_unwind(Box::new("planned")),
            _ => Self::set_timer(cx),
        }
        Ok(())
    }
}

/// Whether another deed may be done.
fn spend() -> bool {
    state(|s| {
        s.deeds_left = s.deeds_left.saturating_sub(1);
        s.deeds_left > 0
    })
}

fn draw_plan() -> Supervision {
    let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
    Supervision {
        strategy: strategies[usize::try_from(below(3)).expect("small")],
        intensity: Intensity {
            restarts: u32::try_from(2 * below(3)).expect("small"),
            within_ns: 1 << 60,
        },
        backoff: Backoff { first_ns: 500_000 * below(3), max_ns: 2_000_000 },
    }
}

fn draw_children(depth: u32) -> Vec<ChildSpec> {
    let count = 1 + below(3);
    (0..count).map(|_| draw_child(depth)).collect()
}

fn draw_child(depth: u32) -> ChildSpec {
    let spec = if depth > 0 && below(3) > 0 {
        let number = state(|s| {
            s.supervisors += 1;
            s.supervisors
        });
        ChildSpec::supervisor(draw_plan(), draw_children(depth - 1)).named(&format!("s{number}"))
    } else {
        let id = state(|s| {
            s.living.push(0);
            s.living.len() - 1
        });
        ChildSpec::new(move || Leaf::begin(id)).named(&format!("l{id}"))
    };
    let spec = spec.restart(match below(6) {
        0 => Restart::Temporary,
        1 => Restart::Transient,
        _ => Restart::Permanent,
    });
    match below(3) {
        0 => spec,
        1 => spec.at(Placement::RoundRobin),
        _ => spec.at(Placement::Shard(usize::try_from(below(3)).expect("small"))),
    }
}

/// Kills a supervisor, or a leaf.
fn kill(cx: &mut Cx<'_>) {
    let (supervisors, leaves) = state(|s| (s.supervisors, s.living.len() as u64));
    let found = if supervisors > 0 && below(3) > 0 {
        let name = format!("s{}", 1 + below(supervisors.into()));
        cx.find::<Supervisor>(&name).map(|supervisor| supervisor.id())
    } else {
        cx.find::<Leaf>(&format!("l{}", below(leaves))).map(|leaf| leaf.id())
    };
    found.into_iter().for_each(|agent| cx.kill(agent));
}

/// Runs the tree of a seed; lives of leaves that it has had.
pub(crate) fn run(seed: u64) -> Result<u64, String> {
    let mut rng = Rng::new(seed ^ 0x6e65_7374);
    let (faults, shards) = (Faults::drawn(&mut rng), 1 + rng.index(5));
    let config = Config { control_slots: rng.one_of(&[1, 8, 256]), ..Config::default() };
    let sim = Simulation::new(rng.bits(), config, shards, faults).expect("the limits work");
    STATE.set(State { rng: Some(rng), deeds_left: DEEDS, ..State::default() });
    let ended = grow(sim);
    let wrong = state(|s| s.wrong.take());
    let lives = state(|s| s.lives);
    wrong
        .map_or(ended, Err)
        .map(|()| lives)
        .map_err(|what| format!("nest of seed {seed}, {shards} shards, {faults:?}: {what}"))
}

fn grow(mut sim: Simulation) -> Result<(), String> {
    let text = |failure: tailbeam_runtime::sim::Failure| failure.to_string();
    let (plan, children) = (draw_plan(), draw_children(3));
    let root = sim.run_on(0, move |cx| cx.supervise(plan, children).ok()).map_err(text)?;
    let root = root.ok_or("there is room")?;
    let shards = sim.shards() as u64;
    while spend() {
        sim.run_for(500_000 * below(6)).map_err(text)?;
        sim.post_on(usize::try_from(below(shards)).expect("small"), kill);
    }
    sim.run_until_idle().map_err(text)?;
    let stop = move |cx: &mut Cx<'_>| root.try_send(cx, SupervisorMsg::Stop).is_ok();
    sim.run_on(0, stop).map_err(text)?;
    sim.run_until_idle().map_err(text)?;
    let held = sim.held();
    if held.iter().any(|held| *held != Held::default()) {
        return Err(format!("left behind: {held:?}"));
    }
    if state(|s| s.living.iter().any(|&lives| lives > 0)) {
        return Err("a leaf lives on".to_owned());
    }
    let (supervisors, leaves) = state(|s| (s.supervisors, s.living.len()));
    let taken = sim.run_on(0, move |cx| {
        (1..=supervisors).filter(|n| cx.find::<Supervisor>(&format!("s{n}")).is_some()).count()
            + (0..leaves).filter(|n| cx.find::<Leaf>(&format!("l{n}")).is_some()).count()
    });
    if taken.map_err(text)? > 0 {
        return Err("a name is that of nobody".to_owned());
    }
    let related: u64 = sim.stats().iter().map(|stats| stats.agents_related).sum();
    let report = sim.shutdown().map_err(text)?;
    let drained = report.shards.iter().all(|shard| shard.drained);
    if related > 0 || !drained { Err(format!("{related} are related, {report:?}")) } else { Ok(()) }
}
