//! A supervisor of chaos that is killed in the middle of a fault leaves nothing: no group, mount, namespace, device, rule
//! or process. A dozen faults of all kinds in the usual run; with `TAILBEAM_TEST_KILLED=all` every fault that this host
//! can do (`.ci/killed`).
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]
#![expect(clippy::print_stderr, reason = "a test that skips must say so")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, pidfd_open};
use tailbeam_harness::chaos::board::{Board, Knob};
use tailbeam_harness::chaos::host::{Residue, residue};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");
const LINE: &str = "--injections 1 --agents 200 --think 50ms..150ms --hold 60s --baseline 5s --patience 20s \
                    --progress none -- --delay 5ms..20ms --timeout 2s";
/// One of each kind: groups, a real-time hog, a frozen thread, a limit, a disk, a cable, a rule of packets, a filter of
/// system calls, a time namespace, a proxy, a limit of descriptors, a knob.
const EACH_KIND: [&str; 12] = [
    "cpu_throttling/quota",
    "cpu_throttling/hog",
    "cpu_throttling/held_core",
    "cpu_throttling/frozen",
    "memory_exhaustion/limit",
    "disk_io_stress/full",
    "network_partition/tcp",
    "network_partition/tcp_loss",
    "dependency_failure/io_uring",
    "clock_skew/namespace",
    "fd_exhaustion/limit",
    "network_partition/total",
];
/// Those that are done to a copy.
const COPIES: [&str; 4] = [
    "event_store_corruption/bit_flip",
    "event_store_corruption/truncated_tail",
    "event_store_corruption/zeroed_page",
    "event_store_corruption/duplicate",
];
/// Supervisors beside each other.
const ABREAST: usize = 6;

#[test]
fn a_supervisor_that_is_killed_in_the_middle_of_a_fault_leaves_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: faults of the kernel need root");
        return;
    }
    let list = Command::new(PROGRAM).args(["chaos", "--all", "--list"]).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let all = std::env::var("TAILBEAM_TEST_KILLED").is_ok_and(|which| which == "all");
    let chosen: Vec<(&str, &str)> = list
        .lines()
        .filter_map(|row| Some((row.split_whitespace().next()?, row)))
        .filter(|(name, _)| name.contains('/'))
        .filter(|(name, _)| all || EACH_KIND.contains(name))
        .collect();
    assert!(chosen.len() >= EACH_KIND.len(), "{list}");
    let (able, not): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|(_, row)| !row.contains("no: "));
    not.iter().for_each(|(_, row)| eprintln!("SKIPPED: {}", row.trim()));
    if rules().is_none() {
        eprintln!("SKIPPED: rules of packets are not compared: nft cannot be run here");
    }
    assert!(able.len() > 3, "what the subject does itself needs nothing of this host: {list}");
    // Beside each other: each has names of its own. What has no name of ours shows in the host as it was before.
    for faults in able.chunks(ABREAST) {
        let (before, rules_before) = (residue(&[]).unwrap(), rules());
        std::thread::scope(|scope| {
            for (fault, _) in faults {
                scope.spawn(move || killed_in(fault));
            }
        });
        let left = residue(&[]).unwrap().since(&before);
        assert!(left.is_empty(), "{faults:?}: {left:?}");
        assert_eq!(rules(), rules_before, "{faults:?}: rules of packets");
    }
}

/// Rules of packets in the host's own namespace, where `nft` is here to list them.
fn rules() -> Option<Vec<u8>> {
    let listed = Command::new("nft").args(["list", "ruleset"]).output().ok()?;
    listed.status.success().then_some(listed.stdout)
}

/// What a fault, or what it is done to, must be seen to have made, so that its absence afterwards shows something.
fn made_for(fault: &str) -> &'static [&'static str] {
    match fault {
        "disk_io_stress/throttle" | "disk_io_stress/full" | "disk_io_stress/power_cut" => {
            &["group", "process", "mount", "loop device", "file"]
        }
        "network_partition/tcp"
        | "network_partition/tcp_one_way"
        | "network_partition/tcp_loss" => &["group", "process", "network namespace"],
        _ => &["group", "process"],
    }
}

fn killed_in(fault: &str) {
    let mut supervisor = Supervisor::in_the_middle(fault);
    let during = supervisor.during(fault);
    let guard = supervisor.guard();
    let watched = pidfd_open(guard, rustix::process::PidfdFlags::empty()).unwrap();
    kill_process(Pid::from_child(&supervisor.child), Signal::KILL).unwrap();
    supervisor.child.wait().unwrap();
    // The guard ends when it has undone what it can; how long that takes is the host's business.
    let mut ends = [rustix::event::PollFd::new(&watched, rustix::event::PollFlags::IN)];
    // As long as a supervisor that lives would wait for it.
    let patience = rustix::event::Timespec { tv_sec: 600, tv_nsec: 0 };
    let ended = rustix::event::poll(&mut ends, Some(&patience)).unwrap();
    let left = supervisor.left();
    assert!(ended == 1, "{fault}: its guard works on: {left:?}\n{}", supervisor.journal());
    assert!(left.is_empty(), "{fault}: {left:?}\n{}", supervisor.journal());
    eprintln!("{fault}: {} things, nothing left", during.len());
}

/// A supervisor in the middle of a fault, and what it did to the host so far.
struct Supervisor {
    child: Child,
    store: tempfile::TempDir,
}

impl Drop for Supervisor {
    /// A test that fails leaves none either: its guard sees to the rest.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Supervisor {
    /// Waits until the fault is in force.
    fn in_the_middle(fault: &str) -> Self {
        let store = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(store.path()).args(["chaos", fault]);
        command.args(LINE.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut this = Self { child: command.spawn().unwrap(), store };
        for _ in 0..1_200 {
            if this.injected(fault) {
                return this;
            }
            assert!(this.child.try_wait().unwrap().is_none(), "{fault}: it ended before the fault");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("{fault}: nothing was injected in a minute\n{}", this.journal());
    }

    fn journal(&self) -> String {
        let files = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten();
        let series = files(self.store.path().join("chaos"));
        let mut inside = series.flat_map(|entry| files(entry.path())).map(|entry| entry.path());
        let journal = inside.find(|path| path.extension().is_some_and(|of| of == "journal"));
        journal.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
    }

    /// Its journal has a step that is the fault; or a knob of its board is set.
    fn injected(&self, fault: &str) -> bool {
        let lines = self.journal();
        let starts = |with: &str| lines.contains("--log-home") && lines.contains(with);
        // Some faults are the subject's start itself; copies are damaged while it serves.
        if starts("\"refused\":[") || starts("\"offset_s\":1000") || starts("\"--resume\"") {
            return true;
        }
        let ours = self.board();
        let served = ours.as_ref().is_some_and(|board| {
            let slots = board.shape().slots;
            (0..slots.min(600)).any(|slot| board.read(slot).due > 0)
        });
        // A copy in memory is damaged and read, which is over before anybody sees it.
        if COPIES.contains(&fault) {
            return served;
        }
        let set = |board: &Board| Knob::ALL.iter().any(|knob| board.level(*knob) != 0);
        let mut after = lines.lines().skip_while(|line| !line.contains("--log-home")).skip(1);
        served && (ours.is_some_and(|board| set(&board)) || after.any(|line| line.contains("Will")))
    }

    /// The board that it made.
    fn board(&self) -> Option<Board> {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id())).ok()?;
        let mut paths = fds.flatten().map(|fd| fd.path());
        let named = |path: &PathBuf| {
            fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("tailbeam-board"))
        };
        Board::attach(&paths.find(named)?, 0).ok()
    }

    /// Its guard.
    fn guard(&self) -> Pid {
        let of = |text: &str| text.parse::<i32>().ok().and_then(Pid::from_raw);
        let task = format!("/proc/{0}/task/{0}/children", self.child.id());
        let children = fs::read_to_string(&task).unwrap();
        let is_guard = |pid: &&str| {
            let line = fs::read(Path::new("/proc").join(pid).join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("chaos-guard")
        };
        let found = children.split_whitespace().find(is_guard);
        found.and_then(of).unwrap_or_else(|| panic!("no guard among {children}"))
    }

    /// What there is of its run, when all that there must be is there: one that is refused its start ends at once, and a
    /// process in the middle of its exec shows no variables.
    fn during(&self, fault: &str) -> Vec<String> {
        let wanted = made_for(fault);
        for _ in 0..1_200 {
            let during = self.left();
            let seen = |kind: &&str| during.iter().any(|of| of.starts_with(kind));
            if wanted.iter().all(seen) {
                return during;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        panic!("{fault}: not all of {wanted:?} is seen: {:?}\n{}", self.left(), self.journal());
    }

    /// What there is of its run that must go with it. Its evidence stays: journals, records, logs, runs.
    fn left(&self) -> Vec<String> {
        let name = format!("tailbeam-chaos-{}-", self.child.id());
        let chaos = self.store.path().join("chaos");
        let mut found = residue(&[&chaos]).unwrap().since(&Residue::default());
        found.retain(|of| {
            of.contains(&name)
                && (!of.starts_with("file ")
                    || [".img", ".mnt", "file /run/"].iter().any(|kind| of.contains(kind)))
        });
        found
    }
}
