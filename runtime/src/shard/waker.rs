#![expect(unsafe_code, reason = "a RawWaker whose data is a number")]
//! Wakers without memory: the task's handle is the waker's data word, so that one that outlives its task or its
//! runtime is harmless.
//!
//! Those that are out are counted at their task: +1 when one is cloned, -1 when one is dropped or woken by value.
//! A poll is lent one that is not counted and never dropped, so that a handler that ends in its first poll pays
//! nothing. On the task's own shard that is an add in the slot's header; on other threads it goes through a lock.
//!
//! The word: runtime 10 bits, shard 8, generation 14 (the low bits of the slot's), slot 32. Numbers of
//! runtimes and generations come round; a waker that is so old that it names another task wakes that task
//! once for nothing, and its end is counted there.

use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::shared::Shared;
use super::{CURRENT, Shard};
use crate::agent::{generation_of, handle, index_of, shard_of};
use crate::error::StartError;

const _: () = assert!(size_of::<usize>() == 8, "a handle fits a waker's data word");

/// Runtimes that a process can have at once.
const RUNTIMES: usize = 1 << 10;
const GENERATION_MASK: u32 = (1 << 14) - 1;

type Shards = Arc<[Arc<Shared>]>;

/// Where wakes from other threads find the shards of a runtime.
static HOMES: [Mutex<Option<Shards>>; RUNTIMES] = [const { Mutex::new(None) }; RUNTIMES];

/// The place of a runtime among those of this process; freed when dropped.
#[derive(Debug)]
pub(crate) struct Home(u16);

impl Home {
    pub(crate) fn take(shards: Shards) -> Result<Self, StartError> {
        for (number, home) in (0u16..).zip(&HOMES) {
            let mut home = home.lock().expect("no code runs under the lock");
            if home.is_none() {
                *home = Some(shards);
                return Ok(Self(number));
            }
        }
        let (name, value, rule) = ("runtimes", RUNTIMES as u64 + 1, "at most 1024 in one process");
        Err(StartError::Limit { name, value, rule })
    }

    pub(crate) const fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let shards = HOMES[usize::from(self.0)].lock().expect("no code runs under the lock").take();
        // After the lock: jobs that were never run go with them, and these may hold wakers.
        drop(shards);
    }
}

/// A task as a wake names it: the slot and the low bits of its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wake(u64);

impl Wake {
    pub(crate) fn of(generation: u32, slot: u32) -> Self {
        Self(u64::from(generation & GENERATION_MASK) << 32 | u64::from(slot))
    }

    pub(crate) fn slot(self) -> u32 {
        index_of(self.0)
    }

    /// Whether the wake is for this generation of its slot.
    pub(crate) fn is_for(self, generation: u32) -> bool {
        generation_of(self.0) == generation & GENERATION_MASK
    }
}

/// The waker that a poll of a task is lent; its clones are counted.
fn waker(runtime: u16, handle: u64) -> ManuallyDrop<Waker> {
    let generation = u64::from(generation_of(handle) & GENERATION_MASK);
    let word = u64::from(runtime) << 54
        | (shard_of(handle) as u64) << 46
        | generation << 32
        | u64::from(index_of(handle));
    let word = usize::try_from(word).expect("asserted above");
    // SAFETY: the contract of RawWaker: every function of the table is thread-safe and accepts any word,
    // for it reads no memory through it; clone gives a waker of the same word, drop has nothing to free.
    ManuallyDrop::new(unsafe { Waker::from_raw(raw(ptr::without_provenance(word))) })
}

const fn raw(word: *const ()) -> RawWaker {
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, release);
    RawWaker::new(word, &TABLE)
}

fn clone(word: *const ()) -> RawWaker {
    let (home, task) = read(word);
    let kept = on_own_shard(home, |own| own.count_wakers(task, 1));
    elsewhere(kept, home, |target| target.note_waker(task, 1));
    raw(word)
}

fn release(word: *const ()) {
    let (home, task) = read(word);
    let kept = on_own_shard(home, |own| own.count_wakers(task, -1));
    elsewhere(kept, home, |target| target.note_waker(task, -1));
}

/// Wakes, and is gone.
fn wake(word: *const ()) {
    let (home, task) = read(word);
    let woken = on_own_shard(home, |own| {
        own.count_wakers(task, -1);
        own.make_woken_ready(task);
    });
    elsewhere(woken, home, |target| target.post_wake(task, -1));
}

fn wake_by_ref(word: *const ()) {
    let (home, task) = read(word);
    let woken = on_own_shard(home, |own| own.make_woken_ready(task));
    elsewhere(woken, home, |target| target.post_wake(task, 0));
}

/// The runtime and the shard of a waker, and its task.
fn read(word: *const ()) -> ((usize, usize), Wake) {
    let word = word.addr() as u64;
    let wake = Wake(word & (u64::from(GENERATION_MASK) << 32 | u64::from(u32::MAX)));
    (((word >> 54) as usize, (word >> 46 & 0xff) as usize), wake)
}

/// Does it here when this is the thread of that shard.
fn on_own_shard((runtime, shard): (usize, usize), act: impl FnOnce(&Shard)) -> bool {
    let done = CURRENT.try_with(|current| {
        // A shard that is being taken off its thread is nobody's any more.
        let current = current.try_borrow().ok();
        let own = current.as_ref().and_then(|current| current.as_ref());
        own.filter(|own| own.is(runtime, shard)).map(|own| act(own))
    });
    matches!(done, Ok(Some(())))
}

/// Otherwise tells the shard, unless it has ended.
fn elsewhere(done: bool, (runtime, shard): (usize, usize), tell: impl FnOnce(&Shared)) {
    if done {
        return;
    }
    let shards = HOMES[runtime].lock().expect("no code runs under the lock").clone();
    let target = shards.as_ref().and_then(|shards| shards.get(shard));
    if let Some(target) = target.filter(|target| !target.ending.has_ended()) {
        tell(target);
    }
}

impl Shard {
    /// Queues the task that a wake is for.
    pub(crate) fn make_woken_ready(&self, wake: Wake) {
        let header = self.slab.header(wake.slot());
        if let Some(header) = header.filter(|header| wake.is_for(header.generation.get())) {
            self.make_ready(handle(self.index, header.generation.get(), wake.slot()));
        }
    }

    /// Whether this is that shard of that runtime.
    fn is(&self, runtime: usize, shard: usize) -> bool {
        (usize::from(self.runtime), self.index) == (runtime, shard)
    }

    /// The waker that a poll of an agent of this shard is lent.
    #[inline]
    pub(crate) fn waker(&self, me: u64) -> ManuallyDrop<Waker> {
        waker(self.runtime, me)
    }
}

/// Wakers of nobody's, whose clones and drops run what a test says.
#[cfg(test)]
pub(crate) mod foreign {
    use std::cell::RefCell;
    use std::ptr;
    use std::rc::Rc;
    use std::task::{RawWaker, RawWakerVTable, Waker};

    thread_local! {
        static HOOK: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
    }

    pub(crate) fn set_hook(hook: impl Fn() + 'static) {
        HOOK.set(Some(Rc::new(hook)));
    }

    fn run() {
        let hook = HOOK.with_borrow(Clone::clone);
        hook.into_iter().for_each(|hook| hook());
    }

    pub(crate) fn waker() -> Waker {
        // SAFETY: the contract of RawWaker: the functions read no memory through the word and may run on any
        // thread, which has a hook of its own.
        unsafe { Waker::from_raw(raw()) }
    }

    fn raw() -> RawWaker {
        static TABLE: RawWakerVTable = RawWakerVTable::new(
            |_| {
                run();
                raw()
            },
            |_| run(),
            |_| (),
            |_| run(),
        );
        RawWaker::new(ptr::null(), &TABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_is_for_its_slot_and_generation() {
        let wake = Wake(handle(0, 5, 9));
        assert_eq!(wake.slot(), 9);
        assert!(wake.is_for(5) && wake.is_for(5 + (1 << 14)) && !wake.is_for(6));
    }

    #[test]
    fn a_waker_of_a_runtime_that_is_gone_does_nothing() {
        let lent = waker(1_000, handle(3, 1, 2));
        let (one, other) = (Waker::clone(&lent), Waker::clone(&lent));
        assert!(one.will_wake(&other));
        one.wake();
        other.wake_by_ref();
    }
}
