//! Faults from outside the process under test: control groups, signals, disks, links, namespaces.
//!
//! A fault is a list of [`Step`]s, plain values that can be printed before anything is done. The [`Journal`] writes
//! each to disk before it is done, with what was there before; so whoever comes later can undo it. That is a
//! [`Guard`]: a process that only waits until its pipe from the supervisor ends, by whatever death, then kills what
//! is in the groups and undoes the journal in reverse. An [`Injector`] knows its steps, what this host can do of
//! them ([`Capability`]), and which counter of the kernel proves that it bit ([`Proof`]).
//!
//! Nothing of the machine's own is touched: groups, namespaces, disks and processes are made for the run and carry
//! its name, `tailbeam-chaos-PID-TICKS`. One thing of the machine's is written where it must be: controllers that the
//! root of a unified hierarchy does not hand down yet (`cgroup.subtree_control`), and that is undone too.
//!
//! ```no_run
//! # use tailbeam_harness::chaos::host::*;
//! # fn shown(host: &Host, mut journal: Journal) -> Result<(), Failure> {
//! let groups = host.groups("");
//! journal.perform_all(&groups.steps())?;
//! let subject = Subject::start(&mut journal, &Run::new("/bin/sleep", &["60"]).inside(&groups), |_| ())?;
//! let on = On { host, groups: &groups, process: Some(subject.process()), helper: None };
//! let fault = Injector::CpuQuota { millicores: 200 };
//! let before = fault.proof(&on)?;
//! let applied = journal.perform_all(&fault.steps(&on)?)?;
//! // ... hold it, under load ...
//! let bit = fault.bitten(&before, &fault.proof(&on)?);
//! let undone = journal.undo_since(applied.mark);
//! # assert!(bit && undone.clean());
//! # Ok(()) }
//! ```

pub mod cgroups;
mod counters;
mod cut;
mod disk;
mod failure;
mod guard;
pub mod helper;
pub mod injector;
mod journal;
mod network;
mod process;
pub mod proxy;
mod refuse;
mod residue;
mod revert;
mod step;
mod subject;
pub mod tool;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use cgroups::{Cgroups, Controller, Groups};
pub use counters::Counter;
pub use failure::Failure;
pub use guard::{Guard, idle, run_guard};
pub use injector::{Bite, Capability, Cut, End, HogClass, Injector, LoopDisk, On, Proof};
pub use journal::{Applied, Journal, StepUndone, Undone, undo};
pub use process::Process;
pub use refuse::{Call, filters};
pub use residue::{Residue, residue};
pub use revert::Outcome;
pub use step::{Revert, Rule, Step, VethPair};
pub use subject::{Run, Subject};

/// First part of the name of everything that is made; what tells the supervisor follows.
pub const NAME: &str = "tailbeam-chaos";

/// Variable that every process of a run carries, with the run's name as its value, so that it can be found.
pub const MARK: &str = "TAILBEAM_CHAOS";

/// How our own program is started as a helper: a program, and arguments before the words of the helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launcher {
    /// The program.
    pub program: PathBuf,
    /// Arguments before the helper's own.
    pub args: Vec<String>,
}

/// What is known of this host, and the names of this run.
#[derive(Debug, Clone)]
pub struct Host {
    /// Control groups that are mounted.
    pub cgroups: Cgroups,
    /// How helpers are started.
    pub launcher: Launcher,
    /// Folder for images and mount points, made by the caller; absolute.
    pub dir: PathBuf,
    /// `tailbeam-chaos-PID-TICKS`, with when this process began, so that an old journal is never taken for a new run.
    pub name: String,
    /// The effective user is root.
    pub root: bool,
}

impl Host {
    /// Looks at this host. `dir` holds what is made on disk, and is made absolute.
    ///
    /// # Errors
    /// `dir` does not exist, or `/proc` cannot be read.
    pub fn find(launcher: Launcher, dir: &Path) -> Result<Self, Failure> {
        let own = failure::text(Path::new("/proc/self/cgroup"))?;
        let Process { pid, start_ticks } = Process::of(std::process::id())?;
        let dir = std::fs::canonicalize(dir).map_err(|error| failure::io(dir, "resolve", error))?;
        Ok(Self {
            cgroups: Cgroups::find(Path::new("/sys/fs/cgroup"), &own),
            launcher,
            dir,
            name: format!("{NAME}-{pid}-{start_ticks}"),
            root: rustix::process::geteuid().is_root(),
        })
    }

    /// The groups of one subject; `suffix` tells two subjects of a run apart.
    #[must_use]
    pub fn groups(&self, suffix: &str) -> Groups {
        self.cgroups.groups(&format!("{}{suffix}", self.name))
    }
}
