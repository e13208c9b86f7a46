//! `chaos`: faults under load. A supervisor of subjects, which are `soak`s in processes of their own.

mod act;
mod asked;
mod checks;
mod kept;
mod peer;
mod refused;
mod show;
mod stage;
mod trial;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use rustix::fs::FlockOperation;
use signal_hook::consts::SIGTERM;
use tailbeam_harness::chaos::host::injector::LoopDisk;
use tailbeam_harness::chaos::host::{
    Guard, Host, Injector, Journal, Launcher, On, Residue, idle, residue, undo,
};
use tailbeam_harness::chaos::record::{
    Ability, ChaosPlan, ChaosRecord, Check, FaultRecord, ScenarioRecord, SubjectRecord, Trial,
    VERSION,
};
use tailbeam_harness::chaos::recovery::Baseline;
use tailbeam_harness::chaos::scenario::{self, Act, Fault, Scenario};
use tailbeam_harness::chaos::series::SUBJECTS;
use tailbeam_harness::drive::Control;
use tailbeam_harness::evidence::{Documents, Store, rfc3339};
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::{LogAck, LogSync, Plan};
use tailbeam_harness::remote::HomeConfig;
use tailbeam_probes::clock;
use tailbeam_probes::collect::host;

use super::{Outcome, Watch};
use crate::Failure;
use crate::args::ProgressMode;
use crate::chaos_args::ChaosArgs;
use crate::render::pages;
pub(super) use asked::subject_plan;
use asked::{chosen, planned};
use stage::{Setting, Stage};
use trial::Scene;

pub(super) use show::{guard, helper};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// Disk of a subject whose log has one of its own, bytes; and what each process that goes on with it adds: two segments of 16 MiB
/// per core, written before they are used.
const DISK: u64 = 512 << 20;
const DISK_PER_PROCESS: u64 = 32 << 20;

pub(super) fn run(
    args: &ChaosArgs,
    workloads: &[&'static dyn AnyWorkload],
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.schema {
        out.write_all(pages::CHAOS_SCHEMA.as_bytes())?;
        return Ok(0);
    }
    if let Some(name) = &args.from {
        let store = Store::open_existing(root).map_err(|error| Failure::new(1, error))?;
        return show::show(&show::again(&store, name)?, args.format, out);
    }
    let (store, mut record, _lock) = match &args.resume {
        Some(name) => {
            let store = Store::open_existing(root).map_err(|error| Failure::new(1, error))?;
            let id = show::read(&store, name)?.id;
            let lock = lock(&store.document_dir(Documents::Chaos, &id), &id)?;
            // Read when nobody writes it any more.
            let record = show::read(&store, &id)?;
            (store, record, lock)
        }
        None => {
            let asked = chosen(args)?;
            if args.list || args.dry_run {
                return show::list((&asked, root), args.dry_run, args.format, out);
            }
            let plan = planned(args, workloads)?;
            let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
            let record = begun(plan, asked, &store)?;
            let lock = lock(&store.document_dir(Documents::Chaos, &record.id), &record.id)?;
            (store, record, lock)
        }
    };
    let subject = subject_plan(&record.plan.flags, workloads)?;
    let home = HomeConfig::of(&subject, [0; 32], (IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let given = (&store, &home, acknowledges(&subject));
    let signal = series(given, &mut record, args.progress, err)?;
    let code = show::show(&record, args.format, out)?;
    if args.progress != ProgressMode::None {
        let _ = writeln!(err, "series: {}", record.id);
    }
    Ok(signal.unwrap_or(code))
}

fn begun(plan: ChaosPlan, asked: Vec<Scenario>, store: &Store) -> Result<ChaosRecord, Failure> {
    let now_ns = clock::realtime_ns();
    let id =
        store.create_document(Documents::Chaos, now_ns).map_err(|error| Failure::new(1, error))?;
    Ok(ChaosRecord {
        version: VERSION,
        id,
        started: rfc3339(now_ns),
        host: tailbeam_harness::host::one_line(&host::describe()),
        plan,
        asked,
        scenarios: Vec::new(),
        stopped: true,
    })
}

/// Whether a subject of this plan tells an asker of an end only when its log has it.
fn acknowledges(plan: &Plan) -> bool {
    let of = &plan.protocol;
    plan.workload == asked::WORKLOAD && of.durability != LogSync::None && of.ack == LogAck::After
}

/// Runs the scenarios that were asked for and that the record has not, and writes the record after each.
fn series(
    (store, home, acknowledges): (&Store, &HomeConfig, bool),
    record: &mut ChaosRecord,
    progress: ProgressMode,
    err: &mut dyn Write,
) -> Result<Option<u8>, Failure> {
    let control = Control::default();
    let signals = Watch::start(&control)?;
    let failed = |what: &str, cause: String| {
        Failure::new(
            1,
            format!(
                "{what}\n  cause: {cause}\n  remedy: `tailbeam chaos --list` says what this host can do"
            ),
        )
    };
    let program =
        std::env::current_exe().map_err(|e| failed("cannot find this program", e.to_string()))?;
    let dir = store.document_dir(Documents::Chaos, &record.id);
    let launcher = Launcher { program: program.clone(), args: vec!["chaos-helper".to_owned()] };
    let host = Host::find(launcher, &dir)
        .map_err(|e| failed("cannot look at this host", e.to_string()))?;
    let plan = record.plan.clone();
    // What is resumed is this series, also when it is cut off before its first scenario is over.
    show::write(store, record)?;
    // Absolute, as the host has it: the guard reads the journal there, and is in no folder of ours.
    let dir = host.dir.clone();
    let setting = Setting {
        plan: &plan,
        host: &host,
        control: &control,
        program,
        store: dir.join(SUBJECTS),
        dir: &dir,
        home: home.clone(),
        acknowledges,
    };
    for scenario in &record.asked.clone() {
        if setting.stopped() || has(record, scenario) {
            continue;
        }
        record.scenarios.retain(|of| of.name != scenario.name);
        let mut say = |text: &str| {
            if progress != ProgressMode::None {
                // Progress is nobody's result.
                let _ = writeln!(err, "{:<24} {text}", scenario.name);
            }
        };
        let done = whole(scenario, &setting, &dir, &mut say);
        let done =
            done.map_err(|cause| failed(&format!("{} cannot be run", scenario.name), cause))?;
        say(&format!("{} ({})", done.judged().verdict.name(), done.judged().reason));
        // Also what was cut off: a series that goes on runs again what is not whole.
        record.scenarios.push(done);
        show::write(store, record)?;
    }
    record.stopped = setting.stopped();
    show::write(store, record)?;
    Ok(match signals.end() {
        0 => None,
        SIGTERM => Some(143),
        _ => Some(130),
    })
}

/// Holds a series: another supervisor would undo the faults of this one, and end its subjects. Goes with the process.
fn lock(dir: &Path, id: &str) -> Result<fs::File, Failure> {
    let held = fs::File::open(dir).and_then(|dir| {
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        Ok(dir)
    });
    held.map_err(|error| {
        let (cause, remedy) = match error.kind() {
            std::io::ErrorKind::WouldBlock => {
                ("another process runs it".to_owned(), "wait until it is over, or end that one")
            }
            _ => (error.to_string(), "see that its directory is there and may be read"),
        };
        Failure::new(1, format!("series {id} cannot be run\n  cause: {cause}\n  remedy: {remedy}"))
    })
}

/// Whether a series has every fault of a scenario.
fn has(record: &ChaosRecord, scenario: &Scenario) -> bool {
    let found = record.scenarios.iter().find(|of| of.name == scenario.name);
    found.is_some_and(|of| {
        let whole = |of: &FaultRecord| of.ended.as_deref() != Some(trial::STOPPED);
        scenario.faults.iter().all(|fault| {
            let done = of.faults.iter().filter(|(_, done)| done.fault == *fault && whole(done));
            let start = fault.act.is_of_the_start();
            done.count() >= if start { record.plan.injections as usize } else { 1 }
        })
    })
}

/// Runs a scenario between two looks at the host, with a guard.
fn whole(
    scenario: &Scenario,
    setting: &Setting<'_>,
    dir: &Path,
    say: &mut dyn FnMut(&str),
) -> Result<ScenarioRecord, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    fs::create_dir_all(&setting.store).map_err(|error| text(&error))?;
    let before = residue(&[]).map_err(|error| text(&error))?;
    let path = dir.join(format!("{}.journal", scenario.name));
    // Of an earlier try: its guard may have died with it, and then this is all that is known of what it did.
    if path.exists() {
        idle(&path).map_err(|error| text(&error))?;
        let undone = undo(&path).map_err(|error| text(&error))?;
        if !undone.clean() {
            let left = undone.to_string().trim().replace('\n', "; ");
            return Err(format!("what an earlier try did is not undone: {left}"));
        }
        fs::remove_file(&path).map_err(|error| text(&error))?;
    }
    let mut journal = Journal::create(&path, &setting.host.name).map_err(|error| text(&error))?;
    let words = ["chaos-guard".to_owned(), "--journal".to_owned(), path.display().to_string()];
    let guard = Guard::start(&setting.program, &words, &path).map_err(|error| text(&error))?;
    journal.hold(guard.lifeline().map_err(|error| text(&error))?);
    let mut record = ScenarioRecord {
        name: scenario.name.clone(),
        about: scenario.about.clone(),
        subjects: Vec::new(),
        faults: Vec::new(),
        residue: Vec::new(),
        guard_limits: guard.limits().to_owned(),
    };
    for group in grouped(scenario, setting.plan.injections) {
        if setting.stopped() {
            break;
        }
        let mut subject =
            Cast { setting, journal: &mut journal, record: &mut record, say: &mut *say };
        subject.perform(&group);
    }
    let undone = journal.undo_since(0);
    drop(journal);
    let said = undone.to_string().trim().replace('\n', "; ");
    // What was measured is not lost because its guard is slow.
    record.residue.push(match guard.finish() {
        Ok(healed) => Check::seen("everything is undone", undone.clean() && healed, said),
        Err(error) => Check::unknown("everything is undone", format!("{said}; {error}")),
    });
    record.residue.push(left(&before, (&setting.host.name, dir)));
    Ok(record)
}

/// What carries this series' name and was not there before; another one may run beside it.
fn left(before: &Residue, (ours, dir): (&str, &Path)) -> Check {
    let name = "nothing is left on the host";
    let looked = residue(&[]).map_err(|error| error.to_string());
    match looked.and_then(|now| Ok((now, disks(dir).map_err(|error| error.to_string())?))) {
        Ok((now, disks)) => {
            let mut left = now.since(before);
            left.retain(|name| name.contains(ours));
            left.extend(disks);
            let text = if left.is_empty() {
                "no group, mount, loop device, namespace or process has this series' name, no disk is in its folder"
                    .to_owned()
            } else {
                left.join("; ")
            };
            Check::seen(name, left.is_empty(), text)
        }
        Err(error) => Check::unknown(name, error),
    }
}

/// Images and mount points of disks that are in the folder of the series.
fn disks(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".img") || name.ends_with(".mnt") {
            found.push(format!("file {name}"));
        }
    }
    Ok(found)
}

/// Faults by the subject that they are done to: those on disks of their own and of a second process apart, those of a
/// subject's start with a subject for each trial, and those that end a process last.
fn grouped(scenario: &Scenario, injections: u32) -> Vec<Vec<Fault>> {
    let mut groups: Vec<Vec<Fault>> = vec![Vec::new(); 4];
    for fault in &scenario.faults {
        match &fault.act {
            act if act.is_of_the_start() => {
                groups.extend((0..injections).map(|_| vec![fault.clone()]));
            }
            act if act.needs_cable() => groups[2].push(fault.clone()),
            act if act.needs_peer() => groups[3].push(fault.clone()),
            act => groups[usize::from(act.needs_disk())].push(fault.clone()),
        }
    }
    for group in &mut groups {
        group.sort_by_key(|fault| fault.act.restarts());
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Who performs a group of faults on one subject.
struct Cast<'c, 'a> {
    setting: &'a Setting<'a>,
    journal: &'c mut Journal,
    record: &'c mut ScenarioRecord,
    say: &'c mut dyn FnMut(&str),
}

impl<'a> Cast<'_, 'a> {
    fn perform(&mut self, faults: &[Fault]) {
        let (able, not): (Vec<_>, Vec<_>) = faults
            .iter()
            .map(|fault| (fault, act::ability(&fault.act, self.setting.host)))
            .partition(|(_, ability)| !matches!(ability, Ability::Impossible { .. }));
        let number = self.record.subjects.len();
        let mut done: Vec<FaultRecord> =
            not.into_iter().map(|(fault, ability)| untried(fault, ability)).collect();
        let mut subject = SubjectRecord {
            run: None,
            quiet: (0, 0),
            processes: 0,
            baseline: None,
            levels: None,
            checks: Vec::new(),
        };
        if !able.is_empty() {
            let mark = self.journal.mark();
            let tried = self.on_stage(&able, &mut done, &mut subject);
            if let Err(cause) = tried {
                (self.say)(&format!("no subject: {cause}"));
                for (fault, ability) in &able {
                    if done.iter().any(|of| of.fault == **fault) {
                        continue;
                    }
                    let ended = Some(format!("there was no subject: {cause}"));
                    done.push(FaultRecord { ended, ..untried(fault, ability.clone()) });
                }
                subject.checks.push(Check::unknown("the subject ran", cause));
            }
            let undone = self.journal.undo_since(mark);
            if !undone.clean() {
                subject.checks.push(Check::seen(
                    tailbeam_harness::chaos::checks::STAGE,
                    false,
                    undone.to_string().trim().replace('\n', "; "),
                ));
            }
        }
        self.record.subjects.push(subject);
        // In the order of the scenario.
        done.sort_by_key(|of| faults.iter().position(|fault| *fault == of.fault));
        self.record.faults.extend(done.into_iter().map(|fault| (number, fault)));
    }

    /// The disk of a subject whose log has one of its own, made and mounted.
    fn disk(&mut self, wanted: bool) -> Result<Option<LoopDisk>, String> {
        if !wanted {
            return Ok(None);
        }
        let (host, groups) = (self.setting.host, self.setting.host.groups(""));
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let restarts = u64::from(self.setting.plan.injections);
        let disk = host.disk("-log", DISK + restarts * cores * DISK_PER_PROCESS);
        let on = On { host, groups: &groups, process: None, helper: None };
        let steps = Injector::LoopDisk { disk: disk.clone() }
            .steps(&on)
            .map_err(|gone| gone.cause.to_string())?;
        self.journal.perform_all(&steps).map_err(|error| error.to_string())?;
        Ok(Some(disk))
    }

    /// A stage for these faults with all but the subject on it; how far that one's clock is to be ahead, s.
    fn set(
        &mut self,
        able: &[(&Fault, Ability)],
        disk: Option<&LoopDisk>,
    ) -> Result<(Stage<'a>, Option<i64>), String> {
        let (setting, plan) = (self.setting, self.setting.plan);
        let groups = setting.host.groups("");
        self.journal.perform_all(&groups.steps()).map_err(|error| error.to_string())?;
        let home = match disk {
            Some(disk) => disk.dir.join("logs"),
            None => setting.store.join(format!(
                "logs-{}-{}",
                self.record.name,
                self.record.subjects.len()
            )),
        };
        // Of an earlier try of this scenario, which is run again from its begin: logs under another secret.
        let old = if disk.is_none() { fs::remove_dir_all(&home) } else { Ok(()) };
        match old {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("{}: {error}", home.display()));
            }
            _ => {}
        }
        fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        let mut stage = Stage::new(setting, groups, home, length_ns(plan, able))?;
        let offset_s = able.iter().find_map(|(fault, _)| match fault.act {
            Act::MonotonicOffset(offset_s) => Some(offset_s),
            _ => None,
        });
        stage.refused = able.iter().find_map(|(fault, _)| refused::of_the_start(&fault.act));
        (self.say)(&format!("a subject of {} agents", plan.agents));
        if able.iter().any(|(fault, _)| fault.act.needs_peer()) {
            let any = |needs: fn(&Act) -> bool| able.iter().any(|(fault, _)| needs(&fault.act));
            stage.start_peer(self.journal, any(Act::needs_cable), any(Act::needs_proxy))?;
        }
        Ok((stage, offset_s))
    }

    fn on_stage(
        &mut self,
        able: &[(&Fault, Ability)],
        done: &mut Vec<FaultRecord>,
        subject: &mut SubjectRecord,
    ) -> Result<(), String> {
        let (setting, plan) = (self.setting, self.setting.plan);
        let disk = self.disk(able.iter().any(|(fault, _)| fault.act.needs_disk()))?;
        let (mut stage, offset_s) = self.set(able, disk.as_ref())?;
        stage.start(self.journal, false, offset_s)?;
        setting.wait(plan.warm_ns);
        stage.opened = Some(checks::open(&stage));
        stage.peer.iter_mut().for_each(peer::Peer::look);
        let from = stage.now_ns() / plan.slot_ns;
        stage.held = checks::held_for(&stage, plan.baseline_ns + plan.settle_ns, |_| false);
        subject.levels = stage.held;
        stage.read(0);
        let to = stage.now_ns().saturating_sub(plan.settle_ns) / plan.slot_ns;
        let slots = usize::try_from(from).unwrap_or(0)..usize::try_from(to).unwrap_or(0);
        subject.quiet = (slots.start, slots.end);
        subject.baseline = Baseline::of(&stage.axis, slots);
        let mut scene = Scene {
            stage: &mut stage,
            journal: self.journal,
            baseline: subject.baseline,
            disk: disk.as_ref(),
        };
        // Faults of a start have a subject for each trial: their draws are those of that subject.
        let first = self.record.subjects.len() << 16;
        for (number, (fault, ability)) in able.iter().enumerate() {
            let mut record = untried(fault, ability.clone());
            let wanted = if fault.act.is_of_the_start() { 1 } else { plan.injections };
            for k in 0..wanted {
                let draw = scenario::drawn(plan.seed, (first + number) as u64, u64::from(k));
                match scene.run(fault, draw) {
                    Ok(mut trial) => {
                        let first = record.trials.first().and_then(|of: &Trial| of.levels.as_ref());
                        trial.levels = checks::held_after(scene.stage, first);
                        scene.judge_again(&mut trial);
                        (self.say)(&show::told(fault, k, wanted, &trial));
                        let back = trial
                            .recovery
                            .is_none_or(|found| found.from_revert.at_least_ns() < plan.patience_ns);
                        record.trials.push(trial);
                        // One that is started anew each time is as it was: what it promised can be asked of it all the same.
                        if !back && !fault.act.restarts() {
                            record.ended = Some(format!(
                                "not back after injection {}: no further ones",
                                k + 1
                            ));
                            break;
                        }
                    }
                    Err(cause) => {
                        (self.say)(&format!("{} {}/{wanted}: {cause}", fault.name, k + 1));
                        record.ended = Some(cause);
                        break;
                    }
                }
            }
            done.push(record);
        }
        checks::close(&mut stage, subject, done);
        // What was measured is kept before anything else can fail.
        kept::keep(&stage, &self.record.name, self.record.subjects.len())?;
        kept::take_away(&stage.home, subject, done)
    }
}

/// Longest time that a subject may be needed for, ns.
fn length_ns(plan: &ChaosPlan, able: &[(&Fault, Ability)]) -> u64 {
    let one = |fault: &Fault| {
        let hold_ns = fault.hold_ns.unwrap_or(plan.hold_ns);
        let looks_ns = checks::held_after_ns(plan);
        (hold_ns + plan.patience_ns + plan.settle_ns + looks_ns + 5 * SECOND)
            * u64::from(plan.injections)
    };
    let faults: u64 = able.iter().map(|(fault, _)| one(fault)).sum();
    plan.warm_ns + plan.baseline_ns + faults + 60 * SECOND
}

fn untried(fault: &Fault, ability: Ability) -> FaultRecord {
    FaultRecord {
        fault: fault.clone(),
        how: fault.act.how(),
        ability,
        trials: Vec::new(),
        ended: None,
        tail: None,
    }
}
