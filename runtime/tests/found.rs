//! Bugs that random programs found, each as a program of a few lines under simulation. The name of a test is
//! what was wrong; the comment says how.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::pin::pin;
use std::task::Poll;

use tailbeam_runtime::sim::{Faults, Held, Simulation};
use tailbeam_runtime::{
    Addr, Agent, AgentId, AskError, ChildSpec, Class, Config, Cx, Down, MoveError, Placement,
    Reply, Restart, Stop, Strategy, Supervision,
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

/// An answer whose drop panics.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        resume_unwind(Box::new("planned"));
    }
}

/// Keeps a reply until it is told to send it.
#[derive(Default)]
struct Keeper(Option<Reply<Grenade>>);

enum Keep {
    Question(Reply<Grenade>),
    Now,
}

impl Agent for Keeper {
    type Msg = Keep;

    async fn on(&mut self, keep: Keep, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match keep {
            Keep::Question(reply) => self.0 = Some(reply),
            Keep::Now => {
                let reply = self.0.take().ok_or(Stop)?;
                assert!(reply.send(cx, Grenade).is_ok(), "the ring has room");
                see(1);
            }
        }
        Ok(())
    }
}

/// Asks a keeper, in one of several ways.
struct Asker(Addr<Keeper>);

enum Ask {
    /// And drops the future before its first poll.
    Unpolled,
    /// And gives up after this time, ns.
    For(u64),
    /// And ends with its future when this time is over, ns, whatever has come.
    DropAfter(u64),
}

impl Agent for Asker {
    type Msg = Ask;

    async fn on(&mut self, ask: Ask, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now_ns = cx.fresh_ns();
        match ask {
            Ask::Unpolled => drop(cx.ask(self.0, now_ns + 1_000_000_000, Keep::Question)),
            Ask::For(ns) => {
                let asked = cx.ask(self.0, now_ns + ns, Keep::Question).await;
                assert!(matches!(asked, Err(AskError::Expired)), "nobody has answered");
            }
            Ask::DropAfter(ns) => {
                let mut asked = pin!(cx.ask(self.0, now_ns + 10 * ns, Keep::Question));
                let mut slept = pin!(cx.sleep_until(now_ns + ns));
                std::future::poll_fn(|context| {
                    // Polled once; from then on only its slot knows of an answer.
                    if SEEN.get() == 0 {
                        assert!(asked.as_mut().poll(context).is_pending());
                        see(1);
                    }
                    slept.as_mut().poll(context).map(drop)
                })
                .await;
            }
        }
        Ok(())
    }
}

fn ask(sim: &mut Simulation, asker_on: usize, how: Ask) -> Addr<Keeper> {
    let keeper = sim.spawn_on(0, Keeper::default).expect("room");
    let asker = sim.spawn_on(asker_on, move || Asker(keeper)).expect("room");
    let sent = sim.run_on(asker_on, move |cx| asker.try_send(cx, how).is_ok());
    assert_eq!(sent, Ok(true));
    keeper
}

fn answer(sim: &mut Simulation, keeper: Addr<Keeper>) {
    assert_eq!(sim.run_on(0, move |cx| keeper.try_send(cx, Keep::Now).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
}

/// The guard of the slot was made by the first poll.
#[test]
fn an_ask_that_was_never_polled_kept_its_slot() {
    let mut sim = start(1, Config { asks_max: 1, ..Config::default() });
    ask(&mut sim, 0, Ask::Unpolled);
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(sim.held()[0], Held { slots: 2, ..Held::default() });
}

/// It was dropped outside every handler: on another shard that ended the shard, and on its own it ended the
/// agent that had answered.
#[test]
fn a_late_answer_whose_drop_panics_took_the_shard_with_it() {
    for asker_on in [0, 1] {
        let mut sim = start(2, Config::default());
        let keeper = ask(&mut sim, asker_on, Ask::For(1_000_000));
        sim.run_until_idle().expect("no wake is lost");
        answer(&mut sim, keeper);
        assert_eq!(SEEN.get(), 1, "answered");
        let stats = sim.stats();
        assert_eq!((stats[0].panicked, stats[asker_on].dead_letters), (0, 1));
        let report = sim.shutdown().expect("ends");
        assert!(report.shards.iter().all(|shard| shard.drained));
    }
}

/// An answer that lay in the slot of an ask when that was dropped was counted nowhere.
#[test]
fn an_answer_that_came_to_a_dropped_ask_was_not_counted() {
    let mut sim = start(1, Config::default());
    let keeper = ask(&mut sim, 0, Ask::DropAfter(50_000_000));
    sim.run_for(5_000_000).expect("no wake is lost");
    answer(&mut sim, keeper);
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(sim.stats()[0].dead_letters, 1);
}

/// Reads nothing: its handler never ends.
struct Stuck;

impl Agent for Stuck {
    type Msg = u8;

    async fn on(&mut self, _: u8, _: &mut Cx<'_>) -> Result<(), Stop> {
        std::future::poll_fn(|_| Poll::<()>::Pending).await;
        Ok(())
    }
}

#[test]
fn what_waited_at_the_end_was_a_dead_letter_and_undelivered() {
    let mut sim = start(1, Config { drain_ns: 1_000_000, ..Config::default() });
    let stuck = sim.spawn_on(0, || Stuck).expect("room");
    let send = move |cx: &mut Cx<'_>| (0..4).filter(|&n| stuck.try_send(cx, n).is_ok()).count();
    assert_eq!(sim.run_on(0, send), Ok(4));
    sim.run_until_idle().expect("no wake is lost");
    let report = sim.shutdown().expect("ends");
    assert_eq!((report.shards[0].messages_undelivered, sim.stats()[0].dead_letters), (3, 0));
}

/// Sends to itself under the address of another type.
struct Liar;

impl Agent for Liar {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let lie = cx.me::<Stuck>();
        // A mailbox's worth at a time, and more than that over all.
        see(u64::from(lie.try_send(cx, 0).is_ok()));
        if SEEN.get() == 100 { Ok(()) } else { cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop) }
    }
}

/// A message to an agent of another type, from its own shard, counted as unread for ever.
#[test]
fn a_message_to_the_wrong_type_kept_its_place_in_the_mailbox() {
    let mut sim = start(1, Config::default());
    let liar = sim.spawn_on(0, || Liar).expect("room");
    assert_eq!(sim.run_on(0, move |cx| liar.try_send(cx, ()).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!((SEEN.get(), sim.stats()[0].dead_letters, sim.held()[0].credits), (100, 100, 0));
}

/// Naps until the instant that it reads, ns.
struct Napper;

impl Agent for Napper {
    type Msg = u64;
    const MAILBOX: u32 = 2;

    async fn on(&mut self, until_ns: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.sleep_until(until_ns).await.map_err(|_| Stop)
    }
}

/// Acks that found no room in their ring waited for the next work of their shard, which need not come: the
/// mailboxes that they were for stayed full.
#[test]
fn acks_without_room_stayed_behind() {
    let mut sim = start(2, Config { peer_ring_slots: 4, ..Config::default() });
    let nappers: Vec<_> = (0..20).map(|_| sim.spawn_on(1, || Napper).expect("room")).collect();
    let until_ns = sim.now_ns() + 1_000_000_000;
    // The second message of each waits for the end of the first, which is the same for all.
    for &napper in nappers.iter().chain(&nappers) {
        assert_eq!(sim.run_on(0, move |cx| napper.try_send(cx, until_ns)), Ok(Ok(())));
        sim.run_for(1_000_000).expect("no wake is lost");
    }
    sim.run_until_idle().expect("no wake is lost");
    let last = nappers[19];
    let sent = sim.run_on(0, move |cx| [last.try_send(cx, 0), last.try_send(cx, 0)]);
    assert_eq!(sent, Ok([Ok(()), Ok(())]), "it has read what it had");
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

    /// Where a child lives is seen by whoever looks at the thread's last one.
    fn on_started(&mut self, _: u32, _: Option<AgentId>, cx: &mut Cx<'_>) {
        BORN.set(Some(cx.me::<Self>().id()));
    }
}

thread_local! {
    static BORN: Cell<Option<AgentId>> = const { Cell::new(None) };
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

/// A supervisor on shard 0 and its only child.
fn supervise(sim: &mut Simulation, plan: Supervision, restart: Restart) -> Addr<Doer<false>> {
    BORN.set(None);
    let spec = ChildSpec::new(|| Doer::<false>).restart(restart);
    let begun = sim.run_on(0, move |cx| cx.supervise(plan, vec![spec]).is_ok());
    assert_eq!(begun, Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    BORN.get().expect("it was started").addr()
}

/// A supervised agent that ended and was not restarted was counted as killed too, and so was one that could
/// not be moved.
#[test]
fn an_agent_that_was_down_was_counted_as_killed() {
    let mut sim = start(2, Config::default());
    for end in [panics, |_: &mut Cx<'_>| Err(Stop)] {
        let child = supervise(&mut sim, Supervision::default(), Restart::Temporary);
        have(&mut sim, child, end);
    }
    let busy = sim.spawn_on(0, || Stuck).expect("room");
    assert_eq!(sim.run_on(0, move |cx| busy.try_send(cx, 0).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(sim.move_agent(busy, 1), Err(MoveError::Busy));
    sim.run_until_idle().expect("no wake is lost");
    let stats = sim.stats();
    assert_eq!((stats[0].panicked, stats[0].stopped, stats[0].killed), (1, 1, 0));
    assert_eq!((stats[1].spawned, stats[1].live_agents, stats[1].killed), (0, 0, 0));
}

/// The ids of a wheel are numbers that the next wheel gives too.
#[test]
fn a_moved_agent_cancelled_the_timer_of_another() {
    let mut sim = start(2, Config::default());
    let (mover, other) = (sim.spawn_on(0, || Doer::<false>), sim.spawn_on(1, || Doer::<false>));
    let (mover, other) = (mover.expect("room"), other.expect("room"));
    let at_ns = sim.now_ns() + 1_000_000_000;
    let set = move |cx: &mut Cx<'_>| {
        TIMER.set(cx.notify_at(at_ns, 10).ok());
        Ok(())
    };
    send(&mut sim, other, set);
    send(&mut sim, mover, set);
    sim.run_for(1_000_000).expect("no wake is lost");
    let mover = sim.move_agent(mover, 1).expect("idle");
    have(&mut sim, mover, |cx| {
        assert!(!cx.cancel(TIMER.get().expect("set")), "it is in another wheel");
        Ok(())
    });
    assert_eq!((SEEN.get(), sim.stats()[1].panicked), (20, 0));
}

thread_local! {
    static TIMER: Cell<Option<tailbeam_runtime::TimerId>> = const { Cell::new(None) };
}

/// What its supervisor said reached the place it had left, and ended that: the child lived on without a
/// supervisor, and its old address was dead.
#[test]
fn a_supervised_agent_that_had_moved_was_never_released() {
    let mut sim = start(2, Config::default());
    let child = supervise(&mut sim, Supervision::default(), Restart::Temporary);
    let child = sim.move_agent(child, 1).expect("idle");
    sim.run_until_idle().expect("no wake is lost");
    have(&mut sim, child, panics);
    let slots: Vec<u64> = sim.held().iter().map(|held| held.slots).collect();
    assert_eq!((slots, sim.stats()[1].panicked), (vec![1, 0], 1), "the supervisor's");
}

/// Links were to the place where it lived when they were made, and its end was told under the new one.
#[test]
fn a_moved_agent_lost_its_links() {
    for mover_fails in [true, false] {
        let mut sim = start(3, Config::default());
        let other = sim.spawn_on(1, || Doer::<false>).expect("room");
        let teller = sim.spawn_on(1, || Doer::<true>).expect("room");
        let mover = sim.spawn_on(0, || Doer::<false>).expect("room");
        have(&mut sim, mover, move |cx| cx.link(other).map_err(|_| Stop));
        have(&mut sim, teller, move |cx| cx.link(mover).map_err(|_| Stop));
        let moved = sim.move_agent(mover, 2).expect("idle");
        sim.run_until_idle().expect("no wake is lost");
        have(&mut sim, if mover_fails { moved } else { other }, panics);
        let live: u64 = sim.stats().iter().map(|stats| stats.live_agents).sum();
        assert_eq!((SEEN.get(), live), (1, 1), "the one that is told lives");
    }
}

/// Whoever had its new address at once was faster than the agent: a kill was ignored, and a watch or a link was
/// lost when its relations came.
#[test]
fn an_agent_on_its_way_was_deaf() {
    for seed in 0..40 {
        SEEN.set(0);
        let faults = Faults { bell_delay_max_ns: 20_000_000, ..Faults::NONE };
        let mut sim = Simulation::new(seed, Config::default(), 3, faults).expect("starts");
        let watcher = sim.spawn_on(0, || Doer::<true>).expect("room");
        let mover = sim.spawn_on(1, || Doer::<false>).expect("room");
        let mover = sim.move_agent(mover, 2).expect("idle");
        send(&mut sim, watcher, move |cx| {
            cx.monitor(mover).map_err(|_| Stop)?;
            cx.link(mover).map_err(|_| Stop)?;
            cx.kill(mover.id());
            Ok(())
        });
        sim.run_until_idle().expect("no wake is lost");
        let stats = sim.stats();
        assert_eq!((SEEN.get(), stats[2].killed, stats[2].moved), (2, 1, 1), "{seed}");
        assert_eq!(sim.held()[1].slots, 0, "its first place");
    }
}

/// Notes how often a number was smaller than the one before.
struct Reader(u64);

impl Agent for Reader {
    type Msg = u64;
    const MAILBOX: u32 = 1_000;

    async fn on(&mut self, number: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        see(u64::from(number < self.0));
        self.0 = number;
        Ok(())
    }
}

/// Takes a turn of the class before the others', now and then.
struct Urgent;

impl Agent for Urgent {
    type Msg = u32;
    const CLASS: Class = Class::High;

    async fn on(&mut self, left: u32, cx: &mut Cx<'_>) -> Result<(), Stop> {
        // Several passes of its class, and then none.
        cx.fresh_ns();
        if left == 0 { Ok(()) } else { cx.me::<Self>().try_send(cx, left - 1).map_err(|_| Stop) }
    }
}

/// What a ring brought while urgent turns waited had its turn later, and what came next at once.
#[test]
fn messages_of_one_sender_overtook_each_other_after_urgent_turns() {
    for seed in 0..20 {
        SEEN.set(0);
        let faults = Faults { look_max_ns: 10_000, ..Faults::NONE };
        let mut sim = Simulation::new(seed, Config::default(), 2, faults).expect("starts");
        let reader = sim.spawn_on(0, || Reader(0)).expect("room");
        let urgent = sim.spawn_on(0, || Urgent).expect("room");
        for batch in 0..20 {
            sim.post_on(0, move |cx| assert!(urgent.try_send(cx, 20).is_ok()));
            sim.post_on(1, move |cx| {
                let numbers = batch * 40..(batch + 1) * 40;
                numbers.for_each(|n| assert!(reader.try_send(cx, n).is_ok()));
            });
            (0..6).for_each(|_| assert!(sim.step().is_ok()));
        }
        sim.run_until_idle().expect("no wake is lost");
        assert_eq!((SEEN.get(), sim.stats()[0].panicked), (0, 0), "{seed}");
    }
}

/// Tokens that were due already and waited for the handler, or were set where the agent had lived before.
#[test]
fn a_restarted_agent_was_given_tokens_of_its_earlier_life() {
    let mut sim = start(2, Config::default());
    let child = supervise(&mut sim, Supervision::default(), Restart::Permanent);
    let at_ns = sim.now_ns() + 1_000_000_000;
    have(&mut sim, child, |_| Ok(()));
    send(&mut sim, child, move |cx| {
        cx.notify_at(at_ns, 1).map_err(|_| Stop)?;
        Ok(())
    });
    sim.run_for(1_000_000).expect("no wake is lost");
    let child = sim.move_agent(child, 1).expect("idle");
    send(&mut sim, child, panics);
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!((SEEN.get(), sim.stats()[1].restarted), (0, 1));
    let late = ChildSpec::new(|| Late);
    let plan = Supervision::default();
    assert_eq!(sim.run_on(0, move |cx| cx.supervise(plan, vec![late]).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    let late: Addr<Late> = BORN.get().expect("it was started").addr();
    assert_eq!(sim.run_on(0, move |cx| late.try_send(cx, ()).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!((SEEN.get(), sim.stats()[0].restarted), (0, 1));
}

/// Fails when its token has come and waits for the handler.
struct Late;

impl Agent for Late {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now_ns = cx.fresh_ns();
        cx.notify_at(now_ns + 1_000_000, 1).map_err(|_| Stop)?;
        cx.sleep_until(now_ns + 9_000_000).await.map_err(|_| Stop)?;
        panics(cx)
    }

    fn on_timer(&mut self, token: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        see(token);
        Ok(())
    }

    fn on_started(&mut self, _: u32, _: Option<AgentId>, cx: &mut Cx<'_>) {
        BORN.set(Some(cx.me::<Self>().id()));
    }
}

/// One that failed while another was being started on another core: that one was told to end where it did not
/// live yet, and both waited for ever.
#[test]
fn a_child_that_was_to_end_before_its_start_was_known_was_not_told() {
    let mut sim = start(2, Config::default());
    let plan = Supervision { strategy: Strategy::OneForAll, ..Supervision::default() };
    let first = ChildSpec::new(|| Doer::<false>).named("first");
    let late = ChildSpec::new(|| Doer::<false>).named("late").at(Placement::Shard(1));
    let begin = move |cx: &mut Cx<'_>| cx.supervise(plan, vec![first, late]).is_ok();
    assert_eq!(sim.run_on(0, begin), Ok(true));
    for _ in 0..1_000 {
        let found = sim.run_on(0, |cx| cx.find::<Doer<false>>("first")).expect("lives");
        if let Some(first) = found {
            sim.post_on(0, move |cx| cx.kill(first.id()));
            break;
        }
    }
    sim.run_until_idle().expect("no wake is lost");
    let stats = sim.stats();
    assert_eq!((stats[0].restarted, stats[1].restarted), (1, 1));
}

/// Cannot be dropped in peace.
struct Fragile;

impl Agent for Fragile {
    type Msg = ();

    async fn on(&mut self, (): (), _: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        resume_unwind(Box::new("planned"));
    }
}

/// A child that found no room and whose drop panicked was neither started nor given up.
#[test]
fn a_supervisor_waited_for_a_child_that_found_no_room() {
    let mut sim = start(2, Config { agents_max: 1, ..Config::default() });
    sim.spawn_on(1, || Stuck).expect("room");
    let spec = ChildSpec::new(|| Fragile).at(Placement::Shard(1));
    let plan = Supervision::default();
    assert_eq!(sim.run_on(0, move |cx| cx.supervise(plan, vec![spec]).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    assert_eq!(sim.held()[0].slots, 0, "the supervisor has given up");
}
