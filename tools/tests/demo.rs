//! The demo as a process: it finds what it planted, and says so only then.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::process::{Command, Stdio};

use serde_json::Value;

/// Says that a test does not run here; a failure where `TAILBEAM_TEST_RINGS` is set.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn skip(why: &str) {
    assert!(
        std::env::var_os("TAILBEAM_TEST_RINGS").is_none(),
        "TAILBEAM_TEST_RINGS is set and {why}"
    );
    eprintln!("SKIPPED: {why}");
}

#[test]
fn a_demo_finds_the_planted_leak_and_the_planted_slow_agent() {
    let store = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailbeam"));
    command.arg("--store").arg(store.path()).args([
        "demo",
        "--agents",
        "2000",
        "--duration",
        "24s",
    ]);
    let output = command
        .args(["--progress", "none", "--format", "json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.code() == Some(5) && err.contains("no io_uring") {
        return skip("this kernel has no io_uring");
    }
    let document: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {err}"));
    let data = &document["data"];
    assert_eq!(
        (&data["leak"]["found"], &data["slow"]["found"]),
        (&true.into(), &true.into()),
        "{data:#}"
    );
    assert_eq!(output.status.code(), Some(0), "{err}");
    let (leak, slow) = (&data["leak"], &data["slow"]);
    assert!(leak["their_share"].as_f64().unwrap() > 0.9, "{leak:#}");
    assert!(
        leak["site"]["function"].as_str().unwrap().contains("plant"),
        "{}",
        leak["site"]["function"]
    );
    assert_eq!(slow["first"]["agent"], slow["planted"]["agent"]);
    assert!(slow["planted"]["times"].as_u64().unwrap() > 0);
    assert_eq!(data["verdict"], "NO-GO");
    // The commands that it offers run as they stand.
    for line in data["next"].as_array().unwrap() {
        let words = line
            .as_str()
            .unwrap()
            .replace("report.html", &store.path().join("r.html").display().to_string());
        let next = Command::new("sh").args(["-c", &words]).stdin(Stdio::null()).output().unwrap();
        let code = next.status.code();
        assert!(
            matches!(code, Some(0 | 3 | 4)),
            "{words}: {code:?} {}",
            String::from_utf8_lossy(&next.stderr)
        );
    }
    assert!(store.path().join("r.html").is_file());
}
