//! The sweep of a polling side: a run per setting, and the best one is what is compared.

use std::io::Write;

use tailbeam_harness::compare::sweep::{SweepRun, choose};
use tailbeam_harness::compare::{Recipe, Role, RunFigures, Side};
use tailbeam_harness::plan::PollPlan;
use tailbeam_harness::report::Measured;

use super::super::chaos::subject_plan;
use super::{Session, flags, save};
use crate::Failure;
use crate::args::duration;

/// The workload whose setting is swept before it is compared.
const POLLS: &str = "wait_for_messages";
/// How often its requests wait for a look until they are taken.
const LOOKS: u32 = 1;
/// Runs of one setting, when the rules leave out the ones before.
const SWEEP_TRIES: u32 = 3;

/// A setting of the sweep: name, interval, flags.
type Setting = (String, Option<u64>, Vec<String>);

/// Settings of the sweep. The long-poll is always one.
fn settings(list: &str) -> Result<Vec<Setting>, Failure> {
    // Its first call begins within an interval; with a short one it is there from the start.
    let long = ["--long-poll", "--poll-interval", "1ms"].map(str::to_owned).to_vec();
    let mut settings = vec![("long-poll".to_owned(), None, long)];
    for text in list.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let ns = duration(text).ok().filter(|ns| *ns > 0).ok_or_else(|| {
            Failure::new(2, format!("--sweep cannot be {list:?}\n  cause: {text:?} is no interval\n  remedy: write times such as 1s,100ms, or off"))
        })?;
        let flags = vec!["--poll-interval".to_owned(), text.to_owned()];
        settings.push((format!("every {text}"), Some(ns), flags));
    }
    Ok(settings)
}

impl Session<'_> {
    /// Whether a side polls at an interval that nobody has chosen: by its plan, whether a name, a preset or a file says it.
    fn is_to_sweep(&self, side: &Side) -> bool {
        let named = |arg: &String| arg.starts_with("--poll-interval") || arg == "--long-poll";
        if side.args.iter().chain(&self.args.shared.flags).any(named) {
            return false;
        }
        let flags = flags(&self.args.shared, self.args.agents, self.args.shared.seed, &side.args);
        match subject_plan(&flags, self.workloads) {
            Ok(plan) => {
                let (poll, shipped) = (plan.protocol.poll, PollPlan::default());
                let chosen = poll.long || poll.interval_ns != shipped.interval_ns;
                plan.workload == POLLS && !chosen
            }
            // Another build may have other flags: its runs say what is wrong with them.
            Err(_) => side.args.iter().any(|arg| arg == POLLS),
        }
    }

    /// Where a side polls: a run per setting, and the best one is what is compared.
    pub(super) fn sweep(
        &mut self,
        recipe: &mut Recipe,
        err: &mut dyn Write,
    ) -> Result<(), Failure> {
        if self.args.sweep == "off" {
            return Ok(());
        }
        for role in [Role::A, Role::B] {
            let side = if role == Role::A { recipe.a.clone() } else { recipe.b.clone() };
            if !self.is_to_sweep(&side) {
                continue;
            }
            let from = recipe.sweep.len();
            self.say(err, "sweep of the polling interval");
            for (setting, interval_ns, args) in settings(&self.args.sweep)? {
                if self.stopping() {
                    return Ok(());
                }
                self.sweep_one(recipe, &side, (setting, interval_ns, args), err)?;
            }
            self.settle(recipe, (role, from), err);
        }
        Ok(())
    }

    /// A setting of a sweep. A run that the rules leave out would choose by what was beside it: another follows.
    fn sweep_one(
        &mut self,
        recipe: &mut Recipe,
        side: &Side,
        (setting, interval_ns, args): (String, Option<u64>, Vec<String>),
        err: &mut dyn Write,
    ) -> Result<(), Failure> {
        for _ in 0..SWEEP_TRIES {
            let of = (self.args.shared.seed, args.as_slice());
            let (run, steal) = self.one(side, of, (&setting, err))?;
            let figures = run.known().map(|id| self.book.figures(id));
            let excluded = figures
                .as_ref()
                .and_then(Measured::known)
                .and_then(|figures| recipe.rules.exclude(figures, steal.known().copied()));
            let again = excluded.is_some() && !self.stopping();
            if let Some(why) = &excluded {
                self.say(err, &format!("  left out by the rule {}: {}", why.rule, why.seen));
            }
            let (setting, args) = (setting.clone(), args.clone());
            recipe.sweep.push(SweepRun { setting, args, interval_ns, run, looks: LOOKS, excluded });
            save(self.store, recipe)?;
            if !again {
                break;
            }
        }
        Ok(())
    }

    /// Takes the best setting of a side, whose runs begin at `from`.
    fn settle(&self, recipe: &mut Recipe, (role, from): (Role, usize), err: &mut dyn Write) {
        let figures: Vec<Measured<RunFigures>> = recipe.sweep[from..]
            .iter()
            .map(|run| match &run.run {
                Measured::Known(_) if run.excluded.is_some() => {
                    Measured::unknown("a rule leaves it out", "compare on a machine of its own")
                }
                Measured::Known(id) => self.book.figures(id),
                Measured::Unknown { unknown, remedy } => Measured::unknown(unknown, remedy),
            })
            .collect();
        let Some(best) = choose(&figures).map(|place| &recipe.sweep[from + place]) else {
            recipe.unfit.push(role);
            let text =
                "  no setting meets the criterion; the shipped one runs, and nothing is claimed";
            return self.say(err, text);
        };
        self.say(err, &format!("  compared is {}", best.setting));
        recipe.chosen = Some(best.setting.clone());
        let (args, name) = (best.args.clone(), best.setting.clone());
        let side = if role == Role::A { &mut recipe.a } else { &mut recipe.b };
        side.args.extend(args);
        side.name = format!("{} {name}", side.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_the_long_poll_and_each_interval() {
        let found = settings("1s, 30ms").unwrap();
        let names: Vec<&str> = found.iter().map(|setting| setting.0.as_str()).collect();
        assert_eq!(names, ["long-poll", "every 1s", "every 30ms"]);
        assert_eq!(found[2].1, Some(30_000_000));
        assert!(settings("soon").is_err() && settings("0s").is_err());
    }
}
