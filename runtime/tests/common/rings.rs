//! Whether this kernel gives rings.

use tailbeam_runtime::{StartError, features};

/// An emulator or a container may give none: the test then says that it skips. Where `TAILBEAM_TEST_RINGS` is set, as in
/// `.ci/run`, a skip is a failure; and so is whatever else is wrong, by what the test does next.
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
