//! What is wrong with a run on disk: every file looked at, each finding with its file and offset. Nothing
//! is changed: whatever is whole stays readable, and damage that was mended cannot be told from evidence.

use std::fs;
use std::path::Path;

use serde::Serialize;
use tailbeam_probes::record::{DamageKind, KIND_SEAL, heap_file, read_bytes, read_dir};

use super::{HEAP_STATE, Recorded, is_program, read_program, read_run};

/// State of a run on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Whole and sealed.
    Whole,
    /// Cut: its recorder died, or still runs. All windows that were synced are there.
    Unsealed,
    /// Something that was written is not there any more as it was.
    Damaged,
    /// Nothing can be said of it.
    Unreadable,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// File, relative to the run.
    pub file: String,
    /// Byte offset; none where the whole file is meant.
    pub offset: Option<u64>,
    /// How bad it is.
    pub health: Health,
    /// What is wrong.
    pub text: String,
}

/// What was found of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Run id.
    pub id: String,
    /// The worst finding.
    pub health: Health,
    /// Frames that can be read.
    pub frames: u64,
    /// Segments, and those of them that are sealed.
    pub segments: u64,
    /// Of those, sealed.
    pub sealed: u64,
    /// Findings.
    pub findings: Vec<Finding>,
}

/// Looks at the run in `dir`.
#[must_use]
pub fn check(dir: &Path) -> Checked {
    let id = dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut checked = Checked {
        id,
        health: Health::Whole,
        frames: 0,
        segments: 0,
        sealed: 0,
        findings: Vec::new(),
    };
    segments(dir, &mut checked);
    match is_program(dir) {
        true => program(dir, &mut checked),
        false => soak(dir, &mut checked),
    }
    states(dir, &mut checked);
    documents(dir, &mut checked);
    checked.health = checked.findings.iter().map(|of| of.health).max().unwrap_or(Health::Whole);
    checked
}

impl Checked {
    fn find(&mut self, file: &str, offset: Option<u64>, health: Health, text: impl ToString) {
        let finding = Finding { file: file.to_owned(), offset, health, text: text.to_string() };
        // Two readers of a file may find the same.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Frames, checksums, the chain of segments, the sequence.
fn segments(dir: &Path, checked: &mut Checked) {
    let seg = dir.join("seg");
    match read_dir(&seg) {
        Ok((frames, damage)) => {
            checked.frames = frames.len() as u64;
            for of in damage {
                let (file, offset) = match of.kind {
                    DamageKind::SequenceGap => ("seg".to_owned(), None),
                    _ => (format!("seg/{}", of.segment), Some(of.offset)),
                };
                let health = match of.kind {
                    DamageKind::TornTail => Health::Unsealed,
                    _ => Health::Damaged,
                };
                checked.find(&file, offset, health, format!("{}: {}", of.kind, of.text));
            }
        }
        Err(error) => checked.find("seg", None, Health::Unreadable, error),
    }
    let names = fs::read_dir(&seg).into_iter().flatten().filter_map(Result::ok);
    for path in
        names.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"))
    {
        checked.segments += 1;
        let (mut frames, mut damage) = (Vec::new(), Vec::new());
        read_bytes("", &fs::read(&path).unwrap_or_default(), true, &mut frames, &mut damage);
        checked.sealed += u64::from(frames.last().is_some_and(|frame| frame.kind == KIND_SEAL));
    }
}

fn soak(dir: &Path, checked: &mut Checked) {
    match read_run(dir) {
        Ok(run) => {
            if run.end.is_none() {
                checked.find(
                    "seg",
                    None,
                    Health::Unsealed,
                    "the run has no end: its process died (`tailbeam soak --resume` goes on with it), or still runs",
                );
            }
            // Damage of frames was found above, with its place; this is what does not fit between them.
            let placed = |text: &str| text.contains(" at byte ");
            for text in run.damage.iter().filter(|text| !placed(text)) {
                checked.find("seg", None, Health::Damaged, text);
            }
        }
        Err(error) => {
            let text = error.to_string();
            let file = if text.contains("plan.toml") { "plan.toml" } else { "seg" };
            let health = if error.is_corrupt() { Health::Unreadable } else { Health::Unsealed };
            checked.find(file, None, health, text.replace("\n  ", "; "));
        }
    }
}

fn program(dir: &Path, checked: &mut Checked) {
    match read_program(dir) {
        Ok((_, damage)) => {
            for text in damage.iter().filter(|text| !text.contains(" at byte ")) {
                checked.find("seg", None, Health::Damaged, text);
            }
        }
        Err(error) => checked.find("seg", None, Health::Unreadable, error),
    }
    match Recorded::read(dir) {
        Ok(Some(recorded)) if recorded.end.is_none() => {
            checked.find(
                "record.json",
                None,
                Health::Unsealed,
                "it names no end: the recorder died, or still runs",
            );
        }
        Ok(Some(_)) => {}
        Ok(None) => checked.find("record.json", None, Health::Damaged, "it is not there"),
        Err(error) => checked.find("record.json", None, Health::Damaged, error),
    }
}

/// States of the heap.
fn states(dir: &Path, checked: &mut Checked) {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".tbh"))
        .collect();
    names.sort();
    for name in names {
        if let Err(error) = heap_file::read(&dir.join(&name)) {
            // A sampler that was killed at its very start leaves an empty one.
            let own = name == HEAP_STATE;
            let text =
                if own { format!("the state of the heap: {error}") } else { error.to_string() };
            checked.find(&name, None, Health::Damaged, text);
        }
    }
}

/// Files of JSON beside the frames.
fn documents(dir: &Path, checked: &mut Checked) {
    for name in ["host.json", super::WAITS, crate::certify::CERTIFICATE] {
        let Ok(bytes) = fs::read(dir.join(name)) else { continue };
        if let Err(error) = serde_json::from_slice::<serde_json::Value>(&bytes) {
            checked.find(name, None, Health::Damaged, error);
        }
    }
}
