//! Does steps and undoes them: the edge of this module to the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::process::{
    Resource, Rlimit, Signal, getpriority_process, kill_process_group, prlimit, setpriority_process,
};

use super::failure::{self, Failure};
use super::process::{LAST_MS, Process, pause_ms, until_given};
use super::step::{Revert, Step, fill_file};
use super::{cgroups, cut, disk, network};

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Undone; how the knob reads now, where there is one.
    Reverted {
        /// Its text, read again.
        reads: Option<String>,
    },
    /// It was as before: not begun, or undone already.
    AsBefore,
    /// The thing is not there any more.
    Gone,
    /// Cannot be undone by anyone.
    Final,
    /// Somebody else changed it meanwhile, so it is left.
    Foreign {
        /// How it reads.
        found: String,
    },
    /// It could not be undone.
    Failed {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Something of the step is still there.
    #[must_use]
    pub const fn is_left(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Failed { .. })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reverted { reads: None } => f.write_str("done"),
            Self::Reverted { reads: Some(text) } => write!(f, "done, reads {text:?}"),
            Self::AsBefore => f.write_str("was as before"),
            Self::Gone => f.write_str("was gone"),
            Self::Final => f.write_str("cannot be undone"),
            Self::Foreign { found } => write!(f, "left: somebody else made it {found:?}"),
            Self::Failed { why } => write!(f, "FAILED: {why}"),
        }
    }
}

/// What the journal knows of a step.
pub(super) struct Done<'a> {
    pub(super) before: Option<&'a str>,
    pub(super) reads: Option<&'a str>,
    pub(super) process: Option<Process>,
}

/// What there is before a step, as far as undoing needs it.
pub(super) fn before(step: &Step) -> Result<Option<String>, Failure> {
    Ok(match step {
        Step::Write { file, .. } => Some(failure::text(file)?),
        Step::HandDown { dir, controller } => Some(hands_down(dir, controller)?.to_string()),
        Step::Enter { group, process } => Some(group_of(group, *process)?.display().to_string()),
        Step::OpenFiles { process, .. } => Some(open_files(*process)?.to_string()),
        Step::Nice { process, .. } => Some(nice_of(*process)?.to_string()),
        _ => None,
    })
}

/// Does a step, other than a start. Gives how its knob reads then.
pub(super) fn perform(step: &Step, line: Option<&OwnedFd>) -> Result<Option<String>, Failure> {
    match step {
        Step::MakeGroup { dir } | Step::MakeDir { dir } => {
            fs::create_dir(dir).map_err(|error| failure::io(dir, "make", error))?;
        }
        Step::MakeImage { file, bytes } => disk::make_image(file, *bytes, line)?,
        Step::Mount { image, dir } => disk::mount(image, dir, line)?,
        Step::PowerCut { image, dir } => {
            disk::own_mount(image, dir).and_then(|()| cut::power(dir))?
        }
        Step::Fill { image, dir } => disk::own_mount(image, dir).and_then(|()| disk::fill(dir))?,
        Step::Write { file, value, .. } => {
            failure::write(file, value)?;
            return settled(file, value).map(Some);
        }
        Step::HandDown { dir, controller } => {
            failure::write(&dir.join(HANDED_DOWN), &format!("+{controller}"))?;
        }
        Step::Enter { group, process } => {
            failure::write(&group.join("cgroup.procs"), &process.pid.to_string())?;
        }
        Step::EnterThread { group, tid } => {
            failure::write(&group.join("tasks"), &tid.to_string())?;
        }
        Step::Start { .. } => {
            unreachable!("the journal starts processes: their pid is to be recorded")
        }
        Step::OpenFiles { process, max } => set_open_files(*process, *max)?,
        Step::Nice { process, nice } => set_nice(*process, *nice)?,
        Step::Stop { process } => sent(*process, Signal::STOP)?,
        Step::Kill { process } => sent(*process, Signal::KILL)?,
        Step::Namespace { name } => network::make_namespace(name, line)?,
        Step::Veth { pair } => network::veth(pair, line)?,
        Step::LinkDown { namespace, device } => {
            network::set_link(namespace, device, "down", line)?;
        }
        Step::Filter { namespace, table, rule } => network::filter(namespace, table, *rule, line)?,
    }
    Ok(None)
}

/// Undoes a step that may have been done, in part, or not at all.
pub(super) fn undo(
    step: &Step,
    done: &Done<'_>,
    line: Option<&OwnedFd>,
) -> Result<Outcome, Failure> {
    let there = |was_there: bool| if was_there { DONE } else { Outcome::Gone };
    Ok(match step {
        Step::MakeGroup { dir } => {
            if dir.is_dir() {
                cgroups::kill_members(std::slice::from_ref(dir))?;
            }
            there(cgroups::remove(dir)?)
        }
        Step::MakeDir { dir } => removed(dir, fs::remove_dir(dir))?,
        Step::MakeImage { file, .. } => removed(file, fs::remove_file(file))?,
        Step::Fill { dir, .. } => {
            let file = fill_file(dir);
            removed(&file, fs::remove_file(&file))?
        }
        Step::Mount { image, dir } => there(disk::unmount(image, dir)?),
        Step::PowerCut { image, dir } => {
            let was_there = disk::unmount(image, dir)?;
            if was_there {
                disk::mount(image, dir, line)?;
            }
            there(was_there)
        }
        Step::Write { file, revert, .. } => write_back(file, revert, done)?,
        Step::HandDown { dir, controller } => no_more(dir, controller, done.before)?,
        Step::Enter { process, .. } => {
            let group = Path::new(done.before.unwrap_or_default()).join("cgroup.procs");
            or_gone(failure::write(&group, &process.pid.to_string()))?
        }
        Step::EnterThread { group, tid } => {
            let above = group.parent().unwrap_or(group).join("tasks");
            or_gone(failure::write(&above, &tid.to_string()))?
        }
        Step::Start { .. } => done.process.map_or(Ok(Outcome::AsBefore), ended)?,
        Step::OpenFiles { process, .. } => {
            let set = set_open_files(*process, number(done.before)?);
            read_again(set.and_then(|()| open_files(*process)), done.before)?
        }
        Step::Nice { process, .. } => {
            let set = set_nice(*process, number(done.before)?);
            read_again(set.and_then(|()| nice_of(*process)), done.before)?
        }
        Step::Stop { process } => there(process.signal(Signal::CONT)? && goes_on(*process)?),
        Step::Kill { .. } => Outcome::Final,
        Step::Namespace { .. }
        | Step::Veth { .. }
        | Step::LinkDown { .. }
        | Step::Filter { .. } => there(network::undo(step, line)?),
    })
}

const DONE: Outcome = Outcome::Reverted { reads: None };

fn or_gone(result: Result<(), Failure>) -> Result<Outcome, Failure> {
    match result {
        Ok(()) => Ok(DONE),
        Err(failure) if failure::is_gone(&failure) => Ok(Outcome::Gone),
        Err(failure) => Err(failure),
    }
}

/// A setting that was set back reads as before.
fn read_again(
    now: Result<impl ToString, Failure>,
    before: Option<&str>,
) -> Result<Outcome, Failure> {
    let reads = match now.map(|now| now.to_string()) {
        Err(failure) if failure::is_gone(&failure) => return Ok(Outcome::Gone),
        now => now?,
    };
    if Some(reads.as_str()) == before {
        return Ok(Outcome::Reverted { reads: Some(reads) });
    }
    Err(Failure::Differs {
        what: "the setting".to_owned(),
        found: reads,
        wanted: before.unwrap_or_default().to_owned(),
    })
}

/// Waits until a process that was told to go on does. `false`: it is gone.
fn goes_on(process: Process) -> Result<bool, Failure> {
    until_given(
        || format!("{process} to go on"),
        || {
            Ok(match process.state() {
                Some('T') => None,
                state => Some(state.is_some()),
            })
        },
    )
}

fn removed(path: &Path, result: io::Result<()>) -> Result<Outcome, Failure> {
    or_gone(result.map_err(|error| failure::io(path, "remove", error)))
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Result<T, Failure> {
    let text = text.unwrap_or_default();
    text.parse().map_err(|_| Failure::Differs {
        what: "the journal".to_owned(),
        found: text.to_owned(),
        wanted: "a number".to_owned(),
    })
}

/// How a knob reads once it has been written. A freezer of version 1 says FREEZING until all tasks are frozen.
fn settled(file: &Path, value: &str) -> Result<String, Failure> {
    for _ in 0..200 {
        let text = failure::text(file)?;
        if value != "FROZEN" || text == value {
            return Ok(text);
        }
        pause_ms(5);
    }
    Err(Failure::Slow { what: format!("{} to read {value}", file.display()), ms: 1_000 })
}

fn write_back(file: &Path, revert: &Revert, done: &Done<'_>) -> Result<Outcome, Failure> {
    let Some(before) = done.before else { return Ok(Outcome::AsBefore) };
    let now = match failure::text(file) {
        Ok(now) => now,
        Err(failure) if failure::is_gone(&failure) => return Ok(Outcome::Gone),
        Err(failure) => return Err(failure),
    };
    if now == before {
        return Ok(Outcome::AsBefore);
    }
    // Without a reading the supervisor died between the write and its record: what reads otherwise is its own.
    if done.reads.is_some_and(|reads| reads != now) {
        return Ok(Outcome::Foreign { found: now });
    }
    let value = match revert {
        Revert::Before => before,
        Revert::Value(value) => value,
    };
    failure::write(file, value)?;
    let reads = failure::text(file)?;
    if reads == before {
        return Ok(Outcome::Reverted { reads: Some(reads) });
    }
    Err(Failure::Differs {
        what: file.display().to_string(),
        found: reads,
        wanted: before.to_owned(),
    })
}

/// The controllers that a unified group hands down.
const HANDED_DOWN: &str = "cgroup.subtree_control";

fn hands_down(dir: &Path, controller: &str) -> Result<bool, Failure> {
    let names = failure::text(&dir.join(HANDED_DOWN))?;
    Ok(names.split_whitespace().any(|name| name == controller))
}

fn no_more(dir: &Path, controller: &str, before: Option<&str>) -> Result<Outcome, Failure> {
    // Whatever else is handed down is somebody else's.
    if before != Some("false") || !hands_down(dir, controller)? {
        return Ok(Outcome::AsBefore);
    }
    let file = dir.join(HANDED_DOWN);
    failure::write(&file, &format!("-{controller}"))?;
    if hands_down(dir, controller)? {
        let what = file.display().to_string();
        let wanted = format!("no {controller}");
        return Err(Failure::Differs { what, found: failure::text(&file)?, wanted });
    }
    Ok(Outcome::Reverted { reads: Some(failure::text(&file)?) })
}

/// Folder of the group that a process is in, in the hierarchy of `group`.
fn group_of(group: &Path, process: Process) -> Result<PathBuf, Failure> {
    let above = group.parent().unwrap_or(group);
    // Groups of version 1 are made below our own, where our children are. Those of version 2 below the root.
    if !group.join("cgroup.type").exists() {
        return Ok(above.to_owned());
    }
    let text = failure::text(Path::new(&format!("/proc/{}/cgroup", process.pid)))?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(own.map(|path| above.join(path)).filter(|dir| dir.is_dir()).unwrap_or(above.to_owned()))
}

fn sent(process: Process, signal: Signal) -> Result<(), Failure> {
    if process.signal(signal)? {
        return Ok(());
    }
    Err(failure::io(Path::new(&process.to_string()), "signal", io::ErrorKind::NotFound))
}

/// Kills a process and what shares its process group, which it leads.
fn ended(process: Process) -> Result<Outcome, Failure> {
    let Ok(pid) = process.raw() else { return Ok(Outcome::Gone) };
    let was_alive = process.is_alive();
    match kill_process_group(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(failure::io(Path::new(&process.to_string()), "kill", error)),
    }
    if !process.ends_within(LAST_MS)? {
        return Err(Failure::Slow { what: format!("the end of {process}"), ms: LAST_MS });
    }
    Ok(if was_alive { DONE } else { Outcome::Gone })
}

fn open_files(process: Process) -> Result<u64, Failure> {
    let old = rlimit_of(process, "Max open files")?;
    Ok(old.0)
}

/// Soft and hard limit as `/proc/PID/limits` has them; `unlimited` is the largest number.
pub(super) fn rlimit_of(process: Process, name: &str) -> Result<(u64, u64), Failure> {
    let path = format!("/proc/{}/limits", process.pid);
    let text = failure::text(Path::new(&path))?;
    let value = |word: &str| match word {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    };
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let mut words = rest.unwrap_or_default().split_whitespace().filter_map(value);
    let both = words.next().zip(words.next());
    both.ok_or(Failure::Differs { what: path, found: text, wanted: format!("{name} N N") })
}

fn set_open_files(process: Process, max: u64) -> Result<(), Failure> {
    let pid = process.raw()?;
    let (_, hard) = rlimit_of(process, "Max open files")?;
    // The soft limit alone: a user other than root cannot raise the hard one again.
    let finite = |n: u64| (n != u64::MAX).then_some(n);
    let limit = Rlimit { current: finite(max), maximum: finite(hard) };
    let set = prlimit(Some(pid), Resource::Nofile, limit);
    set.map(|_| ()).map_err(|error| failure::io(Path::new(&process.to_string()), "limit", error))
}

fn nice_of(process: Process) -> Result<i32, Failure> {
    let found = getpriority_process(Some(process.raw()?));
    found.map_err(|error| {
        failure::io(Path::new(&process.to_string()), "ask for the nice value of", error)
    })
}

fn set_nice(process: Process, nice: i32) -> Result<(), Failure> {
    // setpriority(2) takes one thread: all of them are set, those that come later inherit.
    process.raw()?;
    let dir = format!("/proc/{}/task", process.pid);
    let tasks = fs::read_dir(&dir).map_err(|error| failure::io(Path::new(&dir), "list", error))?;
    for task in tasks.flatten() {
        let tid = task
            .file_name()
            .to_string_lossy()
            .parse()
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        match setpriority_process(tid, nice) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failure::io(&task.path(), "set the nice value of", error)),
        }
    }
    Ok(())
}
