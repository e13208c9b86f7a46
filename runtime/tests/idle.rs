//! A process of its own, so that its CPU time is the runtime's: idle agents cost nothing.

mod common;

use std::fs;
use std::process::{Child, Command, Stdio};
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

/// Has strace count the system calls of `threads` for `seconds`.
fn count_calls(threads: &[u64], seconds: u32, into: &str) -> Option<Child> {
    let mut strace = Command::new("timeout");
    strace.args(["-s", "INT", &seconds.to_string(), "strace", "-c", "-o", into]);
    for thread in threads {
        strace.args(["-p", &thread.to_string()]);
    }
    let available = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !available.is_ok_and(|status| status.success()) {
        return None;
    }
    strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().ok()
}

/// The sum that strace wrote: the fourth column of its last line. No call at all gives no line.
fn calls_counted(strace: Child, from: &str) -> Option<u64> {
    let output = strace.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Where it may not attach (an unprivileged container) it has counted nothing.
    if !said.contains("attached") || said.contains("Operation not permitted") {
        return None;
    }
    let table = fs::read_to_string(from).ok()?;
    let total = table.lines().find(|line| line.trim_end().ends_with("total"));
    total.map_or(Some(0), |line| line.split_whitespace().nth(3)?.parse().ok())
}

/// System calls counted in 2 s in which every shard is woken about every 10 ms.
fn calls_of_a_disturbed_one(runtime: &Runtime, threads: &[u64], into: &str) -> u64 {
    let strace = count_calls(threads, 2, into).expect("it has counted before");
    for _ in 0..150 {
        (0..threads.len()).for_each(|shard| runtime.run_on(shard, |_| ()).expect("lives"));
        std::thread::park_timeout(Duration::from_millis(10));
    }
    calls_counted(strace, into).expect("it has counted before")
}

#[test]
#[expect(clippy::print_stderr, reason = "what could not be counted must be said")]
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
    let threads: Vec<u64> = runtime.stats().iter().map(|shard| shard.thread_id).collect();
    let into = std::env::temp_dir().join(format!("tailbeam-idle-{}", std::process::id()));
    let into = into.display().to_string();
    let strace = count_calls(&threads, 9, &into);
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
    match strace.and_then(|strace| calls_counted(strace, &into)) {
        Some(calls) => {
            assert!(calls <= 180 * shards as u64, "{calls} system calls in 9 s on {shards} shards");
            assert!(
                calls_of_a_disturbed_one(&runtime, &threads, &into) >= 100,
                "the count must see"
            );
        }
        None => eprintln!("NOT COUNTED by strace: it is not installed or may not attach"),
    }
    // Without strace there is no such file.
    let _ = fs::remove_file(&into);
    assert!(used < 10, "{used} ticks of 10 ms in 10 s are not below 1 %");
}
