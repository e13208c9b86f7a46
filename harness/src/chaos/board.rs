//! Stub of the board, until the lead's is on main.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "a stub")]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Knob {
    LinkLossPpm = 0,
    LinkFrom = 1,
    LinkSharePermille = 2,
    LinkDelayNs = 3,
    LogSyncDelayNs = 4,
    LogSyncErrno = 5,
    LogWriteErrno = 6,
    LogWriteShort = 7,
    RealtimeOffsetNs = 8,
    RealtimeDriftPpm = 9,
    CorePanic = 10,
    PollPanicEvery = 11,
    SlowConsumerPermille = 12,
    HerdNow = 13,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub cores: u32,
    pub slots: u32,
    pub slot_ns: u64,
    pub from_ns: u64,
}

#[derive(Debug, Default)]
pub struct Board {
    knobs: [[AtomicU64; 2]; 14],
}

impl Board {
    pub fn create(_: Shape, _: &[u8; 32]) -> io::Result<Self> {
        Ok(Self::default())
    }

    #[must_use]
    pub fn level(&self, knob: Knob) -> u64 {
        self.knobs[knob as usize][0].load(Relaxed)
    }

    pub fn set(&self, knob: Knob, level: u64) {
        self.knobs[knob as usize][0].store(level, Relaxed);
    }

    pub fn bite(&self, knob: Knob) {
        self.bite_n(knob, 1);
    }

    pub fn bite_n(&self, knob: Knob, n: u64) {
        self.knobs[knob as usize][1].fetch_add(n, Relaxed);
    }

    #[must_use]
    pub fn bites(&self, knob: Knob) -> u64 {
        self.knobs[knob as usize][1].load(Relaxed)
    }
}
