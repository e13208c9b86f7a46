//! A recorded program: `report` and `counters` of it, and its CPU profile for other tools.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tailbeam_harness::evidence::{
    HEAP_STATE, ProgramRun, Recorded, Store, is_program, read_program,
};
use tailbeam_probes::analyse::program::{CpuProfile, Program, cpu_profile};

use super::Outcome;
use crate::Failure;
use crate::args::{ExportArgs, ExportFormat, Format};
use crate::render::export::cpu::{self, CpuExport};
use crate::render::export::{cpu_firefox, gzipped};
use crate::render::program::{self as view, Shown};

/// A recorded program that was read back.
pub(super) struct Recording {
    pub(super) run: String,
    pub(super) program: Program,
    pub(super) recorded: Option<Recorded>,
    pub(super) damage: Vec<String>,
}

impl Recording {
    /// Reads the recording in a run directory; `None` when the directory holds another kind of run.
    ///
    /// # Errors
    /// Exit code 6 when its frames cannot be read.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        if !is_program(dir) {
            return Ok(None);
        }
        let unreadable = |cause: &dyn std::fmt::Display| {
            let text = format!(
                "the recording {} cannot be used\n  cause: {cause}\n  remedy: restore it from a copy, or record again",
                dir.display()
            );
            Failure::new(6, text)
        };
        let (parts, damage) = read_program(dir).map_err(|error| unreadable(&error))?;
        let mut program: Option<Program> = None;
        for part in parts {
            match (part, &mut program) {
                (ProgramRun::Start(start), None) => program = Some(Program::new(start)),
                (ProgramRun::Tick(tick), Some(program)) => program.tick(tick),
                (ProgramRun::Stacks(stacks), Some(program)) => program.stacks(stacks),
                (ProgramRun::Samples(samples), Some(program)) => program.samples(&samples),
                (ProgramRun::End(end), Some(program)) => program.end = Some(end),
                _ => {}
            }
        }
        let program = program.ok_or_else(|| unreadable(&"its first frame is damaged"))?;
        let run = dir.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let recorded = Recorded::read(dir).ok().flatten();
        Ok(Some(Self { run, program, recorded, damage }))
    }

    /// Its CPU profile with names.
    pub(super) fn profile(&self, symbols: &[PathBuf]) -> CpuProfile {
        let extra: Vec<String> = symbols.iter().map(|dir| dir.display().to_string()).collect();
        cpu_profile(&self.program, &extra, &|path| fs::read(path))
    }
}

/// Prints the report of the recorded program in `dir`; `None` when it is another kind of run.
pub(super) fn report(
    dir: &Path,
    (format, top): (Format, usize),
    symbols: &[PathBuf],
    out: &mut dyn Write,
) -> Option<Outcome> {
    let recording = match Recording::load(dir) {
        Ok(found) => found?,
        Err(failure) => return Some(Err(failure)),
    };
    let profile = recording.profile(symbols);
    let shown = Shown {
        run: &recording.run,
        program: &recording.program,
        profile: &profile,
        end: recording.recorded.as_ref().map(Recorded::end_words),
        damage: &recording.damage,
        top,
    };
    let written = match format {
        Format::Table => view::text(&shown, out),
        Format::Json => view::json(&shown, out),
    };
    Some(written.map(|()| 0).map_err(Failure::from))
}

/// The run directory whose CPU profile an export means; `None` where its heap is meant.
pub(super) fn place(args: &ExportArgs, root: &Path) -> Option<PathBuf> {
    let given = PathBuf::from(&args.run);
    let dir = match given.join("seg").is_dir() {
        true => given,
        false => Store::open_existing(root).ok()?.resolve(&args.run).ok()?,
    };
    let cpu = is_program(&dir) && (args.cpu || !dir.join(HEAP_STATE).exists());
    cpu.then_some(dir)
}

/// Writes the CPU profile of the recording in `dir`.
///
/// # Errors
/// Exit code 6 when it cannot be read.
pub(super) fn export(args: &ExportArgs, dir: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(recording) = Recording::load(dir)? else {
        return Err(Failure::new(
            1,
            "no CPU profile\n  cause: the run is of another kind\n  remedy: `tailbeam record -- CMD`",
        ));
    };
    if recording.program.start.hz == 0 {
        return Err(Failure::new(
            1,
            format!(
                "no CPU profile in run {}\n  cause: it was recorded with --no-profile\n  remedy: record again without it",
                recording.run
            ),
        ));
    }
    let profile = recording.profile(&args.how.symbols);
    let shown = Shown {
        run: &recording.run,
        program: &recording.program,
        profile: &profile,
        end: None,
        damage: &recording.damage,
        top: 0,
    };
    let program = &recording.program;
    let mut comments = vec![
        format!("tailbeam {}", env!("CARGO_PKG_VERSION")),
        format!("command {}", program.start.command.join(" ")),
        format!(
            "{} Hz of each thread's CPU time, {} samples, {} records lost",
            program.start.hz, program.ring.samples, program.ring.lost
        ),
    ];
    comments.extend(view::caveats(&shown));
    let what = CpuExport { run: &recording.run, program, profile: &profile, comments: &comments };
    write(args, &what, out)?;
    Ok(())
}

fn write(args: &ExportArgs, what: &CpuExport<'_>, out: &mut dyn Write) -> io::Result<()> {
    let gz = args.output.as_ref().is_some_and(|path| path.extension() == Some("gz".as_ref()));
    match args.to {
        ExportFormat::Pprof => cpu::pprof(what, out),
        ExportFormat::Folded => cpu::folded(what, out),
        ExportFormat::Firefox if gz => gzipped(out, |out| cpu_firefox::write(what, out)),
        ExportFormat::Firefox => cpu_firefox::write(what, out),
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
