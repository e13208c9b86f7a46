//! Documents of a store that are about several runs: comparisons and scale series. Each has a directory of its
//! own below its kind, beside the runs, and is written by rename, so that a reader finds a whole file or none.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use super::store::{Store, StoreError, failed};
use super::time::compact_utc;

/// Name of the file.
pub const DOCUMENT: &str = "recipe.json";

/// Which documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    /// `compare`.
    Comparisons,
    /// `scale`.
    Scales,
    /// `chaos`.
    Chaos,
}

impl Documents {
    const fn directory(self) -> &'static str {
        match self {
            Self::Comparisons => "comparisons",
            Self::Scales => "scales",
            Self::Chaos => "chaos",
        }
    }
}

impl Store {
    /// Makes the directory of a new document and returns its id.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn create_document(&self, kind: Documents, unix_ns: u64) -> Result<String, StoreError> {
        let root = self.root().join(kind.directory());
        fs::create_dir_all(&root).map_err(failed("create", &root))?;
        let stem = compact_utc(unix_ns);
        for suffix in 0..4_096u32 {
            let id = format!("{stem}-{suffix:03x}");
            match fs::create_dir(root.join(&id)) {
                Ok(()) => return Ok(id),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create a document in", &root)(error)),
            }
        }
        Err(failed("create a document in", &root)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Directory of a document.
    #[must_use]
    pub fn document_dir(&self, kind: Documents, id: &str) -> PathBuf {
        self.root().join(kind.directory()).join(id)
    }

    /// Writes the document `id`, synced before it takes the place of an older one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn write_document(
        &self,
        kind: Documents,
        id: &str,
        bytes: &[u8],
    ) -> Result<PathBuf, StoreError> {
        let path = self.document_dir(kind, id).join(DOCUMENT);
        let new = path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        });
        written.map_err(failed("write", &path))?;
        Ok(path)
    }

    /// The directory of a document by id, unique prefix, `@last` or `@last~N`.
    ///
    /// # Errors
    /// No such document, or several.
    pub fn find_document(&self, kind: Documents, name: &str) -> Result<PathBuf, StoreError> {
        let root = self.root().join(kind.directory());
        let mut ids: Vec<String> = match fs::read_dir(&root) {
            Ok(entries) => entries
                .filter_map(Result::ok)
                .filter(|entry| entry.path().join(DOCUMENT).is_file())
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("read", &root)(error)),
        };
        ids.sort();
        super::store::pick(&ids, name, &root).map(|id| root.join(id))
    }

    /// The bytes of a document by id, unique prefix, `@last` or `@last~N`.
    ///
    /// # Errors
    /// No such document, or several, or it cannot be read.
    pub fn read_document(&self, kind: Documents, name: &str) -> Result<Vec<u8>, StoreError> {
        let path = self.find_document(kind, name)?.join(DOCUMENT);
        fs::read(&path).map_err(failed("read", &path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_found_as_runs_are_and_are_no_runs() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let kind = Documents::Comparisons;
        assert!(store.read_document(kind, "@last").is_err());
        let made: Vec<String> = (0..3)
            .map(|n| {
                let id = store.create_document(kind, 1_795_503_600_000_000_000).unwrap();
                store.write_document(kind, &id, format!("{n}").as_bytes()).unwrap();
                id
            })
            .collect();
        // One whose program died before it wrote.
        store.create_document(kind, 1_795_503_700_000_000_000).unwrap();
        let read = |name: &str| store.read_document(kind, name).ok();
        assert_eq!(read("@last"), Some(b"2".to_vec()));
        assert_eq!(read("@last~2"), Some(b"0".to_vec()));
        assert_eq!(read(&made[1]), Some(b"1".to_vec()));
        assert_eq!((read("2026"), read("@last~3")), (None, None), "several, and none");
        assert!(store.read_document(Documents::Scales, "@last").is_err());
        store.write_document(kind, &made[1], b"again").unwrap();
        assert_eq!(read(&made[1]), Some(b"again".to_vec()));
        assert!(store.list().unwrap().is_empty());
    }
}
