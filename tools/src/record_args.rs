//! Flags of `record` and `top`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use crate::args::{bytes, duration};

#[derive(Debug, Args)]
pub(crate) struct Record {
    /// Record heap objects too: who allocated them, how long they live
    #[arg(long, conflicts_with = "pid")]
    pub(crate) heap: bool,
    /// Record every object instead of a sample
    #[arg(long, requires = "heap")]
    pub(crate) exact: bool,
    /// Mean distance between samples, bytes (64KiB, 512KiB, 1MiB)
    #[arg(long, default_value = "512KiB", value_name = "SIZE", value_parser = bytes, conflicts_with = "exact")]
    pub(crate) sample: u64,
    /// The object to preload, when it does not lie beside this program
    #[arg(long, env = "TAILBEAM_PRELOAD", value_name = "FILE")]
    pub(crate) preload: Option<PathBuf>,
    /// A process that runs already, and what it starts from now on
    #[arg(long, conflicts_with = "command", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Stop recording after this time; the program runs on
    #[arg(long, value_parser = some_time)]
    pub(crate) duration: Option<u64>,
    /// CPU samples per second of a thread's CPU time
    #[arg(long, default_value_t = 99, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub(crate) hz: u64,
    /// No CPU samples, only counts
    #[arg(long)]
    pub(crate) no_profile: bool,
    /// Record each switch off the CPU (about 1 us each): how long threads were blocked and preempted
    #[arg(long)]
    pub(crate) switches: bool,
    /// Time between two looks at the threads
    #[arg(long, default_value = "1s", value_parser = some_time)]
    pub(crate) interval: u64,
    /// Threads that have counters of their own at once
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub(crate) counted_threads: usize,
    /// Bytes that the recording may take; it ends there and says so
    #[arg(long, default_value = "4GiB", value_name = "SIZE", value_parser = bytes)]
    pub(crate) max_disk: u64,
    /// Say nothing after the program's end
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Program and arguments
    #[arg(last = true, required_unless_present = "pid", value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Id, unique prefix, @last or @last~N of a run, also while it is written [default: @last]
    #[arg(conflicts_with = "pid")]
    pub(crate) run: Option<String>,
    /// A process instead: its threads and functions
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pid: Option<u32>,
    /// Time between two frames
    #[arg(long, default_value = "1s", value_parser = some_time)]
    pub(crate) interval: u64,
    /// One plain-text frame, then stop
    #[arg(long, conflicts_with = "count")]
    pub(crate) once: bool,
    /// So many plain-text frames, then stop
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Panics at this frame: tests see that the terminal is restored
    #[arg(long, hide = true)]
    pub(crate) panic_at: Option<u64>,
}

/// A duration that is not 0.
fn some_time(text: &str) -> Result<u64, String> {
    match duration(text)? {
        0..10_000_000 => Err("it must be 10ms or more".to_owned()),
        ns => Ok(ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_no_duration() {
        assert_eq!(some_time("10ms"), Ok(10_000_000));
        assert!(some_time("0s").is_err() && some_time("1us").is_err() && some_time("1").is_err());
    }
}
