//! Watches, links, names, topics, moves, placement and accounts, on one core and across two.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{eventually, start};
use tailbeam_runtime::{
    Addr, Agent, AgentId, By, Config, Cx, Down, End, MoveError, Placement, Published,
    RelationError, Runtime, SendError, Stop,
};

/// What a [`Doer`] reports.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Down(Down),
    Number(u64),
    Token(u64),
}

type Deed = Box<dyn FnOnce(&mut Cx<'_>) -> Result<(), Stop> + Send>;

enum Work {
    Do(Deed),
    Say(u64),
    Wait,
}

/// Does what it is sent.
struct Doer<const TRAPS: bool>(Sender<Said>);

impl<const TRAPS: bool> Agent for Doer<TRAPS> {
    type Msg = Work;
    const TRAPS_EXITS: bool = TRAPS;

    async fn on(&mut self, work: Work, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match work {
            Work::Do(deed) => deed(cx),
            Work::Say(number) => self.0.send(Said::Number(number)).map_err(|_| Stop),
            Work::Wait => std::future::pending().await,
        }
    }

    fn on_timer(&mut self, token: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.send(Said::Token(token)).map_err(|_| Stop)
    }

    fn on_down(&mut self, down: Down, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.send(Said::Down(down)).map_err(|_| Stop)
    }
}

struct Scene {
    runtime: Runtime,
    said: Receiver<Said>,
    say: Sender<Said>,
}

impl Scene {
    fn new(config: Config) -> Option<Self> {
        let (say, said) = channel();
        Some(Self { runtime: start(config)?, said, say })
    }

    fn spawn<const TRAPS: bool>(&self, shard: usize) -> Addr<Doer<TRAPS>> {
        let say = self.say.clone();
        self.runtime.spawn_on(shard, move || Doer::<TRAPS>(say)).unwrap()
    }

    fn send<const TRAPS: bool>(&self, to: Addr<Doer<TRAPS>>, work: Work) {
        let sent = self.runtime.run_on(to.shard(), move |cx| to.try_send(cx, work).is_ok());
        assert!(sent.unwrap());
    }

    /// Has an agent do something, and waits until it is done.
    fn have<const TRAPS: bool, R: Send + 'static>(
        &self,
        agent: Addr<Doer<TRAPS>>,
        deed: impl FnOnce(&mut Cx<'_>) -> R + Send + 'static,
    ) -> R {
        let (done, result) = channel();
        let deed: Deed = Box::new(move |cx| {
            done.send(deed(cx)).unwrap();
            Ok(())
        });
        self.send(agent, Work::Do(deed));
        result.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn next(&self) -> Said {
        self.said.recv_timeout(Duration::from_secs(10)).expect("something is said in 10 s")
    }

    /// Nothing more is said: control that was sent before has arrived on every shard.
    fn quiet(&self) {
        for _ in 0..3 {
            (0..self.runtime.shards())
                .for_each(|shard| self.runtime.run_on(shard, |_| ()).unwrap());
        }
        assert_eq!(self.said.try_recv().ok(), None);
    }

    /// The same place twice, and two places.
    fn pairs(&self) -> [(usize, usize); 2] {
        [(0, 0), (0, self.runtime.shards() - 1)]
    }
}

fn stop() -> Work {
    Work::Do(Box::new(|_| Err(Stop)))
}

fn panics() -> Work {
    Work::Do(Box::new(|_| panic!("planted")))
}

#[test]
fn a_watcher_is_told_once_how_an_agent_ended() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    for (here, there) in scene.pairs() {
        let watcher = scene.spawn::<false>(here);
        let ends: [(fn() -> Work, End); 2] = [(stop, End::Stopped), (panics, End::Panicked)];
        for (work, why) in ends {
            let agent = scene.spawn::<false>(there);
            let monitor = scene.have(watcher, move |cx| cx.monitor(agent)).unwrap();
            scene.send(agent, work());
            let down = Down { monitor: Some(monitor), agent: agent.id(), why };
            assert_eq!(scene.next(), Said::Down(down));
            scene.quiet();
            // It has ended before it was watched.
            let monitor = scene.have(watcher, move |cx| cx.monitor(agent)).unwrap();
            let down = Down { monitor: Some(monitor), agent: agent.id(), why: End::Gone };
            assert_eq!(scene.next(), Said::Down(down));
        }
        // One that waits in its handler can be killed.
        let agent = scene.spawn::<false>(there);
        let monitor = scene.have(watcher, move |cx| cx.monitor(agent)).unwrap();
        scene.send(agent, Work::Wait);
        scene.have(watcher, move |cx| cx.kill(agent.id()));
        let down = Down { monitor: Some(monitor), agent: agent.id(), why: End::Killed };
        assert_eq!(scene.next(), Said::Down(down));
    }
}

/// A sender whose messages all waited in the agent's handler was never told that they were gone.
#[test]
fn an_agent_that_dies_with_a_full_mailbox_is_gone_for_every_core() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    let last = scene.runtime.shards() - 1;
    let agent = scene.spawn::<false>(0);
    scene.send(agent, Work::Wait);
    let send = move |cx: &mut Cx<'_>| match agent.try_send(cx, Work::Say(1)) {
        Ok(()) => "sent",
        Err(SendError::Gone(_)) => "gone",
        Err(_) => "full",
    };
    eventually("full", || scene.runtime.run_on(last, send) == Ok("full"));
    scene.runtime.run_on(0, move |cx| cx.kill(agent.id())).unwrap();
    eventually("gone", || scene.runtime.run_on(last, send) == Ok("gone"));
    scene.quiet();
}

#[test]
fn an_ended_watch_tells_nothing_and_leaves_nothing() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    for (here, there) in scene.pairs() {
        let (watcher, agent) = (scene.spawn::<false>(here), scene.spawn::<false>(there));
        let ended = scene.have(watcher, move |cx| {
            let monitor = cx.monitor(agent).unwrap();
            (cx.demonitor(monitor), cx.demonitor(monitor))
        });
        assert_eq!(ended, (true, false));
        // A watcher that has ended is not told, and its watch is gone too.
        let other = scene.spawn::<false>(here);
        scene.have(other, move |cx| cx.monitor(agent)).unwrap();
        scene.send(other, stop());
        scene.quiet();
        scene.send(agent, stop());
        scene.quiet();
        scene.send(watcher, stop());
    }
    let related = || scene.runtime.stats().iter().map(|shard| shard.agents_related).sum::<u64>();
    eventually("no relation is left", || related() == 0);
}

#[test]
fn a_failure_ends_those_that_are_linked_and_a_stop_does_not() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    for (here, there) in scene.pairs() {
        let watcher = scene.spawn::<false>(here);
        let (one, two) = (scene.spawn::<false>(here), scene.spawn::<false>(there));
        let trapper = scene.spawn::<true>(there);
        let stranger = scene.spawn::<false>(there);
        scene.have(one, move |cx| cx.link(two)).unwrap();
        scene.have(trapper, move |cx| cx.link(two)).unwrap();
        scene.have(stranger, move |cx| {
            cx.link(two).unwrap();
            cx.unlink(two);
        });
        let monitor = scene.have(watcher, move |cx| cx.monitor(one)).unwrap();
        scene.quiet();
        scene.send(two, panics());
        let mut said = [scene.next(), scene.next()];
        said.sort_by_key(|said| !matches!(said, Said::Down(Down { monitor: None, .. })));
        let trapped = Down { monitor: None, agent: two.id(), why: End::Panicked };
        let linked = Down { monitor: Some(monitor), agent: one.id(), why: End::Linked };
        assert_eq!(said, [Said::Down(trapped), Said::Down(linked)]);
        scene.send(stranger, Work::Say(5));
        assert_eq!(scene.next(), Said::Number(5), "its link had ended");
        // A stop ends the link only.
        scene.have(stranger, move |cx| cx.link(trapper)).unwrap();
        scene.quiet();
        scene.send(stranger, stop());
        let stopped = Down { monitor: None, agent: stranger.id(), why: End::Stopped };
        assert_eq!(scene.next(), Said::Down(stopped));
        let third = scene.spawn::<false>(here);
        scene.have(third, move |cx| cx.link(trapper)).unwrap();
        scene.quiet();
        scene.send(trapper, stop());
        scene.quiet();
        scene.send(third, Work::Say(6));
        assert_eq!(scene.next(), Said::Number(6));
    }
}

#[test]
fn relations_are_bounded_and_only_agents_have_them() {
    let Some(scene) = Scene::new(Config { relations_max: 2, ..Config::default() }) else { return };
    let (a, b) = (scene.spawn::<false>(0), scene.spawn::<false>(0));
    let third = scene.have(a, move |cx| {
        cx.monitor(b).unwrap();
        cx.link(b).unwrap();
        cx.monitor(b)
    });
    assert_eq!(third, Err(RelationError::Full { max: 2 }));
    let (job, future) = channel();
    scene.runtime.run_on(0, move |cx| job.send(cx.monitor(b)).unwrap()).unwrap();
    assert_eq!(future.recv().unwrap(), Err(RelationError::NotAnAgent));
    // One that has as many relations as it may cannot be watched, and the watcher hears of it.
    let c = scene.spawn::<false>(0);
    let monitor = scene.have(c, move |cx| cx.monitor(a)).unwrap();
    let down = Down { monitor: Some(monitor), agent: a.id(), why: End::Unwatchable };
    assert_eq!(scene.next(), Said::Down(down));
}

#[test]
fn a_name_is_found_on_every_core_until_its_agent_ends() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    let last = scene.runtime.shards() - 1;
    let (one, two) = (scene.spawn::<false>(0), scene.spawn::<false>(last));
    scene.have(one, |cx| cx.register::<Doer<false>>("clerk")).unwrap();
    let taken = scene.have(two, |cx| cx.register::<Doer<false>>("clerk"));
    assert_eq!(taken, Err(RelationError::Taken { by: one.id() }));
    let found = scene.have(two, |cx| {
        (
            cx.find::<Doer<false>>("clerk"),
            cx.find::<Doer<true>>("clerk"),
            cx.find::<Doer<false>>("x"),
        )
    });
    assert_eq!(found, (Some(one), None, None));
    scene.send(one, stop());
    eventually("the name is free", || {
        scene.have(two, |cx| cx.register::<Doer<false>>("clerk")).is_ok()
    });
    assert_eq!(scene.have(two, |cx| cx.find::<Doer<false>>("clerk")), Some(two));
}

/// Keeps what is published to it.
struct Reader(Sender<u64>);

impl Agent for Reader {
    type Msg = u64;
    const MAILBOX: u32 = 2;

    async fn on(&mut self, n: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match n {
            0 => cx.subscribe::<Self>("prices").map(drop).map_err(|_| Stop),
            1 => Err(Stop),
            _ => self.0.send(n).map_err(|_| Stop),
        }
    }
}

#[test]
fn a_publication_says_what_became_of_each_copy() {
    let Some(runtime) = start(Config::default()) else { return };
    let (send, read) = channel();
    let places = [0, 0, runtime.shards() - 1];
    let readers = places.map(|place| {
        let send = send.clone();
        let reader = runtime.spawn_on(place, move || Reader(send)).unwrap();
        runtime.run_on(place, move |cx| reader.try_send(cx, 0).unwrap()).unwrap();
        runtime.run_on(place, |_| ()).unwrap();
        reader
    });
    let published =
        runtime.run_on(0, |cx| (cx.publish("prices", &7u64), cx.publish("none", &7u64)));
    assert_eq!(published.unwrap(), (Published { sent: 3, full: 0, gone: 0 }, Published::default()));
    let got: Vec<u64> = (0..3).map(|_| read.recv().unwrap()).collect();
    assert_eq!(got, [7, 7, 7]);
    let wrong = runtime.run_on(0, |cx| cx.publish("prices", &"text")).unwrap();
    assert_eq!(wrong, Published::default(), "nobody reads text there");
    // Between two turns nobody reads: a mailbox of two is full.
    let full = runtime.run_on(0, move |cx| {
        readers[0].try_send(cx, 8).unwrap();
        readers[0].try_send(cx, 8).unwrap();
        cx.publish("prices", &9u64)
    });
    assert_eq!(full.unwrap(), Published { sent: 2, full: 1, gone: 0 });
    (0..4).for_each(|_| assert_ne!(read.recv().unwrap(), 7));
    runtime.run_on(0, move |cx| readers[1].try_send(cx, 1).unwrap()).unwrap();
    eventually("its subscription ends with it", || {
        runtime.run_on(0, |cx| cx.publish("prices", &7u64)).unwrap().sent == 2
    });
}

#[test]
fn a_moved_agent_keeps_its_state_its_mail_and_its_relations() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    let last = scene.runtime.shards() - 1;
    if last == 0 {
        return;
    }
    let (watcher, agent) = (scene.spawn::<false>(0), scene.spawn::<false>(0));
    let monitor = scene.have(watcher, move |cx| cx.monitor(agent)).unwrap();
    scene.have(agent, |cx| {
        cx.register::<Doer<false>>("mover").unwrap();
        let at_ns = cx.now_ns() + 50_000_000;
        cx.notify_at(at_ns, 77).unwrap();
    });
    let moved = scene.runtime.move_agent(agent, last).unwrap();
    assert_eq!(moved.shard(), last);
    assert_eq!(scene.runtime.move_agent(moved, last), Ok(moved), "it is there");
    // Mail to the old address, in order, more than a mailbox holds at once.
    scene
        .runtime
        .run_on(0, move |cx| {
            (0..32).for_each(|n| assert!(agent.try_send(cx, Work::Say(n)).is_ok()))
        })
        .unwrap();
    (0..32).for_each(|n| assert_eq!(scene.next(), Said::Number(n)));
    assert_eq!(scene.next(), Said::Token(77), "its timer follows it");
    assert_eq!(scene.have(agent, |cx| cx.shard_index()), last);
    let account = scene.runtime.run_on(last, move |cx| cx.account(moved.id())).unwrap().unwrap();
    assert!(account.messages >= 34, "{account:?}");
    assert_eq!(scene.have(watcher, |cx| cx.find::<Doer<false>>("mover")), Some(agent));
    scene.send(moved, stop());
    let down = Down { monitor: Some(monitor), agent: moved.id(), why: End::Stopped };
    assert_eq!(scene.next(), Said::Down(down));
    let refused = |cx: &mut Cx<'_>, to: Addr<Doer<false>>| {
        matches!(to.try_send(cx, Work::Wait), Err(SendError::Gone(_)))
    };
    eventually("the old place is free", || {
        scene.runtime.run_on(0, move |cx| refused(cx, agent)).unwrap()
    });
    let live: u64 = scene.runtime.stats().iter().map(|shard| shard.live_agents).sum();
    assert_eq!(live, 1, "the watcher");
}

#[test]
fn only_an_idle_agent_moves() {
    let Some(scene) = Scene::new(Config { agents_max: 3, ..Config::default() }) else { return };
    let last = scene.runtime.shards() - 1;
    if last == 0 {
        return;
    }
    let agent = scene.spawn::<false>(0);
    scene.send(agent, Work::Wait);
    scene.runtime.run_on(0, |_| ()).unwrap();
    assert_eq!(scene.runtime.move_agent(agent, last), Err(MoveError::Busy));
    assert_eq!(scene.runtime.move_agent(agent, 99), Err(MoveError::NoRoom));
    let other = scene.spawn::<false>(0);
    scene.send(other, stop());
    scene.runtime.run_on(0, |_| ()).unwrap();
    assert_eq!(scene.runtime.move_agent(other, last), Err(MoveError::Gone));
    (0..3).for_each(|_| assert_eq!(scene.spawn::<false>(last).shard(), last));
    let idle = scene.spawn::<false>(0);
    assert_eq!(scene.runtime.move_agent(idle, last), Err(MoveError::NoRoom));
    scene.send(idle, Work::Say(1));
    assert_eq!(scene.next(), Said::Number(1), "it lives where it lived");
}

#[test]
fn mail_to_an_old_address_waits_in_order_while_the_new_mailbox_is_full() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    let last = scene.runtime.shards() - 1;
    if last == 0 {
        return;
    }
    let agent = scene.spawn::<false>(0);
    let moved = scene.runtime.move_agent(agent, last).unwrap();
    // A handler that holds its core until it is told: nothing is read meanwhile.
    let (go, wait) = channel::<()>();
    scene.send(moved, Work::Do(Box::new(move |_| wait.recv().map_err(|_| Stop))));
    let mut next = 0;
    let mut rounds = 0;
    while next < 200 {
        let first = next;
        let sent = scene.runtime.run_on(0, move |cx| {
            (first..200).take_while(|&n| agent.try_send(cx, Work::Say(n)).is_ok()).count()
        });
        next += sent.unwrap() as u64;
        rounds += 1;
        if rounds == 50 {
            assert!(next < 200, "the bound of the mailboxes holds");
            go.send(()).unwrap();
        }
        std::thread::park_timeout(Duration::from_micros(200));
    }
    (0..200).for_each(|n| assert_eq!(scene.next(), Said::Number(n)));
}

#[test]
fn agents_are_placed_where_the_policy_says() {
    let Some(scene) = Scene::new(Config::default()) else { return };
    let last = scene.runtime.shards() - 1;
    let spawn = |placement| {
        let say = scene.say.clone();
        scene.runtime.spawn(placement, move || Doer::<false>(say)).map(Addr::shard)
    };
    let turns: Vec<_> =
        (0..2 * (last + 1)).map(|_| spawn(Placement::RoundRobin).unwrap()).collect();
    assert_eq!(turns, (0..=last).chain(0..=last).collect::<Vec<_>>());
    let agent = scene.spawn::<false>(last);
    assert_eq!(spawn(Placement::With(agent.id())), Ok(last));
    assert!(spawn(Placement::Shard(last + 1)).is_err());
    // From inside, across cores.
    struct Founder(Sender<Option<usize>>, Sender<Said>);
    impl Agent for Founder {
        type Msg = Placement;
        async fn on(&mut self, placement: Placement, cx: &mut Cx<'_>) -> Result<(), Stop> {
            let say = self.1.clone();
            let agent = cx.spawn_at(placement, move || Doer::<false>(say)).await;
            self.0.send(agent.map(Addr::shard)).map_err(|_| Stop)
        }
    }
    let (send, placed) = channel();
    let say = scene.say.clone();
    let founder = scene.runtime.spawn_on(0, move || Founder(send, say)).unwrap();
    for place in [0, last, last + 1] {
        let ask = move |cx: &mut Cx<'_>| founder.try_send(cx, Placement::Shard(place)).is_ok();
        assert!(scene.runtime.run_on(0, ask).unwrap());
        let wanted = (place <= last).then_some(place);
        assert_eq!(placed.recv_timeout(Duration::from_secs(10)).unwrap(), wanted);
    }
}

/// Burns CPU for so many microseconds.
struct Burner;

fn burn(us: u64) {
    let end = tailbeam_runtime::clock::monotonic_ns() + us * 1_000;
    while tailbeam_runtime::clock::monotonic_ns() < end {}
}

impl Agent for Burner {
    type Msg = u64;
    const MAILBOX: u32 = 1_000;

    async fn on(&mut self, us: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        burn(us);
        Ok(())
    }
}

#[test]
fn accounts_say_who_uses_the_core_and_who_lets_others_wait() {
    let Some(runtime) = start(Config { account_every: 1, ..Config::default() }) else { return };
    let small = runtime.spawn_on(0, || Burner).unwrap();
    let large = runtime.spawn_on(0, || Burner).unwrap();
    runtime
        .run_on(0, move |cx| {
            for _ in 0..100 {
                small.try_send(cx, 10).unwrap();
                large.try_send(cx, 100).unwrap();
            }
        })
        .unwrap();
    let handled = |agent: AgentId| runtime.run_on(0, move |cx| cx.account(agent)).unwrap().unwrap();
    eventually("all is handled", || handled(large.id()).messages == 100);
    let top = runtime.accounts(By::Cpu, 1);
    assert_eq!((top.len(), top[0].agent), (1, large.id()));
    assert!(top[0].cpu_ns >= 100 * 100_000, "{top:?}");
    let small = handled(small.id());
    assert!(small.cpu_ns >= 100 * 10_000 && small.cpu_ns < top[0].cpu_ns, "{small:?}");
    assert_eq!((small.messages, small.turns, small.waiting), (100, 100, 0));
    // The last message waited behind 199 turns, 11 ms of work.
    assert!(top[0].age_max_ns > 5_000_000, "{top:?}");
    assert!(top[0].type_name.ends_with("Burner"));
}

#[test]
fn what_waits_for_a_suspended_agent_is_counted_with_its_age() {
    let Some(scene) = Scene::new(Config { drain_ns: 0, ..Config::default() }) else { return };
    let agent = scene.spawn::<false>(0);
    scene.send(agent, Work::Wait);
    scene.send(agent, Work::Say(1));
    scene.send(agent, Work::Say(2));
    let account = move |cx: &mut Cx<'_>| cx.account(agent.id());
    eventually("both wait for 2 ms", || {
        let account = scene.runtime.run_on(0, account).unwrap().unwrap();
        account.waiting == 2 && account.oldest_ns.is_some_and(|age_ns| age_ns > 2_000_000)
    });
    assert_eq!(scene.runtime.accounts(By::Waiting, 1)[0].agent, agent.id());
}

#[test]
fn a_stall_names_its_agent_while_it_lasts() {
    let Some(runtime) = start(Config { stall_ns: 20_000_000, ..Config::default() }) else { return };
    let burner = runtime.spawn_on(0, || Burner).unwrap();
    runtime.run_on(0, move |cx| burner.try_send(cx, 100_000).unwrap()).unwrap();
    let found = std::sync::Mutex::new(Vec::new());
    eventually("found", || {
        found.lock().unwrap().extend(runtime.stalls().0);
        !found.lock().unwrap().is_empty()
    });
    let stall = found.lock().unwrap().remove(0);
    assert_eq!(stall.agent, Some(burner.id()));
    assert!(stall.type_name.ends_with("Burner") && stall.message_type == "u64", "{stall:?}");
    // Found after the threshold and before the turn was over.
    assert!((20_000_000..100_000_000).contains(&stall.lasted_ns), "{stall:?}");
}

#[test]
fn a_hook_is_told_of_a_stall_while_it_lasts_and_its_length_grows() {
    let Some(runtime) = start(Config { stall_ns: 20_000_000, ..Config::default() }) else { return };
    let burner = runtime.spawn_on(0, || Burner).unwrap();
    let (send, told) = channel();
    let mut told_times = 0;
    runtime.on_stall(|_, _| panic!("it is replaced"));
    let id = burner.id();
    runtime.on_stall(move |stall, lasts| {
        if stall.agent != Some(id) {
            return;
        }
        let (first, at_ns) = (lasts(), tailbeam_runtime::clock::monotonic_ns());
        while lasts() {
            std::thread::yield_now();
        }
        let rest_ns = tailbeam_runtime::clock::monotonic_ns() - at_ns;
        let _ = send.send((stall.agent, first, rest_ns));
        told_times += 1;
        assert!(told_times < 2, "a panic of a hook is its own affair");
    });
    for _ in 0..2 {
        let burn = || {
            runtime.run_on(0, move |cx| burner.try_send(cx, 100_000).unwrap()).unwrap();
            told.recv_timeout(Duration::from_secs(1)).ok()
        };
        // A detector that others keep from its core may miss one.
        let (agent, first, rest_ns) = (0..10).find_map(|_| burn()).unwrap();
        assert_eq!((agent, first), (Some(burner.id()), true));
        assert!(rest_ns > 1_000_000, "it lasted: {rest_ns}");
    }
    // This waits for the hook, whose panic takes its time. The detector follows a stall to its end now.
    runtime.on_stall(|_, _| ());
    runtime.run_on(0, move |cx| burner.try_send(cx, 300_000).unwrap()).unwrap();
    std::thread::park_timeout(Duration::from_millis(400));
    let (stalls, count) = runtime.stalls();
    let own = stalls.iter().filter(|stall| stall.agent == Some(burner.id()));
    let longest_ns = own.map(|stall| stall.lasted_ns).max().unwrap();
    assert!(count >= 3 && longest_ns > 60_000_000, "found at 20 ms, followed: {stalls:?}");
}

/// Works until it is told to hand over.
struct Polite(Sender<u32>);

impl Agent for Polite {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut yields = 0;
        let end = cx.fresh_ns() + 60_000_000;
        while cx.fresh_ns() < end {
            if cx.need_preempt() {
                yields += 1;
                cx.yield_now().await;
            }
        }
        self.0.send(yields).map_err(|_| Stop)
    }
}

#[test]
fn a_polite_agent_is_told_to_hand_over_and_does_not_stall() {
    let Some(runtime) = start(Config { stall_ns: 20_000_000, ..Config::default() }) else { return };
    let (send, yields) = channel();
    let polite = runtime.spawn_on(0, move || Polite(send)).unwrap();
    runtime.run_on(0, move |cx| polite.try_send(cx, ()).unwrap()).unwrap();
    let yields = yields.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(yields >= 2, "about one per 5 to 10 ms, of 60: {yields}");
}
