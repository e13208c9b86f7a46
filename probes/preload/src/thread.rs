#![expect(unsafe_code, reason = "a thread-local symbol with the initial-exec model")]
//! State of a thread, 128 bytes at a fixed distance from the thread pointer.
//!
//! `thread_local!` in a shared object calls `__tls_get_addr` on x86-64, 1.2 ns per access, which may
//! itself allocate. Here the symbol lies in `.tbss` and is found through `@GOTTPOFF`: one load. That
//! needs room in the static TLS block, which an object preloaded at start always has. Elsewhere the
//! const `thread_local!` without destructor does the same through a TLS descriptor.

use core::ffi::c_void;

use tailbeam_probes::collect::heap::collector::Thread as State;

/// What a thread carries. All zero at its start.
#[repr(C, align(64))]
pub(crate) struct Thread {
    /// Bytes until the next sample. Zero means: not drawn yet, or every block (exact mode).
    pub(crate) left: u64,
    /// Bytes of the drawn distance beyond `left`.
    pub(crate) rest: u64,
    /// Mean of the distance that is running; zero before the first draw.
    pub(crate) mean: f32,
    /// Mean of the distance that ended last.
    pub(crate) met: f32,
    /// The collector's own.
    pub(crate) state: State,
    /// This thread is inside a slow path: what it allocates now is not sampled.
    pub(crate) inside: bool,
    /// This thread forks and keeps the collector's lock meanwhile.
    forking: bool,
}

/// Notes whether the calling thread keeps the collector's lock for a fork; what it was before.
pub(crate) fn set_forking(forking: bool) -> bool {
    // SAFETY: the calling thread's own state; no reference to it is alive.
    let noted = unsafe { &mut (*current()).forking };
    core::mem::replace(noted, forking)
}

const _: () = assert!(size_of::<Thread>() == 128, "the asm below reserves 128 bytes");

/// State of the calling thread.
#[cfg(target_arch = "x86_64")]
pub(crate) fn current() -> *mut Thread {
    let thread: *mut c_void;
    // SAFETY: fs:0 holds the thread pointer itself (x86-64 psABI, TLS variant II), and the GOT entry
    // holds the symbol's offset from it, which the loader filled in before any of our code ran.
    unsafe {
        core::arch::asm!(
            "mov {thread}, fs:0",
            "add {thread}, qword ptr [rip + tailbeam_preload_thread@GOTTPOFF]",
            thread = out(reg) thread,
            options(nostack, pure, readonly),
        );
    }
    thread.cast()
}

#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".pushsection .tbss.tailbeam_preload_thread,\"awT\",@nobits",
    ".globl tailbeam_preload_thread",
    ".hidden tailbeam_preload_thread",
    ".type tailbeam_preload_thread,@object",
    ".size tailbeam_preload_thread,128",
    ".balign 64",
    "tailbeam_preload_thread:",
    ".zero 128",
    ".popsection",
);

#[cfg(not(target_arch = "x86_64"))]
const FRESH: Thread = Thread {
    left: 0,
    rest: 0,
    mean: 0.0,
    met: 0.0,
    state: State::new(),
    inside: false,
    forking: false,
};

/// State of the calling thread.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn current() -> *mut Thread {
    use core::cell::UnsafeCell;
    thread_local! {
        static THREAD: UnsafeCell<Thread> =
            const { UnsafeCell::new(FRESH) };
    }
    let thread: *mut Thread = THREAD.with(UnsafeCell::get);
    let _: *mut c_void = thread.cast();
    thread
}
