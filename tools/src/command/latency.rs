//! `latency`: where the time of a run's requests went, and whether it adds up; `counters`: what each core
//! counted meanwhile.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tailbeam_harness::certify::junit_of_run;
use tailbeam_harness::evidence::{Interval, Intervals, Store};
use tailbeam_harness::report;
use tailbeam_harness::report::counters::{self, Slots};
use tailbeam_harness::report::latency::{self, Holds, LatencyError, Question, Range};

use super::Outcome;
use super::leaks::{deliver, gz};
use crate::Failure;
use crate::args::{
    CountersArgs, ExportArgs, ExportFormat, Format, LatencyArgs, LatencyBy, LatencyFailOn,
};
use crate::render::export::{gzipped, hgrm, hlog, openmetrics, rows, timeline};
use crate::render::latency as render;

/// Runs `latency`.
pub(super) fn run(args: &LatencyArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    if args.schema {
        out.write_all(render::LATENCY_SCHEMA.as_bytes())?;
        return Ok(0);
    }
    let dir = find(root, args.run.as_deref())?;
    let question = Question {
        from_ns: args.from.unwrap_or(0),
        to_ns: args.to.unwrap_or(u64::MAX),
        agent: args.agent,
        outliers: args.outliers.flatten().unwrap_or(20),
    };
    let report = latency::build(&dir, &question).map_err(failure)?;
    let listed = args.outliers.is_some() || args.agent.is_some();
    match (args.format, listed && args.by.is_none()) {
        (Format::Json, _) => render::json(&report, out)?,
        (Format::Table, true) => render::outliers(&report, out)?,
        (Format::Table, false) => {
            render::report(&report, args.by.unwrap_or(LatencyBy::Band).into(), out)?;
        }
    }
    Ok(match args.fail_on {
        Some(LatencyFailOn::Conservation) => exit_code(report.conservation.holds),
        None => 0,
    })
}

/// Runs `counters`.
pub(super) fn counters(args: &CountersArgs, root: &Path, out: &mut dyn Write) -> Outcome {
    if args.schema {
        out.write_all(render::counters::COUNTERS_SCHEMA.as_bytes())?;
        return Ok(0);
    }
    let dir = find(root, args.run.as_deref())?;
    let question = Question {
        from_ns: args.from.unwrap_or(0),
        to_ns: args.to.unwrap_or(u64::MAX),
        ..Question::default()
    };
    let slots = Slots { every_ns: args.every, rows_max: args.rows as usize, core: args.core };
    let report = counters::build(&dir, &question, slots).map_err(failure)?;
    match args.format {
        Format::Json => render::counters::json(&report, out)?,
        Format::Table => render::counters::report(&report, args.per.into(), out)?,
    }
    Ok(0)
}

/// Runs `export` of what is latency.
pub(super) fn export(
    args: &ExportArgs,
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.base.is_some() {
        return Err(Failure::new(
            2,
            format!(
                "{} has no base\n  cause: --base is of heap profiles\n  remedy: export both runs",
                args.to.name()
            ),
        ));
    }
    let dir = find(root, Some(&args.run))?;
    let question = Question {
        from_ns: args.from.unwrap_or(0),
        to_ns: args.until.unwrap_or(u64::MAX),
        ..Question::default()
    };
    // Percentiles are in runs that have no stages, too.
    let needs_stages = args.to == ExportFormat::Timeline;
    latency::check(&dir, &question, needs_stages).map_err(failure)?;
    deliver(args, out, err, |out| {
        match args.to {
            ExportFormat::Timeline if gz(args) => {
                gzipped(out, |out| write(&dir, &question, out, timeline::write))
            }
            ExportFormat::Timeline => write(&dir, &question, out, timeline::write),
            ExportFormat::Hlog => write(&dir, &question, out, hlog::write),
            ExportFormat::Hgrm => write(&dir, &question, out, hgrm::write),
            ExportFormat::Junit => gates(&dir, out),
            ExportFormat::Csv | ExportFormat::Jsonl | ExportFormat::Parquet => {
                table(args, &dir, &question, out)
            }
            _ => write(&dir, &question, out, openmetrics::write),
        }?;
        Ok(())
    })
}

type Writer =
    fn(&mut Intervals, &mut dyn FnMut(&Interval) -> bool, &mut dyn Write) -> io::Result<u64>;

fn write(dir: &Path, question: &Question, out: &mut dyn Write, write: Writer) -> io::Result<()> {
    let mut intervals = Intervals::open(dir).map_err(io::Error::other)?;
    let mut range = Range::of(question, intervals.manifest.start_ns);
    write(&mut intervals, &mut |interval| range.takes(interval), out).map(drop)
}

/// The gates of a run as JUnit XML.
fn gates(dir: &Path, out: &mut dyn Write) -> io::Result<()> {
    let report = report::build(dir, None).map_err(io::Error::other)?;
    let xml = junit_of_run(&report.run.id, &report.gates, &report.validity);
    writeln!(out, "{}", xml.map_err(io::Error::other)?)
}

/// Windows as rows.
fn table(
    args: &ExportArgs,
    dir: &Path,
    question: &Question,
    out: &mut dyn Write,
) -> io::Result<()> {
    let open = || Intervals::open(dir).map_err(io::Error::other);
    let kind = match args.to {
        ExportFormat::Csv => rows::Kind::Csv,
        ExportFormat::Parquet => rows::Kind::Parquet,
        _ => rows::Kind::Jsonl,
    };
    // The first line names every column, so that the counters must be known before.
    let names = rows::counter_names(&mut open()?);
    let mut intervals = open()?;
    let mut range = Range::of(question, intervals.manifest.start_ns);
    let wanted = &mut |interval: &Interval| range.takes(interval);
    rows::write(&mut intervals, wanted, (args.rows.into(), kind), &names, out).map(drop)
}

/// 3 when it does not add up, 4 when that cannot be said.
const fn exit_code(holds: Holds) -> u8 {
    match holds {
        Holds::Ok => 0,
        Holds::Fail => 3,
        Holds::Unknown => 4,
    }
}

fn failure(error: LatencyError) -> Failure {
    Failure::new(if error.is_corrupt() { 6 } else { 1 }, error)
}

/// A run of the store, or the directory of one.
pub(super) fn find(root: &Path, name: Option<&str>) -> Result<PathBuf, Failure> {
    let name = name.unwrap_or("@last");
    let path = Path::new(name);
    if path.join("plan.toml").is_file() {
        return Ok(path.to_owned());
    }
    Store::open_existing(root)
        .and_then(|store| store.resolve(name))
        .map_err(|error| Failure::new(1, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_says_yes_no_or_not_known() {
        assert_eq!([Holds::Ok, Holds::Fail, Holds::Unknown].map(exit_code), [0, 3, 4]);
    }
}
