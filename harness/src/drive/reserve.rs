//! Room on the disk that a run holds from its start, so that files of others cannot end it after two days.
//!
//! It is a file without a name on the file system of the store: it goes with its process, however that ends, and is
//! no evidence. It shrinks as the run's own files grow. What may be written between two looks is not held: whoever
//! writes it finds it free.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstatfs, ftruncate, open};
use rustix::io::Errno;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of linux/magic.h: their room is memory, which is written when it is held.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
/// A block of `st_blocks`, bytes, whatever the file system's own are (stat(2)).
const STAT_BLOCK: u64 = 512;

/// Why room is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotHeld {
    pub(super) cause: String,
    pub(super) remedy: &'static str,
    /// The file system has less than is asked for.
    pub(super) full: bool,
}

/// Room that is held.
#[derive(Debug)]
pub(super) struct Reserve {
    file: File,
    /// Directories whose files take it up.
    of: Vec<PathBuf>,
    /// What they will hold at most, bytes.
    needed: u64,
    /// What may be written between two looks, bytes.
    slack: u64,
    held: u64,
}

impl Reserve {
    /// Holds what the directories `of` will need on the file system of `root` and do not have yet.
    pub(super) fn hold(
        root: &Path,
        of: Vec<PathBuf>,
        (needed, slack): (u64, u64),
    ) -> Result<Self, NotHeld> {
        let held = left(needed, slack, used(&of));
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = open(root, flags, Mode::RUSR | Mode::WUSR).map_err(not_held)?;
        let kind = fstatfs(&file).map_err(not_held)?.f_type;
        if IN_MEMORY.iter().any(|magic| i128::from(kind) == i128::from(*magic)) {
            return Err(NotHeld {
                cause: "the store lies in memory, where room is taken by writing to it".to_owned(),
                remedy: "put the store on a disk, with --store",
                full: false,
            });
        }
        if held > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, held).map_err(not_held)?;
        }
        Ok(Self { file: file.into(), of, needed, slack, held })
    }

    /// Gives back what the directories have taken meanwhile. Some `stat` calls; not on a core with agents.
    pub(super) fn follow(&mut self) -> Result<(), Errno> {
        let left = left(self.needed, self.slack, used(&self.of));
        if left < self.held {
            ftruncate(&self.file, left)?;
            self.held = left;
        }
        Ok(())
    }

    /// Bytes that are held now.
    pub(super) const fn held(&self) -> u64 {
        self.held
    }
}

const fn left(needed: u64, slack: u64, used: u64) -> u64 {
    needed.saturating_sub(used).saturating_sub(slack)
}

fn not_held(error: Errno) -> NotHeld {
    let full = error == Errno::NOSPC || error == Errno::DQUOT || error == Errno::FBIG;
    NotHeld {
        cause: format!("the file system of the store refuses to reserve room: {error}"),
        remedy: "put the store on ext4, XFS or btrfs, with --store",
        full,
    }
}

/// Bytes of the blocks that files of `dirs` take.
fn used(dirs: &[PathBuf]) -> u64 {
    dirs.iter().map(|dir| blocks(dir)).sum()
}

fn blocks(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => blocks(&entry.path()),
            Ok(meta) => meta.blocks() * STAT_BLOCK,
            // It was taken away meanwhile.
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A directory on a disk, where this machine has one for tests.
    fn disk() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    #[test]
    fn room_is_held_shrinks_with_what_is_written_and_leaves_no_name() {
        let root = disk();
        let run = root.path().join("run");
        fs::create_dir_all(run.join("seg")).unwrap();
        let held = Reserve::hold(root.path(), vec![run.clone()], (64 * MIB, 4 * MIB));
        let mut reserve = match held {
            Ok(reserve) => reserve,
            Err(why) => return assert!(!why.full && !why.cause.is_empty(), "{why:?}"),
        };
        let on_disk = |of: &Reserve| of.file.metadata().unwrap().blocks() * STAT_BLOCK;
        assert_eq!(reserve.held(), 60 * MIB);
        assert!(on_disk(&reserve) >= 60 * MIB, "it is room, not a hole");
        let mut file = File::create(run.join("seg/0000.log")).unwrap();
        file.write_all(&vec![1; 10 << 20]).unwrap();
        file.sync_all().unwrap();
        reserve.follow().unwrap();
        let left = reserve.held();
        assert!(left <= 50 * MIB && left > 49 * MIB && on_disk(&reserve) <= left + MIB, "{left}");
        // What was taken away is not taken again: somebody else may have it by now.
        file.set_len(0).unwrap();
        reserve.follow().unwrap();
        assert_eq!(reserve.held(), left);
        let names = fs::read_dir(root.path()).unwrap().count();
        assert_eq!(names, 1, "only the run has a name");
    }

    #[test]
    fn what_cannot_be_held_says_why() {
        let root = disk();
        let asked = Reserve::hold(root.path(), Vec::new(), (1 << 60, 0));
        let why = asked.expect_err("an exbibyte");
        assert!(why.cause.contains("refuses to reserve"), "{why:?}");
        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            let why = Reserve::hold(memory.path(), Vec::new(), (MIB, 0)).expect_err("memory");
            assert!(why.cause.contains("memory") && !why.full, "{why:?}");
        }
    }
}
