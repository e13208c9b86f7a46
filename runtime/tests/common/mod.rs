//! What tests on the real kernel share.

mod rings;

use std::time::Duration;

use tailbeam_runtime::{Config, NoObserver, Runtime, clock};

pub(crate) use rings::has_rings;

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
