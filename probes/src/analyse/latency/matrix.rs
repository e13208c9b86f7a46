//! The degradation matrix: what this host let us measure, what the run then recorded of it, and so what its
//! report can say. Pure; each cell is a test.

use crate::Unavailable;
use crate::collect::perf::{Area, Capabilities, Environment};
use crate::record::latency::{Count, LatencyWindow};

/// What a run recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Ticks of cores.
    pub ticks: u64,
    /// With a task clock that a verdict may use.
    pub task_clock: u64,
    /// With time off the CPU by records of switches.
    pub switches: u64,
    /// With schedstat.
    pub schedstat: u64,
    /// Records of switches that were lost.
    pub lost: u64,
}

impl Recorded {
    /// Of the windows of all cores.
    #[must_use]
    pub fn of<'a>(windows: impl IntoIterator<Item = &'a LatencyWindow>) -> Self {
        let mut found = Self::default();
        for tick in windows.into_iter().flat_map(|window| &window.ticks) {
            let certain = |count: &Count| matches!(count, Count::Exact(_) | Count::Scaled(..));
            let mut clocks = tick.counters.iter().filter(|counter| counter.name == "task-clock");
            found.ticks += 1;
            found.task_clock += u64::from(clocks.any(|counter| certain(&counter.count)));
            found.switches += u64::from(tick.preempted_ns.is_some());
            found.schedstat += u64::from(tick.wait_ns.is_some());
            found.lost = found.lost.saturating_add(tick.lost);
        }
        found
    }
}

/// A column of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// What kind of place it is.
    Environment,
    /// Counters per core.
    Counters,
    /// Time off the CPU.
    OffCpu,
    /// Interrupts, and what the host takes.
    Steal,
    /// CPU profiles.
    Sampling,
    /// What the report says of it.
    Says,
}

impl Column {
    /// As reports write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::Counters => "counters",
            Self::OffCpu => "off-CPU",
            Self::Steal => "irq/steal",
            Self::Sampling => "sampling",
            Self::Says => "what the report says",
        }
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Of which column.
    pub column: Column,
    /// What there is.
    pub text: String,
    /// What there is not: of what, and why.
    pub unknown: Vec<(String, Unavailable)>,
}

/// The row of this host and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// In the order of [`Column`].
    pub cells: Vec<Cell>,
}

impl Matrix {
    /// The cell of a column.
    #[must_use]
    pub fn cell(&self, column: Column) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.column == column)
    }
}

/// The row of a host that allows `host`, and of a run that recorded `run`; `None`: nothing is recorded yet.
#[must_use]
pub fn matrix(host: &Capabilities, run: Option<&Recorded>) -> Matrix {
    let cells = vec![
        plain(Column::Environment, host.environment.words().to_owned()),
        counters(host, run),
        off_cpu(host, run),
        area(host, Column::Steal, Area::Steal),
        area(host, Column::Sampling, Area::Sampling),
        says(host, run),
    ];
    Matrix { cells }
}

fn plain(column: Column, text: String) -> Cell {
    Cell { column, text, unknown: Vec::new() }
}

fn area(host: &Capabilities, column: Column, area: Area) -> Cell {
    host.rows.iter().find(|row| row.area == area).map_or_else(
        || Cell { column, text: "nothing".to_owned(), unknown: vec![untried(column)] },
        |row| Cell { column, text: row.works.clone(), unknown: row.missing.clone() },
    )
}

fn untried(column: Column) -> (String, Unavailable) {
    let why = Unavailable {
        source: "capabilities",
        cause: "it was not tried out".to_owned(),
        remedy: "record with a Tailbeam that tries it".to_owned(),
    };
    (column.name().to_owned(), why)
}

fn unrecorded(source: &'static str, ticks: u64, of: u64) -> Unavailable {
    let cause = match of {
        0 => "no tick was recorded".to_owned(),
        _ => format!("{ticks} of {of} ticks have it, though the host allows it"),
    };
    let remedy = "see whether the run lowered its detail, or was recorded without it".to_owned();
    Unavailable { source, cause, remedy }
}

fn counters(host: &Capabilities, run: Option<&Recorded>) -> Cell {
    let mut cell = area(host, Column::Counters, Area::Counters);
    if let Some(run) = run
        && host.environment != Environment::Refused
        && (run.ticks == 0 || run.task_clock < run.ticks)
    {
        let why = unrecorded("task-clock", run.task_clock, run.ticks);
        cell.unknown.push(("task-clock in this run".to_owned(), why));
    }
    cell
}

fn off_cpu(host: &Capabilities, run: Option<&Recorded>) -> Cell {
    let mut cell = area(host, Column::OffCpu, Area::OffCpu);
    let Some(run) = run else { return cell };
    let allowed = |name: &str| !cell.unknown.iter().any(|(missing, _)| missing == name);
    let found = [
        ("switch records", "records of switches", run.switches),
        ("schedstat", "schedstat", run.schedstat),
    ];
    let missing: Vec<(String, Unavailable)> = found
        .into_iter()
        .filter(|(name, _, ticks)| allowed(name) && (run.ticks == 0 || *ticks < run.ticks))
        .map(|(name, source, ticks)| {
            (format!("{name} in this run"), unrecorded(source, ticks, run.ticks))
        })
        .collect();
    cell.unknown.extend(missing);
    if run.lost > 0 {
        let why = Unavailable {
            source: "records of switches",
            cause: format!("the ring had no room for {} records", run.lost),
            remedy: "drain it more often, or give it more room".to_owned(),
        };
        cell.unknown.push(("time off the CPU beyond a lower bound".to_owned(), why));
    }
    cell
}

fn says(host: &Capabilities, run: Option<&Recorded>) -> Cell {
    let cycles = || {
        let row = host.rows.iter().find(|row| row.area == Area::Counters);
        let missing = row.and_then(|row| {
            row.missing.iter().find(|(name, _)| name == "cycles" || name == "instructions")
        });
        missing.map_or_else(String::new, |(name, why)| format!("{name} unknown: {}", why.cause))
    };
    let mut text = match host.environment {
        Environment::Full => "full".to_owned(),
        Environment::UserOnly => "kernel cycles unknown".to_owned(),
        Environment::NoPmu => cycles(),
        Environment::Refused => {
            "stages, bands and conservation of requests and legs hold; that of cores is unknown"
                .to_owned()
        }
    };
    if run.is_some_and(|run| run.lost > 0) {
        text += "; conservation FAILs: records of switches were lost";
    }
    plain(Column::Says, text)
}

#[cfg(test)]
mod tests;
