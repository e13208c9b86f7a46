//! Faulty links between shards: under simulation, where everything else goes wrong too, and on the real kernel. A cut
//! is silent, one-way or partial; asks end once, by their deadline; places come back; what is delayed keeps its order;
//! after the heal everything arrives; and the counts of what was sent close.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{eventually, start};
use tailbeam_runtime::sim::{Faults, Held, Rng, Simulation};
use tailbeam_runtime::{
    Addr, Agent, AskError, Config, Cx, LinkFault, LinkFaults, Reply, Runtime, ShardStats, Stop,
};

const MS: u64 = 1_000_000;

/// What has happened.
#[derive(Default)]
struct Book {
    /// How often each question was handled.
    handled: BTreeMap<u64, u32>,
    /// How each ended.
    ended: BTreeMap<u64, Vec<&'static str>>,
    /// Letters in the order in which they came.
    letters: Vec<u64>,
}

impl Book {
    fn count(&self, how: &str) -> usize {
        self.ended.values().flatten().filter(|end| **end == how).count()
    }
}

type Shared = Arc<Mutex<Book>>;

struct Callee(Shared);

enum Ask {
    Question(u64, Reply<u64>),
    Letter(u64),
}

impl Agent for Callee {
    type Msg = Ask;
    const MAILBOX: u32 = 16;

    async fn on(&mut self, ask: Ask, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match ask {
            Ask::Question(n, reply) => {
                *self.0.lock().unwrap().handled.entry(n).or_default() += 1;
                // Under a full ring the asker is told at once, which is no matter of links.
                let _ = reply.send(cx, n);
            }
            Ask::Letter(n) => self.0.lock().unwrap().letters.push(n),
        }
        Ok(())
    }
}

/// Asks one question after the other.
struct Asker(Shared, Addr<Callee>);

/// First question, how many, and the time of each, ns.
struct Go(u64, u64, u64);

impl Agent for Asker {
    type Msg = Go;

    async fn on(&mut self, Go(first, count, span_ns): Go, cx: &mut Cx<'_>) -> Result<(), Stop> {
        for n in first..first + count {
            let due_ns = cx.fresh_ns() + span_ns;
            let said = match cx.ask(self.1, due_ns, |reply| Ask::Question(n, reply)).await {
                Ok(answer) if answer == n => "answered",
                Ok(_) => "answered for another",
                Err(AskError::Expired) if cx.fresh_ns() < due_ns => "expired early",
                Err(AskError::Expired) => "expired",
                // One that comes behind its deadline is skipped, by the clock of the callee's shard.
                Err(AskError::Dropped) if cx.fresh_ns() + 2 * MS >= due_ns => "expired",
                Err(AskError::Dropped) => "told of the loss",
                Err(_) => "refused",
            };
            self.0.lock().unwrap().ended.entry(n).or_default().push(said);
            // So that a cut is not one ask per deadline, and a clean link no endless loop without one.
            let at_ns = cx.fresh_ns() + MS / 10;
            cx.sleep_until(at_ns).await.map_err(|_| Stop)?;
        }
        Ok(())
    }
}

fn config(faults: &Arc<LinkFaults>) -> Config {
    Config { link_faults: Some(Arc::clone(faults)), ..Config::default() }
}

fn assert_closes(stats: &[ShardStats]) {
    let sum = |of: fn(&ShardStats) -> u64| stats.iter().map(of).sum::<u64>();
    let sent = sum(|s| s.messages_sent_remote);
    let (came, dropped) = (sum(|s| s.messages_received_remote), sum(|s| s.link_dropped));
    let (over, waits) = (sum(|s| s.link_overflowed), sum(|s| s.link_waiting));
    assert_eq!(sent, came + dropped + over + waits, "{came} came, {dropped} dropped, {over} over");
}

/// A simulation with askers and callees on each of two shards, that ask across.
struct World {
    sim: Simulation,
    faults: Arc<LinkFaults>,
    book: Shared,
    askers: Vec<Addr<Asker>>,
    callees: Vec<Addr<Callee>>,
    next: u64,
}

impl World {
    fn new(seed: u64, pairs: usize, wrong: Faults) -> Self {
        let (faults, book) = (Arc::new(LinkFaults::new(seed)), Shared::default());
        let mut sim = Simulation::new(seed, config(&faults), 2, wrong).unwrap();
        let (mut askers, mut callees) = (Vec::new(), Vec::new());
        for n in 0..pairs {
            let (theirs, there) = (Arc::clone(&book), (n + 1) % 2);
            let callee = sim.spawn_on(there, move || Callee(theirs)).unwrap();
            let own = Arc::clone(&book);
            askers.push(sim.spawn_on(n % 2, move || Asker(own, callee)).unwrap());
            callees.push(callee);
        }
        Self { sim, faults, book, askers, callees, next: 0 }
    }

    /// Each asker asks so many questions; returns their numbers, asker by asker.
    fn ask(&mut self, each: u64, span_ns: u64) -> Vec<std::ops::Range<u64>> {
        let (mut first, askers) = (self.next, self.askers.clone());
        let asked = askers.into_iter().map(|asker| {
            let go = Go(first, each, span_ns);
            let sent = self.sim.run_on(asker.shard(), move |cx| asker.try_send(cx, go).is_ok());
            assert!(sent.unwrap());
            first += each;
            first - each..first
        });
        let asked = asked.collect();
        self.next = first;
        asked
    }

    fn rest(&mut self) {
        self.sim.run_until_idle().unwrap();
    }

    fn ends(&self, questions: std::ops::Range<u64>, how: &str) -> usize {
        let book = self.book.lock().unwrap();
        questions.filter(|n| book.ended[n] == [how]).count()
    }

    /// Nothing is held but the agents, every question has ended once, and what was sent is accounted for.
    fn assert_clean(&mut self) {
        let slots = self.askers.len() as u64;
        for held in self.sim.held() {
            assert_eq!(Held { cancels: 0, ..held }, Held { slots, ..Held::default() });
        }
        let book = self.book.lock().unwrap();
        assert_eq!(book.ended.len() as u64, self.next);
        assert!(book.ended.values().all(|ends| ends.len() == 1), "one end each");
        assert!(book.handled.values().all(|&times| times == 1), "none is handled twice");
        for wrong in ["answered for another", "expired early", "told of the loss"] {
            assert_eq!(book.count(wrong), 0, "{wrong}");
        }
        drop(book);
        let stats = self.sim.stats();
        assert_closes(&stats);
        let dropped: u64 = stats.iter().map(|s| s.link_dropped).sum();
        assert_eq!(dropped, self.faults.dropped());
    }
}

fn fault(rng: &mut Rng) -> LinkFault {
    LinkFault {
        loss_ppm: rng.one_of(&[0, 10_000, 300_000, 1_000_000]),
        delay_ns: rng.one_of(&[0, 0, MS / 2, 30 * MS]),
        from: rng.one_of(&[0, 0, 1, 2]),
        share_permille: rng.one_of(&[0, 333, 700]),
    }
}

#[test]
fn under_every_fault_asks_end_once_and_nothing_leaks() {
    let (mut dropped, mut delayed, mut expired, mut answered) = (0, 0, 0, 0);
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(seed, 6, Faults::drawn(&mut rng));
        for _ in 0..4 {
            // A setting may come in the middle of what another one has begun.
            world.faults.set(fault(&mut rng));
            world.ask(5, 10 * MS);
            world.sim.run_for(rng.up_to(40 * MS)).unwrap();
        }
        world.faults.heal();
        world.rest();
        world.assert_clean();
        let before = world.faults.dropped();
        for asked in world.ask(5, 60_000 * MS) {
            world.rest();
            assert_eq!(world.ends(asked, "answered"), 5, "seed {seed}: whole again");
        }
        world.assert_clean();
        assert_eq!(world.faults.dropped(), before);
        let book = world.book.lock().unwrap();
        (dropped, delayed) = (dropped + before, delayed + world.faults.delayed());
        (expired, answered) = (expired + book.count("expired"), answered + book.count("answered"));
        drop(book);
        assert!(world.sim.shutdown().unwrap().shards.iter().all(|shard| shard.drained));
    }
    assert!(dropped > 500 && delayed > 500, "{dropped} dropped, {delayed} delayed");
    assert!(expired > 500 && answered > 2_000, "{expired} expired, {answered} answered");
}

#[test]
fn a_run_with_faulty_links_repeats_and_links_without_faults_change_nothing() {
    let run = |links: bool, fault: LinkFault| {
        let book = Shared::default();
        let faults = Arc::new(LinkFaults::new(7));
        faults.set(fault);
        let config = if links { config(&faults) } else { Config::default() };
        let mut sim = Simulation::new(7, config, 2, Faults::drawn(&mut Rng::new(7))).unwrap();
        let (theirs, own) = (Arc::clone(&book), Arc::clone(&book));
        let callee = sim.spawn_on(1, move || Callee(theirs)).unwrap();
        let asker = sim.spawn_on(0, move || Asker(own, callee)).unwrap();
        sim.run_on(0, move |cx| asker.try_send(cx, Go(0, 50, 5 * MS)).is_ok()).unwrap();
        sim.run_until_idle().unwrap();
        (sim.trace_hash(), sim.stats(), faults.dropped())
    };
    let none = run(false, LinkFault::default());
    assert_eq!(run(true, LinkFault::default()), none);
    let loss = LinkFault { loss_ppm: 400_000, ..LinkFault::default() };
    assert_eq!(run(true, loss), run(true, loss));
    assert!(run(true, loss).2 > 10 && none.2 == 0);
}

#[test]
fn a_cut_one_way_lets_questions_through_and_no_answers() {
    let mut world = World::new(3, 2, Faults::NONE);
    // Asker 0 lives on shard 0 and asks shard 1; asker 1 the other way.
    world.faults.set(LinkFault { from: 1, ..LinkFault::CUT });
    let asked = world.ask(4, 10 * MS);
    world.rest();
    assert_eq!(
        world.ends(asked[0].clone(), "expired") + world.ends(asked[1].clone(), "expired"),
        8
    );
    let handled: Vec<u64> = world.book.lock().unwrap().handled.keys().copied().collect();
    assert_eq!(handled, asked[1].clone().collect::<Vec<_>>(), "only what came from shard 1");
    world.assert_clean();
}

#[test]
fn a_share_of_the_agents_is_cut_off_and_the_others_do_not_notice() {
    let mut world = World::new(4, 60, Faults::NONE);
    world.faults.set(LinkFault { share_permille: 333, ..LinkFault::CUT });
    let asked = world.ask(3, 10 * MS);
    world.rest();
    let expired: Vec<usize> = asked.into_iter().map(|asked| world.ends(asked, "expired")).collect();
    assert!(expired.iter().all(|&n| n == 0 || n == 3), "a pair is cut off or not: {expired:?}");
    let cut = expired.iter().filter(|&&n| n == 3).count();
    // Either end of a pair may be chosen: 1 - (2/3)^2 of the pairs.
    assert!((18..=48).contains(&cut), "{cut} of 60");
    world.assert_clean();
}

/// Posts letters `range` from shard 0; returns how many were taken.
fn letters(world: &mut World, range: std::ops::Range<u64>) -> usize {
    let callee = world.callees[0];
    assert_eq!(callee.shard(), 1);
    let send = move |cx: &mut Cx<'_>| {
        range.filter(|&n| callee.try_send(cx, Ask::Letter(n)).is_ok()).count()
    };
    world.sim.run_on(0, send).unwrap()
}

#[test]
fn what_is_delayed_keeps_its_order_through_every_change_and_arrives_after_the_heal() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut world = World::new(seed, 1, Faults::drawn(&mut rng));
        let mut sent = 0;
        for round in 0..20 {
            let delay_ns = rng.one_of(&[0, 2 * MS, 1_000_000 * MS]);
            let (from, share_permille) = (rng.one_of(&[0, 1, 2]), rng.one_of(&[0, 500, 900]));
            world.faults.set(LinkFault { delay_ns, from, share_permille, loss_ppm: 0 });
            // Those that find the mailbox full are handed back.
            sent += letters(&mut world, 2 * round..2 * round + 2);
            world.sim.run_for(rng.up_to(3 * MS)).unwrap();
        }
        world.faults.heal();
        world.rest();
        let book = world.book.lock().unwrap();
        let came = &book.letters;
        assert!(came.is_sorted_by(|a, b| a < b), "seed {seed}: {came:?}");
        assert!(came.len() == sent && sent > 10, "seed {seed}: {} of {sent}", came.len());
        drop(book);
        world.assert_clean();
    }
}

#[test]
fn a_link_keeps_as_many_as_its_bound_and_gives_the_places_of_the_others_back() {
    let (faults, book) = (Arc::new(LinkFaults::new(1)), Shared::default());
    let limits = Config { link_delayed_max: 8, ..config(&faults) };
    let mut sim = Simulation::new(1, limits, 2, Faults::NONE).unwrap();
    let theirs = Arc::clone(&book);
    let callee = sim.spawn_on(1, move || Callee(theirs)).unwrap();
    let send = move |cx: &mut Cx<'_>| {
        (0..12).filter(|&n| callee.try_send(cx, Ask::Letter(n)).is_ok()).count()
    };
    faults.set(LinkFault { delay_ns: u64::MAX, ..LinkFault::default() });
    assert_eq!(sim.run_on(0, send), Ok(12));
    sim.run_for(5 * MS).unwrap();
    assert_eq!((faults.delayed(), faults.overflowed(), faults.dropped()), (8, 4, 0));
    assert_closes(&sim.stats());
    assert!(book.lock().unwrap().letters.is_empty());
    faults.heal();
    sim.run_for(5 * MS).unwrap();
    assert_eq!(book.lock().unwrap().letters, (0..8).collect::<Vec<_>>());
    assert_eq!(sim.run_on(0, send), Ok(12), "every place is free again");
    sim.run_until_idle().unwrap();
    assert_eq!(book.lock().unwrap().letters.len(), 20);
    assert_closes(&sim.stats());
}

#[test]
fn a_cut_gives_every_place_back() {
    let mut world = World::new(5, 1, Faults::NONE);
    world.faults.set(LinkFault::CUT);
    for _ in 0..50 {
        assert_eq!(letters(&mut world, 0..12), 12, "of 16 places");
        world.sim.run_for(MS).unwrap();
    }
    world.rest();
    assert_eq!(world.faults.dropped(), 600);
    world.assert_clean();
    assert!(world.book.lock().unwrap().letters.is_empty());
}

/// A place that an agent has left finds the short way to it by a marker behind what it has passed on; were that lost, it
/// would hold all that comes for ever.
#[test]
fn where_an_agent_has_lived_leads_on_after_a_cut() {
    for seed in 0..20 {
        let mut world = World::new(seed, 1, Faults::drawn(&mut Rng::new(seed)));
        let first = world.callees[0];
        let mut home = first;
        world.faults.set(LinkFault { loss_ppm: 500_000, delay_ns: MS, ..LinkFault::default() });
        for round in 0..6 {
            // One that has messages in hand is moved a little later.
            let moved = (0..100).find_map(|_| {
                world.sim.run_for(MS / 10).unwrap();
                world.sim.move_agent(home, (home.shard() + 1) % 2).ok()
            });
            home = moved.unwrap();
            letters(&mut world, round * 8..round * 8 + 8);
            world.sim.run_for(3 * MS).unwrap();
        }
        world.faults.heal();
        world.rest();
        let before = world.book.lock().unwrap().letters.len();
        assert_eq!(letters(&mut world, 100..108), 8, "seed {seed}: every place is free");
        world.rest();
        let book = world.book.lock().unwrap();
        assert_eq!(book.letters[before..], (100..108).collect::<Vec<_>>(), "seed {seed}");
        drop(book);
        assert_closes(&world.sim.stats());
        assert!(world.faults.dropped() > 0);
    }
}

#[test]
fn an_end_does_not_wait_for_a_delay_and_drains_behind_a_cut() {
    for wrong in [
        LinkFault { delay_ns: u64::MAX, ..LinkFault::default() },
        LinkFault { share_permille: 500, ..LinkFault::CUT },
        LinkFault::CUT,
    ] {
        for seed in 0..10 {
            let mut world = World::new(seed, 8, Faults::drawn(&mut Rng::new(seed)));
            world.faults.set(wrong);
            // One each: a drain does not wait for what agents will send later.
            world.ask(1, 20 * MS);
            let sent = letters(&mut world, 0..4);
            let report = world.sim.shutdown().unwrap();
            assert!(report.shards.iter().all(|shard| shard.drained), "{wrong:?}: {report:?}");
            let came = world.book.lock().unwrap().letters.len();
            assert!(came == sent || wrong.loss_ppm > 0, "{came} of {sent} letters");
            assert_closes(&world.sim.stats());
        }
    }
}

/// Two real shards.
fn real(faults: &Arc<LinkFaults>) -> Option<Runtime> {
    start(config(faults)).filter(|runtime| runtime.shards() > 1)
}

struct Pair {
    runtime: Runtime,
    book: Shared,
    asker: Addr<Asker>,
    callee: Addr<Callee>,
}

impl Pair {
    fn new(faults: &Arc<LinkFaults>) -> Option<Self> {
        let (runtime, book) = (real(faults)?, Shared::default());
        let (theirs, own) = (Arc::clone(&book), Arc::clone(&book));
        let callee = runtime.spawn_on(1, move || Callee(theirs)).unwrap();
        let asker = runtime.spawn_on(0, move || Asker(own, callee)).unwrap();
        Some(Self { runtime, book, asker, callee })
    }

    fn ask(&self, go: Go) {
        let asker = self.asker;
        assert!(self.runtime.run_on(0, move |cx| asker.try_send(cx, go).is_ok()).unwrap());
    }

    fn wait_for(&self, ends: usize) {
        eventually("all have ended", || self.book.lock().unwrap().ended.len() >= ends);
    }
}

#[test]
fn a_cut_of_two_real_shards_expires_asks_and_the_heal_answers_all() {
    let faults = Arc::new(LinkFaults::new(5));
    let Some(pair) = Pair::new(&faults) else { return };
    pair.ask(Go(0, 20, 10_000 * MS));
    pair.wait_for(20);
    assert_eq!((faults.dropped(), faults.delayed()), (0, 0));
    faults.set(LinkFault::CUT);
    pair.ask(Go(20, 30, 10 * MS));
    pair.wait_for(50);
    faults.heal();
    pair.ask(Go(50, 50, 10_000 * MS));
    pair.wait_for(100);
    let book = pair.book.lock().unwrap();
    let ends = |range| book.ended.range::<u64, std::ops::Range<u64>>(range);
    assert!(ends(20..50).all(|(_, ends)| *ends == ["expired"]), "{:?}", book.ended);
    assert!(ends(0..20).chain(ends(50..100)).all(|(_, ends)| *ends == ["answered"]));
    assert!(book.handled.values().all(|&times| times == 1) && book.handled.len() == 70);
    drop(book);
    assert_eq!(faults.dropped(), 30);
    let runtime = &pair.runtime;
    eventually("closes", || runtime.stats().iter().map(|s| s.link_dropped).sum::<u64>() == 30);
    eventually("no slot leaks", || runtime.stats().iter().all(|s| s.asks_open == 0));
    assert!(pair.runtime.shutdown().shards.iter().all(|shard| shard.drained));
}

#[test]
fn a_delay_of_real_shards_is_as_long_as_it_says_keeps_order_and_ends_with_the_heal() {
    let faults = Arc::new(LinkFaults::new(6));
    let Some(pair) = Pair::new(&faults) else { return };
    let callee = pair.callee;
    let send = move |cx: &mut Cx<'_>| {
        (0..10).filter(|&n| callee.try_send(cx, Ask::Letter(n)).is_ok()).count()
    };
    let came = || pair.book.lock().unwrap().letters.clone();
    faults.set(LinkFault { delay_ns: 20 * MS, ..LinkFault::default() });
    let from_ns = tailbeam_runtime::clock::monotonic_ns();
    assert_eq!(pair.runtime.run_on(0, send), Ok(10));
    eventually("all came", || came().len() == 10);
    assert!(tailbeam_runtime::clock::monotonic_ns() - from_ns >= 20 * MS);
    faults.set(LinkFault { delay_ns: u64::MAX, ..LinkFault::default() });
    assert_eq!(pair.runtime.run_on(0, send), Ok(10));
    eventually("all wait", || faults.delayed() == 20);
    std::thread::park_timeout(Duration::from_millis(5));
    assert_eq!(came().len(), 10);
    faults.heal();
    eventually("all came", || came().len() == 20);
    assert_eq!(came(), (0..10).chain(0..10).collect::<Vec<_>>());
    // One that ends with messages on its links gives them to their agents.
    faults.set(LinkFault { delay_ns: u64::MAX, ..LinkFault::default() });
    assert_eq!(pair.runtime.run_on(0, send), Ok(10));
    let Pair { runtime, book, .. } = pair;
    let report = runtime.shutdown();
    assert!(report.shards.iter().all(|shard| shard.drained), "{report:?}");
    assert_eq!(book.lock().unwrap().letters.len(), 30);
}

/// A thread that is lost by a mistake of the runtime's own takes its agents along, and nobody waits for it for ever.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
#[test]
fn a_shard_that_panics_is_gone_and_the_others_and_the_shutdown_do_not_wait_for_it() {
    let faults = Arc::new(LinkFaults::new(1));
    let config = Config { link_faults: Some(Arc::clone(&faults)), ..Config::default() };
    let Some(runtime) = start(config) else { return };
    if runtime.shards() < 2 {
        eprintln!("SKIPPED: one core");
        return;
    }
    let book = Shared::default();
    let made = Arc::clone(&book);
    let near = runtime.spawn_on(1, move || Callee(made)).unwrap();
    let made = Arc::clone(&book);
    let asker = runtime.spawn_on(0, move || Asker(made, near)).unwrap();
    faults.end_shard(0);
    // What it sends itself is no look at another shard; the answers are.
    let _ = runtime.run_on(0, move |cx| asker.try_send(cx, Go(0, 10, 100 * MS)).is_ok());
    eventually("the shard has ended", || runtime.run_on(0, |_| ()).is_err());
    assert!(runtime.run_on(1, |_| ()).is_ok(), "the other has not");
    let report = runtime.shutdown();
    assert!(!report.shards[0].drained && report.shards[1].drained, "{report:?}");
}
