//! What the leak verdict says, as plain values. Rates are bytes per hour of requested memory, shares
//! lie in `0..=1`, intervals are two-sided 95 % at this instant.

use crate::Unavailable;
use crate::stats::Judgement;

/// What may be said of a site, of an owner at a site, or of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Objects that do not die are born all the time, faster than the floor. The error rate holds
    /// however often the verdict was read.
    Leak,
    /// Objects do not die, but the rate may be below the floor or the growth may be over.
    Suspect,
    /// The rate is below the floor.
    Clean,
    /// The run is too short, or too coarsely sampled, to say.
    Inconclusive,
}

/// A figure with its 95 % interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower bound.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// How the memory grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// Objects of their own, born and never freed: an insert without its remove.
    Inserts,
    /// A few realloc chains that still grow: an unbounded Vec, String or table.
    Chains {
        /// Chains that still grow.
        chains: u32,
        /// Reallocations of the one that grew most often.
        doublings: u32,
    },
    /// Objects outlived the owner that made them.
    Orphans,
}

/// Why a site that looks like growth is not, or not yet, called a leak.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    /// The run is younger than three times the declared warm-up.
    TooEarly,
    /// Births of survivors decline: a structure that fills up.
    WarmUp,
    /// Objects come and go: as many bytes die as are born.
    Turnover,
    /// Each owner keeps at most one: the growth ends when every owner has its own.
    PerOwner {
        /// Owners that hold one.
        owners: u32,
        /// Owners there are.
        of: u64,
    },
    /// All survivors are younger than the declared horizon: a queue that may still drain.
    Backlog,
    /// Nothing has survived since.
    Stopped {
        /// Birth of the last survivors, ns since the start.
        at_ns: u64,
    },
    /// More live because more is asked for; lifetimes did not change.
    Load,
    /// No object outlived its kind.
    NoSurvivors,
    /// Objects do not die, but so few come that the rate is below the floor.
    BelowFloor,
    /// The interval of the rate straddles the floor.
    Straddles,
    /// Old objects still die as fast as a long tail would.
    TailDies,
}

/// How strong the case against "old objects die" is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Evidence {
    /// ln of the e-value: the null makes it exceed `ln(1/p)` at any time with a probability below `p`.
    pub log_e: f64,
    /// `min(1, 1/e)`: a p-value that may be read at any time.
    pub p: f64,
    /// Adjusted for all sites judged together (Benjamini-Hochberg on e-values).
    pub q: f64,
    /// Age beyond which the deaths were counted, ns.
    pub old_ns: u64,
    /// Sampled objects that lived beyond that age and live now.
    pub old_alive: u64,
    /// Sampled objects that died beyond that age.
    pub old_dead: u64,
    /// Deaths the null expects at least.
    pub expected_dead: f64,
}

/// A verdict and the figures it rests on.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not LEAK, unless it is.
    pub reason: Option<Reason>,
    /// Growth of what does not die, bytes/h, since [`Self::since`]; `None` before there is a window.
    pub rate: Option<Interval>,
    /// The same per million operations, where operations are counted.
    pub per_million: Option<Interval>,
    /// Lower bound of the rate that holds however often it was read; the floor is judged on it.
    pub rate_low_any_time: f64,
    /// The case against the null.
    pub evidence: Evidence,
    /// How it grows; `None` unless LEAK or SUSPECT.
    pub growth: Option<Growth>,
    /// Birth of the first object that stayed.
    pub since: Option<Onset>,
    /// Hours until the verdict should fall, when it has not and that can be told.
    pub hours_needed: Option<f64>,
}

/// When growth began, ns since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Onset {
    /// Best estimate.
    pub at_ns: u64,
    /// Earliest instant the data allow.
    pub low_ns: u64,
    /// Latest.
    pub high_ns: u64,
    /// The growth began with the run: there is no change point.
    pub from_start: bool,
}

/// Live objects at a site.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Survivors {
    /// Sampled objects that live.
    pub sampled: u64,
    /// Estimated objects that live, with the interval of the sampling.
    pub objects: Interval,
    /// Estimated bytes that live, with the interval of the sampling.
    pub bytes: Interval,
    /// Sampled objects born, dead or alive.
    pub born: u64,
    /// Share of the sampled objects born that live.
    pub survival: Option<f64>,
    /// Age of the oldest, ns.
    pub oldest_ns: u64,
    /// Live objects by age, youngest first, without gaps.
    pub ages: Vec<AgeCount>,
    /// Live objects by size, most bytes first; at most [`SIZES_MAX`], the rest counted in the last.
    pub sizes: Vec<SizeCount>,
    /// Live objects by core of birth, most bytes first.
    pub cores: Vec<CoreCount>,
}

/// Sizes that a report tells apart.
pub const SIZES_MAX: usize = 8;
/// Owners that a site lists.
pub const OWNERS_MAX: usize = 32;

/// Live objects of an age.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AgeCount {
    /// Youngest age, ns; the next entry's is the oldest.
    pub from_ns: u64,
    /// Sampled objects.
    pub sampled: u64,
    /// Estimated bytes.
    pub bytes: f64,
}

/// Live objects of a size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SizeCount {
    /// Requested bytes; `None` for all the other sizes together.
    pub size: Option<u64>,
    /// Sampled objects.
    pub sampled: u64,
    /// Estimated objects.
    pub objects: f64,
    /// Estimated bytes.
    pub bytes: f64,
}

/// Live objects of a core.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CoreCount {
    /// Core.
    pub core: u16,
    /// Sampled objects.
    pub sampled: u64,
    /// Estimated bytes.
    pub bytes: f64,
}

/// Whose the growth is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// No survivor has an owner.
    Untagged,
    /// At least half of it is one owner's, as far as the interval goes.
    One(u32),
    /// A few owners hold it.
    Some {
        /// Owners with survivors.
        owners: u32,
    },
    /// As even as chance makes it over the owners seen.
    Even {
        /// Owners with survivors.
        owners: u32,
    },
}

/// An owner at a site.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnerReport {
    /// Owner.
    pub owner: u32,
    /// The verdict on this owner's objects of the site. Deaths are not known by owner: all the site's
    /// late deaths count as this owner's, which errs on the side of no leak.
    pub finding: Finding,
    /// Sampled objects of the owner that live.
    pub sampled: u64,
    /// Estimated bytes.
    pub bytes: f64,
    /// Share of the site's old objects, with its interval.
    pub share: Interval,
    /// When the owner ended, if it has, ns since the start.
    pub ended_ns: Option<u64>,
}

/// Objects whose owner ended and that live on. Facts, not estimates of a trend.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Orphans {
    /// Sampled objects.
    pub sampled: u64,
    /// Estimated bytes.
    pub bytes: f64,
    /// Owners that ended and left some.
    pub owners: u32,
    /// Longest time since an owner's end, ns.
    pub longest_ns: u64,
}

/// A site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteReport {
    /// Number of the site in the snapshot.
    pub site: u32,
    /// The verdict.
    pub finding: Finding,
    /// What lives.
    pub survivors: Survivors,
    /// Whose.
    pub spread: Spread,
    /// Owners with the most old bytes first, at most [`OWNERS_MAX`].
    pub owners: Vec<OwnerReport>,
    /// Owners that were left out of the list.
    pub owners_left_out: u32,
    /// Objects whose owner ended longer ago than the grace.
    pub orphans: Option<Orphans>,
}

/// The whole heap over time, from exact totals.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// Growth of live bytes, bytes/h, exact but for the noise of the program itself.
    pub live: Result<Interval, Unavailable>,
    /// The same per million operations.
    pub live_per_million: Option<Interval>,
    /// Sum of the rates of the sites judged LEAK or SUSPECT.
    pub explained: Interval,
    /// `live` less `explained`.
    pub unexplained: Option<Interval>,
    /// `explained / live`, when live grows beyond its noise.
    pub explained_share: Option<f64>,
    /// Held by the allocator and not live: retention and fragmentation.
    pub retained: Result<Retention, Unavailable>,
    /// Resident and not held by the allocator: stacks, code, other allocators, mapped files.
    pub foreign: Result<Retention, Unavailable>,
}

/// Memory that is not the program's live memory.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Retention {
    /// Bytes now.
    pub bytes: f64,
    /// Growth, bytes/h; `None` while there are too few readings.
    pub rate: Option<Interval>,
    /// The growth is above zero, and above the floor, as far as its interval goes.
    pub grows: bool,
}

/// The gate on leaks.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// PASS, FAIL, or what is missing.
    pub judgement: Judgement,
    /// In one sentence, for FAIL and PASS too.
    pub cause: String,
    /// What was judged against the limit: growth of live bytes, bytes/h.
    pub rate: Option<Interval>,
    /// The limit, bytes/h.
    pub limit: f64,
}

/// What a run of this length and sampling could not have seen.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Blind {
    /// Mean distance between samples, bytes.
    pub mean_bytes: u64,
    /// Rate of a leak that would have been called with 80 % by now, bytes/h; `None` if no rate would.
    pub rate_80: Option<f64>,
    /// Power now at the gate's limit, at a site without churn of its own.
    pub power_at_limit: f64,
    /// Live bytes born during the warm-up, which were not judged.
    pub warm_up_bytes: f64,
    /// Live bytes at sites without a stack of their own.
    pub other_bytes: f64,
}

/// Everything the verdict says of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct LeakReport {
    /// Instant of the snapshot, ns since the start.
    pub at_ns: u64,
    /// LEAK if any site leaks; SUSPECT if any is suspect; CLEAN if all are and the gate agrees.
    pub verdict: Verdict,
    /// LEAK first, then SUSPECT, INCONCLUSIVE, CLEAN; within a verdict the highest rate first.
    pub sites: Vec<SiteReport>,
    /// The whole heap.
    pub totals: Totals,
    /// The gate.
    pub gate: Gate,
    /// Blind spots.
    pub blind: Blind,
}

impl Interval {
    /// All three, times a factor of at least 0.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self { estimate: self.estimate * factor, low: self.low * factor, high: self.high * factor }
    }

    /// The estimate, with bounds that reach over those of `other` too.
    #[must_use]
    pub(super) fn with(self, other: Self) -> Self {
        let (low, high) = (self.low.min(other.low), self.high.max(other.high));
        Self { estimate: self.estimate, low, high }
    }
}

impl Finding {
    /// Hours until growth at the rate has added `bytes`: estimate, soonest, latest. The latest is
    /// infinite when the rate may be zero. `None` when nothing is known to grow.
    #[must_use]
    pub fn hours_until(&self, bytes: f64) -> Option<Interval> {
        let rate = self.rate.filter(|rate| rate.estimate > 0.0)?;
        let hours = |rate: f64| if rate > 0.0 { bytes / rate } else { f64::INFINITY };
        Some(Interval {
            estimate: hours(rate.estimate),
            low: hours(rate.high),
            high: hours(rate.low),
        })
    }
}

impl LeakReport {
    /// Sites with a verdict.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.sites.iter().filter(|site| site.finding.verdict == verdict).count()
    }

    /// The report on a site.
    #[must_use]
    pub fn site(&self, site: u32) -> Option<&SiteReport> {
        self.sites.iter().find(|report| report.site == site)
    }
}
