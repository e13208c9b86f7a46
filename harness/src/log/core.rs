//! What to write, when to sync, what is acknowledged.
//!
//! One action is under way at a time; what comes meanwhile waits in the queue and goes in the next batch,
//! so batches grow by themselves as the disk gets slower. A write or a sync that fails is never tried
//! again on the same file: a kernel that failed a sync may have dropped the pages and say that all is
//! well the next time (Rebello et al., 2020). The segment is given up, and what was not acknowledged is
//! written again to the next one, from memory: after a rest, which doubles with each failure that follows another
//! ([`LogConfig::rest_ns`]). Meanwhile nothing is acknowledged, the queue fills to its bounds, and what has no room is
//! given back: a disk that comes back finds everything that was taken and not acknowledged. A log that could not begin
//! a single segment has no disk to wait for, and gives up.

use std::collections::VecDeque;

use super::format::{HEADER_LEN, LogKey, Record, record_len};

/// An event to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Kind, given by the owner of the log.
    pub kind: u16,
    /// Version of the payload.
    pub version: u16,
    /// Payload.
    pub payload: Box<[u8]>,
}

/// When events are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Never: they survive the process, not the machine.
    None,
    /// Together.
    Batch {
        /// The oldest waits this long for others at most, ns; 0: it goes as soon as the disk is free.
        wait_ns: u64,
    },
    /// Each by a sync of its own.
    PerEvent,
}

/// When an event of a batch is acknowledged. With [`Durability::None`] it is once it is written, with
/// [`Durability::PerEvent`] once it is synced, whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Once it is in the queue: a crash may lose what was acknowledged. For comparison.
    Before,
    /// Once it is durable.
    After,
}

/// Limits and choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// When events are synced.
    pub durability: Durability,
    /// When they are acknowledged.
    pub ack: Ack,
    /// Events that wait or are under way at most; one more is given back.
    pub queue_max: usize,
    /// Their bytes at most.
    pub queue_bytes_max: usize,
    /// Events of one write at most.
    pub batch_max: usize,
    /// Bytes of one write at most; a larger event goes alone.
    pub batch_bytes_max: usize,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Largest payload.
    pub payload_max: usize,
    /// Errors after which a log gives up that has never begun a segment.
    pub failures_max: u32,
    /// Rest after a failure, and the longest after several in a row, ns.
    pub rest_ns: (u64, u64),
    /// What its checksums begin with.
    pub key: LogKey,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            durability: Durability::Batch { wait_ns: 0 },
            ack: Ack::After,
            queue_max: 16_384,
            queue_bytes_max: 32 << 20,
            batch_max: 1_000,
            batch_bytes_max: 4 << 20,
            segment_bytes: 64 << 20,
            payload_max: 2 << 20,
            failures_max: 3,
            rest_ns: (100_000_000, 5_000_000_000),
            key: LogKey([0; 16]),
        }
    }
}

/// What must be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin this segment; then [`Core::rotated`].
    Rotate {
        /// Number.
        segment: u32,
        /// For its header.
        first_seq: u64,
    },
    /// Write this to the segment; then [`Core::wrote`].
    Write {
        /// Offset.
        at: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Sync the segment; then [`Core::synced`].
    Sync,
    /// Nothing until something is offered, or until this instant, monotonic ns.
    Wait(Option<u64>),
    /// Too many errors: nothing will be written any more.
    Dead,
}

/// What was counted. `offered` = `refused` + acknowledged + held + `lost`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CoreCounts {
    /// Events that came.
    pub offered: u64,
    /// Given back: a bound was met, or the log is dead.
    pub refused: u64,
    /// Taken and never acknowledged because the log gave up before its first segment.
    pub lost: u64,
    /// Writes that worked.
    pub writes: u64,
    /// Syncs that worked.
    pub syncs: u64,
    /// Segments begun.
    pub segments: u64,
    /// Errors of the disk.
    pub failures: u64,
    /// Most events of one write.
    pub batch_most: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Writing {
        events: usize,
        bytes: u64,
    },
    /// Written and not synced.
    Written {
        events: usize,
    },
    Syncing {
        events: usize,
    },
    Rotating,
    Dead,
}

struct Waiting {
    since_ns: u64,
    entry: Entry,
}

/// The log, without its files.
pub struct Core {
    config: LogConfig,
    queue: VecDeque<Waiting>,
    queue_bytes: usize,
    /// Sequence number of the first of the queue.
    front_seq: u64,
    durable: u64,
    segment: Option<u32>,
    next_segment: u32,
    at: u64,
    step: Step,
    failed_in_a_row: u32,
    /// A rest that is to begin, and until when the one lasts that has, ns.
    rest_ns: Option<u64>,
    rests_until_ns: u64,
    counts: CoreCounts,
    /// Batches are encoded here, so that a batch costs no allocation once it has grown.
    spare: Vec<u8>,
    renews: bool,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("step", &self.step)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// A log that goes on at `next_seq` in a new segment `next_segment` ([`super::Recovered`]).
    #[must_use]
    pub fn new(config: LogConfig, next_seq: u64, next_segment: u32) -> Self {
        Self {
            config,
            queue: VecDeque::new(),
            queue_bytes: 0,
            front_seq: next_seq,
            durable: 0,
            segment: None,
            next_segment,
            at: 0,
            step: Step::Idle,
            failed_in_a_row: 0,
            rest_ns: None,
            rests_until_ns: 0,
            counts: CoreCounts::default(),
            spare: Vec::new(),
            renews: false,
        }
    }

    /// Takes an event; its sequence number.
    ///
    /// # Errors
    /// Gives it back when it is too large, the queue is full, or the log is dead.
    pub fn offer(&mut self, now_ns: u64, entry: Entry) -> Result<u64, Entry> {
        self.counts.offered += 1;
        let len = record_len(entry.payload.len());
        let full = self.queue.len() >= self.config.queue_max
            || self.queue_bytes + len > self.config.queue_bytes_max;
        let large = entry.payload.len() > self.config.payload_max
            || (HEADER_LEN + len) as u64 > self.config.segment_bytes;
        if full || large || self.step == Step::Dead {
            self.counts.refused += 1;
            return Err(entry);
        }
        let seq = self.next_seq();
        self.queue_bytes += len;
        self.queue.push_back(Waiting { since_ns: now_ns, entry });
        Ok(seq)
    }

    /// Events that it takes now.
    #[must_use]
    pub fn room(&self) -> usize {
        match self.step {
            Step::Dead => 0,
            _ => self.config.queue_max - self.queue.len().min(self.config.queue_max),
        }
    }

    /// Sequence number of the next event.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.front_seq + self.queue.len() as u64
    }

    /// Every event below this number is acknowledged.
    #[must_use]
    pub fn acked(&self) -> u64 {
        let early = matches!(
            (self.config.durability, self.config.ack),
            (Durability::Batch { .. }, Ack::Before)
        );
        if early && self.step != Step::Dead { self.next_seq() } else { self.front_seq }
    }

    /// What was counted.
    #[must_use]
    pub const fn counts(&self) -> &CoreCounts {
        &self.counts
    }

    /// Events that wait or are under way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.queue.len()
    }

    /// What must be done now. Call it when nothing is under way.
    ///
    /// # Panics
    /// When an action is under way: each must be answered by its own call first.
    pub fn next(&mut self, now_ns: u64) -> Action {
        let rests = self.rests(now_ns);
        match self.step {
            Step::Dead => Action::Dead,
            Step::Written { events } => {
                self.step = Step::Syncing { events };
                Action::Sync
            }
            Step::Idle if rests => Action::Wait(Some(self.rests_until_ns)),
            Step::Idle => match self.due(now_ns) {
                Err(until_ns) => Action::Wait(until_ns),
                Ok(events) => self.write(events),
            },
            under_way => panic!("{under_way:?} was not answered"),
        }
    }

    /// Whether something can be written now, or when. Only meaningful while nothing is under way.
    ///
    /// # Errors
    /// The instant from which something can, monotonic ns; none: once something is offered.
    pub fn due_at(&self, now_ns: u64) -> Result<(), Option<u64>> {
        match self.step {
            Step::Dead => Err(None),
            _ if now_ns < self.rests_until_ns => Err(Some(self.rests_until_ns)),
            _ => self.due(now_ns).map(drop),
        }
    }

    /// Whether it rests after a failure. The rest begins with the first look.
    fn rests(&mut self, now_ns: u64) -> bool {
        if let Some(rest_ns) = self.rest_ns.take() {
            self.rests_until_ns = now_ns.saturating_add(rest_ns);
        }
        now_ns < self.rests_until_ns
    }

    /// Whether the last write, sync or begin of a segment has failed, and none has worked since.
    #[must_use]
    pub const fn is_degraded(&self) -> bool {
        self.failed_in_a_row > 0
    }

    /// Whether it has given up.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.step == Step::Dead
    }

    /// How many events to write, or when.
    fn due(&self, now_ns: u64) -> Result<usize, Option<u64>> {
        let Some(front) = self.queue.front() else { return Err(None) };
        let max = if self.config.durability == Durability::PerEvent {
            1
        } else {
            self.config.batch_max.max(1)
        };
        let (mut events, mut bytes) = (0, 0);
        for waiting in self.queue.iter().take(max) {
            bytes += record_len(waiting.entry.payload.len());
            if events > 0 && bytes > self.config.batch_bytes_max {
                return Ok(events);
            }
            events += 1;
        }
        match self.config.durability {
            Durability::Batch { wait_ns } if events < max => {
                let until_ns = front.since_ns.saturating_add(wait_ns);
                if now_ns < until_ns { Err(Some(until_ns)) } else { Ok(events) }
            }
            _ => Ok(events),
        }
    }

    /// What comes next goes to a segment of its own, though this one has room.
    pub const fn renew(&mut self) {
        self.renews = self.segment.is_some();
    }

    fn write(&mut self, events: usize) -> Action {
        if std::mem::take(&mut self.renews) {
            return self.rotate();
        }
        let Some(segment) = self.segment else { return self.rotate() };
        let salt = self.config.key.salt(segment);
        let room = self.config.segment_bytes - self.at;
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        let mut taken = 0;
        for (seq, waiting) in (self.front_seq..).zip(self.queue.iter().take(events)) {
            let Entry { kind, version, payload } = &waiting.entry;
            if (bytes.len() + record_len(payload.len())) as u64 > room {
                break;
            }
            let (kind, version) = (*kind, *version);
            Record { seq, durable: self.durable, kind, version, payload }.encode(salt, &mut bytes);
            taken += 1;
        }
        if taken == 0 {
            self.spare = bytes;
            return self.rotate();
        }
        self.step = Step::Writing { events: taken, bytes: bytes.len() as u64 };
        Action::Write { at: self.at, bytes }
    }

    fn rotate(&mut self) -> Action {
        self.step = Step::Rotating;
        self.segment = None;
        Action::Rotate { segment: self.next_segment, first_seq: self.front_seq }
    }

    /// The segment of [`Action::Rotate`] was begun and its header written, or not.
    ///
    /// # Panics
    /// When none was asked for.
    pub fn rotated(&mut self, worked: bool) {
        assert_eq!(self.step, Step::Rotating, "an answer to an action");
        if worked {
            self.segment = Some(self.next_segment);
            self.at = HEADER_LEN as u64;
            self.counts.segments += 1;
            self.step = Step::Idle;
        }
        // A number that failed is not used again: what it left behind may come up later.
        self.next_segment += 1;
        if !worked {
            self.failed();
        }
    }

    /// All of [`Action::Write`] was written, or not. Hands its buffer back.
    ///
    /// # Panics
    /// When no write was asked for.
    pub fn wrote(&mut self, worked: bool, buffer: Vec<u8>) {
        self.spare = buffer;
        let Step::Writing { events, bytes } = self.step else { panic!("an answer to no write") };
        if !worked {
            return self.failed();
        }
        self.at += bytes;
        self.counts.writes += 1;
        self.counts.batch_most = self.counts.batch_most.max(events as u64);
        if self.config.durability == Durability::None {
            self.release(events);
        } else {
            self.step = Step::Written { events };
        }
    }

    /// [`Action::Sync`] worked, or not.
    ///
    /// # Panics
    /// When no sync was asked for.
    pub fn synced(&mut self, worked: bool) {
        let Step::Syncing { events } = self.step else { panic!("an answer to no sync") };
        if !worked {
            return self.failed();
        }
        self.counts.syncs += 1;
        self.release(events);
        self.durable = self.front_seq;
    }

    fn release(&mut self, events: usize) {
        for waiting in self.queue.drain(..events) {
            self.queue_bytes -= record_len(waiting.entry.payload.len());
        }
        self.front_seq += events as u64;
        self.failed_in_a_row = 0;
        self.step = Step::Idle;
    }

    fn failed(&mut self) {
        self.counts.failures += 1;
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.segment = None;
        self.step = Step::Idle;
        let (least_ns, most_ns) = self.config.rest_ns;
        let doubled = 1u64 << (self.failed_in_a_row - 1).min(32);
        self.rest_ns = Some(least_ns.saturating_mul(doubled).min(most_ns));
        let never_began = self.counts.segments == 0;
        if never_began && self.failed_in_a_row >= self.config.failures_max.max(1) {
            self.step = Step::Dead;
            self.counts.lost += self.queue.len() as u64;
            self.queue.clear();
            self.queue_bytes = 0;
        }
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
