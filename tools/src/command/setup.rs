//! Settings, completions for shells and pages for man, all from the flags themselves.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

use super::Outcome;
use crate::Failure;
use crate::args::{self, ConfigCommand, Format};
use crate::config::Effective;
use crate::render::json::document;
use crate::render::text::table;

/// Name that the shell completes.
const NAME: &str = "tailbeam";

/// Writes a shell's completions.
pub(super) fn completions(shell: Shell, out: &mut dyn Write) -> Outcome {
    // The generator panics on an unwritable pipe: whole first.
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut args::command(&[]), NAME, &mut bytes);
    out.write_all(&bytes)?;
    Ok(0)
}

/// Writes a page for each command into `dir`.
pub(super) fn man(dir: &Path, out: &mut dyn Write) -> Outcome {
    let failed = |error: std::io::Error| {
        Failure::new(
            1,
            format!(
                "cannot write man pages to {}\n  cause: {error}\n  remedy: name a writable directory",
                dir.display()
            ),
        )
    };
    fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(args::command(&[]), dir).map_err(failed)?;
    writeln!(
        out,
        "man pages: {}; `man -l {}` reads one",
        dir.display(),
        dir.join("tailbeam.1").display()
    )?;
    Ok(0)
}

/// Shows settings. That the files can be used has been found before: a command with others does not run.
pub(super) fn config(
    command: &ConfigCommand,
    (settings, files): (&[Effective], &[PathBuf]),
    out: &mut dyn Write,
) -> Outcome {
    match command {
        ConfigCommand::Show { format: Format::Json, .. } => {
            document("tailbeam.config", &settings, out)?
        }
        ConfigCommand::Show { origin, .. } => {
            let row = |of: &Effective| {
                let mut row = vec![of.key.clone(), of.value.clone()];
                row.extend(origin.then(|| of.origin.clone()));
                row
            };
            let header = &["flag", "value", "origin"][..if *origin { 3 } else { 2 }];
            writeln!(out, "{}", table(header, settings.iter().map(row), 3))?;
        }
        ConfigCommand::Path => {
            for file in files {
                let there = if file.is_file() { "" } else { "  (not there)" };
                writeln!(out, "{}{there}", file.display())?;
            }
        }
        ConfigCommand::Check => {
            let there: Vec<String> = files
                .iter()
                .filter(|file| file.is_file())
                .map(|file| file.display().to_string())
                .collect();
            match there.is_empty() {
                true => writeln!(out, "no file holds settings")?,
                false => writeln!(out, "can be used: {}", there.join(", "))?,
            }
        }
    }
    Ok(0)
}
