//! The steps of each fault.

use std::path::{Path, PathBuf};

use tailbeam_probes::Unavailable;

use super::super::cgroups::{Controller, Groups};
use super::super::guard::HOG_PRIORITY;
use super::super::helper::Helper;
use super::super::step::{Revert, Step};
use super::{HogClass, Injector, LoopDisk, On};

/// Period of a quota, us: the kernel's own default (kernel/sched/fair.c).
const PERIOD_US: u64 = 100_000;
/// Name of our filter's table.
pub(super) const TABLE: &str = "tailbeam_chaos";

impl Injector {
    /// What is done, in order; it is undone in reverse. Reads device numbers and `/proc`, changes nothing.
    ///
    /// # Errors
    /// This host cannot, as [`Self::probe`] says too; or there is no subject.
    pub fn steps(&self, on: &On<'_>) -> Result<Vec<Step>, Unavailable> {
        let process = || on.process.ok_or_else(no_subject);
        Ok(match self {
            Self::CpuQuota { millicores } => quota(on, *millicores)?,
            Self::CpuHog { core, class, life_ms } => {
                let hog = Helper::Hog { core: *core, life_ms: *life_ms };
                let mut run = hog.started_by(&on.host.launcher);
                run.fifo = (*class == HogClass::Fifo).then_some(HOG_PRIORITY);
                vec![Step::Start { run }]
            }
            Self::ThreadHold { tid } => hold(on, *tid)?,
            Self::Freeze => {
                let (dir, version) = on.groups.place(Controller::Freezer)?;
                vec![freeze(dir, version)]
            }
            Self::Stop => vec![Step::Stop { process: process()? }],
            Self::Kill => vec![Step::Kill { process: process()? }],
            Self::Nice { nice } => vec![Step::Nice { process: process()?, nice: *nice }],
            Self::MemoryLimit { bytes } => memory(on, *bytes)?,
            Self::Ballast { bytes, life_ms } => {
                on.groups.place(Controller::Memory)?;
                let ballast = Helper::Ballast { bytes: *bytes, life_ms: *life_ms };
                let run = ballast.started_by(&on.host.launcher);
                vec![Step::Start { run: run.inside(on.groups) }]
            }
            Self::DiskThrottle { dir, bytes_per_s } => throttle(on, dir, *bytes_per_s)?,
            Self::LoopDisk { disk } => make(disk),
            Self::FillDisk { disk: LoopDisk { image, dir, .. } } => {
                vec![Step::Fill { image: image.clone(), dir: dir.clone() }]
            }
            Self::PowerCut { disk: LoopDisk { image, dir, .. } } => {
                vec![Step::PowerCut { image: image.clone(), dir: dir.clone() }]
            }
            Self::NetPair { pair } => {
                let name = |name: &String| Step::Namespace { name: name.clone() };
                let names = pair.namespaces.iter().map(name);
                names.chain([Step::Veth { pair: pair.clone() }]).collect()
            }
            Self::NetPartition { pair, cut } => vec![match cut.filter(pair) {
                None => {
                    let [namespace, _] = pair.namespaces.clone();
                    Step::LinkDown { namespace, device: pair.device.clone() }
                }
                Some((namespace, rule)) => {
                    Step::Filter { namespace: namespace.to_owned(), table: TABLE.to_owned(), rule }
                }
            }],
            Self::TimeNamespace { .. } => Vec::new(),
            Self::FdLimit { max } => vec![Step::OpenFiles { process: process()?, max: *max }],
            Self::PidsLimit { max } => {
                let (dir, _) = on.groups.place(Controller::Pids)?;
                vec![knob(dir, "pids.max", max)]
            }
        })
    }
}

fn no_subject() -> Unavailable {
    Unavailable {
        source: "subject",
        cause: "no process was given".to_owned(),
        remedy: "start the subject first".to_owned(),
    }
}

fn knob(dir: &Path, file: &str, value: impl ToString) -> Step {
    Step::Write { file: dir.join(file), value: value.to_string(), revert: Revert::Before }
}

fn quota(on: &On<'_>, millicores: u32) -> Result<Vec<Step>, Unavailable> {
    let (dir, version) = on.groups.place(Controller::Cpu)?;
    // The kernel takes no quota below 1 ms.
    let quota_us = (u64::from(millicores) * PERIOD_US / 1_000).max(1_000);
    Ok(match version {
        1 => {
            vec![knob(dir, "cpu.cfs_period_us", PERIOD_US), knob(dir, "cpu.cfs_quota_us", quota_us)]
        }
        _ => vec![knob(dir, "cpu.max", format!("{quota_us} {PERIOD_US}"))],
    })
}

fn freeze(dir: &Path, version: u8) -> Step {
    match version {
        1 => knob(dir, "freezer.state", "FROZEN"),
        _ => knob(dir, "cgroup.freeze", 1),
    }
}

/// Folder of the group that holds one thread.
pub(super) fn hold_dir(above: &Path) -> PathBuf {
    above.join("hold")
}

/// Group of version 1 above the one that holds a thread.
///
/// # Errors
/// This host has no such freezer.
pub(super) fn thread_freezer(groups: &Groups) -> Result<&Path, Unavailable> {
    let (above, version) = groups.place(Controller::Freezer)?;
    if version == 1 {
        return Ok(above);
    }
    Err(Unavailable {
        source: "freezer",
        cause: "the freezer of version 2 holds whole groups of processes".to_owned(),
        remedy: "stop the whole process".to_owned(),
    })
}

fn hold(on: &On<'_>, tid: u32) -> Result<Vec<Step>, Unavailable> {
    let above = thread_freezer(on.groups)?;
    let dir = hold_dir(above);
    Ok(vec![
        Step::MakeGroup { dir: dir.clone() },
        Step::EnterThread { group: dir.clone(), tid },
        freeze(&dir, 1),
    ])
}

fn memory(on: &On<'_>, bytes: u64) -> Result<Vec<Step>, Unavailable> {
    let (dir, version) = on.groups.place(Controller::Memory)?;
    Ok(match version {
        // With this swappiness a limit never swaps (cgroup-v1/memory.rst). A limit of memory and swap together at the
        // same value would: but then it is that one which is reached, and its counter stays 0 (seen on 6.18).
        1 => vec![knob(dir, "memory.swappiness", 0), knob(dir, "memory.limit_in_bytes", bytes)],
        // A kernel without swap has no such file.
        _ if Path::new("/proc/swaps").exists() => {
            vec![knob(dir, "memory.swap.max", 0), knob(dir, "memory.max", bytes)]
        }
        _ => vec![knob(dir, "memory.max", bytes)],
    })
}

/// `MAJOR:MINOR` of the whole disk below a folder.
///
/// # Errors
/// The file system has no block device of its own.
pub(super) fn disk_of(dir: &Path) -> Result<String, Unavailable> {
    use std::os::unix::fs::MetadataExt as _;
    let unavailable = |cause: String| Unavailable {
        source: "block device",
        cause,
        remedy: "put the folder on a disk, or on a loop disk made for the run".to_owned(),
    };
    let found = std::fs::metadata(dir);
    let device = found.map_err(|e| unavailable(format!("{}: {e}", dir.display())))?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    // Anonymous devices have major 0: tmpfs, overlay, btrfs, network file systems (Documentation/admin-guide/devices.txt).
    let entry = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if major == 0 || !entry.exists() {
        let cause = format!("{} is on device {major}:{minor}, which is no disk", dir.display());
        return Err(unavailable(cause));
    }
    // A partition is throttled by its disk, whose folder it lies in.
    if !entry.join("partition").exists() {
        return Ok(format!("{major}:{minor}"));
    }
    let above = std::fs::canonicalize(&entry).ok().and_then(|at| at.parent().map(Path::to_owned));
    let number = above.and_then(|disk| std::fs::read_to_string(disk.join("dev")).ok());
    let number = number.ok_or_else(|| unavailable(format!("{major}:{minor} has no disk")))?;
    Ok(number.trim().to_owned())
}

fn throttle(on: &On<'_>, dir: &Path, bytes_per_s: u64) -> Result<Vec<Step>, Unavailable> {
    let (group, version) = on.groups.place(Controller::Io)?;
    let disk = disk_of(dir)?;
    let write = |file: &str, value: String, revert: String| Step::Write {
        file: group.join(file),
        value,
        revert: Revert::Value(revert),
    };
    Ok(match version {
        1 => ["write", "read"]
            .map(|way| {
                let file = format!("blkio.throttle.{way}_bps_device");
                write(&file, format!("{disk} {bytes_per_s}"), format!("{disk} 0"))
            })
            .into(),
        _ => vec![write(
            "io.max",
            format!("{disk} rbps={bytes_per_s} wbps={bytes_per_s}"),
            format!("{disk} rbps=max wbps=max"),
        )],
    })
}

fn make(disk: &LoopDisk) -> Vec<Step> {
    let LoopDisk { image, dir, bytes } = disk.clone();
    vec![
        Step::MakeImage { file: image.clone(), bytes },
        Step::MakeDir { dir: dir.clone() },
        Step::Mount { image, dir },
    ]
}
