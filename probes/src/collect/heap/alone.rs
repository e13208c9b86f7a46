//! What one thread does at a time: history, thinning, census, modules, owners that ended.
//!
//! The lock is only ever tried, so a hook that finds it taken goes on: nothing waits for a thread that
//! the kernel put to sleep, and a signal handler cannot wait for the thread it interrupted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::collector::{Collector, weight};
use super::live_table::{Claim, GivenBack};
use super::modules::put_bytes;
use super::sample;
use crate::clock;
use crate::record::heap::{Census, ClassTotals};
use crate::record::heap_layout::{Event, KIND_ENDED, Lost, RECORD_WORDS, Section, head, low};

/// Smallest and largest mean that a budget chooses, bytes.
const MEANS: (f32, f32) = (4096.0, 16_777_216.0);
/// Longest name of an owner, bytes.
const NAME_BYTES: usize = 56;

/// Exact totals that a tick records.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Totals<'a> {
    /// Census; its instant is set by the tick.
    pub census: Census,
    /// Allocations since the start of the process.
    pub allocs: u64,
    /// Frees since the start of the process.
    pub frees: u64,
    /// Bytes allocated since the start of the process; a budget needs it.
    pub allocated_bytes: u64,
    /// By size class, at most 64.
    pub classes: &'a [ClassTotals],
}

/// The holder of the lock.
pub(super) struct Alone<'a>(&'a Collector);

impl Collector {
    /// Runs `work` unless somebody else is alone; then `None`.
    pub(super) fn alone<T>(&self, work: impl FnOnce(&Alone<'_>) -> T) -> Option<T> {
        // Acquire: pairs with the Release below.
        self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let result = work(&Alone(self));
        self.lock.store(0, Ordering::Release);
        Some(result)
    }

    /// Before a fork: waits, 100 ms at most, until nobody is alone, and keeps everybody else away. Whoever
    /// is alone may hold the dynamic loader's lock, which in the child nobody would ever give back. Follow
    /// with [`Collector::after_fork`] in the parent when this is true.
    pub fn before_fork(&self) -> bool {
        let started_ns = clock::monotonic_ns();
        while self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // The fork may come from a handler that interrupted the holder: so this wait ends.
            if clock::monotonic_ns().saturating_sub(started_ns) > 100_000_000 {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// After a fork, in the parent.
    pub fn after_fork(&self) {
        self.lock.store(0, Ordering::Release);
    }

    /// Takes what happened into the history, records totals where there are any, looks for new
    /// modules and follows the budget. Costs 10 us to 1 ms; call it about once a second. False when
    /// another thread is at it: call again.
    pub fn tick(&self, now_ns: u64, totals: Option<&Totals<'_>>) -> bool {
        if !self.writes() {
            return true;
        }
        if let Some(manual) = &self.manual_ns {
            manual.fetch_max(now_ns, Ordering::Relaxed);
        }
        let done = self.alone(|alone| {
            alone.drain();
            self.rows.reach(&self.words, now_ns);
            let full = self.code.refresh(&self.words, &self.layout);
            self.words[head::LOST + Lost::Modules as usize].fetch_add(full, Ordering::Relaxed);
            if let Some(totals) = totals {
                alone.follow_budget(now_ns, totals);
                alone.census(now_ns, totals);
            }
            self.words[head::AT].fetch_max(now_ns, Ordering::Relaxed);
        });
        done.is_some()
    }

    /// A tick from a hook's slow path, for programs without a thread that ticks: at most one per
    /// `period_ns`, by whoever comes first.
    pub fn tend(&self, period_ns: u64, totals: Option<&Totals<'_>>) {
        let now_ns = self.now_ns();
        let last_ns = self.tended_ns.load(Ordering::Relaxed);
        let due = now_ns >= last_ns.saturating_add(period_ns);
        let swap = || {
            let (set, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            self.tended_ns.compare_exchange(last_ns, now_ns, set, failed).is_ok()
        };
        if due && swap() {
            self.tick(now_ns, totals);
        }
    }

    /// The last tick, if nobody is in its way, and the end of the record.
    pub fn finish(&self, now_ns: u64, totals: Option<&Totals<'_>>) {
        self.tick(now_ns, totals);
        self.words[head::FINISHED].store(1, Ordering::Relaxed);
        self.stop();
    }

    /// The owner ended: what it still holds is orphaned. Lock-free, 10 ns.
    pub fn owner_ended(&self, owner: u32) {
        let event = Event::ended(owner, self.now_ns());
        if self.writes() {
            self.tell(&event);
        }
    }

    /// Names an owner; the name is cut at 56 bytes. False when another thread is alone or names are
    /// full, which is counted.
    pub fn name_owner(&self, owner: u32, name: &str) -> bool {
        self.writes() && self.alone(|alone| alone.name(owner, name)).unwrap_or(false)
    }
}

impl Alone<'_> {
    /// Empties the ring into the history.
    pub(super) fn drain(&self) {
        let Alone(all) = self;
        // As many as the ring holds: producers cannot keep the holder here.
        for _ in 0..all.layout.count(Section::Events) {
            let Some(event) = all.ring.pop(&all.words) else { return };
            self.apply(&event);
        }
    }

    fn apply(&self, event: &Event) {
        let Alone(all) = self;
        if event.kind == KIND_ENDED {
            self.end_owner(event);
        } else if !all.rows.apply(&all.words, event) {
            all.lose(Lost::History);
        }
    }

    /// Doubles the mean, and drops what the doubled mean would not have met. An object is kept with
    /// the ratio of its chances, so estimates stay unbiased; births give up what is dropped.
    pub(super) fn thin(&self) {
        let Alone(all) = self;
        self.drain();
        let mean = f32::from_bits(all.mean.load(Ordering::Relaxed));
        let raised = 2.0 * mean.max(f32::from_bits(all.floor.load(Ordering::Relaxed)));
        all.floor.store(raised.to_bits(), Ordering::Relaxed);
        self.set_mean(raised);
        let kept = f64::from(all.configured_mean / raised).min(1.0);
        all.words[head::KEPT].store(kept.to_bits(), Ordering::Relaxed);
        for index in 0..all.live.used() {
            self.thin_one(index, raised);
        }
    }

    fn thin_one(&self, index: u32, raised: f32) {
        let Alone(all) = self;
        let Claim::Taken(mut entry) = all.live.claim_any(&all.words, index) else { return };
        let before = weight(&entry);
        let tag = if entry.mean < raised {
            sample::thin(entry.extent, entry.mean, raised, entry.tag)
        } else {
            Some(entry.tag)
        };
        let Some(tag) = tag else {
            all.live.remove(&all.words, index);
            self.apply(&Event::correction(entry.site, entry.born_ns, -1, -before));
            return;
        };
        (entry.mean, entry.tag) = (entry.mean.max(raised), tag);
        let more = weight(&entry) - before;
        self.apply(&Event::correction(entry.site, entry.born_ns, 0, more));
        if all.live.give_back(&all.words, index, &entry) == GivenBack::Died {
            all.end(index, &entry, all.now_ns());
        }
    }

    fn set_mean(&self, mean: f32) {
        let Alone(all) = self;
        all.mean.store(mean.to_bits(), Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 ..= 2^63")]
        let bytes = mean as u64;
        all.words[head::MEAN].store(bytes, Ordering::Relaxed);
        all.words[head::MEAN_MIN].fetch_min(bytes, Ordering::Relaxed);
        all.words[head::MEAN_MAX].fetch_max(bytes, Ordering::Relaxed);
    }

    /// Sets the mean so that samples cost the budget: bytes per second, times the measured cost of a
    /// sample, over the share of a core.
    fn follow_budget(&self, now_ns: u64, totals: &Totals<'_>) {
        let Alone(all) = self;
        let Some(share) = all.budget.filter(|_| !all.exact) else { return };
        let taken = word(all, head::TAKEN);
        let spent_ns = word(all, head::SELF_NS) as f64;
        if taken < 64 || now_ns == 0 {
            return;
        }
        let bytes_per_ns = totals.allocated_bytes as f64 / now_ns as f64;
        let wanted = bytes_per_ns * (spent_ns / taken as f64) / share;
        let floor = f32::from_bits(all.floor.load(Ordering::Relaxed));
        let thinned = if floor > all.configured_mean { floor } else { MEANS.0 };
        #[expect(clippy::cast_possible_truncation, reason = "a mean needs no more digits")]
        let wanted = (wanted as f32).clamp(MEANS.0.max(thinned), MEANS.1.max(thinned)).round();
        let now = f32::from_bits(all.mean.load(Ordering::Relaxed));
        // A quarter off, else it stays: a mean that moves all the time is hard to read.
        if (wanted / now - 1.0).abs() > 0.25 {
            self.set_mean(wanted);
        }
    }

    /// Adds a census. When there is no room, every second one goes, and from then on every second
    /// tick only replaces the last: the whole run stays covered, and the end is always there.
    fn census(&self, now_ns: u64, totals: &Totals<'_>) {
        let Alone(all) = self;
        let (room, len) = (all.layout.count(Section::Census), word(all, head::CENSUS_LEN));
        let mut len = usize::try_from(len).unwrap_or(room).min(room);
        if len == room {
            for index in 0..room / 2 {
                let from: [u64; 6] = std::array::from_fn(|at| {
                    record(all, Section::Census, 2 * index)[at].load(Ordering::Relaxed)
                });
                put(record(all, Section::Census, index), &from);
            }
            len = room / 2;
            all.words[head::CENSUS_STEP].fetch_add(word(all, head::CENSUS_STEP), Ordering::Relaxed);
        }
        let ticks = all.words[head::TICKS].fetch_add(1, Ordering::Relaxed);
        let append = len == 0 || ticks.is_multiple_of(word(all, head::CENSUS_STEP).max(1));
        let at = if append { len } else { len - 1 };
        let (census, some) = (&totals.census, |value: Option<u64>| value.map_or(0, |v| v + 1));
        let words = [
            now_ns,
            census.live_bytes,
            census.live_objects,
            some(census.held_bytes),
            some(census.rss_bytes),
            some(census.operations),
        ];
        put(record(all, Section::Census, at), &words);
        all.words[head::CENSUS_LEN].store(at as u64 + 1, Ordering::Release);
        all.words[head::ALLOCS].store(totals.allocs, Ordering::Relaxed);
        all.words[head::FREES].store(totals.frees, Ordering::Relaxed);
        all.words[head::OPERATIONS].store(some(census.operations), Ordering::Relaxed);
        let classes = &totals.classes[..totals.classes.len().min(64)];
        for (index, class) in classes.iter().enumerate() {
            let words = [class.up_to, class.live_bytes, class.live_objects, class.allocated_bytes];
            put(record(all, Section::Classes, index), &words);
        }
        all.words[head::CLASSES_LEN].store(classes.len() as u64, Ordering::Release);
    }

    /// Owners that hold nothing sampled are forgotten when the list fills.
    fn end_owner(&self, event: &Event) {
        let Alone(all) = self;
        let room = all.layout.count(Section::Ended);
        let mut len = usize::try_from(word(all, head::ENDED_LEN)).unwrap_or(room);
        if len >= room {
            len = self.forget_owners(room);
        }
        if len >= room {
            all.lose(Lost::Ended);
            return;
        }
        put(record(all, Section::Ended, len), &[u64::from(event.site) + 1, event.born_ns]);
        all.words[head::ENDED_LEN].store(len as u64 + 1, Ordering::Release);
    }

    /// Keeps the owners that hold a sampled object, by a bitmap of hashes: a clash keeps one too many.
    fn forget_owners(&self, room: usize) -> usize {
        let Alone(all) = self;
        let holders = &all.holders;
        holders.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        let place = |owner: u32| {
            let bit = sample::mix(u64::from(owner)) % (holders.len() as u64 * 64);
            (usize::try_from(bit / 64).unwrap_or(0), 1u64 << (bit % 64))
        };
        all.live.owners(&all.words, |owner| {
            let (at, bit) = place(owner);
            holders[at].fetch_or(bit, Ordering::Relaxed);
        });
        let mut kept = 0;
        for index in 0..room {
            let slot = record(all, Section::Ended, index);
            let (owner, at_ns) = (slot[0].load(Ordering::Relaxed), slot[1].load(Ordering::Relaxed));
            let (at, bit) = place(low(owner - 1));
            if holders[at].load(Ordering::Relaxed) & bit != 0 {
                put(record(all, Section::Ended, kept), &[owner, at_ns]);
                kept += 1;
            }
        }
        all.words[head::ENDED_LEN].store(kept as u64, Ordering::Release);
        kept
    }

    fn name(&self, owner: u32, name: &str) -> bool {
        let Alone(all) = self;
        let room = all.layout.count(Section::Names);
        let len = usize::try_from(word(all, head::NAMES_LEN)).unwrap_or(room).min(room);
        let known = (0..len).find(|&index| {
            let word = record(all, Section::Names, index)[0].load(Ordering::Relaxed);
            word & 0xFFFF_FFFF == u64::from(owner)
        });
        let at = known.unwrap_or(len);
        if at >= room {
            all.lose(Lost::Names);
            return false;
        }
        let mut cut = name.len().min(NAME_BYTES);
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        let slot = record(all, Section::Names, at);
        slot[0].store(u64::from(owner) | (cut as u64) << 32, Ordering::Relaxed);
        put_bytes(&slot[1..], &name.as_bytes()[..cut]);
        all.words[head::NAMES_LEN].store(len.max(at + 1) as u64, Ordering::Release);
        true
    }
}

fn word(all: &Collector, at: usize) -> u64 {
    all.words[at].load(Ordering::Relaxed)
}

fn record(all: &Collector, section: Section, index: usize) -> &[AtomicU64] {
    let at = all.layout.at(section, index);
    &all.words[at..at + RECORD_WORDS[section as usize]]
}

fn put(slot: &[AtomicU64], words: &[u64]) {
    for (slot, word) in slot.iter().zip(words) {
        slot.store(*word, Ordering::Relaxed);
    }
}
