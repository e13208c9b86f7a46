#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "what this host refuses is said")]
//! A program that knows nothing of us: counters and samples of its threads.

use std::process::{Child, Command, Stdio};

use tailbeam_probes::clock::monotonic_ns;
use tailbeam_probes::collect::perf::{
    CounterBackend as _, Kind, Quality, Reading, TaskGroup, between, rules,
};
use tailbeam_probes::collect::profile::{ProfileOptions, Profiler};

/// A shell that counts for ever.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn id(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Waits until the process has used so much CPU time, by its own clock in /proc.
fn until_it_ran(process: &Busy, run_ns: u64) {
    let id = process.0.id();
    let schedstat = tailbeam_probes::collect::schedstat::Schedstat::of(id, id).unwrap();
    let begin = schedstat.read().unwrap().run_ns;
    while schedstat.read().unwrap().run_ns < begin + run_ns {
        std::thread::yield_now();
    }
}

#[test]
fn another_process_has_counters_and_one_that_is_gone_has_none() {
    let busy = Busy::start();
    let mut group = match TaskGroup::open(busy.id()) {
        Ok(group) => group,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let (mut before, mut after) = (Reading::default(), Reading::default());
    group.read(monotonic_ns(), &mut before);
    until_it_ran(&busy, 40_000_000);
    group.read(monotonic_ns(), &mut after);
    let delta = between(group.support(), &rules(None), &before, &after);
    let clock = delta.of(Kind::TaskClock);
    assert_eq!((delta.suspect, clock.quality), (None, Quality::Exact));
    assert!(clock.known() >= Some(30_000_000), "{clock:?}");
    drop(busy);
    let why = TaskGroup::open(i32::MAX - 1).unwrap_err();
    assert!(why.cause.contains("ESRCH"), "{why}");
}

#[test]
fn another_process_is_sampled_as_often_as_it_runs() {
    let busy = Busy::start();
    let options = ProfileOptions { hz: 199, ..ProfileOptions::default() };
    let mut profiler = match Profiler::open(busy.0.id(), options) {
        Ok(profiler) => profiler,
        Err(why) => return println!("SKIPPED: {why}"),
    };
    let mut idle = Profiler::open(std::process::id(), options).unwrap();
    until_it_ran(&busy, 300_000_000);
    let (mut samples, mut chains, mut last_ns) = (0, 0, 0);
    let drained = profiler.drain(|sample| {
        assert_eq!(sample.thread, busy.id());
        assert!(sample.at_ns >= last_ns && sample.cpu < 4_096);
        last_ns = sample.at_ns;
        samples += 1;
        chains += u64::from(!sample.chain.user().is_empty() || !sample.chain.kernel().is_empty());
    });
    assert_eq!((drained.samples, drained.lost, drained.broken), (samples, 0, 0));
    // 300 ms at 199 Hz are 60; the kernel settles on the rate within the first of them.
    assert!((30..=120).contains(&samples), "{samples}");
    assert_eq!(chains, samples, "each is somewhere");
    assert_eq!(profiler.rescan().unwrap().opened, 0);
    drop(busy);
    assert!(profiler.rescan().is_err() || profiler.drain(|_| {}).samples < 20);
    assert_eq!(idle.drain(|_| {}).broken, 0);
}

#[test]
fn threads_beyond_the_limit_are_counted() {
    let options = ProfileOptions { threads_max: 1, ..ProfileOptions::default() };
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || stopped.recv());
    match Profiler::open(std::process::id(), options) {
        Err(why) => println!("SKIPPED: {why}"),
        Ok(mut profiler) => {
            let scan = profiler.rescan().unwrap();
            assert!(scan.unprofiled >= 1, "{scan:?}");
            assert!(scan.refused.unwrap().remedy.contains("threads_max"));
        }
    }
    drop(stop);
    assert!(other.join().unwrap().is_err());
}
