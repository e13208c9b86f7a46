//! `soak --print-systemd-run`: the line that runs this soak as a transient unit, which outlives the terminal and the session.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;

use super::Outcome;
use crate::Failure;

/// The flag that asks for the line, which the unit does not have.
const FLAG: &str = "--print-systemd-run";
/// Time that a run may take to drain, seal and report beyond the deadline of its last request, s.
const SEAL_S: u64 = 60;

/// What a unit runs, and where.
struct Unit<'a> {
    program: &'a Path,
    cwd: &'a Path,
    store: &'a Path,
    /// The words of the command line, without the program.
    words: &'a [OsString],
    /// Deadline of a request, ns; none where the run that is continued says it.
    timeout_ns: Option<u64>,
    /// What says where settings are, in the environment of who asks.
    set: &'a [(String, String)],
}

/// What names files of settings.
const SET: [&str; 3] = ["HOME", "XDG_CONFIG_HOME", "TAILBEAM_CONFIG"];

/// Prints the line for a soak with these words.
pub(super) fn print(
    (words, timeout_ns): (&[OsString], Option<u64>),
    root: &Path,
    out: &mut dyn Write,
) -> Outcome {
    let failed = |what: &str, error: std::io::Error| {
        Failure::new(1, format!("{what}\n  cause: {error}\n  remedy: none known"))
    };
    let program = std::env::current_exe().map_err(|e| failed("cannot find this program", e))?;
    let cwd = std::env::current_dir().map_err(|e| failed("there is no working directory", e))?;
    let set = SET.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let unit = Unit {
        set: &set.collect::<Vec<_>>(),
        program: &program,
        cwd: &cwd,
        store: &cwd.join(root),
        words: words.get(1..).unwrap_or_default(),
        timeout_ns,
    };
    writeln!(out, "{}", line(&unit))?;
    Ok(0)
}

/// Rings and descriptors as many as are wanted; SIGINT has a run drain and seal, and time for that.
fn line(unit: &Unit<'_>) -> String {
    let in_s = |ns: u64| ns.div_ceil(1_000_000_000).saturating_add(SEAL_S).to_string();
    let stop_s = unit.timeout_ns.map_or_else(|| "infinity".to_owned(), in_s);
    let mut words: Vec<String> = [
        "systemd-run",
        "--unit=tailbeam-soak",
        "--collect",
        "--property=LimitMEMLOCK=infinity",
        "--property=LimitNOFILE=infinity",
        // The run alone: a second process of it goes when it is told to.
        "--property=KillMode=mixed",
        "--property=KillSignal=SIGINT",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push(format!("--property=TimeoutStopSec={stop_s}"));
    for (name, value) in unit.set {
        words.push(format!("--setenv={}", quoted(OsStr::new(&format!("{name}={value}")))));
    }
    words.push(format!("--working-directory={}", quoted(unit.cwd.as_os_str())));
    words.push("--".to_owned());
    words.push(quoted(unit.program.as_os_str()));
    let is_store = |word: &OsString| word.to_string_lossy().starts_with("--store");
    if !unit.words.iter().any(is_store) {
        // What the store is by default depends on the environment, which a unit has not.
        words.extend(["--store".to_owned(), quoted(unit.store.as_os_str())]);
    }
    words.extend(unit.words.iter().filter(|word| *word != FLAG).map(|word| quoted(word)));
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_runs_what_was_typed_but_the_flag_that_asks() {
        let of = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            line(&Unit {
                program: Path::new("/opt/it's/tailbeam"),
                cwd: Path::new("/home/me"),
                store: Path::new("/home/me/.tailbeam"),
                words: &words,
                timeout_ns: (!words.contains(&"--resume".into())).then_some(10_000_000_000),
                set: &[("HOME".to_owned(), "/home/me".to_owned())],
            })
        };
        let typed = ["soak", "--gate", "p99<300ms", FLAG, "--duration", "72h"];
        assert_eq!(
            of(&typed),
            "systemd-run --unit=tailbeam-soak --collect --property=LimitMEMLOCK=infinity --property=LimitNOFILE=infinity \
             --property=KillMode=mixed --property=KillSignal=SIGINT --property=TimeoutStopSec=70 --setenv=HOME=/home/me \
             --working-directory=/home/me -- \
             '/opt/it'\\''s/tailbeam' --store /home/me/.tailbeam soak --gate 'p99<300ms' --duration 72h"
        );
        let own = of(&["--store", "there", "soak", FLAG]);
        assert!(own.ends_with("tailbeam' --store there soak"), "{own}");
        assert!(of(&["soak", "--resume", "@last"]).contains("TimeoutStopSec=infinity"));
    }
}
