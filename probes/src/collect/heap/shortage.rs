#![expect(
    unsafe_code,
    reason = "a block is asked for that may be refused; operations are repeated"
)]
//! Short of memory on purpose: in a scope of its thread one allocation in so many is refused, as if there were no memory,
//! to see what a program makes of it; and a box that is asked for in a way that may be refused.
//!
//! A thread in a scope counts in nobody's words (`hook.rs`), where every operation goes the slow way; that one looks
//! whether there is a scope, refuses or leaves the scope, does the operation as always, and enters it again. So the fast
//! paths know nothing of it, and a thread without a scope pays one load where it goes the slow way anyway.
//!
//! ```
//! use tailbeam_probes::collect::heap::{TailbeamAlloc, shortage};
//! #[global_allocator]
//! static ALLOCATOR: TailbeamAlloc = TailbeamAlloc;
//!
//! let short = shortage::scope(2);
//! let made = [1, 2, 3, 4].map(|n| shortage::try_box(|| n).is_some());
//! assert_eq!((made, short.refused()), ([true, false, true, false], 2));
//! ```
//! In a scope only what can be refused is to be asked for: whoever cannot is ended by `handle_alloc_error`. With another
//! allocator a scope does nothing.

use std::alloc::{Layout, alloc};
use std::cell::Cell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{NonNull, null_mut};

use super::cells::Local;
use super::global::{local, what};
use super::hook;

/// A box of what `make` makes; none, and nothing is made, when there is no memory for it.
pub fn try_box<T>(make: impl FnOnce() -> T) -> Option<Box<T>> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Some(Box::new(make()));
    }
    // SAFETY: the layout has a size.
    let block = NonNull::new(unsafe { alloc(layout) })?.cast::<MaybeUninit<T>>();
    // SAFETY: a block of the global allocator with the layout of `T`, which nobody else has; it may be uninitialised.
    let place = unsafe { Box::from_raw(block.as_ptr()) };
    Some(Box::write(place, make()))
}

/// What a thread keeps of its scope.
pub(super) struct Shortage {
    /// One allocation in so many is refused; 0: no scope.
    every: Cell<u32>,
    /// Allocations since the last that was refused, in all scopes of the thread.
    asked: Cell<u32>,
    refused: Cell<u64>,
}

impl Shortage {
    pub(super) const fn new() -> Self {
        Self { every: Cell::new(0), asked: Cell::new(0), refused: Cell::new(0) }
    }

    /// Whether the thread is in a scope.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.every.get() != 0
    }

    /// Counts an allocation; whether it is refused.
    fn refuses(&self) -> bool {
        let asked = self.asked.get() + 1;
        let refuses = asked >= self.every.get();
        self.asked.set(if refuses { 0 } else { asked });
        self.refused.set(self.refused.get() + u64::from(refuses));
        refuses
    }
}

/// Enters or leaves a scope; returns what was before.
fn enter(local: &Local, every: u32) -> u32 {
    hook::count_in(if every == 0 { local.fast() } else { hook::nobodys() });
    local.shortage.every.replace(every)
}

/// Refuses one allocation of this thread in `every` until the guard is dropped; 0 refuses none.
#[must_use]
pub fn scope(every: u32) -> Scope {
    let (before, refused) = local(|local| (enter(local, every), local.shortage.refused.get()));
    Scope { before, refused, _thread: PhantomData }
}

/// The end of a scope. It stays on its thread.
#[derive(Debug)]
pub struct Scope {
    before: u32,
    refused: u64,
    _thread: PhantomData<*const ()>,
}

impl Scope {
    /// How many allocations were refused in it so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        local(|local| local.shortage.refused.get()) - self.refused
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        local(|local| enter(local, self.before));
    }
}

/// An operation of a thread in a scope, which came here because it counts in nobody's words: refused, or done as outside.
///
/// # Safety
/// As `global::slow`.
#[cold]
#[inline(never)]
pub(super) unsafe fn go_on<const BY_CLASS: bool>(
    what: usize,
    block: *mut u8,
    (old, align): (usize, usize),
    size: usize,
) -> *mut u8 {
    let fresh = matches!(what, what::ALLOC | what::ZEROED);
    if fresh {
        super::cells::nobody_again::<BY_CLASS>(size);
    }
    let asks = fresh || (what == what::RECORDED && size > old);
    if asks && local(|local| local.shortage.refuses()) {
        return null_mut();
    }
    let every = local(|local| enter(local, 0));
    let done = match what {
        what::ALLOC => hook::alloc::<BY_CLASS>(size, align),
        what::ZEROED => hook::zeroed::<BY_CLASS>(size, align),
        what::FREE => {
            // SAFETY: the caller's.
            unsafe { hook::free::<BY_CLASS>(block, old) };
            block
        }
        // SAFETY: the caller's: it is a reallocation, of which nothing was done yet.
        _ => unsafe { hook::realloc::<BY_CLASS>(block, (old, align), size) },
    };
    local(|local| enter(local, every));
    done
}
