//! The gates a run can be asked for, and their spelling: `p99<300ms,delivery>=99.9%`.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use serde::{Deserialize, Serialize};

use crate::plan::bytes_per_h;

/// One requirement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Gate {
    /// A percentile of the system latency lies below a limit.
    Percentile {
        /// 0.99 for P99.
        q: f64,
        /// Limit, ns.
        limit_ns: u64,
    },
    /// At least this fraction of requests is answered within the deadline.
    Delivery {
        /// Fraction.
        at_least: f64,
    },
    /// In at least this fraction of seconds 99 % of what ends is answered within the deadline.
    Availability {
        /// Fraction.
        at_least: f64,
    },
    /// Less than this fraction of requests ends in an error or is lost.
    Errors {
        /// Fraction.
        below: f64,
    },
    /// Less than this fraction of requests gets no answer before its deadline.
    Expired {
        /// Fraction.
        below: f64,
    },
    /// Less than this fraction of requests is refused by a limit: of the asker's rate, of its open requests, of the log.
    Refused {
        /// Fraction.
        below: f64,
    },
    /// At least as many terminal replies per second.
    Throughput {
        /// Per second.
        at_least_per_s: f64,
    },
    /// Attempts equal the sum of outcomes.
    Outcomes {},
    /// Throughput x mean time equals the number outstanding within this fraction.
    LittlesLaw {
        /// Fraction.
        within: f64,
    },
    /// No agent is starved: the largest completion count is at most this multiple of the smallest.
    Fairness {
        /// Multiple.
        max_over_min: f64,
    },
    /// No site leaks, and live memory grows by less than this.
    Leaks {
        /// Limit, bytes per hour.
        below: f64,
    },
    /// Nothing gets worse by more than this share per day, or by a step of this share.
    Degradation {
        /// Share.
        per_day: f64,
    },
    /// P99 of the lateness of sends is at most this.
    Generator {
        /// Limit, ns.
        p99_lateness_ns: u64,
    },
    /// The stages of requests add up to their latency, and the cores' time to wall time.
    Conservation {},
}

const NAMES: [&str; 19] = [
    "p50",
    "p90",
    "p95",
    "p99",
    "p99.9",
    "p99.99",
    "delivery",
    "availability",
    "errors",
    "expired",
    "refused",
    "throughput",
    "outcomes",
    "littles_law",
    "fairness",
    "generator",
    "leaks",
    "conservation",
    "degradation",
];

/// Why a gate cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("gate {text:?} at position {position} is not understood\n  cause: {cause}\n  remedy: write gates as p99<300ms,delivery>=99.9%; names: {}", NAMES.join(" "))]
pub struct GateError {
    /// The gate as given.
    pub text: String,
    /// Its position in the list, from 1.
    pub position: usize,
    /// What is wrong.
    pub cause: String,
}

/// Growth of live memory that a soak allows, bytes per hour: what the original assessment asked for.
const LEAKS_BELOW: f64 = 2e6;

/// Degradation that a soak allows per day: the relevance margin of statistics.md C6.
const DEGRADATION_BELOW: f64 = 0.05;

/// The gates of a soak when none are named. `conservation` is not among them yet: on crowded cores whoever samples the
/// requests in a leg stops the handler that it sees, and Little's law of a short leg does not hold.
#[must_use]
pub fn default_gates() -> Vec<Gate> {
    vec![
        Gate::Percentile { q: 0.99, limit_ns: 300_000_000 },
        Gate::Delivery { at_least: 0.999 },
        // They are in no latency and in no delivery, so too many of them would make both look good.
        Gate::Refused { below: 0.001 },
        Gate::Outcomes {},
        Gate::LittlesLaw { within: 0.05 },
        Gate::Fairness { max_over_min: 2.0 },
        // 1 % of the latency limit (statistics.md C1).
        Gate::Generator { p99_lateness_ns: 3_000_000 },
        Gate::Leaks { below: LEAKS_BELOW },
        Gate::Degradation { per_day: DEGRADATION_BELOW },
    ]
}

/// Reads a comma-separated list of gates.
///
/// # Errors
/// [`GateError`] for the first one that is not understood.
pub fn parse_gates(list: &str) -> Result<Vec<Gate>, GateError> {
    list.split(',')
        .enumerate()
        .map(|(index, text)| {
            let text = text.trim();
            parse(text).map_err(|cause| GateError {
                text: text.to_owned(),
                position: index + 1,
                cause,
            })
        })
        .collect()
}

fn parse(text: &str) -> Result<Gate, String> {
    let end = text.find(['<', '>', '=']).unwrap_or(text.len());
    let name = text[..end].trim();
    let rest = &text[end..];
    let operator =
        if rest.get(1..2) == Some("=") { &rest[..2] } else { rest.get(..1).unwrap_or("") };
    let value = rest[operator.len()..].trim();
    let wants = |expected: &str| {
        if operator == expected {
            Ok(())
        } else {
            Err(format!("{name} takes {expected}, not {operator:?}"))
        }
    };
    match name {
        "outcomes" if rest.is_empty() => Ok(Gate::Outcomes {}),
        "outcomes" => Err("outcomes takes no value: the sum closes or it does not".to_owned()),
        "conservation" if rest.is_empty() => Ok(Gate::Conservation {}),
        "conservation" => Err("conservation takes no value: its allowances are fixed".to_owned()),
        "littles_law" if rest.is_empty() => Ok(Gate::LittlesLaw { within: 0.05 }),
        "littles_law" => {
            wants("<=").and_then(|()| Ok(Gate::LittlesLaw { within: fraction(value)? }))
        }
        "fairness" if rest.is_empty() => Ok(Gate::Fairness { max_over_min: 2.0 }),
        "fairness" => wants("<").and_then(|()| Ok(Gate::Fairness { max_over_min: number(value)? })),
        "generator" if rest.is_empty() => Ok(Gate::Generator { p99_lateness_ns: 3_000_000 }),
        "generator" => {
            wants("<").and_then(|()| Ok(Gate::Generator { p99_lateness_ns: duration(value)? }))
        }
        "leaks" if rest.is_empty() => Ok(Gate::Leaks { below: LEAKS_BELOW }),
        "leaks" => wants("<").and_then(|()| Ok(Gate::Leaks { below: bytes_per_h(value)? })),
        "degradation" if rest.is_empty() => Ok(Gate::Degradation { per_day: DEGRADATION_BELOW }),
        "degradation" => wants("<").and_then(|()| {
            let per_day = value
                .strip_suffix("/day")
                .ok_or_else(|| format!("{value:?} is not a share per day such as 5%/day"))?;
            Ok(Gate::Degradation { per_day: fraction(per_day)? })
        }),
        "errors" => wants("<").and_then(|()| Ok(Gate::Errors { below: fraction(value)? })),
        "expired" => wants("<").and_then(|()| Ok(Gate::Expired { below: fraction(value)? })),
        "refused" => wants("<").and_then(|()| Ok(Gate::Refused { below: fraction(value)? })),
        "throughput" => wants(">=").and_then(|()| {
            let per_s = value
                .strip_suffix("/s")
                .ok_or_else(|| format!("{value:?} is not a rate such as 10000/s"))?;
            Ok(Gate::Throughput { at_least_per_s: number(per_s)? })
        }),
        "delivery" => wants(">=").and_then(|()| Ok(Gate::Delivery { at_least: fraction(value)? })),
        "availability" => {
            wants(">=").and_then(|()| Ok(Gate::Availability { at_least: fraction(value)? }))
        }
        _ if NAMES.contains(&name) => {
            wants("<")?;
            let percent: f64 = name[1..].parse().map_err(|_| "not a percentile".to_owned())?;
            Ok(Gate::Percentile { q: percent / 100.0, limit_ns: duration(value)? })
        }
        _ => Err(format!("there is no gate {name:?}")),
    }
}

fn number(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err(format!("{text} is not above 0")) }
}

fn fraction(text: &str) -> Result<f64, String> {
    let digits = text
        .strip_suffix('%')
        .ok_or_else(|| format!("{text:?} is not a percentage such as 99.9%"))?;
    let percent = number(digits.trim())?;
    if percent <= 100.0 { Ok(percent / 100.0) } else { Err(format!("{text} is above 100%")) }
}

/// A duration as in gates, ns.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit);
    let scale = match unit {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return Err(format!("{text:?} is not a duration such as 300ms (units: ns us ms s)")),
    };
    let ns = number(digits.trim())? * scale;
    if !(1.0..=3.6e12).contains(&ns) {
        Err(format!("{text} is not between 1ns and 3600s"))
    } else {
        Ok(ns.round() as u64)
    }
}

impl Gate {
    /// Name, as on the command line.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Percentile { q, .. } => format!("p{}", trimmed(q * 100.0)),
            Self::Delivery { .. } => "delivery".to_owned(),
            Self::Availability { .. } => "availability".to_owned(),
            Self::Errors { .. } => "errors".to_owned(),
            Self::Expired { .. } => "expired".to_owned(),
            Self::Refused { .. } => "refused".to_owned(),
            Self::Throughput { .. } => "throughput".to_owned(),
            Self::Outcomes {} => "outcomes".to_owned(),
            Self::LittlesLaw { .. } => "littles_law".to_owned(),
            Self::Fairness { .. } => "fairness".to_owned(),
            Self::Generator { .. } => "generator".to_owned(),
            Self::Conservation {} => "conservation".to_owned(),
            Self::Degradation { .. } => "degradation".to_owned(),
            Self::Leaks { .. } => "leaks".to_owned(),
        }
    }

    /// Requirement in words.
    #[must_use]
    pub fn requirement(&self) -> String {
        match self {
            Self::Percentile { limit_ns, .. } => {
                format!("system latency < {} ms", trimmed(*limit_ns as f64 / 1e6))
            }
            Self::Delivery { at_least } => format!(">= {} %", trimmed(at_least * 100.0)),
            Self::Availability { at_least } => {
                format!(">= {} % of seconds with 99 % answered", trimmed(at_least * 100.0))
            }
            Self::Errors { below } | Self::Expired { below } | Self::Refused { below } => {
                format!("< {} %", trimmed(below * 100.0))
            }
            Self::Throughput { at_least_per_s } => format!(">= {}/s", trimmed(*at_least_per_s)),
            Self::Outcomes {} => "attempts = sum of outcomes".to_owned(),
            Self::LittlesLaw { within } => format!("within {} %", trimmed(within * 100.0)),
            Self::Fairness { max_over_min } => format!("max / min < {}", trimmed(*max_over_min)),
            Self::Leaks { below } => {
                format!("no LEAK, growth < {} MB/h", trimmed(*below / 1e6))
            }
            Self::Conservation {} => {
                "stages = latency within 1 %, cores = wall within 1 % or 50 us".to_owned()
            }
            Self::Degradation { per_day } => format!("< {} %/day", trimmed(per_day * 100.0)),
            Self::Generator { p99_lateness_ns } => {
                format!("P99 lateness < {} ms", trimmed(*p99_lateness_ns as f64 / 1e6))
            }
        }
    }
}

/// Up to six decimals, without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_the_issue_is_understood() {
        let gates = parse_gates(
            "p99<300ms, delivery>=99.9%,outcomes,p99.9<1s,errors<0.1%,throughput>=10000/s,degradation<3%/day",
        )
        .unwrap();
        assert_eq!(gates[0], Gate::Percentile { q: 0.99, limit_ns: 300_000_000 });
        assert_eq!(gates[1], Gate::Delivery { at_least: 0.9990000000000001_f64.min(99.9 / 100.0) });
        let names: Vec<String> = gates.iter().map(Gate::name).collect();
        assert_eq!(
            names,
            ["p99", "delivery", "outcomes", "p99.9", "errors", "throughput", "degradation"]
        );
        assert_eq!(gates[6], Gate::Degradation { per_day: 0.03 });
    }

    #[test]
    fn what_is_not_understood_says_what_and_where() {
        for (text, cause) in [
            ("p98<300ms", "no gate"),
            ("p99>300ms", "takes <"),
            ("p99<300", "duration"),
            ("p99<0ms", "above 0"),
            ("delivery>=101%", "above 100%"),
            ("delivery>=0.99", "percentage"),
            ("delivery<5%", "takes >="),
            ("availability<99.95%", "takes >="),
            ("errors>=1%", "takes <"),
            ("throughput>=10000", "rate such as"),
            ("throughput>=0/s", "above 0"),
            ("degradation<5%", "share per day"),
            ("", "no gate"),
            ("outcomes<1", "no value"),
            ("conservation<1%", "no value"),
        ] {
            let error = parse_gates(&format!("outcomes,{text}")).unwrap_err();
            assert_eq!(error.position, 2);
            assert!(error.to_string().contains(cause), "{text}: {error}");
        }
    }
}
