//! What a policy asks of a series of faults, and how that is judged.
//!
//! ```toml
//! [[series]]
//! name = "chaos"
//! scenarios = ["process_crash", "cpu_throttling/quota"]
//! injections_min = 5
//! seconds_min = 600
//! agents_min = 10000
//!
//! [[gate]]
//! id = "chaos-recovery"
//! run = "chaos"
//! require = "recovery<30s"
//!
//! [[gate]]
//! id = "chaos-partition"
//! run = "chaos"
//! require = "recovery[network_partition]<15s"
//! ```
//!
//! Every fault that a series holds is judged, and those that the policy names must be among them, as this version defines
//! them. What is missing, cannot be done on the host, did not bite or was done too rarely is INCONCLUSIVE.

mod judge;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::chaos::record::Verdict;
use crate::chaos::scenario;
use crate::verdict::duration;

pub(super) use judge::on_series;

/// What a series must be to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeriesNeed {
    /// Name, by which gates and the command line call it.
    pub name: String,
    /// Scenarios, or faults of them as in `cpu_throttling/quota`, that must be in it.
    pub scenarios: Vec<String>,
    /// Fewest injections of each fault.
    pub injections_min: u32,
    /// Shortest time that a fault lasts, s; one that kills is over at once.
    #[serde(default)]
    pub hold_seconds_min: u64,
    /// Shortest time during which requests were due, over all subjects, s.
    pub seconds_min: u64,
    /// Fewest agents that a subject's plan has.
    pub agents_min: u64,
    /// Fewest requests per second that a subject's schedule asks for.
    #[serde(default)]
    pub offered_per_s_min: u64,
}

impl SeriesNeed {
    /// What it cannot mean, in words.
    pub(super) fn check(&self) -> Result<(), String> {
        let of = &self.name;
        if self.scenarios.is_empty() || self.injections_min == 0 {
            return Err(format!("series {of:?} asks for no scenario or no injection"));
        }
        match self.scenarios.iter().find(|word| scenario::named(word).is_empty()) {
            Some(word) => Err(format!(
                "series {of:?} asks for {word:?}, which is no scenario or fault of this version"
            )),
            None => Ok(()),
        }
    }
}

impl SeriesNeed {
    /// Whether what a gate judges must be in it: a limit of faults that nobody asks for is met by their absence.
    pub(super) fn covers(&self, gate: &SeriesGate) -> Result<(), String> {
        let SeriesGate::Recovery { of: Some(of), .. } = gate else { return Ok(()) };
        let asked: Vec<String> =
            self.scenarios.iter().flat_map(|word| scenario::named(word)).map(|of| of.0).collect();
        let judged = scenario::named(of);
        if let Some((name, _)) = judged.iter().find(|(name, _)| !asked.contains(name)) {
            return Err(format!("{name} is not among the scenarios of {:?}", self.name));
        }
        if !judged.iter().any(|(_, fault)| fault.act.is_of_the_service()) {
            return Err(format!("the service suffers nothing by {of}: nothing comes back from it"));
        }
        Ok(())
    }
}

/// One requirement of a series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeriesGate {
    /// Every fault of the service: it is back sooner than this after the revert.
    Recovery {
        /// Of this scenario, or of this fault as in `cpu_throttling/quota`; none: of all.
        of: Option<String>,
        /// Limit, ns.
        limit_ns: u64,
    },
    /// Nothing that was asked, answered, promised or logged is lost or there twice.
    Integrity,
    /// What was done is taken back, and nothing of it is left.
    Residue,
    /// Every scenario is worth a PASS by its own limits.
    Scenarios,
}

impl SeriesGate {
    /// Reads one: `recovery<30s`, `recovery[SCENARIO]<15s`, `recovery[SCENARIO/FAULT]<15s`, `integrity`, `residue` or
    /// `scenarios`.
    ///
    /// # Errors
    /// What is not understood, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        match text.split_once('<') {
            None if text == "integrity" => Ok(Self::Integrity),
            None if text == "residue" => Ok(Self::Residue),
            None if text == "scenarios" => Ok(Self::Scenarios),
            Some((name, limit)) if name.trim_start().starts_with("recovery") => {
                let of = filter(name.trim())?;
                Ok(Self::Recovery { of, limit_ns: duration(limit.trim())? })
            }
            _ => Err(not_one(text)),
        }
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Recovery { of: None, .. } => "recovery".to_owned(),
            Self::Recovery { of: Some(of), .. } => format!("recovery[{of}]"),
            Self::Integrity => "integrity".to_owned(),
            Self::Residue => "residue".to_owned(),
            Self::Scenarios => "scenarios".to_owned(),
        }
    }

    /// Requirement in words.
    #[must_use]
    pub fn requirement(&self) -> String {
        match self {
            Self::Recovery { limit_ns, of } => {
                let of = of.as_ref().map(|of| format!(" from {of}")).unwrap_or_default();
                format!("longest recovery{of} < {} s after the revert", *limit_ns as f64 / 1e9)
            }
            Self::Integrity => "nothing is lost, nothing is there twice".to_owned(),
            Self::Residue => "every fault is taken back and nothing is left".to_owned(),
            Self::Scenarios => "every scenario is PASS".to_owned(),
        }
    }
}

fn not_one(text: &str) -> String {
    format!(
        "{text:?} is no gate of a series: those are recovery<30s, recovery[network_partition]<15s, integrity, residue and scenarios"
    )
}

/// What `recovery[...]` names: a scenario or fault of this version.
fn filter(name: &str) -> Result<Option<String>, String> {
    let rest = &name["recovery".len()..];
    if rest.is_empty() {
        return Ok(None);
    }
    let of = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let of = of.ok_or_else(|| not_one(name))?.trim();
    if scenario::named(of).is_empty() {
        return Err(format!("{of:?} is no scenario or fault of this version"));
    }
    Ok(Some(of.to_owned()))
}

/// One series of a certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertSeries {
    /// Name in the policy.
    pub name: String,
    /// Id; none when no series was given.
    pub id: Option<String>,
    /// Start, RFC 3339.
    pub started: Option<String>,
    /// Kernel and CPU.
    pub host: Option<String>,
    /// Seed of its load and of its instants.
    pub seed: Option<u64>,
    /// Agents that a subject had, at least.
    pub agents: Option<u64>,
    /// Requests per second that a subject's schedule asked for, at least.
    pub planned_per_s: Option<f64>,
    /// Time during which requests were due, over all subjects, ns.
    pub loaded_ns: Option<u64>,
    /// How long the shortest of the faults that last did, ns; none when none lasts.
    pub shortest_hold_ns: Option<u64>,
    /// Scenarios.
    pub scenarios: Vec<CertScenario>,
    /// What it is not, of what the policy needs; empty when it counts.
    pub lacks: Vec<String>,
    /// Things to know before believing a figure.
    pub caveats: Vec<String>,
}

/// One scenario of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertScenario {
    /// Name.
    pub name: String,
    /// What it is worth with as many injections as the policy needs.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Its faults.
    pub faults: u64,
    /// Injections of all of them.
    pub injections: u64,
    /// Injections of the fault that has fewest.
    pub fewest: u64,
    /// Longest recovery after a revert, or the least that it was, ns; none when nothing of the kind was judged.
    pub longest_ns: Option<u64>,
    /// Whether it was longer than that, and nobody looked any more.
    pub longer: bool,
}

/// A series that was not given.
pub(super) fn missing(need: &SeriesNeed) -> CertSeries {
    CertSeries {
        name: need.name.clone(),
        id: None,
        started: None,
        host: None,
        seed: None,
        agents: None,
        planned_per_s: None,
        loaded_ns: None,
        shortest_hold_ns: None,
        scenarios: Vec::new(),
        lacks: vec!["no such series was given".to_owned()],
        caveats: Vec::new(),
    }
}
