//! The board: what a supervisor and its subject share.
//!
//! A file without a name (memfd) that both map: a header, the knobs with their bite counters, and per core and slot of
//! time the number of requests that were due in it, what they came to, and how long they took. The subject's cores
//! write their own cells with plain stores (one writer each), so that a subject that is killed at any instant leaves what
//! it had counted, and a supervisor that dies leaves nothing: the memory goes with the last process that maps it.

mod cells;
mod damage;
mod levels;
mod mail;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use serde::{Deserialize, Serialize};
use tailbeam_probes::collect::words::Words;

pub use cells::{BUCKETS, Cell, Fate, bucket, bucket_from_ns, nearest_edge_ns};
use cells::{CELL, FATES};
pub use damage::{FoundDamage, PLACES_MAX, Place};
pub use levels::{LevelRange, LevelSpan, Levels};
pub use mail::Mail;

/// "tailbord", and the layout's number.
const MAGIC: u64 = 0x6472_6f62_6c69_6174;
const LAYOUT: u64 = 4;
/// Words of the header, of the knobs and of what each core says beside its cells.
const HEADER: usize = 32;
const KNOBS: usize = 64;
const CORE: usize = 32;
/// Where the secret lies in the header.
const SECRET: usize = 8;
/// Where the subject counts descriptors that it was refused.
const DESCRIPTORS_REFUSED: usize = 13;
/// Where a proxy says its port, and how many connections were one too many.
const PROXY_PORT: usize = 14;
const PROXY_REFUSED: usize = 15;
/// Where the subject counts what its log's disk had no room for.
const NO_ROOM: usize = 16;
/// Where a core says how many requests are open, and what its log's owner has restored.
const OPEN: usize = 5;
const RESTORED: usize = 6;
const NOT_RESTORED: usize = 7;
/// Where a core says how far it has told what its log's events say.
const TOLD: usize = 31;
const _: () =
    assert!(mail::REFUSED < OPEN && NOT_RESTORED < 8 && damage::END <= TOLD && TOLD < CORE);
// Each word of the header has one meaning.
const _: () = assert!(
    SECRET + 4 <= mail::BOUND
        && mail::BOUND < DESCRIPTORS_REFUSED
        && DESCRIPTORS_REFUSED < PROXY_PORT
        && PROXY_PORT < PROXY_REFUSED
        && PROXY_REFUSED < NO_ROOM
        && NO_ROOM < levels::FIRST
);
/// Bounds of a board: 256 cores, and of all cells together 4 GiB.
const CORES_MAX: u64 = 256;
const CELLS_MAX: u64 = (4 << 30) / (CELL as u64 * 4);

/// Something that the supervisor sets and the subject does while it is set. 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Knob {
    /// Messages between cores that are dropped, parts per million.
    LinkLossPpm = 0,
    /// Sending cores whose messages that applies to, a bit each; 0 is all.
    LinkFrom = 1,
    /// Share of the receiving agents that it applies to, permille; 0 is all.
    LinkSharePermille = 2,
    /// Time that a message between cores is held back, ns.
    LinkDelayNs = 3,
    /// Time that a sync of an event log waits before it is asked for, ns.
    LogSyncDelayNs = 4,
    /// Error that a sync of an event log ends with, errno.
    LogSyncErrno = 5,
    /// Error that a write of an event log ends with, errno.
    LogWriteErrno = 6,
    /// A write of an event log leaves only so many bytes, plus one.
    LogWriteShort = 7,
    /// Offset of the wall clock, ns, an `i64`.
    RealtimeOffsetNs = 8,
    /// Drift of the wall clock, parts per million, an `i64`.
    RealtimeDriftPpm = 9,
    /// Every agent on this core, plus one, panics at its next request, once.
    CorePanic = 10,
    /// One request in so many makes its handler panic.
    PollPanicEvery = 11,
    /// Share of the responders that take no message, permille.
    SlowConsumerPermille = 12,
    /// All agents ask at once when it changes.
    HerdNow = 13,
    /// Defences of the subject that are switched off from its start, a bit of [`Defence`] each.
    DefencesOff = 14,
    /// One allocation in so many fails where a request's box is made.
    AllocFailEvery = 15,
    /// Every second request is for one of so many of the responders that take no message.
    Crowd = 16,
    /// A proxy on the way ends every connection by RST.
    ProxyReset = 17,
    /// A proxy on the way passes nothing on and ends nothing.
    ProxyHalfOpen = 18,
    /// Time that a proxy on the way holds back what it passes on, ns.
    ProxyLatencyNs = 19,
    /// The thread of this core, plus one, panics outside of any agent, and the process ends itself.
    CoreEnds = 20,
    /// Operations of the rings that suffer what follows: 1 those on files, 2 those on sockets, 3 both.
    RingWhat = 21,
    /// Operations of the rings that fail, parts per million.
    RingFailPpm = 22,
    /// What they fail with, errno.
    RingFailErrno = 23,
    /// Reads, writes and sends that are asked for less, parts per million.
    RingShortPpm = 24,
    /// Completions that come late, parts per million.
    RingLatePpm = 25,
    /// How late at most, ns.
    RingLateNs = 26,
    /// Completions that a look at a ring finds are handed on in the reverse order, each operation's in its own; that one
    /// overtakes another is its bite.
    RingReorder = 27,
    /// An event log begins its next segment so often, ns, and makes another one ahead: a fault of what it does then need
    /// not wait until a segment is full.
    LogRenewNs = 28,
}

impl Knob {
    /// Every knob.
    pub const ALL: [Self; 29] = [
        Self::LinkLossPpm,
        Self::LinkFrom,
        Self::LinkSharePermille,
        Self::LinkDelayNs,
        Self::LogSyncDelayNs,
        Self::LogSyncErrno,
        Self::LogWriteErrno,
        Self::LogWriteShort,
        Self::RealtimeOffsetNs,
        Self::RealtimeDriftPpm,
        Self::CorePanic,
        Self::PollPanicEvery,
        Self::SlowConsumerPermille,
        Self::HerdNow,
        Self::DefencesOff,
        Self::AllocFailEvery,
        Self::Crowd,
        Self::ProxyReset,
        Self::ProxyHalfOpen,
        Self::ProxyLatencyNs,
        Self::CoreEnds,
        Self::RingWhat,
        Self::RingFailPpm,
        Self::RingFailErrno,
        Self::RingShortPpm,
        Self::RingLatePpm,
        Self::RingLateNs,
        Self::RingReorder,
        Self::LogRenewNs,
    ];

    /// Whether a proxy does it, and not the subject.
    #[must_use]
    pub const fn is_of_a_proxy(self) -> bool {
        matches!(self, Self::ProxyReset | Self::ProxyHalfOpen | Self::ProxyLatencyNs)
    }
}

/// What protects a subject, and can be switched off to see that the scenario which guards it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defence {
    /// Requests end at their deadline.
    Expiry = 1,
    /// What the log holds is restored at a restart.
    Replay = 2,
    /// Records are read by their checksums.
    Checksum = 4,
    /// Mailboxes have a bound.
    Mailbox = 8,
    /// A request that there is no memory for gives back what it has taken.
    Cleanup = 16,
    /// Who asks is told of an end when the log has it.
    Ack = 32,
}

impl Defence {
    /// The scenario that guards it.
    #[must_use]
    pub const fn guard(self) -> &'static str {
        match self {
            Self::Expiry => "network_partition",
            Self::Replay => "process_crash",
            Self::Checksum => "event_store_corruption",
            Self::Mailbox => "slow_consumer",
            Self::Cleanup => "memory_exhaustion",
            Self::Ack => "disk_io_stress",
        }
    }
}

/// The shape of a board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Cores that write.
    pub cores: u32,
    /// Slots of time.
    pub slots: u32,
    /// Length of a slot, ns.
    pub slot_ns: u64,
    /// Instant at which the first slot begins, on the monotonic clock of whoever made the board, ns.
    pub from_ns: u64,
}

impl Shape {
    fn words(self) -> io::Result<usize> {
        let cells = u64::from(self.cores) * u64::from(self.slots);
        let fits = (1..=CORES_MAX).contains(&u64::from(self.cores))
            && (1..=CELLS_MAX).contains(&cells)
            && self.slot_ns > 0;
        let cells = usize::try_from(cells).ok().filter(|_| fits);
        let cells = cells.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(HEADER + KNOBS + self.cores as usize * CORE + (cells * CELL).div_ceil(2))
    }
}

/// The first `words` of a file that has them: who touches one that is not there is ended by a signal.
fn map(file: &File, words: usize) -> io::Result<Words> {
    if file.metadata()?.len() < words as u64 * 8 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Words::file(file.as_fd(), words)
}

/// A board, as the supervisor or as the subject sees it.
#[derive(Debug)]
pub struct Board {
    shared: Words,
    shape: Shape,
    /// The subject's monotonic clock minus the supervisor's, ns: not zero in a time namespace.
    offset_ns: i64,
    file: File,
}

impl Board {
    /// Makes one, its memory touched: a page costs its first writer some 10 us, and that is not to be a core.
    ///
    /// # Errors
    /// The shape has no cores, no slots, or more than 4 GiB of cells; or the kernel's refusal.
    pub fn create(shape: Shape, secret: &[u8; 32]) -> io::Result<Self> {
        let words = shape.words()?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd: OwnedFd = memfd_create("tailbeam-board", flags)?;
        ftruncate(&fd, words as u64 * 8)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        let file = File::from(fd);
        let shared = map(&file, words)?;
        let says = [
            MAGIC,
            LAYOUT,
            u64::from(shape.cores),
            u64::from(shape.slots),
            shape.slot_ns,
            shape.from_ns,
        ];
        for (word, value) in shared.iter().zip(says) {
            word.store(value, Relaxed);
        }
        for (word, bytes) in shared[SECRET..SECRET + 4].iter().zip(secret.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().expect("eight of them")), Relaxed);
        }
        Ok(Self { shared, shape, offset_ns: 0, file })
    }

    /// The secret that subjects work under, so that one reads what the one before it has kept. It is in memory only.
    #[must_use]
    pub fn secret(&self) -> [u8; 32] {
        let mut secret = [0; 32];
        for (bytes, word) in secret.chunks_exact_mut(8).zip(&self.shared[SECRET..SECRET + 4]) {
            bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes());
        }
        secret
    }

    /// The board behind `path`. `offset_ns`: this process' monotonic clock minus that of the board's maker, ns.
    ///
    /// # Errors
    /// It cannot be opened, or is no board of this layout.
    pub fn attach(path: &Path, offset_ns: i64) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let head = map(&file, HEADER)?;
        let word = |at: usize| head[at].load(Relaxed);
        let narrow = |value: u64| u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData);
        if (word(0), word(1)) != (MAGIC, LAYOUT) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let shape = Shape {
            cores: narrow(word(2))?,
            slots: narrow(word(3))?,
            slot_ns: word(4),
            from_ns: word(5),
        };
        let shared = map(&file, shape.words()?)?;
        Ok(Self { shared, shape, offset_ns, file })
    }

    /// Where another process of this user finds it while this one lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Its shape.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        self.shape
    }

    fn knob(&self, knob: Knob) -> &[AtomicU64] {
        let at = HEADER + knob as usize * 2;
        &self.shared[at..at + 2]
    }

    /// What a knob is set to; one load, 0 is off.
    #[must_use]
    pub fn level(&self, knob: Knob) -> u64 {
        self.knob(knob)[0].load(Relaxed)
    }

    /// Sets a knob. Whoever looks at it sees that within its own time between two looks.
    pub fn set(&self, knob: Knob, level: u64) {
        self.knob(knob)[0].store(level, Relaxed);
    }

    /// Whether a defence is switched off.
    #[must_use]
    pub fn is_off(&self, defence: Defence) -> bool {
        self.level(Knob::DefencesOff) & defence as u64 != 0
    }

    /// Counts that a knob has done what it says, once.
    pub fn bite(&self, knob: Knob) {
        self.bite_n(knob, 1);
    }

    /// Counts it `n` times.
    pub fn bite_n(&self, knob: Knob, n: u64) {
        self.knob(knob)[1].fetch_add(n, Relaxed);
    }

    /// How often it has.
    #[must_use]
    pub fn bites(&self, knob: Knob) -> u64 {
        self.knob(knob)[1].load(Relaxed)
    }

    fn says(&self, core: u32) -> &[AtomicU64] {
        let at = HEADER + KNOBS + core as usize * CORE;
        &self.shared[at..at + CORE]
    }

    /// Requests of a core that were due outside of the board's time.
    #[must_use]
    pub fn outside(&self, core: u32) -> u64 {
        self.says(core)[0].load(Relaxed)
    }

    /// Every event below this number of a core's log is as durable as that log promises, and somebody was told so.
    #[must_use]
    pub fn durable(&self, core: u32) -> u64 {
        self.says(core)[1].load(Relaxed)
    }

    /// Says so, before anybody is told. Of a core that the board has not, nothing.
    pub fn set_durable(&self, core: u32, below: u64) {
        if core < self.shape.cores {
            self.says(core)[1].store(below, Relaxed);
        }
    }

    /// What some event below this number of a core's log says was told to whom it concerns, and of none above it. The
    /// sender of the events says so: unlike [`Self::durable`] it is not the log's own word.
    #[must_use]
    pub fn told(&self, core: u32) -> u64 {
        self.says(core)[TOLD].load(Relaxed)
    }

    /// Says so, before it is told. Of a core that the board has not, nothing.
    pub fn set_told(&self, core: u32, below: u64) {
        if core < self.shape.cores {
            self.says(core)[TOLD].store(below, Relaxed);
        }
    }

    /// Requests of a core's agents that are open, now or when its process ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        (0..self.shape.cores).map(|core| self.says(core)[OPEN].load(Relaxed)).sum()
    }

    /// A core's log held so many events at its process' begin, which it has restored; so many did not follow.
    pub fn set_restored(&self, core: u32, events: u64, refused: u64) {
        if core < self.shape.cores {
            let says = self.says(core);
            says[RESTORED].store(events, Relaxed);
            says[NOT_RESTORED].store(refused, Relaxed);
        }
    }

    /// Events that the process which begun last has restored, and those that it could not.
    #[must_use]
    pub fn restored(&self) -> (u64, u64) {
        let sum = |at: usize| (0..self.shape.cores).map(|c| self.says(c)[at].load(Relaxed)).sum();
        (sum(RESTORED), sum(NOT_RESTORED))
    }

    /// A subject has begun: its process and the number of subjects so far.
    pub fn begin(&self, pid: u32) {
        self.shared[6].store(u64::from(pid), Relaxed);
        self.shared[7].fetch_add(1, Relaxed);
    }

    /// Process of the last subject that began, and how many have.
    #[must_use]
    pub fn begun(&self) -> (u64, u64) {
        (self.shared[6].load(Relaxed), self.shared[7].load(Relaxed))
    }

    /// The subject needed a descriptor, for a connection, and was refused one (EMFILE).
    pub fn descriptor_refused(&self) {
        self.shared[DESCRIPTORS_REFUSED].fetch_add(1, Relaxed);
    }

    /// How often it was.
    #[must_use]
    pub fn descriptors_refused(&self) -> u64 {
        self.shared[DESCRIPTORS_REFUSED].load(Relaxed)
    }

    /// The disk of an event log had no room for what the log makes (ENOSPC).
    pub fn no_room(&self) {
        self.shared[NO_ROOM].fetch_add(1, Relaxed);
    }

    /// How often it had none.
    #[must_use]
    pub fn no_rooms(&self) -> u64 {
        self.shared[NO_ROOM].load(Relaxed)
    }

    /// The port that a proxy of this board listens at; `None`: it does not yet.
    #[must_use]
    pub fn proxy_port(&self) -> Option<u16> {
        u16::try_from(self.shared[PROXY_PORT].load(Relaxed)).ok().filter(|port| *port > 0)
    }

    /// Says it, when it listens.
    pub fn set_proxy_port(&self, port: u16) {
        self.shared[PROXY_PORT].store(u64::from(port), Relaxed);
    }

    /// A proxy has reset a connection because it had as many as it may.
    pub fn proxy_refuses(&self) {
        self.shared[PROXY_REFUSED].fetch_add(1, Relaxed);
    }

    /// How often it has.
    #[must_use]
    pub fn proxy_refused(&self) -> u64 {
        self.shared[PROXY_REFUSED].load(Relaxed)
    }

    /// The slot of an instant on this process' monotonic clock.
    fn slot(&self, at_ns: u64) -> Option<u32> {
        let from_ns = self.shape.from_ns.saturating_add_signed(self.offset_ns);
        let slot = at_ns.checked_sub(from_ns)? / self.shape.slot_ns;
        u32::try_from(slot).ok().filter(|&slot| slot < self.shape.slots)
    }

    fn cell(&self, core: u32, slot: u32) -> &[std::sync::atomic::AtomicU32] {
        let first = (HEADER + KNOBS + self.shape.cores as usize * CORE) * 2;
        let at = first + (core as usize * self.shape.slots as usize + slot as usize) * CELL;
        &self.shared.halves()[at..at + CELL]
    }

    /// What the cores have counted of a slot so far.
    #[must_use]
    pub fn read(&self, slot: u32) -> Cell {
        let mut sum = Cell::default();
        if slot < self.shape.slots {
            (0..self.shape.cores).for_each(|core| sum.add(self.cell(core, slot)));
        }
        sum
    }
}

/// What one core writes. Its methods are a division and two stores; they allocate nothing and wait for nobody.
#[derive(Debug, Clone)]
pub struct Lane {
    board: std::sync::Arc<Board>,
    core: u32,
}

impl Lane {
    /// The lane of a core; `None` when the board has none for it.
    #[must_use]
    pub fn new(board: &std::sync::Arc<Board>, core: usize) -> Option<Self> {
        let core = u32::try_from(core).ok().filter(|&core| core < board.shape.cores)?;
        Some(Self { board: std::sync::Arc::clone(board), core })
    }

    fn add(&self, due_ns: u64, at: usize) {
        let Some(slot) = self.board.slot(due_ns) else {
            return one_more_wide(&self.board.says(self.core)[0]);
        };
        let cell = &self.board.cell(self.core, slot)[at];
        // One writer: a load and a store are an addition.
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// A request was due at this instant.
    pub fn due(&self, due_ns: u64) {
        self.add(due_ns, 0);
    }

    /// A request that was due at `due_ns` came to this.
    pub fn came_to(&self, due_ns: u64, fate: Fate) {
        self.add(due_ns, 1 + fate as usize);
    }

    /// The system took so long for a request that was due at `due_ns`.
    pub fn took(&self, due_ns: u64, system_ns: u64) {
        self.add(due_ns, 1 + FATES + bucket(system_ns));
    }

    /// So many requests of this core's agents are open.
    pub fn set_open(&self, open: usize) {
        self.board.says(self.core)[OPEN].store(open as u64, Relaxed);
    }

    /// The board.
    #[must_use]
    pub const fn board(&self) -> &std::sync::Arc<Board> {
        &self.board
    }
}

fn one_more_wide(word: &AtomicU64) {
    word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
}

#[cfg(test)]
mod tests;
