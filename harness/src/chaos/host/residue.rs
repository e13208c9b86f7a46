//! What a run may leave on a host, as lists that are compared: before it and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::failure::{self, Failure};
use super::process::{Process, until_given};
use super::{MARK, NAME};

/// Where files lie that keep namespaces.
pub(super) const KEPT: &str = "/run";
/// Depth of groups that are looked at.
const DEPTH_MAX: usize = 8;

/// What there is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residue {
    /// Folders of control groups whose name begins with ours.
    pub groups: BTreeSet<String>,
    /// Mounts of this mount namespace: mount point and source.
    pub mounts: BTreeSet<String>,
    /// Loop devices in use, with their images.
    pub loops: BTreeSet<String>,
    /// Mount points that keep network namespaces, whoever made them.
    pub namespaces: BTreeSet<String>,
    /// Network devices of our network namespace.
    pub devices: BTreeSet<String>,
    /// Processes that carry a run's mark.
    pub processes: BTreeSet<String>,
    /// Files of the folders that were asked for, with their sizes; and those that namespaces are kept by.
    pub files: BTreeSet<String>,
}

impl Residue {
    /// What is here that was not there before, each with the list that it is of. Empty: nothing was left.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        let lists = |all: &Self| {
            [
                ("group", all.groups.clone()),
                ("mount", all.mounts.clone()),
                ("loop device", all.loops.clone()),
                ("network namespace", all.namespaces.clone()),
                ("network device", all.devices.clone()),
                ("process", all.processes.clone()),
                ("file", all.files.clone()),
            ]
        };
        let pairs = lists(self).into_iter().zip(lists(before));
        pairs
            .flat_map(|((kind, now), (_, then))| {
                now.difference(&then).map(|name| format!("{kind} {name}")).collect::<Vec<_>>()
            })
            .collect()
    }
}

/// Looks at the host, and at the files below `dirs`.
///
/// # Errors
/// `/proc` or `/sys` cannot be read.
pub fn residue(dirs: &[&Path]) -> Result<Residue, Failure> {
    let mut found = Residue::default();
    groups_below(Path::new("/sys/fs/cgroup"), DEPTH_MAX, &mut found.groups);
    let mounts = mounts()?;
    found.mounts =
        mounts.iter().map(|mount| format!("{} of {}", mount.dir, mount.source)).collect();
    found.loops = loops().into_iter().map(|(name, image)| format!("{name} of {image}")).collect();
    let kept = mounts.iter().filter(|mount| mount.root.starts_with("net:["));
    found.namespaces = kept.map(|mount| mount.dir.clone()).collect();
    found.devices = names_in(Path::new("/sys/class/net"));
    let marked = marked(|_| true)?;
    found.processes = marked.iter().map(|(process, mark)| format!("{process} of {mark}")).collect();
    let keepers = names_in(Path::new(KEPT)).into_iter().filter(|name| name.starts_with(NAME));
    found.files = keepers.map(|name| format!("{KEPT}/{name}")).collect();
    for dir in dirs {
        files_below(dir, DEPTH_MAX, &mut found.files);
    }
    Ok(found)
}

fn names_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn groups_below(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().starts_with(NAME) {
            found.insert(entry.path().display().to_string());
        }
        if depth > 0 {
            groups_below(&entry.path(), depth - 1, found);
        }
    }
}

fn files_below(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let size = entry.metadata().map_or(0, |data| if data.is_dir() { 0 } else { data.len() });
        found.insert(format!("{} of {size} bytes", entry.path().display()));
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(&entry.path(), depth - 1, found);
        }
    }
}

/// A mount of this mount namespace.
struct Mount {
    /// What of its file system is mounted: of a namespace its kind and number.
    root: String,
    dir: String,
    source: String,
}

/// As `/proc/self/mountinfo` has them (proc(5)): later ones cover earlier ones.
fn mounts() -> Result<Vec<Mount>, Failure> {
    let text = failure::text(Path::new("/proc/self/mountinfo"))?;
    Ok(text.lines().filter_map(mount_of).collect())
}

fn mount_of(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, dir) = (left.next()?, left.next()?);
    let source = right.split(' ').nth(1)?;
    // Blanks in names are written in octal.
    let [root, dir, source] = [root, dir, source].map(|name| name.replace("\\040", " "));
    Some(Mount { root, dir, source })
}

pub(super) fn is_mounted(dir: &Path) -> Result<bool, Failure> {
    Ok(mounts()?.iter().any(|mount| Path::new(&mount.dir) == dir))
}

/// Image of the loop device that is mounted at `dir`, if one is.
pub(super) fn image_at(dir: &Path) -> Result<Option<PathBuf>, Failure> {
    let mounts = mounts()?;
    let on_top = mounts.iter().rev().find(|mount| Path::new(&mount.dir) == dir);
    let device = on_top.and_then(|mount| mount.source.strip_prefix("/dev/"));
    Ok(device.and_then(|device| loops().remove(device)).map(PathBuf::from))
}

/// Images of loop devices in use, by device.
pub(super) fn loops() -> BTreeMap<String, String> {
    let devices = names_in(Path::new("/sys/block")).into_iter();
    let image = |name: &String| {
        failure::text(&Path::new("/sys/block").join(name).join("loop/backing_file")).ok()
    };
    devices.filter_map(|name| image(&name).map(|image| (name, image))).collect()
}

/// Processes of ours whose variable [`MARK`] names a run that is `wanted`, with the name.
pub(super) fn marked(wanted: impl Fn(&str) -> bool) -> Result<Vec<(Process, String)>, Failure> {
    let proc = Path::new("/proc");
    let entries = fs::read_dir(proc).map_err(|error| failure::io(proc, "list", error))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(process) = Process::of(pid) else { continue };
        // Of a process of somebody else, or one that has ended, it cannot be read.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        let mark = environment.split(|byte| *byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(MARK.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        });
        if let Some(mark) = mark.filter(|mark| wanted(mark)) {
            found.push((process, mark));
        }
    }
    Ok(found)
}

/// Kills all processes of a run, wherever they are. Rounds, as they may fork meanwhile.
pub(super) fn kill_marked(name: &str) -> Result<usize, Failure> {
    let own = std::process::id();
    let (mut killed, mut none) = (Vec::new(), 0);
    until_given(
        || format!("the end of the processes of {name}"),
        || {
            let mut found = marked(|mark| mark == name)?;
            found.retain(|(process, _)| process.pid != own && process.is_alive());
            // Looked for twice: a process in the middle of its exec shows no variables.
            none = if found.is_empty() { none + 1 } else { 0 };
            for (process, _) in &found {
                process.signal(Signal::KILL)?;
                if !killed.contains(process) {
                    killed.push(*process);
                }
            }
            for (process, _) in found {
                process.ends_within(100)?;
            }
            Ok((none == 2).then_some(()))
        },
    )?;
    Ok(killed.len())
}
