//! Completions for shells and pages for man, from the flags themselves.

use std::fs;
use std::io::Write;
use std::path::Path;

use clap_complete::Shell;

use super::Outcome;
use crate::Failure;
use crate::args;

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
