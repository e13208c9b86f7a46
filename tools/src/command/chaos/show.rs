//! What a series looks like, and the two hidden commands of its processes.

use std::io::{self, Write};
use std::path::Path;

use tailbeam_harness::chaos::host::helper::Helper;
use tailbeam_harness::chaos::host::{Call, Host, Launcher, run_guard};
use tailbeam_harness::chaos::record::{Ability, ChaosRecord, Trial, VERSION};
use tailbeam_harness::chaos::recovery::Took;
use tailbeam_harness::chaos::scenario::{Fault, Scenario};
use tailbeam_harness::chaos::series;
use tailbeam_harness::evidence::{Documents, Store};

use super::super::Outcome;
use super::act;
use crate::Failure;
use crate::compare_args::PageFormat;
use crate::render::text::table;
use crate::render::{json, pages};

/// Name of the document.
const SCHEMA: &str = "tailbeam.chaos";

/// Reads a series.
pub(super) fn read(store: &Store, name: &str) -> Result<ChaosRecord, Failure> {
    let bytes =
        store.read_document(Documents::Chaos, name).map_err(|error| Failure::new(1, error))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Failure::new(
            6,
            format!("series {name} is damaged\n  cause: {error}\n  remedy: restore it from a copy, or run it again"),
        )
    })
}

/// Reads a series and judges it again, by the slots of its subjects.
pub(super) fn again(store: &Store, name: &str) -> Result<ChaosRecord, Failure> {
    let dir =
        store.find_document(Documents::Chaos, name).map_err(|error| Failure::new(1, error))?;
    let series = series::read(&dir).map_err(|error| Failure::new(6, error))?;
    Ok(series.record)
}

/// Writes it, so that a reader finds the whole of it or that of before.
pub(super) fn write(store: &Store, record: &ChaosRecord) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(record).map_err(|error| {
        Failure::new(
            1,
            format!("a series cannot be written\n  cause: {error}\n  remedy: none known"),
        )
    })?;
    store
        .write_document(Documents::Chaos, &record.id, &bytes)
        .map_err(|error| Failure::new(1, error))?;
    Ok(())
}

/// Prints it.
pub(super) fn show(record: &ChaosRecord, format: PageFormat, out: &mut dyn Write) -> Outcome {
    match format {
        PageFormat::Json => {
            json::document_of((SCHEMA, VERSION), &pages::ChaosData::of(record), out)?
        }
        PageFormat::Md => pages::markdown(&pages::chaos(record), out)?,
        PageFormat::Html => {
            let document = json::value_of((SCHEMA, VERSION), &pages::ChaosData::of(record))?;
            pages::html(&pages::chaos(record), &document, out)?;
        }
        PageFormat::Table => pages::text(&pages::chaos(record), out)?,
    }
    Ok(record.judged().verdict.exit_code())
}

/// One injection, in a line.
pub(super) fn told(fault: &Fault, k: u32, of: u32, trial: &Trial) -> String {
    let s = |ns: u64| ns as f64 / 1e9;
    let bit = if !trial.bites.is_empty() && trial.bites.iter().all(|bite| bite.bit) {
        "bit"
    } else {
        "did not bite"
    };
    let back = match trial.recovery.map(|found| found.from_revert) {
        Some(Took::Ns(ns)) => format!("back {:.1} s after the revert", s(ns)),
        Some(Took::MoreThan(ns)) => {
            let lacked = trial.recovery.and_then(|found| found.outside);
            let lacked = lacked.map(|of| format!(" ({})", of.text())).unwrap_or_default();
            format!("not back {:.1} s after the revert{lacked}", s(ns))
        }
        None => {
            let bad = trial.checks.iter().find(|check| check.holds != Some(true));
            bad.map_or_else(
                || "every check holds".to_owned(),
                |check| format!("{}: {}", check.name, check.text),
            )
        }
    };
    format!("{} {}/{of}: {bit}, {back}", fault.name, k + 1)
}

/// The scenarios with their faults, and what this host can do of them.
pub(super) fn list(
    (scenarios, root): (&[Scenario], &Path),
    dry: bool,
    format: PageFormat,
    out: &mut dyn Write,
) -> Outcome {
    if format == PageFormat::Json {
        json::document("tailbeam.chaos-scenarios", &scenarios, out)?;
        return Ok(0);
    }
    if format == PageFormat::Html {
        let text = "a list of scenarios is no HTML page\n  cause: it is short and about this host\n  remedy: --format table or json";
        return Err(Failure::new(2, text));
    }
    let failed = |error: String| {
        Failure::new(1, format!("cannot look at this host\n  cause: {error}\n  remedy: none known"))
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let launcher = Launcher { program, args: vec!["chaos-helper".to_owned()] };
    // What a run would find there, if it is not there yet: where it would be made.
    let there = root.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let host = Host::find(launcher, there).map_err(|error| failed(error.to_string()))?;
    if dry {
        for scenario in scenarios {
            writeln!(out, "{}: {}", scenario.name, scenario.about)?;
            for fault in &scenario.faults {
                writeln!(out, "  {}: {} ({})", fault.name, fault.what, fault.act.how().text())?;
                for line in act::dry(&fault.act, &host) {
                    writeln!(out, "    {line}")?;
                }
            }
        }
        return Ok(0);
    }
    let rows = scenarios.iter().flat_map(|scenario| {
        scenario.faults.iter().map(|fault| {
            let can = match act::ability(&fault.act, &host) {
                Ability::Available => "yes".to_owned(),
                Ability::Replaced { by, why } => format!("replaced by {by}: {why}"),
                Ability::Impossible { cause, remedy } => format!("no: {cause}; {remedy}"),
            };
            vec![
                format!("{}/{}", scenario.name, fault.name),
                fault.what.clone(),
                fault.act.how().text().to_owned(),
                can,
            ]
        })
    });
    writeln!(out, "{}", table(&["fault", "what", "how", "here"], rows, 4))?;
    Ok(0)
}

/// `chaos-guard`: heals the host when the supervisor is gone.
pub(in super::super) fn guard(journal: &Path) -> Outcome {
    let undone = run_guard(journal, io::stdin(), io::stdout());
    Ok(u8::from(!undone.is_ok_and(|undone| undone.clean())))
}

/// `chaos-helper`: takes away what it is told to.
pub(in super::super) fn helper(words: &[String]) -> Outcome {
    if let Some((call, program)) = Call::parse(words) {
        return Err(Failure::new(1, call.become_program(program)));
    }
    let helper = Helper::parse(words).ok_or_else(|| {
        Failure::new(2, "these are no words of a helper\n  cause: this command is for `tailbeam chaos`\n  remedy: run that")
    })?;
    helper.run().map_err(|error| Failure::new(1, error))?;
    Ok(0)
}
