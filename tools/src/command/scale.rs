//! `scale`: a run per fleet, each its own process; the series is computed from the runs.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use signal_hook::consts::SIGTERM;
use tailbeam_harness::compare::scale::{Cost, Series, fleets, next, series, smallest};
use tailbeam_harness::compare::{SCALE_SCHEMA, VERSION};
use tailbeam_harness::drive::Control;
use tailbeam_harness::evidence::{Documents, Store, rfc3339};
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::AGENTS_MAX;
use tailbeam_harness::report::Measured;
use tailbeam_harness::report::latency::{self, Band, Question};
use tailbeam_probes::clock;

use super::chaos::subject_plan;
use super::child::Launcher;
use super::compare::{built, flags};
use super::{Outcome, Watch};
use crate::Failure;
use crate::args::ProgressMode;
use crate::compare_args::{PageFormat, ScaleArgs};
use crate::render::{json, pages};

/// Most runs that narrow down the capacity.
const REFINE_MAX: usize = 16;

/// What a series is computed from, besides the runs. Its own file in the store.
#[derive(Debug, Serialize, Deserialize)]
struct ScaleRecipe {
    version: u32,
    id: String,
    started: String,
    shared: Vec<String>,
    limit_ns: u64,
    /// Fleet and id of its run, or why there is none.
    runs: Vec<(u64, Measured<String>)>,
    /// Why its plan allows no smaller fleet than the first.
    #[serde(default)]
    none_below: Option<String>,
    stopped: bool,
}

pub(super) fn run(
    args: &ScaleArgs,
    workloads: &[&'static dyn AnyWorkload],
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.shared.schema {
        out.write_all(pages::SCALE_SCHEMA.as_bytes())?;
        return Ok(0);
    }
    if let Some(name) = &args.from {
        let store = Store::open_existing(root).map_err(|error| Failure::new(1, error))?;
        let recipe = read(&store, name)?;
        return show(&store, &recipe, args.shared.format, out);
    }
    check(args)?;
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let now_ns = clock::realtime_ns();
    let id =
        store.create_document(Documents::Scales, now_ns).map_err(|error| Failure::new(1, error))?;
    let default = workloads.first().map(|workload| workload.name()).unwrap_or_default();
    let workload = args.workload.as_deref().unwrap_or(default);
    let side = ["--workload".to_owned(), workload.to_owned()];
    let mut recipe = ScaleRecipe {
        version: VERSION,
        id,
        started: rfc3339(now_ns),
        shared: flags(&args.shared, None, args.shared.seed, &side),
        limit_ns: args.limit,
        runs: Vec::new(),
        none_below: None,
        stopped: false,
    };
    let refused = |agents| {
        let flags = flags(&args.shared, Some(agents), args.shared.seed, &side);
        // What is no matter of usage its run says.
        subject_plan(&flags, workloads).err().filter(|why| why.code == 2).map(|why| why.text)
    };
    let (from, none_below) = smallest(args.to, refused).map_err(|text| Failure::new(2, text))?;
    recipe.none_below = none_below;
    let code = measure((args, from), &store, &side, &mut recipe, err)?;
    let shown = show(&store, &recipe, args.shared.format, out)?;
    if args.shared.progress != ProgressMode::None {
        let _ = writeln!(err, "series: {}", recipe.id);
    }
    Ok(code.unwrap_or(shown))
}

fn unusable(cause: &str) -> Failure {
    Failure::new(
        2,
        format!(
            "the runs cannot be made\n  cause: {cause}\n  remedy: `tailbeam soak --help` shows the flags of a run"
        ),
    )
}

fn check(args: &ScaleArgs) -> Result<(), Failure> {
    let wrong = |what: String, cause: String| {
        Err(Failure::new(
            2,
            format!("{what}\n  cause: {cause}\n  remedy: `tailbeam scale --help` shows the flags"),
        ))
    };
    if !(2..=AGENTS_MAX).contains(&args.to) {
        return wrong(
            format!("--to is {}", args.to),
            format!("it must lie between 2 and {AGENTS_MAX}"),
        );
    }
    if args.points.is_some_and(|points| !(2..=64).contains(&points)) {
        return wrong("--points cannot be that".to_owned(), "2 to 64 fleets can be run".to_owned());
    }
    if args.refine > REFINE_MAX {
        return wrong(
            format!("--refine is {}", args.refine),
            format!("at most {REFINE_MAX} runs narrow it down"),
        );
    }
    Ok(())
}

/// Runs the fleets, then those that narrow down where it stops to keep up.
fn measure(
    (args, from): (&ScaleArgs, u64),
    store: &Store,
    side: &[String],
    recipe: &mut ScaleRecipe,
    err: &mut dyn Write,
) -> Result<Option<u8>, Failure> {
    let control = Control::default();
    let signals = Watch::start(&control)?;
    let launcher =
        Launcher::new(store.root(), &control, args.shared.duration).map_err(|cause| {
            Failure::new(
                1,
                format!("cannot find this program\n  cause: {cause}\n  remedy: none known"),
            )
        })?;
    let quiet = args.shared.progress == ProgressMode::None;
    let mut one = |agents: u64, recipe: &mut ScaleRecipe| -> Result<(), Failure> {
        let ran = launcher.run(None, &flags(&args.shared, Some(agents), args.shared.seed, side));
        let text = match &ran.run {
            Measured::Known(id) => match cost_of(store, &ran.run) {
                Measured::Known(cost) => format!("{id}  {}", pages::brief(&cost.figures)),
                Measured::Unknown { unknown, .. } => format!("{id}  unknown: {unknown}"),
            },
            Measured::Unknown { unknown, .. } => format!("unknown: {unknown}"),
        };
        if !quiet {
            // Progress is nobody's result.
            let _ = writeln!(err, "{agents:>9} agents  {text}");
        }
        if let (true, Measured::Unknown { unknown, .. }) = (ran.usage, &ran.run) {
            return Err(unusable(unknown));
        }
        recipe.runs.push((agents, ran.run));
        save(store, recipe)?;
        let until_ns = clock::monotonic_ns().saturating_add(args.shared.cool_down);
        while !control.stop.load(Ordering::Relaxed) && clock::monotonic_ns() < until_ns {
            thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    };
    let stopping = || control.stop.load(Ordering::Relaxed);
    for agents in fleets(from, args.to, args.points) {
        if !stopping() {
            one(agents, recipe)?;
        }
    }
    for _ in 0..args.refine {
        let Some(agents) = next(computed(store, recipe).capacity).filter(|_| !stopping()) else {
            break;
        };
        one(agents, recipe)?;
    }
    recipe.stopped = stopping();
    save(store, recipe)?;
    let signal = signals.end();
    Ok(recipe.stopped.then_some(if signal == SIGTERM { 143 } else { 130 }))
}

fn cost_of(store: &Store, run: &Measured<String>) -> Measured<Cost> {
    match run {
        Measured::Known(id) => built(store, id).map_or_else(
            |cause| Measured::unknown(cause, "restore the run, or run the series again"),
            |report| Measured::Known(Cost::of(&report, &bands_of(store, id))),
        ),
        Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
    }
}

/// Where the time of a run's requests went, by how slow they were; nothing when that was not recorded.
fn bands_of(store: &Store, id: &str) -> Vec<Band> {
    let question = Question { outliers: 0, ..Question::default() };
    let report = store.resolve(id).ok().and_then(|dir| latency::build(&dir, &question).ok());
    report.map_or_else(Vec::new, |report| report.bands)
}

fn computed(store: &Store, recipe: &ScaleRecipe) -> Series {
    let points = recipe.runs.iter().map(|(agents, run)| (*agents, cost_of(store, run))).collect();
    let identity = (recipe.id.clone(), recipe.started.clone());
    let none_below = recipe.none_below.clone();
    let series = series(identity, recipe.shared.clone(), recipe.limit_ns, points, recipe.stopped);
    Series { none_below, ..series }
}

fn save(store: &Store, recipe: &ScaleRecipe) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(recipe).map_err(|error| Failure::new(1, error))?;
    let written = store.write_document(Documents::Scales, &recipe.id, &bytes);
    written.map(drop).map_err(|error| Failure::new(1, error))
}

fn read(store: &Store, name: &str) -> Result<ScaleRecipe, Failure> {
    let bytes =
        store.read_document(Documents::Scales, name).map_err(|error| Failure::new(1, error))?;
    let damaged = |cause: String| {
        Failure::new(
            6,
            format!(
                "the series {name} cannot be read\n  cause: {cause}\n  remedy: restore it from a copy; its runs are untouched"
            ),
        )
    };
    let recipe: ScaleRecipe =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if recipe.version == VERSION {
        Ok(recipe)
    } else {
        Err(damaged(format!("version {} is not known to this program", recipe.version)))
    }
}

/// Exit 0 when every fleet could run, 4 when one is unknown.
fn show(store: &Store, recipe: &ScaleRecipe, format: PageFormat, out: &mut dyn Write) -> Outcome {
    let series = computed(store, recipe);
    match format {
        PageFormat::Json => json::document_of((SCALE_SCHEMA, VERSION), &series, out)?,
        PageFormat::Table => pages::text(&pages::series(&series), out)?,
        PageFormat::Md => pages::markdown(&pages::series(&series), out)?,
        PageFormat::Html => {
            let document = json::value_of((SCALE_SCHEMA, VERSION), &series)?;
            pages::html(&pages::series(&series), &document, out)?;
        }
    }
    let all =
        !series.points.is_empty() && series.points.iter().all(|point| point.cost.known().is_some());
    Ok(if all { 0 } else { 4 })
}
