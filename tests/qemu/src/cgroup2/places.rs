//! Where things lie in this guest, and what there is of them now.

use std::fs;
use std::path::Path;

use tailbeam_harness::chaos::host::{Launcher, Residue, Run, residue};
use tailbeam_probes::clock::monotonic_ns;

/// Process 1, and every process of these checks.
pub(crate) const PROGRAM: &str = "/init";
/// The root of the hierarchy.
pub(crate) const ROOT: &str = "/sys/fs/cgroup";
/// A file system on a block device.
pub(crate) const DISK: &str = "/disk";

pub(crate) fn launcher() -> Launcher {
    Launcher { program: PROGRAM.into(), args: vec!["helper".to_owned()] }
}

/// This program as a subject that does what the words say.
pub(crate) fn subject(words: &[&str]) -> Run {
    Run::new(PROGRAM, &[&["subject"], words].concat())
}

/// A file without its last line feed, or why it cannot be read.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path)
        .map_or_else(|error| error.to_string(), |text| text.trim_end().to_owned())
}

/// The controllers that the root hands down, as the kernel writes them.
pub(crate) fn handed_down() -> String {
    text(format!("{ROOT}/cgroup.subtree_control"))
}

/// All that a run may leave in this guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    residue: Residue,
    pub(crate) handed_down: String,
    /// Command lines of all processes that live and have one: the kernel's own have none.
    processes: Vec<String>,
    /// Folders below the root of the groups, whatever their names.
    groups: Vec<String>,
}

impl Seen {
    /// Looks now.
    pub(crate) fn now(dir: &Path) -> Self {
        let pids =
            names_in(Path::new("/proc")).into_iter().filter(|name| name.parse::<u32>().is_ok());
        let line = |pid: String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        };
        let mut processes: Vec<String> = pids.map(line).filter(|line| !line.is_empty()).collect();
        processes.sort_unstable();
        let folders = names_in(Path::new(ROOT));
        let groups =
            folders.into_iter().filter(|name| Path::new(ROOT).join(name).is_dir()).collect();
        let residue = residue(&[dir]).expect("/proc and /sys are mounted");
        Self { residue, handed_down: handed_down(), processes, groups }
    }

    /// What is otherwise than before. Empty: nothing.
    pub(crate) fn since(&self, before: &Self) -> Vec<String> {
        let mut found = self.residue.since(&before.residue);
        if self.handed_down != before.handed_down {
            found.push(format!("hands down {:?}, not {:?}", self.handed_down, before.handed_down));
        }
        if self.processes != before.processes {
            found.push(format!("runs {:?}", self.processes));
        }
        if self.groups != before.groups {
            found.push(format!("groups {:?}", self.groups));
        }
        found
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

pub(crate) fn pause_ms(ms: u64) {
    let until = monotonic_ns() + ms * 1_000_000;
    while monotonic_ns() < until {
        std::thread::park_timeout(std::time::Duration::from_millis(ms));
    }
}

/// Asks again and again until it is so, or the time is over.
pub(crate) fn within(ms: u64, mut so: impl FnMut() -> bool) -> bool {
    let until = monotonic_ns() + ms * 1_000_000;
    loop {
        if so() {
            return true;
        }
        if monotonic_ns() > until {
            return false;
        }
        pause_ms(10);
    }
}
