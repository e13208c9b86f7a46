#![expect(unsafe_code, reason = "io_uring_register and membarrier by number: no wrapper has them")]
//! The ways to wake a shard that sleeps in its ring, and which one is used by whom.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use io_uring::opcode;
use io_uring::squeue;
use io_uring::types::Fd;

/// `IORING_REGISTER_SEND_MSG_RING` of linux/io_uring.h (6.13): fd is -1, the argument one SQE without
/// flags, and the result that of the operation.
const REGISTER_SEND_MSG_RING: libc::c_uint = 31;
/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and its registration, of linux/membarrier.h (4.14).
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;

/// What a shard rings when another one sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardBell {
    /// MSG_RING from its own ring.
    MsgRing,
    /// A write to the sleeper's eventfd, which its ring polls.
    EventFd,
}

/// What a thread without a ring does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadBell {
    /// MSG_RING as a register call (6.13).
    SendMsgRing,
    /// A write to the sleeper's eventfd, which its ring polls.
    EventFd,
}

/// The bells of a runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bells {
    /// Between shards.
    pub shards: ShardBell,
    /// From all other threads.
    pub threads: ThreadBell,
}

impl std::fmt::Display for Bells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shards = match self.shards {
            ShardBell::MsgRing => "MSG_RING",
            ShardBell::EventFd => "eventfd",
        };
        let threads = match self.threads {
            ThreadBell::SendMsgRing => "SEND_MSG_RING",
            ThreadBell::EventFd => "eventfd",
        };
        write!(f, "{shards} between shards, {threads} from other threads")
    }
}

/// The entry that posts `data` to the ring `target`.
pub(super) fn message(target: RawFd, data: u64) -> squeue::Entry {
    opcode::MsgRingData::new(Fd(target), 0, data, None).build()
}

/// Rings without a ring: posts a completion to the ring `target`.
pub(crate) fn send_message(ring: &OwnedFd) -> io::Result<()> {
    let entry = message(ring.as_raw_fd(), super::BELL);
    let none: libc::c_int = -1;
    // SAFETY: io_uring_register(2) copies one SQE of 64 bytes from a live one, `Entry` is `repr(C)` around
    // exactly that, and MSG_RING with data names no memory. A descriptor that is no ring is refused.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            none,
            REGISTER_SEND_MSG_RING,
            &raw const entry,
            1,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor of its own for a ring, so that its number names nothing else while it is rung.
pub(crate) fn keep(ring: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes two integers.
    let fd = unsafe { libc::fcntl(ring, libc::F_DUPFD_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn membarrier(command: libc::c_int) -> io::Result<()> {
    // SAFETY: membarrier(2) takes three integers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets this process use [`fence_everywhere`].
pub(super) fn register_fences() -> io::Result<()> {
    membarrier(REGISTER_PRIVATE_EXPEDITED)
}

/// A full fence on every core that runs a thread of this process.
pub(super) fn fence_everywhere() -> io::Result<()> {
    membarrier(PRIVATE_EXPEDITED)
}

const _: () = assert!(size_of::<squeue::Entry>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ring_is_refused() {
        let Ok(super::super::Event::Fd(event)) = super::super::Event::fd() else { return };
        assert!(send_message(&event).is_err() && keep(-1).is_err());
    }
}
