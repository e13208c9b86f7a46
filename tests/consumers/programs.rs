//! Other people's programs, where they are installed.
#![allow(dead_code, reason = "shared by test binaries that need different parts")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A consumer by name, or the reason why it is not there, printed.
pub(crate) fn consumer(name: &str, found: bool) -> bool {
    if !found {
        let why = format!("{name} is not installed; .ci/consumers fetches it");
        assert!(std::env::var_os("TAILBEAM_REQUIRE_CONSUMERS").is_none(), "{why}");
        skipped(&why);
    }
    found
}

#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Where `.ci/consumers` puts what npm gives.
pub(crate) fn npm() -> PathBuf {
    std::env::var_os("TAILBEAM_CONSUMERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/consumers"),
        PathBuf::from,
    )
}

/// Runs a program that must succeed; its stdout.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    assert!(output.status.success(), "{command:?}: {out}{}", String::from_utf8_lossy(&err));
    out
}

/// The program that turns a profile into text.
pub(crate) fn pprof(args: &[&str], files: &[&Path]) -> Option<String> {
    let usable = Command::new("go")
        .args(["tool", "pprof", "-h"])
        .output()
        .is_ok_and(|output| String::from_utf8_lossy(&output.stderr).contains("usage"));
    if !consumer("go tool pprof", usable) {
        return None;
    }
    let mut command = Command::new("go");
    command.args(["tool", "pprof"]).args(args).args(files);
    command.env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    Some(run(&mut command))
}

/// Flat value and name of each line of `-top -unit=B`, zero ones left out.
pub(crate) fn flat(top: &str) -> BTreeMap<String, i64> {
    let lines = top.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    lines
        .map(|line| {
            // flat flat% sum% cum cum% name
            let mut words = line.split_whitespace();
            let value = words.next().unwrap().trim_end_matches('B').parse().unwrap();
            let name: Vec<&str> = words.skip(4).filter(|word| *word != "(inline)").collect();
            (name.join(" "), value)
        })
        .filter(|(_, value)| *value != 0)
        .collect()
}

/// A table of every function in whole bytes.
pub(crate) const TOP: [&str; 5] =
    ["-top", "-sample_index=inuse_space", "-unit=B", "-nodefraction=0", "-nodecount=9999"];
