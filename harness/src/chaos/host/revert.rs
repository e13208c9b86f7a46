//! Does steps and undoes them: the edge of this module to the kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::process::{
    Resource, Rlimit, Signal, getpriority_process, kill_process_group, prlimit, setpriority_process,
};

use super::failure::{self, Failure};
use super::process::{Process, pause_ms};
use super::residue;
use super::step::{Revert, Rule, Step, VethPair, fill_file};
use super::{cgroups, cut, tool};

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

/// Where `ip` keeps names of network namespaces. It mounts this folder onto itself with its first name.
const NAMES: &str = "/run/netns";

/// What there is before a step, as far as undoing needs it.
pub(super) fn before(step: &Step) -> Result<Option<String>, Failure> {
    Ok(match step {
        Step::Write { file, .. } => Some(failure::text(file)?),
        Step::Enter { group, process } => Some(group_of(group, *process)?.display().to_string()),
        Step::OpenFiles { process, .. } => Some(open_files(*process)?.to_string()),
        Step::Nice { process, .. } => Some(nice_of(*process)?.to_string()),
        Step::Namespace { .. } => Some(residue::is_mounted(Path::new(NAMES))?.to_string()),
        _ => None,
    })
}

/// Does a step, other than a start. Gives how its knob reads then.
pub(super) fn perform(step: &Step, line: Option<&OwnedFd>) -> Result<Option<String>, Failure> {
    match step {
        Step::MakeGroup { dir } | Step::MakeDir { dir } => {
            fs::create_dir(dir).map_err(|error| failure::io(dir, "make", error))?;
        }
        Step::MakeImage { file, bytes } => make_image(file, *bytes, line)?,
        Step::Mount { image, dir } => mount(image, dir, line)?,
        Step::PowerCut { image, dir } => own_mount(image, dir).and_then(|()| cut::power(dir))?,
        Step::Fill { image, dir } => own_mount(image, dir).and_then(|()| fill(dir))?,
        Step::Write { file, value, .. } => {
            failure::write(file, value)?;
            return settled(file, value).map(Some);
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
        Step::Namespace { name } => {
            tool::run(&["ip", "netns", "add", name], line)?;
            tool::run(&["ip", "-n", name, "link", "set", "lo", "up"], line)?;
        }
        Step::Veth { pair } => veth(pair, line)?,
        Step::LinkDown { namespace, device } => {
            tool::run(&["ip", "-n", namespace, "link", "set", device, "down"], line)?;
        }
        Step::Filter { namespace, table, rule } => filter(namespace, table, *rule, line)?,
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
        Step::Mount { image, dir } => there(unmount(image, dir)?),
        Step::PowerCut { image, dir } => {
            let was_there = unmount(image, dir)?;
            if was_there {
                mount(image, dir, line)?;
            }
            there(was_there)
        }
        Step::Write { file, revert, .. } => write_back(file, revert, done)?,
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
        Step::Namespace { name } => there(remove_namespace(name, done.before, line)?),
        Step::Veth { pair } => {
            let [name, _] = &pair.namespaces;
            let there_still = has_namespace(name) && has_device(name, &pair.device, line);
            if there_still {
                tool::run(&["ip", "-n", name, "link", "del", &pair.device], line)?;
            }
            there(there_still)
        }
        Step::LinkDown { namespace, device } => {
            let there_still = has_namespace(namespace) && has_device(namespace, device, line);
            if there_still {
                tool::run(&["ip", "-n", namespace, "link", "set", device, "up"], line)?;
                is_up(namespace, device, line)?;
            }
            there(there_still)
        }
        Step::Filter { namespace, table, .. } => {
            let list = ["list", "table", "inet", table];
            let there_still = has_namespace(namespace) && nft(namespace, &list, line).is_ok();
            if there_still {
                nft(namespace, &["delete", "table", "inet", table], line)?;
            }
            there(there_still)
        }
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
    for _ in 0..200 {
        match process.state() {
            Some('T') => pause_ms(5),
            state => return Ok(state.is_some()),
        }
    }
    Err(Failure::Slow { what: format!("{process} to go on"), ms: 1_000 })
}

/// Waits until the device is up and the other end too.
fn is_up(namespace: &str, device: &str, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let argv = ["ip", "-n", namespace, "-o", "link", "show", "dev", device];
    let mut found = String::new();
    for _ in 0..100 {
        found = tool::run(&argv, line)?;
        if found.contains("LOWER_UP") && !found.contains("NO-CARRIER") {
            return Ok(());
        }
        pause_ms(10);
    }
    Err(Failure::Differs { what: argv.join(" "), found, wanted: "LOWER_UP".to_owned() })
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
    if !process.ends_within(5_000)? {
        return Err(Failure::Slow { what: format!("the end of {process}"), ms: 5_000 });
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

fn make_image(file: &Path, bytes: u64, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let made = fs::File::create_new(file).and_then(|file| file.set_len(bytes));
    made.map_err(|error| failure::io(file, "make", error))?;
    let path = file.display().to_string();
    // No blocks kept for root, who the subject may be; everything initialised now, not by a thread later.
    let argv =
        ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &path];
    tool::run(&argv, line).map(|_| ())
}

fn mount(image: &Path, dir: &Path, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let (image, dir) = (image.display().to_string(), dir.display().to_string());
    // Discard would give blocks back to the host's disk, which is not what a plain disk does.
    tool::run(&["mount", "-t", "ext4", "-o", "loop,nodiscard", &image, &dir], line).map(|_| ())
}

/// What is mounted at `dir` is our image; so nothing of somebody else's is filled or shut down.
fn own_mount(image: &Path, dir: &Path) -> Result<(), Failure> {
    if residue::image_at(dir)?.as_deref() == Some(image) {
        return Ok(());
    }
    Err(Failure::Differs {
        what: format!("the mount at {}", dir.display()),
        found: "something else".to_owned(),
        wanted: image.display().to_string(),
    })
}

/// Unmounts our image; `false`: it is not mounted. A process with an open file there keeps it: end that first.
fn unmount(image: &Path, dir: &Path) -> Result<bool, Failure> {
    for _ in 0..200 {
        if residue::image_at(dir)?.as_deref() != Some(image) {
            return Ok(false);
        }
        match rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty()) {
            Ok(()) => return loop_is_free(image),
            Err(rustix::io::Errno::BUSY) => pause_ms(10),
            Err(error) => return Err(failure::io(dir, "unmount", error)),
        }
    }
    Err(Failure::Slow {
        what: format!("unmounting of {}, which is in use,", dir.display()),
        ms: 2_000,
    })
}

/// Waits until no loop device holds the image any more.
fn loop_is_free(image: &Path) -> Result<bool, Failure> {
    for _ in 0..200 {
        if !residue::loops().values().any(|of| Path::new(of) == image) {
            return Ok(true);
        }
        pause_ms(10);
    }
    Err(Failure::Slow { what: format!("the loop device of {}", image.display()), ms: 2_000 })
}

fn fill(dir: &Path) -> Result<(), Failure> {
    use std::io::Write as _;
    let path = fill_file(dir);
    let made = fs::File::create_new(&path);
    let mut file = made.map_err(|error| failure::io(&path, "make", error))?;
    // Large pieces until one does not fit, then small ones. Bounded by the size of the image.
    for piece in [1 << 20, 1 << 12] {
        let zeros = vec![0; piece];
        loop {
            match file.write_all(&zeros).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(failure::io(&path, "fill", error)),
            }
        }
    }
    Ok(())
}

pub(super) fn has_namespace(name: &str) -> bool {
    Path::new(NAMES).join(name).exists()
}

fn has_device(namespace: &str, device: &str, line: Option<&OwnedFd>) -> bool {
    tool::run(&["ip", "-n", namespace, "link", "show", "dev", device], line).is_ok()
}

fn veth(pair: &VethPair, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let ([a, b], device) = (&pair.namespaces, pair.device.as_str());
    let add = ["ip", "-n", a, "link", "add", device, "type", "veth", "peer", "name", device];
    tool::run(&[&add[..], &["netns", b]].concat(), line)?;
    for (name, address) in pair.namespaces.iter().zip(&pair.addresses) {
        let address = format!("{address}/30");
        tool::run(&["ip", "-n", name, "addr", "add", &address, "dev", device], line)?;
        tool::run(&["ip", "-n", name, "link", "set", device, "up"], line)?;
    }
    Ok(())
}

fn filter(namespace: &str, table: &str, rule: Rule, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let condition = match rule {
        Rule::Drop => String::new(),
        Rule::Loss(percent) => format!("numgen random mod 100 < {percent} "),
    };
    // What a host says to itself is not the link's.
    let text = format!(
        "add table inet {table}; \
         add chain inet {table} in {{ type filter hook input priority 0; }}; \
         add rule inet {table} in iifname != \"lo\" {condition}counter drop"
    );
    nft(namespace, &[&text], line).map(|_| ())
}

pub(super) fn nft(
    namespace: &str,
    words: &[&str],
    line: Option<&OwnedFd>,
) -> Result<String, Failure> {
    let place = format!("--net={NAMES}/{namespace}");
    tool::run(&[&["nsenter", &place, "--", "nft"], words].concat(), line)
}

fn remove_namespace(
    name: &str,
    before: Option<&str>,
    line: Option<&OwnedFd>,
) -> Result<bool, Failure> {
    let was_there = has_namespace(name);
    if was_there {
        tool::run(&["ip", "netns", "del", name], line)?;
    }
    // The folder of names was not there before the first of ours: it goes with the last.
    let empty = fs::read_dir(NAMES).is_ok_and(|mut names| names.next().is_none());
    if before == Some("false") && empty && residue::is_mounted(Path::new(NAMES))? {
        let unmounted = rustix::mount::unmount(NAMES, rustix::mount::UnmountFlags::empty());
        unmounted.map_err(|error| failure::io(Path::new(NAMES), "unmount", error))?;
        removed(Path::new(NAMES), fs::remove_dir(NAMES))?;
    }
    Ok(was_there)
}
