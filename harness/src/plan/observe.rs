//! How a run observes its cores and requests.

use serde::{Deserialize, Serialize};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
/// A run longer than this takes its ticks once a second and keeps fewer requests whole.
const LONG_NS: u64 = 3_600 * SECOND;
/// Requests whose stages a core notes in a second, unless the plan says otherwise: about 50 ns each.
const STAGED_PER_S: f64 = 50_000.0;
/// One in so many is noted at least.
const STAGED_EVERY_MAX: u64 = 256;

/// How a run observes its cores and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObservePlan {
    /// Whether it does at all.
    pub on: bool,
    /// Distance between two ticks of a core, ns; `None` takes 100 ms, 1 s in runs longer than an hour.
    pub tick_ns: Option<u64>,
    /// Length of a window on disk, ns; `None` takes 10 s.
    pub window_ns: Option<u64>,
    /// Requests kept whole per core and window: drawn ones, and as many late ones. `None` takes 64, 16 in
    /// runs longer than an hour. The slowest 8 come besides.
    pub exemplars: Option<u32>,
    /// How its own cost is measured.
    #[serde(default)]
    pub cost: CostPlan,
    /// Whether each switch of a core's thread is recorded, about 1 us each. Without, time off the CPU in long turns
    /// is known by the thread's CPU time: how long, not when.
    #[serde(default = "yes")]
    pub switches: bool,
    /// One request in so many has its stages noted, drawn before it is sent; `None` takes each up to 50,000 a second
    /// and core, and above that as many as leave no core more.
    #[serde(default)]
    pub staged_every: Option<u32>,
    /// Length of the closed loop after the load that shows what measuring costs where the cores have nothing to
    /// spare, ns; 0 is none.
    #[serde(default)]
    pub saturate_ns: u64,
}

const fn yes() -> bool {
    true
}

/// How a run measures what measuring costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CostPlan {
    /// Not at all.
    Off,
    /// In each window but the first one second is without, beside one with it.
    #[default]
    Pairs,
    /// Four seconds of each window but the first, beside four with it: soon told, and half of the requests have
    /// no stages then.
    Often,
    /// The same seconds as `Often` compared, and nothing is switched: this must find no difference.
    Same,
}

impl CostPlan {
    /// Pairs of seconds in a window of 10 s.
    #[must_use]
    pub const fn pairs_per_window(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Pairs => 1,
            Self::Often | Self::Same => 4,
        }
    }
}

impl Default for ObservePlan {
    fn default() -> Self {
        Self {
            on: true,
            tick_ns: None,
            window_ns: None,
            exemplars: None,
            cost: CostPlan::Pairs,
            switches: true,
            staged_every: None,
            saturate_ns: 0,
        }
    }
}

/// The slowest requests kept whole per core and window.
pub(crate) const TOP: usize = 8;
/// Bounds of the three values.
pub(super) const TICK: (u64, u64) = (10 * MS, 10 * SECOND);
pub(super) const WINDOW: (u64, u64) = (SECOND, 600 * SECOND);
pub(super) const EXEMPLARS_MAX: u64 = 1_024;
/// Longest saturated phase.
pub(super) const SATURATE_MAX_NS: u64 = 600 * SECOND;

impl ObservePlan {
    /// Distance between two ticks in a run of this length, ns.
    #[must_use]
    pub fn tick_ns(&self, duration_ns: u64) -> u64 {
        let usual = if duration_ns > LONG_NS { SECOND } else { 100 * MS };
        self.tick_ns.unwrap_or(usual)
    }

    /// Length of a window, ns.
    #[must_use]
    pub fn window_ns(&self) -> u64 {
        self.window_ns.unwrap_or(10 * SECOND)
    }

    /// One request in so many has its stages noted, where a core has so many a second.
    #[must_use]
    pub fn staged_every(&self, per_core_s: f64) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
        let usual = (per_core_s / STAGED_PER_S).ceil() as u64;
        self.staged_every.map_or(usual, u64::from).clamp(1, STAGED_EVERY_MAX)
    }

    /// Requests drawn, and late ones, kept whole per core and window in a run of this length.
    #[must_use]
    pub fn exemplars(&self, duration_ns: u64) -> usize {
        let usual = if duration_ns > LONG_NS { 16 } else { 64 };
        self.exemplars.unwrap_or(usual) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn up_to_a_rate_each_request_has_stages_and_above_it_no_core_notes_more() {
        let plan = ObservePlan::default();
        let rates = [0.0, 1_515.0, 50_000.0, 50_001.0, 500_000.0, 1e12];
        assert_eq!(rates.map(|rate| plan.staged_every(rate)), [1, 1, 1, 2, 10, 256]);
        let plan = ObservePlan { staged_every: Some(4), ..plan };
        assert_eq!(plan.staged_every(1_000.0), 4);
    }

    #[test]
    fn long_runs_keep_less() {
        let plan = ObservePlan::default();
        assert_eq!((plan.tick_ns(LONG_NS), plan.exemplars(LONG_NS)), (100 * MS, 64));
        assert_eq!((plan.tick_ns(LONG_NS + 1), plan.exemplars(LONG_NS + 1)), (SECOND, 16));
        let asked = ObservePlan { tick_ns: Some(7), ..plan };
        assert_eq!(asked.tick_ns(LONG_NS + 1), 7);
    }
}
