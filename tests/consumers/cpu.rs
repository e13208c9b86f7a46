//! The CPU profile of a recorded program, read by `go tool pprof`, by inferno and by the Firefox Profiler.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Command;

use tailbeam::render::export::cpu::{self, CpuExport};
use tailbeam::render::export::{cpu_firefox, gzipped};
use tailbeam_probes::analyse::program::{CpuProfile, Program, cpu_profile};
use tailbeam_probes::record::program::{
    Count, KERNEL, ProgramSamples, ProgramStacks, ProgramStart, ProgramTick, SampleRow, StackRow,
    ThreadRow, ThreadWindow, WHATS,
};

use super::firefox::Session;
use super::programs::{consumer, flat, npm, pprof, run};

/// 30 samples of `three`, 10 of `one`, in two threads; the names are the kernel's, which need no file.
struct Recorded {
    program: Program,
    profile: CpuProfile,
}

impl Recorded {
    fn new() -> Self {
        let start = ProgramStart {
            hz: 100,
            process: 7,
            started_unix_ns: 1_700_000_000_000_000_000,
            command: vec!["/opt/shop".to_owned()],
            ..ProgramStart::default()
        };
        let mut program = Program::new(start);
        let row = |thread: u32, name: &str| ThreadRow {
            process: 7,
            thread,
            name: name.to_owned(),
            since_ns: 0,
        };
        let window = |thread| ThreadWindow { thread, counts: [Count::Exact(200_000_000); WHATS] };
        program.tick(ProgramTick {
            to_ns: 1_000_000_000,
            born: vec![row(7, "shop"), row(8, "worker")],
            threads: vec![window(1), window(2)],
            ended: vec![(2, 900_000_000)],
            ..ProgramTick::default()
        });
        let stack = |leaf| StackRow { frames: vec![(KERNEL, leaf), (KERNEL, 0x30)], cut: false };
        let names = [(0x10, "three"), (0x20, "one"), (0x30, "main")];
        program.stacks(ProgramStacks {
            stacks: vec![stack(0x10), stack(0x20)],
            kernel: names.map(|(address, name)| (address, name.to_owned())).to_vec(),
            ..ProgramStacks::default()
        });
        let sample = |n: u64| SampleRow {
            after_ns: n * 10_000_000,
            thread: 1 + u32::from(n >= 20),
            cpu: 0,
            stack: u32::from(n % 4 == 3),
        };
        let samples = (0..40).map(sample).collect();
        program.samples(&ProgramSamples { from_ns: 100_000_000, samples });
        let none = |_: &str| Err(io::ErrorKind::NotFound.into());
        let profile = cpu_profile(&program, &[], &none);
        Self { program, profile }
    }

    fn export(&self) -> CpuExport<'_> {
        CpuExport {
            run: "20261126-020000-000",
            program: &self.program,
            profile: &self.profile,
            comments: &[],
        }
    }
}

#[test]
fn pprof_finds_the_samples_and_the_time_that_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cpu.pb.gz");
    let recorded = Recorded::new();
    cpu::pprof(&recorded.export(), &mut File::create(&path).unwrap()).unwrap();
    let options = ["-top", "-nodefraction=0", "-sample_index=samples"];
    let Some(top) = pprof(&options, &[&path]) else { return };
    let found = flat(&top);
    assert_eq!((found["three"], found["one"]), (30, 10), "{top}");
    // What nobody asked for is CPU time.
    let plain = pprof(&["-top", "-unit=ms", "-nodefraction=0"], &[&path]).unwrap();
    assert!(plain.contains("Type: cpu") && plain.contains("Duration: 1s"), "{plain}");
    assert!(plain.contains("300ms") && plain.contains("Total samples = 400ms"), "{plain}");
    let tags = pprof(&["-tags"], &[&path]).unwrap();
    for part in ["thread", "worker", "shop", "tid", "core"] {
        assert!(tags.contains(part), "{part} is not in {tags}");
    }
}

#[test]
fn inferno_draws_the_threads_at_the_root() {
    let program = npm().join("bin/inferno-flamegraph");
    if !consumer("inferno-flamegraph", program.exists()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cpu.folded");
    let recorded = Recorded::new();
    cpu::folded(&recorded.export(), &mut File::create(&path).unwrap()).unwrap();
    let svg = run(Command::new(&program).arg(&path));
    for part in ["worker (20 samples", "shop (20 samples", "three (15 samples", "one (5 samples"] {
        assert!(svg.contains(part), "{part:?} is not in {svg}");
    }
}

#[test]
fn the_firefox_profiler_lists_threads_samples_and_counters() {
    let recorded = Recorded::new();
    let write = |path: &Path| {
        let mut file = File::create(path).unwrap();
        gzipped(&mut file, |out| cpu_firefox::write(&recorded.export(), out)).unwrap();
    };
    let Some(session) = Session::open(write) else { return };
    let threads = session.ask(&["thread", "list"]);
    assert!(threads.contains("shop") && threads.contains("worker"), "{threads}");
    let counters = session.ask(&["counter", "list"]);
    assert!(counters.contains("cpu_us") && counters.contains("switches"), "{counters}");
    let functions = session.ask(&["thread", "samples"]);
    assert!(functions.contains("three") && functions.contains("one"), "{functions}");
}
