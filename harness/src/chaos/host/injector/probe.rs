//! What this host can do of each fault, tried where a trial leaves nothing.

use std::path::Path;

use rustix::fs::{Access, access};
use tailbeam_probes::Unavailable;

use super::super::cgroups::{Controller, Groups};
use super::super::step::VethPair;
use super::super::subject::time_words;
use super::super::{Host, tool};
use super::steps::{disk_of, thread_freezer};
use super::{Capability, Cut, HogClass, Injector};

/// Smallest image: below this mkfs.ext4 makes no journal, and a power cut would have none to replay.
const DISK_BYTES_MIN: u64 = 16 << 20;

impl Injector {
    /// Whether it can be injected here. Starts a few short processes; leaves nothing.
    #[must_use]
    pub fn probe(&self, host: &Host) -> Capability {
        match self.check(host) {
            Ok(capability) => capability,
            Err(Unavailable { cause, remedy, .. }) => Capability::Impossible { cause, remedy },
        }
    }

    fn check(&self, host: &Host) -> Result<Capability, Unavailable> {
        let groups = host.groups("");
        let group = |controller| in_group(host, &groups, controller);
        match self {
            // Of a process of our own these need no right at all; whose process it is shows when it is done.
            Self::Stop | Self::Kill | Self::FdLimit { .. } => {}
            Self::Nice { nice } => lower_nice(host, *nice)?,
            Self::CpuQuota { .. } => group(Controller::Cpu)?,
            Self::Freeze => group(Controller::Freezer)?,
            Self::MemoryLimit { .. } | Self::Ballast { .. } => group(Controller::Memory)?,
            Self::PidsLimit { .. } => group(Controller::Pids)?,
            Self::CpuHog { core, class, .. } => hog(host, *core, *class)?,
            Self::ThreadHold { .. } => return thread_hold(host, &groups),
            Self::DiskThrottle { dir, .. } => {
                group(Controller::Io)?;
                // None yet: of a disk that is still to be made.
                if !dir.as_os_str().is_empty() {
                    disk_of(dir)?;
                }
            }
            Self::LoopDisk { disk } | Self::FillDisk { disk } | Self::PowerCut { disk } => {
                loop_disk(host, disk.bytes)?;
            }
            Self::NetPair { .. } => network(host)?,
            Self::NetPartition { pair, cut } => {
                network(host)?;
                return Ok(filters(pair, *cut));
            }
            Self::TimeNamespace { offset_s } => time_namespace(*offset_s)?,
        }
        Ok(Capability::Available)
    }
}

fn refused(source: &'static str, cause: impl Into<String>, remedy: &str) -> Unavailable {
    Unavailable { source, cause: cause.into(), remedy: remedy.to_owned() }
}

fn needs_root(host: &Host) -> Result<(), Unavailable> {
    if host.root {
        return Ok(());
    }
    Err(refused("user", "this user is not root", "run it as root"))
}

fn needs_tools(names: &[(&str, &str)]) -> Result<(), Unavailable> {
    match names.iter().find(|(name, _)| tool::find(name).is_none()) {
        None => Ok(()),
        Some((name, package)) => {
            let remedy = format!("install the package {package}");
            Err(refused("tool", format!("{name} is not installed"), &remedy))
        }
    }
}

fn in_group(host: &Host, groups: &Groups, controller: Controller) -> Result<(), Unavailable> {
    let (dir, _) = groups.place(controller)?;
    needs_root(host)?;
    let above = dir.parent().unwrap_or(dir);
    let may = access(above, Access::WRITE_OK);
    may.map_err(|error| {
        let cause = format!("{} cannot be written: {error}", above.display());
        refused("cgroup", cause, "mount the control groups writable; containers need --privileged")
    })
}

fn lower_nice(host: &Host, nice: i32) -> Result<(), Unavailable> {
    let now = rustix::process::getpriority_process(None).unwrap_or(0);
    if host.root || nice >= now {
        return Ok(());
    }
    Err(refused("user", format!("below {now} needs CAP_SYS_NICE"), "run it as root"))
}

fn hog(host: &Host, core: usize, class: HogClass) -> Result<(), Unavailable> {
    let ours = rustix::thread::sched_getaffinity(None)
        .is_ok_and(|set| core < rustix::thread::CpuSet::MAX_CPU && set.is_set(core));
    if !ours {
        return Err(refused("cpu", format!("core {core} is not ours"), "name one that is"));
    }
    if class == HogClass::Fifo {
        needs_root(host)?;
        needs_tools(&[("chrt", "util-linux")])?;
        // In a group of version 1 without real-time budget this is refused to root too.
        let tried = tool::run(&["chrt", "-f", "1", "true"], None);
        tried.map_err(|failure| {
            let remedy = "give our cpu group a cpu.rt_runtime_us, or CAP_SYS_NICE";
            refused("scheduler", failure.to_string(), remedy)
        })?;
    }
    Ok(())
}

fn thread_hold(host: &Host, groups: &Groups) -> Result<Capability, Unavailable> {
    let may = in_group(host, groups, Controller::Freezer).and_then(|()| thread_freezer(groups));
    Ok(match may {
        Ok(_) => Capability::Available,
        Err(Unavailable { cause, .. }) => Capability::Replaced {
            by: "SIGSTOP of the whole process".to_owned(),
            with: Box::new(Injector::Stop),
            why: cause,
        },
    })
}

fn loop_disk(host: &Host, bytes: u64) -> Result<(), Unavailable> {
    needs_root(host)?;
    needs_tools(&[("mkfs.ext4", "e2fsprogs"), ("mount", "mount")])?;
    if !Path::new("/dev/loop-control").exists() {
        let remedy = "load the module loop; containers need --privileged";
        return Err(refused("loop device", "there is no /dev/loop-control", remedy));
    }
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.split_whitespace().any(|name| name == "ext4") {
        return Err(refused("ext4", "this kernel has not loaded it", "load the module ext4"));
    }
    if bytes < DISK_BYTES_MIN {
        let cause = format!("{bytes} bytes are too few for a journal");
        return Err(refused("loop disk", cause, "make it 16 MiB or larger"));
    }
    let free = rustix::fs::statvfs(&host.dir).map(|s| s.f_bavail * s.f_frsize);
    if free.is_ok_and(|free| free < bytes) {
        let cause = format!("{} has less than {bytes} bytes free", host.dir.display());
        return Err(refused("loop disk", cause, "free some, or make the disk smaller"));
    }
    Ok(())
}

fn network(host: &Host) -> Result<(), Unavailable> {
    needs_root(host)?;
    needs_tools(&[("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")])?;
    // In a namespace that ends with the process.
    let veth = ["unshare", "-n", "ip", "link", "add", "chaos0", "type", "veth"];
    let tried = tool::run(&veth, None);
    tried.map(|_| ()).map_err(|failure| {
        let remedy = "a kernel with network namespaces and veth; containers need --privileged";
        refused("network", failure.to_string(), remedy)
    })
}

fn filters(pair: &VethPair, cut: Cut) -> Capability {
    let rule = "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                add rule inet t c numgen random mod 100 < 1 counter drop";
    let why = match tool::run(&["unshare", "-n", "nft", rule], None) {
        _ if cut == Cut::Down => return Capability::Available,
        Ok(_) => return Capability::Available,
        Err(failure) => failure.to_string(),
    };
    let down = Injector::NetPartition { pair: pair.clone(), cut: Cut::Down };
    Capability::Replaced { by: "the link is down, both ways".to_owned(), with: Box::new(down), why }
}

fn time_namespace(offset_s: i64) -> Result<(), Unavailable> {
    needs_tools(&[("unshare", "util-linux"), ("nsenter", "util-linux")])?;
    let words = time_words(offset_s);
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["true"]).collect();
    let tried = tool::run(&words, None);
    tried.map(|_| ()).map_err(|failure| {
        // A clock cannot be set before the boot of the machine.
        let remedy = "a kernel with time namespaces (5.6) and, but for root, user namespaces; an offset that \
                      leaves time since boot";
        refused("time namespace", failure.to_string(), remedy)
    })
}
