//! What users' code panics with. A payload is a value of any type, and its drop is user code too: it may panic
//! in its turn, past the `catch_unwind` that has caught the first.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of a user's; none when it has panicked.
#[inline]
pub(crate) fn contain<R>(run: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(run)).map_err(drop_payload).ok()
}

/// Drops a value of a user's; whether that did not panic.
#[inline]
pub(crate) fn drop_contained<T>(value: T) -> bool {
    contain(move || drop(value)).is_some()
}

/// Drops what a panic has left. What that panics with is never dropped, and counted.
#[cold]
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
        crate::shard::with_current(|shard| shard.stats.borrow_mut().payloads_forgotten += 1);
    }
}
