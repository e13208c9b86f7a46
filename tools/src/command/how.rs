//! How a run is watched from outside: on a terminal, by a scraper, by a supervisor.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Signal, set_parent_process_death_signal};
use tailbeam_harness::chaos::board::Board;
use tailbeam_harness::drive::LogHome;
use tailbeam_harness::remote::Second;

use super::second;
use crate::Failure;
use crate::args::{ProgressMode, Soak};
use crate::serve::{Server, serve};

/// How a run is watched.
pub(super) struct How {
    pub(super) progress: ProgressMode,
    /// Shows its sums.
    pub(super) server: Option<Server>,
    /// Shared with a supervisor.
    pub(super) board: Option<Arc<Board>>,
    pub(super) log_home: Option<LogHome>,
    /// The second process, for a plan that has one.
    pub(super) second: Option<Second>,
}

impl How {
    /// On a terminal only.
    pub(super) const fn on(progress: ProgressMode) -> Self {
        Self { progress, server: None, board: None, log_home: None, second: None }
    }

    /// As the flags say.
    pub(super) fn of(args: &Soak, err: &mut dyn Write) -> Result<Self, Failure> {
        let board = args.board.as_deref().map(attach).transpose()?.map(Arc::new);
        let home = args.log_home.clone().zip(board.as_ref());
        let log_home = home.map(|(dir, board)| LogHome { dir, secret: board.secret() });
        let second = match args.second.as_slice() {
            [] => second::launch()?,
            addresses => Second::At(addresses.to_vec()),
        };
        let (progress, server) = (args.progress, serve(args, err)?);
        Ok(Self { progress, server, board, log_home, second: Some(second) })
    }
}

/// The board of a supervisor, with which this process ends: what was done to it must not outlive who takes it back.
fn attach(path: &Path) -> Result<Board, Failure> {
    let failed = |cause: String| {
        let text = format!(
            "no board at {}\n  cause: {cause}\n  remedy: this flag is for `tailbeam chaos`, which sets it",
            path.display()
        );
        Failure::new(2, text)
    };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| failed(e.to_string()))?;
    let board = Board::attach(path, monotonic_offset_ns()).map_err(|e| failed(e.to_string()))?;
    board.begin(std::process::id());
    Ok(board)
}

/// How far this process' monotonic clock is ahead of the machine's, ns: that of its time namespace.
fn monotonic_offset_ns() -> i64 {
    // Without the file there are no time namespaces.
    offset_ns(&fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default())
}

fn offset_ns(text: &str) -> i64 {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("monotonic"));
    let mut fields = line.unwrap_or_default().split_whitespace().map(str::parse::<i64>);
    match (fields.next(), fields.next()) {
        (Some(Ok(s)), Some(Ok(ns))) => s.saturating_mul(1_000_000_000).saturating_add(ns),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let text = "monotonic        1000         5\nboottime           -3         0\n";
        assert_eq!(offset_ns(text), 1_000_000_000_005);
        assert_eq!((offset_ns(""), offset_ns("monotonic x y")), (0, 0));
        assert_eq!(offset_ns("monotonic -3 0\n"), -3_000_000_000);
    }
}
