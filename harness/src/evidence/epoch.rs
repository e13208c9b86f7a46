//! Epochs: the parts of a run that one process each has recorded. A run whose process died is continued as a new
//! epoch in the same directory; what lies between is stated and in no figure.
//!
//! **The axis.** Instants on disk are of the monotonic clock of the boot that wrote them. A reader moves those of
//! each epoch so that it begins where the last window of the epoch before ended: the axis is time that was
//! measured. So ranges, curves and slopes need not know of other boots, nor of a machine that was off for a week,
//! and how long nobody measured stands beside it, [`Epoch::gap`].
//!
//! **What a cut loses.** The window that was open, and what each agent did, which is written at the end of an
//! epoch. Requests that were open at the last second on disk are neither answered nor lost: they count as open at
//! stop ([`SecondRecord::cut`](super::records::SecondRecord::cut)).

use serde::{Deserialize, Serialize};
use tailbeam_probes::record::latency::LatencyWindow;

use super::records::{Manifest, Reading, WindowRecord};

/// When and by whom an epoch was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Began {
    /// Wall clock when it was opened, ns since 1970.
    pub unix_ns: u64,
    /// Monotonic clock at the same time, ns.
    pub mono_ns: u64,
    /// The first request is due, monotonic ns.
    pub start_ns: u64,
    /// The boot; none when the kernel does not say.
    pub boot_id: Option<String>,
    /// Build-id of the program; none when it has none.
    pub build_id: Option<String>,
    /// Process.
    pub pid: u32,
    /// Kernel and CPU in one line.
    pub host: String,
    /// Bytes of the store's disk that it held from its start, or why none; older runs do not say.
    #[serde(default)]
    pub disk_held: Option<Reading>,
}

/// How an epoch ended that has no end record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Its process died and the machine went on.
    Killed,
    /// The machine went down: another boot has continued it.
    Power,
    /// One of the two: a boot has no name here.
    Unknown,
}

impl Cut {
    /// Between two epochs.
    #[must_use]
    pub fn between(before: Option<&Began>, after: &Began) -> Self {
        match (before.and_then(|began| began.boot_id.as_ref()), &after.boot_id) {
            (Some(before), Some(after)) if before == after => Self::Killed,
            (Some(_), Some(_)) => Self::Power,
            _ => Self::Unknown,
        }
    }

    /// In words, of the process before.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Killed => "its process was killed or died",
            Self::Power => "the machine went down",
            Self::Unknown => "its process died, or the machine went down",
        }
    }
}

/// First frame of every epoch but the first, whose is the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number from 2.
    pub epoch: u32,
    /// By whom and when.
    pub began: Began,
    /// Tailbeam version.
    pub recorded_by: String,
    /// How the epoch before ended.
    pub cut: Cut,
    /// Bytes of the log that were cut as they were no whole frame.
    pub cut_bytes: u64,
    /// Number of its first window.
    pub window: u32,
    /// Seed of its draws: another one, so that no request is drawn twice.
    pub seed: u64,
}

/// How long nobody measured, by which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// ns.
    pub ns: u64,
    /// By the wall clock, across boots: somebody may have set it. Otherwise by the monotonic clock.
    pub wall: bool,
}

/// One epoch as it is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// Number from 1.
    pub number: u32,
    /// By whom and when; older runs do not say it of their first.
    pub began: Option<Began>,
    /// Tailbeam version.
    pub recorded_by: String,
    /// How the one before ended, and bytes that were cut; none of the first.
    pub after: Option<(Cut, u64)>,
    /// From the last instant on disk before it to its first due request; none of the first, and when the wall
    /// clock went backwards.
    pub gap: Option<Hole>,
    /// Seed.
    pub seed: u64,
    /// Number of its first window.
    pub window: u32,
    /// Windows on disk.
    pub windows: u32,
    /// Time in which requests were due, ns.
    pub issued_ns: u64,
    /// The same with the drain, ns.
    pub whole_ns: u64,
    /// Requests that were open when it was cut; 0 of one that was not.
    pub open_at_cut: u64,
}

/// Puts the windows of a run on one axis, in the order in which they are read.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Epochs so far; never empty.
    pub epochs: Vec<Epoch>,
    shift: i64,
    /// End of the last window on the axis.
    end_ns: u64,
    /// The same by the clock that wrote it.
    last_ns: u64,
    last_open: u64,
}

impl Axis {
    /// Of a run with this manifest and this seed.
    #[must_use]
    pub fn new(manifest: &Manifest, seed: u64) -> Self {
        let first = Epoch {
            number: 1,
            began: manifest.began.clone(),
            recorded_by: manifest.recorded_by.clone(),
            after: None,
            gap: None,
            seed,
            window: 0,
            windows: 0,
            issued_ns: 0,
            whole_ns: 0,
            open_at_cut: 0,
        };
        let (epochs, start_ns) = (vec![first], manifest.start_ns);
        Self { epochs, shift: 0, end_ns: start_ns, last_ns: start_ns, last_open: 0 }
    }

    fn last(&mut self) -> &mut Epoch {
        let at = self.epochs.len() - 1;
        &mut self.epochs[at]
    }

    /// Moves a window onto the axis.
    pub fn window(&mut self, record: &mut WindowRecord) {
        if let Some(second) = record.seconds.last() {
            self.last_ns = second.from_ns.saturating_add(second.len_ns);
            self.last_open = second.open_end;
        }
        let len = |issuing: bool| {
            let seconds = record.seconds.iter().filter(|second| second.issuing || !issuing);
            seconds.map(|second| second.len_ns).sum::<u64>()
        };
        let (issued_ns, whole_ns) = (len(true), len(false));
        let last = self.last();
        last.windows += 1;
        last.issued_ns += issued_ns;
        last.whole_ns += whole_ns;
        self.end_ns = self.last_ns.saturating_add_signed(self.shift);
        if self.shift != 0 {
            record.shift(self.shift);
        }
    }

    /// The same for where its time went.
    pub fn latency(&self, window: &mut LatencyWindow) {
        if self.shift != 0 {
            window.shift(self.shift);
        }
    }

    /// The next epoch begins.
    pub fn begin(&mut self, record: &EpochRecord) {
        let (last_ns, open) = (self.last_ns, std::mem::take(&mut self.last_open));
        let before = self.last();
        before.open_at_cut = open;
        let gap = hole(before.began.as_ref(), &record.began, last_ns);
        let next = Epoch {
            number: record.epoch,
            began: Some(record.began.clone()),
            recorded_by: record.recorded_by.clone(),
            after: Some((record.cut, record.cut_bytes)),
            gap,
            seed: record.seed,
            window: record.window,
            windows: 0,
            issued_ns: 0,
            whole_ns: 0,
            open_at_cut: 0,
        };
        self.epochs.push(next);
        let start_ns = record.began.start_ns;
        self.shift = self.end_ns.cast_signed().wrapping_sub(start_ns.cast_signed());
        self.last_ns = start_ns;
    }
}

/// From `last_ns` on the clock of the epoch that began as `before` to the start of the next.
fn hole(before: Option<&Began>, after: &Began, last_ns: u64) -> Option<Hole> {
    let same = |before: &&Began| before.boot_id.is_some() && before.boot_id == after.boot_id;
    if before.filter(same).is_some() {
        return after.start_ns.checked_sub(last_ns).map(|ns| Hole { ns, wall: false });
    }
    let wall = |of: &Began, ns: u64| {
        of.unix_ns.saturating_add_signed(ns.cast_signed().wrapping_sub(of.mono_ns.cast_signed()))
    };
    let ns = wall(after, after.start_ns).checked_sub(wall(before?, last_ns))?;
    Some(Hole { ns, wall: true })
}

/// The seed of an epoch: the plan's own for the first.
#[must_use]
pub const fn seed_of(seed: u64, epoch: u32) -> u64 {
    seed ^ (epoch as u64 - 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::records::{Reading, SecondRecord};
    use crate::load::SecondCounts;

    const S: u64 = 1_000_000_000;

    fn began(boot: Option<&str>, unix_s: u64, mono_s: u64) -> Began {
        Began {
            unix_ns: unix_s * S,
            mono_ns: mono_s * S,
            start_ns: (mono_s + 1) * S,
            boot_id: boot.map(str::to_owned),
            build_id: None,
            pid: 1,
            host: String::new(),
            disk_held: None,
        }
    }

    fn manifest(began: Option<Began>) -> Manifest {
        let start_ns = 101 * S;
        let text = serde_json::json!({
            "id": "", "recorded_by": "1", "workload": "", "started_unix_ns": 0, "start_ns": start_ns,
            "plan_sha256": "", "cores": [], "limits_ns": [], "host": "", "began": began,
        });
        serde_json::from_value(text).unwrap()
    }

    fn window(number: u32, from_s: u64) -> WindowRecord {
        let second = SecondRecord {
            from_ns: from_s * S,
            len_ns: 10 * S,
            counts: SecondCounts::default(),
            live_agents: 0,
            open_sum: 0,
            open_samples: 0,
            oldest_open_ns: 0,
            open_end: 7,
            open_age_ns: 0,
            issuing: true,
            cut: false,
        };
        WindowRecord {
            window: number,
            seconds: vec![second],
            cores: Vec::new(),
            rss_bytes: Reading::Value(0),
            pss_bytes: Reading::Value(0),
            live_bytes: Reading::Value(0),
            cpu_ns: Reading::Value(0),
            gaps: Vec::new(),
            cost: Vec::new(),
            lowered: Vec::new(),
            stalls: None,
        }
    }

    fn epoch(began: Began) -> EpochRecord {
        let (cut, recorded_by) = (Cut::Unknown, "2".to_owned());
        EpochRecord { epoch: 2, began, recorded_by, cut, cut_bytes: 3, window: 1, seed: 9 }
    }

    /// Where the second window begins on the axis, and the hole before it.
    fn second(first: Option<Began>, next: Began) -> (u64, Option<Hole>) {
        let mut axis = Axis::new(&manifest(first), 1);
        axis.window(&mut window(0, 101));
        let from_s = next.start_ns / S;
        axis.begin(&epoch(next));
        let mut after = window(1, from_s);
        axis.window(&mut after);
        assert_eq!((axis.epochs[0].open_at_cut, axis.epochs[1].windows), (7, 1));
        assert_eq!(axis.epochs[1].issued_ns, 10 * S);
        (after.seconds[0].from_ns / S, axis.epochs[1].gap)
    }

    #[test]
    fn the_axis_is_time_that_was_measured_whatever_the_clocks_say() {
        let first = || Some(began(Some("a"), 1_000, 100));
        // The same boot, 50 s later by its clock; the wall clock was set back meanwhile.
        let hole = |ns: u64, wall| Some(Hole { ns: ns * S, wall });
        assert_eq!(second(first(), began(Some("a"), 500, 160)), (111, hole(50, false)));
        // Another boot, whose clock began anew: by the wall clock.
        assert_eq!(second(first(), began(Some("b"), 2_000, 5)), (111, hole(2_001 - 1_011, true)));
        // The wall clock went backwards: nobody knows.
        assert_eq!(second(first(), began(Some("b"), 500, 5)), (111, None));
        // A kernel that names no boot is not believed to be the same.
        assert_eq!(second(first(), began(None, 1_100, 160)), (111, hole(90, true)));
        assert_eq!(second(None, began(Some("a"), 1_100, 160)), (111, None));
    }

    #[test]
    fn how_an_epoch_ended_is_told_by_its_boot() {
        let of = |before: Option<&str>, after| {
            Cut::between(Some(&began(before, 0, 0)), &began(after, 0, 0))
        };
        assert_eq!(of(Some("a"), Some("a")), Cut::Killed);
        assert_eq!(of(Some("a"), Some("b")), Cut::Power);
        assert_eq!([of(None, Some("b")), of(Some("a"), None)], [Cut::Unknown; 2]);
        assert_eq!(Cut::between(None, &began(Some("a"), 0, 0)), Cut::Unknown);
    }

    #[test]
    fn no_two_epochs_draw_the_same() {
        assert_eq!(seed_of(7, 1), 7);
        let seeds: std::collections::BTreeSet<u64> = (1..100).map(|n| seed_of(7, n)).collect();
        assert_eq!(seeds.len(), 99);
    }
}
