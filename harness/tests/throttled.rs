//! A CPU quota on the process in one half of a run: the slow requests of that half are said to have waited behind it,
//! those of the other half are not.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]
#![allow(clippy::print_stdout, reason = "what this host refuses, and what was seen, is said")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tailbeam_harness::load::{AgentInfo, Cx, ReplyTo, Workload};
use tailbeam_harness::plan::Arrivals;
use tailbeam_harness::report::latency::{Band, Causes, LatencyReport, Question, build};
use tailbeam_probes::clock::thread_cpu_ns;

const S: u64 = 1_000_000_000;
/// CPU time of a request: all together want 0.8 of a core, and get 0.5 under the quota.
const WORK_NS: u64 = 2_000_000;
const AGENTS: u64 = 40;

/// Answers after so much CPU time.
struct Works;

impl Workload for Works {
    const NAME: &'static str = "works";
    const ABOUT: &'static str = "each answer takes 2 ms of CPU time";
    type Request = u64;
    type Reply = u64;

    fn new(_: AgentInfo) -> Self {
        Self
    }

    fn request(&mut self, k: u64) -> u64 {
        k
    }

    async fn serve(&mut self, number: u64, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let until = thread_cpu_ns() + WORK_NS;
        while thread_cpu_ns() < until {
            std::hint::spin_loop();
        }
        reply.send(cx, number);
    }
}

/// A group of this process alone; it is put back where it was in the end.
struct Group {
    dir: PathBuf,
    old: PathBuf,
    /// Half of a core, and no quota: what is written where.
    quota: (&'static str, &'static str, &'static str),
    /// Before whatever else runs on this machine: it is the quota that is to be seen.
    weight: (&'static str, &'static str),
}

impl Group {
    /// Makes it and goes into it.
    fn enter() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let path = |is_it: fn(&str) -> bool| {
            own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                is_it(parts.next()?).then(|| parts.next()).flatten()
            })
        };
        let first = Path::new("/sys/fs/cgroup/cpu");
        let second = Path::new("/sys/fs/cgroup");
        let name = format!("tailbeam-throttled-{}", std::process::id());
        let group = if first.join("tasks").is_file() {
            let own = path(|names| names.split(',').any(|name| name == "cpu")).unwrap_or("/");
            let old = first.join(own.trim_start_matches('/'));
            let quota = ("cpu.cfs_quota_us", "50000", "-1");
            Self { dir: old.join(name), old, quota, weight: ("cpu.shares", "262144") }
        } else if second.join("cgroup.controllers").is_file() {
            // A group with processes cannot hand a controller down, the root can.
            let _ = fs::write(second.join("cgroup.subtree_control"), "+cpu");
            let old = second.join(path(str::is_empty).unwrap_or("/").trim_start_matches('/'));
            let quota = ("cpu.max", "50000 100000", "max 100000");
            Self { dir: second.join(name), old, quota, weight: ("cpu.weight", "10000") }
        } else {
            return Err("no control groups are mounted".to_owned());
        };
        fs::create_dir(&group.dir).map_err(|error| format!("{}: {error}", group.dir.display()))?;
        group.set(false)?;
        let (file, weight) = group.weight;
        let _ = fs::write(group.dir.join(file), weight);
        group.take(&group.dir)?;
        Ok(group)
    }

    fn take(&self, dir: &Path) -> Result<(), String> {
        let file = dir.join("cgroup.procs");
        let pid = std::process::id().to_string();
        fs::write(&file, pid).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn set(&self, half: bool) -> Result<(), String> {
        let (file, on, off) = self.quota;
        let file = self.dir.join(file);
        fs::write(&file, if half { on } else { off })
            .map_err(|error| format!("{}: {error}", file.display()))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.set(false);
        if let Err(why) = self.take(&self.old) {
            println!("not put back: {why}");
        }
        // The kernel takes a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        println!("left behind: {}", self.dir.display());
    }
}

fn part(dir: &Path, from_s: u64, to_s: u64) -> LatencyReport {
    let question = Question { from_ns: from_s * S, to_ns: to_s * S, ..Question::default() };
    build(dir, &question).unwrap()
}

fn causes(band: &Band) -> &Causes {
    band.causes.known().expect("requests of it were drawn")
}

#[test]
fn a_cpu_quota_is_the_named_cause_of_the_half_that_it_held_and_of_no_other() {
    let group = match Group::enter() {
        Ok(group) => group,
        Err(why) => return println!("SKIPPED: no group of its own for this process: {why}"),
    };
    let mut plan = common::plan(AGENTS, 11);
    plan.shape.arrivals = Arrivals::Closed;
    plan.observe.exemplars = Some(256);
    let mut refused = None;
    let ran = common::run_as::<Works>(&plan, || {
        // The run is some 0.1 s from its start.
        std::thread::park_timeout(Duration::from_millis(5_600));
        refused = group.set(true).err();
    });
    drop(group);
    if let Some(why) = refused {
        return println!("SKIPPED: no quota: {why}");
    }
    let Some(ran) = ran else { return println!("SKIPPED: no io_uring") };
    let (clean, held) = (part(&ran.dir, 0, 4), part(&ran.dir, 7, 10));

    let told = held.throttled.known().expect("read in each second");
    println!("held: {told:?}");
    held.caveats.iter().for_each(|caveat| println!("  ! {caveat}"));
    assert!(told.times >= 10 && told.ns > S, "{told:?}");
    let caveat = |of: &LatencyReport| {
        of.caveats.iter().any(|text| text.starts_with("the CPU quota of the process"))
    };
    assert!(caveat(&held), "{:?}", held.caveats);
    // Above p99.9 there is a single request: the core may have been held between two turns, which nobody writes down.
    let upper = held.bands[1..].iter().filter(|band| band.composition.count >= 5);
    let upper: Vec<&Band> = upper.collect();
    assert!(upper.len() >= 2, "{:?}", held.bands);
    for band in upper {
        let (of, mean_ns) = (causes(band), *band.composition.mean_ns.known().unwrap());
        let throttled = of.throttled.as_ref().map_or(0.0, |part| part.mean);
        let name = &band.name;
        println!("held {name}: {:.1} of {:.1} ms", throttled / 1e6, mean_ns / 1e6);
        assert!(throttled > 0.4 * mean_ns && throttled < 1.2 * mean_ns, "{band:?}");
        assert_eq!(of.waits[0].what, "throttled", "{band:?}");
    }

    let told = clean.throttled.known().expect("read in each second");
    assert_eq!((told.times, told.ns), (0, 0), "{told:?}");
    assert!(!caveat(&clean), "{:?}", clean.caveats);
    for band in &clean.bands {
        println!("clean {}: {:?}", band.name, band.composition.mean_ns.known());
        assert_eq!(causes(band).throttled, None, "{band:?}");
        assert!(causes(band).waits.iter().all(|of| of.what != "throttled"), "{band:?}");
    }
}
