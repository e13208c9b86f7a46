//! Room on the disk that a run holds from its start, so that files of others cannot end it after two days.
//!
//! It is a file without a name on the file system of the store: it goes with its process, however that ends, and is
//! no evidence. It is as large as all windows that are still to come and the end of the run, and gives the room of a
//! window back just before that is written: who fills the disk does it no harm, but one who writes at that very moment may
//! still be faster. Event logs and states of the heap have files of fixed size that they make
//! ahead; room for those is looked at before a run begins, and not held.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstatfs, ftruncate, open};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

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
    held: u64,
}

impl Reserve {
    /// Holds what a run still has to write on the file system of `root`, of `needed` bytes in all, of which `dir` has
    /// some.
    pub(super) fn hold(root: &Path, dir: &Path, needed: u64) -> Result<Self, NotHeld> {
        let held = needed.saturating_sub(blocks(dir));
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
        // Beyond it the kernel would send SIGXFSZ, which ends a program.
        if getrlimit(Resource::Fsize).current.is_some_and(|most| most < held) {
            return Err(NotHeld {
                cause: format!("RLIMIT_FSIZE lets no file have {held} bytes"),
                remedy: "raise it, with ulimit -f unlimited",
                full: false,
            });
        }
        if held > 0 {
            fallocate(&file, FallocateFlags::empty(), 0, held).map_err(not_held)?;
        }
        Ok(Self { file: file.into(), held })
    }

    /// Before `bytes` at most are written: gives so many back. All of them each time: what a write left of them somebody
    /// else may have by now.
    pub(super) fn give(&mut self, bytes: u64) -> Result<(), Errno> {
        let left = self.held.saturating_sub(bytes);
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

fn not_held(error: Errno) -> NotHeld {
    let cause = format!("the file system of the store refuses to reserve room: {error}");
    let remedy = match error {
        Errno::DQUOT => "raise the quota of this user, or put the store elsewhere, with --store",
        _ => "put the store on ext4, XFS or btrfs, with --store",
    };
    NotHeld { cause, remedy, full: error == Errno::NOSPC }
}

/// Bytes of the blocks that the files below `dir` take.
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
    fn room_is_held_and_given_back_before_it_is_written_and_leaves_no_name() {
        let root = disk();
        let seg = root.path().join("seg");
        fs::create_dir_all(&seg).unwrap();
        let mut reserve = match Reserve::hold(root.path(), &seg, 64 * MIB) {
            Ok(reserve) => reserve,
            Err(why) => return assert!(!why.full && !why.cause.is_empty(), "{why:?}"),
        };
        let on_disk = |of: &Reserve| of.file.metadata().unwrap().blocks() * STAT_BLOCK;
        assert_eq!(reserve.held(), 64 * MIB);
        assert!(on_disk(&reserve) >= 64 * MIB, "it is room, not a hole");
        for window in 1..=3 {
            reserve.give(4 * MIB).unwrap();
            assert_eq!(reserve.held(), (64 - 4 * window) * MIB, "whatever was written before");
            assert!(on_disk(&reserve) <= reserve.held() + MIB);
        }
        reserve.give(u64::MAX).unwrap();
        assert_eq!(reserve.held(), 0);
        // A run that goes on holds what it has not written yet.
        let mut file = File::create(seg.join("0000.log")).unwrap();
        file.write_all(&vec![1; 3 << 20]).unwrap();
        file.sync_all().unwrap();
        let left = Reserve::hold(root.path(), &seg, 64 * MIB).unwrap().held();
        assert!(left <= 61 * MIB && left > 60 * MIB, "{left}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "only the run has a name");
    }

    #[test]
    fn what_cannot_be_held_says_why() {
        let root = disk();
        let asked = Reserve::hold(root.path(), root.path(), 1 << 60);
        let why = asked.expect_err("an exbibyte");
        assert!(why.cause.contains("refuses to reserve"), "{why:?}");
        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            let why = Reserve::hold(memory.path(), memory.path(), MIB).expect_err("memory");
            assert!(why.cause.contains("memory") && !why.full, "{why:?}");
        }
    }
}
