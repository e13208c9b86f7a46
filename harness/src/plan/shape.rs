//! The shape of a load: who asks whom, and when.

use serde::{Deserialize, Serialize};

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Targets {
    /// Any other agent.
    #[default]
    Uniform,
    /// One of the first so many agents: fan-in.
    First(u32),
    /// The next one, the last asks the first.
    Ring,
}

/// When an agent asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// After a uniform think time and the planned delay of the request before, whatever became of it.
    #[default]
    Cycle,
    /// A Poisson process: exponential distances with the mean of the think time.
    Poisson,
    /// A think time after the request before has ended. A closed loop: it slows down with what it
    /// measures, and hides what it does not send.
    Closed,
}

/// The shape of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapePlan {
    /// Who is asked.
    pub targets: Targets,
    /// When.
    pub arrivals: Arrivals,
    /// How many are asked at each instant, one request each.
    pub fan_out: u32,
    /// Mean length of a session, ns, exponential: then the agent goes, and another one takes its place and its schedule.
    /// `None`: agents live throughout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_ns: Option<u64>,
}

impl Default for ShapePlan {
    fn default() -> Self {
        Self {
            targets: Targets::default(),
            arrivals: Arrivals::default(),
            fan_out: 1,
            session_ns: None,
        }
    }
}

/// Requests of one instant at most: they are sent in one turn.
pub(super) const FAN_OUT_MAX: u64 = 64;

impl Targets {
    /// Of so many agents, how many are asked.
    #[must_use]
    pub fn asked(self, agents: u64) -> u64 {
        match self {
            Self::First(first) => agents.min(u64::from(first)).max(1),
            Self::Uniform | Self::Ring => agents,
        }
    }
}
