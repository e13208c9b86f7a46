//! Tags and pins of runs. They lie beside the runs, in `marks.json`, and never in one: a certificate covers
//! every file of its runs, and a name that somebody gave a run is no evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Name of the file in the store.
const FILE: &str = "marks.json";
/// Held while it is changed.
const LOCK: &str = ".marks.lock";
/// Version of its layout.
const VERSION: u32 = 1;
/// Longest tag.
const TAG_MAX: usize = 64;

/// Marks of all runs of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    version: u32,
    /// By run id.
    runs: BTreeMap<String, Mark>,
}

/// Marks of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Names given to it; a name is of one run.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// It is not to be removed.
    #[serde(default)]
    pub pinned: bool,
}

impl Default for Marks {
    fn default() -> Self {
        Self { version: VERSION, runs: BTreeMap::new() }
    }
}

/// Why a name cannot be a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{tag:?} cannot be a tag\n  cause: {cause}\n  remedy: use letters, digits, `.`, `-` and `_`, as in release-1.2"
)]
pub struct TagError {
    /// As given.
    pub tag: String,
    /// What is wrong.
    pub cause: &'static str,
}

impl Marks {
    /// The marks of a store; none where there is no file.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is of a version that this program does not know.
    pub fn read(root: &Path) -> io::Result<Self> {
        let bytes = match fs::read(root.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let marks: Self = serde_json::from_slice(&bytes)?;
        if marks.version > VERSION {
            let text =
                format!("{FILE} is of version {}, this program knows {VERSION}", marks.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(marks)
    }

    /// Changes the marks of a store while nobody else does. The file is replaced whole.
    ///
    /// # Errors
    /// What the kernel answers, or that the present file cannot be read: it is not overwritten then.
    pub fn change<T>(root: &Path, change: impl FnOnce(&mut Self) -> T) -> io::Result<T> {
        let lock = File::create(root.join(LOCK))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let mut marks = Self::read(root)?;
        let done = change(&mut marks);
        marks.runs.retain(|_, mark| *mark != Mark::default());
        let new = root.join(format!(".{FILE}.new"));
        let mut file = File::create(&new)?;
        serde_json::to_writer_pretty(&mut file, &marks)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, root.join(FILE))?;
        Ok(done)
    }

    /// Of a run.
    #[must_use]
    pub fn of(&self, id: &str) -> Mark {
        self.runs.get(id).cloned().unwrap_or_default()
    }

    /// The run that has a tag.
    #[must_use]
    pub fn tagged(&self, tag: &str) -> Option<&str> {
        self.runs.iter().find(|(_, mark)| mark.tags.contains(tag)).map(|(id, _)| id.as_str())
    }

    /// Ids that have marks.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.runs.keys().map(String::as_str)
    }

    /// Gives a run a tag; returns the run that had it before.
    ///
    /// # Errors
    /// [`TagError`] for a name that `@NAME` could not be.
    pub fn tag(&mut self, id: &str, tag: &str) -> Result<Option<String>, TagError> {
        check(tag)?;
        let before = self.tagged(tag).map(str::to_owned);
        self.untag(tag);
        self.runs.entry(id.to_owned()).or_default().tags.insert(tag.to_owned());
        Ok(before.filter(|before| before != id))
    }

    /// Takes a tag away; whether there was one.
    pub fn untag(&mut self, tag: &str) -> bool {
        self.runs.values_mut().any(|mark| mark.tags.remove(tag))
    }

    /// Pins a run, or takes the pin away.
    pub fn pin(&mut self, id: &str, pinned: bool) {
        self.runs.entry(id.to_owned()).or_default().pinned = pinned;
    }

    /// Forgets a run.
    pub fn forget(&mut self, id: &str) {
        self.runs.remove(id);
    }
}

fn check(tag: &str) -> Result<(), TagError> {
    let error = |cause| Err(TagError { tag: tag.to_owned(), cause });
    match tag {
        "" => error("it is empty"),
        "last" => error("@last is the newest run"),
        _ if tag.len() > TAG_MAX => error("it is longer than 64 bytes"),
        _ if tag.starts_with(['.', '-']) => error("it begins with a sign"),
        _ if tag.chars().any(|c| !c.is_ascii_alphanumeric() && !"._-".contains(c)) => {
            error("it holds something else")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_of_one_run_and_moves() {
        let dir = tempfile::tempdir().unwrap();
        let tag = |id: &str| Marks::change(dir.path(), |marks| marks.tag(id, "base")).unwrap();
        assert_eq!((tag("a"), tag("a"), tag("b")), (Ok(None), Ok(None), Ok(Some("a".to_owned()))));
        Marks::change(dir.path(), |marks| marks.pin("a", true)).unwrap();
        let marks = Marks::read(dir.path()).unwrap();
        assert_eq!((marks.tagged("base"), marks.of("a").pinned), (Some("b"), true));
        Marks::change(dir.path(), |marks| {
            marks.pin("a", false);
            marks.untag("base")
        })
        .unwrap();
        assert_eq!(Marks::read(dir.path()).unwrap(), Marks::default(), "nothing is left over");
    }

    #[test]
    fn what_cannot_be_written_after_an_at_is_no_tag() {
        for tag in ["", "last", "a b", "a~1", "@a", "-x", "../x", "ä"] {
            assert!(check(tag).is_err(), "{tag}");
        }
        assert_eq!(check("release-1.2_rc"), Ok(()));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        for text in ["{", "{\"version\": 9, \"runs\": {}}"] {
            fs::write(&path, text).unwrap();
            assert!(Marks::change(dir.path(), |marks| marks.pin("a", true)).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_that_mark_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let root = dir.path();
                scope.spawn(move || {
                    for n in 0..25 {
                        Marks::change(root, |marks| marks.pin(&format!("{thread}-{n}"), true))
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(Marks::read(dir.path()).unwrap().ids().count(), 100);
    }
}
