//! `record.json`: what `record` ran, how, and how it ended. Written before the program starts and again
//! after its end, by rename, so that a reader finds a whole file or none.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Name of the file in the run directory.
const FILE: &str = "record.json";
/// Version of this layout.
pub const RECORD_VERSION: u32 = 1;

/// How a program of somebody else was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Always [`RECORD_VERSION`].
    pub version: u32,
    /// Start, ns since 1970.
    pub started_unix_ns: u64,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Mean distance between samples, bytes; 1 in exact mode.
    pub mean_bytes: u64,
    /// Every object is recorded.
    pub exact: bool,
    /// Its heap was recorded; older runs did nothing else.
    #[serde(default = "yes")]
    pub heap: bool,
    /// The process that ran already, when it was not started by us.
    #[serde(default)]
    pub attached: Option<u32>,
    /// How it ended; absent while it runs, and when the recorder was killed.
    pub end: Option<Ending>,
}

const fn yes() -> bool {
    true
}

/// How a recorded program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// End, ns since 1970.
    pub ended_unix_ns: u64,
    /// Exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
}

impl Recorded {
    /// Writes the file into a run directory.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn write(&self, run: &Path) -> io::Result<()> {
        let new = run.join(format!("{FILE}.new"));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, run.join(FILE))
    }

    /// Reads it; `None` when this is a run of another kind.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(run: &Path) -> io::Result<Option<Self>> {
        match fs::read(run.join(FILE)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The end in a word or two, as `runs list` shows it.
    #[must_use]
    pub fn end_words(&self) -> String {
        match &self.end {
            Some(Ending { code: Some(code), .. }) => format!("exit {code}"),
            Some(Ending { signal: Some(signal), .. }) => format!("signal {signal}"),
            // Recording stopped; the program may run on.
            Some(_) => "recorded".to_owned(),
            None => "unsealed".to_owned(),
        }
    }
}
