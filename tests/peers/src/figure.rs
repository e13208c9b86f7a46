//! What passes from child to parent: one line of figures, each known or with the reason why not.

use serde::{Deserialize, Serialize};

use crate::usage::Used;

/// A figure, or why there is none; never 0 for what was not measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Figure {
    Known(f64),
    Unknown(String),
}

impl Figure {
    pub(crate) const fn known(&self) -> Option<f64> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }

    /// A known figure, or that there were too few of `what`.
    pub(crate) fn or(value: Option<f64>, why: &str) -> Self {
        value
            .filter(|value| value.is_finite())
            .map_or_else(|| Self::Unknown(why.to_owned()), Self::Known)
    }
}

impl From<f64> for Figure {
    fn from(value: f64) -> Self {
        Self::or(Some(value), "unknown")
    }
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// When the measured part began and ended, `CLOCK_MONOTONIC` ns.
    pub(crate) window_ns: [u64; 2],
    /// What the process used in it.
    pub(crate) used: Used,
    /// In the order of the bench's columns.
    pub(crate) figures: Vec<Figure>,
}

/// What a child prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Line {
    Measured(Round),
    /// This peer cannot do this, or not here.
    NotRun(String),
    /// A thread panicked.
    Failed(String),
}
