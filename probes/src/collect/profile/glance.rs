//! Where one thread is just now: a sampler that lives for a few milliseconds, so that a thread nobody asks for costs
//! nothing.

use std::time::Duration;

use perf_event2::events::Software;
use perf_event2::{Builder, Clock, SampleFlag, Sampler};

use super::super::perf::{ended, errno_of, explain, paranoid};
use super::sample::{self, BODY_MAX, Chain, Parsed};
use crate::Unavailable;

/// CPU time of the thread from the call to the sample, ns.
const PERIOD_NS: u64 = 200_000;
/// How long the sample is waited for: a thread that does not run has none.
const WAIT: Duration = Duration::from_millis(5);
/// Records looked at.
const RECORDS_MAX: u32 = 4;
/// Room of the ring: a few samples.
const RING_BYTES: usize = 8_192;

/// Where a thread was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// When, ns of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Addresses in the kernel, innermost first; empty in user space, and where the kernel is not ours to see.
    pub kernel: Vec<u64>,
    /// Addresses in user space, innermost first.
    pub user: Vec<u64>,
    /// There were more.
    pub cut: bool,
}

/// The call chain of a thread that runs: after 0.2 ms of its CPU time, waited for during 5 ms. Opens an event and
/// closes it, with its ring; interrupts the thread's core to start it.
///
/// # Errors
/// [`Unavailable`]: the thread has ended, or did not run, or the kernel refuses.
pub fn glance(thread: i32) -> Result<Glance, Unavailable> {
    // To the kernel 0 is the caller, and less is everybody.
    if thread <= 0 {
        return Err(ended(thread));
    }
    let mut sampler = open(thread)?;
    first(&mut sampler).ok_or_else(|| Unavailable {
        source: "perf sample",
        cause: format!(
            "the thread had less than {} ms of CPU time in 5 ms",
            PERIOD_NS as f64 / 1e6
        ),
        remedy: "see whether it is blocked, or others have its core: `tailbeam latency`".to_owned(),
    })
}

fn open(thread: i32) -> Result<Sampler, Unavailable> {
    let level = paranoid();
    let build = |kernel: bool| {
        let sampled = SampleFlag::IP | SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU;
        Builder::new(Software::CPU_CLOCK)
            .observe_pid(thread)
            .any_cpu()
            .exclude_kernel(!kernel)
            .exclude_callchain_kernel(!kernel)
            .sample_period(PERIOD_NS)
            .sample(sampled | SampleFlag::CALLCHAIN)
            .wakeup_events(1)
            .clockid(Clock::MONOTONIC)
            .build()
    };
    let opened = match build(true) {
        Err(error) if errno_of(&error) == libc::EACCES => build(false),
        other => other,
    };
    let refused = |error: std::io::Error| match errno_of(&error) {
        libc::ESRCH => ended(thread),
        errno => explain(errno, level),
    };
    let counter = opened.map_err(refused)?;
    let mut sampler = counter.sampled(RING_BYTES).map_err(|error| Unavailable {
        source: "perf ring",
        cause: format!("mmap of {RING_BYTES} bytes: {error}"),
        remedy: "sysctl -w kernel.perf_event_mlock_kb=8192".to_owned(),
    })?;
    sampler.enable().map_err(refused)?;
    Ok(sampler)
}

fn first(sampler: &mut Sampler) -> Option<Glance> {
    let mut chain = Chain::default();
    // Other records may come before it, each of which ends a wait.
    for _ in 0..RECORDS_MAX {
        let record = sampler.next_blocking(Some(WAIT))?;
        let mut body = [0u8; BODY_MAX];
        let length = sample::gather(record.data(), &mut body);
        if let Parsed::Sample { at_ns, .. } =
            sample::parse(record.ty(), &body[..length], &mut chain)
        {
            let (kernel, user) = (chain.kernel().to_vec(), chain.user().to_vec());
            return Some(Glance { at_ns, kernel, user, cut: chain.cut() });
        }
    }
    None
}
