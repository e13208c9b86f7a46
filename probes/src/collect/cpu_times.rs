//! What a CPU did, by the kernel's columns of /proc/stat: steal and interrupts among them.
//!
//! In whole ticks of USER_HZ, 10 ms as a rule, and by sampling where the kernel does not account exactly:
//! for windows of a second and more. In guests the host may report no steal at all; then holes in the
//! counter's time are all there is (see [`super::gap`]).

use std::fs::File;

use super::schedstat::number;
use crate::Unavailable;

/// Bytes kept for a CPU's line: its name and ten numbers of twenty digits.
const LINE_MAX: usize = 224;

/// Time of one CPU since boot, ns, in steps of a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// In user space, niced or not.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Idle, also while a disk is awaited.
    pub idle_ns: u64,
    /// In interrupts.
    pub irq_ns: u64,
    /// In soft interrupts.
    pub softirq_ns: u64,
    /// Runnable, but the host ran something else.
    pub steal_ns: u64,
}

/// /proc/stat, held open with a buffer.
#[derive(Debug)]
pub struct CpuTimesReader {
    file: File,
    text: Vec<u8>,
    tick_ns: u64,
}

impl CpuTimesReader {
    /// For a host with up to `cpus` CPUs.
    ///
    /// # Errors
    /// [`Unavailable`] when /proc is not mounted.
    pub fn open(cpus: usize) -> Result<Self, Unavailable> {
        let file = File::open("/proc/stat").map_err(|error| missing(error.to_string()))?;
        let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
        Ok(Self { file, text: vec![0; LINE_MAX * (cpus + 1)], tick_ns })
    }

    /// The times of `cpu`. Allocates nothing unless it fails. About 6 us, most of it the kernel's: once
    /// a second on a housekeeping thread.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no line of this CPU, or it is offline.
    pub fn read(&mut self, cpu: u32) -> Result<CpuTimes, Unavailable> {
        let length = rustix::io::pread(&self.file, &mut self.text, 0)
            .map_err(|errno| missing(errno.to_string()))?;
        parse(&self.text[..length], cpu, self.tick_ns)
            .ok_or_else(|| missing(format!("it has no whole line of cpu{cpu}")))
    }

    /// One tick, ns: the grain of all of this.
    #[must_use]
    pub const fn tick_ns(&self) -> u64 {
        self.tick_ns
    }
}

fn missing(cause: String) -> Unavailable {
    Unavailable {
        source: "/proc/stat",
        cause,
        remedy: "mount /proc; name an online CPU".to_owned(),
    }
}

/// user nice system idle iowait irq softirq steal guest guest_nice (proc_stat(5)).
fn parse(text: &[u8], cpu: u32, tick_ns: u64) -> Option<CpuTimes> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let line = lines.find(|line| {
        let name = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        name.strip_prefix(b"cpu").and_then(number) == Some(u64::from(cpu))
    })?;
    // A line without its end was cut by the buffer.
    let words =
        line.strip_suffix(b"\n")?.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let mut ticks = words.skip(1).map(number);
    let mut next = || ticks.next().flatten().map(|ticks| ticks.saturating_mul(tick_ns));
    let (user, nice, system, idle, iowait) = (next()?, next()?, next()?, next()?, next()?);
    Some(CpuTimes {
        user_ns: user.saturating_add(nice),
        system_ns: system,
        idle_ns: idle.saturating_add(iowait),
        irq_ns: next()?,
        softirq_ns: next()?,
        steal_ns: next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu11 1 1 1 1 1 1 1 99 0 0\n";

    #[test]
    fn a_line_by_its_number() {
        let times = parse(TEXT.as_bytes(), 0, 10).unwrap();
        let expected = CpuTimes {
            user_ns: 30,
            system_ns: 30,
            idle_ns: 90,
            irq_ns: 60,
            softirq_ns: 70,
            steal_ns: 80,
        };
        assert_eq!(times, expected);
        assert_eq!(parse(TEXT.as_bytes(), 11, 10).unwrap().steal_ns, 990);
        assert_eq!(parse(TEXT.as_bytes(), 1, 10), None, "cpu11 is not cpu1");
        assert_eq!(parse(&TEXT.as_bytes()[..TEXT.len() - 1], 11, 10), None, "a line that was cut");
    }

    #[test]
    fn this_host_has_a_first_cpu_and_no_last_one() {
        let mut reader = CpuTimesReader::open(64).unwrap();
        assert!(reader.read(0).unwrap().idle_ns > 0);
        assert!(reader.read(u32::MAX).unwrap_err().cause.contains("no whole line"));
    }
}
