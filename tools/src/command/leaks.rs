//! `leaks`: which sites leak, whose objects, how fast; and `export`, the same heap for other tools.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use serde_json::Value;
use tailbeam_harness::plan::Plan as RunPlan;
use tailbeam_harness::report::leak_config;
use tailbeam_probes::analyse::leak::{self, LeakConfig, LeakReport, Plan, Soak, Verdict};
use tailbeam_probes::analyse::profile::{Frames, HeapProfile};
use tailbeam_probes::analyse::symbols::{Symbols, symbolise};
use tailbeam_probes::collect::room;

use super::Outcome;
use super::heap_run::{HeapRun, load};
use crate::Failure;
use crate::args::{ExportArgs, ExportFormat, FailOn, Format, LeaksArgs, LeaksView, SymbolArgs};
use crate::render::export::{self, Export, firefox, folded, pprof};
use crate::render::leaks::{self, By, ByReport, Leaks, Page, json, plan};

/// A heap with its names and its verdict.
struct Heap {
    run: HeapRun,
    symbols: Symbols,
    profile: HeapProfile,
    report: LeakReport,
}

impl Heap {
    fn load(
        root: &Path,
        name: &str,
        how: &SymbolArgs,
        config: &LeakConfig,
    ) -> Result<Self, Failure> {
        let run = load(root, name, how.pid)?;
        let extra: Vec<String> = how.symbols.iter().map(|dir| dir.display().to_string()).collect();
        let symbols = symbolise(&run.snapshot, &extra, &|path| fs::read(path));
        let frames = if how.all_frames { Frames::All } else { Frames::Program };
        let profile = HeapProfile::of(&run.snapshot, &symbols, frames);
        let report = leak::analyse(&run.snapshot, config);
        Ok(Self { run, symbols, profile, report })
    }

    fn view<'a>(&'a self, base: Option<&'a Self>) -> Leaks<'a> {
        Leaks {
            run: &self.run.name,
            snapshot: &self.run.snapshot,
            symbols: &self.symbols,
            profile: &self.profile,
            report: &self.report,
            others: &self.run.others,
            waits: self.run.waits.as_ref(),
            base: base.map(|base| (&*base.run.name, &base.profile)),
            available_bytes: room::memory_bytes().ok(),
        }
    }
}

/// The heap of the run in `dir` for its report: the worst sites and the largest rows of the leak document.
///
/// # Errors
/// As `leaks`.
pub(super) fn summary(dir: &Path, run: &str, config: &LeakConfig) -> Result<Value, Failure> {
    let how = SymbolArgs { symbols: Vec::new(), all_frames: false, pid: None };
    let mut heap = Heap::load(dir, &dir.to_string_lossy(), &how, config)?;
    // By the id that the frames name: the directory may be called anything.
    run.clone_into(&mut heap.run.name);
    Ok(json::summary(&heap.view(None)))
}

/// What the plan of a soak declares, unless the command line says otherwise.
fn config(args: &LeaksArgs, plan: Option<&RunPlan>) -> LeakConfig {
    let below = LeakConfig::default().limit;
    let mut config = plan.map_or_else(LeakConfig::default, |plan| leak_config(plan, below));
    if let Some(warm_up) = args.warm_up {
        config.warm_up_ns = warm_up;
    }
    if let Some(horizon) = args.horizon {
        config.horizon_ns = horizon;
    }
    if let Some(limit) = args.limit {
        config.limit = limit;
        config.floor = limit / 2.0;
    }
    config.owners = args.agents.or(config.owners);
    config
}

/// Runs `leaks`.
pub(super) fn leaks(args: &LeaksArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    if args.schema {
        let schema = if args.plan.is_some() { plan::PLAN_SCHEMA } else { json::LEAKS_SCHEMA };
        out.write_all(schema.as_bytes())?;
        return Ok(0);
    }
    let name = args.run.as_deref().unwrap_or("@last");
    if let Some(rate) = args.plan {
        return planned(rate, args, root, &config(args, None), out);
    }
    let config = config(args, super::heap_run::plan(root, name).as_ref());
    let heap = Heap::load(root, name, &args.how, &config)?;
    let base = match &args.base {
        Some(base) => Some(Heap::load(root, base, &args.how, &config)?),
        None => None,
    };
    let leaks = heap.view(base.as_ref());
    let by = args.by.map_or(By::Site, By::from);
    let page = Page { width: width(), top: args.top, calls: args.calls };
    let view = args.view.unwrap_or(match (args.by, &args.base) {
        (Some(_), _) => LeaksView::Table,
        (None, Some(_)) => LeaksView::Diff,
        (None, None) => LeaksView::List,
    });
    if view == LeaksView::Diff && base.is_none() {
        return Err(Failure::new(
            2,
            "a difference needs something to compare with\n  cause: --view diff without --base\n  remedy: add --base RUN, or --base RUN@2h where states were kept",
        ));
    }
    match (args.format, view) {
        (Format::Json, view) => json::write(&leaks, by, view == LeaksView::Objects, out)?,
        (Format::Table, LeaksView::List) => leaks::list(&leaks, page, out)?,
        (Format::Table, LeaksView::Table) => leaks::table(&leaks, by, page, out)?,
        (Format::Table, LeaksView::Tree) => leaks::tree(&leaks, page, out)?,
        (Format::Table, LeaksView::Objects) => leaks::objects(&leaks, page, out)?,
        (Format::Table, LeaksView::Diff) => leaks::diff(&leaks, page, out)?,
    }
    Ok(exit_code(args.fail_on, heap.report.verdict))
}

/// `--plan`: hours by mean distance between samples; a run gives its own mean and number of sites.
fn planned(
    rate: f64,
    args: &LeaksArgs,
    root: &Path,
    config: &LeakConfig,
    out: &mut dyn Write,
) -> Outcome {
    let mut means: Vec<f64> = (14..20).map(|bits| f64::from(1u32 << bits)).collect();
    let mut sites = None;
    if let Some(name) = &args.run {
        let run = load(root, name, args.how.pid)?;
        means = vec![run.snapshot.sampler.mean_bytes.max(1) as f64];
        sites = Some(run.snapshot.sites.len() as u64);
    }
    if let Some(mean) = args.mean {
        means = vec![mean];
    }
    let plans: Vec<(Soak, Plan)> = means
        .into_iter()
        .map(|mean| {
            let usual = Soak::of(rate, mean);
            let soak = Soak {
                churn_bytes: args.churn,
                churn_life_s: args.churn_life as f64 / 1e9,
                sites: sites.unwrap_or(usual.sites),
                ..usual
            };
            (soak, leak::plan(&soak, config))
        })
        .collect();
    match args.format {
        Format::Table => plan::text(&plans, config, out)?,
        Format::Json => plan::json(&plans, config, out)?,
    }
    Ok(0)
}

/// 3 for what was asked to fail, 4 when that cannot be said yet.
const fn exit_code(fail_on: Option<FailOn>, verdict: Verdict) -> u8 {
    match (fail_on, verdict) {
        (None, _) | (_, Verdict::Clean) => 0,
        (Some(_), Verdict::Leak) | (Some(FailOn::Suspect), Verdict::Suspect) => 3,
        (Some(_), Verdict::Suspect | Verdict::Inconclusive) => 4,
    }
}

/// Columns of the terminal that stdout is, if it is one.
fn width() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns >= 40)
}

/// Runs `export`.
pub(super) fn export(
    args: &ExportArgs,
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.to == ExportFormat::Firefox && args.base.is_some() {
        return Err(Failure::new(
            2,
            "a Firefox profile has no base\n  cause: its allocations are single objects\n  remedy: export both runs, or use --to pprof --base",
        ));
    }
    if let Some(dir) = super::program::place(args, root) {
        return deliver(args, out, err, |out| super::program::export(args, &dir, out));
    }
    deliver(args, out, err, |out| heap(args, root, out))
}

/// Writes what `produce` makes to stdout or into the file that was named.
pub(super) fn deliver(
    args: &ExportArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
) -> Outcome {
    // Whole before the first byte is written: a run that cannot be read leaves no file.
    let mut bytes = Vec::new();
    match args.output.as_deref().filter(|path| *path != Path::new("-")) {
        None => {
            let stdout = io::stdout();
            if args.to.is_binary() && stdout.is_terminal() {
                let name = args.to.name();
                return Err(Failure::new(
                    2,
                    format!(
                        "a {name} file is not text\n  cause: stdout is a terminal\n  remedy: name a file with -o FILE, or pipe it"
                    ),
                ));
            }
            produce(&mut bytes)?;
            out.write_all(&bytes)?;
        }
        Some(path) => {
            let failed = |error: io::Error| {
                let path = path.display();
                Failure::new(
                    1,
                    format!(
                        "cannot write {path}\n  cause: {error}\n  remedy: name a file in a writable directory"
                    ),
                )
            };
            produce(&mut bytes)?;
            fs::write(path, &bytes).map_err(failed)?;
            let _ = writeln!(err, "{}: {}", args.to.name(), path.display());
        }
    }
    Ok(0)
}

/// Writes the heap.
fn heap(args: &ExportArgs, root: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let config = LeakConfig::default();
    let heap = Heap::load(root, &args.run, &args.how, &config)?;
    let base = match &args.base {
        Some(base) => Some(Heap::load(root, base, &args.how, &config)?),
        None => None,
    };
    let leaks = heap.view(base.as_ref());
    let mut comments = vec![
        format!("tailbeam {}", env!("CARGO_PKG_VERSION")),
        format!("command {}", heap.run.snapshot.command),
        leaks.sampling(),
        format!(
            "{} inner frames of allocators and libraries are left out",
            heap.profile.hidden_frames
        ),
    ];
    comments.extend(leaks.caveats());
    let profile = match &base {
        Some(base) => heap.profile.clone().less(&base.profile),
        None => heap.profile.clone(),
    };
    let what = Export {
        run: &heap.run.name,
        snapshot: &heap.run.snapshot,
        profile: &profile,
        base: base.as_ref().map(|base| &*base.run.name),
        verdicts: &ByReport(&heap.report),
        comments: &comments,
    };
    write(args, &what, out)?;
    Ok(())
}

fn write(args: &ExportArgs, what: &Export<'_>, out: &mut dyn Write) -> io::Result<()> {
    match args.to {
        ExportFormat::Pprof => pprof::write(what, out),
        ExportFormat::Folded => folded::write(what, args.metric.into(), out),
        ExportFormat::Firefox if gz(args) => export::gzipped(out, |out| firefox::write(what, out)),
        ExportFormat::Firefox => firefox::write(what, out),
        ExportFormat::Timeline
        | ExportFormat::Hlog
        | ExportFormat::Openmetrics
        | ExportFormat::Csv
        | ExportFormat::Jsonl
        | ExportFormat::Parquet
        | ExportFormat::Hgrm
        | ExportFormat::Junit => {
            unreachable!("these are of latency")
        }
    }
}

/// Whether the file's name asks for gzip.
pub(super) fn gz(args: &ExportArgs) -> bool {
    args.output.as_ref().is_some_and(|path| path.extension() == Some("gz".as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_says_yes_no_or_not_yet() {
        use Verdict::{Clean, Inconclusive, Leak, Suspect};
        let codes = |fail_on| [Leak, Suspect, Inconclusive, Clean].map(|v| exit_code(fail_on, v));
        assert_eq!(codes(None), [0, 0, 0, 0]);
        assert_eq!(codes(Some(FailOn::Leak)), [3, 4, 4, 0]);
        assert_eq!(codes(Some(FailOn::Suspect)), [3, 3, 4, 0]);
    }
}
