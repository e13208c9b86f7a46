//! How long a thread ran and how long it waited for its CPU, by the scheduler's own count.
//!
//! The source of last resort for time off the CPU: it works everywhere, also where perf is refused, and
//! knows no single interval. Counts are brought up to date at switches and at ticks of the kernel, so
//! the run time of a thread that runs lags by up to a tick (4 ms at HZ = 250); waiting does not.

use std::fs::File;

use crate::Unavailable;

/// A thread's counts since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// On a CPU, ns.
    pub run_ns: u64,
    /// Ready to run without a CPU, ns.
    pub wait_ns: u64,
    /// How often it came to a CPU.
    pub slices: u64,
}

impl Schedule {
    /// What came since `before`; `None` when a count fell, as no thread's does.
    #[must_use]
    pub fn since(&self, before: &Self) -> Option<Self> {
        Some(Self {
            run_ns: self.run_ns.checked_sub(before.run_ns)?,
            wait_ns: self.wait_ns.checked_sub(before.wait_ns)?,
            slices: self.slices.checked_sub(before.slices)?,
        })
    }
}

/// A thread's schedstat, held open.
#[derive(Debug)]
pub struct Schedstat {
    file: File,
}

impl Schedstat {
    /// Of the calling thread.
    ///
    /// # Errors
    /// [`Unavailable`] when /proc is not mounted or the kernel keeps no such counts.
    pub fn own() -> Result<Self, Unavailable> {
        Self::at("/proc/thread-self/schedstat")
    }

    /// Of a thread of any process.
    ///
    /// # Errors
    /// As [`own`](Self::own), and when there is no such thread.
    pub fn of(process: u32, thread: u32) -> Result<Self, Unavailable> {
        Self::at(&format!("/proc/{process}/task/{thread}/schedstat"))
    }

    fn at(path: &str) -> Result<Self, Unavailable> {
        let file = File::open(path).map_err(|error| gone(format!("{path}: {error}")))?;
        let opened = Self { file };
        opened.read().map(|_| opened)
    }

    /// Reads the counts. About 0.6 us; allocates only to say why it failed.
    ///
    /// # Errors
    /// [`Unavailable`] when the thread has ended, or the kernel was built without CONFIG_SCHED_INFO.
    pub fn read(&self) -> Result<Schedule, Unavailable> {
        let mut text = [0u8; 96];
        let length = rustix::io::pread(&self.file, &mut text, 0)
            .map_err(|errno| gone(format!("the thread has ended ({errno})")))?;
        parse(&text[..length]).ok_or_else(|| gone(format!("it has {length} bytes of other text")))
    }
}

fn gone(cause: String) -> Unavailable {
    Unavailable {
        source: "schedstat",
        cause,
        remedy: "mount /proc; use a kernel with CONFIG_SCHED_INFO".to_owned(),
    }
}

/// Three numbers (Documentation/scheduler/sched-stats.rst).
pub(super) fn parse(text: &[u8]) -> Option<Schedule> {
    let mut numbers = text.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let mut next = || number(numbers.next()?);
    Some(Schedule { run_ns: next()?, wait_ns: next()?, slices: next()? })
}

/// A decimal number that is all of `word`.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_or_nothing() {
        let schedule = Schedule { run_ns: 12, wait_ns: 3, slices: 4 };
        assert_eq!(parse(b"12 3 4\n"), Some(schedule));
        for text in ["", "12 3", "12 x 4", "-1 2 3", "99999999999999999999 1 1"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(schedule.since(&Schedule::default()), Some(schedule));
        assert_eq!(Schedule::default().since(&schedule), None, "a count that falls is none");
    }

    #[test]
    fn a_thread_that_ends_is_gone_and_says_so() {
        let Ok(own) = Schedstat::own() else { return };
        let before = own.read().unwrap();
        std::thread::yield_now();
        assert!(own.read().unwrap().since(&before).is_some());
        let ended = std::thread::spawn(|| Schedstat::own().unwrap()).join().unwrap();
        // A join returns when the thread is done with its stack; the kernel ends it a little later.
        let looks = std::iter::repeat_with(|| {
            std::thread::yield_now();
            ended.read()
        });
        let gone = looks.take(1_000_000).find_map(Result::err).expect("it ends");
        assert!(gone.cause.contains("has ended"), "{gone}");
    }
}
