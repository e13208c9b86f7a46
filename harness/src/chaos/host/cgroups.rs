//! Control groups: what is mounted, and where the groups of a run lie in it.
//!
//! Version 1 has a tree for each controller, version 2 one for all; a host may have both, with some controllers
//! in each ("hybrid"). A controller of version 2 is taken where both have it. Groups of version 1 lie below the
//! group that this process is in, so that its limits hold for them too. Groups of version 2 lie below the root:
//! a group that holds processes, as ours does, cannot hand controllers down ("no internal processes"). In a container
//! what looks like the root may be such a group: there only what every group has is taken.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tailbeam_probes::Unavailable;

use super::failure::{self, Failure};
use super::process::{Process, until_given};
use super::step::Step;

/// A controller that faults use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Controller {
    /// CPU quota and throttling counters.
    Cpu,
    /// CPU time; part of `cpu` in version 2.
    CpuAcct,
    /// Memory limit.
    Memory,
    /// Freezing; in every group of version 2.
    Freezer,
    /// Throttling of block devices.
    Io,
    /// Number of tasks.
    Pids,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Cpu, Self::CpuAcct, Self::Memory, Self::Freezer, Self::Io, Self::Pids];

    const fn v1(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAcct => "cpuacct",
            Self::Memory => "memory",
            Self::Freezer => "freezer",
            Self::Io => "blkio",
            Self::Pids => "pids",
        }
    }

    /// Its name in `cgroup.controllers`, or "" where every group has it.
    const fn v2(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Pids => "pids",
            Self::CpuAcct | Self::Freezer => "",
        }
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    /// Folder of version 1 that groups are made in, by controller.
    v1: BTreeMap<Controller, PathBuf>,
    /// The unified tree.
    v2: Option<Unified>,
    /// What its folder is, where no process can be put into a group below it.
    threaded: Option<String>,
}

impl Cgroups {
    /// Looks below `root`, which is `/sys/fs/cgroup` but in tests. `own`: the text of `/proc/self/cgroup`.
    #[must_use]
    pub fn find(root: &Path, own: &str) -> Self {
        let unified = [root.to_owned(), root.join("unified")];
        // A folder in which this user may make none has no groups for it.
        let ours = |dir: &PathBuf| access(dir, Access::WRITE_OK).is_ok();
        let unified = unified.into_iter().find(|dir| dir.join("cgroup.controllers").is_file());
        let unified = unified.filter(ours);
        let (v2, threaded) = match unified.map(Unified::read) {
            Some(Ok(unified)) => (Some(unified), None),
            Some(Err(kind)) => (None, Some(kind)),
            None => (None, None),
        };
        let mut v1 = BTreeMap::new();
        for controller in Controller::ALL {
            let dir = root.join(controller.v1());
            // Under a namespace of groups the path may lie outside of what is mounted: then the root is taken.
            let below = own_path(own, controller.v1()).map(|path| dir.join(path));
            let dir = below.filter(|dir| dir.join("tasks").is_file()).unwrap_or(dir);
            if dir.join("tasks").is_file() && ours(&dir) {
                v1.insert(controller, dir);
            }
        }
        Self { v1, v2, threaded }
    }

    /// Where groups named `name` would lie. Nothing is made.
    #[must_use]
    pub fn groups(&self, name: &str) -> Groups {
        let mut places = BTreeMap::new();
        for (controller, dir) in &self.v1 {
            places.insert(*controller, Place { dir: dir.join(name), version: 1 });
        }
        let mut groups = Groups {
            places,
            hand_down: Vec::new(),
            inhabited: None,
            threaded: self.threaded.clone(),
        };
        if let Some(unified) = &self.v2 {
            unified.places(name, &mut groups);
        }
        groups
    }
}

/// A tree of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Unified {
    dir: PathBuf,
    /// Controllers that it has.
    has: Vec<Controller>,
    /// Names of those that it hands down.
    hands_down: Vec<String>,
    /// It holds processes and is not the real root: so it can hand down no more.
    inhabited: bool,
}

impl Unified {
    /// Reads the tree that is mounted at `dir`. `Err`: no process can be put into a group below it, as it is that.
    fn read(dir: PathBuf) -> Result<Self, String> {
        let text = |file: &str| failure::text(&dir.join(file)).unwrap_or_default();
        let words = |file| text(file).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        // The real root has no such file. Below a group whose members are threads there are no groups of processes.
        let kind = match failure::text(&dir.join("cgroup.type")) {
            Ok(kind) => kind,
            Err(failure) if failure::is_gone(&failure) => String::new(),
            Err(failure) => return Err(failure.to_string()),
        };
        if !["", "domain"].contains(&kind.as_str()) {
            return Err(format!("{} is a group of type {kind:?}", dir.display()));
        }
        let names = words("cgroup.controllers");
        let taken = |c: &Controller| match c.v2() {
            // Time of the CPU is counted in every group; it is asked for together with `cpu`.
            "" => *c == Controller::Freezer || names.iter().any(|name| name == "cpu"),
            name => names.iter().any(|has| has == name),
        };
        let has = Controller::ALL.into_iter().filter(taken).collect();
        let inhabited = !kind.is_empty() && !text("cgroup.procs").is_empty();
        Ok(Self { has, hands_down: words("cgroup.subtree_control"), inhabited, dir })
    }

    /// Adds a group of this tree for each controller that it can have.
    fn places(&self, name: &str, groups: &mut Groups) {
        for controller in &self.has {
            // A freezer of version 1 holds single threads too.
            if *controller == Controller::Freezer && groups.places.contains_key(controller) {
                continue;
            }
            let needed = controller.v2();
            if !needed.is_empty() && !self.hands_down.iter().any(|down| down == needed) {
                if self.inhabited {
                    groups.inhabited = Some(self.dir.clone());
                    continue;
                }
                groups.hand_down.push((self.dir.clone(), needed));
            }
            groups.places.insert(*controller, Place { dir: self.dir.join(name), version: 2 });
        }
    }
}

/// Path of this process in the hierarchy of a controller of version 1, without the first slash.
fn own_path<'a>(own: &'a str, controller: &str) -> Option<&'a str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        names.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
    })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    dir: PathBuf,
    version: u8,
}

/// The groups of one subject: a folder for each controller, several of which may be the same folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    places: BTreeMap<Controller, Place>,
    hand_down: Vec<(PathBuf, &'static str)>,
    /// A folder that holds processes and so hands down no controller that it does not hand down already.
    inhabited: Option<PathBuf>,
    /// What the unified tree's folder is, where no process can be put into a group below it.
    threaded: Option<String>,
}

impl Groups {
    /// Steps that make them. None on a host without control groups.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let hand_down = self
            .hand_down
            .iter()
            .map(|(dir, name)| Step::HandDown { dir: dir.clone(), controller: (*name).to_owned() });
        let make = self.dirs().into_iter().map(|dir| Step::MakeGroup { dir });
        hand_down.chain(make).collect()
    }

    /// Their folders, each once.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        let mut dirs: Vec<PathBuf> = self.places.values().map(|place| place.dir.clone()).collect();
        dirs.sort();
        dirs.dedup();
        dirs
    }

    /// Folder and version of a controller's group.
    ///
    /// # Errors
    /// This host has no such controller.
    pub fn place(&self, controller: Controller) -> Result<(&Path, u8), Unavailable> {
        let found = self.places.get(&controller).map(|place| (place.dir.as_path(), place.version));
        found.ok_or_else(|| self.missing(controller))
    }

    fn missing(&self, controller: Controller) -> Unavailable {
        let (cause, remedy) = match (&self.inhabited, controller.v2()) {
            (Some(dir), name) if !name.is_empty() => (
                format!(
                    "{} holds processes itself, so it cannot hand the controller {name} down to a group below it",
                    dir.display()
                ),
                "move them into a group below it, as an init of a container does; or run this outside of the container",
            ),
            (None, _) if self.threaded.is_some() => (
                format!(
                    "no controller {} of version 1 is mounted, and {}, below which no process can have a group",
                    controller.v1(),
                    self.threaded.as_deref().unwrap_or_default()
                ),
                "run it from a group of type domain, or outside of the container",
            ),
            _ => (
                format!("no controller {} is mounted", controller.v1()),
                "mount it, or boot with a unified hierarchy that has it",
            ),
        };
        Unavailable { source: "cgroup", cause, remedy: remedy.to_owned() }
    }

    /// Puts a process with all its threads into each of them.
    #[must_use]
    pub fn enter(&self, process: Process) -> Vec<Step> {
        self.dirs().into_iter().map(|group| Step::Enter { group, process }).collect()
    }

    /// Processes in any of them now. Costs a read of a file for each.
    #[must_use]
    pub fn members(&self) -> Vec<u32> {
        members(&self.dirs())
    }
}

/// Processes that are in any of these groups. A group that is not there has none.
pub(super) fn members(dirs: &[PathBuf]) -> Vec<u32> {
    let text = |dir: &PathBuf| failure::text(&dir.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<u32> = dirs
        .iter()
        .flat_map(|dir| {
            text(dir).lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()
        })
        // Processes of other namespaces are 0 here.
        .filter(|pid| *pid != 0)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Kills all processes in these groups and waits until they are empty.
///
/// All groups are thawed first: a task that a freezer of version 1 holds does not die. Then rounds: what is listed
/// is killed and waited for, until nothing is listed, because a process may have forked meanwhile. Groups that it has
/// made below its own are meant too.
///
/// # Errors
/// Something is still there after a minute.
pub(super) fn kill_members(dirs: &[PathBuf]) -> Result<usize, Failure> {
    for dir in &all_of(dirs) {
        for (file, value) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
            let file = dir.join(file);
            if file.is_file() {
                failure::write(&file, value).or_else(|f| gone(f, ()))?;
            }
        }
        let all = dir.join("cgroup.kill");
        if all.is_file() {
            failure::write(&all, "1").or_else(|f| gone(f, ()))?;
        }
    }
    let mut killed = Vec::new();
    until_given(
        || format!("the end of {:?}", members(&all_of(dirs))),
        || {
            let all = all_of(dirs);
            let found: Vec<Process> =
                members(&all).into_iter().filter_map(|pid| Process::of(pid).ok()).collect();
            if found.is_empty() {
                return Ok(Some(()));
            }
            for process in &found {
                // Listed again after it was identified: so it is that process that is in the group.
                if members(&all).contains(&process.pid) {
                    process.signal(rustix::process::Signal::KILL)?;
                }
                if !killed.contains(process) {
                    killed.push(*process);
                }
            }
            for process in found {
                process.ends_within(KILL_MS)?;
            }
            Ok(None)
        },
    )?;
    Ok(killed.len())
}

fn gone<T>(failure: Failure, value: T) -> Result<T, Failure> {
    if failure::is_gone(&failure) { Ok(value) } else { Err(failure) }
}

/// Wait for each process of a round, ms.
const KILL_MS: u64 = 100;

/// Depth of groups below one of ours that are looked at, and removed with it.
const DEPTH_MAX: usize = 8;

/// These groups with all below them, the deepest first.
fn all_of(dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    dirs.iter().for_each(|dir| add_all(dir, DEPTH_MAX, &mut all));
    all
}

fn add_all(dir: &Path, depth: usize, all: &mut Vec<PathBuf>) {
    // What is not there any more has nothing below it.
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add_all(&entry.path(), depth - 1, all);
        }
    }
    all.push(dir.to_owned());
}

/// Removes an empty group, with the empty groups that a subject made below it; `false`: it was not there.
///
/// # Errors
/// It still holds something after a minute.
pub(super) fn remove(dir: &Path) -> Result<bool, Failure> {
    let mut was_there = false;
    for dir in all_of(&[dir.to_owned()]) {
        was_there = remove_one(&dir)?;
    }
    Ok(was_there)
}

fn remove_one(dir: &Path) -> Result<bool, Failure> {
    until_given(
        || format!("removal of {}", dir.display()),
        || match std::fs::remove_dir(dir) {
            Ok(()) => Ok(Some(true)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Some(false)),
            // Tasks that have just ended leave their group a moment later.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => Ok(None),
            Err(error) => Err(failure::io(dir, "remove", error)),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_unified_tree_is_found_and_hands_down_only_what_it_does_not_yet() {
        let root = tree(&[
            ("cgroup.controllers", "cpuset cpu io memory pids\n"),
            ("cgroup.subtree_control", "memory pids\n"),
        ]);
        let groups = Cgroups::find(root.path(), "0::/user.slice\n").groups("x");
        let dir = root.path().join("x");
        for controller in Controller::ALL {
            assert_eq!(groups.place(controller), Ok((dir.as_path(), 2)), "{controller:?}");
        }
        let down = |name: &str| Step::HandDown {
            dir: root.path().to_owned(),
            controller: name.to_owned(),
        };
        assert_eq!(groups.steps(), [down("cpu"), down("io"), Step::MakeGroup { dir }]);
    }

    #[test]
    fn the_root_of_a_container_that_holds_processes_hands_nothing_more_down() {
        let files = |kind, procs| {
            [
                ("cgroup.controllers", "cpu io memory pids\n"),
                ("cgroup.subtree_control", ""),
                ("cgroup.type", kind),
                ("cgroup.procs", procs),
            ]
        };
        let root = tree(&files("domain\n", "7\n"));
        let groups = Cgroups::find(root.path(), "0::/\n").groups("x");
        let dir = root.path().join("x");
        for there in [Controller::Freezer, Controller::CpuAcct] {
            assert_eq!(groups.place(there), Ok((dir.as_path(), 2)), "{there:?}");
        }
        for gone in [Controller::Cpu, Controller::Memory, Controller::Io, Controller::Pids] {
            let missing = groups.place(gone).unwrap_err();
            assert!(missing.cause.contains("holds processes itself"), "{missing}");
        }
        assert_eq!(groups.steps(), [Step::MakeGroup { dir }]);
        // Nobody is in it: then it is as good as the root.
        let root = tree(&files("domain\n", ""));
        assert_eq!(Cgroups::find(root.path(), "0::/\n").groups("x").steps().len(), 5);
        // Its members are threads: no group below it can have a process.
        let root = tree(&files("domain threaded\n", "7\n"));
        assert!(Cgroups::find(root.path(), "0::/\n").groups("x").steps().is_empty());
    }

    #[test]
    fn version_one_lies_below_our_own_group_and_what_is_not_mounted_is_said() {
        let root = tree(&[
            ("memory/tasks", ""),
            ("memory/a/b/tasks", ""),
            ("cpu/tasks", ""),
            ("unified/cgroup.controllers", "hugetlb\n"),
            ("unified/cgroup.subtree_control", ""),
            ("freezer/tasks", ""),
        ]);
        let own = "4:memory:/a/b\n2:cpuset,cpu:/elsewhere\n6:freezer:/\n0::/\n";
        let groups = Cgroups::find(root.path(), own).groups("x");
        let at = |path: &str| root.path().join(path);
        assert_eq!(groups.place(Controller::Memory), Ok((at("memory/a/b/x").as_path(), 1)));
        assert_eq!(groups.place(Controller::Cpu), Ok((at("cpu/x").as_path(), 1)));
        assert_eq!(groups.place(Controller::Freezer), Ok((at("freezer/x").as_path(), 1)));
        let missing = groups.place(Controller::Io).unwrap_err();
        assert!(missing.cause.contains("blkio"), "{missing}");
        assert_eq!(groups.steps().len(), 3);
    }

    #[test]
    fn groups_below_ours_come_before_it() {
        let root = tree(&[("x/a/b/f", ""), ("x/c/f", ""), ("y/f", "")]);
        let at = |path: &str| root.path().join(path);
        let mut found = all_of(&[at("x"), at("none")]);
        assert_eq!(found.pop(), Some(at("none")));
        assert_eq!(found.pop(), Some(at("x")));
        let place = |path: &str| found.iter().position(|dir| *dir == at(path));
        assert!(found.len() == 3 && place("x/c").is_some() && place("x/a/b") < place("x/a"));
    }

    #[test]
    fn a_host_without_groups_has_no_steps() {
        let root = tree(&[]);
        let groups = Cgroups::find(root.path(), "").groups("x");
        assert!(groups.steps().is_empty() && groups.place(Controller::Cpu).is_err());
    }
}
