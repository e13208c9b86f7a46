#![expect(unsafe_code, reason = "reads its own stack by frame pointers; asks libc for its bounds")]
//! Walks the stack by frame pointers: about 1 ns a frame, no lock, no allocation.
//!
//! Every word is read from between the stack pointer and the end of the thread's stack, which is
//! mapped whatever a frame pointer claims; a return address must lie in code. So garbage in a frame
//! pointer ends the walk and cannot fault.

use std::cell::Cell;

use super::eh_frame::{self, Step};
use super::site::Stack;
use crate::record::heap_layout::FRAMES_MAX;

/// Where a walk begins: the registers of the caller of the allocation function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Code address that the stack begins with; 0 for none: then the first return address does.
    pub ip: u64,
    /// Stack pointer: nothing below it is read.
    pub sp: u64,
    /// Frame pointer.
    pub fp: u64,
}

impl Registers {
    /// The registers of the function this is inlined into.
    #[inline(always)]
    #[must_use]
    pub fn here() -> Registers {
        let (sp, fp): (u64, u64);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: copies two registers, touches neither memory nor flags.
        unsafe {
            std::arch::asm!("mov {}, rsp", "mov {}, rbp", out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("mov {}, sp", "mov {}, x29", out(reg) sp, out(reg) fp,
                options(nomem, nostack, preserves_flags));
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            (sp, fp) = (0, 0);
        }
        Registers { ip: 0, sp, fp }
    }
}

/// Walks from `registers` up to the end of the stack at `top` by frame pointers, and where they break by
/// tables. `code` says whether an address lies in code that is known.
pub(super) fn walk(registers: &Registers, top: u64, code: impl Fn(u64) -> bool) -> Stack {
    let mut stack = Stack { frames: [0; FRAMES_MAX], len: 0, truncated: false };
    if registers.ip != 0 {
        stack.frames[0] = registers.ip;
        stack.len = 1;
    }
    let mut at = *registers;
    while stack.len < FRAMES_MAX {
        match frame(&at, top, &code) {
            Step::Caller(caller) => at = caller,
            Step::End => return stack,
            Step::Unknown if at.ip != 0 => return eh_frame::walk_on(stack, at, top, code),
            Step::Unknown => break,
        }
        stack.frames[stack.len] = at.ip;
        stack.len += 1;
    }
    stack.truncated = true;
    stack
}

/// Steps to the caller by the frame pointer.
pub(super) fn frame(at: &Registers, top: u64, code: &impl Fn(u64) -> bool) -> Step {
    let Registers { sp, fp, .. } = *at;
    if fp == 0 {
        return Step::End;
    }
    // A frame is two words, aligned, above the one before: so the walk ends.
    if fp < sp || fp % 8 != 0 || fp > top.saturating_sub(16) {
        return Step::Unknown;
    }
    let (next, back) = (word(fp), word(fp + 8));
    match back {
        0 => Step::End,
        _ if !code(back) => Step::Unknown,
        _ => Step::Caller(Registers { ip: back, sp: fp + 16, fp: next }),
    }
}

fn word(address: u64) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "it came from a pointer")]
    let address = address as usize;
    // SAFETY: frame lets through only aligned addresses between its own stack pointer and the end of
    // the thread's stack, which is mapped and readable. Volatile: other frames own these words.
    unsafe { std::ptr::with_exposed_provenance::<u64>(address).read_volatile() }
}

/// Core that runs the caller, or `u16::MAX` when the kernel does not say.
pub(super) fn core() -> u16 {
    // SAFETY: takes nothing; -1 when it fails (sched_getcpu(3)).
    u16::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(u16::MAX)
}

/// End of the calling thread's stack, and its start, kept in `cache`; (0, 0) when `sp` is not in it (a coroutine, an
/// alternate signal stack): then nothing is read.
pub(super) fn top(cache: &Cell<(u64, u64)>, sp: u64) -> u64 {
    if cache.get().1 == 0 {
        cache.set(bounds());
    }
    let (start, end) = cache.get();
    if (start..end).contains(&sp) { end } else { 0 }
}

/// Start and end of the stack. The start may lie below what is mapped today; only the range above the
/// stack pointer is read.
fn bounds() -> (u64, u64) {
    // SAFETY: both ask for ids and take nothing.
    let (thread, process) = (unsafe { libc::gettid() }, unsafe { libc::getpid() });
    if thread == process {
        // The main thread: the kernel put the program's name at the very end of its stack. glibc's
        // pthread_getattr_np would read /proc/self/maps through malloc.
        // SAFETY: reads the auxiliary vector.
        let name = unsafe { libc::getauxval(libc::AT_EXECFN) };
        return (1, name & !15);
    }
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: takes nothing, cannot fail.
    let own = unsafe { libc::pthread_self() };
    // SAFETY: the thread runs; the attributes are initialised when it returns 0
    // (pthread_getattr_np(3)).
    if unsafe { libc::pthread_getattr_np(own, attributes.as_mut_ptr()) } != 0 {
        return (1, 1);
    }
    let (mut start, mut bytes) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are initialised, both results are ours.
    unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes) };
    // SAFETY: initialised above, destroyed once.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (start.addr() as u64, (start.addr() + bytes) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deep(left: u32) -> usize {
        if left > 0 {
            return std::hint::black_box(deep(left - 1) + 1) - 1;
        }
        let registers = Registers::here();
        walk(&registers, top(&Cell::new((0, 0)), registers.sp), |_| true).len
    }

    #[test]
    fn a_deeper_stack_has_as_many_frames_more() {
        assert_eq!(deep(20) - deep(5), 15);
        assert_eq!(deep(200), FRAMES_MAX, "bounded");
    }

    #[test]
    fn garbage_frame_pointers_end_the_walk() {
        let here = Registers::here();
        let end = top(&Cell::new((0, 0)), here.sp);
        assert!(end > here.sp);
        for fp in [1, 8, here.sp + 1, here.sp - 64, end - 8, end, u64::MAX - 7, 0xdead_beef_0000] {
            let stack = walk(&Registers { ip: 77, fp, ..here }, end, |_| true);
            assert_eq!((stack.len, stack.truncated), (1, true), "{fp:x}");
        }
        // A chain of garbage inside the stack: reads it, and stops at what is no code.
        let garbage = [u64::MAX, 0x1234];
        let fp = garbage.as_ptr().expose_provenance() as u64;
        let stack = walk(&Registers { ip: 0, fp, ..here }, end, |at| at > 1 << 30);
        assert_eq!((stack.len, stack.truncated), (0, true));
    }

    #[test]
    fn a_stack_that_is_not_the_threads_own_is_not_read() {
        assert_eq!(top(&Cell::new((4096, 8192)), 10_000), 0);
    }
}
