//! Where the time of a message goes, on clocks that only the test moves: each planted delay moves the instant
//! behind it by exactly as much, and nothing else.

use std::cell::Cell;

use super::*;
use crate::agent::{AgentId, Class, Control, Reply, Stop};
use crate::observe::Queues;
use crate::{Path, poll_path};

thread_local! {
    static CLOCKS: RefCell<Vec<Rc<ManualClock>>> = const { RefCell::new(Vec::new()) };
    static PATHS: RefCell<Vec<Path>> = const { RefCell::new(Vec::new()) };
    static LONG: RefCell<Vec<(AgentId, u64, u64)>> = const { RefCell::new(Vec::new()) };
    /// What each look has found: ready, aside, in rings, unpublished.
    static LOOKS: RefCell<Vec<[u64; 4]>> = const { RefCell::new(Vec::new()) };
    /// When the next look is wanted.
    static LOOK_AT: Cell<u64> = const { Cell::new(0) };
    static CALLS: Cell<[u32; 3]> = const { Cell::new([0; 3]) };
    /// The shard that goes on in the middle of another's turn, as cores do.
    static MEANWHILE: RefCell<Option<Seat>> = const { RefCell::new(None) };
    /// Turns of a busy agent that are left: now, and when control came.
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static SEEN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// When each test begins.
const T: u64 = BEGIN_NS + 1_000_000;
/// Delays that are planted.
const DELAYS: [u64; 3] = [0, 30_000, 5_000_000];
/// Turns of a busy agent, fewer than a pass may have.
const BUSY: u32 = 200;
/// How late a timer may be.
const TICK_NS: u64 = 131_072;

/// Lets time pass on all clocks.
fn pass(ns: u64) {
    CLOCKS.with_borrow(|clocks| clocks.iter().for_each(|c| c.set(c.peek_ns() + ns, 0)));
}

fn now_ns() -> u64 {
    CLOCKS.with_borrow(|clocks| clocks[0].peek_ns())
}

enum Act {
    /// The turn takes so long.
    Work(u64),
    Note,
    /// Waits so long, and notes.
    Nap(u64),
    /// Asks, and notes what has brought the answer.
    Ask(Addr<Probe<1>>, u64),
    /// Answers after that time, and works on as long.
    Answer(u64, Reply<()>),
    Send(Addr<Probe<1>>),
    /// Has a timer fire that notes.
    Timer(u64),
    /// Works, lets the other core go on, and works again as long.
    Meanwhile(u64),
    /// Is ready again at once, so many times; the other core goes on in the middle of the first turn.
    Busy(u32),
    /// Switches the stamps of turns.
    Stamps(bool),
}

/// Notes paths; of a class.
struct Probe<const CLASS: usize>;

impl<const CLASS: usize> Agent for Probe<CLASS> {
    type Msg = Act;
    const MAILBOX: u32 = 100;
    const CLASS: Class = [Class::High, Class::Normal, Class::Low][CLASS];

    async fn on(&mut self, act: Act, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match act {
            Act::Work(ns) => pass(ns),
            Act::Note => note(cx),
            Act::Nap(ns) => {
                let until_ns = cx.fresh_ns() + ns;
                cx.sleep_until(until_ns).await.map_err(|_| Stop)?;
                note(cx);
            }
            Act::Ask(server, ns) => {
                let asked = cx.ask(server, u64::MAX, move |reply| Act::Answer(ns, reply));
                asked.await.map_err(|_| Stop)?;
                note(cx);
            }
            Act::Answer(ns, reply) => {
                pass(ns);
                reply.send(cx, ()).map_err(|()| Stop)?;
                pass(ns);
            }
            Act::Send(to) => to.try_send(cx, Act::Note).map_err(|_| Stop)?,
            Act::Timer(ns) => {
                let at_ns = cx.fresh_ns() + ns;
                cx.notify_at(at_ns, 0).map(drop).map_err(|_| Stop)?;
            }
            Act::Meanwhile(ns) => {
                pass(ns);
                meanwhile();
                pass(ns);
            }
            Act::Busy(left) => {
                if left == BUSY {
                    meanwhile();
                }
                LEFT.set(left);
                let again = |left| cx.me::<Self>().try_send(cx, Act::Busy(left)).map_err(|_| Stop);
                left.checked_sub(1).map_or(Ok(()), again)?;
            }
            Act::Stamps(on) => cx.set_turn_stamps(on),
        }
        Ok(())
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        note(cx);
        Ok(())
    }
}

fn note(cx: &Cx<'_>) {
    assert_eq!(poll_path(), Some(cx.path()));
    assert_eq!(cx.turn_ns(), cx.path().turn_ns);
    PATHS.with_borrow_mut(|paths| paths.push(cx.path()));
}

/// Lets the other core go on.
fn meanwhile() {
    let here = Shard::here().expect("an agent runs");
    MEANWHILE.with_borrow_mut(|seat| seat.as_mut().map(round));
    here.enter();
}

/// Takes a shard through its next round.
fn round(seat: &mut Seat) {
    while !matches!(seat.go_on(0, 0), What::Round(_)) {}
}

/// A note of what the shard tells.
struct Notes;

impl Observer for Notes {
    fn started(&mut self) {
        CALLS.set({
            let [started, turns, ended] = CALLS.get();
            [started + 1, turns, ended]
        });
    }

    fn turn(&mut self, _: u64, polls: u32) {
        let [started, turns, ended] = CALLS.get();
        CALLS.set([started, turns + polls, ended]);
    }

    fn long_turn(&mut self, agent: AgentId, from_ns: u64, len_ns: u64) {
        LONG.with_borrow_mut(|long| long.push((agent, from_ns, len_ns)));
    }

    fn look(&mut self, now_ns: u64, queues: &Queues<'_>) -> u64 {
        assert_eq!(now_ns, self::now_ns());
        let counts = [queues.ready(), queues.aside(), queues.in_rings(), queues.unpublished()];
        LOOKS.with_borrow_mut(|looks| looks.push(counts));
        LOOK_AT.get()
    }

    fn ended(&mut self) {
        let [started, turns, ended] = CALLS.get();
        CALLS.set([started, turns, ended + 1]);
    }
}

/// Two cores whose clocks stand still, and agents: all but `far` are on core 0.
struct Stage {
    sim: Simulation,
    target: Addr<Probe<1>>,
    neighbour: Addr<Probe<1>>,
    far: Addr<Probe<1>>,
    low: Addr<Probe<2>>,
}

impl Stage {
    fn new(stamps: bool) -> Self {
        let config = Config { turn_stamps: stamps, ..Config::default() };
        let mut sim = Simulation::new(1, config, 2, Faults::NONE).expect("starts");
        sim.observe(0, Notes);
        let clocks = sim.seats.iter().map(|seat| Rc::clone(&seat.clock)).collect();
        CLOCKS.set(clocks);
        let mut spawn = |shard| sim.spawn_on(shard, || Probe).expect("room");
        let (target, neighbour, far) = (spawn(0), spawn(0), spawn(1));
        let low = sim.spawn_on(0, || Probe).expect("room");
        sim.run_until_idle().expect("no wake is lost");
        CLOCKS.with_borrow(|clocks| clocks.iter().for_each(|clock| clock.set(T, 0)));
        assert_eq!(now_ns(), T, "the start takes less");
        PATHS.take();
        LONG.take();
        LOOKS.take();
        Self { sim, target, neighbour, far, low }
    }

    /// Has a core send these in its next round.
    fn send<const CLASS: usize>(&mut self, from: usize, acts: Vec<(Addr<Probe<CLASS>>, Act)>) {
        // Addresses are plain numbers, and acts are sent by the core that posts them.
        self.sim.post_on(from, move |cx| {
            acts.into_iter().for_each(|(to, act)| assert!(to.try_send(cx, act).is_ok()));
        });
    }

    fn round(&mut self, shard: usize) {
        round(&mut self.sim.seats[shard]);
    }

    /// Goes on until a note is there.
    fn noted(&mut self, shard: usize, notes: usize) -> Vec<Path> {
        for _ in 0..10 {
            if PATHS.with_borrow(Vec::len) >= notes {
                break;
            }
            self.round(shard);
        }
        PATHS.take()
    }
}

const fn path(published_ns: u64, seen_ns: u64, aside_ns: u64, turn_ns: u64) -> Path {
    Path { published_ns, seen_ns, aside_ns, turn_ns }
}

#[test]
fn a_core_that_does_not_look_is_a_hop_and_later_messages_have_their_own() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        for _ in 0..2 {
            stage.send(1, vec![(stage.target, Act::Note)]);
            stage.round(1);
            pass(delay_ns);
        }
        let (first, second) = (path(T, T + 2 * delay_ns, 0, T + 2 * delay_ns), T + delay_ns);
        let paths = stage.noted(0, 2);
        assert_eq!(paths, [first, Path { published_ns: second, ..first }]);
    }
}

#[test]
fn a_sender_that_works_on_publishes_late() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        let acts = vec![(stage.far, Act::Send(stage.target)), (stage.far, Act::Work(delay_ns))];
        stage.send(1, acts);
        stage.round(1);
        let late = T + delay_ns;
        assert_eq!(stage.noted(0, 1), [path(late, late, 0, late)]);
    }
}

#[test]
fn a_busy_neighbour_is_run_queue_whether_its_message_or_its_timer_was_first() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        let work = (stage.neighbour, Act::Work(delay_ns));
        stage.send(1, vec![work, (stage.target, Act::Note)]);
        stage.round(1);
        pass(7_000);
        let seen_ns = T + 7_000;
        assert_eq!(stage.noted(0, 1), [path(T, seen_ns, 0, seen_ns + delay_ns)]);

        let mut stage = Stage::new(true);
        stage.send(0, vec![(stage.target, Act::Timer(1_000_000))]);
        stage.round(0);
        pass(1_000_000 + TICK_NS);
        stage.send(0, vec![(stage.neighbour, Act::Work(delay_ns))]);
        let fired_ns = now_ns();
        assert_eq!(stage.noted(0, 1), [path(0, fired_ns, 0, fired_ns + delay_ns)]);
    }
}

/// What comes while a turn lasts is not seen before its end.
#[test]
fn what_is_published_in_the_middle_of_a_turn_is_seen_after_it() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        stage.send(1, vec![(stage.target, Act::Note)]);
        stage.send(0, vec![(stage.neighbour, Act::Meanwhile(delay_ns))]);
        MEANWHILE.set(stage.sim.seats.pop());
        let seen_ns = T + 2 * delay_ns;
        assert_eq!(stage.noted(0, 1), [path(T + delay_ns, seen_ns, 0, seen_ns)]);
        stage.sim.seats.extend(MEANWHILE.take());
    }
}

/// What stops an agent, or restarts one, must not wait for the end of the pass of one that is always ready.
#[test]
fn control_is_seen_in_the_middle_of_a_pass() {
    let mut stage = Stage::new(false);
    let to = stage.target.handle();
    stage.sim.post_on(1, move |cx| {
        let seen = |_: &Shard| SEEN.set(Some(LEFT.get()));
        cx.shard().send_control(to, Control::Job(Box::new(seen)));
    });
    stage.send(0, vec![(stage.neighbour, Act::Busy(BUSY))]);
    MEANWHILE.set(stage.sim.seats.pop());
    SEEN.set(None);
    stage.round(0);
    let left = SEEN.get().expect("it has come before the end of the round");
    assert!(BUSY - left <= 8, "after {} turns", BUSY - left);
    stage.sim.seats.extend(MEANWHILE.take());
}

#[test]
fn a_handler_that_waits_is_suspended_and_what_comes_meanwhile_is_set_aside() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        stage.send(1, vec![(stage.target, Act::Nap(1_000_000)), (stage.target, Act::Note)]);
        stage.round(1);
        pass(2_000);
        stage.round(0);
        let aside_ns = now_ns();
        pass(1_000_000 + TICK_NS);
        // The wake finds a busy core.
        stage.send(0, vec![(stage.neighbour, Act::Work(delay_ns))]);
        let woken_ns = now_ns();
        let turn_ns = woken_ns + delay_ns;
        let paths = stage.noted(0, 2);
        assert_eq!(paths, [path(0, woken_ns, 0, turn_ns), path(T, aside_ns, aside_ns, turn_ns)]);
    }
}

#[test]
fn a_message_is_set_aside_after_the_turns_before_it() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        let work = (stage.neighbour, Act::Work(delay_ns));
        stage.send(1, vec![(stage.target, Act::Nap(9_000_000)), work, (stage.target, Act::Note)]);
        stage.round(1);
        for _ in 0..4 {
            stage.round(0);
        }
        pass(9_000_000 + TICK_NS);
        let paths = stage.noted(0, 2);
        assert_eq!(paths[1], path(T, T, T + delay_ns, now_ns()));
    }
}

#[test]
fn an_answer_says_how_it_came_and_its_asker_how_long_it_was_ready() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        stage.send(0, vec![(stage.target, Act::Ask(stage.far, 4_000))]);
        stage.round(0);
        pass(1_000);
        stage.round(1);
        // Answered 4 us after its turn began, published when that has ended.
        let published_ns = T + 1_000 + 8_000;
        assert_eq!(now_ns(), published_ns);
        pass(3_000);
        stage.send(0, vec![(stage.neighbour, Act::Work(delay_ns))]);
        let seen_ns = now_ns();
        let paths = stage.noted(0, 1);
        assert_eq!(paths, [path(published_ns, seen_ns, 0, seen_ns + delay_ns)]);

        let mut stage = Stage::new(true);
        stage.send(0, vec![(stage.target, Act::Ask(stage.neighbour, delay_ns))]);
        let (answered_ns, ended_ns) = (T + delay_ns, T + 2 * delay_ns);
        assert_eq!(stage.noted(0, 1), [path(0, answered_ns, 0, ended_ns)], "on one core");
    }
}

/// Messages of a ring that wait for their class keep what is known of them.
#[test]
fn a_message_of_a_low_class_keeps_its_hop() {
    for delay_ns in DELAYS {
        let mut stage = Stage::new(true);
        let low = stage.low;
        stage.send(1, vec![(low, Act::Note), (low, Act::Note)]);
        stage.round(1);
        pass(6_000);
        stage.send(0, vec![(stage.neighbour, Act::Work(delay_ns))]);
        let seen_ns = now_ns();
        let note = path(T, seen_ns, 0, seen_ns + delay_ns);
        assert_eq!(stage.noted(0, 2), [note, note]);
        stage.send(0, vec![(low, Act::Note)]);
        assert_eq!(stage.noted(0, 1)[0].published_ns, 0, "and no other has it");
    }
}

/// Which turn would be timed next without stamps changes nothing of those that come with them.
#[test]
fn every_turn_is_stamped_from_the_switch_on() {
    for unstamped in [0, 1, 7, 150] {
        let mut stage = Stage::new(true);
        stage.send(0, vec![(stage.neighbour, Act::Stamps(false))]);
        for _ in 0..unstamped {
            stage.send(0, vec![(stage.neighbour, Act::Work(1_000))]);
            stage.round(0);
        }
        stage.send(0, vec![(stage.neighbour, Act::Stamps(true))]);
        stage.round(0);
        for turn in 0..300 {
            pass(50_000);
            let sent_ns = now_ns();
            stage.send(1, vec![(stage.target, Act::Note)]);
            stage.round(1);
            pass(3_000);
            let expected = path(sent_ns, sent_ns + 3_000, 0, sent_ns + 3_000);
            assert_eq!(stage.noted(0, 1), [expected], "turn {turn} after {unstamped} without");
        }
    }
}

/// A message that waits for its class while stamps are switched takes what is known of it along.
#[test]
fn a_switch_in_the_middle_of_a_pass_leaves_each_message_its_own_way() {
    for first in [false, true] {
        let mut stage = Stage::new(true);
        let low = stage.low;
        for on in [first, !first, first, true] {
            let sent_ns = now_ns();
            stage.send(1, vec![(low, Act::Note)]);
            stage.round(1);
            pass(3_000);
            let seen_ns = now_ns();
            // The ring brings the one for the low class, which then waits for this turn.
            stage.send(
                0,
                vec![(stage.neighbour, Act::Stamps(on)), (stage.neighbour, Act::Work(9_000))],
            );
            let noted = stage.noted(0, 1)[0];
            assert_eq!(noted.seen_ns, seen_ns, "switched to {on}");
            assert!([sent_ns, seen_ns].contains(&noted.published_ns), "{noted:?}");
        }
        let sent_ns = now_ns();
        stage.send(1, vec![(low, Act::Note)]);
        stage.round(1);
        assert_eq!(stage.noted(0, 1), [path(sent_ns, sent_ns, 0, sent_ns)]);
    }
}

#[test]
fn long_turns_are_told_with_their_length_and_no_other() {
    let mut stage = Stage::new(true);
    let works = [99_999, 100_000, 3_000_000].map(|ns| (stage.neighbour, Act::Work(ns)));
    stage.send(0, works.into());
    (0..4).for_each(|_| stage.round(0));
    // The last one was followed by no turn, and by a long sleep.
    pass(1_000_000_000);
    (0..4).for_each(|_| stage.round(0));
    let who = stage.neighbour.id();
    let second = T + 99_999;
    assert_eq!(LONG.take(), [(who, second, 100_000), (who, second + 100_000, 3_000_000)]);
}

#[test]
fn a_look_counts_what_waits_and_where() {
    let mut stage = Stage::new(true);
    stage.send(1, (0..3).map(|_| (stage.target, Act::Nap(1_000_000))).collect());
    stage.round(1);
    stage.send(0, vec![(stage.neighbour, Act::Work(1_000)), (stage.far, Act::Note)]);
    stage.round(0);
    let looks = LOOKS.take();
    assert_eq!(looks[0], [0, 0, 3, 0], "before the round: all in the ring");
    assert_eq!(looks[1], [1, 0, 2, 1], "one is taken, one is ready, one is to be published");
    stage.round(0);
    assert_eq!(LOOKS.take()[0], [0, 2, 0, 0], "two are behind a nap");
    // One that wants none for a while is told of none, and of the first that is not earlier.
    LOOK_AT.set(now_ns() + 5_000);
    stage.round(0);
    assert_eq!(LOOKS.take().len(), 1);
    pass(4_999);
    stage.round(0);
    assert!(LOOKS.take().is_empty());
    pass(1);
    stage.round(0);
    assert!(!LOOKS.take().is_empty());
    LOOK_AT.set(0);
}

#[test]
fn an_observer_is_told_of_the_begin_the_turns_and_the_end() {
    CALLS.set([0; 3]);
    let mut stage = Stage::new(false);
    let [started, turns, ended] = CALLS.get();
    assert_eq!((started, ended), (1, 0));
    stage.send(0, vec![(stage.target, Act::Work(500_000)), (stage.neighbour, Act::Note)]);
    (0..3).for_each(|_| stage.round(0));
    assert_eq!(CALLS.get(), [1, turns + 2, 0]);
    assert!(LONG.take().is_empty() && LOOKS.take().is_empty(), "neither without stamps");
    assert_eq!(PATHS.take().len(), 1);
    stage.sim.shutdown().expect("ends");
    assert_eq!(CALLS.get(), [1, turns + 2, 1]);
}

/// Without stamps a path says what the looks have seen, and that a message comes from elsewhere.
#[test]
fn without_stamps_a_path_has_the_resolution_of_looks() {
    let mut stage = Stage::new(false);
    stage.send(1, vec![(stage.target, Act::Note)]);
    stage.round(1);
    pass(10_000);
    let seen_ns = now_ns();
    assert_eq!(stage.noted(0, 1), [path(seen_ns, seen_ns, 0, seen_ns)]);
    stage.send(0, vec![(stage.target, Act::Nap(1_000_000)), (stage.target, Act::Note)]);
    stage.round(0);
    pass(1_000_000 + TICK_NS);
    let paths = stage.noted(0, 2);
    let woken_ns = now_ns();
    assert_eq!(paths, [path(0, woken_ns, 0, woken_ns), path(0, seen_ns, seen_ns, woken_ns)]);
}
