//! What /proc says of a thread of any program: its counts since it began.

use std::fs;

use crate::collect::schedstat::{self, Schedule};

/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Counts of a thread since it began; what could not be read is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) stat: Option<Stat>,
    pub(crate) schedule: Option<Schedule>,
    /// Voluntary and involuntary switches.
    pub(crate) switches: Option<(u64, u64)>,
}

/// The columns of /proc/PID/stat that we use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) state: u8,
    pub(crate) flags: u64,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    pub(crate) user_ticks: u64,
    pub(crate) system_ticks: u64,
    /// Of children that were waited for.
    pub(crate) children_ticks: (u64, u64),
    /// Start, in ticks since boot: tells a process from a later one of the same id.
    pub(crate) started: u64,
}

impl Stat {
    /// It has ended and waits for its parent to notice.
    pub(crate) const fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    pub(crate) const fn is_kernel_thread(&self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }
}

/// Reads a thread, in about 10 us; `None` when it is gone.
pub(crate) fn read(process: u32, thread: u32) -> Option<Task> {
    let dir = format!("/proc/{process}/task/{thread}");
    let text = |name: &str| fs::read(format!("{dir}/{name}")).ok();
    let stat = stat(&text("stat")?)?;
    let name = stat.name.clone();
    let schedule = text("schedstat").and_then(|text| schedstat::parse(&text));
    let switches = text("status").and_then(|text| switches(&text));
    Some(Task { name, stat: Some(stat), schedule, switches })
}

/// The process' own line: faults and time of all its threads, dead ones included.
pub(crate) fn process(process: u32) -> Option<Stat> {
    stat(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// Threads of a process, in no order.
pub(crate) fn threads(process: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes that a thread has started and that live.
pub(crate) fn children(process: u32, thread: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
    text.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// proc_pid_stat(5). The name may hold blanks and parentheses: it ends at the last one.
pub(crate) fn stat(text: &[u8]) -> Option<Stat> {
    let (open, close) =
        (text.iter().position(|b| *b == b'(')?, text.iter().rposition(|b| *b == b')')?);
    let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    let mut words = text.get(close + 1..)?.split(|b| *b == b' ').filter(|word| !word.is_empty());
    let state = *words.next()?.first()?;
    // Column 4 (ppid) is the first of these.
    let columns: Vec<Option<u64>> =
        words.map(|word| schedstat::number(word.trim_ascii())).collect();
    let column = |number: usize| columns.get(number - 4).copied().flatten();
    Some(Stat {
        name,
        state,
        flags: column(9)?,
        minor_faults: column(10)?,
        major_faults: column(12)?,
        user_ticks: column(14)?,
        system_ticks: column(15)?,
        children_ticks: (column(16).unwrap_or(0), column(17).unwrap_or(0)),
        started: column(22)?,
    })
}

fn switches(text: &[u8]) -> Option<(u64, u64)> {
    let line = |name: &[u8]| {
        let mut lines = text.split(|b| *b == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(name))?;
        schedstat::number(line.trim_ascii())
    };
    Some((line(b"voluntary_ctxt_switches:")?, line(b"nonvoluntary_ctxt_switches:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_is_one_column() {
        let text = b"7 (a) b (c)) S 1 7 7 0 -1 4194304 11 12 13 14 15 16 17 18 20 0 3 0 4242 1 1";
        let stat = stat(text).unwrap();
        assert_eq!((&*stat.name, stat.state, stat.flags), ("a) b (c)", b'S', 4_194_304));
        assert_eq!((stat.minor_faults, stat.major_faults), (11, 13));
        assert_eq!((stat.user_ticks, stat.system_ticks, stat.children_ticks), (15, 16, (17, 18)));
        assert_eq!(stat.started, 4_242);
        assert!(!stat.is_dead() && !stat.is_kernel_thread());
        assert_eq!(super::stat(b"7 (a"), None);
    }

    #[test]
    fn this_thread_can_be_read() {
        let (process, thread) = (std::process::id(), std::process::id());
        let task = read(process, thread).unwrap();
        assert!(task.stat.unwrap().started > 0 && task.switches.is_some());
        assert!(threads(process).contains(&thread));
        assert_eq!(read(process, u32::MAX >> 1), None);
        // The kernel's own thread daemon, where pid namespaces show it.
        if let Some(stat) = super::process(2).filter(|stat| stat.name == "kthreadd") {
            assert!(stat.is_kernel_thread());
        }
    }
}
