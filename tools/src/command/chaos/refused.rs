//! System calls that the kernel refuses to a subject: what shows that they were, and what the subject makes of it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use tailbeam_harness::chaos::host::{Call, Capability, Journal, filters};
use tailbeam_harness::chaos::record::{Ability, Bite, Check};
use tailbeam_harness::chaos::scenario::Act;
use tailbeam_harness::evidence::records::UnknownThing;
use tailbeam_harness::evidence::{Store, read_run};
use tailbeam_harness::report::counters::{self, Counted, Slots};
use tailbeam_harness::report::latency::Question;
use tailbeam_probes::clock;
use tailbeam_probes::collect::perf::{ThreadOptions, open_thread};

use super::stage::{Ended, Stage};

/// Time between the end of one that was refused a ring and the next, ns: as a supervisor would wait.
const PAUSE_NS: u64 = 250_000_000;
/// Exit code of a command whose host is not ready.
const NOT_READY: i32 = 5;

/// What is refused to a subject that an act is done to, from its start.
pub(super) fn of_the_start(act: &Act) -> Option<Call> {
    match act {
        Act::Refuse(call) if act.is_of_the_start() => Some(*call),
        _ => None,
    }
}

/// Whether this host can refuse a call, and whether that would be anything new.
pub(super) fn ability(call: Call) -> Ability {
    match filters() {
        Capability::Available if call == Call::PerfEventOpen && all_refused() => {
            Ability::Impossible {
                cause: "every counter of perf is refused to us too (EACCES)".to_owned(),
                remedy: "run it as root or with CAP_PERFMON, or lower perf_event_paranoid; what every subject here records is what this fault would show".to_owned(),
            }
        }
        Capability::Impossible { cause, remedy } => Ability::Impossible { cause, remedy },
        _ => Ability::Available,
    }
}

/// What would be done, and undone.
pub(super) fn dry(call: Call) -> String {
    let (name, answer) = (call.name(), call.answer());
    match call {
        Call::PerfEventOpen => format!(
            "start the subject behind a filter that answers {name} with {answer}; undo: it ends with the subject"
        ),
        Call::IoUringSetup => format!(
            "SIGKILL to the subject, and start others behind a filter that answers {name} with {answer}; undo: start one without, on the same logs"
        ),
    }
}

/// How many counters this process, to which nothing is done, is refused for the reason that the filter gives, its group
/// among them.
pub(super) fn own(call: Call) -> u64 {
    let (backend, group) = open_thread(ThreadOptions::default());
    let refused = backend.support().missing().filter(|(_, why)| says(&why.cause, call)).count();
    refused as u64 + u64::from(group.is_some_and(|why| says(&why.cause, call)))
}

/// Whether perf gives this process no counter, for the reason that the filter would give.
fn all_refused() -> bool {
    let (_, group) = open_thread(ThreadOptions::default());
    group.is_some_and(|why| says(&why.cause, Call::PerfEventOpen))
}

/// Whether a cause is the answer of the filter.
fn says(cause: &str, call: Call) -> bool {
    cause.starts_with(call.answer())
}

/// The directory of the subject's run.
fn run_of(stage: &Stage<'_>) -> Result<PathBuf, String> {
    let store = Store::open_existing(&stage.setting.store).map_err(|error| error.to_string())?;
    store.resolve("@last").map_err(|error| error.to_string())
}

/// What a run states as unknown because it was refused.
fn refused_of(dir: &Path, call: Call) -> Result<Vec<UnknownThing>, String> {
    let mut unknowns = read_run(dir).map_err(|error| error.to_string())?.manifest.unknowns;
    unknowns.retain(|of| says(&of.unknown, call));
    Ok(unknowns)
}

/// The proof that counters are refused: the subject's record says so of each, beside how many were to us.
pub(super) fn stated(stage: &Stage<'_>, call: Call, before: u64) -> Bite {
    let found = run_of(stage).and_then(|dir| refused_of(&dir, call));
    let (source, after) = match found {
        Ok(found) => {
            let source = format!(
                "counters and groups refused ({}): to us, then by its record",
                call.answer()
            );
            (source, Some(named(&found)))
        }
        Err(why) => (format!("its record cannot be read: {why}"), None),
    };
    let bit = after.is_some_and(|after| after > before);
    Bite { source, unit: "things".to_owned(), before: Some(before), after, bit }
}

/// Things that these name; one entry of a record may name several.
fn named(refused: &[UnknownThing]) -> u64 {
    let mut names: Vec<&str> = refused.iter().flat_map(|of| of.thing.split(", ")).collect();
    names.sort_unstable();
    names.dedup();
    names.len() as u64
}

/// Nothing that was refused has a figure in the subject's record, beside what it could count all the same: what is
/// unknown is no 0.
pub(super) fn no_figure(stage: &Stage<'_>) -> Check {
    let name = "no refused counter has a figure";
    let looked = run_of(stage).and_then(|dir| {
        let slots = Slots { every_ns: None, rows_max: 1, core: None };
        let report = counters::build(&dir, &Question::default(), slots);
        let cores = report.map_err(|error| error.to_string())?.cores;
        let counted: Vec<Counted> =
            cores.into_iter().flat_map(|core| core.total.counters).collect();
        Ok((refused_of(&dir, Call::PerfEventOpen)?, counted))
    });
    match looked {
        Ok((refused, counted)) => judged(name, &refused, &counted),
        Err(why) => Check::unknown(name, why),
    }
}

fn judged(name: &str, refused: &[UnknownThing], counted: &[Counted]) -> Check {
    if refused.is_empty() || counted.is_empty() {
        return Check::unknown(name, "it records no counter, or none that was refused");
    }
    let is_refused = |of: &&Counted| {
        refused.iter().any(|refused| refused.thing.split(", ").any(|thing| thing == of.name))
    };
    // One that has no row has no figure either.
    let figure = counted.iter().filter(is_refused).find(|of| of.count.is_some());
    let text = match figure {
        Some(of) => format!("{} was refused and reads {:?}", of.name, of.count),
        None => {
            format!("{} things refused, of {} rows none is theirs", refused.len(), counted.len())
        }
    };
    Check::seen(name, figure.is_none(), text)
}

/// Starts that were refused something.
pub(super) struct Refusals {
    /// How many were tried.
    pub(super) starts: u64,
    /// Of these, with what was to be: an error that names it, and the exit code for that.
    as_said: u64,
    /// What the first other one came to.
    other: Option<String>,
}

impl Refusals {
    /// Starts one after the other for so long, at least one.
    pub(super) fn try_for(
        stage: &mut Stage<'_>,
        journal: &mut Journal,
        call: Call,
        hold_ns: u64,
    ) -> Result<Self, String> {
        let until_ns = clock::monotonic_ns().saturating_add(hold_ns);
        let mut tried = Self { starts: 0, as_said: 0, other: None };
        stage.refused = Some(call);
        let ended = loop {
            match stage.attempt(journal) {
                Ok((status, ended)) => tried.count(call, status, &ended),
                Err(why) => break Err(why),
            }
            if clock::monotonic_ns() >= until_ns || !stage.setting.wait(PAUSE_NS) {
                break Ok(());
            }
        };
        stage.refused = None;
        ended.map(|()| tried)
    }

    fn count(&mut self, call: Call, status: ExitStatus, ended: &Ended) {
        self.starts += 1;
        if status.code() == Some(NOT_READY) && names(call, &ended.err) {
            self.as_said += 1;
        } else if self.other.is_none() {
            self.other = Some(format!("{status}: {}", super::stage::said(ended)));
        }
    }

    /// The proof that it bit.
    pub(super) fn bite(&self, call: Call) -> Bite {
        Bite {
            source: format!("starts that were refused {}", call.name()),
            unit: "processes".to_owned(),
            before: Some(0),
            after: Some(self.as_said),
            bit: self.as_said > 0,
        }
    }

    /// Each must have said what it lacks, and nothing else.
    pub(super) fn check(&self, call: Call) -> Check {
        let name = "each refused start ends with one error that names it";
        let text = format!("{} of {} named {}", self.as_said, self.starts, call.name());
        let text = self.other.as_ref().map_or(text.clone(), |other| format!("{text}; {other}"));
        Check::seen(name, self.as_said == self.starts, text)
    }
}

/// Whether what a process said is one error, of this call, and no panic.
fn names(call: Call, err: &str) -> bool {
    let errors: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors.as_slice() else { return false };
    error.contains(call.name()) && !err.contains("panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_as_refused_when_one_error_names_the_call() {
        let names = |err: &str| names(Call::IoUringSetup, err);
        assert!(names("error: io_uring_setup was refused (EPERM)\n  cause: a seccomp profile\n"));
        for other in [
            "",
            "error: no room\n",
            "error: io_uring_setup was refused\nerror: io_uring_setup was refused\n",
            "thread 'main' panicked at x\nerror: io_uring_setup was refused\n",
        ] {
            assert!(!names(other), "{other:?}");
        }
    }

    #[test]
    fn a_refused_counter_that_reads_0_is_found() {
        let counted = |name: &str, count| Counted {
            name: name.to_owned(),
            count,
            covered_ns: 0,
            per_s: None,
            per_request: None,
            quality: counters::Quality::Unknown,
            unknown: None,
            remedy: None,
        };
        let refused = [UnknownThing {
            thing: "cycles, instructions".to_owned(),
            unknown: "EACCES".to_owned(),
            remedy: String::new(),
        }];
        let holds = |refused: &[UnknownThing], them: &[Counted]| judged("", refused, them).holds;
        let faults = counted("page-faults", Some(0));
        assert_eq!(holds(&refused, &[]), None);
        assert_eq!(holds(&[], std::slice::from_ref(&faults)), None);
        assert_eq!(holds(&refused, std::slice::from_ref(&faults)), Some(true));
        assert_eq!(holds(&refused, &[faults.clone(), counted("cycles", None)]), Some(true));
        assert_eq!(holds(&refused, &[faults, counted("instructions", Some(0))]), Some(false));
    }
}
