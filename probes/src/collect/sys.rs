#![expect(
    unsafe_code,
    reason = "getrusage(2), and read(2) and ioctl(2) of descriptors that another crate owns"
)]
//! System calls that no dependency offers in a form that neither allocates nor asserts.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::record::program::ProgramTotal;

/// Reads whole words of a perf event's descriptor into `words`; how many came. 0 is the end of file by
/// which the kernel says that a pinned event lost its counter. About 0.7 us for a group.
///
/// # Errors
/// What read(2) gives; `EIO` for a length that is no number of words.
pub(crate) fn read_words(event: &impl AsRawFd, words: &mut [u64]) -> Result<usize, Errno> {
    // SAFETY: `event` owns an open descriptor and is borrowed for longer than this handle lives.
    let descriptor = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    let length = words.len() * 8;
    // SAFETY: `words` is `length` bytes of initialised memory, exclusively borrowed here, and every
    // pattern of bytes is a valid u64.
    let bytes = unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast::<u8>(), length) };
    let count = rustix::io::read(descriptor, bytes)?;
    if count.is_multiple_of(8) { Ok(count / 8) } else { Err(Errno::IO) }
}

/// Asks the kernel to close `event` when another program is executed; perf-event does not.
pub(crate) fn close_on_exec(event: &impl AsRawFd) -> Result<(), Errno> {
    // SAFETY: as in `read_words`.
    let descriptor = unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) };
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
}

/// `PERF_EVENT_IOC_SET_OUTPUT`, `_IO('$', 5)` (perf_event_open(2)).
const SET_OUTPUT: libc::Ioctl = 0x2405;

/// Lets `event` write its records into the ring of `ring`, an event of the same CPU.
///
/// # Errors
/// `EINVAL` when the two are not of one CPU and clock.
pub(crate) fn set_output(event: &impl AsRawFd, ring: &impl AsRawFd) -> Result<(), Errno> {
    let (event, ring) = (event.as_raw_fd(), ring.as_raw_fd());
    // SAFETY: both descriptors are open for the length of the call; the request takes a descriptor by
    // value and touches no memory of ours.
    let failed = unsafe { libc::ioctl(event, SET_OUTPUT, ring) };
    if failed == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// What getrusage(2) counts of all children that were waited for, and of theirs: exact.
#[must_use]
pub(crate) fn children_usage() -> ProgramTotal {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) writes one rusage through a valid pointer.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    assert_eq!(failed, 0, "getrusage fails for a bad pointer or an unknown target only");
    // SAFETY: all fields are integers, so the zeroes were a value already.
    let usage = unsafe { usage.assume_init() };
    let ns = |time: libc::timeval| {
        time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_usec.cast_unsigned() * 1_000
    };
    ProgramTotal {
        user_ns: ns(usage.ru_utime),
        system_ns: ns(usage.ru_stime),
        minor_faults: usage.ru_minflt.cast_unsigned(),
        major_faults: usage.ru_majflt.cast_unsigned(),
        voluntary: Some(usage.ru_nvcsw.cast_unsigned()),
        involuntary: Some(usage.ru_nivcsw.cast_unsigned()),
        // In KiB (getrusage(2)).
        rss_max_bytes: Some(usage.ru_maxrss.cast_unsigned() * 1_024),
    }
}

/// What getrusage(2) counts of the calling thread; exact, without any privilege.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Faults that needed no disk.
    pub(crate) minor_faults: u64,
    /// Faults that waited for one.
    pub(crate) major_faults: u64,
    /// Switches away because the thread waited for something.
    pub(crate) voluntary: u64,
    /// Switches away while it could run.
    pub(crate) involuntary: u64,
}

/// Reads it. About 0.2 us.
pub(crate) fn thread_usage() -> Usage {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage(2) writes one rusage through a valid pointer; RUSAGE_THREAD exists since 2.6.26.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    assert_eq!(failed, 0, "getrusage fails for a bad pointer or an unknown target only");
    // SAFETY: all fields are integers, so the zeroes were a value already.
    let usage = unsafe { usage.assume_init() };
    // The kernel's counts are unsigned; libc's type is not.
    Usage {
        minor_faults: usage.ru_minflt.cast_unsigned(),
        major_faults: usage.ru_majflt.cast_unsigned(),
        voluntary: usage.ru_nvcsw.cast_unsigned(),
        involuntary: usage.ru_nivcsw.cast_unsigned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_and_yields_are_counted() {
        let before = thread_usage();
        let pages = std::hint::black_box(vec![1u8; 64 << 20]);
        let after = thread_usage();
        assert!(after.minor_faults > before.minor_faults, "{after:?}");
        drop(pages);
        assert!(after.voluntary >= before.voluntary && after.involuntary >= before.involuntary);
    }

    #[test]
    fn words_of_a_descriptor() {
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let mut words = [7u64; 4];
        assert_eq!(read_words(&zero, &mut words), Ok(4));
        assert_eq!(words, [0; 4]);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(read_words(&null, &mut words), Ok(0));
    }
}
