//! Who allocates: a number per thread that every sample takes along. A runtime sets it once per turn of
//! an agent; any program can scope it.

use super::global::local;

/// Tags what this thread allocates from now on; returns the tag before. One store; 0 is nobody.
pub fn set(owner: u32) -> u32 {
    local(|local| local.thread.set_owner(owner))
}

/// Tags until the guard is dropped, which sets the tag before again.
#[must_use]
pub fn scope(owner: u32) -> Scope {
    Scope { before: set(owner), _thread: std::marker::PhantomData }
}

/// The end of a scope. It stays on its thread.
#[derive(Debug)]
pub struct Scope {
    before: u32,
    _thread: std::marker::PhantomData<*const ()>,
}

impl Drop for Scope {
    fn drop(&mut self) {
        set(self.before);
    }
}
