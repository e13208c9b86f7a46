//! Counters of control groups: what the kernel says a fault did.

use std::path::Path;

use tailbeam_probes::Unavailable;

use super::cgroups::{Controller, Groups};
use super::failure;

/// A counter, or a reading, of the groups of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Periods in which the quota was used up.
    ThrottledPeriods,
    /// Time that tasks were throttled, us.
    ThrottledUs,
    /// CPU time used, us.
    CpuUs,
    /// Times that the memory limit was reached.
    MemoryHits,
    /// Processes that the kernel killed for memory.
    OomKills,
    /// Memory charged, bytes.
    MemoryBytes,
    /// 1 while all tasks are frozen, else 0.
    Frozen,
    /// Operations on block devices; in version 1 since the first throttle of the device.
    IoOps,
    /// Bytes moved to and from block devices; in version 1 since the first throttle of the device.
    IoBytes,
    /// Forks and threads refused.
    PidsRefused,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ThrottledPeriods,
        Self::ThrottledUs,
        Self::CpuUs,
        Self::MemoryHits,
        Self::OomKills,
        Self::MemoryBytes,
        Self::Frozen,
        Self::IoOps,
        Self::IoBytes,
        Self::PidsRefused,
    ];

    const fn controller(self) -> Controller {
        match self {
            Self::ThrottledPeriods | Self::ThrottledUs => Controller::Cpu,
            Self::CpuUs => Controller::CpuAcct,
            Self::MemoryHits | Self::OomKills | Self::MemoryBytes => Controller::Memory,
            Self::Frozen => Controller::Freezer,
            Self::IoOps | Self::IoBytes => Controller::Io,
            Self::PidsRefused => Controller::Pids,
        }
    }

    /// File, how it is read, and what divides the value. Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
    const fn source(self, version: u8) -> (&'static str, How, u64) {
        use How::{Frozen, Key, Number, SumOf, Ways};
        match (self, version) {
            (Self::ThrottledPeriods, _) => ("cpu.stat", Key("nr_throttled"), 1),
            (Self::ThrottledUs, 1) => ("cpu.stat", Key("throttled_time"), 1_000),
            (Self::ThrottledUs, _) => ("cpu.stat", Key("throttled_usec"), 1),
            (Self::CpuUs, 1) => ("cpuacct.usage", Number, 1_000),
            (Self::CpuUs, _) => ("cpu.stat", Key("usage_usec"), 1),
            (Self::MemoryHits, 1) => ("memory.failcnt", Number, 1),
            (Self::MemoryHits, _) => ("memory.events", Key("max"), 1),
            (Self::OomKills, 1) => ("memory.oom_control", Key("oom_kill"), 1),
            (Self::OomKills, _) => ("memory.events", Key("oom_kill"), 1),
            (Self::MemoryBytes, 1) => ("memory.usage_in_bytes", Number, 1),
            (Self::MemoryBytes, _) => ("memory.current", Number, 1),
            (Self::Frozen, 1) => ("freezer.state", Frozen, 1),
            (Self::Frozen, _) => ("cgroup.events", Key("frozen"), 1),
            (Self::IoOps, 1) => ("blkio.throttle.io_serviced", Ways, 1),
            (Self::IoOps, _) => ("io.stat", SumOf(["rios=", "wios="]), 1),
            (Self::IoBytes, 1) => ("blkio.throttle.io_service_bytes", Ways, 1),
            (Self::IoBytes, _) => ("io.stat", SumOf(["rbytes=", "wbytes="]), 1),
            (Self::PidsRefused, _) => ("pids.events", Key("max"), 1),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// The file is one number.
    Number,
    /// The number in the line that begins with this word.
    Key(&'static str),
    /// Sum of all lines `MAJOR:MINOR Read N` and `Write N`; the total has what is discarded too, which no limit holds
    /// back. Without a device nothing is counted yet: the kernel begins with the first limit on it, and says `Total 0`
    /// before (both seen on 6.18).
    Ways,
    /// Sum of all words with these beginnings.
    SumOf([&'static str; 2]),
    /// `FROZEN` is 1.
    Frozen,
}

fn parsed(text: &str, how: How) -> Option<u64> {
    let key = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(word, _)| *word == wanted)?.1.trim().parse().ok()
    };
    match how {
        How::Number => text.trim().parse().ok(),
        How::Key(word) => key(word),
        How::Ways => {
            let way = |line: &str| {
                let mut words = line.split_whitespace().skip(1);
                ["Read", "Write"].contains(&words.next()?).then(|| words.next()?.parse().ok())?
            };
            text.lines().filter_map(way).fold(None, |sum, n: u64| Some(sum.unwrap_or(0) + n))
        }
        How::SumOf(words) => {
            let values = text.split_whitespace();
            let ours = values.filter_map(|word| words.iter().find_map(|w| word.strip_prefix(w)));
            ours.map(|value| value.parse::<u64>().ok()).sum()
        }
        How::Frozen => match text.trim() {
            "FROZEN" => Some(1),
            // Some tasks may still run.
            "THAWED" | "FREEZING" => Some(0),
            _ => None,
        },
    }
}

/// Lines `MAJOR:MINOR ...` of one device.
fn lines_of(text: &str, device: &str) -> String {
    let is_its = |line: &&str| line.split_whitespace().next() == Some(device);
    text.lines().filter(is_its).map(|line| format!("{line}\n")).collect()
}

fn read(
    dir: &Path,
    (file, how, unit): (&'static str, How, u64),
    device: Option<&str>,
) -> Result<u64, Unavailable> {
    let unavailable = |cause: String| Unavailable {
        source: "cgroup",
        cause,
        remedy: "make the group first; a kernel without this file cannot prove this fault".into(),
    };
    let path = dir.join(file);
    let text = failure::text(&path).map_err(|failure| unavailable(failure.to_string()))?;
    let value = match device {
        Some(device) => parsed(&lines_of(&text, device), how),
        None => parsed(&text, how),
    };
    value
        .map(|value| value / unit)
        .ok_or_else(|| unavailable(format!("{} reads {text:?}", path.display())))
}

impl Groups {
    /// Reads a counter now. Costs a read of one file.
    ///
    /// # Errors
    /// The controller or the file is not here, or reads as nothing known.
    pub fn counter(&self, counter: Counter) -> Result<u64, Unavailable> {
        let (dir, version) = self.place(counter.controller())?;
        read(dir, counter.source(version), None)
    }

    /// The same of one block device, `MAJOR:MINOR`: a group counts what it moves on every one.
    ///
    /// # Errors
    /// As of [`Self::counter`].
    pub fn counter_of(&self, counter: Counter, device: &str) -> Result<u64, Unavailable> {
        let (dir, version) = self.place(counter.controller())?;
        read(dir, counter.source(version), Some(device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_file_is_read_and_what_is_not_there_is_not_zero() {
        let v1 = "nr_periods 9\nnr_throttled 4\nthrottled_time 8000\n";
        assert_eq!(parsed(v1, How::Key("nr_throttled")), Some(4));
        assert_eq!(parsed(v1, How::Key("throttled_usec")), None);
        assert_eq!(parsed("low 0\nmax 7\noom 1\noom_kill 2\n", How::Key("oom_kill")), Some(2));
        assert_eq!(parsed("7\n", How::Number), Some(7));
        assert_eq!(parsed("", How::Number), None);
        let io = "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=10 wbytes=20 rios=30 wios=40\n";
        assert_eq!(parsed(io, How::SumOf(["rios=", "wios="])), Some(77));
        assert_eq!(parsed("", How::SumOf(["rios=", "wios="])), Some(0));
        let blkio =
            "253:0 Read 1\n253:0 Write 2\n253:0 Discard 9\n253:0 Total 12\n8:0 Write 4\nTotal 16\n";
        assert_eq!(parsed(blkio, How::Ways), Some(7));
        assert_eq!(parsed("Total 0\n", How::Ways), None, "not counted is not zero");
        assert_eq!(parsed(&lines_of(blkio, "253:0"), How::Ways), Some(3));
        assert_eq!(parsed(&lines_of(blkio, "253:1"), How::Ways), None);
        let bytes = How::SumOf(["rbytes=", "wbytes="]);
        assert_eq!(parsed(&lines_of(io, "8:0"), bytes), Some(3), "and not that of 8:16");
        assert_eq!(parsed(&lines_of(io, "8:1"), bytes), Some(0), "nothing was moved there");
        assert_eq!(parsed("FREEZING\n", How::Frozen), Some(0));
        assert_eq!(parsed("?\n", How::Frozen), None);
    }

    #[test]
    fn a_group_that_was_not_made_has_no_figure() {
        let root = tempfile::tempdir().unwrap();
        for counter in Counter::ALL {
            for version in [1, 2] {
                let found = read(root.path(), counter.source(version), None);
                assert!(found.is_err(), "{counter:?} {found:?}");
            }
        }
    }
}
