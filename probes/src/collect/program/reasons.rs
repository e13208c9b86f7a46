//! Reasons by number: each is written once, and counts refer to it.

use crate::Unavailable;
use crate::collect::perf::{Quality, Unknown, Value};
use crate::record::program::{Count, Why};

/// Reasons that are kept apart; a run has a handful.
const REASONS_MAX: usize = 256;

/// The reasons of a run.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    all: Vec<Why>,
    written: usize,
}

impl Reasons {
    /// The count that is unknown for this reason.
    pub(super) fn unknown(&mut self, why: Why) -> Count {
        let place = self.all.iter().position(|known| *known == why).unwrap_or_else(|| {
            if self.all.len() < REASONS_MAX {
                self.all.push(why);
            }
            self.all.len() - 1
        });
        Count::Unknown(u16::try_from(place).unwrap_or(u16::MAX))
    }

    pub(super) fn unavailable(&mut self, why: &Unavailable) -> Count {
        self.unknown(Why::from(why))
    }

    pub(super) fn say(&mut self, source: &str, cause: &str, remedy: &str) -> Count {
        self.unknown(Why {
            source: source.to_owned(),
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        })
    }

    /// A value of a group.
    pub(super) fn value(&mut self, value: &Value) -> Count {
        match (value.quality, value.known()) {
            (Quality::Exact, Some(count)) => Count::Exact(count),
            (Quality::Scaled(share), Some(count)) => Count::Scaled(count, share),
            (Quality::Rough(share), Some(count)) => Count::Rough(count, share),
            (Quality::Unknown(why), _) => self.say("perf", words(why), remedy(why)),
            (_, None) => self.say("perf", "no value", "none known"),
        }
    }

    /// Those that are new since the last call.
    pub(super) fn fresh(&mut self) -> Vec<Why> {
        let fresh = self.all[self.written..].to_vec();
        self.written = self.all.len();
        fresh
    }
}

const fn words(why: Unknown) -> &'static str {
    match why {
        Unknown::NoSource => "nothing counts it here",
        Unknown::Starved => "others had the counters for the whole window",
        Unknown::TooShort => "the window is shorter than a turn of the counters",
        Unknown::Failed(_) => "reading the group failed",
        Unknown::Malformed => "the group answered with words of another group",
        Unknown::Elsewhere => "it was read from another core",
        Unknown::Standing => "it is opened and stands still: a virtual PMU that does not count",
        Unknown::Suspect(_) => {
            "the window is suspect: a count fell, or was more than a core can make"
        }
    }
}

const fn remedy(why: Unknown) -> &'static str {
    match why {
        Unknown::Starved | Unknown::TooShort => {
            "count fewer kinds at once; end other profilers; sysctl -w kernel.nmi_watchdog=0"
        }
        Unknown::Standing | Unknown::NoSource => "run on bare metal, or on a host with a vPMU",
        _ => "record again",
    }
}
