#![expect(unsafe_code, reason = "the shutdown ioctl of ext4 has no safe wrapper")]
//! A power cut of one file system: `EXT4_IOC_SHUTDOWN`.

use std::fs::File;
use std::path::Path;

use rustix::ioctl::{Setter, ioctl, opcode};

use super::failure::{self, Failure};

/// `_IOR('X', 125, __u32)`: fs/ext4/ext4.h. It is said to read and is written to.
const SHUTDOWN: rustix::ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal is not flushed, so what was not synced is lost.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system down that `dir` is on: later writes are refused, what was not synced is gone.
pub(super) fn power(dir: &Path) -> Result<(), Failure> {
    let open = File::open(dir).map_err(|error| failure::io(dir, "open", error))?;
    // SAFETY: the kernel reads one __u32 through the pointer of this request and writes none
    // (ext4_ioctl_shutdown: get_user); the setter points to the u32 that it owns.
    let request = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
    // SAFETY: the request is one that ioctl(2) may be given: other file systems answer ENOTTY, and its pointer is
    // valid for the whole call.
    let answer = unsafe { ioctl(&open, request) };
    answer.map_err(|error| failure::io(dir, "shut down the file system at", error))
}
