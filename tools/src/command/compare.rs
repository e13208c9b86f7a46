//! `compare`: runs the blocks of a design, keeps the recipe, and computes the comparison from the runs.

mod sweep;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGTERM;
use tailbeam_harness::compare::design::PAIRS_MAX;
use tailbeam_harness::compare::{
    Comparison, Recipe, Role, Rules, RunFigures, SCHEMA, Side, Sources, Trial, TrialRun, VERSION,
    compare, design, differences,
};
use tailbeam_harness::drive::Control;
use tailbeam_harness::evidence::{Documents, Store, read_run, rfc3339};
use tailbeam_harness::load::{AnyWorkload, Series};
use tailbeam_harness::report::{self, Measured};
use tailbeam_probes::clock;
use tailbeam_probes::stats::Histogram;

use super::child::{Launcher, merged};
use super::{Outcome, Watch};
use crate::Failure;
use crate::args::ProgressMode;
use crate::compare_args::{CompareArgs, PageFormat, Shared};
use crate::render::{json, pages};

pub(super) fn run(
    args: &CompareArgs,
    workloads: &[&'static dyn AnyWorkload],
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.shared.schema {
        out.write_all(pages::COMPARE_SCHEMA.as_bytes())?;
        return Ok(0);
    }
    if let Some(name) = &args.from {
        let store = Store::open_existing(root).map_err(|error| Failure::new(1, error))?;
        let recipe = read(&store, name)?;
        return show(&store, &recipe, args.shared.format, out);
    }
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let (a, b) = sides(args, workloads, &store)?;
    let now_ns = clock::realtime_ns();
    let id = store
        .create_document(Documents::Comparisons, now_ns)
        .map_err(|error| Failure::new(1, error))?;
    let mut recipe = Recipe {
        version: VERSION,
        id,
        started: rfc3339(now_ns),
        a: a.side.clone(),
        b: b.side.clone(),
        shared: Vec::new(),
        design: None,
        rules: Rules { steal_max: args.steal_max, others_max: args.others_max },
        sweep: Vec::new(),
        chosen: None,
        unfit: Vec::new(),
        trials: Vec::new(),
        stopped: false,
    };
    let code = if let (Some(a), Some(b)) = (&a.stored, &b.stored) {
        recipe.trials = stored_trials(a, b)?;
        save(&store, &recipe)?;
        None
    } else {
        measure(args, (workloads, &store), &mut recipe, err)?
    };
    let shown = show(&store, &recipe, args.shared.format, out)?;
    if args.shared.progress != ProgressMode::None {
        let _ = writeln!(err, "comparison: {}", recipe.id);
    }
    Ok(code.unwrap_or(shown))
}

/// A side of the command line: how its runs are made, or the runs that are there.
struct Given {
    side: Side,
    stored: Option<Vec<String>>,
}

fn sides(
    args: &CompareArgs,
    workloads: &[&'static dyn AnyWorkload],
    store: &Store,
) -> Result<(Given, Given), Failure> {
    if args.pairs == 0 || args.pairs > PAIRS_MAX {
        let text = format!(
            "{} pairs\n  cause: 1 to {PAIRS_MAX} can be run\n  remedy: 6 is the fewest that a claim can rest on",
            args.pairs
        );
        return Err(Failure::new(2, text));
    }
    let builds = args.a_bin.is_some() || args.b_bin.is_some();
    let default = workloads.first().map(|workload| workload.name()).unwrap_or_default();
    let (a, b) = match (&args.a, &args.b) {
        (Some(a), Some(b)) => (a.as_str(), b.as_str()),
        (Some(both), None) if builds => (both.as_str(), both.as_str()),
        (None, None) if builds => (default, default),
        _ => {
            let text = "compare takes two sides\n  cause: A and B are needed, or two builds with --a-bin and --b-bin\n  remedy: tailbeam compare elicit ask";
            return Err(Failure::new(2, text));
        }
    };
    let given = |name: &str, args: &str, program: &Option<std::path::PathBuf>| {
        side(name, args, program.as_deref(), workloads, store)
    };
    let (a, b) = (given(a, &args.a_args, &args.a_bin)?, given(b, &args.b_args, &args.b_bin)?);
    if a.stored.is_some() != b.stored.is_some() {
        let text = "one side is stored and the other is not\n  cause: runs of another time are no pairs of these\n  remedy: give stored runs on both sides, or let both run";
        return Err(Failure::new(2, text));
    }
    Ok((a, b))
}

/// A workload, a scenario file, stored runs, or else a preset.
fn side(
    name: &str,
    flags: &str,
    program: Option<&Path>,
    workloads: &[&'static dyn AnyWorkload],
    store: &Store,
) -> Result<Given, Failure> {
    let flags = flags.split_whitespace().map(str::to_owned);
    let program = program.map(|path| path.display().to_string());
    let shown = |extra: &[String]| {
        let build = program.as_ref().map_or_else(String::new, |path| format!(" ({path})"));
        let extra = if extra.is_empty() { String::new() } else { format!(" {}", extra.join(" ")) };
        format!("{name}{extra}{build}")
    };
    let extra: Vec<String> = flags.collect();
    let given = |flag: &str| {
        let args = [flag.to_owned(), name.to_owned()].into_iter().chain(extra.clone()).collect();
        Given { side: Side { name: shown(&extra), args, program: program.clone() }, stored: None }
    };
    if workloads.iter().any(|workload| workload.name() == name) {
        return Ok(given("--workload"));
    }
    if name.ends_with(".toml") {
        return Ok(given("--scenario"));
    }
    let ids: Result<Vec<String>, _> = name.split(',').map(|run| id_of(store, run)).collect();
    match ids {
        Ok(ids) => Ok(Given {
            side: Side { name: name.to_owned(), args: Vec::new(), program: None },
            stored: Some(ids),
        }),
        Err(error)
            if name.contains(['@', ',']) || name.starts_with(|c: char| c.is_ascii_digit()) =>
        {
            Err(Failure::new(1, error))
        }
        Err(_) => Ok(given("--preset")),
    }
}

fn id_of(store: &Store, name: &str) -> Result<String, tailbeam_harness::evidence::StoreError> {
    let dir = store.resolve(name)?;
    Ok(dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Stored runs, paired in their order.
fn stored_trials(a: &[String], b: &[String]) -> Result<Vec<Trial>, Failure> {
    if a.len() != b.len() {
        let text = format!(
            "{} runs on side A and {} on side B\n  cause: they are paired in their order, and some would be in no figure\n  remedy: name as many on both sides",
            a.len(),
            b.len()
        );
        return Err(Failure::new(2, text));
    }
    let run = |role, id: &String| TrialRun {
        role,
        run: Measured::Known(id.clone()),
        steal: Measured::unknown("the run was stored before", "let compare make the runs"),
    };
    let pair = |(a, b): (&String, &String)| Trial {
        seed: 0,
        runs: vec![run(Role::A, a), run(Role::B, b)],
    };
    Ok(a.iter().zip(b).map(pair).collect())
}

/// What every run has: nothing is measured beside the requests, and nothing gated but what closes the sums.
fn defaults(shared: &Shared, agents: Option<u64>, seed: u64) -> Vec<(&'static str, String)> {
    let mut defaults = vec![
        ("--duration", format!("{}ms", shared.duration / 1_000_000)),
        ("--seed", seed.to_string()),
        ("--heap-sample", "off".to_owned()),
        ("--own-cost", "off".to_owned()),
        ("--gate", "p99<300ms,delivery>=99.9%,outcomes".to_owned()),
    ];
    if let Some(preset) = &shared.preset {
        defaults.insert(0, ("--preset", preset.clone()));
    }
    defaults.extend(agents.map(|agents| ("--agents", agents.to_string())));
    defaults
}

/// The flags of one run.
pub(super) fn flags(
    shared: &Shared,
    agents: Option<u64>,
    seed: u64,
    side: &[String],
) -> Vec<String> {
    let given: Vec<String> = shared.flags.iter().chain(side).cloned().collect();
    merged(&defaults(shared, agents, seed), &given)
}

/// Runs until there are as many pairs as were asked for; `Some` is the code of a signal that stopped it.
fn measure(
    args: &CompareArgs,
    (workloads, store): (&[&'static dyn AnyWorkload], &Store),
    recipe: &mut Recipe,
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
    let aa = args.aa.unwrap_or(args.pairs).min(args.pairs);
    recipe.shared = flags(&args.shared, args.agents, args.shared.seed, &[]);
    recipe.design = Some(design(args.shared.seed, args.pairs, aa));
    save(store, recipe)?;
    let mut session = Session {
        args,
        workloads,
        store,
        book: Book::new(store),
        launcher,
        quiet: args.shared.progress == ProgressMode::None,
    };
    session.say(err, &format!("comparison {}, orders by seed {}", recipe.id, args.shared.seed));
    let done = session.sweep(recipe, err).and_then(|()| session.blocks(recipe, err));
    recipe.stopped = control.stop.load(Ordering::Relaxed);
    save(store, recipe)?;
    let signal = signals.end();
    done?;
    Ok(recipe.stopped.then_some(if signal == SIGTERM { 143 } else { 130 }))
}

/// The runs of one comparison.
struct Session<'a> {
    args: &'a CompareArgs,
    workloads: &'a [&'static dyn AnyWorkload],
    store: &'a Store,
    book: Book<'a>,
    launcher: Launcher<'a>,
    quiet: bool,
}

impl Session<'_> {
    fn say(&self, err: &mut dyn Write, line: &str) {
        if !self.quiet {
            // Progress is nobody's result.
            let _ = writeln!(err, "{line}");
        }
    }

    fn stopping(&self) -> bool {
        self.launcher.control.stop.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        let until_ns = clock::monotonic_ns().saturating_add(self.args.shared.cool_down);
        while !self.stopping() && clock::monotonic_ns() < until_ns {
            thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// One run of a side; refuses a command line that `soak` refuses.
    fn one(
        &self,
        side: &Side,
        (seed, extra): (u64, &[String]),
        (what, err): (&str, &mut dyn Write),
    ) -> Result<(Measured<String>, Measured<f64>), Failure> {
        let own: Vec<String> = side.args.iter().chain(extra).cloned().collect();
        let flags = flags(&self.args.shared, self.args.agents, seed, &own);
        let ran = self.launcher.run(side.program.as_deref(), &flags);
        match &ran.run {
            Measured::Known(id) => {
                let text = self.book.figures(id).known().map_or_else(String::new, pages::brief);
                self.say(err, &format!("  {what}  {id}  {text}"));
            }
            Measured::Unknown { unknown, .. } => {
                self.say(err, &format!("  {what}  failed: {unknown}"));
                if ran.usage {
                    let text = format!(
                        "{what} cannot run\n  cause: {unknown}\n  remedy: `tailbeam soak --help` shows the flags of a run: {}",
                        flags.join(" ")
                    );
                    return Err(Failure::new(2, text));
                }
            }
        }
        self.rest();
        Ok((ran.run, ran.steal))
    }

    fn blocks(&mut self, recipe: &mut Recipe, err: &mut dyn Write) -> Result<(), Failure> {
        let Some(design) = recipe.design.clone() else { return Ok(()) };
        for (k, block) in design.blocks.iter().enumerate() {
            let had = self.book.pairs(recipe);
            if had >= design.pairs || self.stopping() {
                break;
            }
            let order: Vec<String> = block.order.iter().map(|role| format!("{role:?}")).collect();
            self.say(
                err,
                &format!(
                    "block {}  {had} of {} pairs  order {}  seed {}",
                    k + 1,
                    design.pairs,
                    order.join(" "),
                    block.seed
                ),
            );
            let mut trial = Trial { seed: block.seed, runs: Vec::new() };
            for &role in &block.order {
                if self.stopping() {
                    break;
                }
                let side = if role == Role::B { &recipe.b } else { &recipe.a };
                let what = format!("{role:?} {}", side.name);
                let (run, steal) = self.one(side, (block.seed, &[]), (&what, err))?;
                trial.runs.push(TrialRun { role, run, steal });
            }
            recipe.trials.push(trial);
            save(self.store, recipe)?;
        }
        Ok(())
    }
}

fn save(store: &Store, recipe: &Recipe) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(recipe).map_err(|error| Failure::new(1, error))?;
    store
        .write_document(Documents::Comparisons, &recipe.id, &bytes)
        .map(drop)
        .map_err(|error| Failure::new(1, error))
}

fn read(store: &Store, name: &str) -> Result<Recipe, Failure> {
    let bytes = store
        .read_document(Documents::Comparisons, name)
        .map_err(|error| Failure::new(1, error))?;
    let damaged = |cause: String| {
        Failure::new(
            6,
            format!(
                "the comparison {name} cannot be read\n  cause: {cause}\n  remedy: restore it from a copy; its runs are untouched"
            ),
        )
    };
    let recipe: Recipe =
        serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
    if recipe.version == VERSION {
        Ok(recipe)
    } else {
        Err(damaged(format!("version {} is not known to this program", recipe.version)))
    }
}

/// The figures of a stored run.
pub(super) fn figures_of(store: &Store, id: &str) -> Measured<RunFigures> {
    built(store, id).map_or_else(
        |cause| Measured::unknown(cause, "restore the run, or compare again"),
        |report| Measured::Known(RunFigures::of(&report)),
    )
}

/// The report of a stored run by its whole id.
pub(super) fn built(store: &Store, id: &str) -> Result<report::Report, String> {
    let dir = store.resolve(id).map_err(|error| first_line(&error.to_string()))?;
    report::build(&dir, Some(&[])).map_err(|error| first_line(&error.to_string()))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A histogram of a run: how long its messages waited for a look, or the latency of its requests.
fn histogram_of(store: &Store, id: &str, series: Series) -> Measured<Histogram> {
    let run = store
        .resolve(id)
        .map_err(|error| error.to_string())
        .and_then(|dir| read_run(&dir).map_err(|error| error.to_string()));
    match run {
        Ok(mut run) => Measured::Known(run.histograms.swap_remove(series as usize)),
        Err(cause) => Measured::unknown(first_line(&cause), "restore the run, or compare again"),
    }
}

/// The runs of a comparison as they are read, each once.
struct Book<'a> {
    store: &'a Store,
    known: RefCell<HashMap<String, Measured<RunFigures>>>,
}

impl<'a> Book<'a> {
    fn new(store: &'a Store) -> Self {
        Self { store, known: RefCell::default() }
    }

    fn figures(&self, id: &str) -> Measured<RunFigures> {
        let mut known = self.known.borrow_mut();
        known.entry(id.to_owned()).or_insert_with(|| figures_of(self.store, id)).clone()
    }

    /// The comparison, from the recipe and the runs in the store.
    fn compared(&self, recipe: &Recipe) -> Comparison {
        let figures = |id: &str| self.figures(id);
        let waits = |id: &str| histogram_of(self.store, id, Series::RequestPath);
        let latency = |id: &str| histogram_of(self.store, id, Series::System);
        let sources = Sources { figures: &figures, waits: &waits, latency: &latency };
        compare(recipe, differ(self.store, recipe), &sources)
    }

    /// Pairs that count so far.
    fn pairs(&self, recipe: &Recipe) -> usize {
        let figures = |id: &str| self.figures(id);
        let none = |_: &str| Measured::unknown("not asked for yet", "none is needed");
        let sources = Sources { figures: &figures, waits: &none, latency: &none };
        compare(recipe, Vec::new(), &sources).pairs.len()
    }
}

/// What differs between the first run of A and the first of B.
fn differ(store: &Store, recipe: &Recipe) -> Vec<tailbeam_harness::compare::Difference> {
    let first = |role| {
        let runs = recipe.trials.iter().flat_map(|trial| &trial.runs);
        let mut ids = runs.filter(|run| run.role == role).filter_map(|run| run.run.known());
        ids.find_map(|id| read_run(&store.resolve(id).ok()?).ok())
    };
    match (first(Role::A), first(Role::B)) {
        (Some(a), Some(b)) => differences((&a.plan, &a.manifest), (&b.plan, &b.manifest)),
        _ => Vec::new(),
    }
}

fn show(store: &Store, recipe: &Recipe, format: PageFormat, out: &mut dyn Write) -> Outcome {
    let comparison = Book::new(store).compared(recipe);
    match format {
        PageFormat::Json => json::document_of((SCHEMA, VERSION), &comparison, out)?,
        PageFormat::Table => pages::text(&pages::comparison(&comparison), out)?,
        PageFormat::Md => pages::markdown(&pages::comparison(&comparison), out)?,
        PageFormat::Html => {
            let document = json::value_of((SCHEMA, VERSION), &comparison)?;
            pages::html(&pages::comparison(&comparison), &document, out)?;
        }
    }
    Ok(comparison.verdict.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_runs_are_paired_in_their_order() {
        let ids = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let trials = stored_trials(&ids("a b"), &ids("x y")).map_err(|refused| refused.text);
        let second = trials.map(|trials| trials[1].runs[1].run.clone());
        assert_eq!(second, Ok(Measured::Known("y".to_owned())));
        let refused = stored_trials(&ids("a b c"), &ids("x y")).map(|trials| trials.len());
        assert!(refused.is_err_and(|refused| refused.text.contains("3 runs on side A and 2")));
    }
}
