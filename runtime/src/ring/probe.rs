//! What this kernel's io_uring can do, and what its refusals mean.

use std::fs;
use std::io;

use io_uring::{IoUring, Probe, opcode};

use crate::error::StartError;
use crate::op::Abilities;

/// Features of this kernel's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent feature of the kernel")]
pub struct RingFeatures {
    /// SINGLE_ISSUER (6.0): a ring belongs to one thread.
    pub single_issuer: bool,
    /// DEFER_TASKRUN (6.1): completions are made when the owner asks.
    pub defer_taskrun: bool,
    /// MSG_RING (5.18): the doorbell between shards.
    pub msg_ring: bool,
    /// EXT_ARG (5.11): waits with a deadline.
    pub ext_arg: bool,
    /// Accepts that stand for many connections (5.19).
    pub multishot_accept: bool,
    /// Receives that stand for all data, into a ring of buffers (6.0); otherwise each is asked for.
    pub multishot_recv: bool,
    /// SEND_ZC (6.0): sends without a copy.
    pub send_zc: bool,
    /// NO_IOWAIT (6.15): a waiting ring does not count as I/O wait.
    pub no_iowait: bool,
}

/// Asks the kernel by making small rings.
///
/// # Errors
/// [`StartError`] when no ring can be made at all.
pub fn probe() -> Result<RingFeatures, StartError> {
    let plain = IoUring::new(8).map_err(|error| explain(error, 8))?;
    let mut operations = Probe::new();
    let builder = IoUring::<io_uring::squeue::Entry, io_uring::cqueue::Entry>::builder;
    let registered = plain.submitter().register_probe(&mut operations).is_ok();
    let abilities = abilities(&plain);
    Ok(RingFeatures {
        multishot_accept: abilities.multishot_accept,
        multishot_recv: abilities.multishot_recv,
        send_zc: abilities.send_zc,
        single_issuer: builder().setup_single_issuer().build(8).is_ok(),
        defer_taskrun: builder().setup_single_issuer().setup_defer_taskrun().build(8).is_ok(),
        msg_ring: registered && operations.is_supported(opcode::MsgRingData::CODE),
        ext_arg: plain.params().is_feature_ext_arg(),
        no_iowait: plain.params().is_feature_no_iowait(),
    })
}

/// What operations a ring can be asked for. Flags of operations cannot be probed: each is told by the
/// operation that came with the same kernel (socket with 5.19, send_zc with 6.0).
pub(crate) fn abilities(uring: &IoUring) -> Abilities {
    let mut operations = Probe::new();
    if uring.submitter().register_probe(&mut operations).is_err() {
        return Abilities::default();
    }
    let send_zc = operations.is_supported(opcode::SendZc::CODE);
    Abilities {
        multishot_accept: operations.is_supported(opcode::Socket::CODE),
        multishot_recv: send_zc,
        send_zc,
    }
}

/// Turns the kernel's refusal into cause and remedy.
pub(crate) fn explain(error: io::Error, entries: u32) -> StartError {
    let disabled = || fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    explain_with(error, entries, disabled().trim())
}

fn explain_with(error: io::Error, entries: u32, disabled: &str) -> StartError {
    match error.raw_os_error() {
        Some(libc::EPERM) if disabled != "0" && !disabled.is_empty() => {
            StartError::Disabled { value: disabled.to_owned() }
        }
        Some(libc::EPERM | libc::EACCES) => StartError::Refused,
        Some(libc::ENOSYS) => StartError::Missing,
        Some(libc::ENOMEM) => StartError::Memlock { entries },
        Some(libc::EMFILE | libc::ENFILE) => StartError::Files,
        Some(libc::EINVAL) => StartError::TooOld { feature: "the setup flags of a plain ring" },
        _ => StartError::Kernel { action: "set up an io_uring", source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_cause_and_remedy() {
        let texts = [
            (libc::EPERM, "2", "io_uring_disabled"),
            (libc::EPERM, "0", "seccomp"),
            (libc::ENOSYS, "", "6.1"),
            (libc::ENOMEM, "0", "ulimit -l"),
            (libc::EMFILE, "0", "ulimit -n"),
            (libc::EINVAL, "0", "6.1"),
            (libc::EIO, "0", "doctor"),
        ];
        for (errno, sysctl, expected) in texts {
            let text = explain_with(io::Error::from_raw_os_error(errno), 64, sysctl).to_string();
            assert!(text.contains(expected) && text.contains("remedy:"), "{errno}: {text}");
        }
    }
}
