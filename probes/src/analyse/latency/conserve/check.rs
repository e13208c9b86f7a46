//! What was compared, and what came out.

use crate::Unavailable;
use crate::record::latency::Stage;

/// Two things that must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Mean of the sum of a band's stages, and its mean system latency, ns per request.
    Band {
        /// Index of the band; `None`: all requests.
        band: Option<usize>,
    },
    /// Requests in the buckets and disordered ones, and requests that the recorder counted apart.
    Requests,
    /// System latency of the requests in the buckets, and the recorder's own sum of it, ns.
    Latency,
    /// Requests in the buckets, and as many of all as are drawn; where not all are.
    Drawn,
    /// Mean system latency of the requests in the buckets, and of all, ns; where not all are in buckets.
    Fair,
    /// Requests by who asked, and by who answered: counts, latencies and every stage, ns.
    Books,
    /// Requests whose stamps are out of order, and how many may be.
    Order,
    /// Windows that are there, and windows that should be.
    Windows,
    /// A stage in the tables, and in the requests written down whole, as a share of the latency.
    Stages {
        /// Index of the band.
        band: usize,
    },
    /// Turns, parking, looking for work and our tick on a core, and its time, ns: not more than that.
    Parts {
        /// Core.
        shard: u16,
    },
    /// Time between the ticks of a core that no tick covers, ns.
    Ticks {
        /// Core.
        shard: u16,
    },
    /// CPU time and time off the CPU by records of switches, and wall time, ns.
    OnOff {
        /// Core.
        shard: u16,
    },
    /// Time blocked by records of switches, and parking and turns by the runtime, ns: not more than that.
    Blocked {
        /// Core.
        shard: u16,
    },
    /// Run time by schedstat, and by the task clock, ns.
    RunTime {
        /// Core.
        shard: u16,
    },
    /// Waiting by schedstat, and what the records of switches allow, ns.
    Waiting {
        /// Core.
        shard: u16,
    },
    /// Service of the requests that a core answered, and its turns, ns: not more than that.
    Service {
        /// Core.
        shard: u16,
    },
    /// Requests in a leg as sampled, and rate times mean time in it (Little, 1961).
    Little {
        /// 0: sent and not taken, 1: taken and not answered, 2: answered and not in hand.
        leg: usize,
    },
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// In these stages: elsewhere tables and stamps agree.
    Stages(Vec<Stage>),
    /// The stamps themselves leave a hole between the turn that took the request and the answer: service,
    /// suspended or the run queue of a resumption.
    Handler,
    /// The due instants are not the planned delay after the turn that took the request.
    Plan,
    /// Records of switches were lost.
    SwitchesLost(u64),
    /// In this window.
    Window(u32),
    /// What is compared says it all.
    Itself,
    /// Something does not fit, and nothing that was recorded tells what.
    Unclear,
}

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They agree within what is allowed.
    Pass,
    /// They do not.
    Fail(Misfit),
    /// One of them is not known, or not well enough for the comparison to be able to fail.
    Unknown(Unavailable),
}

/// The figures of a comparison, in the unit of [`What`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// The first of the two.
    pub left: f64,
    /// The second.
    pub right: f64,
    /// How far they may be apart.
    pub allowed: f64,
    /// How many requests, ticks or windows they are from.
    pub n: u64,
}

impl Figures {
    /// The first less the second.
    #[must_use]
    pub const fn residual(&self) -> f64 {
        self.left - self.right
    }
}

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Of what.
    pub what: What,
    /// What it came to.
    pub outcome: Outcome,
    /// Its figures; `None` where there is nothing to compare.
    pub figures: Option<Figures>,
}

impl Check {
    /// `misfit` is asked when the two are apart.
    pub(super) fn both_sides(
        what: What,
        figures: Figures,
        misfit: impl FnOnce() -> Misfit,
    ) -> Self {
        Self::of(what, figures, figures.residual().abs() <= figures.allowed, misfit)
    }

    /// The first may be smaller.
    pub(super) fn not_above(what: What, figures: Figures, misfit: impl FnOnce() -> Misfit) -> Self {
        Self::of(what, figures, figures.residual() <= figures.allowed, misfit)
    }

    /// With what was found already.
    pub(super) fn of(
        what: What,
        figures: Figures,
        fits: bool,
        misfit: impl FnOnce() -> Misfit,
    ) -> Self {
        let outcome = if fits { Outcome::Pass } else { Outcome::Fail(misfit()) };
        Self { what, outcome, figures: Some(figures) }
    }

    pub(super) fn unknown(
        what: What,
        source: &'static str,
        cause: impl Into<String>,
        remedy: &str,
    ) -> Self {
        let why = Unavailable { source, cause: cause.into(), remedy: remedy.to_owned() };
        Self { what, outcome: Outcome::Unknown(why), figures: None }
    }

    /// The same, with figures that do not decide.
    pub(super) fn with(mut self, figures: Figures) -> Self {
        self.figures = Some(figures);
        self
    }
}

/// What all comparisons came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All agree.
    Pass,
    /// At least one does not.
    Fail,
    /// None disagrees, and at least one could not be made.
    Inconclusive,
}

/// All comparisons.
#[derive(Debug, Clone, PartialEq)]
pub struct Conservation {
    /// What they came to.
    pub verdict: Verdict,
    /// Each.
    pub checks: Vec<Check>,
}

impl Conservation {
    pub(super) fn of(checks: Vec<Check>) -> Self {
        let any = |wanted: fn(&Outcome) -> bool| checks.iter().any(|check| wanted(&check.outcome));
        let verdict = if any(|outcome| matches!(outcome, Outcome::Fail(_))) {
            Verdict::Fail
        } else if checks.is_empty() || any(|outcome| matches!(outcome, Outcome::Unknown(_))) {
            Verdict::Inconclusive
        } else {
            Verdict::Pass
        };
        Self { verdict, checks }
    }

    /// Those that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Fail(_)))
    }

    /// Those that could not be made.
    pub fn unknown(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| matches!(check.outcome, Outcome::Unknown(_)))
    }
}
