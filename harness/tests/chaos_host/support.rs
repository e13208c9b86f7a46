//! A host for a test, and what every test of a fault does.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tailbeam_harness::chaos::host::{
    Capability, Groups, Host, Injector, Journal, Launcher, NAME, On, Process, Residue, Run,
    Subject, Undone, residue,
};
use tailbeam_probes::clock::monotonic_ns;

/// Lists of what is left are of the whole machine: one test after the other.
static ONE: Mutex<()> = Mutex::new(());

/// This test binary again, as the test of this name.
pub(crate) fn launcher(child: &str) -> Launcher {
    let args = ["--ignored", "--exact", "--nocapture", child].map(str::to_owned).to_vec();
    Launcher { program: std::env::current_exe().unwrap(), args }
}

/// A host with a folder of its own and a name of its own.
pub(crate) fn host(dir: &Path, test: &str) -> Host {
    let mut host = Host::find(launcher("children::helper_child"), dir).unwrap();
    host.name = format!("{}-{test}", host.name);
    host
}

/// A host, the groups of a subject, and their journal. Checks in the end that nothing is left.
pub(crate) struct Bench {
    pub(crate) host: Host,
    pub(crate) groups: Groups,
    pub(crate) journal: Journal,
    before: Residue,
    _journals: tempfile::TempDir,
    dir: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Drop for Bench {
    /// A test that failed leaves nothing either.
    fn drop(&mut self) {
        drop(tailbeam_harness::chaos::host::undo(self.journal.path()));
    }
}

impl Bench {
    /// None: not root, which is said.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED {test}: not root");
            return None;
        }
        let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (dir, journals) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let host = host(dir.path(), test);
        let before = residue(&[dir.path()]).unwrap();
        let groups = host.groups("");
        let path = journals.path().join("journal");
        let mut journal = Journal::create(&path, &host.name).unwrap();
        journal.perform_all(&groups.steps()).unwrap();
        Some(Self { host, groups, journal, before, _journals: journals, dir, _one: one })
    }

    /// Whether this host can; if not, it is said.
    pub(crate) fn can(&self, fault: &Injector) -> bool {
        match fault.probe(&self.host) {
            Capability::Available => true,
            other => {
                eprintln!("SKIPPED {fault:?}: {other:?}");
                false
            }
        }
    }

    pub(crate) fn subject(&mut self, words: &[&str]) -> Subject {
        let run = child(words).inside(&self.groups);
        self.start(&run)
    }

    pub(crate) fn start(&mut self, run: &Run) -> Subject {
        Subject::start(&mut self.journal, run, |command| {
            command.stdout(std::process::Stdio::null());
        })
        .unwrap()
    }

    pub(crate) fn on(&self, process: Option<Process>) -> On<'_> {
        On { host: &self.host, groups: &self.groups, process, helper: None }
    }

    /// Injects it, waits until its counter says that it bit, looks at it while it holds, and undoes it.
    pub(crate) fn bites(
        &mut self,
        fault: &Injector,
        process: Option<Process>,
        holds: impl FnOnce(&Self),
    ) -> Undone {
        let before = fault.proof(&self.on(process)).unwrap();
        assert!(!fault.bitten(&before, &before), "{before:?} bites before it is injected");
        let steps = fault.steps(&self.on(process)).unwrap();
        let applied = self.journal.perform_all(&steps).unwrap();
        let mut last = None;
        let bit = within(10_000, || {
            let helper = applied.started.first().copied();
            let after = fault.proof(&On { helper, ..self.on(process) }).unwrap();
            last = Some(after.clone());
            fault.bitten(&before, &after)
        });
        assert!(bit, "{fault:?}: {before:?} {last:?}");
        let name = format!("{fault:?}").split(' ').next().unwrap_or_default().to_owned();
        eprintln!("{name}: {} {} -> {}", before.name, before.value, last.unwrap().value);
        holds(self);
        let undone = self.journal.undo_since(applied.mark);
        assert!(undone.clean(), "{undone}");
        undone
    }

    /// Undoes what is left, twice, and compares.
    pub(crate) fn end(mut self) {
        let undone = self.journal.undo_since(0);
        assert!(undone.clean(), "{undone}");
        let again = tailbeam_harness::chaos::host::undo(self.journal.path()).unwrap();
        assert!(again.clean() && again.steps.is_empty() && again.killed == 0, "{again}");
        assert_eq!(left(&self.before, self.dir.path(), &self.host.name), Vec::<String>::new());
    }
}

/// What is there that was not before, without what other runs on this machine make.
pub(crate) fn left(before: &Residue, dir: &Path, name: &str) -> Vec<String> {
    let mut left = residue(&[dir]).unwrap().since(before);
    left.retain(|line| !line.contains(NAME) || line.contains(name));
    left
}

/// This binary as a subject that does what the words say.
pub(crate) fn child(words: &[&str]) -> Run {
    let launcher = launcher("children::subject_child");
    let mut run = Run::new(&launcher.program, words);
    run.args = launcher.args.into_iter().chain(run.args).collect();
    run
}

pub(crate) fn pause_ms(ms: u64) {
    let until = monotonic_ns() + ms * 1_000_000;
    while monotonic_ns() < until {
        std::thread::park_timeout(Duration::from_millis(ms));
    }
}

/// Asks again and again until it is so, or the time is over.
pub(crate) fn within(ms: u64, mut so: impl FnMut() -> bool) -> bool {
    let until = monotonic_ns() + ms * 1_000_000;
    loop {
        if so() {
            return true;
        }
        if monotonic_ns() > until {
            return false;
        }
        pause_ms(10);
    }
}
