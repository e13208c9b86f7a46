//! A host, the groups of a subject, and their journal, for one check.

use std::fs;
use std::path::PathBuf;

use tailbeam_harness::chaos::host::{
    Groups, Host, Injector, Journal, On, Outcome, Process, Proof, Run, Subject, Undone,
};
use tailbeam_qemu::Judge;

use crate::places::{Seen, launcher, subject, text, within};

/// Longest wait for a bite, ms: this guest is slow.
const BITE_MS: u64 = 20_000;

pub(crate) struct Bench {
    pub(crate) host: Host,
    pub(crate) groups: Groups,
    pub(crate) journal: Journal,
    dir: PathBuf,
    before: Seen,
}

impl Bench {
    /// A host with a name and a folder of its own; its groups are made.
    pub(crate) fn new(check: &str) -> Self {
        let dir = PathBuf::from(format!("/tmp/{check}"));
        fs::create_dir_all(&dir).expect("a tmpfs is mounted there");
        let before = Seen::now(&dir);
        let mut host = Host::find(launcher(), &dir).expect("/proc is mounted");
        host.name = format!("{}-{check}", host.name);
        let path = format!("/tmp/{check}.journal");
        let mut journal = Journal::create(path.as_ref(), &host.name).expect("there is none yet");
        let groups = host.groups("");
        journal.perform_all(&groups.steps()).expect("groups can be made");
        Self { host, groups, journal, dir, before }
    }

    pub(crate) fn start(&mut self, run: &Run) -> Subject {
        let started = Subject::start(&mut self.journal, run, |_| ());
        started.expect("the gate is busybox's sh")
    }

    pub(crate) fn subject(&mut self, words: &[&str]) -> Subject {
        let run = subject(words).inside(&self.groups);
        self.start(&run)
    }

    pub(crate) fn on(&self, process: Option<Process>) -> On<'_> {
        On { host: &self.host, groups: &self.groups, process, helper: None }
    }

    /// Injects it and waits until its counter says that it bit. Gives where its steps begin.
    pub(crate) fn inject(
        &mut self,
        judge: &mut Judge,
        fault: &Injector,
        process: Option<Process>,
    ) -> usize {
        let name = format!("{fault:?}");
        let before = fault.proof(&self.on(process)).expect("its counter is there");
        let steps = fault.steps(&self.on(process)).expect("its controller is there");
        let applied = match self.journal.perform_all(&steps) {
            Ok(applied) => applied,
            Err(why) => {
                judge.that(&format!("{name} can be done"), false, &why.to_string());
                return self.journal.mark();
            }
        };
        let helper = applied.started.first().copied();
        let read = |bench: &Self| fault.proof(&On { helper, ..bench.on(process) });
        let mut after = Err(String::new());
        let bit = within(BITE_MS, || {
            after = read(self).map_err(|why| why.to_string());
            after.as_ref().is_ok_and(|after| fault.bitten(&before, after))
        });
        let value = |proof: &Proof| format!("{} {}", proof.value, proof.unit);
        let after = after.as_ref().map_or_else(Clone::clone, value);
        let seen = format!("{}: {} -> {after}", before.name, value(&before));
        judge.that(&format!("{name} bites"), bit && !fault.bitten(&before, &before), &seen);
        applied.mark
    }

    /// Undoes what was done since; `reads`: how the knobs that were written read then, the last first.
    pub(crate) fn undo(&mut self, judge: &mut Judge, claim: &str, since: usize, reads: &[&str]) {
        let undone = self.journal.undo_since(since);
        let found = texts(&undone);
        let as_before = undone.clean() && found == reads;
        judge.that(&format!("{claim} is taken back"), as_before, &format!("{found:?}"));
        if !undone.clean() {
            println!("       {undone}");
        }
    }

    /// How a file of the group reads.
    pub(crate) fn reads(&self, file: &str) -> String {
        let dirs = self.groups.dirs();
        text(dirs[0].join(file))
    }

    /// Undoes what is left, as a guard would too, and compares.
    pub(crate) fn end(mut self, judge: &mut Judge, check: &str) {
        let undone = self.journal.undo_since(0);
        let again = tailbeam_harness::chaos::host::undo(self.journal.path());
        let again = again.expect("the journal can be read");
        let nothing = again.clean() && again.steps.is_empty() && again.killed == 0;
        drop(fs::remove_dir_all(&self.dir));
        let left = Seen::now(&self.dir).since(&self.before);
        let clean = undone.clean() && nothing && left.is_empty();
        judge.that(
            &format!("{check}: nothing is left, and undone once more it is the same"),
            clean,
            &format!("{left:?}"),
        );
        if !clean {
            println!("       {undone}\n       {again}");
        }
    }
}

/// How knobs read that were written back, in the order of undoing.
fn texts(undone: &Undone) -> Vec<&str> {
    undone
        .steps
        .iter()
        .filter_map(|step| match &step.outcome {
            Outcome::Reverted { reads: Some(text) } => Some(text.as_str()),
            _ => None,
        })
        .collect()
}
