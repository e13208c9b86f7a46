//! Bugs that a review found, each as a program of a few lines under simulation. The name of a test is what was
//! wrong; the comment says how.

use std::cell::Cell;
use std::panic::resume_unwind;

use tailbeam_runtime::sim::{Faults, Simulation};
use tailbeam_runtime::{Addr, Agent, ChildSpec, Config, Cx, Down, Intensity, Stop, Supervision};

thread_local! {
    static SEEN: Cell<u64> = const { Cell::new(0) };
}

fn see(count: u64) {
    SEEN.set(SEEN.get() + count);
}

fn start(shards: usize, config: Config) -> Simulation {
    SEEN.set(0);
    Simulation::new(1, config, shards, Faults::NONE).expect("the limits work")
}

/// Does what it is sent; `TRAPS` are told of the ends of those that they are linked to.
struct Doer<const TRAPS: bool>;

type Deed = Box<dyn FnOnce(&mut Cx<'_>) -> Result<(), Stop> + Send>;

impl<const TRAPS: bool> Agent for Doer<TRAPS> {
    type Msg = Deed;
    const TRAPS_EXITS: bool = TRAPS;

    async fn on(&mut self, deed: Deed, cx: &mut Cx<'_>) -> Result<(), Stop> {
        deed(cx)
    }

    /// Tokens are seen as they are.
    fn on_timer(&mut self, token: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        see(token);
        Ok(())
    }

    /// An end is seen as one.
    fn on_down(&mut self, _: Down, _: &mut Cx<'_>) -> Result<(), Stop> {
        see(1);
        Ok(())
    }
}

/// Has an agent do something, and all that comes of it.
fn have<const TRAPS: bool>(
    sim: &mut Simulation,
    agent: Addr<Doer<TRAPS>>,
    deed: impl FnOnce(&mut Cx<'_>) -> Result<(), Stop> + Send + 'static,
) {
    send(sim, agent, deed);
    sim.run_until_idle().expect("no wake is lost");
}

fn send<const TRAPS: bool>(
    sim: &mut Simulation,
    agent: Addr<Doer<TRAPS>>,
    deed: impl FnOnce(&mut Cx<'_>) -> Result<(), Stop> + Send + 'static,
) {
    let deed: Deed = Box::new(deed);
    assert_eq!(sim.run_on(agent.shard(), move |cx| agent.try_send(cx, deed).is_ok()), Ok(true));
}

fn panics(_: &mut Cx<'_>) -> Result<(), Stop> {
    resume_unwind(Box::new("planned"))
}

/// Panics when it is dropped, so many times, with another of its kind.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 && !std::thread::panicking() {
            resume_unwind(Box::new(Self(self.0 - 1)));
        }
    }
}

/// Panics with a bomb, in each place where code of a user's runs.
struct Bomber;

enum Throw {
    AtOnce,
    Later,
    FromTimer,
    FromDrop(#[expect(dead_code, reason = "dropped unread")] Bomb),
}

impl Agent for Bomber {
    type Msg = Throw;

    async fn on(&mut self, throw: Throw, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let soon_ns = cx.fresh_ns() + 1_000_000;
        match throw {
            Throw::AtOnce => resume_unwind(Box::new(Bomb(2))),
            Throw::Later => {
                cx.sleep_until(soon_ns).await.map_err(|_| Stop)?;
                resume_unwind(Box::new(Bomb(2)))
            }
            Throw::FromTimer => cx.notify_at(soon_ns, 0).map(drop).map_err(|_| Stop),
            Throw::FromDrop(_) => Ok(()),
        }
    }

    fn on_timer(&mut self, _: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        resume_unwind(Box::new(Bomb(2)))
    }
}

/// The payload of a panic was dropped outside of all that catches panics, and its drop panicked: that ended the
/// shard.
#[test]
fn a_panic_whose_payload_panics_took_the_shard_with_it() {
    let mut sim = start(2, Config::default());
    for throw in [Throw::AtOnce, Throw::Later, Throw::FromTimer] {
        let bomber = sim.spawn_on(0, || Bomber).expect("room");
        let sent = sim.run_on(1, move |cx| bomber.try_send(cx, throw).is_ok());
        assert_eq!(sent, Ok(true));
        sim.run_until_idle().expect("no wake is lost");
    }
    // A dead letter, here and from another core, a job, and a maker of agents.
    let gone = sim.spawn_on(0, || Bomber).expect("room");
    assert_eq!(sim.run_on(1, move |cx| gone.try_send(cx, Throw::AtOnce).is_ok()), Ok(true));
    assert_eq!(sim.run_on(1, move |cx| gone.try_send(cx, Throw::FromDrop(Bomb(3))).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert!(sim.run_on(0, |_| resume_unwind(Box::new(Bomb(2)))).map(|()| ()).is_err());
    let spec = ChildSpec::new(|| -> Bomber { resume_unwind(Box::new(Bomb(2))) });
    let plan = Supervision::default();
    assert_eq!(sim.run_on(0, move |cx| cx.supervise(plan, vec![spec]).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    let stats = sim.stats();
    assert_eq!((stats[0].panicked, stats[0].dead_letters), (4, 1));
    assert_eq!(stats[0].payloads_forgotten, 4 + 1 + 1 + 4, "a maker is tried four times");
    assert!(sim.shutdown().expect("ends").shards.iter().all(|shard| shard.drained));
}

/// Earlier lives of an agent were counted in 8 bits: a timer of one fired in the life 256 restarts later, in the
/// wheel in which it was set and in the one where the agent had lived before. In the wheel they have 16 now.
#[test]
fn a_timer_fired_in_a_later_life() {
    for (restarts, moves) in [(256, false), (256, true), (65_536, false), (65_536, true)] {
        let mut sim = start(2, Config::default());
        let intensity = Intensity { restarts: u32::MAX, within_ns: 1 };
        let plan = Supervision { intensity, ..Supervision::default() };
        let spec = ChildSpec::new(|| Doer::<false>).named("child");
        assert_eq!(sim.run_on(0, move |cx| cx.supervise(plan, vec![spec]).is_ok()), Ok(true));
        sim.run_until_idle().expect("no wake is lost");
        let child = sim.run_on(0, |cx| cx.find::<Doer<false>>("child"));
        let mut child = child.expect("lives").expect("it was started");
        let at_ns = sim.now_ns() + 3_600_000_000_000;
        let set = move |cx: &mut Cx<'_>| cx.notify_at(at_ns, 1).map(drop).map_err(|_| Stop);
        send(&mut sim, child, set);
        sim.run_for(1_000_000).expect("no wake is lost");
        if moves {
            child = sim.move_agent(child, 1).expect("idle");
        }
        for _ in 0..restarts {
            send(&mut sim, child, panics);
            sim.run_for(100_000).expect("no wake is lost");
        }
        assert!(sim.now_ns() < at_ns, "it has not come due");
        sim.run_until_idle().expect("no wake is lost");
        assert_eq!(sim.stats()[child.shard()].restarted, restarts);
        assert_eq!((SEEN.get(), sim.now_ns() >= at_ns), (0, restarts == 256 || moves));
    }
}
