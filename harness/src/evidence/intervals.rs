//! Reads a run window by window: what timelines, exports and the attribution of latency are made of.
//!
//! As in [`read_run`](super::read_run) a window counts only when the record that closes it is there, and
//! damage is said and never fills a gap.

use std::path::Path;

use tailbeam_probes::record::Frame;
use tailbeam_probes::record::latency::LatencyWindow;
use tailbeam_probes::stats::Histogram;

use super::epoch::{Axis, Epoch};
use super::read::{AgentNumbers, Opened, ReadRunError, epoch, histogram, latency_window, open};
use super::records::{EndRecord, Manifest, WindowRecord, kind};
use crate::load::Series;
use crate::plan::Plan;

/// One window with everything that was recorded in it.
#[derive(Debug)]
pub struct Interval {
    /// The record that closes it.
    pub record: WindowRecord,
    /// Its histograms: shard, series.
    pub histograms: Vec<(u16, Series, Histogram)>,
    /// Where the time of its requests went, one of each core that recorded it.
    pub latency: Vec<LatencyWindow>,
}

impl Interval {
    /// Monotonic begin and end, ns; `None` when it holds no second.
    #[must_use]
    pub fn extent_ns(&self) -> Option<(u64, u64)> {
        let (first, last) = (self.record.seconds.first()?, self.record.seconds.last()?);
        Some((first.from_ns, last.from_ns.saturating_add(last.len_ns)))
    }
}

/// The windows of a run.
#[derive(Debug)]
pub struct Intervals {
    /// The frozen plan.
    pub plan: Plan,
    /// First frame.
    pub manifest: Manifest,
    /// Damage in words, of the frames passed so far.
    pub damage: Vec<String>,
    frames: std::vec::IntoIter<Frame>,
    axis: Axis,
    /// Windows that were closed.
    pub windows: u64,
    /// Frames of latency stages, damaged ones included.
    pub latency_frames: u64,
    /// Of those, the ones that could be read.
    pub latency_read: u64,
    /// What is wrong with the first that could not.
    pub unreadable_latency: Option<String>,
    /// Numbers of each agent, when the run ended orderly and all windows have been passed.
    pub numbers: AgentNumbers,
    /// Last frame, when the run was sealed and all windows have been passed.
    pub end: Option<EndRecord>,
}

impl Intervals {
    /// Opens the run in `dir`.
    ///
    /// # Errors
    /// [`ReadRunError`], as [`read_run`](super::read_run).
    pub fn open(dir: &Path) -> Result<Self, ReadRunError> {
        let Opened { plan, manifest, frames, damage } = open(dir)?;
        let frames = frames.into_iter();
        let axis = Axis::new(&manifest, plan.seed);
        Ok(Self {
            plan,
            manifest,
            damage,
            frames,
            axis,
            windows: 0,
            latency_frames: 0,
            latency_read: 0,
            unreadable_latency: None,
            numbers: AgentNumbers::default(),
            end: None,
        })
    }

    /// Epochs passed so far.
    #[must_use]
    pub fn epochs(&self) -> &[Epoch] {
        &self.axis.epochs
    }

    /// Whether the run was cut behind the window that was read last.
    fn is_cut(&self) -> bool {
        let mut next = self.frames.as_slice().iter();
        let next = next.find(|frame| matches!(frame.kind, kind::EPOCH | kind::WINDOW));
        next.is_some_and(|frame| frame.kind == kind::EPOCH)
    }

    fn latency(&mut self, frame: &Frame) -> Option<LatencyWindow> {
        self.latency_frames += 1;
        let damage = |why: String| {
            self.unreadable_latency.get_or_insert_with(|| why.clone());
            self.damage.push(why);
        };
        let window = latency_window(frame).map_err(damage).ok();
        self.latency_read += u64::from(window.is_some());
        window
    }
}

/// Window by window; each takes its frames with it, so that a long run is never in memory twice.
impl Iterator for Intervals {
    type Item = Interval;

    fn next(&mut self) -> Option<Interval> {
        let (mut histograms, mut latency) = (Vec::new(), Vec::new());
        while let Some(frame) = self.frames.next() {
            match frame.kind {
                kind::HISTOGRAM => match histogram(&frame.payload) {
                    Some(entry) => histograms.push(entry),
                    None => {
                        self.damage.push(format!("frame {}: unreadable histogram", frame.seq));
                    }
                },
                kind::LATENCY => latency.extend(self.latency(&frame)),
                kind::PER_AGENT if self.axis.epochs.len() == 1 => self.numbers.add(&frame.payload),
                kind::EPOCH => match epoch(&frame) {
                    Ok(record) => {
                        histograms.clear();
                        latency.clear();
                        self.numbers = AgentNumbers::default();
                        self.axis.begin(&record);
                    }
                    Err(why) => self.damage.push(why),
                },
                kind::END => self.end = serde_json::from_slice(&frame.payload).ok(),
                kind::WINDOW => match serde_json::from_slice::<WindowRecord>(&frame.payload) {
                    Ok(mut record) => {
                        self.windows += 1;
                        self.axis.window(&mut record);
                        if self.is_cut() {
                            record.cut();
                        }
                        let own = record.window;
                        let histograms = histograms.into_iter().filter(|h| h.window == own);
                        let histograms = histograms.map(|h| (h.core, h.series, h.histogram));
                        latency.retain(|window: &LatencyWindow| window.window == own);
                        latency.iter_mut().for_each(|window| self.axis.latency(window));
                        return Some(Interval {
                            record,
                            histograms: histograms.collect(),
                            latency,
                        });
                    }
                    Err(error) => {
                        self.damage.push(format!("frame {}: unreadable window: {error}", frame.seq))
                    }
                },
                _ => {}
            }
        }
        None
    }
}
