//! What a board does to a live run: each knob bites and says so, the outcome sum stays closed whatever is broken, and
//! when the knob is turned back the load goes on as before.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

mod common;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::Echo;
use tailbeam_harness::chaos::board::{Board, Defence, Knob, Shape};
use tailbeam_harness::drive::{self, Control};
use tailbeam_harness::evidence::{RunFrames, Store, read_latency, read_run};
use tailbeam_harness::load::{Secure, Workload};
use tailbeam_harness::plan::{LogAck, LogSync, Plan, Span};
use tailbeam_harness::verdict::Outcomes;
use tailbeam_probes::clock;
use tailbeam_probes::collect::heap::TailbeamAlloc;
use tailbeam_probes::record::latency::LatencyWindow;

/// As in the program: it can be short of memory.
#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const MS: u64 = 1_000_000;
const AGENTS: u64 = 200;

fn board() -> Arc<Board> {
    let (slot_ns, from_ns) = (100 * MS, clock::monotonic_ns());
    Arc::new(Board::create(Shape { cores: 8, slots: 200, slot_ns, from_ns }, &[7; 32]).unwrap())
}

fn plan(seconds: u64) -> Plan {
    let mut plan = common::plan(AGENTS, seconds);
    plan.think = Span::ms(50, 150);
    plan.timeout_ns = 500 * MS;
    plan
}

fn secure(seconds: u64) -> Plan {
    let mut plan = plan(seconds);
    plan.workload = Secure::NAME.to_owned();
    plan.delay = Span::ms(5, 20);
    (plan.protocol.durability, plan.protocol.ack) = (LogSync::Batch, LogAck::After);
    plan
}

fn pause(ms: u64) {
    let end_ns = clock::monotonic_ns() + ms * MS;
    while let Some(left) = end_ns.checked_sub(clock::monotonic_ns()).filter(|&left| left > 0) {
        std::thread::park_timeout(Duration::from_nanos(left));
    }
}

/// Waits until so many requests were due.
fn after(board: &Board, requests: u64) {
    let end_ns = clock::monotonic_ns() + 60_000 * MS;
    while (0..board.shape().slots).map(|slot| board.read(slot).due).sum::<u64>() < requests {
        assert!(clock::monotonic_ns() < end_ns, "the load never began");
        pause(5);
    }
}

/// A run that is over.
struct Ran {
    run: RunFrames,
    windows: Vec<LatencyWindow>,
    all: Outcomes,
    board: Arc<Board>,
}

static ALONE: Mutex<()> = Mutex::new(());

/// Runs a plan while `harm` turns the knobs; `None` where the host has no io_uring.
fn run<W: Workload>(plan: &Plan, harm: impl FnOnce(&Board) + Send) -> Option<Ran> {
    run_with::<W>(plan, None, harm)
}

/// The same, with a defence switched off.
fn run_with<W: Workload>(
    plan: &Plan,
    off: Option<Defence>,
    harm: impl FnOnce(&Board) + Send,
) -> Option<Ran> {
    if !common::rings::has_rings() {
        return None;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (root, board) = (tempfile::tempdir().unwrap(), board());
    board.set(Knob::DefencesOff, off.map_or(0, |defence| defence as u64));
    let store = Store::open(root.path()).unwrap();
    let control = Control { board: Some(Arc::clone(&board)), ..Control::default() };
    let dir = std::thread::scope(|scope| {
        let theirs = Arc::clone(&board);
        scope.spawn(move || {
            after(&theirs, 400);
            harm(&theirs);
        });
        drive::run::<W>(plan, &store, &control, &mut |_| {}).unwrap()
    });
    let run = read_run(&dir).unwrap();
    let (windows, damage) = read_latency(&dir).unwrap();
    assert!(run.damage.is_empty() && damage.is_empty(), "{:?} {damage:?}", run.damage);
    let mut all = Outcomes::default();
    for second in run.windows.iter().flat_map(|window| &window.seconds) {
        all.merge(&second.counts.outcomes);
    }
    let end = run.end.as_ref().unwrap();
    all.open_at_stop += end.open_at_stop;
    all.lost += end.lost;
    assert_eq!(all.sum(), all.attempts, "the sum closes: {all:?}");
    assert!(end.drained, "{end:?}");
    Some(Ran { run, windows, all, board })
}

impl Ran {
    fn count(&self, name: &str) -> u64 {
        let protocol = &self.run.end.as_ref().unwrap().protocol;
        protocol.iter().find(|count| count.name == name).map_or(0, |count| count.count)
    }

    fn panicked(&self) -> u64 {
        self.run.end.as_ref().unwrap().agents_panicked
    }

    /// Requests due in the last `slots` slots in which any were, and how many of them were answered.
    fn tail(&self, slots: u32) -> (u64, u64) {
        let cells: Vec<_> = (0..self.board.shape().slots).map(|at| self.board.read(at)).collect();
        let last = cells.iter().rposition(|cell| cell.due > 0).unwrap();
        let tail = &cells[(last + 1).saturating_sub(slots as usize)..=last];
        let due = tail.iter().map(|cell| cell.due).sum();
        (due, tail.iter().map(|cell| cell.answered()).sum())
    }

    /// By how many requests more, in the last windows, each leg was seen to be occupied than the stamps of those say that
    /// left it.
    fn left_in_legs(&self) -> [f64; 3] {
        let last = self.windows.iter().map(|window| window.window).max().unwrap();
        let windows = || self.windows.iter().filter(|window| window.window + 4 > last);
        let samples: u64 = windows().map(|window| window.occupancy_samples).sum();
        assert!(samples > 50, "{samples}");
        let one = windows().find(|window| window.window == last - 1).unwrap().shard;
        let time = windows().filter(|window| window.shard == one);
        let time: u64 = time.map(|window| window.to_ns - window.from_ns).sum();
        std::array::from_fn(|leg| {
            let seen: u64 = windows().map(|window| window.occupancy[leg]).sum();
            let stamped: u64 = windows().map(|window| window.legs[leg].ns).sum();
            seen as f64 / samples as f64 - stamped as f64 / time as f64
        })
    }

    /// The load of the last second is that of the plan, and all of it is answered.
    fn assert_whole_again(&self, plan: &Plan) {
        let (due, answered) = self.tail(10);
        let offered = plan.rate_per_s();
        // The last slot is cut by the end of the run.
        assert!(due as f64 > 0.75 * offered, "{due} of {offered} in the last second");
        assert!(answered as f64 >= 0.99 * due as f64, "{answered} of {due} answered");
    }

    fn assert_only_bitten(&self, knobs: &[Knob]) {
        for knob in Knob::ALL {
            assert_eq!(self.board.bites(knob) > 0, knobs.contains(&knob), "{knob:?}");
        }
    }
}

/// Turns a knob for a while.
fn turn(board: &Board, knob: Knob, level: u64, ms: u64) {
    board.set(knob, level);
    pause(ms);
    board.set(knob, 0);
}

#[test]
fn a_board_whose_knobs_are_off_changes_no_outcome() {
    let Some(ran) = run::<Secure>(&secure(3), |_| ()) else { return };
    let Outcomes { attempts, ok, declined, .. } = ran.all;
    assert_eq!(ok + declined, attempts, "{:?}", ran.all);
    ran.assert_only_bitten(&[]);
    ran.assert_whole_again(&secure(3));
    assert_eq!((ran.panicked(), ran.count("log: failures")), (0, 0));
    // Each agent has a slot, and so have owners and logs; at the end of the load fewer wait for their next request.
    let levels = ran.board.levels();
    assert!(levels.look > 50 && levels.slots > AGENTS && levels.timers > 0, "{levels:?}");
    assert!(levels.heap.is_some_and(|(objects, bytes)| objects > AGENTS && bytes > objects));
}

#[test]
fn a_cut_between_the_cores_expires_what_crosses_it_and_heals() {
    let Some(ran) =
        run::<Secure>(&secure(8), |board| turn(board, Knob::LinkLossPpm, 1_000_000, 600))
    else {
        return;
    };
    if ran.run.manifest.cores.len() < 2 {
        return;
    }
    assert!(ran.all.expired > 100 && ran.all.ok > 1_000, "{:?}", ran.all);
    assert_eq!((ran.all.lost, ran.panicked()), (0, 0));
    ran.assert_only_bitten(&[Knob::LinkLossPpm]);
    ran.assert_whole_again(&secure(8));
    // What was lost on its way is nowhere on its way any more, and Little's law holds.
    let left = ran.left_in_legs();
    let most = ran.all.expired as f64 / 10.0;
    assert!(left.iter().all(|left| left.abs() < most), "{left:?} of {} lost", ran.all.expired);
}

#[test]
fn a_third_of_the_agents_behind_a_slow_link_are_late_and_nobody_is_lost() {
    let Some(ran) = run::<Echo>(&plan(3), |board| {
        board.set(Knob::LinkSharePermille, 333);
        turn(board, Knob::LinkDelayNs, 60 * MS, 500);
        board.set(Knob::LinkSharePermille, 0);
    }) else {
        return;
    };
    if ran.run.manifest.cores.len() < 2 {
        return;
    }
    assert_eq!(ran.all.ok, ran.all.attempts, "{:?}", ran.all);
    ran.assert_only_bitten(&[Knob::LinkDelayNs, Knob::LinkSharePermille]);
    let slots = (0..ran.board.shape().slots).map(|slot| ran.board.read(slot).over(60 * MS));
    assert!(slots.sum::<u64>() > 50, "requests that took the delay");
}

#[test]
fn the_agents_of_a_core_that_panics_are_made_anew_and_the_load_goes_on() {
    // Twice: one that was made anew falls again when it is named again.
    let Some(ran) = run::<Echo>(&plan(4), |board| {
        turn(board, Knob::CorePanic, 1, 600);
        pause(50);
        turn(board, Knob::CorePanic, 1, 600);
    }) else {
        return;
    };
    let fallen = ran.board.bites(Knob::CorePanic);
    let cores = ran.run.manifest.cores.len() as u64;
    assert!(fallen > AGENTS / cores && fallen <= 2 * AGENTS / cores, "{fallen}");
    assert_eq!(ran.panicked(), fallen);
    ran.assert_only_bitten(&[Knob::CorePanic]);
    ran.assert_whole_again(&plan(4));
    let live = ran.run.windows.last().unwrap().seconds.last().unwrap().live_agents;
    assert_eq!(live, AGENTS, "all of them live");
}

#[test]
fn poison_fells_its_handler_and_what_that_had_open_is_lost() {
    let mut plan = secure(4);
    plan.delay = Span::ms(40, 120);
    let Some(ran) = run::<Secure>(&plan, |board| turn(board, Knob::PollPanicEvery, 20, 800)) else {
        return;
    };
    let fallen = ran.board.bites(Knob::PollPanicEvery);
    assert!(fallen > 20, "{fallen}");
    assert_eq!(ran.panicked(), fallen);
    assert!(ran.all.lost > 0 && ran.all.expired > 0, "{:?}", ran.all);
    ran.assert_only_bitten(&[Knob::PollPanicEvery]);
    ran.assert_whole_again(&plan);
}

/// Knobs that are turned together for 800 ms.
fn turn_all(board: &Board, knobs: &[(Knob, u64)]) {
    knobs.iter().for_each(|&(knob, level)| board.set(knob, level));
    pause(800);
    knobs.iter().for_each(|&(knob, _)| board.set(knob, 0));
}

#[test]
fn a_log_on_a_ring_that_fails_goes_on_and_one_that_is_short_or_late_loses_nothing() {
    let fails = [(Knob::RingFailPpm, 200_000), (Knob::RingFailErrno, 5), (Knob::RingWhat, 1)];
    let short = [(Knob::RingShortPpm, 500_000), (Knob::RingWhat, 1)];
    let late = [(Knob::RingLatePpm, 500_000), (Knob::RingLateNs, 10 * MS), (Knob::RingWhat, 1)];
    for knobs in [&fails[..], &short, &late] {
        let plan = secure(if knobs == fails { 5 } else { 3 });
        let Some(ran) = run::<Secure>(&plan, |board| turn_all(board, knobs)) else { return };
        assert_eq!((ran.count("log: lost"), ran.count("logs that gave up")), (0, 0), "{knobs:?}");
        assert_eq!(ran.count("log: failures") > 0, knobs == fails, "{knobs:?}");
        let unanswered = ran.all.attempts - ran.all.ok - ran.all.declined;
        assert!(knobs == fails || unanswered == 0, "{knobs:?}: {:?}", ran.all);
        ran.assert_only_bitten(&knobs.iter().map(|(knob, _)| *knob).collect::<Vec<_>>());
        ran.assert_whole_again(&plan);
    }
}

#[test]
fn a_log_whose_disk_fails_answers_nothing_and_goes_on_when_it_is_back() {
    for (knob, level) in [
        (Knob::LogSyncErrno, 5),
        (Knob::LogWriteErrno, 28),
        (Knob::LogWriteShort, 33),
        (Knob::LogSyncDelayNs, 200 * MS),
    ] {
        let plan = secure(5);
        let Some(ran) = run::<Secure>(&plan, |board| turn(board, knob, level, 600)) else { return };
        assert_eq!((ran.count("log: lost"), ran.count("logs that gave up")), (0, 0), "{knob:?}");
        let fails = knob != Knob::LogSyncDelayNs;
        assert_eq!(ran.count("log: failures") > 0, fails, "{knob:?}");
        assert!(ran.all.expired > 0 || !fails, "{knob:?}: {:?}", ran.all);
        assert_eq!(ran.count("waiting for the log at the end"), 0);
        ran.assert_only_bitten(&[knob]);
        ran.assert_whole_again(&plan);
    }
}

#[test]
fn a_wall_clock_that_is_five_minutes_off_ends_nothing_and_opens_no_limit() {
    let clean = |all: &Outcomes| (all.expired, all.refused, all.error, all.cancelled, all.lost);
    for offset_s in [300i64, -300] {
        let Some(ran) = run::<Secure>(&secure(3), |board| {
            let offset_ns = offset_s * 1_000_000_000;
            board.set(Knob::RealtimeDriftPpm, 50_000);
            // A time of day is written down where a segment begins.
            board.set(Knob::LogRenewNs, 150 * MS);
            turn(board, Knob::RealtimeOffsetNs, offset_ns.cast_unsigned(), 600);
            board.set(Knob::RealtimeDriftPpm, 0);
            board.set(Knob::LogRenewNs, 0);
        }) else {
            return;
        };
        assert_eq!(clean(&ran.all), (0, 0, 0, 0, 0), "{:?}", ran.all);
        ran.assert_only_bitten(&[Knob::RealtimeOffsetNs, Knob::RealtimeDriftPpm, Knob::LogRenewNs]);
        assert!(ran.count("log: segments") >= 6, "{}", ran.count("log: segments"));
        ran.assert_whole_again(&secure(3));
        // No latency is that of another clock.
        let system = &ran.run.histograms[0];
        assert!(system.max().is_some_and(|ns| ns < 1_000 * MS), "{:?}", system.max());
    }
}

#[test]
fn agents_that_stop_reading_are_behind_full_mailboxes_until_they_read_again() {
    let mut plan = plan(5);
    plan.think = Span::ms(20, 60);
    let Some(ran) = run::<Echo>(&plan, |board| {
        turn(board, Knob::SlowConsumerPermille, 100, 900);
    }) else {
        return;
    };
    let slow = ran.board.bites(Knob::SlowConsumerPermille);
    assert!((5..60).contains(&slow), "{slow} of {AGENTS}");
    assert!(ran.all.expired > 20 && ran.all.lost == 0, "{:?}", ran.all);
    ran.assert_only_bitten(&[Knob::SlowConsumerPermille]);
    ran.assert_whole_again(&plan);
}

#[test]
fn a_herd_asks_at_once_beside_its_schedule() {
    let Some(ran) = run::<Echo>(&plan(3), |board| {
        turn(board, Knob::HerdNow, 1, 300);
        turn(board, Knob::HerdNow, 2, 300);
    }) else {
        return;
    };
    assert_eq!(ran.board.bites(Knob::HerdNow), 2 * AGENTS);
    assert_eq!(ran.all.ok, ran.all.attempts, "{:?}", ran.all);
    let most = (0..ran.board.shape().slots).map(|slot| ran.board.read(slot).due).max().unwrap();
    assert!(most as f64 > AGENTS as f64 + 0.05 * plan(3).rate_per_s(), "{most} in 100 ms");
    ran.assert_whole_again(&plan(3));
}

#[test]
fn a_request_that_there_is_no_memory_for_is_refused_and_all_others_are_answered() {
    let plan = secure(4);
    let Some(ran) = run::<Secure>(&plan, |board| turn(board, Knob::AllocFailEvery, 5, 800)) else {
        return;
    };
    let failed = ran.board.bites(Knob::AllocFailEvery);
    assert!(failed > 100, "{failed}");
    let Outcomes { attempts, ok, declined, refused, .. } = ran.all;
    assert_eq!((refused, ok + declined + refused), (failed, attempts), "{:?}", ran.all);
    let seconds = ran.run.windows.iter().flat_map(|window| &window.seconds);
    assert_eq!(seconds.map(|second| second.counts.refused_no_memory).sum::<u64>(), failed);
    assert_eq!(ran.panicked(), 0);
    ran.assert_only_bitten(&[Knob::AllocFailEvery]);
    ran.assert_whole_again(&plan);
}

#[test]
fn a_crowd_before_two_that_do_not_read_fills_their_mailboxes_and_no_more() {
    for off in [false, true] {
        let mut plan = plan(6);
        (plan.think, plan.open_max) = (Span::ms(20, 60), 64);
        let Some(ran) = run_with::<Echo>(&plan, off.then_some(Defence::Mailbox), |board| {
            board.set(Knob::SlowConsumerPermille, 10);
            turn(board, Knob::Crowd, 2, 1_500);
            board.set(Knob::SlowConsumerPermille, 0);
        }) else {
            return;
        };
        let mail = ran.board.mail();
        let bound = mail.bound.unwrap();
        assert!(mail.looks > 5, "{mail:?}");
        assert_eq!((mail.deepest > bound, mail.refused == 0), (off, off), "{mail:?}");
        // Nearly full, or how deep it was is not what was seen.
        assert!(mail.deepest > bound / 2, "{mail:?}");
        assert_eq!(ran.all.lost, 0, "{:?}", ran.all);
        ran.assert_only_bitten(&[Knob::SlowConsumerPermille, Knob::Crowd]);
        ran.assert_whole_again(&plan);
    }
}
