//! Checks that whoever doubts them can make again: by the slots of a subject, and by its run.
//!
//! What only the supervisor could see (descriptors, groups, what a restart found in its log) is in the record and nowhere
//! else.

use serde_json::Value;

use super::board::{Cell, Fate};
use super::held;
use super::record::{Check, OpenAtEnd};
use super::recovery::{Axis, Span};

/// Of what a log said to be durable, against what it has.
pub const LOST: &str = "nothing durable is lost";
/// Of what the askers were told, against what the logs have.
pub const ACKNOWLEDGED: &str = "every answer was durable before its asker had it";
/// No descriptor is left in the process.
pub const NO_DESCRIPTOR: &str = "no descriptor is left";
/// No thread is.
pub const NO_THREAD: &str = "no thread is left";
/// Neither is, where no process served from before the last fault.
pub const NEITHER: &str = "no descriptor or thread is left";
/// What was set up on the host for a subject is gone.
pub const STAGE: &str = "its stage is taken down";

/// What a service says of a log that was damaged while it was down.
pub const NAMES_DAMAGE: &str = "a restart names what is damaged in its log";
/// What a reader says of a copy that was damaged.
pub const IS_NAMED: &str = "the damage is named with its place";

impl Check {
    /// Whether it is of what a fault leaves, not of what it loses.
    #[must_use]
    pub fn is_of_residue(&self) -> bool {
        let name = self.name.as_str();
        [NO_DESCRIPTOR, NO_THREAD, NEITHER, STAGE].contains(&name) || held::is_one(name)
    }
}

fn sum(cells: &[Cell]) -> Cell {
    let mut sum = Cell::default();
    cells.iter().for_each(|cell| sum.merge(cell));
    sum
}

/// An injection that ended a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// When.
    pub span: Span,
    /// What the process had said to be open.
    pub open: Option<OpenAtEnd>,
}

/// Requests of a core that may be counted as due and not yet as open, or as open no more and not yet as ended, when its
/// process is killed: it does one after the other.
const BETWEEN: u64 = 1;

/// Every request that was due has one end, unless its process was killed while it was open: of these there are as many as
/// the processes had said. `open_ns`: a request that is open was due at most so long ago.
#[must_use]
pub fn one_end(axis: &Axis, kills: &[Kill], open_ns: u64) -> Check {
    let ended = |cell: &Cell| cell.fates.iter().sum::<u64>();
    let twice = axis.cells.iter().filter(|cell| ended(cell) > cell.due).count();
    let killed = |slot: usize| {
        let at_ns = slot as u64 * axis.slot_ns;
        let dead = |Kill { span, .. }: &Kill| {
            (span.injected_ns.saturating_sub(open_ns)..=span.reverted_ns).contains(&at_ns)
        };
        kills.iter().any(dead)
    };
    let open = axis.cells.iter().enumerate().filter(|(slot, _)| !killed(*slot));
    let open: u64 = open.map(|(_, cell)| cell.open()).sum();
    let dead = axis.cells.iter().enumerate().filter(|(slot, _)| killed(*slot));
    let dead: u64 = dead.map(|(_, cell)| cell.open()).sum();
    let all = sum(&axis.cells);
    let fates = Fate::ALL.map(|fate| format!("{} {}", all.fate(fate), fate.name())).join(", ");
    let mut text = format!(
        "{} due = {fates}, {} without an end, {open} of them not open when a process was killed",
        all.due,
        dead + open
    );
    let mut as_said = true;
    let said: Option<Vec<OpenAtEnd>> = kills.iter().map(|kill| kill.open).collect();
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        let requests: u64 = said.iter().map(|of| of.requests).sum();
        let between: u64 = said.iter().map(|of| u64::from(of.cores) * BETWEEN).sum();
        text.push_str(&format!(", {requests} by those that were"));
        as_said = dead.abs_diff(requests) <= between;
    }
    Check::seen("every request has one end", twice == 0 && open == 0 && as_said, text)
}

/// What the run's own report says. `data`: that report, as in its document.
#[must_use]
pub fn of_report(data: &Value) -> Vec<Check> {
    let gates = data["gates"].as_array().map_or(&[][..], Vec::as_slice);
    let mut checks = Vec::new();
    match gates.iter().find(|gate| gate["gate"] == "outcomes") {
        Some(gate) => checks.push(Check::seen(
            "the run's outcomes add up",
            gate["verdict"] == "PASS",
            gate["measured"].as_str().unwrap_or_default(),
        )),
        None => {
            checks.push(Check::unknown("the run's outcomes add up", "its report has no such gate"))
        }
    }
    for (name, of) in [
        ("no elicitation ends twice", "read again: ended without having begun"),
        ("every event can be read", "read again: unreadable events"),
        ("every log can be read", "read again: logs that cannot be read"),
        ("nothing was told that the log had no room for", "events not logged"),
    ] {
        checks.push(match count(data, of) {
            Some(n) => Check::seen(name, n == 0, format!("{of}: {n}")),
            None => Check::unknown(name, format!("the report does not say {of:?}")),
        });
    }
    let whole = "the evidence is whole";
    checks.push(match data["run"]["damage"].as_array() {
        Some(damage) => {
            Check::seen(whole, damage.is_empty(), format!("{} damaged places", damage.len()))
        }
        None => Check::unknown(whole, "the report does not say what is damaged"),
    });
    checks
}

/// What a report counts under this name.
#[must_use]
pub fn count(data: &Value, name: &str) -> Option<u64> {
    let counts = data["protocol"].as_array().map_or(&[][..], Vec::as_slice);
    counts.iter().find(|of| of["name"] == name).and_then(|of| of["count"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn axis(change: impl Fn(&mut Vec<Cell>)) -> Axis {
        let mut cell = Cell { due: 10, ..Cell::default() };
        cell.fates[Fate::Ok as usize] = 10;
        let mut cells = vec![cell; 100];
        change(&mut cells);
        Axis { cells, slot_ns: SECOND / 10, expected: 10.0 }
    }

    #[test]
    fn a_second_end_is_said_beside_a_process_that_was_killed() {
        let ended_twice = axis(|cells| {
            cells[3].fates[Fate::Ok as usize] = 12;
            cells[60].fates[Fate::Ok as usize] = 9;
        });
        let span = Span { injected_ns: SECOND, reverted_ns: SECOND, until_ns: SECOND };
        let open = Some(OpenAtEnd { requests: 0, cores: 1 });
        let check = one_end(&ended_twice, &[Kill { span, open }], SECOND);
        assert_eq!(check.holds, Some(false), "{check:?}");
    }

    #[test]
    fn a_request_without_an_end_or_with_two_is_seen_unless_its_process_was_killed() {
        let span = Span { injected_ns: 5 * SECOND, reverted_ns: 6 * SECOND, until_ns: 9 * SECOND };
        let by = |axis: &Axis, open| one_end(axis, &[Kill { span, open }], 2 * SECOND).holds;
        let holds = |axis: &Axis| by(axis, None);
        assert_eq!(holds(&axis(|_| ())), Some(true));
        let open = |slot: usize| axis(move |cells| cells[slot].fates[Fate::Ok as usize] = 9);
        assert_eq!(holds(&open(20)), Some(false));
        assert_eq!(holds(&open(40)), Some(true), "it was open when its process was killed");
        assert_eq!(holds(&open(61)), Some(false), "it was due to the process that went on");
        let four = axis(|cells| cells[40].fates[Fate::Ok as usize] = 6);
        for (requests, as_said) in [(4, true), (2, true), (6, true), (1, false), (7, false)] {
            let open = Some(OpenAtEnd { requests, cores: 2 });
            assert_eq!(by(&four, open), Some(as_said), "{requests}");
        }
        let twice = |slot: usize| axis(move |cells| cells[slot].fates[Fate::Lost as usize] = 1);
        assert_eq!(holds(&twice(20)), Some(false));
        assert_eq!(holds(&twice(55)), Some(false), "also of a killed one");
    }

    #[test]
    fn what_a_report_does_not_say_is_unknown() {
        let holds = |data: &Value| -> Vec<Option<bool>> {
            of_report(data).into_iter().map(|check| check.holds).collect()
        };
        assert_eq!(holds(&serde_json::json!({})), [None; 6]);
        let mut data = serde_json::json!({
            "gates": [{"gate": "outcomes", "verdict": "PASS", "measured": "1 = 1"}],
            "protocol": [
                {"name": "read again: ended without having begun", "count": 0},
                {"name": "read again: unreadable events", "count": 0},
                {"name": "read again: logs that cannot be read", "count": 0},
                {"name": "events not logged", "count": 0},
            ],
            "run": {"damage": []},
        });
        assert_eq!(holds(&data), [Some(true); 6]);
        data["gates"][0]["verdict"] = "FAIL".into();
        (0..4).for_each(|n| data["protocol"][n]["count"] = 1.into());
        data["run"]["damage"] = serde_json::json!(["a torn tail"]);
        assert_eq!(holds(&data), [Some(false); 6]);
    }
}
