//! Turns that kept a core from all others, as lines of a run's report.

use std::io::{self, Write};

use tailbeam_harness::report::{Measured, StallRow, StallsSection};

use super::units::{count, span, time};

/// Stalls shown one by one, and functions of each.
const ROWS: usize = 3;
const FUNCTIONS: usize = 6;

/// Writes how many there were, and where the longest were.
pub(super) fn stalls(stalls: &Measured<StallsSection>, out: &mut dyn Write) -> io::Result<()> {
    let section = match stalls {
        Measured::Known(section) => section,
        Measured::Unknown { unknown, remedy } => {
            return writeln!(out, "Stalls    unknown ({unknown}; {remedy})");
        }
    };
    let unseen = match section.windows_unseen {
        0 => String::new(),
        n => format!(" (in {n} windows nobody looked)"),
    };
    let limit = time(section.limit_ns as f64);
    let n = match section.found {
        0 => return writeln!(out, "Stalls    no turn kept its core for {limit} or longer{unseen}"),
        1 => "1 turn".to_owned(),
        n => format!("{} turns", count(n)),
    };
    writeln!(
        out,
        "Stalls    {n} kept a core from all others for {limit} or longer{unseen}; the longest:"
    )?;
    section.longest.iter().take(ROWS).try_for_each(|row| one(row, out))
}

fn one(row: &StallRow, out: &mut dyn Write) -> io::Result<()> {
    let (at, lasted) = (span(row.at_s), time(row.at_least_ns as f64));
    writeln!(out, "  at {at}, core {}, {lasted} or longer: {}", row.core, row.owner)?;
    match &row.stack {
        Measured::Unknown { unknown, remedy } => {
            writeln!(out, "    where: unknown ({unknown}; {remedy})")
        }
        Measured::Known(stack) => {
            for function in stack.iter().take(FUNCTIONS) {
                writeln!(out, "    {function}")?;
            }
            match stack.len().saturating_sub(FUNCTIONS) {
                0 => Ok(()),
                n => writeln!(out, "    and {n} around it"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(of: &Measured<StallsSection>) -> String {
        let mut out = Vec::new();
        stalls(of, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn none_unknown_and_some_are_told_apart() {
        let none = StallsSection {
            limit_ns: 25_000_000,
            found: 0,
            windows_unseen: 0,
            longest: Vec::new(),
        };
        assert!(text(&Measured::Known(none.clone())).contains("no turn kept its core for 25.0 ms"));
        assert!(text(&Measured::unknown("an old run", "record anew")).contains("unknown (an old"));
        let row = serde_json::json!({
            "at_s": 12.0, "core": 1, "agent": 17, "owner": "agent 17 (Asker on Ask)",
            "at_least_ns": 31_000_000, "stack": ["a", "b", "c", "d", "e", "f", "g", "h"],
        });
        let row: StallRow = serde_json::from_value(row).unwrap();
        let mut unseen = row.clone();
        unseen.stack = Measured::unknown("it did not run", "look");
        let some =
            StallsSection { found: 1_200, windows_unseen: 2, longest: vec![row, unseen], ..none };
        let said = text(&Measured::Known(some));
        assert!(
            said.contains("1,200 turns kept a core")
                && said.contains("in 2 windows nobody")
                && said.contains("core 1, 31.0 ms"),
            "{said}"
        );
        assert!(said.contains("agent 17 (Asker on Ask)\n    a\n    b"), "{said}");
        assert!(said.contains("    f\n    and 2 around it"), "{said}");
        assert!(said.contains("where: unknown (it did not run; look)"), "{said}");
    }
}
