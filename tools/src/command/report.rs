//! `report`: a run, or a document of ours, as table, text, Markdown, HTML or JSON.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tailbeam_harness::evidence::{Store, is_program};
use tailbeam_harness::report::{self, SCHEMA, SCHEMA_VERSION, Whole};
use tailbeam_harness::verdict::{Gate, Overall};
use tailbeam_probes::analyse::chains::name_chains;
use tailbeam_probes::analyse::leak::LeakConfig;

use super::{Outcome, gates, leaks, program};
use crate::Failure;
use crate::args::{Format, ReportArgs, ReportFormat};
use crate::render;
use crate::render::page;

/// Largest document that is read from a file.
const DOCUMENT_MAX: u64 = 64 << 20;

/// Runs `report`.
pub(super) fn run(
    args: &ReportArgs,
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    if args.schema {
        out.write_all(schema(args, root).as_bytes())?;
        return Ok(0);
    }
    let gates = gates(&args.gate)?;
    let name = args.run.as_deref().unwrap_or("@last");
    // Whole before the first byte is written: a run that cannot be read leaves no file.
    let mut bytes = Vec::new();
    let path = Path::new(name);
    let code = if path.is_file() {
        document(&read(path)?, args.format(), &mut bytes)?;
        0
    } else {
        of_run(args, &find(name, root)?, gates.as_deref(), &mut bytes)?
    };
    deliver(args, &bytes, out, err)?;
    Ok(code)
}

/// The schema of what `report` prints: of the run that is named, or else of a run of agents.
fn schema(args: &ReportArgs, root: &Path) -> &'static str {
    let named = args.run.as_deref().and_then(|name| find(name, root).ok());
    match named.is_some_and(|dir| is_program(&dir)) {
        true => render::program::PROGRAM_JSON_SCHEMA,
        false => render::json::REPORT_SCHEMA,
    }
}

/// A run of the store, or a directory that is one.
fn find(name: &str, root: &Path) -> Result<PathBuf, Failure> {
    let path = Path::new(name);
    if path.join("seg").is_dir() {
        return Ok(path.to_owned());
    }
    Store::open_existing(root)
        .and_then(|store| store.resolve(name))
        .map_err(|error| Failure::new(1, error))
}

fn of_run(
    args: &ReportArgs,
    dir: &Path,
    gates: Option<&[Gate]>,
    out: &mut Vec<u8>,
) -> Result<u8, Failure> {
    if is_program(dir) {
        let format = match args.format() {
            ReportFormat::Table => Format::Table,
            _ => Format::Json,
        };
        let mut drawn = Vec::new();
        let shown = program::report(dir, (format, args.top), &args.symbols, &mut drawn);
        let code = shown.unwrap_or(Ok(0))?;
        match args.format() {
            ReportFormat::Table | ReportFormat::Json => out.extend_from_slice(&drawn),
            of => document(&serde_json::from_slice(&drawn).map_err(io::Error::from)?, of, out)?,
        }
        return Ok(code);
    }
    if args.format() == ReportFormat::Table {
        let report = built(dir, gates, &args.symbols)?;
        render::text::report(&report, out)?;
        return Ok(report.verdict.exit_code());
    }
    let (whole, verdict) = whole(dir, gates, &args.symbols)?;
    document(&whole, args.format(), out)?;
    Ok(verdict.exit_code())
}

fn failure(error: report::ReportError) -> Failure {
    let code = match &error {
        report::ReportError::Read(read) => 1 + 5 * u8::from(read.is_corrupt()),
        _ => 2,
    };
    Failure::new(code, error)
}

/// The report of a run, with names.
///
/// # Errors
/// As [`whole`].
pub(super) fn built(
    dir: &Path,
    gates: Option<&[Gate]>,
    symbols: &[PathBuf],
) -> Result<report::Report, Failure> {
    let mut report = report::build(dir, gates).map_err(failure)?;
    name(&mut report, symbols);
    Ok(report)
}

/// Names the functions of its stacks.
fn name(report: &mut report::Report, symbols: &[PathBuf]) {
    let extra: Vec<String> = symbols.iter().map(|dir| dir.display().to_string()).collect();
    if let report::Measured::Known(stalls) = &mut report.stalls {
        stalls.name(|stacks| name_chains(stacks, &extra, &|path| fs::read(path)));
    }
}

/// The whole report of a run as a document, and its verdict.
///
/// # Errors
/// Exit code 6 when its frames cannot be read, 2 when it cannot be judged by these gates.
pub(super) fn whole(
    dir: &Path,
    gates: Option<&[Gate]>,
    symbols: &[PathBuf],
) -> Result<(Value, Overall), Failure> {
    let mut whole = report::whole(dir, gates).map_err(failure)?;
    name(&mut whole.report, symbols);
    let verdict = whole.report.verdict;
    let mut data = serde_json::to_value(&whole).map_err(io::Error::from)?;
    data["leaks"] = heap(dir, gates, &whole);
    Ok((json!({"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "data": data}), verdict))
}

/// The heap of the run, judged by the leak gate's limit where there is one.
fn heap(dir: &Path, gates: Option<&[Gate]>, whole: &Whole) -> Value {
    let Some(plan) = whole.plan.known() else { return Value::Null };
    let limit = gates.unwrap_or(&plan.gates).iter().find_map(|gate| match gate {
        Gate::Leaks { below } => Some(*below),
        _ => None,
    });
    let config = report::leak_config(plan, limit.unwrap_or(LeakConfig::default().limit));
    leaks::summary(dir, &whole.report.run.id, &config).unwrap_or_else(|failure| {
        let line = |name: &str| {
            let mut lines = failure.text.lines();
            lines
                .find_map(|line| line.trim().strip_prefix(name))
                .unwrap_or(&failure.text)
                .to_owned()
        };
        json!({"unknown": line("cause: "), "remedy": line("remedy: ")})
    })
}

/// Writes a document of ours in a format.
///
/// # Errors
/// Those of `out`.
pub(super) fn document(
    document: &Value,
    format: ReportFormat,
    out: &mut dyn Write,
) -> io::Result<()> {
    match format {
        ReportFormat::Json => {
            serde_json::to_writer_pretty(&mut *out, document)?;
            writeln!(out)
        }
        ReportFormat::Html => page::html(&page::page(document), document, out),
        ReportFormat::Markdown => page::markdown(&page::page(document), out),
        ReportFormat::Table | ReportFormat::Text => page::plain(&page::page(document), out),
    }
}

/// Reads a JSON document of ours; of an envelope what it holds.
fn read(path: &Path) -> Result<Value, Failure> {
    let unreadable = |cause: String| {
        Failure::new(
            6,
            format!(
                "{} is no document of ours\n  cause: {cause}\n  remedy: name a run, the output of a command with --format json, or a certificate",
                path.display()
            ),
        )
    };
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    if size > DOCUMENT_MAX {
        return Err(unreadable(format!("it has {size} bytes; {DOCUMENT_MAX} at most are read")));
    }
    let bytes = fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let value: Value =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    let Some(payload) = value.get("payload").and_then(Value::as_str) else {
        let schema = value.get("schema").and_then(Value::as_str).unwrap_or_default();
        let ours = schema.starts_with("tailbeam.") || value.get("predicateType").is_some();
        return if ours {
            Ok(value)
        } else {
            Err(unreadable("it names no schema of ours".to_owned()))
        };
    };
    let payload = STANDARD.decode(payload).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&payload).map_err(|error| unreadable(error.to_string()))
}

fn deliver(
    args: &ReportArgs,
    bytes: &[u8],
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(path) = args.output.as_deref().filter(|path| *path != Path::new("-")) else {
        if args.format() == ReportFormat::Html && io::stdout().is_terminal() {
            return Err(Failure::new(
                2,
                "an HTML page is not for reading here\n  cause: stdout is a terminal\n  remedy: name a file with -o report.html, or pipe it",
            ));
        }
        return Ok(out.write_all(bytes)?);
    };
    fs::write(path, bytes).map_err(|error| {
        Failure::new(
            1,
            format!(
                "cannot write {}\n  cause: {error}\n  remedy: name a file in a writable directory",
                path.display()
            ),
        )
    })?;
    let _ = writeln!(err, "report: {}", path.display());
    Ok(())
}
