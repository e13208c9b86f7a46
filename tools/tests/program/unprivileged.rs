//! As a user without privileges: what is not refused works, each refusal is a stated mode, exit 0.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Bench, PROGRAM, known, named, skip, text};

/// Nobody's program beside a store of theirs; none where we cannot become nobody.
struct Nobody {
    dir: tempfile::TempDir,
}

impl Nobody {
    fn new(bench: &Bench) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skip("only root can become nobody; as another user the other tests show the same");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let open =
            |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        open(dir.path());
        fs::create_dir(dir.path().join("store")).unwrap();
        open(&dir.path().join("store"));
        for (name, from) in [("tailbeam", Path::new(PROGRAM)), ("burn", &bench.burn)] {
            let to = dir.path().join(name);
            fs::copy(from, &to).unwrap();
            open(&to);
        }
        let nobody = Self { dir };
        let tried = nobody.command(&["--version"]).output();
        if tried.is_ok_and(|output| output.status.success()) {
            return Some(nobody);
        }
        skip("no `setpriv`, or its user may not run programs from here");
        None
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
        command.arg(self.dir.path().join("tailbeam"));
        command.arg("--store").arg(self.dir.path().join("store")).args(args);
        command.stdin(Stdio::null());
        command
    }
}

#[test]
fn each_refusal_is_a_mode_and_the_exit_is_0() {
    let Some(bench) = Bench::new() else { return };
    let Some(nobody) = Nobody::new(&bench) else { return };
    let burn = nobody.dir.path().join("burn");
    let output =
        nobody.command(&["record", "--", burn.to_str().unwrap(), "burn", "400"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = nobody.command(&["report", "@last", "--format", "json"]).output().unwrap();
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let report = &report["data"];
    let burn = named(report, "burn");
    for what in ["cpu_ns", "wait_ns", "voluntary_switches", "involuntary_switches", "minor_faults"]
    {
        assert!(known(burn[0], what).is_some(), "{what} needs no privilege: {}", burn[0]);
    }
    // What is refused has its cause and remedy, and is no 0.
    for mode in report["modes"].as_array().unwrap() {
        for missing in mode["missing"].as_array().unwrap() {
            let why = &missing["why"];
            assert!(why["cause"].as_str().is_some_and(|text| !text.is_empty()), "{missing}");
            assert!(why["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{missing}");
        }
    }
    let migrations = &burn[0]["counts"]["migrations"];
    assert!(migrations["value"].is_null() && migrations["remedy"].is_string(), "{migrations}");
    let cores = report["cores"].as_array().unwrap();
    assert!(cores[0]["busy_ns"]["value"].is_u64(), "{}", cores[0]);
    assert!(cores[0]["counts"]["switches"]["value"].is_null(), "{}", cores[0]["counts"]);
}

#[test]
fn the_process_of_another_user_is_one_error() {
    let Some(bench) = Bench::new() else { return };
    let Some(nobody) = Nobody::new(&bench) else { return };
    let mut child =
        Command::new(&bench.burn).args(["burn", "60000"]).stdin(Stdio::null()).spawn().unwrap();
    let pid = child.id().to_string();
    let output = nobody.command(&["record", "--pid", &pid, "--duration", "1s"]).output().unwrap();
    let top = nobody.command(&["top", "--pid", &pid, "--once"]).output().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    for output in [output, top] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("another user's") && said.matches("remedy:").count() == 1, "{said}");
    }
}
