//! What a leak verdict must be told.

/// Settings of the verdict. The two times are declarations about the program: the stated error rate
/// holds for programs that keep them.
#[derive(Debug, Clone, PartialEq)]
pub struct LeakConfig {
    /// Rate below which growth is not called a leak, bytes/h. Half the gate's limit.
    pub floor: f64,
    /// The gate's limit on the growth of the whole heap, bytes/h.
    pub limit: f64,
    /// The null says that old objects die with a hazard of at least `alpha0 / age`: every bounded
    /// lifetime does in the end, and every Pareto tail with a larger exponent does always.
    pub alpha0: f64,
    /// Share of false alarms among the LEAKs and SUSPECTs that is accepted.
    pub fdr: f64,
    /// The program may fill its structures this long, ns. Births within it are not judged, and no site
    /// is called LEAK before three times this.
    pub warm_up_ns: u64,
    /// A backlog may last this long, ns: survivors that were all born within less are not a LEAK.
    pub horizon_ns: u64,
    /// An object may outlive its owner this long, ns.
    pub grace_ns: u64,
    /// Owners the program has, where that is known.
    pub owners: Option<u64>,
}

impl Default for LeakConfig {
    fn default() -> Self {
        Self {
            floor: 1e6,
            limit: 2e6,
            alpha0: 0.7,
            fdr: 0.01,
            warm_up_ns: 30 * MINUTE_NS,
            horizon_ns: 30 * MINUTE_NS,
            grace_ns: 10 * MINUTE_NS,
            owners: None,
        }
    }
}

const MINUTE_NS: u64 = 60_000_000_000;

impl LeakConfig {
    /// Before this no site is called LEAK, ns: births must be seen to go on for twice the warm-up after it.
    #[must_use]
    pub const fn earliest_ns(&self) -> u64 {
        self.warm_up_ns.saturating_mul(3)
    }

    /// Settings for a run of a few minutes or less: warm-up, horizon and grace shrink to a sixth, a
    /// quarter and a twelfth of `run_ns` where the defaults are longer.
    #[must_use]
    pub fn for_run(run_ns: u64) -> Self {
        let full = Self::default();
        Self {
            warm_up_ns: full.warm_up_ns.min(run_ns / 6),
            horizon_ns: full.horizon_ns.min(run_ns / 4),
            grace_ns: full.grace_ns.min(run_ns / 12),
            ..full
        }
    }
}
