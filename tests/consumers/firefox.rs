//! The Firefox Profiler, by its own command line (`@firefox-devtools/profiler-cli`, node 24).

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::Made;
use super::programs::{consumer, npm, run};

/// A session of profiler-cli with a profile loaded; ends with the value.
struct Session {
    name: String,
    home: tempfile::TempDir,
}

fn cli() -> Option<(PathBuf, PathBuf)> {
    let modules = npm().join("node_modules");
    let node = modules.join("node/bin/node");
    let cli = modules.join(".bin/profiler-cli");
    consumer("profiler-cli with node 24", node.exists() && cli.exists()).then_some((node, cli))
}

impl Session {
    fn load(made: &Made) -> Option<Self> {
        cli()?;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("heap.json.gz");
        made.file(&path, None, "firefox");
        let name = format!("tailbeam-{}", std::process::id());
        let session = Self { name, home };
        session.ask(&["load", path.to_str().unwrap()]);
        Some(session)
    }

    fn ask(&self, words: &[&str]) -> String {
        let (node, cli) = cli().unwrap();
        let mut command = Command::new(node);
        command.arg(cli).args(words).args(["--session", &self.name]);
        run(command.env("HOME", self.home.path()))
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ask(&[words, &["--json"]].concat())).unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ask(&["stop"]);
    }
}

#[test]
fn look() {
    let made = Made::new(|_| {});
    let Some(session) = Session::load(&made) else { return };
    let retained = ["--strategy", "native-retained-allocations"];
    for words in [
        &["profile", "info"][..],
        &["thread", "list"],
        &["counter", "list"],
        &["counter", "info", "c-0"],
        &[&["thread", "samples", "--thread", "t-0"][..], &retained].concat(),
        &[&["thread", "samples-top-down", "--thread", "t-0"][..], &retained].concat(),
        &[&["thread", "samples", "--thread", "t-1"][..], &retained].concat(),
    ] {
        println!("== {words:?}\n{}", session.ask(words));
    }
    println!("{:#}", session.json(&["thread", "list"]));
    println!(
        "{:#}",
        session.json(&[&["thread", "samples", "--thread", "t-1"][..], &retained].concat())
    );
}
