#![expect(unsafe_code, reason = "an allocator that counts")]
//! Once queues have grown to their size, turns, messages on both paths, timers and operations allocate
//! nothing.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tailbeam_runtime::fs::File;
use tailbeam_runtime::net::UnixStream;
use tailbeam_runtime::{
    Addr, Agent, AgentId, Config, Cx, NoObserver, Observer, Queues, Runtime, Stop, clock,
};

thread_local! {
    static COUNTS: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

struct Counting;

fn count() {
    if COUNTS.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches a const thread-local
// without a destructor and an atomic, and neither allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the block came from `System` with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends every ball to the next player, and has a timer of its own all the while.
struct Player {
    next: Option<Addr<Player>>,
    hits: Arc<AtomicU64>,
    ticks: Arc<AtomicU64>,
    planted: bool,
}

enum Play {
    Next(Addr<Player>),
    Ball,
}

const TICK_NS: u64 = 1_000_000;

impl Agent for Player {
    type Msg = Play;

    async fn on(&mut self, play: Play, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match play {
            Play::Next(next) => {
                self.next = Some(next);
                let at = cx.fresh_ns() + TICK_NS;
                cx.notify_at(at, 1).map_err(|_| Stop)?;
            }
            Play::Ball => {
                self.hits.fetch_add(1, Ordering::Relaxed);
                std::hint::black_box(cx.path());
                let next = self.next.ok_or(Stop)?;
                next.try_send(cx, Play::Ball).map_err(|_| Stop)?;
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        if self.planted {
            drop(std::hint::black_box(Box::new(1u64)));
        }
        let at = cx.fresh_ns() + TICK_NS;
        cx.notify_at(at, 1).map(drop).map_err(|_| Stop)
    }
}

fn wait_for(counter: &AtomicU64, target: u64) {
    while counter.load(Ordering::Relaxed) < target {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Counts what it is told, and what waits.
struct Watch(Arc<AtomicU64>);

impl Observer for Watch {
    fn long_turn(&mut self, _: AgentId, _: u64, len_ns: u64) {
        self.0.fetch_add(u64::from(len_ns > 0), Ordering::Relaxed);
    }

    fn look(&mut self, _: u64, queues: &Queues<'_>) -> u64 {
        let waiting = queues.ready() + queues.aside() + queues.in_rings() + queues.unpublished();
        self.0.fetch_add(1 + (waiting >> 32), Ordering::Relaxed);
        0
    }
}

/// Allocations on the shards while 200,000 balls and 2,000 timers go round.
fn allocations(planted: bool, turn_stamps: bool) -> u64 {
    // The balls go round for ever: nothing to wait for at the end.
    let config = Config { drain_ns: 10_000_000, turn_stamps, long_turn_ns: 1, ..Config::default() };
    let told = Arc::new(AtomicU64::new(0));
    let watch = |_| Watch(Arc::clone(&told));
    let runtime = Runtime::start(config, watch).expect("has io_uring");
    let (hits, ticks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let shards = runtime.shards();
    // Neighbours alternate between the same core and the next, so both paths are taken.
    let players: Vec<Addr<Player>> = (0..64)
        .map(|i| {
            let (hits, ticks) = (Arc::clone(&hits), Arc::clone(&ticks));
            let make = move || Player { next: None, hits, ticks, planted };
            runtime.spawn_on((i / 2) % shards, make).expect("room")
        })
        .collect();
    for (i, &player) in players.iter().enumerate() {
        let next = players[(i + 1) % players.len()];
        let tell = move |cx: &mut Cx<'_>| player.try_send(cx, Play::Next(next)).is_ok();
        assert!(runtime.run_on(0, tell).expect("lives"));
    }
    for &player in players.iter().step_by(4) {
        let serve = move |cx: &mut Cx<'_>| player.try_send(cx, Play::Ball).is_ok();
        assert!(runtime.run_on(0, serve).expect("lives"));
    }
    // Queues grow to their size first, and the wheel goes through all slots of its first levels.
    wait_for(&hits, 200_000);
    let warm_ns = clock::monotonic_ns() + 1_500_000_000;
    while clock::monotonic_ns() < warm_ns {
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let mark = |on: bool| {
        for shard in 0..shards {
            runtime.run_on(shard, move |_| COUNTS.set(on)).expect("lives");
        }
    };
    mark(true);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    wait_for(&hits, hits.load(Ordering::Relaxed) + 200_000);
    wait_for(&ticks, ticks.load(Ordering::Relaxed) + 2_000);
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    mark(false);
    assert_eq!(told.load(Ordering::Relaxed) > 200_000, turn_stamps);
    made
}

/// Allocations on a shard while 32 pairs of streams echo and a file is written and read, 64 bytes each time.
fn allocations_of_operations() -> u64 {
    let config = Config { drain_ns: 10_000_000, ..Config::default() };
    let runtime = Runtime::start(config, |_| NoObserver).expect("has io_uring");
    let rounds = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&rounds);
    let path = std::env::temp_dir().join(format!("tailbeam-alloc-{}", std::process::id()));
    let written = path.clone();
    let start = move |cx: &mut Cx<'_>| {
        for _ in 0..32 {
            let (near, far) = UnixStream::pair(cx).expect("descriptors");
            let echo = async move |_: &mut Cx<'_>| {
                while let Ok(Some(lease)) = far.recv().await {
                    far.send(lease).await.0.expect("sent");
                }
            };
            let rounds = Arc::clone(&counted);
            let ask = async move |_: &mut Cx<'_>| {
                let mut buffer = vec![1; 64];
                loop {
                    let (sent, back) = near.send(buffer).await;
                    (buffer, _) = (back, sent.expect("sent"));
                    near.recv().await.expect("comes back");
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            };
            assert!(cx.spawn_with(echo).is_ok() && cx.spawn_with(ask).is_ok(), "room");
        }
        let log = async move |cx: &mut Cx<'_>| {
            let file = File::create(cx, &written).await.expect("a directory for temporary files");
            let mut buffer = vec![1; 64];
            loop {
                let (done, back) = file.write_at(buffer, 0).await;
                done.expect("written");
                let (done, back) = file.read_at(back, 0).await;
                (buffer, _) = (back, done.expect("read"));
            }
        };
        assert!(cx.spawn_with(log).is_ok(), "room");
    };
    runtime.run_on(0, start).expect("lives");
    wait_for(&rounds, 20_000);
    runtime.run_on(0, |_| COUNTS.set(true)).expect("lives");
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    wait_for(&rounds, rounds.load(Ordering::Relaxed) + 20_000);
    let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
    runtime.run_on(0, |_| COUNTS.set(false)).expect("lives");
    let _ = std::fs::remove_file(path);
    made
}

#[test]
fn messages_timers_and_operations_allocate_nothing_and_a_planted_allocation_is_seen() {
    if !common::has_rings() {
        return;
    }
    assert_eq!(allocations(false, false), 0);
    assert_eq!(allocations(false, true), 0);
    assert_eq!(allocations_of_operations(), 0);
    assert!(allocations(true, false) >= 2_000, "the count must be able to fail");
}
