//! Finds the holes in a run that the subject did not cause: a stopped process, a stalled host.
//!
//! Pure: the caller looks at the clocks and says what it saw.

use crate::evidence::records::Gap;

const MS: u64 = 1_000_000;
/// The caller looks this often, so a hole is measured to this resolution.
pub(super) const WATCH_NS: u64 = 20 * MS;
/// Two looks further apart than this, in a process that used less than a fifth of that time in CPU, are
/// a gap. A fifth: a process that waits for its own busy cores burns at least one of them.
pub(super) const GAP_NS: u64 = 250 * MS;

/// What was seen at one instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Monotonic clock, ns.
    pub(super) now_ns: u64,
    /// CPU time of the process, ns; `None` when it cannot be read.
    pub(super) cpu_ns: Option<u64>,
    /// SIGCONTs so far.
    pub(super) continued: usize,
}

/// The looks of one run.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Option<Look>,
    /// A hole whose cause is settled at the next look: the thread that counts SIGCONT wakes at the same
    /// time as the one that looks.
    suspect: Option<Suspect>,
}

#[derive(Debug, Clone, Copy)]
struct Suspect {
    from_ns: u64,
    len_ns: u64,
    continued: usize,
    /// The caller was in a system call that may block for its own reasons.
    blocking: bool,
}

impl Watch {
    /// Takes a look. `blocking` says that since the last one the caller made a call that may block by
    /// itself (a sync of the log): then only a SIGCONT makes a gap of it.
    pub(super) fn look(&mut self, look: Look, blocking: bool) -> Option<Gap> {
        let settled = self.settle(look.continued);
        if let Some(last) = self.last.replace(look) {
            let len_ns = look.now_ns.saturating_sub(last.now_ns);
            let used = look.cpu_ns.zip(last.cpu_ns).map(|(now, then)| now.saturating_sub(then));
            if len_ns >= GAP_NS && used.is_some_and(|used| used < len_ns / 5) {
                let (from_ns, continued) = (last.now_ns, last.continued);
                self.suspect = Some(Suspect { from_ns, len_ns, continued, blocking });
            }
        }
        settled
    }

    /// Settles what is left at the end of a window or run.
    pub(super) fn settle(&mut self, continued: usize) -> Option<Gap> {
        let suspect = self.suspect.take()?;
        let cause = match (continued != suspect.continued, suspect.blocking) {
            (true, _) => "process stopped",
            (false, true) => return None,
            (false, false) => "host gap",
        };
        Some(Gap { from_ns: suspect.from_ns, len_ns: suspect.len_ns, cause: cause.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(looks: &[(u64, u64, usize, bool)]) -> Vec<(u64, u64, String)> {
        let mut watch = Watch::default();
        let mut gaps: Vec<Gap> = Vec::new();
        for &(now_ms, cpu_ms, continued, blocking) in looks {
            let look = Look { now_ns: now_ms * MS, cpu_ns: Some(cpu_ms * MS), continued };
            gaps.extend(watch.look(look, blocking));
        }
        gaps.extend(watch.settle(looks.last().map_or(0, |look| look.2)));
        gaps.into_iter().map(|gap| (gap.from_ns / MS, gap.len_ns / MS, gap.cause)).collect()
    }

    #[test]
    fn a_stop_and_a_stall_are_told_apart_by_sigcont_even_when_it_is_counted_late() {
        let stop = |cause: &str| vec![(20, 5_000, cause.to_owned())];
        assert_eq!(
            looks(&[(0, 0, 0, false), (20, 1, 0, false), (5_020, 2, 1, false)]),
            stop("process stopped")
        );
        let late = [(20, 1, 0, false), (5_020, 2, 0, false), (5_040, 3, 1, false)];
        assert_eq!(looks(&late), stop("process stopped"));
        let never = [(20, 1, 0, false), (5_020, 2, 0, false), (5_040, 3, 0, false)];
        assert_eq!(looks(&never), stop("host gap"));
    }

    #[test]
    fn our_own_work_and_our_own_sync_are_no_gap_but_a_stop_within_a_sync_is() {
        assert_eq!(looks(&[(0, 0, 0, false), (1_000, 400, 0, false), (1_020, 401, 0, false)]), []);
        assert_eq!(looks(&[(0, 0, 0, false), (1_000, 1, 0, true), (1_020, 2, 0, false)]), []);
        assert_eq!(
            looks(&[(0, 0, 0, false), (1_000, 1, 1, true), (1_020, 2, 1, false)]),
            [(0, 1_000, "process stopped".to_owned())]
        );
        assert_eq!(looks(&[(0, 0, 0, false), (249, 1, 1, false), (269, 2, 1, false)]), []);
    }
}
