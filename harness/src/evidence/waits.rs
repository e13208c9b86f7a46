//! `waits.json`: what the runtime's registry said at the end of a run. Written by rename, so that a reader finds a
//! whole file or none; a run that was killed has none.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tailbeam_probes::Unavailable;

/// Name of the file in the run directory.
pub const WAITS: &str = "waits.json";
/// Version of this layout.
pub const WAITS_VERSION: u32 = 1;

/// What a suspended handler waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitKind {
    /// Nothing: no waker of it is out, and it has neither an ask nor a timer. It will never run again.
    Nothing,
    /// Whoever holds one of its wakers; operations on sockets and files are among these.
    Waker,
    /// A timer.
    Timer,
    /// An answer, or its ask's deadline.
    Answer,
    /// Its turn.
    Turn,
    /// Something that this version does not name.
    Other,
}

/// Suspended handlers of one type that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRecord {
    /// Rust type of the agents; of spawned futures their own, which names the function.
    pub type_name: String,
    /// Rust type of their messages; none of spawned futures.
    pub message: Option<String>,
    /// What they wait for.
    pub wait_for: WaitKind,
    /// How many.
    pub handlers: u64,
    /// Bytes of their futures, without what these point to.
    pub bytes: u64,
    /// Messages that wait behind them.
    pub messages: u64,
    /// Wakers of theirs that are out.
    pub wakers: u64,
    /// The longest suspended one: core, slot and generation as the runtime prints them.
    pub oldest: String,
    /// Its index in the fleet, when it is an agent of the workload.
    pub agent: Option<u64>,
    /// How long it has been suspended, ns.
    pub suspended_ns: u64,
    /// How long ago it was last polled, ns.
    pub polled_ns: u64,
}

/// Wakers that are out for agents of one type that have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateRecord {
    /// Rust type of the agents, or of spawned futures.
    pub type_name: String,
    /// Rust type of their messages; none of spawned futures.
    pub message: Option<String>,
    /// Agents.
    pub agents: u64,
    /// Wakers.
    pub wakers: u64,
    /// The one that ended first.
    pub first: String,
    /// How long ago it did, ns.
    pub ended_ns: u64,
}

/// Handlers that wait and wakers that are out, when the last request of a run was over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waits {
    /// Always [`WAITS_VERSION`].
    pub version: u32,
    /// Suspended handlers; those that wait for nothing first, then by their number.
    pub waiting: Vec<WaitRecord>,
    /// Wakers of ended agents, the most first.
    pub late: Vec<LateRecord>,
    /// Those of ended agents whose type is not known: the runtime's table was full.
    pub late_unlisted: u64,
    /// Wakers of agents that are not suspended.
    pub idle_wakers: u64,
}

impl Waits {
    /// Handlers that will never run again.
    pub fn forgotten(&self) -> impl Iterator<Item = &WaitRecord> {
        self.waiting.iter().filter(|of| of.wait_for == WaitKind::Nothing)
    }

    /// Writes the file into a run directory.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn write(&self, run: &Path) -> io::Result<()> {
        let new = run.join(format!("{WAITS}.new"));
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, run.join(WAITS))
    }

    /// Reads it from the directory of a run, or of a program with a heap of its own.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn read(run: &Path) -> Result<Self, Unavailable> {
        let ours = run.join("plan.toml").is_file();
        let bytes = match fs::read(run.join(WAITS)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(ours)),
            Err(error) => return Err(unavailable(error.to_string(), "make it readable")),
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|error| {
            unavailable(error.to_string(), "restore it from a copy, or record a new run")
        })?;
        if found.version == WAITS_VERSION {
            return Ok(found);
        }
        let cause = format!("{WAITS} has version {}, known is {WAITS_VERSION}", found.version);
        Err(unavailable(cause, "read it with the tailbeam that recorded it"))
    }
}

fn missing(ours: bool) -> Unavailable {
    match ours {
        true => unavailable(
            "the run has not come to its end, or was recorded before this was read".to_owned(),
            "let a run end by itself or by SIGINT",
        ),
        false => unavailable(
            "the program does not run on Tailbeam's runtime, which alone counts these".to_owned(),
            "look for the sites of its futures in this report",
        ),
    }
}

fn unavailable(cause: String, remedy: &str) -> Unavailable {
    Unavailable { source: "the runtime's registry", cause, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits() -> Waits {
        let late = LateRecord {
            type_name: "a::Ended".to_owned(),
            message: Some("u64".to_owned()),
            agents: 2,
            wakers: 3,
            first: "0:1.2".to_owned(),
            ended_ns: 5,
        };
        let (version, waiting) = (WAITS_VERSION, Vec::new());
        Waits { version, waiting, late: vec![late], late_unlisted: 0, idle_wakers: 1 }
    }

    #[test]
    fn it_is_read_as_written_and_what_is_not_there_is_unknown() {
        let dir = tempfile::tempdir().expect("a directory");
        let cause = || Waits::read(dir.path()).expect_err("nothing to read").cause;
        assert!(cause().contains("does not run on"));
        fs::write(dir.path().join("plan.toml"), "").expect("writable");
        assert!(cause().contains("has not come to its end"));
        fs::write(dir.path().join(WAITS), "{").expect("writable");
        assert!(cause().contains("EOF"), "{}", cause());
        Waits { version: 2, ..waits() }.write(dir.path()).expect("writable");
        assert!(cause().contains("version 2"));
        waits().write(dir.path()).expect("writable");
        assert_eq!(Waits::read(dir.path()), Ok(waits()));
    }
}
