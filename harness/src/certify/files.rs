//! Every file of a run directory by its SHA-256.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::CERTIFICATE;

/// Files of one run: segments of 64 MiB for 31 days are some hundred.
const FILES_MAX: usize = 100_000;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileHash {
    /// Path in the run directory, with `/`.
    pub path: String,
    /// SHA-256, hex.
    pub sha256: String,
    /// Size, bytes.
    pub bytes: u64,
}

/// Why the files cannot be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// One cannot be read.
    #[error(
        "cannot read {path}\n  cause: {source}\n  remedy: a certificate covers every file of its runs; restore it"
    )]
    Io {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is no file and no directory, or a name that is not UTF-8.
    #[error(
        "{path} is no plain file\n  cause: a run directory holds files and directories with UTF-8 names only\n  remedy: take it away; nothing of Tailbeam has made it"
    )]
    Strange {
        /// Which.
        path: String,
    },
    /// Too many.
    #[error(
        "{path} holds more than {FILES_MAX} files\n  cause: that is no run directory\n  remedy: name the directory of one run"
    )]
    TooMany {
        /// Where.
        path: String,
    },
}

/// Hashes all files under `dir` in the order of their paths. `home`: the certificate that is in it is not hashed, since it
/// says the hashes; that of another directory is a file like any other.
///
/// # Errors
/// [`FilesError`].
pub fn hash_files(dir: &Path, home: bool) -> Result<Vec<FileHash>, FilesError> {
    let mut found = Vec::new();
    list(dir, String::new(), &mut found)?;
    found.sort();
    found
        .into_iter()
        .filter(|(path, _)| !home || path != CERTIFICATE)
        .map(|(path, file)| hash(path, &file))
        .collect()
}

fn list(dir: &Path, prefix: String, found: &mut Vec<(String, PathBuf)>) -> Result<(), FilesError> {
    let shown = || dir.display().to_string();
    let failed = |source| FilesError::Io { path: shown(), source };
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let strange = || FilesError::Strange { path: entry.path().display().to_string() };
        let name = entry.file_name().into_string().map_err(|_| strange())?;
        let kind = entry.file_type().map_err(failed)?;
        let path = format!("{prefix}{name}");
        if kind.is_dir() {
            list(&entry.path(), format!("{path}/"), found)?;
        } else if kind.is_file() {
            found.push((path, entry.path()));
        } else {
            return Err(strange());
        }
        if found.len() > FILES_MAX {
            return Err(FilesError::TooMany { path: shown() });
        }
    }
    Ok(())
}

fn hash(path: String, file: &Path) -> Result<FileHash, FilesError> {
    let failed = |source| FilesError::Io { path: file.display().to_string(), source };
    let mut reader = File::open(file).map_err(failed)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0u64);
    let mut buffer = vec![0u8; 1 << 16];
    loop {
        let read = reader.read(&mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(FileHash { path, sha256, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_in_order_and_nothing_else_passes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("seg")).unwrap();
        fs::write(dir.path().join("seg/0000.log"), b"abc").unwrap();
        fs::write(dir.path().join("plan.toml"), b"").unwrap();
        fs::write(dir.path().join(CERTIFICATE), b"not covered by itself").unwrap();
        assert_eq!(hash_files(dir.path(), false).unwrap().len(), 3, "that of another");
        let files = hash_files(dir.path(), true).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, ["plan.toml", "seg/0000.log"]);
        // FIPS 180-2, appendix B.1.
        assert!(files[1].sha256.starts_with("ba7816bf8f01cfea") && files[1].bytes == 3);
        std::os::unix::fs::symlink("plan.toml", dir.path().join("link")).unwrap();
        assert!(matches!(hash_files(dir.path(), true), Err(FilesError::Strange { .. })));
    }
}
