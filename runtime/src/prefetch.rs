#![expect(unsafe_code, reason = "the prefetch instruction")]
//! Asks the CPU for memory that will be needed soon.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Starts to load the first `lines` cache lines of what `place` points to; no more than a hint.
#[inline]
pub(crate) fn prefetch<T: ?Sized>(place: *const T, lines: usize) {
    let first = place.cast::<i8>();
    for line in 0..lines {
        let at = first.wrapping_add(line * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: PREFETCHT0 accepts any address and never faults (Intel SDM vol. 2B).
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at);
        }
        // Elsewhere there is no stable intrinsic: the load comes when it is needed.
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
    }
}

/// Starts to load a cache line that will be written.
#[inline]
pub(crate) fn prefetch_write<T>(place: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: PREFETCHW accepts any address and never faults (Intel SDM vol. 2B).
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(place.cast::<i8>());
    }
    // Elsewhere there is no stable intrinsic: the load comes when it is needed.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
