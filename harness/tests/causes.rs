//! A core or a thread that is taken from outside while agents run: what was taken is named, it is not called the
//! agent's code, and who waited meanwhile waited behind it.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]
#![allow(clippy::print_stdout, reason = "what this host refuses, and what was seen, is said")]

mod common;
mod outside;

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::{Ran, plan};
use outside::{Outside, Running};
use tailbeam_harness::load::{AgentInfo, Cx, ReplyTo, Workload};
use tailbeam_harness::plan::Span;
use tailbeam_probes::analyse::latency::conserve::{Given, Outcome, What};
use tailbeam_probes::analyse::latency::explain::{Behind, Index};
use tailbeam_probes::analyse::latency::{Explained, conservation, explain};
use tailbeam_probes::clock::{monotonic_ns, thread_cpu_ns};
use tailbeam_probes::record::latency::{CoreTick, Exemplar, Stage};

const MS: u64 = 1_000_000;
/// CPU time of a request to an agent that computes: longer than a slice of the scheduler.
const WORK_NS: u64 = 6 * MS;
/// All of these live on the second shard, the one that is taken: 1 of 40 requests.
const fn computes(agent: u32) -> bool {
    agent % 40 == 1
}
/// Between two requests of an agent: the taken shard computes for 0.3 of its time.
const THINK: Span = Span::ms(50, 150);
/// The shard that is taken.
const TAKEN: u16 = 1;

/// Runs a test of this program in a session of its own, above what else runs on this machine: it is the planted cause
/// that is to be seen, and whoever takes the core there has the same priority. Others than root are refused that,
/// and see the machine's other load as well.
fn apart(name: &str) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--ignored", "--exact", name, "--nocapture"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    println!("{said}");
}

/// The other side of [`apart`]. The scheduler weighs sessions first, if it groups by them, then threads.
fn above_others() {
    let session = rustix::process::setsid().is_ok();
    let group = session && fs::write("/proc/self/autogroup", "-20").is_ok();
    let thread = rustix::process::setpriority_process(None, -20).is_ok();
    println!("own session {session}, above others as a group {group}, as a thread {thread}");
}

/// Answers at once, or after so much CPU time of its thread: time off the CPU makes its service longer.
struct Works {
    index: u32,
}

impl Workload for Works {
    const NAME: &'static str = "works";
    const ABOUT: &'static str = "some agents use 6 ms of CPU time for each answer";
    type Request = u64;
    type Reply = u64;

    fn new(info: AgentInfo) -> Self {
        Self { index: info.index }
    }

    fn request(&mut self, k: u64) -> u64 {
        k
    }

    async fn serve(&mut self, number: u64, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let until = thread_cpu_ns() + WORK_NS;
        while computes(self.index) && thread_cpu_ns() < until {
            std::hint::spin_loop();
        }
        reply.send(cx, number);
    }
}

/// The thread of the shard on this CPU, once it is there.
fn shard_on(cpu: usize) -> u32 {
    let name = format!("shard-{cpu}");
    for _ in 0..2_000 {
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut named = threads.filter(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
        });
        if let Some(thread) = named.next() {
            return thread.file_name().to_str().unwrap().parse().unwrap();
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("no thread {name} in 10 s")
}

/// CPUs that this process may use.
fn cpus() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    (0..1_024).filter(|cpu| allowed.is_set(*cpu)).collect()
}

/// A run with its second shard taken, and when it was; says why it cannot be made here.
fn taken(what: Outside, think: Span, switches: bool) -> Option<(Ran, Vec<(u64, u64)>)> {
    let cpus = cpus();
    let [first, second, ..] = cpus[..] else {
        println!("SKIPPED: one core: no other one is left");
        return None;
    };
    let mut refused = None;
    let mut times = Vec::new();
    let mut plan = plan(200, 8);
    plan.think = think;
    plan.observe.switches = switches;
    plan.observe.exemplars = Some(256);
    let ran = common::run_as::<Works>(&plan, || {
        std::thread::park_timeout(Duration::from_millis(900));
        match outside::start(what, (shard_on(second), second, first), 6_500) {
            Ok(running) => times = Running::end(running),
            Err(why) => refused = Some(why),
        }
    });
    if let Some(why) = refused {
        println!("SKIPPED: {why}");
        return None;
    }
    Some((ran?, times))
}

/// Each request of the taken shard that is written down whole, once, explained.
fn explained(ran: &Ran) -> Vec<(Exemplar, Explained)> {
    let index = Index::new(&ran.windows);
    let of_shard = ran.exemplars().filter(|exemplar| exemplar.responder_shard == TAKEN);
    let once: BTreeMap<_, _> =
        of_shard.map(|of| ((of.asker, of.stamps.intended_ns), *of)).collect();
    once.into_values().map(|of| (of, explain(&of, &index, 1_000))).collect()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Requests whose own service was taken for `long_ns` and more: `of` is the time taken.
fn struck(
    all: &[(Exemplar, Explained)],
    long_ns: u64,
    of: fn(&Explained) -> u64,
) -> Vec<&(Exemplar, Explained)> {
    let worked = |one: &&(Exemplar, Explained)| computes(one.0.responder) && of(&one.1) >= long_ns;
    all.iter().filter(worked).collect()
}

/// In the requests that were struck in the middle of a turn the agent's code is as long as ever, and no other stage
/// moved. Some answers wait behind turns of 6 ms of the taken shard, struck or not: the median of four was once one.
fn only_the_service_grew(struck: &[&(Exemplar, Explained)]) {
    let code = median(struck.iter().map(|(_, why)| why.service.rest_ns).collect());
    assert!(
        (WORK_NS / 2..WORK_NS * 2).contains(&code),
        "{WORK_NS} ns of CPU time are called {code} ns of the agent's own code"
    );
    for stage in Stage::ALL.into_iter().filter(|stage| *stage != Stage::Service) {
        let of_stage = |one: &&(Exemplar, Explained)| one.1.staged.stages[stage.index()];
        let moved = median(struck.iter().map(of_stage).collect());
        assert!(moved < 5 * MS, "{moved} ns of {}", stage.name());
    }
}

/// Requests that waited long for the taken shard, and how much of all their waits is behind what, percent.
#[derive(Debug)]
struct Waited {
    requests: usize,
    /// Behind the planted cause.
    planted: u64,
    /// Behind anything that is named: the planted cause, or a turn of an agent that computes.
    named: u64,
}

/// Those that waited `long_ns` and more.
fn waited(all: &[(Exemplar, Explained)], long_ns: u64, planted: fn(Behind) -> bool) -> Waited {
    let stages = [Stage::Hop, Stage::RunQueue, Stage::Mailbox];
    let mut waited = Waited { requests: 0, planted: 0, named: 0 };
    let mut all_ns = 0;
    for (_, why) in all {
        let waits = || why.waits.iter().filter(|w| w.shard == TAKEN && stages.contains(&w.stage));
        let long: u64 = waits().map(|wait| wait.to_ns - wait.from_ns).sum();
        if long < long_ns {
            continue;
        }
        (waited.requests, all_ns) = (waited.requests + 1, all_ns + long);
        for cause in waits().flat_map(|wait| &wait.causes) {
            let works = matches!(cause.behind, Behind::Turn { agent } if computes(agent));
            waited.planted += u64::from(planted(cause.behind)) * cause.ns;
            waited.named += u64::from(planted(cause.behind) || works) * cause.ns;
        }
    }
    let percent = |ns: u64| ns * 100 / all_ns.max(1);
    Waited { planted: percent(waited.planted), named: percent(waited.named), ..waited }
}

fn ticks(ran: &Ran) -> impl Iterator<Item = &CoreTick> {
    ran.windows.iter().filter(|window| window.shard == TAKEN).flat_map(|window| &window.ticks)
}

fn sum(ran: &Ran, of: fn(&CoreTick) -> Option<u64>) -> u64 {
    ticks(ran).filter_map(of).sum()
}

/// The wall time of the core is its CPU time and its time off the CPU, and the requests' stages are their latency,
/// whoever takes what.
fn adds_up(ran: &Ran) {
    let clock_ns = ran.run.manifest.clock_bound_ns.unwrap();
    let found = conservation(&Given { windows: &ran.windows, counted: None, clock_ns });
    for check in found.checks.iter().filter(|check| matches!(check.what, What::Little { .. })) {
        println!("{:?} {:?}", check.what, check.figures);
    }
    // A core that is taken between two reads of a clock may put a single request's stamps out of order.
    let failed: Vec<_> = found.failed().filter(|check| check.what != What::Order).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let wall = What::OnOff { shard: TAKEN };
    let wall = found.checks.iter().find(|check| check.what == wall).unwrap();
    assert_eq!(wall.outcome, Outcome::Pass, "{wall:?}");
}

fn has_switches(ran: &Ran) -> bool {
    let known = ticks(ran).any(|tick| tick.preempted_ns.is_some());
    if !known {
        println!("SKIPPED: this host does not record switches");
    }
    known
}

/// Ready and without its CPU: by the records of switches and by the scheduler's own count.
fn preempted(ran: &Ran, took: &[(u64, u64)], long_ns: u64) {
    let took: u64 = took.iter().map(|(from, to)| to - from).sum();
    let all = explained(ran);
    let struck = struck(&all, long_ns, |why| why.service.preempted_ns.unwrap_or(0));
    let waited = waited(&all, long_ns, |behind| matches!(behind, Behind::Preempted { .. }));
    let (records, ready) = (sum(ran, |tick| tick.preempted_ns), sum(ran, |tick| tick.wait_ns));
    println!(
        "taken {} ms; preempted {} ms by records of switches, ready without the CPU {} ms by schedstat; {} requests \
         struck; {waited:?}",
        took / MS,
        records / MS,
        ready / MS,
        struck.len(),
    );
    assert!(!struck.is_empty(), "it was taken in the middle of a turn");
    only_the_service_grew(&struck);
    assert!(waited.requests > 0 && waited.planted >= 25 && waited.named >= 70, "{waited:?}");
    assert!(ready >= records * 9 / 10, "what was preempted was ready all the time");
}

#[test]
fn a_neighbour_that_hogs_the_core_is_preemption_and_not_the_agents_code() {
    apart("hogged");
}

#[test]
#[ignore = "a part of the test before it"]
fn hogged() {
    above_others();
    let Some((ran, took)) = taken(Outside::Hog, Span::ms(150, 350), true) else { return };
    if has_switches(&ran) {
        // A slice of the scheduler is about 3 ms. Half of the core is left, so the load is less than elsewhere.
        preempted(&ran, &took, 2 * MS);
        adds_up(&ran);
    }
}

#[test]
fn a_real_time_hog_is_preemption_and_not_the_agents_code() {
    apart("hogged_in_real_time");
}

#[test]
#[ignore = "a part of the test before it"]
fn hogged_in_real_time() {
    above_others();
    let Some((ran, took)) = taken(Outside::Fifo, THINK, true) else { return };
    if has_switches(&ran) {
        preempted(&ran, &took, 10 * MS);
        adds_up(&ran);
    }
}

#[test]
fn a_thread_that_is_held_is_off_its_cpu_and_not_the_agents_code() {
    apart("held");
}

/// A thread that is held is not ready: the scheduler does not count it as waiting, and the records cannot tell it
/// from a blocking call. That it was off its CPU, when, and in whose turn, is known; why is said to be unknown.
#[test]
#[ignore = "a part of the test before it"]
fn held() {
    above_others();
    let Some((ran, took)) = taken(Outside::Tracer, THINK, true) else { return };
    if !has_switches(&ran) {
        return;
    }
    let all = explained(&ran);
    let struck = struck(&all, 10 * MS, |why| why.service.blocked_ns.unwrap_or(0));
    let held = |behind| matches!(behind, Behind::Blocked { .. } | Behind::Asleep);
    let waited = waited(&all, 10 * MS, held);
    let ready = sum(&ran, |tick| tick.wait_ns);
    println!("held {} times; {} requests struck; {waited:?}", took.len(), struck.len());
    assert!(!struck.is_empty(), "it was held in the middle of a turn");
    only_the_service_grew(&struck);
    for (of, why) in &struck {
        let (from, to) = (of.stamps.out.turn_ns, of.stamps.answered_ns);
        let held: u64 =
            took.iter().map(|held| held.1.min(to).saturating_sub(held.0.max(from))).sum();
        let told = why.service.blocked_ns.unwrap();
        // Between the stop and its being told to the tracer, and back, the thread is held as well.
        assert!((held..held + 10 * MS).contains(&(told + MS)), "held {held} ns, told {told}");
    }
    assert!(waited.requests > 0 && waited.planted >= 25 && waited.named >= 70, "{waited:?}");
    let held: u64 = took.iter().map(|(from, to)| to - from).sum();
    println!("held {} ms, ready without the CPU {} ms by schedstat", held / MS, ready / MS);
    adds_up(&ran);
}

#[test]
fn where_nothing_is_taken_nothing_is_named() {
    apart("undisturbed");
}

/// The clean twin of the others.
#[test]
#[ignore = "a part of the test before it"]
fn undisturbed() {
    above_others();
    let Some(ran) = common::run_as::<Works>(&plan(200, 4), || {}) else { return };
    if !has_switches(&ran) {
        return;
    }
    let all = explained(&ran);
    let blocked = struck(&all, 10 * MS, |why| why.service.blocked_ns.unwrap_or(0)).len();
    let preempted = struck(&all, 10 * MS, |why| why.service.preempted_ns.unwrap_or(0)).len();
    println!("undisturbed: {blocked} held, {preempted} preempted of {} requests", all.len());
    assert_eq!(blocked, 0, "nobody held it");
    // Others than root cannot keep the machine's other load away.
    assert!(preempted == 0 || !rustix::process::geteuid().is_root(), "{preempted} preempted");
    let served = all.iter().filter(|(of, _)| computes(of.responder));
    let code = median(served.map(|(_, why)| why.service.rest_ns).collect());
    assert!((WORK_NS / 2..WORK_NS * 2).contains(&code), "{code} ns of the agents' own code");
}

#[test]
fn where_switches_are_not_recorded_a_turn_is_split_by_its_cpu_time() {
    apart("hogged_unrecorded");
}

/// As in a container that refuses perf: CPU time and schedstat are left. How long a turn was off is known, not when.
#[test]
#[ignore = "a part of the test before it"]
fn hogged_unrecorded() {
    above_others();
    let Some((ran, _)) = taken(Outside::Fifo, THINK, false) else { return };
    assert!(ticks(&ran).all(|tick| tick.preempted_ns.is_none()), "nothing is recorded");
    let all = explained(&ran);
    let struck = struck(&all, 10 * MS, |why| why.service.preempted_ns.unwrap_or(0));
    let waited = waited(&all, 10 * MS, |behind| matches!(behind, Behind::Preempted { .. }));
    println!("without records: {} requests struck; {waited:?}", struck.len());
    assert!(!struck.is_empty(), "it was taken in the middle of a turn");
    only_the_service_grew(&struck);
    // Of a part of a turn it may not be known whether it was on the CPU: that is nobody's.
    assert!(waited.requests > 0 && waited.planted >= 10 && waited.named >= 40, "{waited:?}");
    let unknowns = &ran.run.manifest.unknowns;
    assert!(unknowns.iter().any(|of| of.thing == "time off the CPU"), "{unknowns:?}");
}

/// What is taken from outside in the tests above; alone it does nothing.
#[test]
#[ignore = "a part of the tests above"]
fn child() {
    outside::child();
    let _ = monotonic_ns();
}
