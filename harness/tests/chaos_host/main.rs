//! Faults on a real host: each bites, by the kernel's own counter, heals, and leaves nothing, also when its
//! supervisor is killed in the middle. As root; what a host cannot is said on stderr, and only that is left out.
#![expect(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "a test")]

mod bites;
mod children;
mod guarded;
mod proxy;
mod support;
mod unprivileged;
