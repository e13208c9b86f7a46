//! Policies: what a certificate requires, as a file that people read and version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::judge::RunDirs;
use super::series::{SeriesGate, SeriesNeed};
use crate::plan::Plan;
use crate::verdict::{Gate, parse_gates};

/// A policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Name.
    pub name: String,
    /// Version; a certificate is for one version.
    pub version: u32,
    /// What it is for, one line.
    pub about: String,
    /// Runs that it is judged on.
    #[serde(rename = "run", default)]
    pub runs: Vec<Need>,
    /// Series of faults that it is judged on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<SeriesNeed>,
    /// Gates.
    #[serde(rename = "gate")]
    pub gates: Vec<PolicyGate>,
}

/// What a run must be to count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Need {
    /// Name, by which gates and the command line call it.
    pub name: String,
    /// Shortest time during which requests were due, s.
    pub seconds_min: u64,
    /// Fewest agents, all alive all the time.
    pub agents_min: u64,
    /// Fewest requests per second that its schedule asks for.
    #[serde(default)]
    pub offered_per_s_min: u64,
    /// Workload that it must have been of; any without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Whether several builds of the program may have recorded it.
    #[serde(default, skip_serializing_if = "Builds::is_one")]
    pub builds: Builds,
    /// Whether it may have been cut and continued.
    #[serde(default, skip_serializing_if = "Continuity::is_strict")]
    pub continuity: Continuity,
    /// What its plan must say, by the keys of `plan.toml` with dots between them: a rate alone does not make a load the one
    /// that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plan: BTreeMap<String, Value>,
}

impl Need {
    /// What a plan has otherwise, in words.
    #[must_use]
    pub fn unlike(&self, plan: &Plan) -> Vec<String> {
        let found = serde_json::to_value(plan).unwrap_or_default();
        let other = |(key, wanted): (&String, &Value)| {
            let value = found.pointer(&format!("/{}", key.replace('.', "/")));
            let has = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            (value != Some(wanted))
                .then(|| format!("its plan has {has} for {key}, the policy needs {wanted}"))
        };
        self.plan.iter().filter_map(other).collect()
    }
}

/// What a run that was cut and continued counts for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Continuity {
    /// Nothing passes: what was asked for is one piece.
    #[default]
    Strict,
    /// Time that was measured counts, whatever lies between; the gaps are listed.
    Cumulative,
}

impl Continuity {
    // serde asks by reference.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    fn is_strict(&self) -> bool {
        *self == Self::Strict
    }
}

/// Which builds of the program may have recorded a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Builds {
    /// One: a certificate is for the program that ran.
    #[default]
    One,
    /// Any number, each listed.
    Any,
}

impl Builds {
    // serde asks by reference.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    fn is_one(&self) -> bool {
        *self == Self::One
    }
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyGate {
    /// Id, unique.
    pub id: String,
    /// Name of the run or of the series that it is judged on.
    pub run: String,
    /// The gate as on the command line (`p99<300ms`), of a series as in [`SeriesGate::parse`], or what is required in words
    /// if nothing measures it yet.
    pub require: String,
    /// What will measure it. Such a gate is INCONCLUSIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmeasured: Option<String>,
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the policy cannot be used\n  cause: {cause}\n  remedy: `tailbeam certify --print-policy lighthouse-sla` prints one to begin with"
)]
pub struct PolicyError {
    cause: String,
}

/// Policies that come with the program, by name.
pub const SHIPPED: [(&str, &str); 1] = [("lighthouse-sla", include_str!("lighthouse-sla.toml"))];

impl Policy {
    /// Reads and checks a policy.
    ///
    /// # Errors
    /// [`PolicyError`]: not TOML, a gate that is not understood, names that are missing or double, the name of one of
    /// [`SHIPPED`] for something else.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let failed = |cause: String| PolicyError { cause };
        let policy = Self::read(text)?;
        if policy.is_shipped() == Some(false) {
            return Err(failed(format!(
                "it is called {:?}, as one that comes with the program, and is another: give it a name of its own",
                policy.name
            )));
        }
        Ok(policy)
    }

    /// Reads a policy whatever it is called: one that a certificate is compared with, such as an earlier version of a
    /// shipped one.
    ///
    /// # Errors
    /// [`PolicyError`], but for its name.
    pub fn read(text: &str) -> Result<Self, PolicyError> {
        let failed = |cause: String| PolicyError { cause };
        let policy: Self = toml::from_str(text).map_err(|error| failed(error.to_string()))?;
        policy.check().map_err(failed)?;
        Ok(policy)
    }

    /// Whether it is what its name says it is, where that is the name of one of [`SHIPPED`].
    #[must_use]
    pub fn is_shipped(&self) -> Option<bool> {
        Self::shipped(&self.name).map(|shipped| shipped == *self)
    }

    /// The name of the run or series with which its certificate lies: the first that was given, in the policy's order.
    #[must_use]
    pub fn home(&self, dirs: &RunDirs) -> Option<&str> {
        self.names().into_iter().find(|name| dirs.contains_key(*name))
    }

    /// A policy of [`SHIPPED`].
    #[must_use]
    pub fn shipped(name: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Self::read(text).ok()
    }

    fn check(&self) -> Result<(), String> {
        let runs = self.names();
        if self.gates.is_empty() || runs.is_empty() {
            return Err("it has no gate, or neither run nor series: it could not fail".to_owned());
        }
        self.series.iter().try_for_each(SeriesNeed::check)?;
        let twice = |names: Vec<&str>| {
            let mut sorted = names;
            sorted.sort_unstable();
            sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
        };
        let ids: Vec<&str> = self.gates.iter().map(|gate| gate.id.as_str()).collect();
        if let Some(name) = twice(runs.clone()).or_else(|| twice(ids)) {
            return Err(format!("{name:?} is there twice"));
        }
        for gate in &self.gates {
            if !runs.contains(&gate.run.as_str()) {
                return Err(format!(
                    "gate {:?} is judged on a run or series {:?} that it does not ask for",
                    gate.id, gate.run
                ));
            }
            if gate.unmeasured.is_none() {
                let of_series = self.series.iter().find(|series| series.name == gate.run);
                let spelled = match of_series {
                    Some(series) => gate.of_series().and_then(|gate| series.covers(&gate)),
                    None => gate.gate().map(|_| ()),
                };
                spelled.map_err(|cause| format!("gate {:?}: {cause}", gate.id))?;
            }
        }
        if let Some(run) = runs.iter().find(|run| !self.gates.iter().any(|gate| gate.run == **run))
        {
            return Err(format!("no gate is judged on {run:?}"));
        }
        Ok(())
    }

    /// Names of its runs, and then of its series.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let runs = self.runs.iter().map(|run| run.name.as_str());
        runs.chain(self.series.iter().map(|series| series.name.as_str())).collect()
    }

    /// The gates that can be measured on `run`.
    #[must_use]
    pub fn gates_of(&self, run: &str) -> Vec<Gate> {
        self.gates
            .iter()
            .filter(|gate| gate.run == run && gate.unmeasured.is_none())
            .filter_map(|gate| gate.gate().ok())
            .collect()
    }
}

impl PolicyGate {
    /// The gate that `require` spells.
    ///
    /// # Errors
    /// What is not understood, in words.
    pub fn gate(&self) -> Result<Gate, String> {
        let gates = parse_gates(&self.require).map_err(|error| error.cause)?;
        match gates.as_slice() {
            [gate] => Ok(*gate),
            _ => Err(format!("{:?} is more than one gate", self.require)),
        }
    }

    /// The gate of a series that `require` spells.
    ///
    /// # Errors
    /// What is not understood, in words.
    pub fn of_series(&self) -> Result<SeriesGate, String> {
        SeriesGate::parse(&self.require)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policies_are_sound() {
        for (name, text) in SHIPPED {
            let policy = Policy::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(policy.name, name);
            assert_eq!((Policy::shipped(name), policy.is_shipped()), (Some(policy), Some(true)));
            let weaker = text.replacen("agents_min = 10000", "agents_min = 10", 1);
            let error = Policy::parse(&weaker).unwrap_err().to_string();
            assert!(error.contains("a name of its own"), "{error}");
            let own = weaker.replacen(name, "our-own", 1);
            assert_eq!(Policy::parse(&own).map(|policy| policy.is_shipped()), Ok(None));
        }
        assert_eq!(Policy::shipped("other"), None);
    }

    #[test]
    fn a_policy_that_cannot_fail_or_is_not_understood_is_none() {
        let run = "[[run]]\nname = \"soak\"\nseconds_min = 60\nagents_min = 10\n";
        let gate = |id: &str, run: &str, require: &str| {
            format!("[[gate]]\nid = \"{id}\"\nrun = \"{run}\"\nrequire = \"{require}\"\n")
        };
        let policy =
            |rest: &str| Policy::parse(&format!("name=\"x\"\nversion=1\nabout=\"\"\n{rest}"));
        let good = gate("a", "soak", "p99<300ms");
        assert!(policy(&format!("{run}{good}")).is_ok());
        for (text, cause) in [
            (format!("run = []\n{}", "gate = []"), "could not fail"),
            (format!("{run}{run}{good}"), "twice"),
            (format!("{run}{good}{good}"), "twice"),
            (format!("{run}{}", gate("a", "other", "p99<300ms")), "does not ask for"),
            (format!("{run}{}", gate("a", "soak", "p98<300ms")), "no gate"),
            (format!("{run}{}", gate("a", "soak", "p99<300ms,outcomes")), "more than one"),
            (format!("{run}{}", good.replace("[[gate]]", "[[gates]]")), "unknown field"),
            (format!("{run}{}", run.replace("soak", "idle") + &good), "no gate is judged"),
        ] {
            let error = policy(&text).unwrap_err().to_string();
            assert!(error.contains(cause) && error.contains("remedy:"), "{cause}: {error}");
        }
    }
}
