//! The epochs of a run: who recorded which part, how each ended, and how long nobody measured between them.

use serde::{Deserialize, Serialize};

use super::Measured;
use crate::evidence::{Cut, Epoch, RunFrames, rfc3339};
use crate::verdict::Validity;

/// Name of the check that a run is of one piece.
pub const UNBROKEN: &str = "unbroken";
/// Share of the measured time that must pass for a gate that is judged epoch by epoch: an epoch that is too short
/// to be judged does not take the PASS of days away, and a tenth of a run does.
const COVERED: f64 = 0.9;

/// The epochs of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochsSection {
    /// How long nobody measured between the first due request and the last, s; 0 of an unbroken run.
    pub unmeasured_s: Measured<f64>,
    /// Each of them; one of a run that nobody interrupted.
    pub rows: Vec<EpochRow>,
}

impl Default for EpochsSection {
    fn default() -> Self {
        let unmeasured_s = Measured::unknown("the document does not say", "write it anew");
        Self { unmeasured_s, rows: Vec::new() }
    }
}

/// How an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochEnd {
    /// With the run.
    Sealed,
    /// Its process was killed or died; the machine went on.
    Killed,
    /// The machine went down.
    Power,
    /// One of the two.
    KilledOrPower,
    /// It has no end: its process died, or still runs.
    Unsealed,
}

/// One epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Number from 1.
    pub epoch: u32,
    /// Start, RFC 3339 UTC.
    pub started: Measured<String>,
    /// Tailbeam version.
    pub recorded_by: String,
    /// Build-id of the program.
    pub build_id: Measured<String>,
    /// The boot.
    pub boot_id: Measured<String>,
    /// Process.
    pub pid: Measured<u32>,
    /// Kernel and CPU.
    pub host: Measured<String>,
    /// Seed of its draws.
    pub seed: u64,
    /// Windows on disk.
    pub windows: u64,
    /// Time in which requests were due, s.
    pub measured_s: f64,
    /// How it ended.
    pub end: EpochEnd,
    /// How long nobody measured before it, s; 0 of the first.
    pub unmeasured_before_s: Measured<f64>,
    /// By which clock: `monotonic`, or `wall` across boots, which somebody may have set; none of the first.
    pub unmeasured_clock: Option<String>,
    /// Bytes of a torn tail that were cut when it began.
    pub cut_bytes: u64,
    /// Requests that were open at its last second on disk; 0 of one that was sealed.
    pub open_at_cut: u64,
}

/// Of a run.
pub(super) fn section(run: &RunFrames) -> EpochsSection {
    let ends = run.epochs.iter().skip(1).map(|next| match next.after {
        Some((Cut::Killed, _)) => EpochEnd::Killed,
        Some((Cut::Power, _)) => EpochEnd::Power,
        _ => EpochEnd::KilledOrPower,
    });
    let last = if run.end.is_some() { EpochEnd::Sealed } else { EpochEnd::Unsealed };
    let started = run.manifest.started_unix_ns;
    let mut rows: Vec<EpochRow> = run
        .epochs
        .iter()
        .zip(ends.chain([last]))
        .map(|(epoch, end)| row(epoch, end, started))
        .collect();
    // The last of a run that is not sealed was cut too, if nobody records it any more.
    if let (EpochEnd::Unsealed, Some(row)) = (last, rows.last_mut()) {
        let window = run.windows.last().and_then(|window| window.seconds.last());
        row.open_at_cut = window.map_or(0, |second| second.open_end);
    }
    let unmeasured_s = rows.iter().fold(Measured::Known(0.0), |sum, row| {
        match (sum, row.unmeasured_before_s.clone()) {
            (Measured::Known(sum), Measured::Known(more)) => Measured::Known(sum + more),
            (unknown @ Measured::Unknown { .. }, _) | (_, unknown) => unknown,
        }
    });
    EpochsSection { unmeasured_s, rows }
}

fn row(epoch: &Epoch, end: EpochEnd, started_unix_ns: u64) -> EpochRow {
    let began = epoch.began.as_ref();
    fn told<T>(value: Option<T>, remedy: &str) -> Measured<T> {
        value.map_or_else(
            || {
                Measured::unknown(
                    "the epoch does not say: its host or its version could not",
                    remedy,
                )
            },
            Measured::Known,
        )
    }
    let remedy = "record with this version, where /proc is mounted";
    let first = (epoch.number == 1).then_some(started_unix_ns);
    let unmeasured = match (epoch.number, epoch.gap) {
        (1, _) => Measured::Known(0.0),
        (_, Some(hole)) => Measured::Known(hole.ns as f64 / 1e9),
        (_, None) => Measured::unknown(
            "two boots are compared by the wall clock, and it went backwards or was not written down",
            "keep the clock by NTP while a run lasts",
        ),
    };
    let clock = |wall: bool| if wall { "wall" } else { "monotonic" }.to_owned();
    EpochRow {
        epoch: epoch.number,
        started: told(began.map(|began| began.unix_ns).or(first).map(rfc3339), remedy),
        recorded_by: epoch.recorded_by.clone(),
        build_id: told(began.and_then(|began| began.build_id.clone()), remedy),
        boot_id: told(began.and_then(|began| began.boot_id.clone()), remedy),
        pid: told(began.map(|began| began.pid), remedy),
        host: told(began.map(|began| began.host.clone()), remedy),
        seed: epoch.seed,
        windows: u64::from(epoch.windows),
        measured_s: epoch.issued_ns as f64 / 1e9,
        end,
        unmeasured_before_s: unmeasured,
        unmeasured_clock: epoch.gap.map(|hole| clock(hole.wall)),
        cut_bytes: epoch.after.map_or(0, |(_, bytes)| bytes),
        open_at_cut: epoch.open_at_cut,
    }
}

fn gap_words(gap: &Measured<f64>) -> String {
    match gap {
        Measured::Known(s) => format!("nobody measured for {s:.1} s"),
        Measured::Unknown { .. } => "it is not known for how long nobody measured".to_owned(),
    }
}

/// What must be known of the epochs before a figure is believed; empty for a run of one.
pub(super) fn caveats(run: &RunFrames, section: &EpochsSection) -> Vec<String> {
    let pairs = section.rows.windows(2).zip(run.epochs.iter().skip(1));
    let mut said: Vec<String> = pairs
        .map(|(pair, epoch)| {
            let (before, row) = (&pair[0], &pair[1]);
            let how = epoch.after.map_or(Cut::Unknown, |(cut, _)| cut).text();
            let mut text = format!(
                "epoch {} ended early: {how}; {}",
                before.epoch,
                gap_words(&row.unmeasured_before_s)
            );
            if before.open_at_cut > 0 {
                text +=
                    &format!("; {} requests were open then and have no end", before.open_at_cut);
            }
            if row.cut_bytes > 0 {
                text += &format!("; {} torn bytes were cut", row.cut_bytes);
            }
            if let (Measured::Known(old), Measured::Known(new)) = (&before.build_id, &row.build_id)
                && old != new
            {
                text += &format!("; another build went on, {new}");
            }
            if let (Measured::Known(old), Measured::Known(new)) = (&before.host, &row.host)
                && old != new
            {
                text += &format!("; on another host, {new}");
            }
            text
        })
        .collect();
    if !said.is_empty() {
        said.push(
            "what was planted and what the protocol's parts counted is written at a run's end: of the epochs before the \
             last it is not known; what each agent did is known up to the last time that it was written on the way"
                .to_owned(),
        );
    }
    said
}

/// Whether a run is of one piece; said of those alone that are not.
pub(super) fn unbroken(section: &EpochsSection) -> Option<Validity> {
    (section.rows.len() > 1).then(|| Validity {
        name: UNBROKEN.to_owned(),
        holds: false,
        text: format!("{} epochs; {}", section.rows.len(), gap_words(&section.unmeasured_s)),
        outside: false,
    })
}

/// Whether the epochs that pass make nearly all of the measured time.
pub(super) fn covered(epochs: &[Epoch], passes: impl Fn(u32) -> bool) -> bool {
    let sum = |of: &dyn Fn(&&Epoch) -> bool| -> u64 {
        epochs.iter().filter(of).map(|epoch| epoch.issued_ns).sum()
    };
    let (passed, all) = (sum(&|epoch| passes(epoch.number)), sum(&|_| true));
    all > 0 && passed as f64 >= COVERED * all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u32, issued_ns: u64) -> Epoch {
        Epoch {
            number,
            began: None,
            recorded_by: String::new(),
            after: None,
            gap: None,
            seed: 0,
            window: 0,
            windows: 0,
            issued_ns,
            whole_ns: issued_ns,
            open_at_cut: 0,
        }
    }

    #[test]
    fn a_short_epoch_takes_no_pass_away_and_many_do() {
        let epochs = [epoch(1, 5), epoch(2, 95)];
        assert!(covered(&epochs, |number| number == 2));
        assert!(!covered(&epochs, |number| number == 1));
        assert!(!covered(&[epoch(1, 11), epoch(2, 89)], |number| number == 2));
        assert!(!covered(&[epoch(1, 0)], |_| true), "nothing is no PASS");
    }
}
