#![expect(unsafe_code, reason = "gettid, tgkill and pthread_atfork")]
//! Threads by their kernel ids.

/// Id of the calling thread.
pub(super) fn id() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    unsafe { libc::gettid() }
}

/// Whether no thread of this process has the id any more.
pub(super) fn gone(thread: i32) -> bool {
    // SAFETY: takes nothing, cannot fail.
    let process = unsafe { libc::getpid() };
    // SAFETY: signal 0 is never sent, only looked up (tgkill(2)).
    let rc = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
    rc == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH)
}

/// Calls `child` in the child of every later `fork`, before `fork` returns there.
pub(super) fn after_fork(child: extern "C" fn()) {
    // SAFETY: the handler is a function that lives as long as the program (pthread_atfork(3)).
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joined_thread_is_gone_and_a_running_one_is_not() {
        assert!(!gone(id()));
        let other = std::thread::spawn(id).join().expect("no panic");
        // The kernel wakes the joiner a moment before the id is free.
        assert!((0..1_000_000).any(|_| gone(other)));
    }
}
