//! `attack`: the attack suite on the live runtime, beside a load.

use std::io::{IsTerminal as _, Write};
use std::path::Path;

use signal_hook::consts::{SIGINT, SIGTERM};
use tailbeam_harness::drive::{self, Attacked, Control};
use tailbeam_harness::evidence::Store;
use tailbeam_harness::load::{Entry, Secure};
use tailbeam_harness::protocol::attack::names;
use tailbeam_harness::report;

use super::{Outcome, Watch, not_run, plan, say_preset, second};
use crate::args::{AttackArgs, Format, ProgressMode};
use crate::progress::Shown;
use crate::{Failure, render};

/// Refuses a name that no attack has.
fn known(only: &[String]) -> Result<(), Failure> {
    match only.iter().find(|name| !names().any(|known| known == *name)) {
        None => Ok(()),
        Some(name) => Err(Failure::new(
            2,
            format!(
                "no attack {name:?}\n  cause: there are {}\n  remedy: name some of them",
                names().collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// 3 when something was not held, 4 when something is not known.
pub(super) fn exit_code(attacked: &Attacked) -> u8 {
    match (attacked.broken(), attacked.not_run()) {
        (0, 0) if !attacked.findings.is_empty() => 0,
        (0, _) => 4,
        _ => 3,
    }
}

pub(super) fn run(
    args: &AttackArgs,
    root: &Path,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    known(&args.only)?;
    let load = &args.load;
    if load.workload.as_deref().is_some_and(|name| name != "elicitation") {
        let text = "only elicitation is attacked\n  cause: no other workload has signatures or limits\n  remedy: leave --workload out";
        return Err(Failure::new(2, text));
    }
    say_preset(load, err)?;
    let mut plan = plan(load, &Entry::<Secure>::NEW)?;
    plan.protocol.fresh_ns = args.fresh;
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let control = Control { second: Some(second::launch()?), ..Control::default() };
    let signals = Watch::start(&control)?;
    let mut shown = Shown::new(load.progress, std::io::stderr().is_terminal());
    let wanted = |name: &'static str| args.only.is_empty() || args.only.iter().any(|n| n == name);
    let attacked = drive::attack(&plan, &store, &control, &wanted, &mut |progress| {
        shown.show(progress, err);
    });
    shown.end();
    let signal = signals.end();
    let attacked = attacked.map_err(not_run)?;
    let report = report::build(&attacked.dir, None).map_err(|error| Failure::new(6, error))?;
    match load.format {
        Format::Table => render::attack::text(&attacked, &report, out)?,
        Format::Json => render::attack::json(&attacked, &report, out)?,
    }
    if load.progress != ProgressMode::None {
        let _ = writeln!(err, "run: {}", attacked.dir.display());
    }
    Ok(match signal {
        SIGINT => 130,
        SIGTERM => 143,
        _ => exit_code(&attacked),
    })
}

#[cfg(test)]
mod tests {
    use tailbeam_harness::protocol::attack::{Finding, Verdict};

    use super::*;

    fn code(verdicts: Vec<Verdict>) -> u8 {
        let finding = |verdict| Finding { attack: "a", about: "b", verdict };
        let findings = verdicts.into_iter().map(finding).collect();
        exit_code(&Attacked { dir: "x".into(), findings })
    }

    #[test]
    fn what_is_not_known_is_no_pass_and_what_is_found_is_three() {
        let held = || Verdict::Held { tries: 1 };
        let broken = || Verdict::Broken { how: String::new() };
        let not_run = || Verdict::NotRun { cause: String::new() };
        assert_eq!(code(vec![held(), held()]), 0);
        assert_eq!(code(vec![]), 4);
        assert_eq!(code(vec![held(), not_run()]), 4);
        assert_eq!(code(vec![not_run(), broken()]), 3);
        assert!(known(&["relay".to_owned()]).is_ok() && known(&["x".to_owned()]).is_err());
    }
}
