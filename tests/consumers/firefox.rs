//! The Firefox Profiler, by its own command line (`@firefox-devtools/profiler-cli`, node 24).

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use tailbeam::render::leaks::By;

use super::Made;
use super::programs::{consumer, npm, run};

/// A session of profiler-cli with a profile loaded; ends with the value.
pub(crate) struct Session {
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
        Self::open(|path| made.file(path, None, "firefox"))
    }

    /// Loads the profile, gzipped JSON, that `write` writes.
    pub(crate) fn open(write: impl FnOnce(&Path)) -> Option<Self> {
        cli()?;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("profile.json.gz");
        write(&path);
        let name = format!(
            "tailbeam-{}",
            home.path().file_name().unwrap().to_string_lossy().trim_start_matches('.')
        );
        let session = Self { name, home };
        session.ask(&["load", path.to_str().unwrap()]);
        Some(session)
    }

    pub(crate) fn ask(&self, words: &[&str]) -> String {
        let (node, cli) = cli().unwrap();
        let mut command = Command::new(node);
        command.arg(cli).args(words).args(["--session", &self.name]);
        run(command.env("HOME", self.home.path()))
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ask(&[words, &["--json"]].concat())).unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ask(&["stop"]);
    }
}

/// Bytes by category, which is a verdict, of a thread's retained allocations.
fn retained(session: &Session, thread: &str) -> Vec<(String, i64)> {
    let strategy = ["--strategy", "native-retained-allocations"];
    let words = [&["thread", "samples", "--thread", thread][..], &strategy].concat();
    let found = session.json(&words);
    let list = found["categoryBreakdown"]["categories"].as_array().unwrap();
    list.iter()
        .map(|of| (of["name"].as_str().unwrap().to_owned(), of["samples"].as_i64().unwrap()))
        .collect()
}

#[test]
fn it_lists_a_thread_per_core_with_what_is_retained_to_the_byte() {
    let made = Made::new(|_| {});
    let Some(session) = Session::load(&made) else { return };
    let threads = session.json(&["thread", "list"])["threads"].clone();
    let document = made.leaks(By::Core);
    let cores = document["data"]["live"]["rows"].as_array().unwrap();
    assert_eq!(threads.as_array().unwrap().len(), cores.len());
    let mut leaked = 0;
    for thread in threads.as_array().unwrap() {
        let name = thread["name"].as_str().unwrap();
        let core = cores.iter().find(|row| name == format!("Core {}", row["core"])).unwrap();
        let parts = retained(&session, thread["threadHandle"].as_str().unwrap());
        let sum: i64 = parts.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(core["bytes"], sum, "{name}: {parts:?}");
        leaked += parts.iter().find(|(name, _)| name == "LEAK").unwrap().1;
    }
    assert_eq!(leaked, made.by_function()["exchange::book::Book::apply"]);
}

#[test]
fn it_names_functions_modules_and_the_live_bytes_over_time() {
    let made = Made::new(|_| {});
    let Some(session) = Session::load(&made) else { return };
    let strategy = ["--thread", "t-0", "--strategy", "native-retained-allocations"];
    let tree = session.ask(&[&["thread", "samples-top-down"][..], &strategy].concat());
    let indent = |name: &str| {
        let line = tree.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {tree}"));
        line.find("f-").unwrap()
    };
    let main = indent("exchange!exchange::main");
    let session_call = indent("exchange!exchange::session::on_message");
    let leak = indent("exchange!exchange::book::Book::apply");
    assert!(main < session_call && session_call < leak, "{tree}");
    assert!(indent("libquote.so.2!libquote.so.2+0x1070") > main, "{tree}");
    let info = session.ask(&["profile", "info"]);
    assert!(info.contains("exchange (run 20261124-070000-000)"), "{info}");
    // Nine readings, from 20 MB by 2 MB an hour.
    let counter = session.ask(&["counter", "info", "c-0"]);
    for part in [
        "Name: malloc",
        "Samples: 9 total, 9 in current range",
        "Live bytes, exact",
        "range in graph: 16.0MB",
    ] {
        assert!(counter.contains(part), "{part:?} is not in {counter}");
    }
}
