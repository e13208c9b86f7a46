//! Writes one run directory: plan and host first, then frames, one fdatasync per window.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tailbeam_probes::record::SegmentWriter;
use tailbeam_probes::record::latency::LatencyWindow;

use super::error::DriveError;
use super::reserve::Reserve;
use super::resume::lock;
use crate::evidence::EpochRecord;
use crate::evidence::records::{EndRecord, FRAME_VERSION, Manifest, WindowRecord, kind, per_agent};
use crate::evidence::{sha256_hex, so_far};
use crate::load::{AgentNs, SeriesSet};
use crate::plan::Plan;

/// A segment is closed at this size.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;
/// Agents per PER_AGENT frame: 8 MiB at most, well below a frame's bound.
const AGENTS_PER_FRAME: usize = 1 << 20;

/// What every agent did, in the order of their indices.
#[derive(Default)]
pub(super) struct PerAgent {
    pub(super) attempts: Vec<u32>,
    pub(super) completions: Vec<u32>,
    pub(super) times: Vec<AgentNs>,
}

/// The writer of one run.
pub(super) struct RunWriter {
    dir: PathBuf,
    segment: SegmentWriter,
    number: u32,
    /// A segment is closed at this size.
    pub(super) segment_max: u64,
    /// Windows are synced. Without, a power cut must show what it takes.
    pub(super) syncs: bool,
    /// Room that is held for what is still to be written, and what a window takes of it; none where it cannot be.
    pub(super) reserve: Option<(Reserve, u64)>,
    /// Whoever else would write to the run is refused as long as it is open.
    _lock: fs::File,
}

impl RunWriter {
    /// Writes `plan.toml`, `host.json` and the manifest frame, all synced.
    pub(super) fn create(
        dir: &Path,
        plan: &Plan,
        mut manifest: Manifest,
        host: &str,
    ) -> Result<Self, DriveError> {
        let lock = lock(dir)?;
        let text = toml::to_string_pretty(plan).map_err(|e| failed(dir, e))?;
        manifest.plan_sha256 = sha256_hex(text.as_bytes());
        write_synced(&dir.join("plan.toml"), text.as_bytes()).map_err(|e| failed(dir, e))?;
        write_synced(&dir.join("host.json"), host.as_bytes()).map_err(|e| failed(dir, e))?;
        let segment =
            SegmentWriter::create(&dir.join("seg"), 0, 0, [0; 32]).map_err(|e| failed(dir, e))?;
        let mut writer = Self {
            dir: dir.to_owned(),
            segment,
            number: 0,
            segment_max: SEGMENT_BYTES_MAX,
            syncs: true,
            reserve: None,
            _lock: lock,
        };
        let start_ns = manifest.start_ns;
        writer.json(kind::MANIFEST, start_ns, &manifest)?;
        writer.sync()?;
        // The names of the files, and that of the run itself.
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failed(dir, e))?;
        }
        Ok(writer)
    }

    /// Goes on in the first segment of an epoch: its number, and its first frame, synced.
    pub(super) fn resume(
        dir: PathBuf,
        lock: fs::File,
        (segment, number): (SegmentWriter, u32),
        record: &EpochRecord,
    ) -> Result<Self, DriveError> {
        let segment_max = SEGMENT_BYTES_MAX;
        let (syncs, reserve) = (true, None);
        let mut writer = Self { dir, segment, number, segment_max, syncs, reserve, _lock: lock };
        writer.json(kind::EPOCH, record.began.start_ns, record)?;
        writer.sync()?;
        Ok(writer)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn json<T: Serialize>(&mut self, kind: u16, mono_ns: u64, value: &T) -> Result<(), DriveError> {
        let payload = serde_json::to_vec(value).map_err(|e| failed(&self.dir, e))?;
        self.frame(kind, mono_ns, &payload)
    }

    fn frame(&mut self, kind: u16, mono_ns: u64, payload: &[u8]) -> Result<(), DriveError> {
        self.segment.append(kind, FRAME_VERSION, mono_ns, payload).map_err(|e| failed(&self.dir, e))
    }

    pub(super) fn sync(&mut self) -> Result<(), DriveError> {
        if self.syncs { self.segment.sync().map_err(|e| failed(&self.dir, e)) } else { Ok(()) }
    }

    /// Writes the histograms and the attribution of every core, then the record that makes them count, then
    /// syncs.
    pub(super) fn window(
        &mut self,
        mono_ns: u64,
        record: &WindowRecord,
        sets: &[SeriesSet],
        latency: &[LatencyWindow],
    ) -> Result<(), DriveError> {
        self.give(self.reserve.as_ref().map_or(0, |(_, window)| *window))?;
        for (core, set) in sets.iter().enumerate() {
            let core = u16::try_from(core).unwrap_or(u16::MAX);
            for (series, histogram) in (0u8..).zip(set) {
                if histogram.count() == 0 {
                    continue;
                }
                let mut payload = Vec::new();
                payload.extend_from_slice(&record.window.to_le_bytes());
                payload.extend_from_slice(&core.to_le_bytes());
                payload.extend_from_slice(&[series, 0]);
                payload.extend_from_slice(&histogram.encode());
                self.frame(kind::HISTOGRAM, mono_ns, &payload)?;
            }
        }
        for window in latency {
            let payload = window.encode().map_err(|e| failed(&self.dir, e))?;
            self.frame(kind::LATENCY, mono_ns, &payload)?;
        }
        self.json(kind::WINDOW, mono_ns, record)?;
        self.sync()?;
        self.rotate()
    }

    /// Gives so much of the held room back, just before it is written.
    fn give(&mut self, bytes: u64) -> Result<(), DriveError> {
        let Some((reserve, _)) = self.reserve.as_mut() else { return Ok(()) };
        let given = reserve.give(bytes);
        given.map_err(|error| failed(&self.dir, format!("give reserved room back: {error}")))
    }

    fn rotate(&mut self) -> Result<(), DriveError> {
        if self.segment.bytes() < self.segment_max {
            return Ok(());
        }
        self.segment.seal().map_err(|e| failed(&self.dir, e))?;
        let seg = self.dir.join("seg");
        let sealed = fs::read(seg.join(format!("{:04}.log", self.number)))
            .map_err(|e| failed(&self.dir, e))?;
        let sha: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&sealed).into();
        self.number += 1;
        self.segment = SegmentWriter::create(&seg, self.number, self.segment.next_seq(), sha)
            .map_err(|e| failed(&self.dir, e))?;
        Ok(())
    }

    /// Writes what every agent did and the end record, and seals the segment.
    pub(super) fn finish(
        &mut self,
        mono_ns: u64,
        agents: &PerAgent,
        end: &EndRecord,
    ) -> Result<(), DriveError> {
        // It was held for this.
        self.reserve = None;
        let counts = [
            (per_agent::ATTEMPTS, &agents.attempts),
            (per_agent::COMPLETIONS, &agents.completions),
        ];
        for (which, counts) in counts {
            self.per_agent(mono_ns, which, counts.iter().map(|count| count.to_le_bytes()))?;
        }
        type Part = fn(&AgentNs) -> u64;
        let parts: [(u8, Part); 3] = [
            (per_agent::SYSTEM_NS, |times| times.system),
            (per_agent::WORST_NS, |times| times.worst),
            (per_agent::SERVICE_NS, |times| times.service),
        ];
        for (which, part) in parts {
            self.per_agent(mono_ns, which, agents.times.iter().map(|t| part(t).to_le_bytes()))?;
        }
        self.json(kind::END, mono_ns, end)?;
        self.sync()?;
        self.segment.seal().map_err(|e| failed(&self.dir, e))
    }

    /// Writes what agents of a shard have done so far.
    pub(super) fn so_far(
        &mut self,
        mono_ns: u64,
        (shard, shards): (usize, usize),
        from: usize,
        (attempts, completions): (&[u32], &[u32]),
    ) -> Result<(), DriveError> {
        let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let place = (narrow(shard), narrow(shards));
        let from = u32::try_from(from).unwrap_or(u32::MAX);
        let payload = so_far::payload(place, from, attempts, completions);
        // With the frame's own head.
        self.give(payload.len() as u64 + 64)?;
        self.frame(kind::SO_FAR, mono_ns, &payload)
    }

    /// Writes one number of every agent, in as many frames as it takes.
    fn per_agent<const BYTES: usize>(
        &mut self,
        mono_ns: u64,
        which: u8,
        mut numbers: impl ExactSizeIterator<Item = [u8; BYTES]>,
    ) -> Result<(), DriveError> {
        while numbers.len() > 0 {
            let mut payload = vec![which, 0, 0, 0];
            payload.extend(numbers.by_ref().take(AGENTS_PER_FRAME).flatten());
            self.frame(kind::PER_AGENT, mono_ns, &payload)?;
        }
        Ok(())
    }
}

fn failed(dir: &Path, cause: impl ToString) -> DriveError {
    DriveError::Record { path: dir.display().to_string(), cause: cause.to_string() }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
