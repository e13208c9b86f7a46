//! A place to compile and record in.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");

/// Says that a test does not run here.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub(crate) fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// A directory with the program that burns CPU time.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    pub(crate) burn: PathBuf,
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Bench {
    /// None, and said, where there is no compiler.
    pub(crate) fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/program/burn.c");
        let burn = dir.path().join("burn");
        let flags =
            ["-O1", "-g", "-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer", "-pthread"];
        let compiled = Command::new("cc").args(flags).arg("-o").arg(&burn).arg(source).output();
        match compiled {
            Ok(output) if output.status.success() => Some(Self { dir, burn }),
            Ok(output) => {
                skip(&format!("cc: {}", text(&output.stderr)));
                None
            }
            Err(error) => {
                skip(&format!("no `cc`: {error}"));
                None
            }
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// tailbeam with this store.
    pub(crate) fn tailbeam(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(self.store()).args(args).stdin(Stdio::null());
        command
    }

    /// `record ARGS -- burn WORDS`.
    pub(crate) fn record(&self, args: &[&str], words: &[&str]) -> Output {
        let mut command = self.tailbeam(&["record"]);
        command.args(args).arg("--").arg(&self.burn).args(words).output().unwrap()
    }

    /// The data of `report RUN --format json`.
    pub(crate) fn report(&self, run: &str) -> Value {
        let output = self.tailbeam(&["report", run, "--format", "json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["schema"], "tailbeam.program");
        self.keeps_its_schema(run, &document);
        document["data"].clone()
    }

    /// Against the schema that the command line publishes of this run; a document with a hole is refused by it.
    fn keeps_its_schema(&self, run: &str, document: &Value) {
        let output = self.tailbeam(&["report", run, "--schema"]).output().unwrap();
        let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(schema["title"], "tailbeam.program");
        let schema = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> =
            schema.iter_errors(document).map(|e| format!("{e} at {}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:?}");
        for (path, bad) in [
            ("/schema_version", Value::from(2)),
            ("/data/threads/0/counts/cpu_ns/quality", Value::from("sure")),
            ("/data/modes", Value::Null),
        ] {
            let mut broken = document.clone();
            *broken.pointer_mut(path).unwrap() = bad;
            assert!(schema.validate(&broken).is_err(), "{path}");
        }
    }

    /// The newest run's directory.
    pub(crate) fn run(&self) -> PathBuf {
        let entries = fs::read_dir(self.store()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_dir()).max().unwrap()
    }

    /// Waits until `child` has written the first frame of a run after `before`.
    pub(crate) fn until_it_records(&self, child: &mut Child, before: &Path) {
        loop {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it recorded");
            if self.run() != before {
                let report = self.tailbeam(&["report", "@last"]).output().unwrap();
                let said = text(&report.stderr);
                match report.status.code() {
                    Some(0) => return,
                    Some(1) => assert!(said.contains("nothing is recorded in run"), "{said}"),
                    code => panic!("{code:?}: {said}"),
                }
            }
            std::thread::yield_now();
        }
    }
}

/// Self samples of a function.
pub(crate) fn samples(report: &Value, function: &str) -> u64 {
    let functions = report["functions"].as_array().unwrap();
    let of = functions.iter().find(|row| row["name"] == function);
    of.map_or(0, |row| row["total_samples"].as_u64().unwrap())
}

pub(crate) fn named<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    let threads = report["threads"].as_array().unwrap();
    threads.iter().filter(|thread| thread["name"] == name).collect()
}

/// A count of a thread, where it is known.
pub(crate) fn known(thread: &Value, what: &str) -> Option<u64> {
    thread["counts"][what]["value"].as_u64()
}

/// Whether the kernel lets this user sample; said where not.
pub(crate) fn sampled(report: &Value) -> bool {
    let modes = report["modes"].as_array().unwrap();
    let works = modes.iter().find(|mode| mode["part"] == "profile").unwrap()["works"].clone();
    let yes = works != "nothing";
    if !yes {
        skip("the kernel refuses samples here");
    }
    yes
}
