//! Supervisors on real shards: what is restarted, where, when, and what a restart keeps.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{eventually, start};
use tailbeam_runtime::{
    Addr, Agent, Backoff, ChildInfo, ChildSpec, Config, Cx, Down, End, Intensity, Placement,
    Restart, Runtime, Stop, Strategy, Supervision, Supervisor, SupervisorMsg,
};

/// A child: `life` counts how often it was made.
struct Worker {
    name: &'static str,
    life: u32,
    said: Sender<(&'static str, u32, u64)>,
}

#[derive(Debug)]
enum Job {
    Say(u64),
    Panic,
    Stop,
    WaitAndPanic(u64),
    Tick(u64),
}

impl Agent for Worker {
    type Msg = Job;

    async fn on(&mut self, job: Job, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match job {
            Job::Say(n) => self.said.send((self.name, self.life, n)).map_err(|_| Stop),
            Job::Panic => panic!("planted"),
            Job::Stop => Err(Stop),
            Job::WaitAndPanic(ns) => {
                let at_ns = cx.fresh_ns() + ns;
                cx.sleep_until(at_ns).await.map_err(|_| Stop)?;
                panic!("planted")
            }
            Job::Tick(ns) => {
                let at_ns = cx.fresh_ns() + ns;
                cx.notify_at(at_ns, ns).map(drop).map_err(|_| Stop)
            }
        }
    }

    fn on_timer(&mut self, token: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.said.send((self.name, self.life, 1_000 + token)).map_err(|_| Stop)
    }
}

/// Asks a supervisor for its children, and watches it.
struct Clerk(Sender<Vec<ChildInfo>>, Sender<End>);

enum Ask {
    Children(Addr<Supervisor>),
    Watch(Addr<Supervisor>),
}

impl Agent for Clerk {
    type Msg = Ask;

    async fn on(&mut self, ask: Ask, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match ask {
            Ask::Watch(of) => cx.monitor(of).map(drop).map_err(|_| Stop),
            Ask::Children(of) => {
                let deadline_ns = cx.fresh_ns() + 5_000_000_000;
                let children = cx.ask(of, deadline_ns, SupervisorMsg::Children).await;
                self.0.send(children.map_err(|_| Stop)?).map_err(|_| Stop)
            }
        }
    }

    fn on_down(&mut self, down: Down, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.1.send(down.why).map_err(|_| Stop)
    }
}

struct Scene {
    runtime: Runtime,
    clerk: Addr<Clerk>,
    children: Receiver<Vec<ChildInfo>>,
    ended: Receiver<End>,
    say: Sender<(&'static str, u32, u64)>,
    said: Receiver<(&'static str, u32, u64)>,
}

const LONG: Duration = Duration::from_secs(10);

impl Scene {
    fn new() -> Option<Self> {
        let runtime = start(Config { drain_ns: 100_000_000, ..Config::default() })?;
        let ((tell, children), (say, said), (end, ended)) = (channel(), channel(), channel());
        let clerk = runtime.spawn_on(0, move || Clerk(tell, end)).unwrap();
        Some(Self { runtime, clerk, children, ended, say, said })
    }

    /// A child whose maker counts its lives.
    fn spec(&self, name: &'static str) -> ChildSpec {
        let (lives, said) = (Arc::new(AtomicU32::new(0)), std::sync::Mutex::new(self.say.clone()));
        ChildSpec::new(move || Worker {
            name,
            life: lives.fetch_add(1, Ordering::Relaxed) + 1,
            said: said.lock().unwrap().clone(),
        })
        .named(name)
    }

    fn supervise(&self, plan: Supervision, children: Vec<ChildSpec>) -> Addr<Supervisor> {
        let spawn = move |cx: &mut Cx<'_>| cx.supervise(plan, children).ok();
        let supervisor = self.runtime.run_on(0, spawn).unwrap().unwrap();
        let clerk = self.clerk;
        let watch = move |cx: &mut Cx<'_>| clerk.try_send(cx, Ask::Watch(supervisor)).is_ok();
        assert!(self.runtime.run_on(0, watch).unwrap());
        supervisor
    }

    fn children(&self, of: Addr<Supervisor>) -> Vec<ChildInfo> {
        let clerk = self.clerk;
        let ask = move |cx: &mut Cx<'_>| clerk.try_send(cx, Ask::Children(of)).is_ok();
        assert!(self.runtime.run_on(0, ask).unwrap());
        self.children.recv_timeout(LONG).unwrap()
    }

    fn find(&self, name: &'static str) -> Option<Addr<Worker>> {
        self.runtime.run_on(0, move |cx| cx.find::<Worker>(name)).unwrap()
    }

    fn worker(&self, name: &'static str) -> Addr<Worker> {
        eventually("it lives", || self.find(name).is_some());
        self.find(name).unwrap()
    }

    fn send(&self, to: Addr<Worker>, job: Job) {
        self.runtime.run_on(to.shard(), move |cx| to.try_send(cx, job).unwrap()).unwrap();
    }

    /// Has a worker say its name and life.
    fn life(&self, of: Addr<Worker>) -> u32 {
        self.send(of, Job::Say(0));
        self.said.recv_timeout(LONG).unwrap().1
    }
}

fn plan(strategy: Strategy) -> Supervision {
    Supervision {
        strategy,
        intensity: Intensity { restarts: 5, within_ns: 60_000_000_000 },
        backoff: Backoff::NONE,
    }
}

#[test]
fn a_failed_child_keeps_its_address_its_name_and_its_mail() {
    let Some(scene) = Scene::new() else { return };
    for shard in [0, scene.runtime.shards() - 1] {
        let name = ["a0", "a1"][usize::from(shard > 0)];
        let child = scene.spec(name).at(Placement::Shard(shard));
        let supervisor = scene.supervise(plan(Strategy::OneForOne), vec![child]);
        let worker = scene.worker(name);
        assert_eq!(worker.shard(), shard);
        // What comes while it fails waits for its next life.
        scene
            .runtime
            .run_on(shard, move |cx| {
                worker.try_send(cx, Job::Say(1)).unwrap();
                worker.try_send(cx, Job::Tick(5_000_000)).unwrap();
                worker.try_send(cx, Job::Panic).unwrap();
                (2..20).for_each(|n| worker.try_send(cx, Job::Say(n)).unwrap());
            })
            .unwrap();
        assert_eq!(scene.said.recv_timeout(LONG).unwrap(), (name, 1, 1));
        (2..20).for_each(|n| assert_eq!(scene.said.recv_timeout(LONG).unwrap(), (name, 2, n)));
        assert_eq!(scene.find(name), Some(worker));
        let children = scene.children(supervisor);
        assert_eq!((children[0].agent, children[0].restarts), (Some(worker.id()), 1));
        assert!(children[0].up && children[0].name.as_deref() == Some(name));
        // A timer of an earlier life is void: one that is set now for later is the first to come.
        scene.send(worker, Job::Tick(10_000_000));
        assert_eq!(scene.said.recv_timeout(LONG).unwrap(), (name, 2, 10_001_000));
    }
    let stats = scene.runtime.stats();
    let sum = |of: fn(&tailbeam_runtime::ShardStats) -> u64| stats.iter().map(of).sum::<u64>();
    eventually("published", || scene.runtime.stats().iter().map(|s| s.restarted).sum::<u64>() == 2);
    assert_eq!(sum(|shard| shard.live_agents), 5, "clerk, two supervisors, two workers");
}

#[test]
fn a_handler_that_fails_after_a_wait_is_restarted_too() {
    let Some(scene) = Scene::new() else { return };
    scene.supervise(plan(Strategy::OneForOne), vec![scene.spec("b")]);
    let worker = scene.worker("b");
    scene.send(worker, Job::WaitAndPanic(2_000_000));
    scene.send(worker, Job::Say(5));
    assert_eq!(scene.said.recv_timeout(LONG).unwrap(), ("b", 2, 5));
    // Killed while it waits.
    scene.send(worker, Job::WaitAndPanic(3_600_000_000_000));
    scene.runtime.run_on(0, move |cx| cx.kill(worker.id())).unwrap();
    assert_eq!(scene.life(worker), 3);
}

#[test]
fn the_strategy_says_who_is_restarted_with_it() {
    let Some(scene) = Scene::new() else { return };
    let last = Placement::Shard(scene.runtime.shards() - 1);
    let cases = [
        (Strategy::OneForOne, ["c1", "c2", "c3"], [1, 2, 1]),
        (Strategy::RestForOne, ["d1", "d2", "d3"], [1, 2, 2]),
        (Strategy::OneForAll, ["e1", "e2", "e3"], [2, 2, 2]),
    ];
    for (strategy, names, lives) in cases {
        // The third lives on another core: its end and its start are messages.
        let mut specs = names.map(|name| scene.spec(name));
        specs[2] = specs[2].clone().at(last);
        let supervisor = scene.supervise(plan(strategy), specs.to_vec());
        let workers = names.map(|name| scene.worker(name));
        eventually("all are known", || scene.children(supervisor).iter().all(|child| child.up));
        scene.send(workers[1], Job::Panic);
        for (worker, life) in workers.into_iter().zip(lives) {
            eventually("restarted as planned", || scene.life(worker) == life);
        }
    }
}

#[test]
fn a_child_comes_back_as_its_kind_says() {
    let Some(scene) = Scene::new() else { return };
    let specs = vec![
        scene.spec("permanent"),
        scene.spec("transient").restart(Restart::Transient),
        scene.spec("temporary").restart(Restart::Temporary),
    ];
    let supervisor = scene.supervise(plan(Strategy::OneForOne), specs);
    let permanent = scene.worker("permanent");
    scene.send(permanent, Job::Stop);
    assert_eq!(scene.life(permanent), 2, "even when it stops");
    let transient = scene.worker("transient");
    scene.send(transient, Job::Panic);
    assert_eq!(scene.life(transient), 2);
    scene.send(transient, Job::Stop);
    eventually("it does not come back", || scene.find("transient").is_none());
    scene.send(scene.worker("temporary"), Job::Panic);
    eventually("it does not come back", || scene.find("temporary").is_none());
    let up: Vec<bool> = scene.children(supervisor).iter().map(|child| child.up).collect();
    assert_eq!(up, [true], "those that do not come back are no children any more");
}

#[test]
fn a_supervisor_gives_up_and_takes_its_children_with_it() {
    let Some(scene) = Scene::new() else { return };
    let intensity = Intensity { restarts: 2, within_ns: 60_000_000_000 };
    let supervision = Supervision { intensity, ..plan(Strategy::OneForOne) };
    scene.supervise(supervision, vec![scene.spec("f1"), scene.spec("f2")]);
    let worker = scene.worker("f1");
    for life in 1..=3 {
        assert_eq!(scene.life(worker), life);
        scene.send(worker, Job::Panic);
    }
    assert_eq!(scene.ended.recv_timeout(LONG).unwrap(), End::GaveUp);
    eventually("both are gone", || scene.find("f1").is_none() && scene.find("f2").is_none());
    eventually("only the clerk is left", || {
        scene.runtime.stats().iter().map(|shard| shard.live_agents).sum::<u64>() == 1
    });
}

#[test]
fn a_supervisor_of_supervisors_restarts_a_branch() {
    let Some(scene) = Scene::new() else { return };
    let intensity = Intensity { restarts: 0, within_ns: 60_000_000_000 };
    let inner = Supervision { intensity, ..plan(Strategy::OneForOne) };
    let branch = ChildSpec::supervisor(inner, vec![scene.spec("leaf")]);
    let supervisor = scene.supervise(plan(Strategy::OneForOne), vec![branch]);
    let leaf = scene.worker("leaf");
    assert_eq!(scene.life(leaf), 1);
    scene.send(leaf, Job::Panic);
    // The inner one gives up at once; the outer one starts it anew, and it its leaf at a new address.
    eventually("a new leaf", || scene.find("leaf").is_some_and(|found| found != leaf));
    assert_eq!(scene.life(scene.worker("leaf")), 2);
    assert_eq!(scene.children(supervisor)[0].restarts, 1);
}

#[test]
fn restarts_wait_as_the_backoff_says() {
    let Some(scene) = Scene::new() else { return };
    let backoff = Backoff { first_ns: 20_000_000, max_ns: 30_000_000 };
    scene.supervise(Supervision { backoff, ..plan(Strategy::OneForOne) }, vec![scene.spec("g")]);
    let worker = scene.worker("g");
    for (life, wait_ns) in [(2, 20_000_000), (3, 30_000_000)] {
        let from_ns = tailbeam_runtime::clock::monotonic_ns();
        scene.send(worker, Job::Panic);
        assert_eq!(scene.life(worker), life);
        let waited_ns = tailbeam_runtime::clock::monotonic_ns() - from_ns;
        assert!(waited_ns >= wait_ns, "{waited_ns}");
    }
}

#[test]
fn a_maker_that_panics_is_a_failure_like_any_other() {
    let Some(scene) = Scene::new() else { return };
    let (say, tries) = (std::sync::Mutex::new(scene.say.clone()), AtomicU32::new(0));
    let spec = ChildSpec::new(move || {
        let life = tries.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(life == 2 || life == 4, "planted");
        Worker { name: "h", life, said: say.lock().unwrap().clone() }
    });
    let supervisor = scene.supervise(plan(Strategy::OneForOne), vec![spec.named("h")]);
    let worker = scene.worker("h");
    assert_eq!(scene.life(worker), 2);
    scene.send(worker, Job::Panic);
    assert_eq!(scene.life(worker), 4);
    let children = scene.children(supervisor);
    assert_eq!((children[0].agent, children[0].restarts), (Some(worker.id()), 2));
}

#[test]
fn children_can_be_added_and_end_with_their_supervisor() {
    let Some(scene) = Scene::new() else { return };
    let last = scene.runtime.shards() - 1;
    let supervisor = scene.supervise(plan(Strategy::OneForOne), vec![scene.spec("i1")]);
    let added = Box::new(scene.spec("i2").at(Placement::Shard(last)));
    let (tell, told) = channel();
    let ask = async move |cx: &mut Cx<'_>| {
        let deadline_ns = cx.fresh_ns() + 10_000_000_000;
        let asked = cx.ask(supervisor, deadline_ns, |reply| SupervisorMsg::Add(added, reply)).await;
        let _ = tell.send(matches!(asked, Ok(Ok(()))));
    };
    assert!(scene.runtime.run_on(0, move |cx| cx.spawn_with(ask).is_ok()).unwrap());
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    assert_eq!(scene.life(scene.worker("i2")), 1);
    assert_eq!(scene.life(scene.worker("i1")), 1);
    let stop = move |cx: &mut Cx<'_>| supervisor.try_send(cx, SupervisorMsg::Stop).is_ok();
    assert!(scene.runtime.run_on(0, stop).unwrap());
    assert_eq!(scene.ended.recv_timeout(LONG).unwrap(), End::Stopped);
    eventually("both are gone", || scene.find("i1").is_none() && scene.find("i2").is_none());
}
