//! Gates and their judgement: pure functions over plain values. Absent evidence is never a PASS.

mod criteria;
pub mod degradation;
mod judge;
mod kendall;
pub(crate) mod student;

pub(crate) use criteria::duration;
pub use criteria::{Gate, GateError, default_gates, parse_gates};
pub use judge::{
    Conserved, Sends, combine, conservation, fairness, generator, little, outcome_sum, throughput,
    undecided_requests,
};

pub use kendall::{Kendall, mann_kendall};

use serde::{Deserialize, Serialize};

/// Verdict of one gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum GateVerdict {
    /// The requirement is met, with the confidence the gate asks for.
    Pass,
    /// It is not met.
    Fail,
    /// Neither can be said.
    Inconclusive,
}

/// Verdict of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Overall {
    /// Every gate passes and every validity check holds.
    #[serde(rename = "GO")]
    Go,
    /// A gate fails.
    #[serde(rename = "NO-GO")]
    NoGo,
    /// Everything else.
    #[serde(rename = "INCONCLUSIVE")]
    Inconclusive,
}

impl Overall {
    /// Exit code of a command that judged: 0, 3 or 4.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Go => 0,
            Self::NoGo => 3,
            Self::Inconclusive => 4,
        }
    }
}

/// How one gate was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateResult {
    /// Name, as on the command line.
    pub gate: String,
    /// Requirement in words.
    pub requirement: String,
    /// Measured figure in words.
    pub measured: String,
    /// Requests, samples or agents judged.
    pub n: u64,
    /// Blocks, for gates that are judged by blocks.
    pub blocks: Option<u64>,
    /// Verdict.
    pub verdict: GateVerdict,
    /// Why.
    pub reason: String,
    /// How much longer the run must be, s.
    pub needs_more_s: Option<f64>,
    /// Whether a disturbance from outside makes it inconclusive.
    pub latency: bool,
}

/// Something that must hold for the gates to mean anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// Name.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was seen.
    pub text: String,
    /// Whether it came from outside the subject; then gates on latency and delivery are inconclusive,
    /// whichever way they fell.
    pub outside: bool,
}

/// Every outcome of a request; `attempts` is counted apart, so that the sum can fail to close.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// Requests that came due.
    pub attempts: u64,
    /// Answered as asked.
    pub ok: u64,
    /// Declined.
    pub declined: u64,
    /// Cancelled by the asker.
    pub cancelled: u64,
    /// No answer before the deadline.
    pub expired: u64,
    /// Refused by a limit.
    pub refused: u64,
    /// Open past the deadline with nobody left to close them.
    pub lost: u64,
    /// Could not be sent, or failed.
    pub error: u64,
    /// Still open when the drain ended.
    pub open_at_stop: u64,
}

impl Outcomes {
    /// Sum of the outcomes.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.ok
            + self.declined
            + self.cancelled
            + self.expired
            + self.refused
            + self.lost
            + self.error
            + self.open_at_stop
    }

    /// What a request can come to, by name, in the order in which it is printed; without what is still open.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, u64); 7] {
        [
            ("ok", self.ok),
            ("declined", self.declined),
            ("cancelled", self.cancelled),
            ("expired", self.expired),
            ("refused", self.refused),
            ("lost", self.lost),
            ("error", self.error),
        ]
    }

    /// Terminal replies within the deadline / (attempts - refused).
    #[must_use]
    pub fn delivery(&self) -> Option<f64> {
        let asked = self.attempts.saturating_sub(self.refused);
        (asked > 0).then(|| (self.ok + self.declined) as f64 / asked as f64)
    }

    /// Adds another count.
    pub const fn merge(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.ok += other.ok;
        self.declined += other.declined;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.refused += other.refused;
        self.lost += other.lost;
        self.error += other.error;
        self.open_at_stop += other.open_at_stop;
    }
}
