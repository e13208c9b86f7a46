//! A disk of our own: an ext4 file system on an image, through a loop device.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fd::OwnedFd;

use super::failure::{self, Failure};
use super::process::until_given;
use super::residue;
use super::step::fill_file;
use super::tool;

pub(super) fn make_image(file: &Path, bytes: u64, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let made = fs::File::create_new(file).and_then(|file| file.set_len(bytes));
    made.map_err(|error| failure::io(file, "make", error))?;
    let path = file.display().to_string();
    // No blocks kept for root, who the subject may be; everything initialised now, not by a thread later.
    let argv =
        ["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", &path];
    tool::run(&argv, line).map(|_| ())
}

pub(super) fn mount(image: &Path, dir: &Path, line: Option<&OwnedFd>) -> Result<(), Failure> {
    let (image, dir) = (image.display().to_string(), dir.display().to_string());
    // Discard would give blocks back to the host's disk, which is not what a plain disk does.
    tool::run(&["mount", "-t", "ext4", "-o", "loop,nodiscard", &image, &dir], line).map(|_| ())
}

/// What is mounted at `dir` is our image; so nothing of somebody else's is filled or shut down.
pub(super) fn own_mount(image: &Path, dir: &Path) -> Result<(), Failure> {
    if residue::image_at(dir)?.as_deref() == Some(image) {
        return Ok(());
    }
    Err(Failure::Differs {
        what: format!("the mount at {}", dir.display()),
        found: "something else".to_owned(),
        wanted: image.display().to_string(),
    })
}

/// Unmounts our image; `false`: it is not mounted. A process with an open file there keeps it: end that first.
pub(super) fn unmount(image: &Path, dir: &Path) -> Result<bool, Failure> {
    let what = || format!("unmounting of {}, which is in use,", dir.display());
    let was_there = until_given(what, || {
        if residue::image_at(dir)?.as_deref() != Some(image) {
            return Ok(Some(false));
        }
        match rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty()) {
            Ok(()) => Ok(Some(true)),
            Err(rustix::io::Errno::BUSY) => Ok(None),
            Err(error) => Err(failure::io(dir, "unmount", error)),
        }
    })?;
    if was_there {
        // The loop device lets go of the image a moment later.
        until_given(
            || format!("the loop device of {}", image.display()),
            || Ok((!residue::loops().values().any(|of| Path::new(of) == image)).then_some(())),
        )?;
    }
    Ok(was_there)
}

pub(super) fn fill(dir: &Path) -> Result<(), Failure> {
    use std::io::Write as _;
    let path = fill_file(dir);
    let made = fs::File::create_new(&path);
    let mut file = made.map_err(|error| failure::io(&path, "make", error))?;
    // Large pieces until one does not fit, then small ones. Bounded by the size of the image.
    for piece in [1 << 20, 1 << 12] {
        let zeros = vec![0; piece];
        loop {
            match file.write_all(&zeros).and_then(|()| file.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                Err(error) => return Err(failure::io(&path, "fill", error)),
            }
        }
    }
    Ok(())
}
