use super::*;
use crate::chaos::host::step::Revert;

fn write(file: &Path, value: &str) -> Step {
    Step::Write { file: file.to_owned(), value: value.to_owned(), revert: Revert::Before }
}

struct Place {
    dir: tempfile::TempDir,
    knob: PathBuf,
    path: PathBuf,
}

/// A knob that reads `old`, and a journal that is not made yet.
fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let (knob, path) = (dir.path().join("knob"), dir.path().join("journal"));
    std::fs::write(&knob, "old").unwrap();
    Place { dir, knob, path }
}

fn outcomes(undone: &Undone) -> Vec<Outcome> {
    undone.steps.iter().map(|step| step.outcome.clone()).collect()
}

fn reverted(text: &str) -> Outcome {
    Outcome::Reverted { reads: Some(text.to_owned()) }
}

#[test]
fn a_step_is_on_disk_before_it_is_done() {
    let Place { dir, knob: _, path } = place();
    let mut journal = Journal::create(&path, "run").unwrap();
    // A knob that reads but cannot be written to: a folder stands for it.
    let made = Step::MakeDir { dir: dir.path().join("a/b") };
    journal.perform(&made).unwrap_err();
    let read = read(&std::fs::read(&path).unwrap());
    assert_eq!(read.name.as_deref(), Some("run"));
    assert_eq!(read.lines.values().map(|line| &line.step).collect::<Vec<_>>(), [&made]);
    assert_eq!(outcomes(&undo(&path).unwrap()), [Outcome::Gone]);
}

#[test]
fn whoever_comes_later_undoes_in_reverse_and_twice_is_as_once() {
    let Place { dir, knob, path } = place();
    let made = dir.path().join("made");
    let mut journal = Journal::create(&path, "run").unwrap();
    let steps = [write(&knob, "new"), Step::MakeDir { dir: made.clone() }, write(&knob, "newer")];
    journal.perform_all(&steps).unwrap();
    drop(journal);
    assert_eq!(std::fs::read_to_string(&knob).unwrap(), "newer");
    let undone = undo(&path).unwrap();
    assert_eq!(
        outcomes(&undone),
        [reverted("new"), Outcome::Reverted { reads: None }, reverted("old")]
    );
    assert!(undone.clean() && !made.exists());
    assert_eq!(std::fs::read_to_string(&knob).unwrap(), "old");
    let again = undo(&path).unwrap();
    assert!(again.clean() && again.steps.is_empty(), "{again}");
}

#[test]
fn a_torn_last_line_is_a_step_that_had_not_begun_at_any_byte() {
    let Place { dir: _dir, knob, path } = place();
    let mut journal = Journal::create(&path, "run").unwrap();
    journal.perform(&write(&knob, "new")).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let last = Entry::Will { at: 1, step: write(&knob, "never"), before: Some("new".to_owned()) };
    let last = line_of(&last).unwrap();
    for torn in 0..last.len() {
        std::fs::write(&knob, "new").unwrap();
        std::fs::write(&path, [&whole, &last.as_bytes()[..torn]].concat()).unwrap();
        let undone = undo(&path).unwrap();
        assert!(undone.clean(), "{torn}: {undone}");
        assert_eq!(outcomes(&undone), [reverted("old")], "{torn}");
        // What was said after it is read, and so nothing is left to do.
        let again = undo(&path).unwrap();
        assert!(again.steps.is_empty() && again.clean(), "{torn}: {again}");
    }
}

#[test]
fn any_damaged_bit_in_the_middle_is_noticed_and_the_rest_is_undone() {
    let Place { dir, knob, path } = place();
    let other = dir.path().join("other");
    std::fs::write(&other, "old").unwrap();
    let mut journal = Journal::create(&path, "run").unwrap();
    journal.perform_all(&[write(&knob, "new"), write(&other, "new")]).unwrap();
    let whole = std::fs::read_to_string(&path).unwrap();
    let start = whole.find('\n').unwrap() + 1;
    let length = whole[start..].find('\n').unwrap();
    for at in start..start + length {
        let mut bytes = whole.clone().into_bytes();
        bytes[at] ^= 1 << (at % 7);
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(&other, "new").unwrap();
        let undone = undo(&path).unwrap();
        assert!(!undone.clean(), "{at}");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "old", "{at}");
    }
}

#[test]
fn a_knob_that_somebody_else_changed_is_left_and_said() {
    let Place { dir: _dir, knob, path } = place();
    let mut journal = Journal::create(&path, "run").unwrap();
    journal.perform(&write(&knob, "new")).unwrap();
    std::fs::write(&knob, "theirs").unwrap();
    for _ in 0..2 {
        let undone = undo(&path).unwrap();
        assert_eq!(outcomes(&undone), [Outcome::Foreign { found: "theirs".to_owned() }]);
        assert!(!undone.clean());
    }
    assert_eq!(std::fs::read_to_string(&knob).unwrap(), "theirs");
}

#[test]
fn without_a_record_of_what_was_made_of_it_the_knob_is_ours() {
    let Place { dir: _dir, knob, path } = place();
    let mut journal = Journal::create(&path, "run").unwrap();
    // As if the supervisor had died between the write and its record.
    journal.will(&write(&knob, "new")).unwrap();
    std::fs::write(&knob, "new as the kernel rounds it").unwrap();
    assert_eq!(outcomes(&undo(&path).unwrap()), [reverted("old")]);
}

#[test]
fn the_living_supervisor_undoes_back_to_a_mark() {
    let Place { dir: _dir, knob, path } = place();
    let mut journal = Journal::create(&path, "run").unwrap();
    journal.perform(&write(&knob, "kept")).unwrap();
    let applied = journal.perform_all(&[write(&knob, "new"), write(&knob, "newer")]).unwrap();
    let undone = journal.undo_since(applied.mark);
    assert_eq!(outcomes(&undone), [reverted("new"), reverted("kept")]);
    assert!(journal.undo_since(applied.mark).steps.is_empty());
    assert_eq!(outcomes(&undo(&path).unwrap()), [reverted("old")]);
}

#[test]
fn a_journal_is_begun_once() {
    let Place { dir: _dir, knob: _, path } = place();
    Journal::create(&path, "run").unwrap();
    Journal::create(&path, "run").unwrap_err();
}

#[test]
fn a_dry_run_says_what_would_be_done_and_undone() {
    let step = write(Path::new("/sys/x"), "7");
    assert_eq!(step.to_string(), "write \"7\" to /sys/x");
    assert_eq!(step.undo_text(), "write what was there before to /sys/x");
}
