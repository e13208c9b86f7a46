#![expect(unsafe_code, reason = "io_uring submission and the eventfd calls of libc")]
//! A shard's io_uring: it sleeps here and is woken here.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::error::StartError;

pub(crate) mod probe;

/// A doorbell from another shard's ring.
const BELL: u64 = 1;
/// The eventfd became readable: a doorbell from a thread without a ring.
const EVENT: u64 = 2;
/// A doorbell that this ring sent failed.
const SENT: u64 = 1 << 32;

/// The ring of one shard; created and used on its thread only.
pub(crate) struct Ring {
    uring: IoUring,
    event: RawFd,
    /// `io_uring_enter` calls.
    pub(crate) enters: u64,
}

/// What woke the shard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    /// Shards that a doorbell of ours did not reach.
    pub(crate) unreached: Option<usize>,
}

/// The eventfd on which threads without a ring knock.
pub(crate) fn event_fd() -> Result<OwnedFd, StartError> {
    // SAFETY: eventfd(2) takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        let source = io::Error::last_os_error();
        if source.raw_os_error() == Some(libc::EMFILE) {
            return Err(StartError::Files);
        }
        return Err(StartError::Kernel { action: "create an eventfd", source });
    }
    // SAFETY: the descriptor was just created and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Knocks on an eventfd; wakes the shard that polls it.
pub(crate) fn knock(event: &OwnedFd) {
    let one = 1u64;
    // SAFETY: write(2) of eight bytes from a live u64; EAGAIN means that a knock is pending already.
    unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), 8) };
}

impl Ring {
    pub(crate) fn new(entries: u32, event: &OwnedFd) -> Result<Self, StartError> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(entries * 8);
        let uring = match builder.build(entries) {
            // Linux 6.0 has SINGLE_ISSUER but not DEFER_TASKRUN; without both the ring works, dearer.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                IoUring::builder().build(entries)
            }
            other => other,
        };
        let uring = uring.map_err(|error| probe::explain(error, entries))?;
        if !uring.params().is_feature_ext_arg() {
            return Err(StartError::TooOld { feature: "timed waits (EXT_ARG)" });
        }
        let mut ring = Self { uring, event: event.as_raw_fd(), enters: 0 };
        ring.arm_event();
        Ok(ring)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: every entry of this file names descriptors that outlive the ring and no buffers.
        let pushed = unsafe { self.uring.submission().push(entry) };
        if pushed.is_err() {
            self.submit();
            // SAFETY: as above; the queue is empty after a submit.
            let _ = unsafe { self.uring.submission().push(entry) };
        }
    }

    fn arm_event(&mut self) {
        let poll =
            opcode::PollAdd::new(Fd(self.event), libc::POLLIN as u32).build().user_data(EVENT);
        self.push(&poll);
    }

    /// Rings the doorbell of the shard whose ring is `target`; `shard` comes back if it fails.
    pub(crate) fn ring_bell(&mut self, target: RawFd, shard: usize) {
        let bell = opcode::MsgRingData::new(Fd(target), 0, BELL, None)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(SENT | shard as u64);
        self.push(&bell);
    }

    /// Submits what was pushed, without waiting.
    pub(crate) fn submit(&mut self) {
        if !self.uring.submission().is_empty() {
            self.enters += 1;
            // EINTR and EBUSY leave the entries queued; the next enter takes them.
            let _ = self.uring.submit();
        }
    }

    /// Sleeps until a completion or until `wait_ns` is over.
    pub(crate) fn wait(&mut self, wait_ns: Option<u64>) -> Woken {
        self.enters += 1;
        let result = match wait_ns {
            Some(ns) => {
                let nanos = u32::try_from(ns % 1_000_000_000).expect("below 1e9");
                let timeout = Timespec::new().sec(ns / 1_000_000_000).nsec(nanos);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
            None => self.uring.submit_and_wait(1),
        };
        // ETIME is the deadline, EINTR a signal: both are reasons to look around.
        drop(result);
        self.reap()
    }

    fn reap(&mut self) -> Woken {
        let mut woken = Woken::default();
        let mut rearm = false;
        for completion in self.uring.completion() {
            let completion: cqueue::Entry = completion;
            match completion.user_data() {
                EVENT => rearm = true,
                data if data & SENT != 0 => woken.unreached = usize::try_from(data & !SENT).ok(),
                _ => {}
            }
        }
        if rearm {
            let mut count = 0u64;
            // SAFETY: read(2) of eight bytes into a live u64; the descriptor does not block.
            unsafe { libc::read(self.event, (&raw mut count).cast(), 8) };
            self.arm_event();
        }
        woken
    }
}
