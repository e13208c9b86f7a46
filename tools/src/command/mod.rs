//! One function per command; values in, exit code out.

mod attack;
mod certify;
mod chaos;
mod child;
mod compare;
mod demo;
mod doctor;
mod facts;
mod heap_run;
mod how;
mod latency;
mod leaks;
mod program;
mod record;
mod report;
mod resume;
mod runs;
mod scale;
mod second;
mod setup;
mod systemd;
mod target;
mod top;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;
use tailbeam_harness::drive::{Control, DriveError, DriveErrorKind, Progress};
use tailbeam_harness::evidence::Store;
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::{HeapPlan, Kind, Plan, ProtocolPlan};
use tailbeam_harness::verdict::{Gate, Overall, parse_gates};

use crate::args::{Cli, Command, Format, ProgressMode, ReportFormat, Soak, SoakArgs};
use crate::progress::Shown;
use crate::{Failure, presets, render, scenario};
use how::How;

type Outcome = Result<u8, Failure>;

pub(crate) fn run(
    cli: Cli,
    workloads: &[&'static dyn AnyWorkload],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    let given = cli.store.is_some();
    let root = store_root(cli.store);
    match cli.command {
        Command::Demo(args) => demo::run(&args, workloads, (&root, given), out, err),
        Command::Soak(args) => soak((&args, &cli.words), workloads, &root, out, err),
        Command::Attack(args) => attack::run(&args, &root, out, err),
        Command::Record(args) => record::run(&args, &root, err),
        Command::Report(args) => report::run(&args, &root, out, err),
        Command::Leaks(args) => leaks::leaks(&args, &root, out),
        Command::Latency(args) => latency::run(&args, &root, out),
        Command::Counters(args) => latency::counters(&args, &root, out),
        Command::Export(args) if args.to.is_latency() => latency::export(&args, &root, out, err),
        Command::Export(args) => leaks::export(&args, &root, out, err),
        Command::Chaos(args) => chaos::run(&args, workloads, &root, out, err),
        Command::ChaosGuard(args) => chaos::guard(&args.journal),
        Command::ChaosHelper(args) => chaos::helper(&args.words),
        Command::Second => second::run(out),
        Command::Compare(args) => compare::run(&args, workloads, &root, out, err),
        Command::Scale(args) => scale::run(&args, workloads, &root, out, err),
        Command::Certify(args) => certify::certify(&args, &root, out),
        Command::Verify(args) => certify::verify(&args, &root, out),
        Command::Presets => list_presets(out),
        Command::Runs(args) => runs::run(args.command, &root, out),
        Command::Top(args) => top::run(&args, &root, out),
        Command::Doctor(args) => doctor::run(&args, &root, out),
        Command::Config(args) => setup::config(&args.command, (&cli.settings, &cli.files), out),
        Command::Completions { shell } => setup::completions(shell, out),
        Command::Man { dir } => setup::man(&dir, out),
    }
}

/// `--store`, else the user's data directory, else one beside the work.
fn store_root(given: Option<PathBuf>) -> PathBuf {
    let data =
        || std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    given
        .or_else(|| data().or_else(home).map(|dir| dir.join("tailbeam")))
        .unwrap_or_else(|| PathBuf::from(".tailbeam"))
}

fn gates(given: &[String]) -> Result<Option<Vec<Gate>>, Failure> {
    if given.is_empty() {
        return Ok(None);
    }
    parse_gates(&given.join(",")).map(Some).map_err(|error| Failure::new(2, error))
}

fn plan(args: &Soak, workload: &dyn AnyWorkload) -> Result<Plan, Failure> {
    let mut plan = Plan::soak(workload.name());
    plan.agents = args.agents;
    plan.cores.clone_from(&args.cores.0);
    plan.duration_ns = args.duration;
    plan.think = args.think;
    plan.kinds = args.kinds.as_ref().map_or_else(Vec::new, |kinds| kinds.0.clone());
    let delay = || args.delay.unwrap_or_else(|| workload.default_delay());
    plan.delay = Kind::hull(&plan.kinds).unwrap_or_else(delay);
    plan.timeout_ns = args.timeout;
    plan.open_max = args.open_max;
    plan.pending_max = args.pending_max;
    plan.seed = args.seed;
    plan.observe.cost = args.own_cost.into();
    plan.observe.saturate_ns = args.saturate.unwrap_or(0);
    plan.heap = HeapPlan {
        sample_bytes: args.heap_sample,
        warm_up_ns: args.warm_up,
        horizon_ns: args.horizon,
    };
    plan.shape = args.protocol.shape();
    plan.protocol = args.protocol.plan();
    fits(&plan, workload)?;
    plan.slow.clone_from(&args.plant_slow);
    plan.plants = [args.plant_leak.as_slice(), &args.plant_decoy].concat();
    if let Some(gates) = gates(&args.gate)? {
        plan.gates = gates;
    }
    plan.check().map_err(|error| Failure::new(2, error))?;
    Ok(plan)
}

/// Refuses what the workload would ignore.
fn fits(plan: &Plan, workload: &dyn AnyWorkload) -> Result<(), Failure> {
    if plan.protocol == ProtocolPlan::default() || workload.has_log() {
        return Ok(());
    }
    let name = workload.name();
    Err(Failure::new(
        2,
        format!(
            "workload {name} has no event log, limits, sizes or polling\n  cause: it is asked and answers, and nothing else\n  remedy: leave these flags out, or name --workload elicitation or wait_for_messages"
        ),
    ))
}

fn list_presets(out: &mut dyn Write) -> Outcome {
    for preset in &presets::PRESETS {
        writeln!(out, "{:<11} {}\n            {}", preset.name, preset.about, preset.flags)?;
    }
    Ok(0)
}

/// Says what a preset stands for; refuses one that is not known.
fn say_preset(args: &Soak, err: &mut dyn Write) -> Result<(), Failure> {
    let Some(name) = args.protocol.preset.as_deref() else { return Ok(()) };
    let preset = presets::find(name).ok_or_else(|| {
        let text = "no preset of this name\n  cause: there are";
        Failure::new(
            2,
            format!(
                "{name:?}: {text} {}\n  remedy: name one of them; `tailbeam presets` shows them",
                presets::names()
            ),
        )
    })?;
    if args.progress != ProgressMode::None {
        let _ = writeln!(err, "preset {name}: {}", preset.flags);
    }
    Ok(())
}

fn soak(
    (args, words): (&SoakArgs, &[OsString]),
    workloads: &[&'static dyn AnyWorkload],
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.scenario_schema {
        let cli = <Cli as clap::CommandFactory>::command();
        let schema = scenario::schema(cli.find_subcommand("soak").expect("a command of ours"));
        serde_json::to_writer_pretty(&mut *out, &schema).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(0);
    }
    let timeout = args.resume.is_none().then_some(args.soak.timeout);
    let asked = args.print_systemd_run.then_some((words, timeout));
    if let Some(run) = &args.resume {
        return match asked {
            Some(asked) => systemd::print(asked, root, out),
            None => resume::run(run, &args.soak, (workloads, root), out, err),
        };
    }
    let args = &args.soak;
    say_preset(args, err)?;
    let names = || workloads.iter().map(|w| w.name()).collect::<Vec<_>>().join(", ");
    let wanted = args.workload.as_deref();
    let workload = workloads.iter().find(|w| wanted.is_none_or(|name| w.name() == name)).ok_or_else(|| {
        let name = wanted.unwrap_or_default();
        Failure::new(2, format!("no workload {name:?}\n  cause: this program has {}\n  remedy: name one of them", names()))
    })?;
    let plan = plan(args, *workload)?;
    if let Some(asked) = asked {
        return systemd::print(asked, root, out);
    }
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let ran = drive(&plan, *workload, &store, How::of(args, err)?, err)?;
    told(&ran, args, out, err)
}

/// Prints the report of a run that has ended, and where it is.
fn told(ran: &Ran, args: &Soak, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
    let verdict = printed(&ran.dir, args.format, out)?;
    if args.progress != ProgressMode::None {
        let _ = writeln!(err, "run: {}", ran.dir.display());
    }
    Ok(ran.exit_code().unwrap_or_else(|| verdict.exit_code()))
}

/// A run that has ended.
struct Ran {
    dir: PathBuf,
    /// The signal that ended it, or 0.
    signal: i32,
}

impl Ran {
    /// That of the signal that ended it.
    const fn exit_code(&self) -> Option<u8> {
        match self.signal {
            SIGINT => Some(130),
            SIGTERM => Some(143),
            _ => None,
        }
    }
}

/// Runs a plan to its end, or to a signal; a server shows its sums meanwhile.
fn drive(
    plan: &Plan,
    workload: &dyn AnyWorkload,
    store: &Store,
    how: How,
    err: &mut dyn Write,
) -> Result<Ran, Failure> {
    watched(how, err, |control, shown| workload.run(plan, store, control, shown))
}

/// Runs something to its end, or to a signal.
fn watched(
    how: How,
    err: &mut dyn Write,
    run: impl FnOnce(&Control, &mut dyn FnMut(&Progress)) -> Result<PathBuf, DriveError>,
) -> Result<Ran, Failure> {
    let How { progress, server, board, log_home, second } = how;
    let totals = server.as_ref().map(|server| server.totals.clone());
    let control = Control { totals, board, log_home, second, ..Control::default() };
    let signals = Watch::start(&control)?;
    let terminal = std::io::stderr().is_terminal();
    let mut shown = Shown::new(progress, terminal);
    let ran = run(&control, &mut |progress| shown.show(progress, err));
    shown.end();
    let signal = signals.end();
    Ok(Ran { dir: ran.map_err(not_run)?, signal })
}

/// A run that could not be made, with the exit code that fits.
fn not_run(error: DriveError) -> Failure {
    let code = match error.kind() {
        DriveErrorKind::Usage => 2,
        DriveErrorKind::HostNotReady => 5,
        DriveErrorKind::Failed => 1,
        DriveErrorKind::Damaged => 6,
    };
    Failure::new(code, error)
}

/// Prints the report of a run that has just ended; what `report` prints of it later is the same.
fn printed(dir: &Path, format: Format, out: &mut dyn Write) -> Result<Overall, Failure> {
    match format {
        Format::Table => {
            let report = report::built(dir, None, &[])?;
            render::text::report(&report, out)?;
            Ok(report.verdict)
        }
        Format::Json => {
            let (whole, verdict) = report::whole(dir, None, &[])?;
            report::document(&whole, ReportFormat::Json, out)?;
            Ok(verdict)
        }
    }
}

/// Whether no run lasts: then a signal ends the program, which may be held by whoever reads its report. Once a
/// signal has had a handler, nothing else would.
fn idle() -> std::io::Result<&'static Arc<AtomicBool>> {
    static IDLE: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(idle) = IDLE.get() {
        return Ok(idle);
    }
    let idle = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, 128 + signal, Arc::clone(&idle))?;
    }
    Ok(IDLE.get_or_init(|| idle))
}

/// Turns signals into the control's flags while a run lasts.
struct Watch {
    handle: signal_hook::iterator::Handle,
    thread: thread::JoinHandle<()>,
    last: Arc<AtomicUsize>,
}

impl Watch {
    fn start(control: &Control) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(1, format!("cannot watch signals\n  cause: {error}\n  remedy: none known"))
        };
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGCONT, SIGHUP]).map_err(failed)?;
        idle().map_err(failed)?.store(false, Ordering::Relaxed);
        let (handle, last) = (signals.handle(), Arc::new(AtomicUsize::new(0)));
        let (stop, hurry) = (Arc::clone(&control.stop), Arc::clone(&control.hurry));
        let (continued, seen) = (Arc::clone(&control.continued), Arc::clone(&last));
        let watch = move || {
            for signal in signals.forever() {
                if signal == SIGCONT {
                    continued.fetch_add(1, Ordering::Relaxed);
                } else if signal != SIGHUP {
                    // A terminal that hangs up takes no run of days along.
                    seen.store(usize::try_from(signal).unwrap_or(0), Ordering::Relaxed);
                    // The first ends the load, the second the drain as well.
                    hurry.store(stop.swap(true, Ordering::Relaxed), Ordering::Relaxed);
                }
            }
        };
        let thread =
            thread::Builder::new().name("signals".to_owned()).spawn(watch).map_err(failed)?;
        Ok(Self { handle, thread, last })
    }

    /// Stops watching; returns the signal that ended the run, or 0.
    fn end(self) -> i32 {
        self.handle.close();
        // The thread only sets flags and cannot panic.
        let _ = self.thread.join();
        if let Ok(idle) = idle() {
            idle.store(true, Ordering::Relaxed);
        }
        i32::try_from(self.last.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
