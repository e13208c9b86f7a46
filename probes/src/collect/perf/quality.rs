//! What happened between two readings, and how far to believe it; pure.
//!
//! The kernel shares counters among groups by time, and a group that had its counters for part of the
//! window has counted a part. Its count is then scaled by enabled / running, which is a guess: within
//! 0.9 it is [`Quality::Scaled`], below [`Quality::Rough`] and no verdict may use it. Never over a
//! window shorter than a rotation: a group that did not run in it has not counted zero, it has not
//! counted. And what no machine does (values that fall, more events than a core can make, a window in
//! which the thread changed its core) is suspect, and no number.

use super::kind::{KINDS, Kind, Scope, Support};
use super::reading::{Reading, State};

/// Thousandths of running / enabled from which a count is as good as exact.
const EXACT_PERMILLE: u64 = 999;
/// And from which it may be used for verdicts.
const SCALED_PERMILLE: u64 = 900;

/// No core makes more events of any kind than this in a ns: 10 GHz times 6 instructions.
const EVENTS_PER_NS_MAX: u64 = 60;

/// Readings of the group's times and of the caller's clock are not one instant, ns.
const SLACK_NS: u64 = 1_000_000;

/// Cycles or instructions that stand still for so long while their group runs are not counted at all.
const STANDING_ALL_NS: u64 = 1_000_000;
/// Without the kernel's work a thread may be in one long system call.
const STANDING_USER_NS: u64 = 100_000_000;

/// What the judgement depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How often the kernel passes counters from group to group, ns.
    pub rotation_ns: u64,
    /// The CPU that all readings must come from; `None` for threads that are not pinned.
    pub cpu: Option<u32>,
}

/// Why a whole window is not to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspect {
    /// The second reading is not after the first.
    Time,
    /// A count or a time of the group fell.
    Fell(Kind),
    /// The group's times fell, or ran faster than the clock.
    GroupTime,
    /// More events than a core can make: a wrap, or a counter that was set.
    TooMany(Kind),
    /// The thread was on another core than the one it belongs to.
    Moved,
}

/// Why a count is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It has no source here; [`Support`] says why.
    NoSource,
    /// The group never had its counters in this window.
    Starved,
    /// It had them for a part of a window that is shorter than a rotation.
    TooShort,
    /// A read failed with this errno.
    Failed(i32),
    /// A read gave words that are not this group's.
    Malformed,
    /// It was read from another core.
    Elsewhere,
    /// It runs and stands still: it is opened and does not count (a vPMU that is none).
    Standing,
    /// The window is suspect.
    Suspect(Suspect),
}

/// How far to believe a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// As counted.
    Exact,
    /// Scaled from this many thousandths of the window, 900 to 998.
    Scaled(u16),
    /// Scaled from less; for the eye, not for verdicts.
    Rough(u16),
    /// There is no number.
    Unknown(Unknown),
}

/// A count of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value {
    /// As the kernel counted it.
    pub raw: u64,
    /// Scaled to the whole window; 0 and meaningless where unknown: use [`Value::known`].
    count: u64,
    /// How far to believe it.
    pub quality: Quality,
}

impl Value {
    const fn unknown(why: Unknown) -> Self {
        Self { raw: 0, count: 0, quality: Quality::Unknown(why) }
    }

    /// The count, where there is one.
    #[must_use]
    pub const fn known(&self) -> Option<u64> {
        match self.quality {
            Quality::Unknown(_) => None,
            _ => Some(self.count),
        }
    }

    /// The count, where a verdict may use it.
    #[must_use]
    pub const fn certain(&self) -> Option<u64> {
        match self.quality {
            Quality::Exact | Quality::Scaled(_) => Some(self.count),
            Quality::Rough(_) | Quality::Unknown(_) => None,
        }
    }
}

/// What happened between two readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delta {
    /// Between the two, ns.
    pub elapsed_ns: u64,
    /// How long the group was enabled, ns. Of a thread's group this is the thread's time on a CPU, also
    /// while others have the counters.
    pub enabled_ns: u64,
    /// How long it had its counters, ns.
    pub running_ns: u64,
    /// Why to believe nothing of it.
    pub suspect: Option<Suspect>,
    values: [Value; KINDS],
}

impl Delta {
    /// The count of `kind`.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> Value {
        self.values[kind.index()]
    }

    /// Instructions per cycle in thousandths: of one group, so both are of the same time.
    #[must_use]
    pub const fn ipc_permille(&self) -> Option<u64> {
        let (cycles, instructions) = (self.of(Kind::Cycles), self.of(Kind::Instructions));
        match (cycles.certain(), instructions.certain()) {
            (Some(_), Some(_)) if cycles.raw > 0 => {
                Some(instructions.raw.saturating_mul(1_000) / cycles.raw)
            }
            _ => None,
        }
    }
}

/// Judges the window between two readings of the same backend. Allocates nothing.
#[must_use]
pub fn between(support: &Support, rules: &Rules, before: &Reading, after: &Reading) -> Delta {
    let suspect = suspect(support, rules, before, after);
    let grouped = grouped(rules, before, after);
    let elapsed_ns = after.at_ns.saturating_sub(before.at_ns);
    let times =
        suspect.is_none() && (before.state, after.state) == (State::Counted, State::Counted);
    let time = |a: u64, b: u64| if times { b - a } else { 0 };
    let (enabled_ns, running_ns) =
        (time(before.enabled_ns, after.enabled_ns), time(before.running_ns, after.running_ns));
    let values = Kind::ALL.map(|kind| {
        let Ok(source) = support.of(kind) else { return Value::unknown(Unknown::NoSource) };
        if let Some(suspect) = suspect {
            return Value::unknown(Unknown::Suspect(suspect));
        }
        let raw = after.values[kind.index()].wrapping_sub(before.values[kind.index()]);
        if !source.grouped {
            return Value { raw, count: raw, quality: Quality::Exact };
        }
        let quality = match grouped {
            Err(why) => return Value::unknown(why),
            Ok(quality) => quality,
        };
        let core = matches!(kind, Kind::Cycles | Kind::Instructions);
        let patience = match source.scope {
            Scope::All => STANDING_ALL_NS,
            Scope::User => STANDING_USER_NS,
        };
        if core && raw == 0 && running_ns >= patience {
            return Value::unknown(Unknown::Standing);
        }
        let count =
            if quality == Quality::Exact { raw } else { scale(raw, enabled_ns, running_ns) };
        Value { raw, count, quality }
    });
    Delta { elapsed_ns, enabled_ns, running_ns, suspect, values }
}

fn scale(raw: u64, enabled_ns: u64, running_ns: u64) -> u64 {
    let wide = u128::from(raw) * u128::from(enabled_ns) / u128::from(running_ns.max(1));
    u64::try_from(wide).unwrap_or(u64::MAX)
}

/// Quality of what the group counted.
fn grouped(rules: &Rules, before: &Reading, after: &Reading) -> Result<Quality, Unknown> {
    for reading in [before, after] {
        match reading.state {
            State::Counted => {}
            State::Ungrouped => return Err(Unknown::NoSource),
            State::Starved => return Err(Unknown::Starved),
            State::Failed(errno) => return Err(Unknown::Failed(errno)),
            State::Malformed => return Err(Unknown::Malformed),
            State::Elsewhere => return Err(Unknown::Elsewhere),
        }
    }
    let enabled = after.enabled_ns.saturating_sub(before.enabled_ns);
    let running = after.running_ns.saturating_sub(before.running_ns);
    if enabled == running && enabled > 0 {
        return Ok(Quality::Exact);
    }
    if enabled < rules.rotation_ns {
        return Err(Unknown::TooShort);
    }
    if running == 0 {
        return Err(Unknown::Starved);
    }
    let permille = u128::from(running) * 1_000 / u128::from(enabled);
    let permille = u16::try_from(permille).unwrap_or(1_000);
    Ok(match u64::from(permille) {
        EXACT_PERMILLE.. => Quality::Exact,
        SCALED_PERMILLE.. => Quality::Scaled(permille),
        _ => Quality::Rough(permille),
    })
}

fn suspect(support: &Support, rules: &Rules, a: &Reading, b: &Reading) -> Option<Suspect> {
    if b.at_ns <= a.at_ns {
        return Some(Suspect::Time);
    }
    if rules.cpu.is_some_and(|cpu| a.cpu != cpu || b.cpu != cpu) {
        return Some(Suspect::Moved);
    }
    let elapsed = b.at_ns - a.at_ns;
    let both = (a.state, b.state) == (State::Counted, State::Counted);
    if both {
        let (enabled, running) =
            (b.enabled_ns.checked_sub(a.enabled_ns), b.running_ns.checked_sub(a.running_ns));
        let (Some(enabled), Some(running)) = (enabled, running) else {
            return Some(Suspect::GroupTime);
        };
        if running > enabled.saturating_add(SLACK_NS) || enabled > elapsed.saturating_add(SLACK_NS)
        {
            return Some(Suspect::GroupTime);
        }
    }
    let most = elapsed.saturating_add(SLACK_NS).saturating_mul(EVENTS_PER_NS_MAX);
    support.counted().filter(|(_, source)| both || !source.grouped).find_map(|(kind, _)| {
        let most = if kind == Kind::TaskClock { elapsed.saturating_add(SLACK_NS) } else { most };
        match b.values[kind.index()].checked_sub(a.values[kind.index()]) {
            None => Some(Suspect::Fell(kind)),
            Some(count) if count > most => Some(Suspect::TooMany(kind)),
            Some(_) => None,
        }
    })
}

#[cfg(test)]
mod tests;
