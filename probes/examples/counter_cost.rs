//! What reading costs on this host, and that "off" costs nothing: medians of interleaved rounds.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use tailbeam_probes::Unavailable;
use tailbeam_probes::clock::{self, CycleClock};
use tailbeam_probes::collect::cpu_times::CpuTimesReader;
use tailbeam_probes::collect::perf::{
    CounterBackend, CpuGroup, CpuOptions, Plain, Reading, SwitchRing, ThreadGroup, ThreadOptions,
    explain, left_open,
};
use tailbeam_probes::collect::schedstat::Schedstat;

const ROUNDS: usize = 9;
const TIMES: u64 = 2_000;

/// Median of rounds, ns per call.
fn price(mut call: impl FnMut()) -> u64 {
    let mut rounds: Vec<u64> = (0..ROUNDS)
        .map(|_| {
            let begin = clock::monotonic_ns();
            (0..TIMES).for_each(|_| call());
            (clock::monotonic_ns() - begin) * 10 / TIMES
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn line(name: &str, tenths: u64) {
    println!("{name:<34} {:>8}.{} ns", tenths / 10, tenths % 10);
}

fn backend<B: CounterBackend>(name: &str, opened: Result<B, Unavailable>) {
    match opened {
        Ok(mut backend) => {
            let mut reading = Reading::default();
            line(name, price(|| backend.read(1, black_box(&mut reading))));
        }
        Err(why) => println!("{name:<34} {why}"),
    }
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        println!("not pinned to CPU {cpu}: {error}");
    }
}

/// ns per switch of two threads that answer each other on one CPU.
fn switch(to: &Sender<()>, from: &Receiver<()>) -> u64 {
    const TURNS: u64 = 5_000;
    let begin = clock::monotonic_ns();
    for _ in 0..TURNS {
        if to.send(()).is_err() || from.recv().is_err() {
            return 0;
        }
    }
    (clock::monotonic_ns() - begin) / (2 * TURNS)
}

fn switches() {
    let (to, theirs) = channel();
    let (back, from) = channel();
    let other = thread::spawn(move || while theirs.recv().is_ok() && back.send(()).is_ok() {});
    let (mut off, mut on, mut lost) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        off.push(switch(&to, &from));
        if let Ok(mut ring) = SwitchRing::open(1 << 20) {
            on.push(switch(&to, &from));
            lost += ring.drain(u64::MAX, |_| {}).lost;
        }
    }
    off.sort_unstable();
    on.sort_unstable();
    println!("a switch without a ring              {off:?} ns");
    println!("a switch with a ring, {lost} lost     {on:?} ns");
    println!("left open: {:?}", left_open());
    drop(to);
    drop(other.join());
}

fn main() {
    pin(0);
    let clock = CycleClock::start();
    println!("counter {}, refused: {:?}", clock.counter().name(), clock.refused());
    let counter = clock.counter();
    line("ticks, fenced", price(|| _ = black_box(counter.ticks())));
    line("ticks, not fenced", price(|| _ = black_box(counter.ticks_unfenced())));
    line("ticks and line", price(|| _ = black_box(clock.now_ns())));
    line("CLOCK_MONOTONIC", price(|| _ = black_box(clock::monotonic_ns())));
    backend("thread group", ThreadGroup::open(ThreadOptions::default()));
    backend("CPU group", CpuGroup::open(0, CpuOptions::default()));
    backend("without perf", Ok(Plain::new(&explain(1, None))));
    match Schedstat::own() {
        Ok(schedstat) => line("schedstat", price(|| drop(black_box(schedstat.read())))),
        Err(why) => println!("{why}"),
    }
    match CpuTimesReader::open(1_024) {
        Ok(mut times) => line("/proc/stat", price(|| drop(black_box(times.read(0))))),
        Err(why) => println!("{why}"),
    }
    switches();
}
