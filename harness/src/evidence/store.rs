//! The store: a directory of run directories.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::marks::{Mark, Marks};
use super::read::{RunFrames, read_run};
use super::recorded::Recorded;
use super::time::{compact_utc, rfc3339};

/// A directory of runs.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// One line of `runs list`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunSummary {
    /// Id.
    pub id: String,
    /// Start, RFC 3339 UTC; empty when the run cannot be read.
    pub started: String,
    /// Workload.
    pub workload: String,
    /// Agents asked for.
    pub agents: u64,
    /// Planned duration, s.
    pub planned_s: u64,
    /// `finished`, `interrupted`, `unsealed`, `not begun` or `unreadable: ...`.
    pub end: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Names given to it.
    pub tags: Vec<String>,
    /// It is not to be removed.
    pub pinned: bool,
    /// A certificate lies in it.
    pub certified: bool,
    /// Start, or the last change where the start cannot be read, ns since 1970.
    #[serde(skip)]
    pub unix_ns: u64,
    /// Last change of a file, ns since 1970.
    #[serde(skip)]
    pub changed_unix_ns: u64,
}

/// Why the store cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made, read or written.
    #[error(
        "cannot {action} {path}\n  cause: {source}\n  remedy: name a writable directory with --store DIR or TAILBEAM_STORE"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// There is no store at this place.
    #[error(
        "no runs in {path}\n  cause: the directory does not exist\n  remedy: record one with `tailbeam soak`, or name another store with --store DIR"
    )]
    Absent {
        /// Where.
        path: String,
    },
    /// No run has this name.
    #[error(
        "no run named {name}\n  cause: {known} runs are in {path}, none of them matches\n  remedy: `tailbeam runs list` shows their ids; @last is the newest"
    )]
    NoSuchRun {
        /// Asked for.
        name: String,
        /// Number of runs.
        known: usize,
        /// Store.
        path: String,
    },
    /// The marks of the store cannot be read.
    #[error(
        "cannot use marks.json of {path}\n  cause: {source}\n  remedy: restore it from a copy, or take it away: runs lose their tags and pins then"
    )]
    Marks {
        /// Store.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Several runs match.
    #[error(
        "{name} names {count} runs\n  cause: the prefix is not unique: {some}\n  remedy: give more of the id"
    )]
    Ambiguous {
        /// Asked for.
        name: String,
        /// Matches.
        count: usize,
        /// The first of them.
        some: String,
    },
}

impl StoreError {
    /// Whether the evidence itself is damaged.
    #[must_use]
    pub const fn is_corrupt(&self) -> bool {
        false
    }
}

pub(super) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.display().to_string();
    move |source| StoreError::Io { action, path, source }
}

impl Store {
    /// Opens the store, making it when absent, and proves that it can be written.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the directory cannot be made or written.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(failed("create the store", root))?;
        let probe = root.join(format!(".write-test-{}", std::process::id()));
        fs::write(&probe, b"x").map_err(failed("write to the store", root))?;
        fs::remove_file(&probe).map_err(failed("write to the store", root))?;
        Ok(Self { root: root.to_owned() })
    }

    /// Opens a store that must exist; nothing is written.
    ///
    /// # Errors
    /// [`StoreError::Absent`] when it does not exist.
    pub fn open_existing(root: &Path) -> Result<Self, StoreError> {
        if root.is_dir() {
            return Ok(Self { root: root.to_owned() });
        }
        Err(StoreError::Absent { path: root.display().to_string() })
    }

    /// The directory of the store.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the directory of a new run and returns its id and path.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be made.
    pub fn create_run(&self, unix_ns: u64) -> Result<(String, PathBuf), StoreError> {
        let stem = compact_utc(unix_ns);
        // Two runs in one second differ in the suffix; 4096 tries end in a clear error.
        for suffix in 0..4_096u32 {
            let id = format!("{stem}-{suffix:03x}");
            let path = self.root.join(&id);
            match fs::create_dir(&path) {
                Ok(()) => {
                    fs::create_dir(path.join("seg")).map_err(failed("create", &path))?;
                    return Ok((id, path));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create the run", &path)(error)),
            }
        }
        Err(failed("create the run", &self.root)(io::ErrorKind::AlreadyExists.into()))
    }

    fn ids(&self) -> Result<Vec<String>, StoreError> {
        let mut ids: Vec<String> = fs::read_dir(&self.root)
            .map_err(failed("read the store", &self.root))?
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("seg").is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            // What is being removed is no run any more.
            .filter(|name| !name.starts_with('.'))
            .collect();
        ids.sort();
        Ok(ids)
    }

    /// Every run, oldest first. A run that cannot be read is listed with the reason.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the store itself cannot be read.
    pub fn list(&self) -> Result<Vec<RunSummary>, StoreError> {
        let marks = self.marks()?;
        let summary = |id: String| {
            let Mark { tags, pinned } = marks.of(&id);
            let tags = tags.into_iter().collect();
            RunSummary { tags, pinned, ..summary(id.clone(), &self.root.join(id)) }
        };
        Ok(self.ids()?.into_iter().map(summary).collect())
    }

    /// Tags and pins.
    ///
    /// # Errors
    /// [`StoreError::Marks`] when their file cannot be read.
    pub fn marks(&self) -> Result<Marks, StoreError> {
        Marks::read(&self.root).map_err(|source| self.no_marks(source))
    }

    /// Changes tags and pins.
    ///
    /// # Errors
    /// [`StoreError::Marks`] when their file cannot be read or written.
    pub fn mark<T>(&self, change: impl FnOnce(&mut Marks) -> T) -> Result<T, StoreError> {
        Marks::change(&self.root, change).map_err(|source| self.no_marks(source))
    }

    fn no_marks(&self, source: io::Error) -> StoreError {
        StoreError::Marks { path: self.root.display().to_string(), source }
    }

    /// Removes a run: its directory gets a name that is no run's, then goes. One that is interrupted leaves
    /// such a directory, see [`Store::leftovers`].
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn remove(&self, id: &str) -> Result<(), StoreError> {
        let (from, to) = (self.root.join(id), self.root.join(format!("{LEFTOVER}{id}")));
        fs::rename(&from, &to).map_err(failed("remove", &from))?;
        fs::remove_dir_all(&to).map_err(failed("remove", &to))?;
        self.mark(|marks| marks.forget(id))
    }

    /// Directories that an interrupted removal has left, and how large they are.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the store cannot be read.
    pub fn leftovers(&self) -> Result<Vec<(PathBuf, u64)>, StoreError> {
        let entries = fs::read_dir(&self.root).map_err(failed("read the store", &self.root))?;
        let names = entries.filter_map(Result::ok);
        let left = names.filter(|entry| entry.file_name().to_string_lossy().starts_with(LEFTOVER));
        Ok(left.map(|entry| (entry.path(), disk_bytes(&entry.path()))).collect())
    }

    /// The directory of a run by id, unique prefix, `@last`, `@last~N` or `@TAG`.
    ///
    /// # Errors
    /// No such run, or several.
    pub fn resolve(&self, name: &str) -> Result<PathBuf, StoreError> {
        let ids = self.ids()?;
        let tagged = name.starts_with('@').then(|| self.tagged(name, &ids)).flatten();
        tagged.map_or_else(|| pick(&ids, name, &self.root).map(|id| self.root.join(id)), Ok)
    }
}

/// The one of `ids`, in their order, that `name` means: itself, a unique prefix, `@last` or `@last~N`.
pub(super) fn pick<'a>(
    ids: &'a [String],
    name: &str,
    place: &Path,
) -> Result<&'a String, StoreError> {
    let unknown = || StoreError::NoSuchRun {
        name: name.to_owned(),
        known: ids.len(),
        path: place.display().to_string(),
    };
    if let Some(rest) = name.strip_prefix("@last") {
        let back: usize = match rest.strip_prefix('~') {
            Some(n) => n.parse().map_err(|_| unknown())?,
            None if rest.is_empty() => 0,
            None => return Err(unknown()),
        };
        let index = ids.len().checked_sub(back + 1).ok_or_else(unknown)?;
        return Ok(&ids[index]);
    }
    if let Some(whole) = ids.iter().find(|id| *id == name) {
        return Ok(whole);
    }
    let matches: Vec<&String> = ids.iter().filter(|id| id.starts_with(name)).collect();
    match matches.as_slice() {
        [] => Err(unknown()),
        [one] => Ok(one),
        many => Err(StoreError::Ambiguous {
            name: name.to_owned(),
            count: many.len(),
            some: many.iter().take(3).map(|s| s.as_str()).collect::<Vec<_>>().join(", "),
        }),
    }
}

impl Store {
    /// The run that has the tag of an `@TAG`, if it is still there.
    fn tagged(&self, name: &str, ids: &[String]) -> Option<PathBuf> {
        let marks = self.marks().ok()?;
        let id = marks.tagged(name.strip_prefix('@')?)?;
        ids.iter().any(|known| known == id).then(|| self.root.join(id))
    }
}

/// Begin of the name of a directory that is being removed.
const LEFTOVER: &str = ".removed-";

fn summary(id: String, path: &Path) -> RunSummary {
    let bytes = disk_bytes(path);
    let changed_unix_ns = changed_unix_ns(path);
    let certified = path.join(crate::certify::CERTIFICATE).is_file();
    let summary = read_summary(id, path, bytes);
    let unix_ns = if summary.unix_ns == 0 { changed_unix_ns } else { summary.unix_ns };
    RunSummary { certified, changed_unix_ns, unix_ns, ..summary }
}

fn read_summary(id: String, path: &Path, bytes: u64) -> RunSummary {
    if let Ok(Some(recorded)) = Recorded::read(path) {
        return RunSummary {
            id,
            started: rfc3339(recorded.started_unix_ns),
            workload: format!("record {}", recorded.command.join(" ")),
            agents: 0,
            planned_s: 0,
            end: recorded.end_words(),
            bytes,
            unix_ns: recorded.started_unix_ns,
            tags: Vec::new(),
            pinned: false,
            certified: false,
            changed_unix_ns: 0,
        };
    }
    match read_run(path) {
        Ok(run) => readable(id, bytes, &run),
        Err(error) => RunSummary {
            id,
            started: String::new(),
            workload: String::new(),
            agents: 0,
            planned_s: 0,
            end: match error.is_corrupt() {
                true => {
                    format!("unreadable: {}", error.to_string().lines().next().unwrap_or_default())
                }
                false => "not begun".to_owned(),
            },
            bytes,
            unix_ns: 0,
            tags: Vec::new(),
            pinned: false,
            certified: false,
            changed_unix_ns: 0,
        },
    }
}

fn readable(id: String, bytes: u64, run: &RunFrames) -> RunSummary {
    RunSummary {
        id,
        started: rfc3339(run.manifest.started_unix_ns),
        workload: run.manifest.workload.clone(),
        agents: run.plan.agents,
        planned_s: run.plan.duration_ns / 1_000_000_000,
        end: run.end.as_ref().map_or_else(|| "unsealed".to_owned(), |end| end.reason.clone()),
        bytes,
        unix_ns: run.manifest.started_unix_ns,
        tags: Vec::new(),
        pinned: false,
        certified: false,
        changed_unix_ns: 0,
    }
}

/// The newest change of a file of the run; 0 when none can be read.
fn changed_unix_ns(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let changed = entries.filter_map(Result::ok).map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => changed_unix_ns(&entry.path()),
        Ok(meta) => meta
            .modified()
            .ok()
            .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok())
            .and_then(|since| u64::try_from(since.as_nanos()).ok())
            .unwrap_or(0),
        Err(_) => 0,
    });
    changed.max().unwrap_or(0)
}

fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
