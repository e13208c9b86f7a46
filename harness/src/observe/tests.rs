use tailbeam_probes::collect::heap::{TailbeamAlloc, this_thread};
use tailbeam_probes::collect::perf::left_open;
use tailbeam_probes::record::latency::{Count, LatencyWindow, Leg, Stamps};

use super::*;
use crate::load::latency::{Drawn, Parties};
use crate::load::recorder::Served;
use crate::load::{CoreLatency, Draw, Stream};
use crate::plan::Plan;

/// It counts what each thread allocates, which is what these tests ask.
#[global_allocator]
static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;

const MS: u64 = 1_000_000;

fn allocations() -> u64 {
    // The first allocation of a thread gives it its counts.
    drop(std::hint::black_box(vec![1u8; 9]));
    this_thread().expect("this allocator counts").objects
}

fn setup() -> Setup {
    Setup { on: true, tick_ns: 10 * MS, ticks: 64, switches: true }
}

#[test]
fn ticks_allocate_nothing_and_off_is_closed_and_unmapped() {
    let before = left_open().expect("/proc is there");
    let _ = open(setup());
    let mut observer = CoreObserver::new(setup());
    let from = clock::monotonic_ns();
    observer.turn(from, 1);
    let counted = allocations();
    for at in 1..200u64 {
        // More sleeps and ticks than there is room for.
        let now = from + at * MS;
        (0..20).for_each(|_| observer.parked(now, now + 1_000));
        observer.spun(now, now + 10);
        observer.long_turn_of(now, 200_000);
        observer.turn(now + 100_000, 3);
    }
    assert_eq!(allocations() - counted, 1, "this look itself is one");
    let mut window = LatencyWindow::default();
    with(|core| {
        let full = core.take(Box::new(Notes::new(64)));
        full.write(Some(core.support()), &mut window);
    });
    assert!(window.ticks.len() >= 10, "{} ticks", window.ticks.len());
    assert!(window.self_ns > 0 && window.long_turns.len() == 128);
    assert!(window.ticks.iter().all(|tick| !tick.counters.is_empty()), "{:?}", window.ticks[0]);

    let on = left_open().expect("/proc is there");
    assert!(set_detail(Some(Detail::Full), setup()).is_empty(), "it is open");
    let _ = set_detail(Some(Detail::Stages), setup());
    assert_eq!(left_open().expect("/proc is there"), before, "closed and unmapped; it was {on:?}");
    observer.turn(from + 500 * MS, 1);
    assert!(!with(|_| true), "nothing is kept");
    let _ = set_detail(Some(Detail::Slow), setup());
    assert_eq!(left_open().expect("/proc is there"), on, "open again");
    close();
    assert_eq!(left_open().expect("/proc is there"), before);
}

impl CoreObserver {
    /// As the runtime tells of a long turn, whose agent needs a runtime.
    fn long_turn_of(&mut self, from_ns: u64, len_ns: u64) {
        runs(7, from_ns);
        with(|core| core.long_turn(from_ns, len_ns));
    }
}

#[test]
fn a_tick_is_taken_when_its_time_has_come_and_a_turn_is_named_by_its_agent() {
    let _ = open(setup());
    let mut observer = CoreObserver::new(setup());
    // Instants that are not past: a tick ends when its counters are read.
    let t = clock::monotonic_ns() + 3_600_000 * MS;
    observer.turn(t, 1);
    observer.turn(t + 5 * MS, 1);
    runs(7, t + 6 * MS);
    with(|core| core.long_turn(t + 6 * MS, 300_000));
    // A turn of something else, after the agent's.
    with(|core| core.long_turn(t + 7 * MS, 300_000));
    observer.turn(t + 11 * MS, 2);
    observer.parked(t + 11 * MS, t + 30 * MS);
    let mut window = LatencyWindow::default();
    with(|core| core.take(Box::new(Notes::new(1))).write(None, &mut window));
    let spans: Vec<_> = window.ticks.iter().map(|tick| (tick.from_ns, tick.to_ns)).collect();
    assert_eq!(spans, [(t, t + 11 * MS), (t + 11 * MS, t + 30 * MS)]);
    assert_eq!((window.ticks[0].turns, window.ticks[1].parked_ns), (3, 19 * MS));
    let agents: Vec<u32> = window.long_turns.iter().map(|turn| turn.agent).collect();
    assert_eq!(agents, [7, u32::MAX]);
    close();
}

/// A shard looks at the clock every so many turns; when they have become slow since, the last look is long ago.
#[test]
fn a_tick_ends_when_its_counters_are_read() {
    let _ = open(setup());
    let mut observer = CoreObserver::new(setup());
    let from = clock::monotonic_ns();
    observer.turn(from, 1);
    while clock::monotonic_ns() < from + 40 * MS {
        std::hint::spin_loop();
    }
    let read = clock::monotonic_ns();
    observer.turn(from + 11 * MS, 1);
    let mut window = LatencyWindow::default();
    with(|core| {
        let full = core.take(Box::new(Notes::new(1)));
        full.write(Some(core.support()), &mut window);
    });
    close();
    let tick = &window.ticks[0];
    assert!(tick.to_ns >= read, "{} us before", (read - tick.to_ns) / 1_000);
    let counted = tick.counters.iter().find(|of| of.name == "task-clock").map(|of| &of.count);
    let (Some(&Count::Exact(on)), Some(preempted), Some(blocked)) =
        (counted, tick.preempted_ns, tick.blocked_ns)
    else {
        return;
    };
    let wall = tick.to_ns - tick.from_ns;
    assert!((on + preempted + blocked).abs_diff(wall) < wall / 100, "{tick:?}");
    assert!(tick.turns_ns >= 39 * MS, "the time since the look is that of turns: {tick:?}");
}

#[test]
fn attributing_requests_allocates_nothing() {
    let mut plan = Plan::soak("x");
    plan.observe.exemplars = Some(8);
    let mut latency = CoreLatency::of(&plan, 0, 2);
    latency.set_late_ns(Some(400_000));
    let draw = Draw::new(1, 1);
    let counted = allocations();
    for k in 0..100_000 {
        let long = draw.below(k, Stream::Content, 500_000);
        let turn = |turn_ns| Leg { turn_ns, ..Leg::default() };
        let stamps = Stamps {
            intended_ns: 1_000,
            sent_ns: 1_500,
            out: turn(2_000),
            service_ns: long,
            answered_ns: 2_000 + long,
            back: turn(3_000 + long),
            closed_ns: 3_100 + long,
            ..Stamps::default()
        };
        let parties = Parties { asker: 3, responder: u32::try_from(k % 1_000).expect("small") };
        latency.served(parties.responder, Served { ns: long, requests: 1 });
        latency.in_hand(&stamps);
        let drawn = Drawn { staged: true, whole: k % 100 == 0 };
        latency.closed(parties, &stamps, drawn, None);
    }
    assert_eq!(allocations() - counted, 1, "this look itself is one");
    let mut window = LatencyWindow::default();
    latency.write(&mut window);
    let all: u64 = window.buckets.iter().map(|bucket| bucket.sums.count).sum();
    assert_eq!((all, window.legs[2].count, window.exemplars.len()), (100_000, 100_000, 8 + 8 + 8));
    assert_eq!((window.clamped, window.disordered), (0, 0));
    let late: u64 = window.responders.iter().map(|sums| sums.late.count).sum();
    assert_eq!(window.late_left_out + 8, late);
    latency.restart(Some(1));
    let mut window = LatencyWindow::default();
    latency.write(&mut window);
    assert!(window.buckets.is_empty() && window.exemplars.is_empty() && window.legs[0].count == 0);
}
