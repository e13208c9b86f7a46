//! What proves that a fault bit: a counter of the kernel or a reading, before and during it.

use std::io::Write as _;
use std::path::Path;

use tailbeam_probes::Unavailable;
use tailbeam_probes::clock::monotonic_ns;

use super::super::cgroups::Controller;
use super::super::counters::Counter;
use super::super::failure::{self, Failure};
use super::super::network;
use super::super::process::Process;
use super::super::revert;
use super::steps::{TABLE, disk_of, hold_dir, thread_freezer};
use super::{Cut, Injector, On};

/// CPU time that a hog must get, ms per second: a tenth of a core. Less may be what its start took.
const HOG_MS_PER_S: u64 = 100;

/// A counter or a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Of what.
    pub name: &'static str,
    /// Unit of the value.
    pub unit: &'static str,
    /// The value.
    pub value: u64,
    /// What was asked for by then, where that is counted apart from what was done.
    pub asked: Option<u64>,
    /// When it was read, `CLOCK_MONOTONIC`, ns.
    pub at_ns: u64,
}

/// How a value shows that the fault bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bite {
    /// A counter that is higher during the fault than before it.
    Rises,
    /// A reading that is this during the fault and was not before.
    Becomes(u64),
    /// A reading that is this or more during the fault and was less before.
    Reaches(u64),
    /// A counter that rises by at most this per second and a quarter of it more, where a half of it or more was asked for.
    RisesAtMost(u64),
    /// A counter that rises by at least this per second.
    RisesAtLeast(u64),
    /// The process is not there any more.
    Ends,
}

impl Bite {
    /// Whether it bit. Two different counters prove nothing.
    #[must_use]
    pub fn holds(self, before: &Proof, after: &Proof) -> bool {
        if before.name != after.name || before.at_ns > after.at_ns {
            return false;
        }
        let (from, to) = (before.value, after.value);
        match self {
            Self::Rises => to > from,
            Self::Becomes(wanted) => to == wanted && from != wanted,
            Self::Reaches(wanted) => to >= wanted && from < wanted,
            Self::RisesAtLeast(per_s) => {
                let ns = u128::from(after.at_ns - before.at_ns);
                u128::from(to.saturating_sub(from)) >= u128::from(per_s) * ns / 1_000_000_000
                    && to > from
            }
            Self::Ends => from == 1 && to == 0,
            Self::RisesAtMost(per_s) => {
                let ns = u128::from(after.at_ns - before.at_ns);
                let most = u128::from(per_s) * 5 / 4 * ns / 1_000_000_000;
                // A subject that asks for far less than the limit was not held by it.
                let least = u128::from(per_s) / 2 * ns / 1_000_000_000;
                let rise = |from: u64, to: u64| u128::from(to.saturating_sub(from));
                let (moved, both) = (rise(from, to), before.asked.zip(after.asked));
                // What waits for its turn was asked for, and is not done.
                let asked = both.map_or(moved, |(from, to)| rise(from, to));
                // Others may use the disk, so that it does more: what the group asked for is within the limit then.
                asked > 0 && asked >= least && asked.min(moved) <= most
            }
        }
    }
}

impl Injector {
    /// Reads the counter that proves it. Before the steps, and again before they are undone. Costs one read of a
    /// file; of a partition one process (`ip` or `nft`); of a full or cut disk one small write to it.
    ///
    /// # Errors
    /// The counter is not here: the fault then proves nothing.
    pub fn proof(&self, on: &On<'_>) -> Result<Proof, Unavailable> {
        let (name, unit, value) = self.read(on)?;
        let asked = match self {
            Self::DiskThrottle { dir, .. } => Some(asked(on, dir)?),
            _ => None,
        };
        Ok(Proof { name, unit, value, asked, at_ns: monotonic_ns() })
    }

    /// Whether two readings show that it bit.
    #[must_use]
    pub fn bitten(&self, before: &Proof, after: &Proof) -> bool {
        self.bite().holds(before, after)
    }

    /// How its counter shows that it bit.
    #[must_use]
    pub const fn bite(&self) -> Bite {
        match self {
            Self::ThreadHold { .. } | Self::Freeze | Self::Stop => Bite::Becomes(1),
            Self::FillDisk { .. } | Self::PowerCut { .. } => Bite::Becomes(1),
            Self::LoopDisk { .. } | Self::NetPair { .. } => Bite::Becomes(1),
            Self::TimeNamespace { offset_s } => Bite::Becomes(offset_s.unsigned_abs()),
            Self::FdLimit { max } => Bite::Becomes(*max),
            Self::Nice { nice } => Bite::Becomes(nice.wrapping_add(20).unsigned_abs() as u64),
            Self::DiskThrottle { bytes_per_s, .. } => Bite::RisesAtMost(*bytes_per_s),
            Self::Ballast { bytes, .. } => Bite::Reaches(*bytes),
            Self::Kill => Bite::Ends,
            Self::CpuHog { .. } => Bite::RisesAtLeast(HOG_MS_PER_S),
            Self::CpuQuota { .. }
            | Self::MemoryLimit { .. }
            | Self::NetPartition { .. }
            | Self::PidsLimit { .. } => Bite::Rises,
        }
    }

    fn read(&self, on: &On<'_>) -> Result<(&'static str, &'static str, u64), Unavailable> {
        let counter = |counter| on.groups.counter(counter);
        Ok(match self {
            Self::CpuQuota { .. } => {
                ("throttled periods", "periods", counter(Counter::ThrottledPeriods)?)
            }
            Self::CpuHog { .. } => ("CPU time of the hog", "ms", spent(on.helper)?),
            Self::ThreadHold { .. } => held(on)?,
            Self::Freeze => ("all tasks frozen", "yes or no", counter(Counter::Frozen)?),
            Self::Stop => ("stopped", "yes or no", u64::from(state(on.process)? == 'T')),
            Self::Kill => {
                let process = on.process.ok_or_else(|| unavailable("no process was given"))?;
                ("alive", "yes or no", u64::from(process.is_alive()))
            }
            Self::Nice { .. } => ("nice value", "above -20", nice(on.process)?),
            Self::MemoryLimit { .. } => {
                ("times the memory limit was reached", "times", counter(Counter::MemoryHits)?)
            }
            Self::Ballast { .. } => ("memory of the ballast", "bytes", resident(on.helper)?),
            Self::DiskThrottle { dir, .. } => ("bytes moved", "bytes", moved(dir)?),
            Self::LoopDisk { disk } | Self::FillDisk { disk } | Self::PowerCut { disk } => {
                return self.of_disk(&disk.dir);
            }
            Self::NetPair { pair } => {
                let there = pair
                    .namespaces
                    .iter()
                    .all(|name| network::has_namespace(name).unwrap_or(false));
                ("both namespaces there", "yes or no", u64::from(there))
            }
            Self::NetPartition { pair, cut } => match cut {
                Cut::Down => {
                    let [_, far] = &pair.namespaces;
                    ("losses of the far end's carrier", "times", carrier_losses(far, &pair.device)?)
                }
                Cut::Into(_) | Cut::Loss(..) => {
                    let (namespace, _) = cut.filter(pair).expect("these have one");
                    ("packets dropped", "packets", dropped(namespace)?)
                }
            },
            Self::TimeNamespace { .. } => {
                ("offset of the monotonic clock", "s", offset(on.process)?)
            }
            Self::FdLimit { .. } => {
                let process = on.process.ok_or_else(|| unavailable("no process was given"))?;
                let both = revert::rlimit_of(process, "Max open files");
                ("limit of open files", "files", both.map_err(|f| unavailable(f.to_string()))?.0)
            }
            Self::PidsLimit { .. } => {
                ("forks and threads refused", "times", counter(Counter::PidsRefused)?)
            }
        })
    }

    fn of_disk(&self, dir: &Path) -> Result<(&'static str, &'static str, u64), Unavailable> {
        let mounted = super::super::residue::image_at(dir);
        let mounted = mounted.map_err(|f| unavailable(f.to_string()))?.is_some();
        Ok(match self {
            Self::LoopDisk { .. } => ("mounted", "yes or no", u64::from(mounted)),
            // Refused for want of space, or because the file system was shut down: each counts for its own fault.
            Self::FillDisk { .. } => {
                let full = refused(dir).is_some_and(|e| e == std::io::ErrorKind::StorageFull);
                ("a write finds the disk full", "yes or no", u64::from(mounted && full))
            }
            _ => {
                let lost = refused(dir).is_some_and(|e| e != std::io::ErrorKind::StorageFull);
                ("a write finds no power", "yes or no", u64::from(mounted && lost))
            }
        })
    }
}

/// Why a small file cannot be written and synced there. It is removed again.
fn refused(dir: &Path) -> Option<std::io::ErrorKind> {
    let path = dir.join("tailbeam-chaos-proof");
    let write = || {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&[1; 65_536])?;
        file.sync_all()
    };
    let answer = write().err().map(|error| error.kind());
    // On a disk without power it cannot be removed, nor was it written.
    drop(std::fs::remove_file(&path));
    answer
}

fn unavailable(cause: impl Into<String>) -> Unavailable {
    let remedy = "see what prevents it; without it the fault is not proven".to_owned();
    Unavailable { source: "proof", cause: cause.into(), remedy }
}

/// A hog that was not started has spent nothing. One that has ended, also if nobody has waited for it yet, hogs nothing.
fn spent(helper: Option<Process>) -> Result<u64, Unavailable> {
    let of = |hog: Process| hog.cpu_ms().filter(|_| hog.is_alive());
    helper.map_or(Ok(0), |hog| of(hog).ok_or_else(|| unavailable("the hog has ended")))
}

/// What the group has asked of the disk of `disk_dir`, and of no other one. In version 1 a bio counts when it is
/// submitted, so that 16 MiB of a segment's zeros which wait for their turn are in it. The kernel counts from the first
/// throttle of a device: before it nothing was asked under one.
fn asked(on: &On<'_>, disk_dir: &Path) -> Result<u64, Unavailable> {
    let disk = disk_of(disk_dir)?;
    let (dir, version) = on.groups.place(Controller::Io)?;
    let limits = ["write", "read"].map(|way| dir.join(format!("blkio.throttle.{way}_bps_device")));
    let none = limits.iter().all(|file| failure::text(file).is_ok_and(|text| text.is_empty()));
    match on.groups.counter_of(Counter::IoBytes, &disk) {
        Err(_) if version == 1 && none => Ok(0),
        other => other,
    }
}

/// What the disk of `disk_dir` has done, read and written.
fn moved(disk_dir: &Path) -> Result<u64, Unavailable> {
    let path = format!("/sys/dev/block/{}/stat", disk_of(disk_dir)?);
    let text = failure::text(Path::new(&path)).map_err(|f| unavailable(f.to_string()))?;
    done(&text).ok_or_else(|| unavailable(format!("{path} has no sectors")))
}

/// Bytes of the sectors that were read and written (Documentation/block/stat.rst: the third and the seventh word, of
/// 512 bytes whatever the disk's own are).
fn done(stat: &str) -> Option<u64> {
    let word = |at: usize| stat.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some((word(2)? + word(6)?) * 512)
}

/// A ballast that was not started has none.
fn resident(helper: Option<Process>) -> Result<u64, Unavailable> {
    let Some(process) = helper else { return Ok(0) };
    if !process.is_alive() {
        return Err(unavailable("the ballast has ended"));
    }
    let path = format!("/proc/{}/statm", process.pid);
    let text = failure::text(Path::new(&path)).map_err(|f| unavailable(f.to_string()))?;
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| unavailable(format!("{path} reads {text:?}")))?;
    Ok(pages * rustix::param::page_size() as u64)
}

fn state(process: Option<Process>) -> Result<char, Unavailable> {
    let process = process.ok_or_else(|| unavailable("no process was given"))?;
    process.state().ok_or_else(|| unavailable(format!("{process} has ended")))
}

fn nice(process: Option<Process>) -> Result<u64, Unavailable> {
    let raw = process.ok_or_else(|| unavailable("no process was given"))?.raw();
    let raw = raw.map_err(|f| unavailable(f.to_string()))?;
    let found = rustix::process::getpriority_process(Some(raw));
    let found = found.map_err(|error| unavailable(error.to_string()))?;
    Ok(u64::from(found.wrapping_add(20).unsigned_abs()))
}

/// The freezer of the thread's own group.
fn held(on: &On<'_>) -> Result<(&'static str, &'static str, u64), Unavailable> {
    let file = hold_dir(thread_freezer(on.groups)?).join("freezer.state");
    // Before the steps there is no such group, and so nothing is held.
    let frozen = match failure::text(&file) {
        Ok(text) => text == "FROZEN",
        Err(failure) if failure::is_gone(&failure) => false,
        Err(failure) => return Err(unavailable(failure.to_string())),
    };
    Ok(("thread frozen", "yes or no", u64::from(frozen)))
}

fn carrier_losses(namespace: &str, device: &str) -> Result<u64, Unavailable> {
    let link = ["ip", "-j", "-s", "-s", "link", "show", "dev", device];
    let asked = network::inside(namespace, &link, None);
    let text = asked.map_err(|f| unavailable(f.to_string()))?;
    // Counts ups and downs; any more of them than before is a loss, since it was up.
    number_in(&text, "carrier_changes")
        .ok_or_else(|| unavailable(format!("no carrier_changes in {text}")))
}

fn dropped(namespace: &str) -> Result<u64, Unavailable> {
    let list = ["-j", "list", "tables"];
    let tables = network::nft(namespace, &list, None).map_err(|f| unavailable(f.to_string()))?;
    if !tables.contains(&format!("\"{TABLE}\"")) {
        // Without our filter nothing was dropped by it.
        return Ok(0);
    }
    let text = network::nft(namespace, &["-j", "list", "table", "inet", TABLE], None);
    let text = text.map_err(|f: Failure| unavailable(f.to_string()))?;
    number_in(&text, "packets").ok_or_else(|| unavailable(format!("no packets in {text}")))
}

/// First number with this key, anywhere in a JSON text.
fn number_in(text: &str, key: &str) -> Option<u64> {
    fn find(value: &serde_json::Value, key: &str) -> Option<u64> {
        use serde_json::Value::{Array, Object};
        match value {
            Object(fields) => (fields.get(key).and_then(serde_json::Value::as_u64))
                .or_else(|| fields.values().find_map(|value| find(value, key))),
            Array(items) => items.iter().find_map(|value| find(value, key)),
            _ => None,
        }
    }
    find(&serde_json::from_str(text).ok()?, key)
}

/// Seconds that the monotonic clock of its time namespace differs by (time_namespaces(7)).
fn offset(process: Option<Process>) -> Result<u64, Unavailable> {
    // Before the subject is started it has no offset.
    let Some(process) = process else { return Ok(0) };
    let path = format!("/proc/{}/timens_offsets", process.pid);
    let text = failure::text(Path::new(&path)).map_err(|f| unavailable(f.to_string()))?;
    offset_in(&text).ok_or_else(|| unavailable(format!("{path} reads {text:?}")))
}

fn offset_in(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    rest.split_whitespace().next()?.parse::<i64>().ok().map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(value: u64, at_s: u64) -> Proof {
        Proof { name: "x", unit: "y", value, asked: None, at_ns: at_s * 1_000_000_000 }
    }

    #[test]
    fn a_counter_that_stands_still_is_no_bite() {
        let holds = |bite: Bite, from: u64, to: u64| bite.holds(&proof(from, 0), &proof(to, 2));
        assert!(holds(Bite::Rises, 3, 4) && !holds(Bite::Rises, 3, 3) && !holds(Bite::Rises, 3, 2));
        assert!(holds(Bite::Becomes(1), 0, 1));
        assert!(!holds(Bite::Becomes(1), 1, 1), "it was so before");
        assert!(!holds(Bite::Becomes(1), 0, 2));
        assert!(holds(Bite::Reaches(5), 4, 6) && !holds(Bite::Reaches(5), 4, 4));
        assert!(!holds(Bite::Reaches(5), 5, 6), "it was so before");
        assert!(holds(Bite::Ends, 1, 0) && !holds(Bite::Ends, 0, 0) && !holds(Bite::Ends, 1, 1));
    }

    #[test]
    fn a_disk_has_moved_what_it_has_done() {
        let stat = " 100 0 8 5 200 1 32 9 3 40 50 7 0 999 4 2 1\n";
        assert_eq!(done(stat), Some((8 + 32) * 512), "and nothing that was discarded or flushed");
        assert_eq!(done("1 2 3"), None);
    }

    #[test]
    fn a_throttle_that_lets_more_through_is_no_bite_and_neither_is_one_without_load() {
        let bite = Bite::RisesAtMost(1_000);
        let moved = |bytes: u64| bite.holds(&proof(0, 0), &proof(bytes, 2));
        assert!(moved(2_000) && moved(2_500));
        assert!(!moved(2_501) && !moved(0));
        // Much was asked for and little done: it waits. Little was asked for: nothing holds it.
        let asked = |asked: u64, done: u64| {
            let at = |asked, done, at_s| Proof { asked: Some(asked), ..proof(done, at_s) };
            bite.holds(&at(70, 5, 0), &at(70 + asked, 5 + done, 2))
        };
        assert!(asked(17_000, 250) && asked(2_000, 2_000) && asked(2_000, 90_000));
        // What others had the disk do shows nothing.
        assert!(!asked(0, 2_000) && !asked(17_000, 17_000) && !asked(900, 250) && !asked(0, 0));
    }

    #[test]
    fn two_different_counters_or_times_in_the_wrong_order_prove_nothing() {
        let other = Proof { name: "z", ..proof(9, 1) };
        assert!(!Bite::Rises.holds(&proof(1, 0), &other));
        assert!(!Bite::Rises.holds(&proof(1, 2), &proof(9, 1)));
    }

    #[test]
    fn answers_of_tools_are_read_wherever_the_number_lies() {
        let text = r#"[{"stats64":{"tx":{"carrier_changes":3}}}]"#;
        assert_eq!(number_in(text, "carrier_changes"), Some(3));
        assert_eq!(number_in(text, "packets"), None);
        assert_eq!(number_in("not JSON", "packets"), None);
        assert_eq!(offset_in("monotonic      -1000         0\nboottime 0 0"), Some(1_000));
        assert_eq!(offset_in("boottime 0 0"), None);
    }
}
