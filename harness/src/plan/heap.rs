//! What a run does about its heap: how it samples, and what it plants so that the detector can be tested.

use serde::{Deserialize, Serialize};

/// Smallest and largest rate of a planted leak, bytes/h.
const RATE: (f64, f64) = (1e3, 1e12);

/// How a run samples its heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeapPlan {
    /// Mean distance between samples, bytes; 0 samples nothing.
    pub sample_bytes: u32,
    /// The program may fill its structures this long, ns; `None` takes 30 min.
    pub warm_up_ns: Option<u64>,
    /// A backlog may last this long, ns; `None` takes 30 min.
    pub horizon_ns: Option<u64>,
}

impl Default for HeapPlan {
    /// 64 KiB: at it a leak of 2 MB/h is found within two hours beside 20 MB of churn (leaks.md D6).
    fn default() -> Self {
        Self { sample_bytes: 64 << 10, warm_up_ns: None, horizon_ns: None }
    }
}

/// What is planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlantKind {
    /// Values put into a map and never removed.
    ForgottenInsert,
    /// Pairs that hold each other.
    RcCycle,
    /// One vector that only grows.
    GrowingVec,
    /// Futures that wait for ever.
    ForgottenTask,
    /// Values of agents that have ended.
    Orphan,
    /// Wakers of futures that have ended, kept with what they were to be woken for.
    KeptWaker,
    /// Memory of the C library, which no Rust allocator sees.
    CLibrary,
    /// Decoy: a cache that evicts.
    BoundedCache,
    /// Decoy: a table that fills up in the first sixth of the run.
    WarmUp,
    /// Decoy: one value per agent, kept from its first request on.
    Plateau,
    /// Decoy: bursts that queue up and drain.
    Backlog,
    /// Decoy: blocks of many sizes, of which every other one is freed.
    Fragmentation,
}

/// Kinds and their names, leaks first.
const KINDS: [(&str, PlantKind); 12] = [
    ("forgotten-insert", PlantKind::ForgottenInsert),
    ("rc-cycle", PlantKind::RcCycle),
    ("growing-vec", PlantKind::GrowingVec),
    ("forgotten-task", PlantKind::ForgottenTask),
    ("orphan", PlantKind::Orphan),
    ("kept-waker", PlantKind::KeptWaker),
    ("c-library", PlantKind::CLibrary),
    ("bounded-cache", PlantKind::BoundedCache),
    ("warm-up", PlantKind::WarmUp),
    ("plateau", PlantKind::Plateau),
    ("backlog", PlantKind::Backlog),
    ("fragmentation", PlantKind::Fragmentation),
];
/// Of those, leaks.
const LEAKS: usize = 7;

impl PlantKind {
    /// Name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("unknown", |(name, _)| name)
    }

    /// Whether it is something that must not be called a leak.
    #[must_use]
    pub fn is_decoy(self) -> bool {
        KINDS.iter().position(|(_, kind)| *kind == self) >= Some(LEAKS)
    }
}

/// Something planted in one agent, or in all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plant {
    /// What.
    pub kind: PlantKind,
    /// Growth of all agents that have it together, bytes/h; what a decoy allocates.
    pub bytes_per_h: f64,
    /// Index of the agent that has it; `None` for all.
    pub agent: Option<u64>,
}

/// Why a plant cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the plant {text:?} is not understood\n  cause: {cause}\n  remedy: write kind=forgotten-insert,rate=2MB/h,agent=17 (or agent=all)"
)]
pub struct PlantError {
    /// As given.
    pub text: String,
    /// What is wrong.
    pub cause: String,
}

/// Reads `kind=forgotten-insert,rate=2MB/h,agent=17`.
///
/// # Errors
/// [`PlantError`] with the first thing that is not understood.
pub fn parse_plant(text: &str) -> Result<Plant, PlantError> {
    read(text, false).map_err(|cause| PlantError { text: text.to_owned(), cause })
}

/// Reads a decoy: `bounded-cache`, or as a plant `kind=bounded-cache,rate=20MB/h,agent=all`.
///
/// # Errors
/// [`PlantError`] with the first thing that is not understood.
pub fn parse_decoy(text: &str) -> Result<Plant, PlantError> {
    read(text, true).map_err(|cause| PlantError { text: text.to_owned(), cause })
}

fn read(text: &str, decoy: bool) -> Result<Plant, String> {
    let mut plant = Plant { kind: PlantKind::ForgottenInsert, bytes_per_h: 0.0, agent: None };
    let (mut kind, mut rate) = (None, decoy.then_some(20e6));
    for part in text.split(',') {
        let (key, value) = match part.split_once('=') {
            Some(pair) => pair,
            None if decoy => ("kind", part),
            None => return Err(format!("{part:?} is not written name=value")),
        };
        match (key.trim(), value.trim()) {
            ("kind", name) => kind = Some(kind_of(name, decoy)?),
            ("rate", value) => rate = Some(bytes_per_h(value)?),
            ("agent", "all") => plant.agent = None,
            ("agent", index) => {
                let index = index.replace('_', "").parse();
                plant.agent = Some(index.map_err(|_| format!("{value:?} is no agent's index"))?);
            }
            (key, _) => return Err(format!("there is no {key:?}; it has kind, rate and agent")),
        }
    }
    plant.kind = kind.ok_or("it names no kind")?;
    plant.bytes_per_h = rate.ok_or("it names no rate")?;
    Ok(plant)
}

fn kind_of(name: &str, decoy: bool) -> Result<PlantKind, String> {
    let kinds = if decoy { &KINDS[LEAKS..] } else { &KINDS[..LEAKS] };
    let found = kinds.iter().find(|(known, _)| *known == name);
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        format!("there is no kind {name:?}; kinds: {}", names.join(" "))
    })
}

/// Reads a rate such as `2MB/h` or `512KiB/h`, between 1 kB/h and 1 TB/h.
///
/// # Errors
/// What is wrong, in words.
pub fn bytes_per_h(text: &str) -> Result<f64, String> {
    let amount = text.trim().strip_suffix("/h").ok_or("write a rate such as 2MB/h or 512KiB/h")?;
    let rate = bytes(amount)?;
    if rate >= RATE.0 && rate <= RATE.1 {
        Ok(rate)
    } else {
        Err(format!("{text} is not between 1kB/h and 1TB/h"))
    }
}

/// Reads a size such as `64KiB` or `20MB`, in bytes.
///
/// # Errors
/// What is wrong, in words.
pub fn bytes(text: &str) -> Result<f64, String> {
    let write = || format!("{text:?} is not a size such as 20MB or 64KiB");
    let text = text.trim();
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(write)?;
    let (digits, unit) = text.split_at(unit);
    let scale = match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1_024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        _ => return Err(write()),
    };
    let number: f64 = digits.trim().replace('_', "").parse().map_err(|_| write())?;
    let value = number * scale;
    if value.is_finite() && value > 0.0 && value <= 1e18 {
        Ok(value)
    } else {
        Err(format!("{text} does not lie between 0 and 1 EB"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_the_issue_is_understood() {
        let plant = parse_plant("kind=forgotten-insert,rate=2MB/h,agent=17").expect("the issue's");
        let wanted = Plant { kind: PlantKind::ForgottenInsert, bytes_per_h: 2e6, agent: Some(17) };
        assert_eq!(plant, wanted);
        assert_eq!(parse_plant("rate=1MiB/h,kind=orphan,agent=all").map(|p| p.agent), Ok(None));
        let decoy = parse_decoy("plateau").expect("a name");
        assert!(decoy.kind.is_decoy() && !plant.kind.is_decoy() && decoy.bytes_per_h > 0.0);
        for (name, kind) in KINDS {
            assert_eq!(kind.name(), name);
            let spelled = serde_json::to_string(&kind).expect("a name");
            assert_eq!(spelled, format!("{name:?}"), "the plan's spelling is the command line's");
        }
    }

    #[test]
    fn what_is_not_understood_says_what() {
        for (text, cause) in [
            ("", "name=value"),
            ("forgotten-insert", "name=value"),
            ("kind=leak,rate=2MB/h", "no kind"),
            ("kind=bounded-cache,rate=2MB/h", "no kind"),
            ("kind=orphan", "no rate"),
            ("rate=2MB/h", "no kind"),
            ("kind=orphan,rate=2MB", "rate such as"),
            ("kind=orphan,rate=0MB/h", "between"),
            ("kind=orphan,rate=-1MB/h", "between"),
            ("kind=orphan,rate=2MB/h,agent=x", "index"),
            ("kind=orphan,rate=2MB/h,site=3", "there is no"),
        ] {
            let error = parse_plant(text).expect_err(text).to_string();
            assert!(error.contains(cause) && error.contains("remedy:"), "{text}: {error}");
        }
        assert!(parse_decoy("orphan").is_err());
    }
}
