//! Joins the parts for a program's own allocator: draws per thread, blocks in the range, large ones by
//! address, the collector for what is known about them. One per process; it is never dropped, because
//! blocks in its range outlive any session.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::addresses::Addresses;
use super::cells::{Draws, in_range, is_large, look_up};
use super::collector::{Birth, Collector, Thread};
use super::config::{HeapConfig, HeapError, OnFork};
use super::range::Range;
use super::sample::Draw;
use super::unwind::Registers;
use crate::record::heap_layout::{Lost, head};

/// Large objects that can live at one time, each at least 1 MiB.
const LARGE_MAX: usize = 16_384;

static SAMPLER: OnceLock<Sampler> = OnceLock::new();

/// The sampler, once it started.
pub(super) fn sampler() -> Option<&'static Sampler> {
    SAMPLER.get()
}

pub(super) struct Sampler {
    pub(super) collector: Collector,
    range: Range,
    addresses: Addresses,
    /// Operations plus one, 0 while the program counts none.
    pub(super) operations: AtomicU64,
    path: Vec<u8>,
}

/// Runs in the child, between fork and its return: only system calls, no allocation.
extern "C" fn go_on() {
    let Some(sampler) = sampler() else { return };
    let mut path = [0u8; 4096];
    let mut rest = &mut path[..];
    let written =
        rest.write_all(&sampler.path).and_then(|()| write!(rest, ".{}\0", std::process::id()));
    let path = written.ok().and_then(|()| std::ffi::CStr::from_bytes_until_nul(&path).ok());
    if let Some(path) = path {
        // When it fails the child records nothing, as with OnFork::Stop.
        let _ = sampler.collector.forked(path);
    }
}

/// An object that is to be recorded.
pub(super) struct Fresh {
    pub(super) size: usize,
    pub(super) align: usize,
    pub(super) mean: f32,
    pub(super) registers: Registers,
}

impl Sampler {
    /// Starts the process's sampler.
    pub(super) fn start(config: &HeapConfig) -> Result<&'static Sampler, HeapError> {
        static CLAIMED: AtomicBool = AtomicBool::new(false);
        if CLAIMED.swap(true, Ordering::Relaxed) {
            return Err(HeapError::Running);
        }
        let made = Sampler::create(config).inspect_err(|_| {
            CLAIMED.store(false, Ordering::Relaxed);
        })?;
        // Before anybody can get a block in the range, every thread looks blocks up.
        let (base, span) = if config.exact { (0, usize::MAX) } else { made.range.span() };
        look_up(base, span);
        let sampler = SAMPLER.get_or_init(|| made);
        if config.on_fork == OnFork::Own {
            super::threads::after_fork(go_on);
        }
        Ok(sampler)
    }

    fn create(config: &HeapConfig) -> Result<Sampler, HeapError> {
        let memory = |error| HeapError::Memory { bytes: 4 << 40, error };
        let by_address = if config.exact { config.objects_max as usize } else { LARGE_MAX };
        let sampler = Sampler {
            collector: Collector::create(config)?,
            range: Range::reserve().map_err(memory)?,
            addresses: Addresses::new(by_address).map_err(memory)?,
            operations: AtomicU64::new(0),
            path: config.path.as_os_str().as_bytes().to_vec(),
        };
        sampler.note_state();
        Ok(sampler)
    }

    /// Writes the size of all state into the file.
    pub(super) fn note_state(&self) {
        let beside = self.range.private_bytes() + self.addresses.private_bytes();
        let bytes = self.collector.state_bytes() + beside + super::cells::state_bytes();
        self.collector.words[head::STATE_BYTES].store(bytes, Ordering::Relaxed);
    }

    pub(super) fn exact(&self) -> bool {
        self.collector.exact
    }

    /// A block in the range for a sampled object, recorded and not zeroed.
    pub(super) fn place(&self, thread: &Thread, fresh: &Fresh) -> Option<NonNull<u8>> {
        if !self.collector.writes() {
            return None;
        }
        let block = self.slot_for(fresh.size, fresh.align)?;
        let address = block.as_ptr().addr();
        let slot = self.range.slot(address);
        let Some(object) = self.born(thread, fresh, address) else {
            self.range.give(slot);
            return None;
        };
        self.range.set_object(slot, object);
        Some(block)
    }

    /// Records an object that stays where the allocator put it.
    pub(super) fn record(&self, thread: &Thread, fresh: &Fresh, address: usize) {
        if let Some(object) = self.born(thread, fresh, address) {
            self.note(object, address);
        }
    }

    fn born(&self, thread: &Thread, fresh: &Fresh, address: usize) -> Option<u32> {
        let (address, size) = (address as u64, fresh.size as u64);
        let registers = fresh.registers;
        self.collector.born(thread, &Birth { address, size, mean: fresh.mean, registers })
    }

    /// A slot for a block, or `None`, which is counted.
    pub(super) fn slot_for(&self, size: usize, align: usize) -> Option<NonNull<u8>> {
        let block = self.range.take(size, align);
        if block.is_none() {
            let large_alignment = align > size.max(1 << 12);
            self.collector.lose(if large_alignment { Lost::Alignment } else { Lost::Range });
        }
        block
    }

    /// Notes where an object lies that is not in the range.
    fn note(&self, object: u32, address: usize) {
        if !self.addresses.insert(address as u64, object) {
            self.collector.lose(Lost::Addresses);
            self.collector.forget(object, address as u64);
        }
    }

    /// A block in the range is freed: its memory is the range's again.
    pub(super) fn release(&self, thread: &Thread, address: usize) {
        let slot = self.range.slot(address);
        self.collector.died(thread, self.range.object(slot), address as u64);
        self.range.give(slot);
    }

    /// A block outside of the range is about to be freed.
    pub(super) fn freed(&self, thread: &Thread, address: usize) {
        if let Some(object) = self.addresses.remove(address as u64) {
            self.collector.died(thread, object, address as u64);
        }
    }

    /// A block outside of the range is about to be reallocated: its object, to be given to
    /// [`Sampler::moved`], is noted nowhere meanwhile.
    pub(super) fn lift(&self, address: usize) -> Option<u32> {
        self.addresses.remove(address as u64)
    }

    /// Whether an object outside of the range may have this size: a free looks only such ones up.
    pub(super) fn stays_outside(&self, size: usize) -> bool {
        self.exact() || is_large(size)
    }

    /// A lifted object lies at `to` now, with `size` bytes.
    pub(super) fn moved(&self, object: u32, from: usize, to: (usize, usize)) {
        let (address, size) = to;
        if !self.collector.grown(object, from as u64, (address as u64, size as u64)) {
            return;
        }
        if in_range(address) && !self.exact() {
            self.range.set_object(self.range.slot(address), object);
        } else {
            self.note(object, address);
        }
    }

    /// The reallocation of a lifted object failed: it lies where it did.
    pub(super) fn put_back(&self, object: u32, address: usize) {
        self.note(object, address);
    }

    /// A lifted object, or one in the range, can be followed no longer.
    pub(super) fn forget(&self, object: u32, address: usize) {
        self.collector.forget(object, address as u64);
    }

    /// The object of a block in the range.
    pub(super) fn object(&self, address: usize) -> u32 {
        self.range.object(self.range.slot(address))
    }

    /// Whether a block of the range can hold `size` bytes without waste.
    pub(super) fn fits(&self, address: usize, size: usize) -> bool {
        let room = self.range.bytes(self.range.slot(address));
        size <= room && size > room / 2
    }

    /// Gives the memory of a block in the range back whose object moved away.
    pub(super) fn give(&self, address: usize) {
        self.range.give(self.range.slot(address));
    }
}

impl Draws for Option<&Sampler> {
    fn draw(&self, thread: &Thread) -> Option<Draw> {
        self.filter(|sampler| sampler.collector.writes())
            .map(|sampler| sampler.collector.draw(thread))
    }

    fn exact(&self) -> bool {
        self.is_some_and(|sampler| sampler.exact() && sampler.collector.writes())
    }
}
