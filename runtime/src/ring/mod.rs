#![expect(unsafe_code, reason = "io_uring submission and the eventfd calls of libc")]
//! A shard's io_uring: it sleeps here and is woken here.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use std::rc::Rc;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::error::StartError;
use crate::op::{Abilities, Completion, Flight, Key, Op, Pool};

pub(crate) mod bell;
mod buffers;
pub(crate) mod calibrate;
mod entry;
pub(crate) mod faults;
pub(crate) mod faulty;
pub(crate) mod probe;
#[cfg(all(test, not(loom)))]
pub(crate) mod twin;

/// A doorbell from another shard's ring.
const BELL: u64 = 1;
/// The eventfd became readable: a doorbell from a thread without a ring.
const EVENT: u64 = 2;
/// A doorbell that this ring sent failed.
const SENT: u64 = 1 << 32;
/// A cancellation that came too late, or found nothing: the operation's own completion says the rest.
const CANCEL: u64 = 3;
/// An operation; the lower 61 bits are its key.
const OP: u64 = 1 << 63;
/// Its success is a new descriptor.
const MAKES_FILE: u64 = 1 << 62;
const KEY: u64 = (1 << 61) - 1;

/// Room for completions per submission entry: a multishot operation makes many.
const COMPLETIONS_PER_ENTRY: u32 = 8;

/// Longest sleep on the eventfd alone, when the ring itself fails: bells of other rings cannot be seen
/// then, so a message is at most this late. Milliseconds.
const BROKEN_WAIT_MS: i32 = 1;

/// What a shard needs of its ring.
pub(crate) trait Doorbells {
    /// Descriptor that other rings ring.
    fn fd(&self) -> RawFd;
    /// Queues a doorbell for the shard whose ring is `target`; `false` when it could not be queued.
    #[must_use]
    fn ring_bell(&mut self, target: RawFd, shard: usize) -> bool;
    /// Submits what was queued, without waiting; `false` when it may not have been sent.
    #[must_use]
    fn submit(&mut self) -> bool;
    /// Sleeps until a completion, a knock or until `wait_ns` is over; may return early.
    fn wait(&mut self, wait_ns: Option<u64>);
    /// A shard that a doorbell of ours did not reach, as far as submits and waits have shown.
    fn unreached(&mut self) -> Option<usize>;
    /// Whether a wait would find something without waiting. No system call.
    fn has_completions(&mut self) -> bool;
    /// Calls into the kernel, and how many of them failed for good.
    fn calls(&self) -> Calls;

    /// What the ring can do.
    fn abilities(&self) -> Abilities;
    /// Queues an operation; `false` when the queue is full until the next submit. One that was queued is answered by
    /// completions, the last of them without `more`, and until then the ring may use what its body owns.
    #[must_use]
    fn submit_op(&mut self, op: Flight<'_>) -> bool;
    /// Asks for the end of an operation, which its last completion tells; `false` when that could not be
    /// queued.
    #[must_use]
    fn cancel_op(&mut self, key: Key, op: &Op) -> bool;
    /// Lets multishot receives take buffers from the pool; `false` when it cannot.
    #[must_use]
    fn lend(&mut self, pool: &Rc<Pool>) -> bool;
    /// Gives the ring buffers of the pool that it lends from.
    fn return_buffers(&mut self, pool: &Pool, buffers: &[u16]);
    /// Whether an enter would submit or complete something.
    fn wants_enter(&mut self) -> bool;
    /// Whether completions wait to be taken.
    fn has_completed(&self) -> bool;
    /// Takes what completed.
    fn completions(&mut self, into: &mut Vec<Completion>);
}

/// Counts of a ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    /// `io_uring_enter` calls.
    pub(crate) enters: u64,
    /// Of those, failed with an error that is no reason to look around.
    pub(crate) failed: u64,
}

/// The ring of one shard; created and used on its thread only.
pub(crate) struct Ring {
    uring: IoUring,
    event: RawFd,
    /// Whether one poll of the eventfd serves for all knocks (5.13).
    multishot: bool,
    /// Whether the poll of the eventfd is queued or in the kernel.
    armed: bool,
    calls: Calls,
    /// Filled by `reap`, one entry per failed bell, so at most as many as entries were in flight.
    unreached: Vec<usize>,
    abilities: Abilities,
    /// Dropped after `uring`.
    buffers: Option<buffers::BufferRing>,
    /// Filled by `reap`, emptied in every pass of the shard.
    completed: Vec<Completion>,
}

impl Drop for Ring {
    /// Other shards may hold the ring's descriptor for longer: the kernel lets go of the buffers here.
    fn drop(&mut self) {
        if self.buffers.is_some() {
            // An answer other than yes says that there is no such group: nothing is held.
            let _ = self.uring.submitter().unregister_buf_ring(buffers::GROUP);
        }
    }
}

/// Where threads without a ring knock.
pub(crate) enum Event {
    /// An eventfd that the shard's ring polls.
    Fd(OwnedFd),
    /// A note for whoever drives a simulated shard.
    Note(AtomicBool),
}

impl Event {
    pub(crate) fn fd() -> Result<Self, StartError> {
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
        Ok(Self::Fd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn raw(&self) -> RawFd {
        match self {
            Self::Fd(fd) => fd.as_raw_fd(),
            Self::Note(_) => -1,
        }
    }
}

/// Knocks; wakes the shard that polls the event.
pub(crate) fn knock(event: &Event) {
    let one = 1u64;
    match event {
        // SAFETY: write(2) of eight bytes from a live u64; EAGAIN means that a knock is pending already.
        Event::Fd(fd) => drop(unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) }),
        Event::Note(noted) => noted.store(true, Ordering::Release),
    }
}

impl Ring {
    pub(crate) fn new(entries: u32, event: &Event) -> Result<Self, StartError> {
        let mut builder = IoUring::builder();
        // TASKRUN_FLAG says without a call whether completions wait to be made.
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
        builder.setup_cqsize(entries * COMPLETIONS_PER_ENTRY);
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
        let unreached = Vec::with_capacity(entries as usize);
        let event = event.raw();
        let abilities = probe::abilities(&uring);
        let completed = Vec::with_capacity((entries * COMPLETIONS_PER_ENTRY) as usize);
        let mut ring = Self {
            uring,
            event,
            multishot: true,
            armed: false,
            calls: Calls::default(),
            unreached,
            abilities,
            buffers: None,
            completed,
        };
        ring.arm_event();
        Ok(ring)
    }

    /// Whether the entry is in the queue.
    fn queue(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the contract is that an entry's memory is valid while the kernel uses it. Entries of this
        // file name descriptors that outlive the ring and no memory; entries of operations name what the
        // body of a `Flight` owns, and a table keeps that until the last completion.
        unsafe { self.uring.submission().push(entry) }.is_ok()
    }

    /// Whether the entry is in the queue, which is submitted if it is full.
    fn push(&mut self, entry: &squeue::Entry) -> bool {
        self.queue(entry) || (self.submit() && self.queue(entry))
    }

    fn arm_event(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.event), libc::POLLIN as u32).multi(self.multishot);
        self.armed = self.queue(&poll.build().user_data(EVENT));
        self.calls.failed += u64::from(!self.armed);
    }

    /// Judges the result of an enter: `false` when it failed for good.
    fn entered(&mut self, result: io::Result<usize>) -> bool {
        // ETIME is the deadline, EINTR a signal, EBUSY and EAGAIN leave the entries queued for the
        // next enter: all are reasons to look around.
        let passing = [libc::ETIME, libc::EINTR, libc::EBUSY, libc::EAGAIN];
        let fine = match result {
            Ok(_) => true,
            Err(error) => error.raw_os_error().is_some_and(|errno| passing.contains(&errno)),
        };
        self.calls.failed += u64::from(!fine);
        fine
    }

    /// The second way to sleep, when the ring has failed.
    fn wait_for_knock(&self, wait_ns: Option<u64>) {
        let ms = wait_ns.map_or(BROKEN_WAIT_MS, |ns| {
            i32::try_from(ns / 1_000_000).unwrap_or(BROKEN_WAIT_MS).min(BROKEN_WAIT_MS)
        });
        let mut poll = libc::pollfd { fd: self.event, events: libc::POLLIN, revents: 0 };
        // SAFETY: poll(2) of one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, ms) };
        self.take_knocks();
    }

    fn take_knocks(&self) {
        let mut count = 0u64;
        // SAFETY: read(2) of eight bytes into a live u64; the descriptor does not block.
        unsafe { libc::read(self.event, (&raw mut count).cast(), 8) };
    }

    fn reap(&mut self) {
        let mut rearm = false;
        for completion in self.uring.completion() {
            let completion: cqueue::Entry = completion;
            match completion.user_data() {
                // Each knock is one completion, whether the count behind it was read or not.
                EVENT => {
                    self.multishot &= completion.result() >= 0;
                    rearm |= !cqueue::more(completion.flags());
                }
                data if data & OP != 0 => self.completed.push(told(&completion)),
                data if data & SENT != 0 => {
                    self.unreached.extend(usize::try_from(data & !SENT).ok());
                }
                _ => {}
            }
        }
        if rearm {
            self.take_knocks();
        }
        // One that found no room is tried again at the next look.
        if rearm || !self.armed {
            self.arm_event();
        }
    }
}

/// A completion of an operation.
fn told(completion: &cqueue::Entry) -> Completion {
    let (data, flags, result) = (completion.user_data(), completion.flags(), completion.result());
    let makes_file = data & MAKES_FILE != 0 && result >= 0;
    Completion {
        key: Key::from_bits(data & KEY),
        result,
        more: cqueue::more(flags),
        notification: cqueue::notif(flags),
        buffer: cqueue::buffer_select(flags),
        // SAFETY: accept and openat answer with a descriptor that they have made for us, once each.
        made: makes_file.then(|| unsafe { OwnedFd::from_raw_fd(result) }),
    }
}

const fn user_data(key: Key, makes_file: bool) -> u64 {
    let file = if makes_file { MAKES_FILE } else { 0 };
    OP | file | key.bits()
}

impl Doorbells for Ring {
    fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    fn ring_bell(&mut self, target: RawFd, shard: usize) -> bool {
        let bell = bell::message(target, BELL).flags(squeue::Flags::SKIP_SUCCESS);
        self.push(&bell.user_data(SENT | shard as u64))
    }

    fn submit(&mut self) -> bool {
        if !self.wants_enter() {
            return true;
        }
        self.calls.enters += 1;
        let result = self.uring.submit();
        let fine = self.entered(result);
        self.reap();
        // What the kernel has left would be sent with the next call, which a busy shard may never make.
        fine && self.uring.submission().is_empty()
    }

    fn wait(&mut self, wait_ns: Option<u64>) {
        self.calls.enters += 1;
        let result = match wait_ns {
            Some(ns) => {
                let nanos = u32::try_from(ns % 1_000_000_000).expect("below 1e9");
                let timeout = Timespec::new().sec(ns / 1_000_000_000).nsec(nanos);
                self.uring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout))
            }
            None => self.uring.submit_and_wait(1),
        };
        if !self.entered(result) {
            self.wait_for_knock(wait_ns);
        }
        self.reap();
    }

    fn unreached(&mut self) -> Option<usize> {
        self.unreached.pop()
    }

    fn has_completions(&mut self) -> bool {
        // With DEFER_TASKRUN the kernel makes completions when it is entered, and says so by this flag.
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    fn calls(&self) -> Calls {
        self.calls
    }

    fn abilities(&self) -> Abilities {
        self.abilities
    }

    fn submit_op(&mut self, mut op: Flight<'_>) -> bool {
        let key = op.key();
        let body = op.body();
        let data = user_data(key, body.op.makes_file());
        let entry = entry::entry(body, self.abilities).user_data(data);
        self.queue(&entry)
    }

    fn cancel_op(&mut self, key: Key, op: &Op) -> bool {
        let target = user_data(key, op.makes_file());
        self.queue(&entry::cancel(target).user_data(CANCEL))
    }

    fn lend(&mut self, pool: &Rc<Pool>) -> bool {
        if self.buffers.is_some() {
            return true;
        }
        match buffers::BufferRing::new(&self.uring, pool) {
            Ok(mut buffers) => {
                pool.lend();
                pool.hand_over(|idle| buffers.give(pool, idle));
                self.buffers = Some(buffers);
                true
            }
            Err(_) => {
                // Single receives into buffers that we choose: dearer, and as good.
                self.abilities.multishot_recv = false;
                false
            }
        }
    }

    fn return_buffers(&mut self, pool: &Pool, buffers: &[u16]) {
        if let Some(ring) = &mut self.buffers {
            ring.give(pool, buffers);
        }
    }

    fn wants_enter(&mut self) -> bool {
        let submission = self.uring.submission();
        if !submission.is_empty() || submission.taskrun() || submission.cq_overflow() {
            return true;
        }
        drop(submission);
        !self.uring.completion().is_empty()
    }

    fn has_completed(&self) -> bool {
        !self.completed.is_empty()
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.completed);
    }
}
