//! The collector: what is known about sampled objects, in a state file of fixed size. It decides
//! nothing about where blocks lie, so it serves the global allocator and a preload library alike.
//!
//! Hooks (`born`, `grown`, `died`) may run in any thread, take no lock, allocate nothing and may
//! interrupt each other. Everything that needs one writer (history, thinning, census, modules) is done
//! under a lock that is only ever tried.

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use super::config::{HeapConfig, HeapError};
use super::eh_frame;
use super::file;
use super::history::{Ring, Rows};
use super::live_table::{Claim, GivenBack, Live};
use super::modules::{Code, put_bytes};
use super::sample::{self, Draw};
use super::site::{OTHER, Sites};
use super::unwind::{self, Registers};
use crate::clock;
use crate::collect::words::Words;
use crate::record::heap_layout::{
    COMMAND, EPOCHS, Entry, Event, Layout, Lost, MAGIC, VERSION, head, high,
};

/// Words of the bitmap of owners: 524,288 bits for 65,536 objects.
const HOLDER_WORDS: usize = 8_192;

/// How often a hook gives way to whoever empties the ring.
const TRIES: usize = 256;

/// Up to this many objects the other tables are small as well.
const SMALL: usize = 16_384;

/// What the collector keeps per thread. All zeros is a fresh one. The owner of the memory passes it
/// to every hook and never to two threads at once.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Thread {
    random: Cell<u64>,
    stack: Cell<(u64, u64)>,
    owner: Cell<u32>,
    busy: Cell<u32>,
    turn: Cell<u32>,
}

impl Thread {
    /// A fresh one.
    #[must_use]
    pub const fn new() -> Thread {
        Thread {
            random: Cell::new(0),
            stack: Cell::new((0, 0)),
            owner: Cell::new(0),
            busy: Cell::new(0),
            turn: Cell::new(0),
        }
    }

    /// Tags what the thread allocates from now on; returns the tag before.
    pub fn set_owner(&self, owner: u32) -> u32 {
        self.owner.replace(owner)
    }

    /// Runs `inside` unless this thread is inside already: then a signal handler, or an allocation
    /// of our own, interrupted a hook.
    pub fn enter<T>(&self, inside: impl FnOnce() -> T) -> Option<T> {
        if self.busy.replace(1) != 0 {
            return None;
        }
        // The handler runs on this thread: order for the compiler is enough.
        compiler_fence(Ordering::SeqCst);
        let result = inside();
        compiler_fence(Ordering::SeqCst);
        self.busy.set(0);
        Some(result)
    }
}

/// A sampled allocation.
#[derive(Debug, Clone, Copy)]
pub struct Birth {
    /// Address of the block.
    pub address: u64,
    /// Requested bytes.
    pub size: u64,
    /// Mean of the draw that met it, [`Draw::mean`].
    pub mean: f32,
    /// Where the walk of the stack begins.
    pub registers: Registers,
}

/// The state of sampling in this process.
pub struct Collector {
    pub(super) words: Words,
    pub(super) layout: Layout,
    pub(super) live: Live,
    pub(super) sites: Sites,
    pub(super) ring: Ring,
    pub(super) rows: Rows,
    pub(super) code: Code,
    /// Bits of the mean, f32, for new draws.
    pub(super) mean: AtomicU32,
    /// Bits of the mean below which thinning has left nothing, f32.
    pub(super) floor: AtomicU32,
    /// 1 while somebody holds the lock.
    pub(super) lock: AtomicU32,
    /// One word that a fork wipes: 1 in the process that writes the file.
    pub(super) own: Words,
    /// Scratch bitmap of whoever is alone: owners that hold something.
    pub(super) holders: Words,
    threads: AtomicU64,
    started_ns: u64,
    /// ns since the start by the last tick, when the clock is manual.
    pub(super) manual_ns: Option<AtomicU64>,
    /// Last tick that [`Collector::tend`] made, ns.
    pub(super) tended_ns: AtomicU64,
    pub(super) exact: bool,
    tables: bool,
    /// Path of the state file, as bytes.
    pub(super) path: Words,
    pub(super) configured_mean: f32,
    pub(super) budget: Option<f64>,
    seed: u64,
}

impl Collector {
    /// Makes the state file and the tables. The only call here that allocates.
    ///
    /// # Errors
    /// [`HeapError`], when the configuration, the file or the memory does not allow it.
    pub fn create(config: &HeapConfig) -> Result<Collector, HeapError> {
        config.check()?;
        eh_frame::prepare();
        let layout = layout(config);
        let bytes = layout.words() as u64 * 8;
        let words = file::create(&config.path, bytes).map_err(|error| HeapError::File {
            path: config.path.clone(),
            bytes,
            error,
        })?;
        let memory = |error| HeapError::Memory { bytes, error };
        let own = Words::anonymous(512).map_err(memory)?;
        own.wipe_on_fork().map_err(memory)?;
        own[0].store(1, Ordering::Relaxed);
        let mean = config.mean_bytes as f32;
        let collector = Collector {
            live: Live::new(&layout).map_err(memory)?,
            sites: Sites::new(&layout),
            ring: Ring::new(&layout),
            rows: Rows::new(&layout),
            code: Code::new(&layout).map_err(memory)?,
            mean: AtomicU32::new(mean.to_bits()),
            floor: AtomicU32::new(mean.to_bits()),
            lock: AtomicU32::new(0),
            own,
            holders: Words::anonymous(HOLDER_WORDS).map_err(memory)?,
            threads: AtomicU64::new(0),
            started_ns: clock::monotonic_ns(),
            manual_ns: config.manual_clock.then(|| AtomicU64::new(0)),
            tended_ns: AtomicU64::new(0),
            exact: config.exact,
            tables: config.tables,
            path: Words::anonymous(file::PATH_BYTES / 8).map_err(memory)?,
            configured_mean: mean,
            budget: config.budget,
            seed: if config.seed == 0 { clock::monotonic_ns() } else { config.seed },
            words,
            layout,
        };
        // Absolute: a child may be born in another directory.
        let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
        let path = path.as_os_str().as_bytes();
        put_bytes(&collector.path, &path[..path.len().min(file::PATH_BYTES - 1)]);
        collector.head(config);
        collector.code.refresh(&collector.words, &collector.layout);
        Ok(collector)
    }

    fn head(&self, config: &HeapConfig) {
        let set = |at: usize, value: u64| self.words[at].store(value, Ordering::Relaxed);
        set(head::VERSION, VERSION);
        set(head::FILE_WORDS, self.layout.words() as u64);
        set(head::STARTED_UNIX, clock::realtime_ns());
        set(head::PID, u64::from(std::process::id()));
        set(head::EPOCH, config.epoch_ns);
        for at in [head::MEAN, head::MEAN_MIN, head::MEAN_MAX] {
            set(at, u64::from(config.mean_bytes));
        }
        set(head::EXACT, u64::from(config.exact));
        set(head::KEPT, 1.0f64.to_bits());
        set(head::STATE_BYTES, self.state_bytes());
        set(head::CENSUS_STEP, 1);
        self.layout.header().for_each(|(at, value)| set(at, value));
        let command = config.command.as_bytes();
        let command = &command[..command.len().min(COMMAND.1 * 8)];
        put_bytes(&self.words[COMMAND.0..COMMAND.0 + COMMAND.1], command);
        // Release, and last: a file with the magic has its header.
        self.words[head::MAGIC].store(MAGIC, Ordering::Release);
    }

    /// A distance to the next sample, for the calling thread.
    pub fn draw(&self, thread: &Thread) -> Draw {
        self.seeded(thread);
        sample::draw(&thread.random, f32::from_bits(self.mean.load(Ordering::Relaxed)))
    }

    /// Records a sampled object; its number in the table, or `None` when it is not kept: thinned at
    /// birth, or lost and counted. Costs about 0.2 us.
    pub fn born(&self, thread: &Thread, birth: &Birth) -> Option<u32> {
        if !self.writes() {
            return None;
        }
        let inside = thread.enter(|| self.record(thread, birth));
        inside.unwrap_or_else(|| {
            self.lose(Lost::Reentry);
            None
        })
    }

    fn record(&self, thread: &Thread, birth: &Birth) -> Option<u32> {
        let now_ns = self.now_ns();
        self.seeded(thread);
        let tag = high(sample::random(&thread.random));
        let floor = f32::from_bits(self.floor.load(Ordering::Relaxed));
        let (mean, tag) = if birth.mean < floor {
            (floor, sample::thin(birth.size, birth.mean, floor, tag)?)
        } else {
            (birth.mean, tag)
        };
        let entry = Entry {
            site: self.site(thread, &birth.registers),
            owner: thread.owner.get(),
            core: unwind::core(),
            grown: 0,
            size: birth.size,
            extent: birth.size,
            born_ns: now_ns,
            grown_ns: now_ns,
            address: birth.address,
            mean,
            tag,
        };
        let index = self.insert(&entry)?;
        self.words[head::TAKEN].fetch_add(1, Ordering::Relaxed);
        self.tell(&Event::birth(entry.site, now_ns, weight(&entry)));
        self.spent(thread, now_ns);
        Some(index)
    }

    fn insert(&self, entry: &Entry) -> Option<u32> {
        let index = self.live.insert(&self.words, entry).or_else(|| {
            // Full, and nobody ticked in time: thin here, if nobody else does.
            let thinned = !self.exact && self.alone(|alone| alone.thin()).is_some();
            thinned.then(|| self.live.insert(&self.words, entry)).flatten()
        });
        if index.is_none() {
            self.lose(Lost::Table);
        }
        index
    }

    /// The object was freed. False when the table no longer holds it, which is no error: it may have
    /// been thinned.
    pub fn died(&self, thread: &Thread, index: u32, address: u64) -> bool {
        if !self.writes() {
            return false;
        }
        let now_ns = self.now_ns();
        let Claim::Taken(entry) = self.live.claim(&self.words, index, address, true) else {
            return false;
        };
        self.end(index, &entry, now_ns);
        self.spent(thread, now_ns);
        true
    }

    /// Ends a claimed entry.
    pub(super) fn end(&self, index: u32, entry: &Entry, now_ns: u64) {
        let age_ns = now_ns.saturating_sub(entry.born_ns);
        self.live.remove(&self.words, index);
        self.tell(&Event::death(entry.site, entry.born_ns, age_ns, weight(entry)));
    }

    /// The object can be followed no longer: it was never born, as far as estimates go. The caller
    /// counts the loss.
    pub fn forget(&self, index: u32, address: u64) {
        if !self.writes() {
            return;
        }
        if let Claim::Taken(entry) = self.live.claim(&self.words, index, address, true) {
            self.live.remove(&self.words, index);
            self.tell(&Event::correction(entry.site, entry.born_ns, -1, -weight(&entry)));
        }
    }

    /// Whether the object at `address` has this number.
    pub fn holds(&self, index: u32, address: u64) -> bool {
        self.writes() && self.live.holds(&self.words, index, address)
    }

    /// The object was reallocated: it keeps its birth, and its weight follows its size. False as for
    /// [`Collector::died`].
    pub fn grown(&self, index: u32, address: u64, block: (u64, u64)) -> bool {
        if !self.writes() {
            return false;
        }
        let mut entry = match self.live.claim(&self.words, index, address, true) {
            Claim::Taken(entry) => entry,
            Claim::Gone => return false,
            Claim::Held => {
                self.lose(Lost::Thinned);
                return false;
            }
        };
        let (now_ns, before) = (self.now_ns(), weight(&entry));
        (entry.address, entry.size) = block;
        entry.extent = entry.extent.max(entry.size);
        entry.grown = entry.grown.saturating_add(1);
        entry.grown_ns = now_ns;
        let more = weight(&entry) - before;
        match self.live.give_back(&self.words, index, &entry) {
            GivenBack::Lives => {
                self.tell(&Event::correction(entry.site, entry.born_ns, 0, more));
            }
            GivenBack::Died => self.end(index, &entry, now_ns),
        }
        true
    }

    /// ns since the start at `now_ns` of `CLOCK_MONOTONIC`; with a manual clock, `now_ns` itself.
    pub fn since_start(&self, now_ns: u64) -> u64 {
        if self.manual_ns.is_some() { now_ns } else { now_ns.saturating_sub(self.started_ns) }
    }

    /// ns since the start.
    pub fn now_ns(&self) -> u64 {
        match &self.manual_ns {
            Some(manual) => manual.load(Ordering::Relaxed),
            None => clock::monotonic_ns().saturating_sub(self.started_ns),
        }
    }

    /// Whether this process writes the file: false after [`Collector::stop`] and in a forked child.
    pub fn writes(&self) -> bool {
        self.own[0].load(Ordering::Relaxed) == 1
    }

    /// Records nothing more. Objects that live stay in the file.
    pub fn stop(&self) {
        self.own[0].store(0, Ordering::Relaxed);
    }

    /// Counts a loss.
    pub(super) fn lose(&self, why: Lost) {
        self.words[head::LOST + why as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn site(&self, thread: &Thread, registers: &Registers) -> u32 {
        let top = unwind::top(&thread.stack, registers.sp);
        let code = |at| self.code.holds(&self.words, at);
        let stack = match self.tables && registers.ip != 0 {
            true => eh_frame::walk(registers, top, code),
            false => unwind::walk(registers, top, code),
        };
        // A file that is loaded, used and unloaded between two ticks is noted while it is there.
        let unknown = |at: &&u64| !self.code.holds(&self.words, **at);
        if self.tables && eh_frame::met_new() && stack.frames().iter().any(|at| unknown(&at)) {
            self.alone(|_| self.code.refresh(&self.words, &self.layout));
        }
        if stack.truncated {
            self.words[head::TRUNCATED].fetch_add(1, Ordering::Relaxed);
        }
        self.sites.number(&self.words, &stack).unwrap_or_else(|| {
            self.lose(Lost::Sites);
            OTHER
        })
    }

    /// Puts an event into the ring, and empties the ring when it fills. When another thread is at that
    /// and the ring is full, it gives way to it for a bounded number of times; then the event is lost.
    pub(super) fn tell(&self, event: &Event) {
        for _ in 0..TRIES {
            if self.ring.push(&self.words, event) {
                if self.ring.filling(&self.words) {
                    self.alone(|alone| alone.drain());
                }
                return;
            }
            if self.alone(|alone| alone.drain()).is_none() {
                std::thread::yield_now();
            }
        }
        self.lose(Lost::Ring);
    }

    /// Notes the time, and every 16th time what the hook took, sixteen-fold: a look at the clock is a
    /// fifth of the hook's own cost.
    fn spent(&self, thread: &Thread, since_ns: u64) {
        // Late by a hook at most: readers want the instant of the last event, roughly.
        self.words[head::AT].store(since_ns, Ordering::Relaxed);
        let turn = thread.turn.get().wrapping_add(1);
        thread.turn.set(turn);
        if turn.is_multiple_of(16) {
            let spent = self.now_ns().saturating_sub(since_ns);
            self.words[head::SELF_NS].fetch_add(16 * spent, Ordering::Relaxed);
        }
    }

    fn seeded(&self, thread: &Thread) {
        if thread.random.get() == 0 {
            let number = self.threads.fetch_add(1, Ordering::Relaxed);
            thread.random.set(sample::mix(self.seed ^ sample::mix(number + 1)) | 1);
        }
    }

    /// Bytes of the file and of the tables beside it.
    pub(super) fn state_bytes(&self) -> u64 {
        let file = self.words.len() as u64 * 8;
        file + self.live.private_bytes()
            + self.code.private_bytes()
            + (self.own.len() + self.holders.len()) as u64 * 8
    }
}

pub(super) fn weight(entry: &Entry) -> f64 {
    sample::weight(entry.size, entry.extent, entry.mean)
}

fn layout(config: &HeapConfig) -> Layout {
    assert_eq!(EPOCHS, 64, "a row has a word per epoch");
    let entries = config.objects_max as usize;
    // Short-lived children of a build get by with less: 3 MB instead of 12.
    if entries <= SMALL {
        return Layout::new([entries, 4_096, 65_536, 1_024, 8_192, 512, 64, 1_024, 256, 512]);
    }
    //          entries  sites   frames   rows   events census classes ended   names  modules
    Layout::new([entries, 16_384, 327_680, 5_120, 16_384, 2_048, 64, 32_768, 2_048, 512])
}
