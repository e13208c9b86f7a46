//! Why something of a fault could not be done.

use std::fs;
use std::io;
use std::path::Path;

use tailbeam_probes::Unavailable;

/// Why a step, a proof or a start failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The kernel refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, on what.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An external tool failed.
    #[error("{tool} {status}: {text}")]
    Tool {
        /// The command line.
        tool: String,
        /// How it ended.
        status: String,
        /// What it said.
        text: String,
    },
    /// Something took longer than its bound.
    #[error("{what} was not over after {ms} ms")]
    Slow {
        /// What was waited for.
        what: String,
        /// The bound, ms.
        ms: u64,
    },
    /// A file or an answer is not what it should be.
    #[error("{what} reads {found:?}, not {wanted:?}")]
    Differs {
        /// What was read.
        what: String,
        /// What it says.
        found: String,
        /// What it should say.
        wanted: String,
    },
    /// This host cannot.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Names what was done to what.
pub(super) fn io(path: &Path, verb: &str, source: impl Into<io::Error>) -> Failure {
    Failure::Io { what: format!("{verb} {}", path.display()), source: source.into() }
}

/// A small file without its last line feed.
pub(super) fn text(path: &Path) -> Result<String, Failure> {
    let mut text = fs::read_to_string(path).map_err(|error| io(path, "read", error))?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Writes a knob of the kernel: one write, no file is made.
pub(super) fn write(path: &Path, value: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let open = fs::OpenOptions::new().write(true).truncate(true).open(path);
    let written = open.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|error| io(path, &format!("write {value:?} to"), error))
}

/// The thing named is not there any more.
pub(super) fn is_gone(failure: &Failure) -> bool {
    let Failure::Io { source, .. } = failure else { return false };
    // ENODEV: the file of a group that was removed while it was open. ESRCH: the process.
    let gone = [rustix::io::Errno::NODEV, rustix::io::Errno::SRCH].map(|e| e.raw_os_error());
    source.kind() == io::ErrorKind::NotFound
        || source.raw_os_error().is_some_and(|code| gone.contains(&code))
}
