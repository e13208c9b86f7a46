#![expect(unsafe_code, reason = "sched_getaffinity of libc")]
//! Pinning, and the proof that it took.

use crate::config::Cores;
use crate::error::StartError;

/// CPUs of the calling thread's affinity mask.
pub(crate) fn allowed() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sched_getaffinity(2) writes at most the given size into a live cpu_set_t; 0 is this thread.
    let failed = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if failed != 0 {
        return Vec::new();
    }
    let bits = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: CPU_ISSET reads within the set for numbers below its bit count.
    (0..bits).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Id of the calling thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid(2) has no arguments and cannot fail.
    unsafe { libc::gettid() }
}

/// The cores a config asks for, checked against the mask.
pub(crate) fn resolve(cores: &Cores) -> Result<Vec<usize>, StartError> {
    let allowed = allowed();
    let wanted = match cores {
        Cores::Auto => allowed.clone(),
        Cores::List(list) => list.clone(),
    };
    let refuse = |cause| Err(StartError::CoreList { cores: wanted.clone(), cause });
    let mut sorted = wanted.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != wanted.len() {
        return refuse("a core is named twice");
    }
    if wanted.is_empty() {
        return refuse("no core is left");
    }
    if wanted.len() > 255 {
        return refuse("a handle has 8 bits for the core");
    }
    match wanted.iter().find(|core| !allowed.contains(core)) {
        Some(&core) => Err(StartError::CoreNotAllowed { core, allowed }),
        None => Ok(wanted),
    }
}

/// Pins this thread and reads the mask back.
pub(crate) fn pin(core: usize) -> Result<(), StartError> {
    let set = core_affinity::set_for_current(core_affinity::CoreId { id: core });
    let found = allowed();
    if set && found == [core] { Ok(()) } else { Err(StartError::NotPinned { core, found }) }
}
