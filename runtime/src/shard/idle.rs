//! What a shard does when it has nothing to do: it looks on for a while, or sleeps at once. While it looks on
//! it counts as running, so that nobody rings.

use std::fs;
use std::hint;
use std::path::{Path, PathBuf};

use super::Shard;
use crate::ring::Doorbells;

/// Longest look-on of an adaptive shard, ns: more than that no sleep and wake cost anywhere we know.
const SPIN_MAX_NS: u64 = 50_000;
/// Longest look-on of a polling shard between two rounds of its loop, ns.
const POLL_NS: u64 = 5_000_000;
/// Weight of the latest idle time in the mean: one in so many.
const WEIGHT: u64 = 8;

/// What a shard without work does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Sleeps at once: no CPU is used while nothing happens, but for the stall detector, which wakes four times per
    /// `Config::stall_ns`.
    Park,
    /// Looks on before it sleeps, while another shard is at work that may send it something, or as long as idle
    /// times have been short of late: at most twice the measured cost of a wake and 50 us. When all are idle,
    /// all sleep. Not under a CPU quota, and not with more shards than CPUs.
    Adaptive,
    /// Never sleeps: each shard uses its CPU up.
    Poll,
}

/// How one shard idles.
#[derive(Debug)]
pub(crate) struct Idling {
    mode: Idle,
    limit_ns: u64,
    /// Mean of idle times, ns.
    gap_ns: u64,
}

impl Idling {
    pub(crate) fn new(mode: Idle, wake_ns: Option<u64>) -> Self {
        let limit_ns = wake_ns.map_or(SPIN_MAX_NS, |ns| (2 * ns).min(SPIN_MAX_NS));
        // As if idle times had been long: a shard must have seen short ones before it spins.
        Self { mode, limit_ns, gap_ns: 2 * SPIN_MAX_NS }
    }

    /// How long to look on now, ns.
    const fn budget_ns(&self) -> u64 {
        match self.mode {
            Idle::Park => 0,
            Idle::Adaptive if self.gap_ns <= self.limit_ns => self.limit_ns,
            Idle::Adaptive => 0,
            Idle::Poll => POLL_NS,
        }
    }

    /// Notes how long there was nothing to do.
    pub(crate) fn note(&mut self, gap_ns: u64) {
        // One long pause says as much as a few beyond the limit, not that all will be long.
        let gap_ns = gap_ns.min(4 * SPIN_MAX_NS);
        self.gap_ns = (self.gap_ns * (WEIGHT - 1) + gap_ns) / WEIGHT;
    }
}

impl Shard {
    /// Looks on for as long as it pays. Returns the clock, and whether there is something to do.
    pub(super) fn look_on(
        &self,
        ring: &mut dyn Doorbells,
        idling: &Idling,
        from_ns: u64,
    ) -> (u64, bool) {
        let waits = idling.mode == Idle::Adaptive && self.others_work();
        let budget_ns = if waits { idling.limit_ns } else { idling.budget_ns() };
        if budget_ns == 0 {
            return (from_ns, false);
        }
        if ring.wants_enter() {
            // What the pass has asked of the kernel is not asked by looking on, and one that never sleeps never would.
            if !ring.submit() {
                return (from_ns, false);
            }
            if ring.has_completed() {
                let now_ns = self.clock_ns();
                self.stats.borrow_mut().spun_ns += now_ns - from_ns;
                return (now_ns, true);
            }
        }
        let ending = &self.own().ending;
        let (mut now_ns, mut found) = (from_ns, false);
        self.beat.set_looks_on(true);
        while !found && now_ns - from_ns < budget_ns {
            hint::spin_loop();
            found = self.has_work() || ending.is_closing() || ending.is_stopping();
            if !found && (ring.has_completions() || (waits && !self.others_work())) {
                // Completions are taken by the wait, which does not wait then.
                break;
            }
            now_ns = self.clock_ns();
        }
        self.beat.set_looks_on(false);
        self.stats.borrow_mut().spun_ns += now_ns - from_ns;
        (now_ns, found || idling.mode == Idle::Poll && now_ns - from_ns >= budget_ns)
    }

    /// Whether another shard is at work, and so may send something soon.
    fn others_work(&self) -> bool {
        let mut others = self.peers.iter().enumerate().filter(|(peer, _)| *peer != self.index);
        others.any(|(_, peer)| peer.sleep.is_running() && !peer.beat.looks_on())
    }
}

/// Why shards should not spin here; `None` when they may. Spinning takes time from other threads of a
/// process that has less CPUs than shards, and from its own quota.
pub(crate) fn objection(root: &Path, shards: usize, cpus: usize) -> Option<String> {
    if shards > cpus {
        return Some(format!("{shards} shards share {cpus} CPUs"));
    }
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        // Version 2 has one line without controllers.
        let mut found = match controllers {
            "" => ancestors(&root.join("sys/fs/cgroup"), path).find_map(|dir| quota_2(&dir)),
            list if list.split(',').any(|name| name == "cpu") => ["cpu", list]
                .iter()
                .map(|mount| root.join("sys/fs/cgroup").join(mount))
                .find_map(|mount| ancestors(&mount, path).find_map(|dir| quota_1(&dir))),
            _ => None,
        };
        found.take()
    })
}

/// A group and all above it.
fn ancestors(mount: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let (mount, group) = (mount.to_owned(), mount.join(path));
    let inside = mount.clone();
    let dirs = group.ancestors().map(Path::to_owned).collect::<Vec<_>>();
    dirs.into_iter().take_while(move |dir| dir.starts_with(&inside))
}

fn quota_2(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    (!text.starts_with("max")).then(|| format!("cpu.max is {}", text.trim()))
}

fn quota_1(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
    (!text.trim().starts_with('-')).then(|| format!("cpu.cfs_quota_us is {}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_begins_when_idle_times_are_short_and_ends_when_they_are_long() {
        let mut idling = Idling::new(Idle::Adaptive, Some(17_000));
        assert_eq!(idling.budget_ns(), 0, "nothing is known yet");
        (0..40).for_each(|_| idling.note(3_000));
        assert_eq!(idling.budget_ns(), 34_000);
        (0..40).for_each(|_| idling.note(200_000));
        assert_eq!(idling.budget_ns(), 0);
        (0..40).for_each(|_| idling.note(3_000));
        idling.note(10_000_000_000);
        assert_eq!(idling.budget_ns(), 34_000, "one long pause is not a habit");
        assert_eq!(Idling::new(Idle::Park, None).budget_ns(), 0);
        assert_eq!(Idling::new(Idle::Poll, None).budget_ns(), POLL_NS);
        let mut unknown = Idling::new(Idle::Adaptive, None);
        (0..40).for_each(|_| unknown.note(0));
        assert_eq!(unknown.budget_ns(), SPIN_MAX_NS);
    }

    #[test]
    fn quotas_of_both_versions_are_found_in_the_group_or_above_it() {
        let root = std::env::temp_dir().join(format!("tailbeam-idle-quota-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        assert_eq!(objection(&root, 2, 2), None);
        assert_eq!(objection(&root, 3, 2).as_deref(), Some("3 shards share 2 CPUs"));
        write("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
        assert_eq!(objection(&root, 2, 2).as_deref(), Some("cpu.max is 50000 100000"));
        write("proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/c/d\n");
        write("sys/fs/cgroup/cpu,cpuacct/c/d/cpu.cfs_quota_us", "-1\n");
        assert_eq!(objection(&root, 2, 2), None);
        write("sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us", "20000\n");
        assert_eq!(objection(&root, 2, 2).as_deref(), Some("cpu.cfs_quota_us is 20000"));
        fs::remove_dir_all(&root).expect("made above");
    }
}
