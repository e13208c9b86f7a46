#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stdout, reason = "what this host cannot show is said")]
//! Stamps of two cores can be subtracted: a message is never received before it was sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tailbeam_probes::clock::CycleClock;
use tailbeam_probes::clock::cycles::Counter;
use tailbeam_probes::clock::line::Clamps;

const TRIPS: u64 = 100_000;

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).unwrap();
}

/// Waits for a stamp other than `last`.
fn receive(from: &AtomicU64, last: u64) -> u64 {
    let mut looks = 0u32;
    loop {
        let stamp = from.load(Ordering::Acquire);
        if stamp != last {
            return stamp;
        }
        looks += 1;
        // The other core may be somebody else's for a while.
        if looks.is_multiple_of(1_000) {
            thread::yield_now();
        }
    }
}

/// Sends and receives in turn; intervals that would have been negative.
fn play(counter: Counter, to: &AtomicU64, from: &AtomicU64, first: bool) -> Clamps {
    let (mut clamps, mut last) = (Clamps::default(), 0);
    for trip in 0..TRIPS {
        if !first || trip > 0 {
            last = receive(from, last);
            clamps.between(last, counter.ticks());
        }
        to.store(counter.ticks(), Ordering::Release);
    }
    clamps
}

#[test]
fn fenced_stamps_of_two_cores_have_an_order() {
    let counter = CycleClock::start().counter();
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..1_024).filter(|cpu| allowed.is_set(*cpu)).take(2).collect();
    let [one, two] = cpus[..] else { return println!("SKIPPED: one core") };
    let (there, back) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            pin(two);
            play(counter, &back, &there, false)
        });
        pin(one);
        let ours = play(counter, &there, &back, true);
        let theirs = other.join().unwrap();
        assert_eq!((ours.count, theirs.count), (0, 0), "{}: {ours:?} {theirs:?}", counter.name());
    });
}
