//! Bugs that a review found, each as a program of a few lines under simulation. The name of a test is what was
//! wrong; the comment says how.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::pin::pin;
use std::task::Poll;

use tailbeam_runtime::sim::{Faults, Simulation};
use tailbeam_runtime::{
    Addr, Agent, ChildSpec, Config, Cx, Down, Intensity, MoveError, Placement, Reply, Restart,
    Stop, Supervision, Supervisor, SupervisorMsg,
};

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
    assert_eq!(
        sim.run_on(1, move |cx| gone.try_send(cx, Throw::FromDrop(Bomb(3))).is_ok()),
        Ok(true)
    );
    sim.run_until_idle().expect("no wake is lost");
    assert!(sim.run_on(0, |_| resume_unwind(Box::new(Bomb(2)))).is_err());
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

thread_local! {
    static KEPT: Cell<Option<Reply<u32>>> = const { Cell::new(None) };
}

/// Asks an agent, and drops the ask after some time, ns; `then` is what the agent does with the reply.
fn ask_for(
    cx: &mut Cx<'_>,
    to: Addr<Doer<false>>,
    ns: u64,
    then: impl FnOnce(&mut Cx<'_>, Reply<u32>) + Send + 'static,
) -> Result<(), Stop> {
    let run = async move |cx: &mut Cx<'_>| {
        let now_ns = cx.fresh_ns();
        let make = |reply| -> Deed {
            Box::new(move |cx: &mut Cx<'_>| {
                then(cx, reply);
                Ok(())
            })
        };
        let mut asked = pin!(cx.ask(to, now_ns + 1_000_000_000, make));
        let mut slept = pin!(cx.sleep_until(now_ns + ns));
        std::future::poll_fn(|context| {
            let answered = asked.as_mut().poll(context).is_ready();
            if answered { Poll::Ready(()) } else { slept.as_mut().poll(context).map(drop) }
        })
        .await;
    };
    cx.spawn_with(run).map_err(|_| Stop)
}

fn cancels(sim: &Simulation) -> Vec<u64> {
    sim.held().iter().map(|held| held.cancels).collect()
}

/// What a callee was told of a dropped ask stayed there when its message had been handled, and could be taken for
/// a later ask of the same slot.
#[test]
fn the_cancel_of_an_ask_outlived_its_reply() {
    let mut sim = start(3, Config::default());
    let [callee, asker, other] =
        [0, 1, 2].map(|n| sim.spawn_on(n, || Doer::<false>).expect("room"));
    // The reply is used, or dropped, by its callee or elsewhere, when the ask is cancelled.
    for (used_on, dropped) in [(callee, false), (callee, true), (other, false), (other, true)] {
        let keep = |_: &mut Cx<'_>, reply| KEPT.set(Some(reply));
        send(&mut sim, asker, move |cx| ask_for(cx, callee, 1_000_000, keep));
        sim.run_for(10_000_000).expect("no wake is lost");
        assert_eq!(cancels(&sim), [1, 1, 0], "the reply lives");
        send(&mut sim, used_on, move |cx| {
            let reply = KEPT.take().ok_or(Stop)?;
            if used_on == callee {
                assert!(reply.is_cancelled(cx), "it was told");
            }
            if !dropped {
                assert!(reply.send(cx, 1).is_ok());
            }
            Ok(())
        });
        sim.run_for(10_000_000).expect("no wake is lost");
        assert_eq!(cancels(&sim), [0, 0, 0]);
    }
    // The message is skipped.
    send(&mut sim, asker, move |cx| ask_for(cx, callee, 0, |_, _| see(1)));
    sim.run_for(10_000_000).expect("no wake is lost");
    assert_eq!((cancels(&sim), SEEN.get(), sim.stats()[0].asks_skipped), (vec![0; 3], 0, 1));
}

/// A cancel and an answer that met each other on their way left the cancel behind.
#[test]
fn a_cancel_that_met_the_answer_stayed() {
    for seed in 0..60 {
        let faults = Faults { bell_delay_max_ns: 200_000, ..Faults::NONE };
        let mut sim = Simulation::new(seed, Config::default(), 2, faults).expect("starts");
        let [callee, asker] = [0, 1].map(|n| sim.spawn_on(n, || Doer::<false>).expect("room"));
        for _ in 0..5 {
            let answer = |cx: &mut Cx<'_>, reply: Reply<u32>| _ = reply.send(cx, 1);
            send(&mut sim, asker, move |cx| ask_for(cx, callee, 1 + 20_000 * seed, answer));
            sim.run_for(10_000_000).expect("no wake is lost");
        }
        assert_eq!(cancels(&sim), [0, 0], "{seed}");
    }
}

/// Answers, whoever asks.
struct Wide;

impl Agent for Wide {
    type Msg = Reply<u32>;
    const MAILBOX: u32 = 1_000;

    async fn on(&mut self, reply: Reply<u32>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        see(1);
        let _ = reply.send(cx, 1);
        Ok(())
    }
}

/// Asks that are dropped at once have one slot after each other, and a message carries 8 bits of their number: those
/// that a callee cannot tell apart are not told of.
#[test]
fn cancels_of_one_slot_are_as_many_as_can_be_told_apart() {
    let mut sim = start(2, Config::default());
    let callee = sim.spawn_on(0, || Wide).expect("room");
    let asker = sim.spawn_on(1, || Doer::<false>).expect("room");
    have(&mut sim, asker, move |cx| {
        (0..1_000).for_each(|_| drop(cx.ask(callee, u64::MAX, |reply| reply)));
        Ok(())
    });
    let stats = sim.stats();
    let (skipped, refused) = (stats[0].asks_skipped, stats[1].cancels_refused);
    assert_eq!((skipped, refused, SEEN.get()), (128, 872, 872));
    assert_eq!(cancels(&sim), [0, 0]);
}

fn begin(sim: &mut Simulation, plan: Supervision, children: Vec<ChildSpec>) -> Addr<Supervisor> {
    let begun = sim.run_on(0, move |cx| cx.supervise(plan, children).ok());
    sim.run_until_idle().expect("no wake is lost");
    begun.expect("lives").expect("room")
}

thread_local! {
    static ADDED: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Adds a child; whether there was a place for it. One that is refused must come back.
fn add(sim: &mut Simulation, to: Addr<Supervisor>, spec: ChildSpec) -> bool {
    let run = async move |cx: &mut Cx<'_>| {
        let deadline_ns = cx.fresh_ns() + 1_000_000_000;
        let spec = Box::new(spec.named("added"));
        let asked = cx.ask(to, deadline_ns, |reply| SupervisorMsg::Add(spec, reply)).await;
        let added = asked.expect("it goes on").map_err(|error| format!("{:?}", error.spec));
        assert!(added.as_ref().err().is_none_or(|spec| spec.contains("added")));
        ADDED.set(Some(added.is_ok()));
    };
    assert_eq!(sim.run_on(1, move |cx| cx.spawn_with(run).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    ADDED.take().expect("it was answered")
}

fn live(sim: &Simulation) -> u64 {
    sim.stats().iter().map(|stats| stats.live_agents).sum()
}

/// One child more than there may be relations: it was started in vain until the tree gave up, and who had added it
/// was not told.
#[test]
fn a_child_without_a_place_ended_its_tree() {
    let mut sim = start(2, Config { relations_max: 2, ..Config::default() });
    let child = || ChildSpec::new(|| Doer::<false>);
    let supervisor = begin(&mut sim, Supervision::default(), vec![child()]);
    assert!(add(&mut sim, supervisor, child().at(Placement::Shard(1))));
    assert!(!add(&mut sim, supervisor, child()), "there are two");
    assert_eq!((live(&sim), sim.stats()[0].killed), (3, 0));
    let first = sim.run_on(1, |cx| cx.find::<Doer<false>>("added")).expect("lives");
    have(&mut sim, first.expect("it was started"), panics);
    assert_eq!((live(&sim), sim.stats()[1].restarted), (3, 1), "the tree goes on");
}

/// The places of children that had ended for good were never given to others.
#[test]
fn children_that_had_ended_kept_their_places() {
    let mut sim = start(2, Config { relations_max: 1, ..Config::default() });
    let supervisor = begin(&mut sim, Supervision::default(), Vec::new());
    for (count, restart) in (1..20).zip([Restart::Temporary, Restart::Transient].iter().cycle()) {
        assert!(add(&mut sim, supervisor, ChildSpec::new(|| Doer::<false>).restart(*restart)));
        let child = sim.run_on(0, |cx| cx.find::<Doer<false>>("added")).expect("lives");
        have(&mut sim, child.expect("it was started"), |_| Err(Stop));
        assert_eq!((live(&sim), sim.stats()[0].stopped), (1, count));
    }
    // Of all that there were none is a child any more.
    let run = async move |cx: &mut Cx<'_>| {
        let deadline_ns = cx.fresh_ns() + 1_000_000_000;
        let children = cx.ask(supervisor, deadline_ns, SupervisorMsg::Children).await;
        see(children.map_or(99, |children| children.len() as u64));
    };
    assert_eq!(sim.run_on(0, move |cx| cx.spawn_with(run).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(SEEN.get(), 0);
}

fn sent(sim: &Simulation) -> u64 {
    sim.stats().iter().map(|stats| stats.messages_sent_remote).sum()
}

/// A message to the first address of an agent took as many hops as the agent had moved, for ever.
#[test]
fn a_message_to_an_old_address_took_every_hop_of_the_way() {
    let mut sim = start(6, Config { relations_max: 5, ..Config::default() });
    let first = sim.spawn_on(0, || Doer::<false>).expect("room");
    let mut agent = first;
    for shard in 1..6 {
        agent = sim.move_agent(agent, shard).expect("idle");
        sim.run_until_idle().expect("no wake is lost");
    }
    // Two are sent at once: the second waits until the way of the first is over.
    for (expected, exact) in [(12, false), (2, true)] {
        let before = sent(&sim);
        (0..2).for_each(|_| {
            send(&mut sim, first, |_| {
                see(1);
                Ok(())
            })
        });
        sim.run_until_idle().expect("no wake is lost");
        let hops = sent(&sim) - before;
        assert!(if exact { hops == expected } else { hops >= expected - 1 }, "{hops}");
    }
    let kept = |sim: &Simulation| sim.stats().iter().map(|stats| stats.places_kept).sum::<u64>();
    assert_eq!((SEEN.get(), kept(&sim)), (4, 5));
    assert_eq!(sim.move_agent(agent, 0), Err(MoveError::Full { max: 5 }), "places are bounded");
    have(&mut sim, agent, |_| Err(Stop));
    assert_eq!((kept(&sim), sim.held().iter().map(|held| held.slots).sum::<u64>()), (0, 0));
}

/// Numbers that came to two addresses, in their order for each.
struct Order {
    last: [u64; 2],
}

impl Agent for Order {
    type Msg = (usize, u64);
    const MAILBOX: u32 = 4;

    async fn on(&mut self, (via, number): (usize, u64), cx: &mut Cx<'_>) -> Result<(), Stop> {
        assert_eq!(number, self.last[via] + 1, "in order");
        self.last[via] = number;
        see(1);
        if number % 3 == 0 {
            let until_ns = cx.fresh_ns() + 30_000;
            cx.sleep_until(until_ns).await.map_err(|_| Stop)?;
        }
        Ok(())
    }
}

/// What waits for a shorter way keeps its order, whoever is slow.
#[test]
fn a_shorter_way_keeps_the_order() {
    for seed in 0..30 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 100_000, ..Faults::NONE };
        let config = Config { peer_ring_slots: 2, control_slots: 2, ..Config::default() };
        let mut sim = Simulation::new(seed, config, 4, faults).expect("starts");
        let mut agent = sim.spawn_on(0, || Order { last: [0; 2] }).expect("room");
        let addresses = [agent, sim.move_agent(agent, 1).expect("idle")];
        agent = addresses[1];
        let (mut numbers, mut moves) = ([0; 2], 0);
        for round in 0..400 {
            let via = round % 2;
            let (to, number) = (addresses[via], numbers[via] + 1);
            let sent = sim.run_on(3, move |cx| to.try_send(cx, (via, number)).is_ok());
            numbers[via] += u64::from(sent.expect("lives"));
            if let Ok(moved) = sim.move_agent(agent, round % 4) {
                (agent, moves) = (moved, moves + 1);
            }
        }
        sim.run_until_idle().expect("no wake is lost");
        let panicked: u64 = sim.stats().iter().map(|stats| stats.panicked).sum();
        assert_eq!((SEEN.get(), panicked), (numbers[0] + numbers[1], 0), "{seed}");
        assert!(moves > 20, "{moves}");
    }
}

/// Two that trap exits on different shards, one of which has moved: its addresses.
fn pair(sim: &mut Simulation) -> (Addr<Doer<true>>, [Addr<Doer<true>>; 2]) {
    let one = sim.spawn_on(0, || Doer::<true>).expect("room");
    let first = sim.spawn_on(1, || Doer::<true>).expect("room");
    let moved = sim.move_agent(first, 2).expect("idle");
    sim.run_until_idle().expect("no wake is lost");
    (one, [first, moved])
}

/// Which address a link was made or ended with, and who had moved since, decided what was left of it.
#[test]
fn a_link_was_known_by_an_address() {
    for case in 0..32 {
        let bit = move |n: usize| case >> n & 1;
        let mut sim = start(3, Config { relations_max: 3, ..Config::default() });
        let (one, two) = pair(&mut sim);
        // More often than there may be relations: none is left behind.
        for _ in 0..6 {
            have(&mut sim, one, move |cx| cx.link(two[bit(0)]).map_err(|_| Stop));
            if bit(1) == 1 {
                have(&mut sim, two[1], move |cx| cx.link(one).map_err(|_| Stop));
            }
            if bit(2) == 1 {
                have(&mut sim, one, move |cx| {
                    cx.unlink(two[bit(3)]);
                    Ok(())
                });
            } else {
                have(&mut sim, two[1], move |cx| {
                    cx.unlink(one);
                    Ok(())
                });
            }
        }
        assert_eq!((SEEN.get(), live(&sim)), (0, 2), "{case}: no relation was one too many");
        if bit(4) == 1 {
            have(&mut sim, one, panics);
        } else {
            have(&mut sim, two[1], panics);
        }
        assert_eq!((SEEN.get(), live(&sim)), (0, 1), "{case}: they were not linked");
    }
}

/// An end that refused a link named itself by another address than the one that it was known by: nobody was told.
#[test]
fn a_link_that_was_refused_was_not_told() {
    let mut sim = start(3, Config { relations_max: 4, ..Config::default() });
    let (one, two) = pair(&mut sim);
    for n in 0..3 {
        let name = format!("{n}");
        have(&mut sim, two[1], move |cx| cx.register::<Doer<true>>(&name).map_err(|_| Stop));
    }
    have(&mut sim, one, move |cx| cx.link(two[0]).map_err(|_| Stop));
    assert_eq!(SEEN.get(), 1, "it has no room for one more");
}

/// Both link each other at once, more than once, and one ends: the other is told once.
#[test]
fn links_that_met_on_their_way_were_two() {
    for seed in 0..100 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 100_000, ..Faults::NONE };
        let mut sim = Simulation::new(seed, Config::default(), 3, faults).expect("starts");
        let (one, two) = pair(&mut sim);
        for _ in 0..=seed % 3 {
            let deed = |with: Addr<Doer<true>>| -> Deed {
                Box::new(move |cx: &mut Cx<'_>| cx.link(with).map_err(|_| Stop))
            };
            let (mine, theirs) = (deed(two[usize::from(seed % 2 == 0)]), deed(one));
            sim.post_on(0, move |cx| assert!(one.try_send(cx, mine).is_ok()));
            sim.post_on(2, move |cx| assert!(two[1].try_send(cx, theirs).is_ok()));
            if seed % 4 > 1 {
                sim.run_until_idle().expect("no wake is lost");
            }
        }
        sim.run_until_idle().expect("no wake is lost");
        if seed % 5 == 0 {
            have(&mut sim, one, move |cx| {
                cx.unlink(two[1]);
                Ok(())
            });
        }
        have(&mut sim, two[1], panics);
        assert_eq!(SEEN.get(), u64::from(seed % 5 != 0), "{seed}");
    }
}

/// A link that was made again while the other end failed and was restarted was neither over nor one.
#[test]
fn a_link_to_one_who_had_just_been_restarted_lost_its_end() {
    for seed in 0..100 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 100_000, ..Faults::NONE };
        // The second link waits behind something else, as long as the other fails.
        let config = Config { control_slots: 1, ..Config::default() };
        let mut sim = Simulation::new(seed, config, 2, faults).expect("starts");
        let other = sim.spawn_on(1, || Doer::<false>).expect("room");
        let one = sim.spawn_on(0, || Doer::<true>).expect("room");
        let spec = ChildSpec::new(|| Doer::<false>).named("two").at(Placement::Shard(1));
        begin(&mut sim, Supervision::default(), vec![spec]);
        let two = sim.run_on(0, |cx| cx.find::<Doer<false>>("two")).expect("lives");
        let two = two.expect("it was started");
        have(&mut sim, one, move |cx| cx.link(two).map_err(|_| Stop));
        let again: Deed = Box::new(move |cx| {
            cx.unlink(other);
            cx.link(two).map_err(|_| Stop)
        });
        let fail: Deed = Box::new(panics);
        sim.post_on(0, move |cx| assert!(one.try_send(cx, again).is_ok()));
        sim.post_on(1, move |cx| assert!(two.try_send(cx, fail).is_ok()));
        sim.run_until_idle().expect("no wake is lost");
        assert_eq!(SEEN.get(), 1, "{seed}");
        // Linked again before it was told, or after: that link is over, or one to the new life.
        have(&mut sim, two, panics);
        assert!(SEEN.get() <= 2);
    }
}

/// What an agent tells another core grew with what it did there, as long as that core did not read: a kill twice,
/// a watch that it had ended, a link that it had cut, an agent whose spawn it did not wait for.
#[test]
fn control_to_one_who_does_not_read_grew_for_ever() {
    let config = Config { control_slots: 16, relations_max: 8, ..Config::default() };
    let mut sim = start(2, config);
    let doer = sim.spawn_on(0, || Doer::<false>).expect("room");
    let far = sim.spawn_on(1, || Doer::<true>).expect("room");
    let victim = sim.spawn_on(1, || Doer::<false>).expect("room");
    // In one turn: the other core reads nothing meanwhile.
    have(&mut sim, doer, move |cx| {
        for _ in 0..10_000 {
            let watch = cx.monitor(far).map_err(|_| Stop)?;
            cx.kill(victim.id());
            cx.link(far).map_err(|_| Stop)?;
            cx.link(far).map_err(|_| Stop)?;
            assert!(cx.demonitor(watch));
            cx.unlink(far);
            cx.unlink(far);
            drop(cx.spawn_at(Placement::Shard(1), || Doer::<false>));
        }
        cx.monitor(far).map_err(|_| Stop)?;
        cx.link(far).map_err(|_| Stop)
    });
    let stats = sim.stats();
    assert!(stats[0].control_waiting_max < 64, "{}", stats[0].control_waiting_max);
    assert!(stats[0].control_coalesced > 50_000, "{}", stats[0].control_coalesced);
    assert_eq!((SEEN.get(), stats[1].live_agents), (0, 1), "only the one that it watches");
    // What was last is so: each knows of the other.
    have(&mut sim, doer, panics);
    assert_eq!(SEEN.get(), 1);
    assert!(sim.shutdown().expect("ends").shards.iter().all(|shard| shard.drained));
}

/// A slot of an asker that callees had been told of 128 times was never told of again, though the deadlines of those
/// were over: their replies had never come to an end.
#[test]
fn a_slot_was_full_of_asks_that_were_over() {
    let mut sim = start(2, Config::default());
    let [callee, asker] = [0, 1].map(|n| sim.spawn_on(n, || Doer::<false>).expect("room"));
    let keep = |_: &mut Cx<'_>, reply| std::mem::forget::<Reply<u32>>(reply);
    for _ in 0..128 {
        send(&mut sim, asker, move |cx| ask_for(cx, callee, 1_000_000, keep));
        sim.run_for(5_000_000).expect("no wake is lost");
    }
    assert_eq!(cancels(&sim), [128, 128], "none is over");
    // Time goes by.
    have(&mut sim, asker, |cx| {
        let at_ns = cx.now_ns() + 2_000_000_000;
        cx.notify_at(at_ns, 0).map(drop).map_err(|_| Stop)
    });
    send(&mut sim, asker, move |cx| ask_for(cx, callee, 1_000_000, keep));
    sim.run_for(5_000_000).expect("no wake is lost");
    assert_eq!((cancels(&sim), sim.stats()[1].cancels_refused), (vec![1, 1], 0));
}

/// A child that had moved and ended before its supervisor knew where it lived was neither restarted nor released: word
/// of its start waited on the way from the core where it was made, word of its end came from another one.
#[test]
fn a_child_that_ended_before_it_was_known_was_lost() {
    for restart in [Restart::Permanent, Restart::Temporary] {
        let mut sim = start(3, Config { control_slots: 1, ..Config::default() });
        let spawn =
            |cx: &mut Cx<'_>| (0..500).map_while(|_| cx.spawn(Doer::<false>).ok()).collect();
        let others: Vec<Addr<Doer<false>>> = sim.run_on(0, spawn).expect("lives");
        let spec = ChildSpec::new(|| Doer::<false>).named("child").restart(restart);
        let (spec, plan) = (vec![spec.at(Placement::Shard(1))], Supervision::default());
        assert_eq!(sim.run_on(0, move |cx| cx.supervise(plan, spec).is_ok()), Ok(true));
        let fill = move |cx: &mut Cx<'_>| others.iter().for_each(|other| cx.kill(other.id()));
        assert_eq!(sim.run_on(1, fill), Ok(()));
        let child = loop {
            let child = sim.run_on(1, |cx| cx.find::<Doer<false>>("child")).expect("lives");
            if let Some(child) = child {
                break sim.move_agent(child, 2);
            }
        };
        let child = child.expect("idle");
        send(&mut sim, child, |_| Err(Stop));
        sim.run_until_idle().expect("no wake is lost");
        let slots = sim.held().iter().map(|held| held.slots).sum::<u64>();
        let restarted = sim.stats()[2].restarted;
        let expected = if restart == Restart::Permanent { (2, 3, 1) } else { (1, 1, 0) };
        assert_eq!((live(&sim), slots, restarted), expected, "{restart:?}");
    }
}
