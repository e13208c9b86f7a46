//! Stacks by number: a table in the state file that is only ever added to, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sample::mix;
use crate::record::heap::SITE_OTHER;
use crate::record::heap_layout::{FRAMES_MAX, Layout, Section, head};

/// Places that are looked at before a stack counts as without room.
const PROBES: usize = 64;

/// A stack as walked: return addresses, innermost first.
pub(super) struct Stack {
    pub(super) frames: [u64; FRAMES_MAX],
    pub(super) len: usize,
    /// The walk ended early.
    pub(super) truncated: bool,
}

impl Stack {
    pub(super) fn frames(&self) -> &[u64] {
        &self.frames[..self.len]
    }
}

pub(super) struct Sites {
    sites: usize,
    count: usize,
    frames: usize,
    frame_words: usize,
}

impl Sites {
    pub(super) fn new(layout: &Layout) -> Sites {
        Sites {
            sites: layout.at(Section::Sites, 0),
            count: layout.count(Section::Sites),
            frames: layout.at(Section::Frames, 0),
            frame_words: layout.count(Section::Frames),
        }
    }

    /// Number of the stack; `None` when the table or the room for frames is full. Two stacks are the
    /// same when their 64-bit hashes are: among 16,384 that is wrong once in 10^11 runs.
    pub(super) fn number(&self, words: &[AtomicU64], stack: &Stack) -> Option<u32> {
        let hash = hash(stack.frames());
        let places = self.count - 1;
        for probe in 0..PROBES.min(places) {
            let index = 1 + (usize::try_from(hash).unwrap_or(usize::MAX) + probe) % places;
            let slot = &words[self.sites + index * 2];
            let mut found = slot.load(Ordering::Relaxed);
            if found == 0 {
                let from = self.reserve(words, stack.len)?;
                match slot.compare_exchange(0, hash, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => {
                        self.fill(words, index, from, stack);
                        return u32::try_from(index).ok();
                    }
                    // The frames that were reserved stay unused; the race is rare.
                    Err(other) => found = other,
                }
            }
            if found == hash {
                return u32::try_from(index).ok();
            }
        }
        None
    }

    fn reserve(&self, words: &[AtomicU64], len: usize) -> Option<usize> {
        let more = |used: u64| {
            let end = used + len as u64;
            (end <= self.frame_words as u64).then_some(end)
        };
        let used = &words[head::FRAMES_USED];
        let from = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        usize::try_from(from).ok()
    }

    fn fill(&self, words: &[AtomicU64], index: usize, from: usize, stack: &Stack) {
        for (at, frame) in stack.frames().iter().enumerate() {
            words[self.frames + from + at].store(*frame, Ordering::Relaxed);
        }
        let told = from as u64 | (stack.len as u64) << 32 | u64::from(stack.truncated) << 48;
        // Release: a reader that sees the length sees the frames.
        words[self.sites + index * 2 + 1].store(told, Ordering::Release);
        words[head::SITES_USED].fetch_add(1, Ordering::Relaxed);
    }
}

/// Number of a stack without room.
pub(super) const OTHER: u32 = SITE_OTHER;

fn hash(frames: &[u64]) -> u64 {
    let fold = |hash: u64, frame: &u64| mix(hash.rotate_left(5) ^ frame);
    frames.iter().fold(frames.len() as u64 + 1, fold).max(1)
}
