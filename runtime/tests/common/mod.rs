//! What tests on the real kernel share.

use std::time::Duration;

use tailbeam_runtime::{Config, NoObserver, Runtime, StartError, clock, features};

/// Whether this kernel gives rings. An emulator or a container may not: the test then says that it
/// skips. Where `TAILBEAM_TEST_RINGS` is set, as in `.ci/run`, a skip is a failure.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
pub(crate) fn has_rings() -> bool {
    let missing = matches!(features::probe(), Err(StartError::Missing));
    if missing {
        let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
        assert!(!required, "TAILBEAM_TEST_RINGS is set and this kernel has no io_uring");
        eprintln!("SKIPPED: this kernel has no io_uring");
    }
    !missing
}

/// A runtime, where there can be one.
#[allow(dead_code, reason = "not every test binary starts one this way")]
pub(crate) fn start(config: Config) -> Option<Runtime> {
    has_rings().then(|| Runtime::start(config, |_| NoObserver).expect("this host has io_uring"))
}

/// Waits for a condition on another thread, bounded.
#[allow(dead_code, reason = "not every test binary waits")]
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = clock::monotonic_ns() + 10_000_000_000;
    while !condition() {
        assert!(clock::monotonic_ns() < end, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
