//! The simulation itself: it repeats, it finds what it must find, and it ends.

use std::cell::Cell;

use super::*;
use crate::agent::{Class, Stop};
use crate::error::SendError;

/// Throws a ball back until it has had enough.
struct Player {
    other: Option<Addr<Self>>,
    left: u32,
}

enum Play {
    With(Addr<Player>),
    Ball,
}

thread_local! {
    static BALLS: Cell<u32> = const { Cell::new(0) };
}

impl Agent for Player {
    type Msg = Play;

    async fn on(&mut self, play: Play, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match play {
            Play::With(other) => self.other = Some(other),
            Play::Ball => {
                BALLS.set(BALLS.get() + 1);
                self.left -= 1;
                let other = self.other.ok_or(Stop)?;
                if self.left == 0 {
                    return Err(Stop);
                }
                other.try_send(cx, Play::Ball).map_err(|_| Stop)?;
            }
        }
        Ok(())
    }
}

/// Lets two agents on two shards throw `balls`; each throw finds the other shard asleep.
fn play(seed: u64, faults: Faults, balls: u32) -> Result<(Simulation, u32), Failure> {
    play_by(Config::default(), seed, faults, balls)
}

fn play_by(
    config: Config,
    seed: u64,
    faults: Faults,
    balls: u32,
) -> Result<(Simulation, u32), Failure> {
    BALLS.set(0);
    let mut sim = Simulation::new(seed, config, 2, faults).expect("the limits work");
    let one = sim.spawn_on(0, move || Player { other: None, left: balls })?;
    let two = sim.spawn_on(1, move || Player { other: None, left: balls })?;
    sim.run_on(0, move |cx| {
        let met = one.try_send(cx, Play::With(two)).is_ok();
        met && two.try_send(cx, Play::With(one)).is_ok() && one.try_send(cx, Play::Ball).is_ok()
    })?;
    sim.run_until_idle()?;
    Ok((sim, BALLS.get()))
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let hash = |seed| {
        let faults = Faults::drawn(&mut Rng::new(seed));
        let (mut sim, balls) = play(seed, faults, 100).expect("no wake is lost");
        assert_eq!(balls, 199);
        let report = sim.shutdown().expect("ends");
        (sim.trace_hash(), sim.steps(), sim.now_ns(), report, sim.stats())
    };
    for seed in 0..40 {
        assert_eq!(hash(seed), hash(seed));
        assert_ne!(hash(seed).0, hash(seed + 1).0);
    }
}

#[test]
fn stamps_change_nothing_in_a_run() {
    let run = |turn_stamps, seed| {
        let faults = Faults::drawn(&mut Rng::new(seed));
        let config = Config { turn_stamps, ..Config::default() };
        let (mut sim, balls) = play_by(config, seed, faults, 100).expect("no wake is lost");
        let report = sim.shutdown().expect("ends");
        (sim.trace_hash(), sim.steps(), sim.now_ns(), balls, report, sim.stats())
    };
    (0..40).for_each(|seed| assert_eq!(run(true, seed), run(false, seed), "seed {seed}"));
}

#[test]
fn a_bell_that_vanishes_is_found_as_a_lost_wake() {
    let faults = Faults { bells_lost_ppm: 100_000, ..Faults::NONE };
    for seed in 0..20 {
        let failure = play(seed, faults, 200).expect_err("a bell was lost");
        assert!(matches!(failure, Failure::LostWake { .. }), "{failure}");
        assert!(failure.to_string().contains(&format!("seed {seed}")), "{failure}");
        assert_eq!(play(seed, faults, 200).expect_err("lost again"), failure, "it repeats");
    }
}

#[test]
fn a_stopped_simulation_refuses_and_ends_agents_when_dropped() {
    struct Noisy;
    impl Agent for Noisy {
        type Msg = ();
        async fn on(&mut self, (): (), _: &mut Cx<'_>) -> Result<(), Stop> {
            std::future::pending().await
        }
    }
    impl Drop for Noisy {
        fn drop(&mut self) {
            BALLS.set(BALLS.get() + 1);
        }
    }
    BALLS.set(0);
    let start = || Simulation::new(1, Config::default(), 3, Faults::NONE).expect("starts");
    let mut sim = start();
    let noisy = sim.spawn_on(2, || Noisy).expect("room");
    assert_eq!(sim.run_on(0, move |cx| noisy.try_send(cx, ())), Ok(Ok(())));
    drop(sim);
    assert_eq!(BALLS.get(), 1, "dropped without a shutdown");
    let mut sim = start();
    let report = sim.shutdown().expect("ends");
    assert!(report.shards.iter().all(|shard| shard.drained));
    assert!(matches!(sim.run_on(0, |_| ()), Err(Failure::Stopped { shard: 0, .. })));
    assert!(matches!(sim.run_on(9, |_| ()), Err(Failure::Stopped { shard: 9, .. })));
    assert!(sim.shutdown().is_ok() && sim.run_until_idle().is_ok());
    for shards in [0, 9] {
        assert!(Simulation::new(1, Config::default(), shards, Faults::NONE).is_err());
    }
}

#[test]
fn time_jumps_to_what_comes_next_and_no_timer_is_early() {
    struct Napper;
    impl Agent for Napper {
        type Msg = u64;
        async fn on(&mut self, ns: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
            let until_ns = cx.fresh_ns() + ns;
            cx.sleep_until(until_ns).await.map_err(|_| Stop)?;
            assert!(cx.fresh_ns() >= until_ns);
            Ok(())
        }
    }
    let hour_ns = 3_600_000_000_000;
    for seed in 0..50 {
        let faults = Faults::drawn(&mut Rng::new(seed));
        let mut sim = Simulation::new(seed, Config::default(), 2, faults).expect("starts");
        let napper = sim.spawn_on(1, || Napper).expect("room");
        let sent: Result<(), SendError<u64>> =
            sim.run_on(0, move |cx| napper.try_send(cx, hour_ns)).expect("lives");
        assert_eq!(sent, Ok(()));
        let before = sim.now_ns();
        sim.run_until_idle().expect("no wake is lost");
        assert!(sim.now_ns() >= before + hour_ns - faults.skew_max_ns);
        assert!(sim.steps() < 5_000, "{}", sim.steps());
        assert_eq!((sim.stats()[1].panicked, sim.held()[1].futures_bytes), (0, 0));
    }
}

/// Sends itself a message for ever, and one to another shard.
struct Busy(Addr<Player>);

impl Agent for Busy {
    type Msg = u32;

    async fn on(&mut self, turn: u32, cx: &mut Cx<'_>) -> Result<(), Stop> {
        if turn == 100 {
            self.0.try_send(cx, Play::Ball).map_err(|_| Stop)?;
        }
        cx.me::<Self>().try_send(cx, turn + 1).map_err(|_| Stop)
    }
}

#[test]
fn a_bell_that_a_busy_shard_keeps_back_is_found_as_a_late_wake() {
    let busy = |seed, faults| {
        let mut sim = Simulation::new(seed, Config::default(), 2, faults).expect("starts");
        let player = sim.spawn_on(1, || Player { other: None, left: 1 }).expect("room");
        let busy = sim.spawn_on(0, move || Busy(player)).expect("room");
        sim.run_on(0, move |cx| busy.try_send(cx, 0)).expect("lives").expect("room");
        sim.run_for(1_000_000).map(|()| sim.stats()[1].stopped)
    };
    let all = 1_000_000;
    let short = Faults { submits_short_ppm: all, ..Faults::NONE };
    let unsaid = Faults { shorts_unsaid_ppm: all, ..short };
    for seed in 0..8 {
        assert_eq!(busy(seed, short), Ok(1), "a shard that is told knocks instead");
        assert_eq!(busy(seed, unsaid), Ok(1), "a busy shard enters from time to time");
    }
    let late = Faults { bells_unreached_ppm: all, bells_told_late_ppm: all, ..Faults::NONE };
    let found = (0..8).filter_map(|seed| busy(seed, late).err()).collect::<Vec<_>>();
    assert!(!found.is_empty());
    for failure in found {
        let late = matches!(failure, Failure::LateWake { shard: 1, holder: 0, .. });
        assert!(late, "{failure}");
    }
}

thread_local! {
    static TURNS: Cell<[u32; 3]> = const { Cell::new([0; 3]) };
    static CLOCK: RefCell<Option<Rc<ManualClock>>> = const { RefCell::new(None) };
}

/// What a turn takes by the clock, ns.
const TURN_NS: u64 = 700;

/// Is always ready; by the clock its turns take as long as another's.
struct Eager<const CLASS: usize>;

impl<const CLASS: usize> Agent for Eager<CLASS> {
    type Msg = ();
    const CLASS: Class = [Class::High, Class::Normal, Class::Low][CLASS];

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut turns = TURNS.get();
        turns[CLASS] += 1;
        TURNS.set(turns);
        let clock = CLOCK.with_borrow(Option::clone).expect("the simulation has begun");
        clock.set(clock.peek_ns() + TURN_NS, 0);
        cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)
    }
}

fn begin<const CLASS: usize>(sim: &mut Simulation, wanted: bool) {
    if wanted {
        let eager = sim.spawn_on(0, || Eager::<CLASS>).expect("room");
        let sent = sim.run_on(0, move |cx| eager.try_send(cx, ()).is_ok());
        assert_eq!(sent, Ok(true));
    }
}

/// Turns of each class in 100 ms of simulated time, when these are always ready.
fn turns_of(seed: u64, ready: [bool; 3]) -> [f64; 3] {
    let config = Config { class_shares: [8, 4, 1], ..Config::default() };
    let mut sim = Simulation::new(seed, config, 1, Faults::NONE).expect("the limits work");
    CLOCK.set(Some(Rc::clone(&sim.seats[0].clock)));
    begin::<0>(&mut sim, ready[0]);
    begin::<1>(&mut sim, ready[1]);
    begin::<2>(&mut sim, ready[2]);
    TURNS.set([0; 3]);
    sim.run_for(100_000_000).expect("no wake is lost");
    TURNS.get().map(f64::from)
}

#[test]
fn classes_share_a_core_as_configured_and_one_alone_has_all_of_it() {
    for seed in 0..8 {
        let all @ [high, normal, low] = turns_of(seed, [true; 3]);
        for (ratio, wanted) in [(high / normal, 2.0), (normal / low, 4.0), (high / low, 8.0)] {
            assert!((ratio / wanted - 1.0).abs() < 0.1, "seed {seed}: {all:?}");
        }
        let sum: f64 = all.iter().sum();
        for class in 0..3 {
            let alone = turns_of(seed, std::array::from_fn(|other| other == class));
            assert!(alone[class] > 0.9 * sum, "seed {seed}: {alone:?} of {sum}");
            assert_eq!(alone.iter().filter(|&&turns| turns > 0.0).count(), 1);
        }
    }
}

/// Simulation, seed 370: a core that was taken away in a turn of each of two classes that were ready gave neither a turn
/// for as many rounds as both had to pay for.
#[test]
fn classes_that_are_all_in_debt_do_not_wait_for_each_other() {
    let mut sim = Simulation::new(1, Config::default(), 1, Faults::NONE).expect("starts");
    CLOCK.set(Some(Rc::clone(&sim.seats[0].clock)));
    begin::<1>(&mut sim, true);
    begin::<2>(&mut sim, true);
    sim.run_for(1_000_000).expect("no wake is lost");
    for class in [1, 2] {
        sim.seats[0].shard().expect("lives").owe(class, 200_000_000);
    }
    TURNS.set([0; 3]);
    sim.run_for(1_000_000).expect("no wake is lost");
    let turns = TURNS.get();
    assert!(turns[1] > 1_000, "{turns:?}");
}

thread_local! {
    /// A shard that goes on in the middle of another's turn, as cores do.
    static MEANWHILE: RefCell<Option<Seat>> = const { RefCell::new(None) };
    static NOTED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

enum Act {
    LetTimePass,
    LetOtherGoOn,
    SendBehind,
    Note(&'static str),
}

struct Actor;

impl Agent for Actor {
    type Msg = Act;
    const MAILBOX: u32 = 100;

    async fn on(&mut self, act: Act, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match act {
            Act::LetTimePass => {
                let clock = CLOCK.with_borrow(Option::clone).expect("set");
                clock.set(clock.peek_ns() + 1_000_000, 0);
            }
            Act::LetOtherGoOn => {
                let here = Shard::here().expect("an agent runs");
                MEANWHILE.with_borrow_mut(|seat| {
                    // It wakes, and has a round.
                    seat.iter_mut().for_each(|seat| (0..2).for_each(|_| _ = seat.go_on(0, 0)));
                });
                here.enter();
            }
            Act::SendBehind => cx.me::<Self>().try_send(cx, Act::Note("own")).map_err(|_| Stop)?,
            Act::Note(note) => NOTED.with_borrow_mut(|noted| noted.push(note)),
        }
        Ok(())
    }
}

/// Watches another and does not end.
struct Watcher;

impl Agent for Watcher {
    type Msg = Addr<Far>;

    async fn on(&mut self, far: Addr<Far>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        cx.monitor(far).map_err(|_| Stop)?;
        std::future::pending().await
    }
}

/// Sends a message, and ends.
struct Far;

impl Agent for Far {
    type Msg = Addr<Actor>;

    async fn on(&mut self, to: Addr<Actor>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        to.try_send(cx, Act::Note("far")).map_err(|_| Stop)?;
        Err(Stop)
    }
}

/// What another core sends in the middle of a pass is read in it, and is as old as it is: a notice had the age of the
/// message before it.
#[test]
fn what_comes_in_the_middle_of_a_pass_is_read_in_it_and_is_not_old() {
    NOTED.take();
    let mut sim = Simulation::new(1, Config::default(), 2, Faults::NONE).expect("starts");
    CLOCK.set(Some(Rc::clone(&sim.seats[0].clock)));
    let actor = sim.spawn_on(0, || Actor).expect("room");
    let watcher = sim.spawn_on(0, || Watcher).expect("room");
    let far = sim.spawn_on(1, || Far).expect("room");
    assert_eq!(sim.run_on(0, move |cx| watcher.try_send(cx, far).is_ok()), Ok(true));
    sim.run_until_idle().expect("no wake is lost");
    sim.post_on(1, move |cx| assert!(far.try_send(cx, actor).is_ok()));
    sim.post_on(0, move |cx| {
        // A pass in which time goes by ends before the next.
        let acts =
            [Act::LetTimePass, Act::LetOtherGoOn, Act::Note("1"), Act::Note("2"), Act::SendBehind];
        acts.into_iter().for_each(|act| assert!(actor.try_send(cx, act).is_ok()));
    });
    MEANWHILE.set(sim.seats.pop());
    let seat = &mut sim.seats[0];
    (0..4).for_each(|_| _ = seat.go_on(0, 0));
    assert_eq!(NOTED.take(), ["1", "2", "far", "own"]);
    let account = seat.shard().expect("lives").account(watcher.handle()).expect("lives");
    assert_eq!(account.oldest_ns, Some(0), "it is told that the other has ended");
    sim.seats.extend(MEANWHILE.take());
}
