//! Which build runs: the build-id that the linker has written into the program.

use super::program::build_id;
use crate::Unavailable;

const SOURCE: &str = "/proc/self/exe";

/// The build-id of the running program, lower-case hex. Two builds of different sources differ in it. A few reads.
///
/// # Errors
/// [`Unavailable`]: the file cannot be read, is no 64-bit little-endian ELF, or was linked without one.
pub fn build_id() -> Result<String, Unavailable> {
    of(SOURCE)
}

fn of(path: &str) -> Result<String, Unavailable> {
    let id: String = build_id::of(path).iter().map(|byte| format!("{byte:02x}")).collect();
    if id.is_empty() {
        return Err(Unavailable {
            source: SOURCE,
            cause: "it cannot be read, or was linked without a build-id".to_owned(),
            remedy:
                "mount /proc, and link with -Wl,--build-id, as gcc does by itself on most systems"
                    .to_owned(),
        });
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the linker writes one by itself; that of musl's target does not.
    #[cfg(target_env = "gnu")]
    #[test]
    fn this_program_has_one() {
        let id = build_id().unwrap();
        assert!(id.len() >= 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }

    #[test]
    fn what_is_no_program_has_none() {
        assert!(of("/proc/self/status").is_err() && of("/nowhere").is_err());
    }
}
