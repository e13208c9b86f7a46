//! Checks of the product's own counter path.

use perf_event2::events::Hardware;
use perf_event2::{Builder, Counter};
use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::perf::{
    CounterBackend, CpuGroup, CpuOptions, Delta, Kind, Quality, Reading, State, SwitchRing,
    ThreadGroup, ThreadOptions, Unknown, between, rules,
};

use tailbeam_qemu::Judge;

use crate::work::two_instructions;

const USER: ThreadOptions = ThreadOptions { user_only: true };
const ROUNDS: [u64; 5] = [1, 1_000, 1_000_000, 2_000_000, 5_000_000];

/// Raw instructions and cycles of `rounds` with everything between two reads of `backend`. The time is
/// not asked for in between, as how often the kernel's page is read again is not ours to say.
#[inline(never)]
fn raw(backend: &mut dyn CounterBackend, rounds: u64) -> Option<(u64, u64)> {
    let (mut before, mut after) = (Reading::default(), Reading::default());
    backend.read(0, &mut before);
    two_instructions(rounds);
    backend.read(0, &mut after);
    let ran = |reading: &Reading| reading.state == State::Counted;
    let of = |kind: Kind| after.values[kind.index()] - before.values[kind.index()];
    (ran(&before) && ran(&after)).then(|| (of(Kind::Instructions), of(Kind::Cycles)))
}

/// 2 N + c instructions with one and the same c for all N, by both backends.
pub(crate) fn exact(judge: &mut Judge) {
    let opened = ThreadGroup::open(USER).map(|group| Box::new(group) as Box<dyn CounterBackend>);
    linear(judge, "thread group", opened);
    let options = CpuOptions { user_only: true, pinned: false };
    let opened = CpuGroup::open(0, options).map(|group| Box::new(group) as Box<dyn CounterBackend>);
    linear(judge, "CPU group", opened);
    match ThreadGroup::open(ThreadOptions::default()) {
        Ok(mut group) => {
            let delta = measured(&mut group, 1_000_000);
            let (value, seen) = (delta.of(Kind::Instructions), format!("{delta:?}"));
            let more = value.quality == Quality::Exact && value.known() >= Some(2_000_000);
            judge.that("with the kernel it is exact, and as many or more", more, &seen);
        }
        Err(why) => judge.that("a group with the kernel opens", false, &why.to_string()),
    }
}

fn linear(
    judge: &mut Judge,
    name: &str,
    opened: Result<Box<dyn CounterBackend>, tailbeam_probes::Unavailable>,
) {
    let mut backend = match opened {
        Ok(backend) => backend,
        Err(why) => return judge.that(&format!("{name} opens"), false, &why.to_string()),
    };
    // Once for the pages and the branch that are new.
    raw(backend.as_mut(), 1);
    let mut constants = Vec::new();
    for round in ROUNDS.into_iter().chain(ROUNDS) {
        let counted = raw(backend.as_mut(), round);
        let constant = counted.map(|(instructions, _)| instructions.wrapping_sub(2 * round));
        constants.push(constant);
        println!(
            "       {name}: N = {round}: (instructions, cycles) {counted:?}, c = {constant:?}"
        );
    }
    let same = constants.iter().all(|constant| constant.is_some() && *constant == constants[0]);
    let small = constants[0].is_some_and(|constant| constant < 2_000);
    judge.that(
        &format!("{name} reads 2 N + c instructions"),
        same && small,
        &format!("c = {:?}", constants[0]),
    );
}

fn measured(backend: &mut dyn CounterBackend, rounds: u64) -> Delta {
    let (mut before, mut after) = (Reading::default(), Reading::default());
    backend.read(monotonic_ns(), &mut before);
    two_instructions(rounds);
    backend.read(monotonic_ns(), &mut after);
    between(backend.support(), &rules(None), &before, &after)
}

/// Whose the events are that compete with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// The same thread's: the kernel passes counters among all of them.
    Thread,
    /// The CPU's, for good: they are served before any thread's.
    Pinned,
}

fn others(count: usize, whose: Others) -> Vec<Counter> {
    (0..count)
        .map(|_| {
            let mut builder = Builder::new(Hardware::INSTRUCTIONS);
            match whose {
                Others::Thread => builder.observe_self().any_cpu(),
                Others::Pinned => builder.any_pid().one_cpu(0).pinned(true),
            };
            let mut counter = builder.build().expect("root may count a CPU");
            counter.enable().expect("it was opened");
            counter
        })
        .collect()
}

/// Others want counters too: ours are shared, scaled, and say so.
pub(crate) fn shared(judge: &mut Judge) {
    let mut group = ThreadGroup::open(USER).expect("it opened before");
    let others = others(12, Others::Thread);
    let rounds = 50_000_000;
    let delta = measured(&mut group, rounds);
    let value = delta.of(Kind::Instructions);
    let part = matches!(value.quality, Quality::Scaled(_) | Quality::Rough(_));
    judge.that("a group that shares says so", part, &format!("{:?}", value.quality));
    let error = value.known().map(|count| count.abs_diff(2 * rounds) * 1_000 / (2 * rounds));
    let near = error.is_some_and(|permille| permille <= 50) && value.raw < 2 * rounds;
    judge.that("and its scaled count is within 5 %", near, &format!("{value:?}"));
    let windows = (0..60).map(|_| measured(&mut group, 100_000).of(Kind::Instructions).quality);
    let (short, rest): (Vec<_>, Vec<_>) =
        windows.partition(|quality| *quality == Quality::Unknown(Unknown::TooShort));
    let honest = !short.is_empty() && rest.iter().all(|quality| *quality == Quality::Exact);
    let seen = format!("{} of 60 unknown, of the rest the first {:?}", short.len(), rest.first());
    judge.that("windows shorter than a rotation are exact or unknown, never scaled", honest, &seen);
    drop(others);
    // Counters are handed out anew within a rotation.
    measured(&mut group, 10_000_000);
    let alone = measured(&mut group, 10_000_000).of(Kind::Instructions).quality;
    judge.that("alone again it is exact", alone == Quality::Exact, &format!("{alone:?}"));
}

/// Others hold all counters for good: ours is unknown and not zero.
pub(crate) fn starved(judge: &mut Judge) {
    let mut group = ThreadGroup::open(USER).expect("it opened before");
    let held = others(9, Others::Pinned);
    let quality = measured(&mut group, 20_000_000).of(Kind::Instructions).quality;
    let unknown = quality == Quality::Unknown(Unknown::Starved);
    judge.that("a group that never ran is unknown", unknown, &format!("{quality:?}"));
    let options = CpuOptions { user_only: true, pinned: true };
    match CpuGroup::open(0, options) {
        Ok(mut group) => {
            let quality = measured(&mut group, 20_000_000).of(Kind::Instructions).quality;
            let unknown = quality == Quality::Unknown(Unknown::Starved);
            judge.that("a pinned one reads the end of file", unknown, &format!("{quality:?}"));
        }
        Err(why) => judge.that("a pinned group opens", false, &why.to_string()),
    }
    drop(held);
    measured(&mut group, 20_000_000);
    let quality = measured(&mut group, 20_000_000).of(Kind::Instructions).quality;
    judge.that(
        "with counters again it is exact",
        quality == Quality::Exact,
        &format!("{quality:?}"),
    );
}

/// Switches of the own thread, here on another kernel and architecture.
pub(crate) fn switches(judge: &mut Judge) {
    let mut ring = match SwitchRing::open(1 << 14) {
        Ok(ring) => ring,
        Err(why) => return judge.that("a ring opens", false, &why.to_string()),
    };
    for _ in 0..10 {
        std::thread::spawn(|| two_instructions(1_000_000)).join().expect("it does not panic");
    }
    let mut blocked = 0;
    let drained = ring.drain(u64::MAX, |interval| blocked += u64::from(!interval.preempted));
    let sound = (drained.lost, drained.unpaired, drained.broken) == (0, 0, 0);
    judge.that(
        "ten joins are ten waits or more",
        blocked >= 10 && sound,
        &format!("{blocked} {drained:?}"),
    );
}

/// Each CPU has its own group, and only its own threads read it. Counts are not exact here: QEMU's two
/// CPUs share one time.
pub(crate) fn two_cpus(judge: &mut Judge) {
    for cpu in 0..2 {
        let mut group = match CpuGroup::open(cpu, CpuOptions::default()) {
            Ok(group) => group,
            Err(why) => return judge.that("a group of each CPU opens", false, &why.to_string()),
        };
        let mut reading = Reading::default();
        group.read(monotonic_ns(), &mut reading);
        let expected = if reading.cpu == cpu { State::Counted } else { State::Elsewhere };
        judge.that(
            "only the own CPU's is read",
            reading.state == expected,
            &format!("{reading:?}"),
        );
    }
    let why = CpuGroup::open(2, CpuOptions::default()).map(drop);
    judge.that("there is no third", why.is_err(), &format!("{why:?}"));
}
