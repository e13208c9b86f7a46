//! A process of its own, so that its CPU time is the runtime's: idle agents cost nothing.

mod common;

use std::fs;
use std::time::Duration;

use tailbeam_runtime::{Agent, Config, Cx, NoObserver, Runtime, Stop, clock};

struct Idle;

impl Agent for Idle {
    type Msg = u64;

    async fn on(&mut self, _: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

const AGENTS: usize = 10_000;
const WATCHED_NS: u64 = 10_000_000_000;

/// User and system time of all threads, in ticks of 10 ms, from fields 14 and 15 of /proc/self/stat.
fn cpu_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let after = stat.rsplit(')').next().expect("a command in brackets");
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |i: usize| fields[i].parse::<u64>().expect("a count");
    number(11) + number(12)
}

/// How often a thread has gone to sleep: every system call that waits is at least one.
fn sleeps(thread: u64) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/status")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a count")
}

#[test]
fn ten_thousand_idle_agents_cost_below_one_percent_and_twenty_calls_a_second() {
    if !common::has_rings() {
        return;
    }
    let runtime = Runtime::start(Config::default(), |_| NoObserver).expect("has io_uring");
    let shards = runtime.shards();
    for shard in 0..shards {
        let mine = (AGENTS + shards - 1 - shard) / shards;
        let spawn = move |cx: &mut Cx<'_>| (0..mine).filter(|_| cx.spawn(Idle).is_ok()).count();
        let spawned = runtime.run_on(shard, spawn).expect("the shard lives");
        assert_eq!(spawned, mine);
    }
    std::thread::park_timeout(Duration::from_millis(500));
    let read = || runtime.stats().iter().map(|s| (s.enters, sleeps(s.thread_id))).collect();
    let (before, ticks): (Vec<(u64, u64)>, _) = (read(), cpu_ticks());
    let end = clock::monotonic_ns() + WATCHED_NS;
    while clock::monotonic_ns() < end {
        std::thread::park_timeout(Duration::from_secs(1));
    }
    let (after, used): (Vec<(u64, u64)>, _) = (read(), cpu_ticks() - ticks);
    assert_eq!(runtime.stats().iter().map(|s| s.live_agents).sum::<u64>(), AGENTS as u64);
    for ((enters, sleeps), (enters_then, sleeps_then)) in after.into_iter().zip(before) {
        assert!(enters - enters_then <= 200, "{} enters in 10 s", enters - enters_then);
        assert!(sleeps - sleeps_then <= 200, "{} sleeps in 10 s", sleeps - sleeps_then);
    }
    assert!(used < 10, "{used} ticks of 10 ms in 10 s are not below 1 %");
}
