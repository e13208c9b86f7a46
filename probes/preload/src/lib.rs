//! The shared object that `tailbeam record --heap` puts into `LD_PRELOAD`: it samples the heap of any
//! dynamically linked program and leaves every block with the program's own allocator.
//!
//! `malloc` subtracts the size from a countdown of its thread and jumps on; `free` tests the low bits of
//! the address and jumps on. Only what the countdown picks, and only addresses that a picked block can
//! have, take the slow path (see `hook`). Reading order: `entry` (what a program calls), `hook` (slow
//! paths), `real` (the allocator behind us), `map` (address to slot), `thread`, `start` (configuration,
//! state file, fork).
//!
//! Why a package of its own: an `rlib` that exports `malloc` hooks every program it is linked into, by
//! feature unification even those that never asked. Nothing depends on this package.
//!
//! It refuses quietly: a program under test is never crashed, never printed over and never changed. When
//! it cannot work, it leaves a file that says why beside the state file, and stays out of the way.
#![warn(missing_docs)]

mod entry;
mod hook;
mod map;
mod pool;
mod real;
mod sink;
mod start;
mod thread;
