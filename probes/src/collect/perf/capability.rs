//! What this host lets us measure, tried out and not guessed: the degradation matrix as plain values.
//!
//! [`try_out`] opens each source once, runs a known load under the counters and closes all again (a few
//! ms); [`judge`] makes rows of what was found, and is pure. A counter that opens and does not count the
//! known load is not available: a virtual PMU may open, never be scheduled and read frozen values.

use super::kind::{Kind, Scope, Support};
use super::quality::{Delta, Quality, Unknown};
use super::reading::Reading;
use super::thread::{ThreadGroup, ThreadOptions};
use super::{CounterBackend, CpuGroup, CpuOptions, SwitchRing, errno_of, explain, paranoid};
use crate::clock::cycles::Counter;
use crate::collect::cpu_times::CpuTimesReader;
use crate::collect::schedstat::Schedstat;
use crate::{Unavailable, clock};

/// What kind of place this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Environment {
    /// A PMU, and the kernel's work counted too.
    Full,
    /// A PMU, and the own thread's user space only.
    UserOnly,
    /// No PMU that counts cycles and instructions: a virtual machine without one, or with one that lacks
    /// either or whose counters do not move.
    NoPmu,
    /// All of perf is refused: seccomp, or Debian's paranoid 3.
    Refused,
}

impl Environment {
    /// In words, as reports print it.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Full => "PMU, user space and kernel",
            Self::UserOnly => "PMU, user space only: kernel cycles unknown",
            Self::NoPmu => "no PMU that counts both cycles and instructions",
            Self::Refused => "perf refused: times, faults and switches by getrusage and schedstat",
        }
    }
}

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// What stamps are taken by.
    Stamps,
    /// Counters of the own thread.
    Counters,
    /// Counters of whole CPUs.
    Cpus,
    /// Time off the CPU.
    OffCpu,
    /// Interrupts and what the host takes.
    Steal,
    /// CPU profiles.
    Sampling,
}

impl Area {
    /// All, in the order of the matrix.
    pub const ALL: [Self; 6] =
        [Self::Stamps, Self::Counters, Self::Cpus, Self::OffCpu, Self::Steal, Self::Sampling];

    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stamps => "stamps",
            Self::Counters => "counters",
            Self::Cpus => "cpus",
            Self::OffCpu => "off-cpu",
            Self::Steal => "steal",
            Self::Sampling => "sampling",
        }
    }
}

/// A cell of the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub area: Area,
    /// What is measured, in words.
    pub works: String,
    /// What is not, and why.
    pub missing: Vec<(String, Unavailable)>,
}

impl Row {
    /// What is missing, names with the same reason together.
    #[must_use]
    pub fn missing_by_reason(&self) -> Vec<(String, &Unavailable)> {
        let mut grouped: Vec<(String, &Unavailable)> = Vec::new();
        for (name, why) in &self.missing {
            match grouped.iter_mut().find(|(_, reason)| *reason == why) {
                Some((names, _)) => *names += &format!(", {name}"),
                None => grouped.push((name.clone(), why)),
            }
        }
        grouped
    }
}

/// What works, then what is unknown and why: a cell of the first table of a report.
impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.works)?;
        for (names, why) in self.missing_by_reason() {
            write!(f, "; {names} unknown: {}", why.cause)?;
        }
        Ok(())
    }
}

/// What this host lets us measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What kind of place this is.
    pub environment: Environment,
    /// `perf_event_paranoid`.
    pub paranoid: Option<i32>,
    /// One for each [`Area`].
    pub rows: Vec<Row>,
}

impl Capabilities {
    /// The row of `area`.
    ///
    /// # Panics
    /// Never: [`capabilities`] makes one of each.
    #[must_use]
    pub fn row(&self, area: Area) -> &Row {
        self.rows.iter().find(|row| row.area == area).expect("one row for each area")
    }
}

/// Tries all sources, as the calling thread and its user. A few ms.
#[must_use]
pub fn capabilities() -> Capabilities {
    judge(try_out())
}

/// What was found by trying.
struct Found {
    paranoid: Option<i32>,
    counter: Result<Counter, Unavailable>,
    /// The own thread's group: what it has, and the known load's delta.
    thread: Result<(Support, Delta), Unavailable>,
    cpu: Result<Support, Unavailable>,
    switches: Result<(), Unavailable>,
    schedstat: Result<(), Unavailable>,
    cpu_times: Result<(), Unavailable>,
    sampling_user: Result<(), Unavailable>,
    sampling_kernel: Result<(), Unavailable>,
}

/// Rounds of the known load; each is at least one instruction, all together some ms.
const LOAD: u64 = 4_000_000;

fn try_out() -> Found {
    let level = paranoid();
    let sampled = |kernel: bool| {
        use perf_event2::{Builder, events::Software};
        let mut builder = Builder::new(Software::CPU_CLOCK);
        builder.observe_self().any_cpu().exclude_kernel(!kernel).sample_frequency(99);
        builder.build().map(drop).map_err(|error| explain(errno_of(&error), level))
    };
    Found {
        paranoid: level,
        counter: clock::processor_counter(),
        thread: ThreadGroup::open(ThreadOptions::default()).map(known_load),
        cpu: CpuGroup::open(super::thread::here(), CpuOptions::default())
            .map(|group| group.support().clone()),
        switches: SwitchRing::open(4_096).map(drop),
        schedstat: Schedstat::own().map(drop),
        cpu_times: CpuTimesReader::open(1).and_then(|mut reader| reader.read(0)).map(drop),
        sampling_user: sampled(false),
        sampling_kernel: sampled(true),
    }
}

fn known_load(mut group: ThreadGroup) -> (Support, Delta) {
    let (mut before, mut after) = (Reading::default(), Reading::default());
    group.read(clock::monotonic_ns(), &mut before);
    let mut value = 1u64;
    for round in 0..LOAD {
        value = std::hint::black_box(value.wrapping_add(round));
    }
    group.read(clock::monotonic_ns(), &mut after);
    let delta = super::between(group.support(), &super::rules(None), &before, &after);
    (group.support().clone(), delta)
}

fn judge(found: Found) -> Capabilities {
    let (counters, environment) = counters(&found);
    let rows = vec![
        stamps(found.counter),
        counters,
        cpus(found.cpu),
        off_cpu(found.switches, found.schedstat),
        steal(found.cpu_times),
        sampling(found.sampling_user, found.sampling_kernel),
    ];
    Capabilities { environment, paranoid: found.paranoid, rows }
}

/// Why the known load was not counted, if it was not.
fn failed_load(kind: Kind, support: &Support, delta: &Delta) -> Option<Unavailable> {
    let value = delta.of(kind);
    let failed = |cause: String| Unavailable {
        source: "known load",
        cause,
        remedy: "run on bare metal, or on a hypervisor whose vPMU counts".to_owned(),
    };
    let core = matches!(kind, Kind::Cycles | Kind::Instructions);
    let grouped = support.of(kind).is_ok_and(|source| source.grouped);
    match value.quality {
        Quality::Unknown(Unknown::Starved | Unknown::TooShort) if grouped => {
            Some(super::starved(super::watchdog()))
        }
        Quality::Unknown(why) if grouped => Some(failed(format!("it opens and reads {why:?}"))),
        _ if kind == Kind::Instructions && value.known().is_some_and(|count| count < LOAD) => {
            Some(failed(format!("it counts {} of {LOAD} instructions or more", value.raw)))
        }
        _ if core && value.raw == 0 => Some(failed("it opens and stands at 0".to_owned())),
        _ => None,
    }
}

fn counters(found: &Found) -> (Row, Environment) {
    let (support, delta) = match &found.thread {
        Ok(both) => both,
        Err(why) => {
            let works = "CPU time, page faults, context switches (no perf)".to_owned();
            let missing = Kind::HARDWARE.into_iter().chain([Kind::Migrations]);
            let missing = missing.map(|kind| (kind.name().to_owned(), why.clone())).collect();
            let row = Row { area: Area::Counters, works, missing };
            return (row, Environment::Refused);
        }
    };
    let (mut works, mut missing, mut user) = (Vec::new(), Vec::new(), false);
    let mut core = true;
    for kind in Kind::ALL {
        let refused = match support.of(kind) {
            Err(why) => Some(why.clone()),
            Ok(_) => failed_load(kind, support, delta),
        };
        let hardware = Kind::HARDWARE.contains(&kind);
        match (refused, support.of(kind)) {
            (None, Ok(source)) => {
                // Software clocks tell the whole time of a thread whatever they exclude.
                let only_user = source.scope == Scope::User && hardware;
                user |= source.scope == Scope::User;
                works.push(if only_user {
                    format!("{} (user)", kind.name())
                } else {
                    kind.name().to_owned()
                });
            }
            (Some(why), _) => {
                core &= !matches!(kind, Kind::Cycles | Kind::Instructions);
                missing.push((kind.name().to_owned(), why));
            }
            (None, Err(_)) => {}
        }
    }
    let environment = match (core, user) {
        (false, _) => Environment::NoPmu,
        (true, true) => Environment::UserOnly,
        (true, false) => Environment::Full,
    };
    if environment == Environment::UserOnly {
        missing.push(("kernel cycles".to_owned(), explain(libc::EACCES, found.paranoid)));
    }
    (Row { area: Area::Counters, works: works.join(", "), missing }, environment)
}

fn stamps(counter: Result<Counter, Unavailable>) -> Row {
    let works = counter.as_ref().map_or(Counter::Monotonic, |counter| *counter).name().to_owned();
    let missing = counter.err().map(|why| ("the processor's counter".to_owned(), why));
    Row { area: Area::Stamps, works, missing: missing.into_iter().collect() }
}

fn cpus(found: Result<Support, Unavailable>) -> Row {
    let area = Area::Cpus;
    let support = match found {
        Ok(support) => support,
        Err(why) => {
            return Row {
                area,
                works: "nothing".to_owned(),
                missing: vec![("cpus".to_owned(), why)],
            };
        }
    };
    let works: Vec<&str> = support.counted().map(|(kind, _)| kind.name()).collect();
    // Why a switch happens is a question about a thread; no CPU has the answer anywhere.
    let missing = support.missing().filter(|(kind, _)| *kind != Kind::Preemptions);
    let missing = missing.map(|(kind, why)| (kind.name().to_owned(), why.clone())).collect();
    Row { area, works: works.join(", "), missing }
}

fn off_cpu(switches: Result<(), Unavailable>, schedstat: Result<(), Unavailable>) -> Row {
    let works = match (&switches, &schedstat) {
        (Ok(()), Ok(())) => "own thread's switches, preempted or blocked; schedstat",
        (Ok(()), Err(_)) => "own thread's switches, preempted or blocked",
        (Err(_), Ok(())) => "schedstat only: totals of waiting, no single interval",
        (Err(_), Err(_)) => "nothing",
    };
    let named =
        |name: &str, found: Result<(), Unavailable>| found.err().map(|why| (name.to_owned(), why));
    let missing = [named("switch records", switches), named("schedstat", schedstat)];
    Row {
        area: Area::OffCpu,
        works: works.to_owned(),
        missing: missing.into_iter().flatten().collect(),
    }
}

fn steal(cpu_times: Result<(), Unavailable>) -> Row {
    let works = match &cpu_times {
        Ok(()) => "/proc/stat in ticks of 10 ms; holes in idle time, unattributed",
        Err(_) => "holes in idle time, unattributed",
    };
    let missing = cpu_times.err().map(|why| ("steal".to_owned(), why)).into_iter().collect();
    Row { area: Area::Steal, works: works.to_owned(), missing }
}

fn sampling(user: Result<(), Unavailable>, kernel: Result<(), Unavailable>) -> Row {
    let works = match (&user, &kernel) {
        (_, Ok(())) => "cpu-clock, user space and kernel",
        (Ok(()), Err(_)) => "cpu-clock, user space only",
        (Err(_), Err(_)) => "nothing",
    };
    let mut missing = Vec::new();
    if let Err(why) = kernel {
        let what = if user.is_ok() { "kernel samples" } else { "samples" };
        missing.push((what.to_owned(), why));
    }
    Row { area: Area::Sampling, works: works.to_owned(), missing }
}

#[cfg(test)]
mod tests;
