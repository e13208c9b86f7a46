#![allow(unsafe_code, reason = "a loop of exactly two instructions")]
//! Work whose instructions are known.

/// Two instructions, `rounds` times; `rounds` is at least 1.
#[inline(never)]
pub(crate) fn two_instructions(rounds: u64) {
    assert!(rounds > 0, "the loop counts down to zero");
    // SAFETY: counts a register down; touches no memory and no stack, and says that it changes flags.
    unsafe {
        std::arch::asm!("2:", "subs {0}, {0}, #1", "b.ne 2b", inout(reg) rounds => _, options(nomem, nostack));
    }
}
