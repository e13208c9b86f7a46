//! What an act is on this host: knobs of the board, or injectors of the kernel; done, proven, taken back.

use std::fs;
use std::path::PathBuf;

use rustix::thread::{CpuSet, sched_getaffinity};
use tailbeam_harness::chaos::board::Knob;
use tailbeam_harness::chaos::host::helper::LIFE_MS_MAX;
use tailbeam_harness::chaos::host::injector::{HogClass, LoopDisk};
use tailbeam_harness::chaos::host::{
    Call, Capability, Counter, Cut, End, Host, Injector, Journal, On, Process, Proof, Step,
};
use tailbeam_harness::chaos::record::{Ability, Bite};
use tailbeam_harness::chaos::scenario::{Act, How, RENEW_NS, Way};
use tailbeam_probes::clock;

use super::refused;
use super::stage::Stage;

const MIB: u64 = 1 << 20;
/// Memory that a subject under a limit has left before its neighbour comes.
const SPARE: u64 = 32 * MIB;
/// How long a helper outlives the fault that it is, ms: it ends by itself if nobody ends it.
const LIFE_BEYOND_MS: u64 = 30_000;
/// Longest time that a fault may be held, ms.
pub(super) const HOLD_MS_MAX: u64 = 600_000;
// A helper that may not live so long ends at once, and is no fault.
const _: () = assert!(HOLD_MS_MAX + LIFE_BEYOND_MS <= LIFE_MS_MAX);

/// A fault that is in force.
pub(super) enum Force {
    Knobs(Vec<(Knob, u64)>, Vec<u64>),
    Several(Vec<Force>),
    /// A call that is refused to the subject since its start; so many things were refused to us, who are not.
    Refused(Call, u64),
    Host {
        mark: usize,
        injectors: Vec<Injector>,
        before: Vec<Option<Proof>>,
        helper: Option<Process>,
    },
}

/// The last CPU that this process may use; the subject has a core on each.
fn last_cpu() -> Result<usize, String> {
    let set = sched_getaffinity(None).map_err(|error| format!("sched_getaffinity: {error}"))?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|&cpu| set.is_set(cpu));
    last.ok_or_else(|| "no CPU is allowed".to_owned())
}

/// CPUs that this process, and so a subject, may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The thread of the shard on a CPU, by its name.
fn shard_thread(process: Process, cpu: usize) -> Result<u32, String> {
    let dir = format!("/proc/{}/task", process.pid);
    let wanted = format!("shard-{cpu}");
    let entries = fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    let named = |tid: &u32| {
        let comm = fs::read_to_string(format!("{dir}/{tid}/comm"));
        comm.is_ok_and(|comm| comm.trim() == wanted)
    };
    let tids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    tids.into_iter().find(named).ok_or_else(|| format!("no thread {wanted} in {dir}"))
}

/// Descriptors that a process has open.
pub(super) fn open_files(process: Process) -> Result<u64, String> {
    let dir = format!("/proc/{}/fd", process.pid);
    let entries = fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    Ok(entries.count() as u64)
}

/// Threads of a process, but for those that the kernel makes for its rings: it ends them itself, seconds after the last
/// operation that one had.
pub(super) fn threads(process: Process) -> Result<u64, String> {
    let dir = format!("/proc/{}/task", process.pid);
    let entries = fs::read_dir(&dir).map_err(|error| format!("{dir}: {error}"))?;
    let own = |entry: &fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("comm"));
        name.is_ok_and(|name| !name.starts_with("iou-wrk"))
    };
    Ok(entries.flatten().filter(own).count() as u64)
}

/// What an act is for this subject; none for what is not the kernel's.
fn injectors(
    act: &Act,
    on: &On<'_>,
    (disk, home): (Option<&LoopDisk>, &std::path::Path),
    hold_ms: u64,
) -> Result<Vec<Injector>, String> {
    let alive = || on.process.ok_or_else(|| "no subject is alive".to_owned());
    let disk = || disk.cloned().ok_or_else(|| "its log has no disk of its own".to_owned());
    let life_ms = hold_ms + LIFE_BEYOND_MS;
    Ok(match act {
        Act::CpuQuota(percent) => vec![Injector::CpuQuota { millicores: percent * 10 }],
        Act::CpuHog => {
            let core = last_cpu()?;
            // Where no shard runs nothing is taken from the subject.
            shard_thread(alive()?, core)?;
            vec![Injector::CpuHog { core, class: HogClass::Fair, life_ms }]
        }
        Act::HoldCore => vec![Injector::ThreadHold { tid: shard_thread(alive()?, last_cpu()?)? }],
        Act::Freeze => vec![Injector::Freeze],
        Act::Memory(percent) => {
            let ballast = Injector::Ballast { bytes: SPARE * u64::from(*percent) / 100, life_ms };
            let has = on.groups.counter(Counter::MemoryBytes);
            let has = has.map_err(|gone| format!("{} ({})", gone.cause, gone.remedy))?;
            let bytes = (has + SPARE) / 4_096 * 4_096;
            vec![Injector::MemoryLimit { bytes }, ballast]
        }
        Act::DiskThrottle(bytes_per_s) => {
            vec![Injector::DiskThrottle { dir: home.to_owned(), bytes_per_s: *bytes_per_s }]
        }
        Act::DiskFull => vec![Injector::FillDisk { disk: disk()? }],
        Act::PowerCut => vec![Injector::PowerCut { disk: disk()? }],
        Act::Descriptors(max) => vec![Injector::FdLimit { max: *max }],
        Act::MonotonicOffset(offset_s) => vec![Injector::TimeNamespace { offset_s: *offset_s }],
        Act::Partition(way) => {
            vec![Injector::NetPartition { pair: on.host.veth_pair(), cut: cut(*way) }]
        }
        Act::Knobs(_)
        | Act::Proxy(_)
        | Act::Kill
        | Act::KillAndFlip
        | Act::EndCore(_)
        | Act::Corrupt(_)
        | Act::Together(_)
        | Act::Refuse(_) => Vec::new(),
    })
}

/// How a cable is cut whose first end is the subject's.
const fn cut(way: Way) -> Cut {
    match way {
        Way::Both => Cut::Down,
        Way::There => Cut::Into(End::Second),
        Way::Back => Cut::Into(End::First),
        Way::Loss(percent) => Cut::Loss(End::Second, percent),
    }
}

/// An injector of the kind that an act needs, to ask what this host can do; its figures do not matter for that.
fn kinds(act: &Act, host: &Host) -> Vec<Injector> {
    let disk = host.disk("", 64 * MIB);
    match act {
        Act::HoldCore => vec![Injector::ThreadHold { tid: std::process::id() }],
        Act::CpuHog => last_cpu().map_or_else(
            |_| Vec::new(),
            |core| vec![Injector::CpuHog { core, class: HogClass::Fair, life_ms: 1 }],
        ),
        Act::Memory(_) => vec![
            Injector::MemoryLimit { bytes: SPARE },
            Injector::Ballast { bytes: MIB, life_ms: 1 },
        ],
        Act::Descriptors(_) => vec![Injector::FdLimit { max: 64 }],
        Act::DiskThrottle(bytes_per_s) => vec![
            Injector::LoopDisk { disk },
            // Of the disk that is made then, which is one that can be throttled.
            Injector::DiskThrottle { dir: PathBuf::new(), bytes_per_s: *bytes_per_s },
        ],
        Act::DiskFull => {
            vec![Injector::LoopDisk { disk: disk.clone() }, Injector::FillDisk { disk }]
        }
        Act::PowerCut => {
            vec![Injector::LoopDisk { disk: disk.clone() }, Injector::PowerCut { disk }]
        }
        Act::Kill | Act::KillAndFlip => vec![Injector::Kill],
        Act::Partition(way) => {
            let pair = host.veth_pair();
            let pair = || pair.clone();
            vec![
                Injector::NetPair { pair: pair() },
                Injector::NetPartition { pair: pair(), cut: cut(*way) },
            ]
        }
        Act::Together(acts) => acts.iter().flat_map(|act| kinds(act, host)).collect(),
        act => {
            let groups = host.groups("");
            let on = On { host, groups: &groups, process: None, helper: None };
            injectors(act, &on, (None, &host.dir), 0).unwrap_or_default()
        }
    }
}

/// What this host can do of an act.
pub(super) fn ability(act: &Act, host: &Host) -> Ability {
    if let Act::Refuse(call) = act {
        return refused::ability(*call);
    }
    if matches!(act, Act::EndCore(_)) && cores() > 1 {
        return Ability::Replaced {
            by: "the end of the process, and another one with the agents of that core".to_owned(),
            why: "the memory of a core's agents ends with its thread, so they cannot go on elsewhere in the process".to_owned(),
        };
    }
    if matches!(act, Act::EndCore(_)) {
        return Ability::Impossible {
            cause: "the thread that is lost falls when it looks at what another core has sent, and there is one core".to_owned(),
            remedy: "run it on a host, or with an affinity, of two cores or more".to_owned(),
        };
    }
    let mut ability = Ability::Available;
    for injector in kinds(act, host) {
        match injector.probe(host) {
            Capability::Available => {}
            Capability::Replaced { by, why, .. } => ability = Ability::Replaced { by, why },
            Capability::Impossible { cause, remedy } => {
                return Ability::Impossible { cause, remedy };
            }
        }
    }
    ability
}

/// What would be done and undone, in words.
pub(super) fn dry(act: &Act, host: &Host) -> Vec<String> {
    if let Some(knobs) = act.knobs() {
        let whose = if act.how() == How::Proxy { ", for the proxy to the peer" } else { "" };
        let set = knobs.iter().map(|(knob, level)| {
            format!("set {knob:?} of the board to {}{whose}; undo: to 0", level.cast_signed())
        });
        return set.collect();
    }
    if let Act::Together(acts) = act {
        return acts.iter().flat_map(|act| dry(act, host)).collect();
    }
    let groups = host.groups("");
    let on = On { host, groups: &groups, process: None, helper: None };
    let mut lines = Vec::new();
    for injector in kinds(act, host) {
        match injector.steps(&on) {
            Ok(steps) => {
                let both = |step: &Step| format!("{step}; undo: {}", step.undo_text());
                lines.extend(steps.iter().map(both));
            }
            Err(error) => lines.push(format!(
                "{injector:?}: its steps are known when the subject runs ({})",
                error.cause
            )),
        }
    }
    match act {
        Act::Kill => {
            lines.push("SIGKILL to the subject; undo: start it again, on the same logs".to_owned())
        }
        Act::KillAndFlip => lines.push(
            "SIGKILL to the subject, flip one bit of an event in each of its logs; undo: start it again, on the same logs"
                .to_owned(),
        ),
        Act::EndCore(core) => lines.push(format!(
            "set CoreEnds of the board to {}; undo: to 0, and start the subject again, on the same logs",
            core + 1
        )),
        Act::Corrupt(damage) => lines.push(format!(
            "copy the log into memory, damage the copy ({damage:?}), read it; nothing to undo"
        )),
        Act::MonotonicOffset(s) => lines.push(format!(
            "start the subject in a time namespace {s} s ahead; undo: it ends with the subject"
        )),
        Act::Refuse(call) => lines.push(refused::dry(*call)),
        _ => {}
    }
    lines
}

/// What is done for a fault here: itself, or what replaces it.
fn doable(injector: Injector, host: &Host) -> Injector {
    match injector.probe(host) {
        Capability::Replaced { with, .. } => *with,
        _ => injector,
    }
}

impl Force {
    /// Does it.
    pub(super) fn inject(
        act: &Act,
        stage: &Stage<'_>,
        journal: &mut Journal,
        disk: Option<&LoopDisk>,
        hold_ns: u64,
    ) -> Result<Self, String> {
        if let Some(knobs) = act.knobs() {
            let before = knobs.iter().map(|(knob, _)| stage.board.bites(*knob)).collect();
            knobs.iter().for_each(|(knob, level)| stage.board.set(*knob, *level));
            return Ok(Self::Knobs(knobs.to_vec(), before));
        }
        if let Act::Together(acts) = act {
            let mut forces = Vec::new();
            for act in acts {
                match Self::inject(act, stage, journal, disk, hold_ns) {
                    Ok(force) => forces.push(force),
                    Err(said) => {
                        let undone = Self::Several(forces).revert(stage, journal);
                        return Err(undone
                            .err()
                            .map_or(said.clone(), |left| format!("{said}; {left}")));
                    }
                }
            }
            return Ok(Self::Several(forces));
        }
        if let Act::Refuse(call) = act {
            return Ok(Self::Refused(*call, refused::own(*call)));
        }
        let host = stage.setting.host;
        let process = stage.process();
        let on = On { host, groups: &stage.groups, process, helper: None };
        let injectors = injectors(act, &on, (disk, &stage.home), hold_ns / 1_000_000)?;
        let mut force = Self::Host {
            mark: journal.mark(),
            injectors: Vec::new(),
            before: Vec::new(),
            helper: None,
        };
        for injector in injectors.into_iter().map(|injector| doable(injector, host)) {
            let Self::Host { injectors, before, helper, .. } = &mut force else { continue };
            let on = On { host, groups: &stage.groups, process, helper: None };
            // A hog's time can be read when there is a hog; what is so from the start was nothing before it.
            let proof = match injector {
                Injector::FdLimit { .. } => Some(refused_descriptors(stage)),
                Injector::FillDisk { .. } => Some(no_room(stage)),
                _ => injector.proof(&on).ok().filter(|_| !act.is_of_the_start()),
            };
            before.push(proof);
            let steps =
                injector.steps(&on).map_err(|gone| format!("{} ({})", gone.cause, gone.remedy));
            let perform =
                |steps: Vec<_>| journal.perform_all(&steps).map_err(|error| error.to_string());
            let done = steps.and_then(perform);
            injectors.push(injector);
            match done {
                Ok(applied) => *helper = applied.started.last().copied().or(*helper),
                Err(said) => {
                    let undone = force.revert(stage, journal);
                    return Err(match undone {
                        Ok(()) => said,
                        Err(left) => format!("{said}; and it was not taken back: {left}"),
                    });
                }
            }
        }
        // A log needs room when a segment is full, which may be long after.
        if matches!(act, Act::DiskFull) {
            stage.board.set(Knob::LogRenewNs, RENEW_NS);
        }
        Ok(force)
    }

    /// What proves that it bit, so far.
    pub(super) fn bites(&self, stage: &Stage<'_>) -> Vec<Bite> {
        match self {
            Self::Knobs(knobs, before) => knobs
                .iter()
                .zip(before)
                .filter(|((knob, _), _)| !matches!(knob, Knob::LinkFrom | Knob::LinkSharePermille))
                .map(|((knob, _), &before)| {
                    let after = stage.board.bites(*knob);
                    let (source, unit) = (format!("{knob:?} of the board"), "times".to_owned());
                    let bit = after > before;
                    Bite { source, unit, before: Some(before), after: Some(after), bit }
                })
                .collect(),
            Self::Several(forces) => forces.iter().flat_map(|force| force.bites(stage)).collect(),
            Self::Refused(call, before) => vec![refused::stated(stage, *call, *before)],
            Self::Host { injectors, before, helper, .. } => {
                let (host, process) = (stage.setting.host, stage.process());
                let on = On { host, groups: &stage.groups, process, helper: *helper };
                let one = |(injector, before): (&Injector, &Option<Proof>)| match injector {
                    Injector::FillDisk { .. } => {
                        proven(before.as_ref(), &no_room(stage), |a, b| b > a)
                    }
                    Injector::FdLimit { .. } => {
                        proven(before.as_ref(), &refused_descriptors(stage), |a, b| b > a)
                    }
                    _ => bite(injector, before.as_ref(), &on),
                };
                injectors.iter().zip(before).map(one).collect()
            }
        }
    }

    /// Takes it back; what could not be, in words.
    pub(super) fn revert(&self, stage: &Stage<'_>, journal: &mut Journal) -> Result<(), String> {
        match self {
            Self::Knobs(knobs, _) => {
                // In reverse: whom a loss applies to is said before it.
                knobs.iter().rev().for_each(|(knob, _)| stage.board.set(*knob, 0));
                let left = knobs.iter().find(|(knob, _)| stage.board.level(*knob) != 0);
                left.map_or(Ok(()), |(knob, _)| Err(format!("{knob:?} does not read 0")))
            }
            // It ends with the subject.
            Self::Refused(..) => Ok(()),
            // The last first; each is taken back whatever became of the others.
            Self::Several(forces) => {
                let all: Vec<Result<(), String>> =
                    forces.iter().rev().map(|force| force.revert(stage, journal)).collect();
                all.into_iter().collect()
            }
            Self::Host { mark, .. } => {
                // That of a full disk; nobody else has it.
                stage.board.set(Knob::LogRenewNs, 0);
                let undone = journal.undo_since(*mark);
                if undone.clean() {
                    Ok(())
                } else {
                    Err(undone.to_string().trim().replace('\n', "; "))
                }
            }
        }
    }
}

/// How often the disk had no room for what the subject's logs make: that it is full to us shows nothing of that.
fn no_room(stage: &Stage<'_>) -> Proof {
    Proof {
        name: "segments of the subject's logs that got no room (ENOSPC)",
        unit: "times",
        value: stage.board.no_rooms(),
        asked: None,
        at_ns: clock::monotonic_ns(),
    }
}

/// How often the subject needed a descriptor and was refused one: that the limit reads low shows nothing of that.
fn refused_descriptors(stage: &Stage<'_>) -> Proof {
    Proof {
        name: "connections of the subject that got no descriptor (EMFILE)",
        unit: "times",
        value: stage.board.descriptors_refused(),
        asked: None,
        at_ns: clock::monotonic_ns(),
    }
}

/// Two readings side by side.
fn proven(before: Option<&Proof>, after: &Proof, bit: impl FnOnce(u64, u64) -> bool) -> Bite {
    let before = before.map(|proof| proof.value);
    Bite {
        source: after.name.to_owned(),
        unit: after.unit.to_owned(),
        before,
        after: Some(after.value),
        bit: before.is_some_and(|before| bit(before, after.value)),
    }
}

fn bite(injector: &Injector, before: Option<&Proof>, on: &On<'_>) -> Bite {
    let unknown = |why: String, after| {
        let unit = String::new();
        Bite { source: why, unit, before: None, after, bit: false }
    };
    match injector.proof(on) {
        Ok(after) => {
            // A helper begins with the fault and had used nothing before; so does a subject with its namespace.
            let none = Proof { value: 0, at_ns: 0, ..after.clone() };
            let begins = matches!(
                injector,
                Injector::CpuHog { .. } | Injector::Ballast { .. } | Injector::TimeNamespace { .. }
            );
            let Some(before) = before.or(begins.then_some(&none)) else {
                return unknown(
                    format!("{}: unknown before the fault", after.name),
                    Some(after.value),
                );
            };
            proven(Some(before), &after, |_, _| injector.bitten(before, &after))
        }
        Err(gone) => unknown(format!("unknown: {} ({})", gone.cause, gone.remedy), None),
    }
}
