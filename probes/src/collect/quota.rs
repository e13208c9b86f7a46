//! How much a CPU quota has throttled the group of this process, by the kernel's own count.
//!
//! A quota belongs to a control group: of the `cpu` controller of version 1, or of version 2. It holds for all groups
//! below, so the groups from our own one up to what is mounted are looked at, each time anew, as a process can be put
//! into another group while it runs. What is counted is of all CPUs and of all that is in a group: a second in which two
//! CPUs were throttled throughout has two seconds, and whoever shares the group is in it. An interval is counted when it
//! ends, so a reading lags by up to a period of the quota (100 ms unless somebody has set another).
//!
//! Fields: Documentation/scheduler/sched-bwc.rst, Documentation/admin-guide/cgroup-v2.rst.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Unavailable;

/// Groups above each other that are looked at.
const LEVELS_MAX: usize = 32;

/// What a group's quota has done since the group was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Periods in which something in the group was to run; 0 without a quota.
    pub periods: u64,
    /// Of these, so many ended with nothing left of the quota.
    pub times: u64,
    /// Time that CPUs had something of the group to run and were not let, of all CPUs together, ns.
    pub ns: u64,
}

impl Throttle {
    /// What came since `before`; `None` when a count fell, as no group's does.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            periods: self.periods.checked_sub(before.periods)?,
            times: self.times.checked_sub(before.times)?,
            ns: self.ns.checked_sub(before.ns)?,
        })
    }
}

/// A group whose CPU time can be limited, and what was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its folder.
    pub group: PathBuf,
    /// Its counts.
    pub throttle: Throttle,
}

/// What came between two readings, of the group that was throttled for longest: times of groups above each other may be
/// the same time and are not added. `None` when this process was put into another group meanwhile.
#[must_use]
pub fn between(before: &[Level], now: &[Level]) -> Option<Throttle> {
    let mut most = Throttle::default();
    for level in now {
        let then = before.iter().find(|then| then.group == level.group)?;
        let since = level.throttle.since(&then.throttle)?;
        if since.ns >= most.ns {
            most = since;
        }
    }
    Some(most)
}

/// Where groups of the `cpu` controller are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuQuota {
    mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    /// The group that is mounted there.
    root: String,
    /// Of version 2.
    unified: bool,
}

impl CpuQuota {
    /// Of this process. Reads two files, and with [`read`](Self::read) some more: not for a core's thread.
    ///
    /// # Errors
    /// [`Unavailable`] when /proc is not mounted, no `cpu` controller is, or it counts nothing.
    pub fn own() -> Result<Self, Unavailable> {
        let text = text("/proc/self/mountinfo")?;
        let has_cpu = |at: &Path| {
            let controllers = fs::read_to_string(at.join("cgroup.controllers"));
            controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "cpu"))
        };
        let mounts = mounts(&text).filter(|mount| !mount.unified || has_cpu(&mount.at)).collect();
        let own = Self { mounts };
        if own.mounts.is_empty() {
            return Err(unavailable(
                "no cpu controller of control groups is mounted".to_owned(),
                "mount one, or boot with a unified hierarchy that has it",
            ));
        }
        own.read().map(|_| own)
    }

    /// Reads the counts of our own group and of those above it, the own one first; a group without a quota may have
    /// none. About 1 us for each file, which are two and one for each level; allocates.
    ///
    /// # Errors
    /// [`Unavailable`] when a file is refused or reads as something else.
    pub fn read(&self) -> Result<Vec<Level>, Unavailable> {
        let own = text("/proc/self/cgroup")?;
        let mut levels = Vec::new();
        for mount in &self.mounts {
            let Some(path) = own_path(&own, mount.unified) else { continue };
            for group in groups(mount, path) {
                match fs::read_to_string(group.join("cpu.stat")) {
                    Ok(text) => {
                        levels.extend(parse(&text).map(|throttle| Level { group, throttle }))
                    }
                    // The controller is not handed down to it, or it was removed: it limits nothing.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => {
                        let cause = format!("{}: {error}", group.join("cpu.stat").display());
                        return Err(unavailable(cause, "make it readable for this user"));
                    }
                }
            }
        }
        Ok(levels)
    }
}

fn text(path: &str) -> Result<String, Unavailable> {
    fs::read_to_string(path).map_err(|error| {
        unavailable(format!("{path}: {error}"), "mount /proc, and make it readable")
    })
}

fn unavailable(cause: String, remedy: &str) -> Unavailable {
    Unavailable { source: "cpu.stat", cause, remedy: remedy.to_owned() }
}

/// Mounts of version 2, and those of version 1 that have the `cpu` controller
/// (`/proc/self/mountinfo`: proc_pid_mountinfo(5)).
fn mounts(mountinfo: &str) -> impl Iterator<Item = Mount> {
    mountinfo.lines().filter_map(|line| {
        let (own, rest) = line.split_once(" - ")?;
        let mut own = own.split(' ').skip(3);
        let (root, at) = (own.next()?.to_owned(), PathBuf::from(own.next()?));
        let mut rest = rest.split(' ');
        let unified = match rest.next()? {
            "cgroup2" => true,
            "cgroup" => false,
            _ => return None,
        };
        let options = rest.nth(1)?;
        (unified || options.split(',').any(|option| option == "cpu")).then_some(Mount {
            at,
            root,
            unified,
        })
    })
}

/// Path of our group in a hierarchy.
fn own_path(own: &str, unified: bool) -> Option<&str> {
    own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next()?, parts.next()?);
        let is_it = if unified { names.is_empty() } else { names.split(',').any(|of| of == "cpu") };
        is_it.then_some(path)
    })
}

/// Folders of a group and of all above it that are mounted. Of a group outside of what is mounted only that can be seen.
fn groups(mount: &Mount, path: &str) -> Vec<PathBuf> {
    let below = match mount.root.as_str() {
        "/" => Some(path),
        root => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')),
    };
    let below = below.unwrap_or("").trim_matches('/');
    let own = match below {
        "" => mount.at.clone(),
        below if below.split('/').any(|part| part == "..") => mount.at.clone(),
        below => mount.at.join(below),
    };
    own.ancestors()
        .take_while(|group| group.starts_with(&mount.at))
        .take(LEVELS_MAX)
        .map(Path::to_owned)
        .collect()
}

/// The counts; none in a group that cannot be limited, as the root of version 2.
fn parse(text: &str) -> Option<Throttle> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        value.trim().parse::<u64>().ok()
    };
    let ns = field("throttled_time")
        .or_else(|| field("throttled_usec").map(|us| us.saturating_mul(1_000)))?;
    Some(Throttle { periods: field("nr_periods")?, times: field("nr_throttled")?, ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(group: &str, periods: u64, times: u64, ns: u64) -> Level {
        Level { group: PathBuf::from(group), throttle: Throttle { periods, times, ns } }
    }

    #[test]
    fn both_versions_are_read_and_a_group_without_a_quota_has_no_counts() {
        let first = "nr_periods 12\nnr_throttled 3\nthrottled_time 4500\nnr_bursts 0\n";
        let second =
            "usage_usec 99\nuser_usec 1\nnr_periods 12\nnr_throttled 3\nthrottled_usec 5\n";
        assert_eq!(parse(first), Some(Throttle { periods: 12, times: 3, ns: 4_500 }));
        assert_eq!(parse(second), Some(Throttle { periods: 12, times: 3, ns: 5_000 }));
        for text in ["usage_usec 99\nuser_usec 1\n", "", "nr_periods x\nthrottled_time 1\n"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn our_group_and_all_above_it_are_found_in_what_is_mounted() {
        let info = "25 1 0:23 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            31 25 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
            32 25 0:28 /pod/a /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found: Vec<Mount> = mounts(info).collect();
        let [old, new] = &found[..] else { panic!("{found:?}") };
        assert!(!old.unified && new.unified);
        let own = "5:cpuset:/x\n4:cpu,cpuacct:/a/b\n0::/pod/a/c\n";
        assert_eq!((own_path(own, false), own_path(own, true)), (Some("/a/b"), Some("/pod/a/c")));
        let dirs = |mount: &Mount, path: &str| -> Vec<String> {
            let at = mount.at.clone();
            let below = |dir: PathBuf| dir.strip_prefix(&at).unwrap().to_str().unwrap().to_owned();
            groups(mount, path).into_iter().map(below).collect()
        };
        assert_eq!(dirs(old, "/a/b"), ["a/b", "a", ""]);
        assert_eq!(dirs(old, "/"), [""]);
        assert_eq!(dirs(new, "/pod/a/c"), ["c", ""]);
        assert_eq!(dirs(new, "/pod/ab"), [""], "another group than the mounted one");
        assert_eq!(dirs(old, "/../x"), [""], "outside of the namespace");
    }

    #[test]
    fn of_groups_above_each_other_the_most_throttled_one_is_told_and_a_move_is_unknown() {
        let before = [level("/g/a", 10, 1, 500), level("/g", 70, 7, 900)];
        let now = [level("/g/a", 20, 4, 2_500), level("/g", 75, 8, 1_000)];
        assert_eq!(between(&before, &now), Some(Throttle { periods: 10, times: 3, ns: 2_000 }));
        assert_eq!(between(&before, &before), Some(Throttle { periods: 0, times: 0, ns: 0 }));
        assert_eq!(between(&before, &[level("/g/b", 1, 1, 1)]), None, "put into another group");
        assert_eq!(between(&now, &before), None, "a count that falls is none");
        assert_eq!(between(&[], &[]), Some(Throttle::default()), "no group has a quota");
    }

    #[test]
    fn this_process_has_counts_or_a_cause() {
        match CpuQuota::own() {
            Ok(own) => {
                let levels = own.read().unwrap();
                assert!(between(&levels, &own.read().unwrap()).is_some());
            }
            Err(why) => assert!(!why.cause.is_empty() && !why.remedy.is_empty()),
        }
    }
}
