//! A CPU profile of a process that knows nothing of us: samples by its threads' own CPU time, with the
//! call chain that the kernel walks by frame pointers.
//!
//! A thread that does not run is not sampled, so 99 Hz of ten idle threads cost nothing; a sample costs
//! about 15 us in this VM and a few on bare metal. 99 and not 100, so that samples do not beat with
//! timers of whole milliseconds. Each thread has a ring of its own, as the kernel maps no inherited
//! event; new threads are found by [`Profiler::rescan`], and what no ring saw is counted.

mod glance;
mod records;
mod sample;
mod tree;

pub use glance::{Glance, glance};
pub use records::{Event, Told};
pub use sample::{CHAIN_MAX, Chain, Sample};
pub(in crate::collect) use tree::online;
pub use tree::{TreeOptions, TreeProfiler};

use std::fs;

use perf_event2::events::Software;
use perf_event2::{Builder, Clock, SampleFlag, Sampler};

use super::perf::{ended, errno_of, explain, paranoid};
use crate::Unavailable;
use sample::{BODY_MAX, Parsed};

/// How to profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileOptions {
    /// Samples per second of CPU time of a thread.
    pub hz: u64,
    /// Room of each thread's ring, rounded up to a power of two of pages.
    pub ring_bytes: usize,
    /// Threads that may be profiled at once.
    pub threads_max: usize,
}

impl Default for ProfileOptions {
    fn default() -> Self {
        // 16 KiB hold a second at 99 Hz with chains of 16; 512 rings of it are 10 MiB with their pages.
        Self { hz: 99, ring_bytes: 16_384, threads_max: 512 }
    }
}

struct Thread {
    id: i32,
    sampler: Sampler,
    alive: bool,
}

/// Profiles all threads of one process.
pub struct Profiler {
    process: u32,
    options: ProfileOptions,
    kernel: bool,
    level: Option<i32>,
    threads: Vec<Thread>,
}

impl std::fmt::Debug for Profiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let threads = self.threads.len();
        f.debug_struct("Profiler")
            .field("process", &self.process)
            .field("threads", &threads)
            .finish()
    }
}

/// What a look at the process' threads found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Threads that are now profiled and were not.
    pub opened: usize,
    /// Threads that ended; their rings are drained once more and then closed.
    pub ended: usize,
    /// Threads that live and are not profiled.
    pub unprofiled: usize,
    /// Why, of the last of them.
    pub refused: Option<Unavailable>,
}

/// What a drain found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProfileDrained {
    /// Samples given.
    pub samples: u64,
    /// Samples and other records for which a ring had no room.
    pub lost: u64,
    /// Times that the kernel stopped sampling for a tick, as it cost too much.
    pub throttled: u64,
    /// Records that are not as the kernel documents them.
    pub broken: u64,
    /// Chains that were longer than [`CHAIN_MAX`] and are cut.
    pub cut: u64,
}

impl Profiler {
    /// Opens a ring for each thread of `process`, with the kernel's side where it may be seen.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no such process, or not one of its threads may be profiled.
    pub fn open(process: u32, options: ProfileOptions) -> Result<Self, Unavailable> {
        let level = paranoid();
        let mut profiler = Self { process, options, kernel: true, level, threads: Vec::new() };
        let scan = profiler.rescan()?;
        match scan.refused {
            Some(why) if profiler.threads.is_empty() => Err(why),
            _ => Ok(profiler),
        }
    }

    /// Whether samples show the kernel's side.
    #[must_use]
    pub const fn kernel(&self) -> bool {
        self.kernel
    }

    /// Opens rings for new threads. Reads a directory; once a second is enough.
    ///
    /// # Errors
    /// [`Unavailable`] when the process has ended.
    pub fn rescan(&mut self) -> Result<Scan, Unavailable> {
        let path = format!("/proc/{}/task", self.process);
        let entries = fs::read_dir(&path).map_err(|error| Unavailable {
            source: "/proc/PID/task",
            cause: format!("{path}: {error}"),
            remedy: "name a process that lives".to_owned(),
        })?;
        let now: Vec<i32> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        let mut scan = Scan::default();
        for thread in &mut self.threads {
            if thread.alive && !now.contains(&thread.id) {
                thread.alive = false;
                scan.ended += 1;
            }
        }
        for id in now {
            if self.threads.iter().any(|thread| thread.id == id) {
                continue;
            }
            match self.open_thread(id) {
                Ok(sampler) => {
                    self.threads.push(Thread { id, sampler, alive: true });
                    scan.opened += 1;
                }
                Err(why) => {
                    scan.unprofiled += 1;
                    scan.refused = Some(why);
                }
            }
        }
        Ok(scan)
    }

    fn open_thread(&mut self, id: i32) -> Result<Sampler, Unavailable> {
        if self.threads.len() >= self.options.threads_max {
            return Err(Unavailable {
                source: "profile",
                cause: format!("{} threads are profiled already", self.options.threads_max),
                remedy: "raise threads_max".to_owned(),
            });
        }
        let open = |kernel: bool| {
            let mut builder = Builder::new(Software::CPU_CLOCK);
            let sampled = SampleFlag::IP | SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU;
            builder
                .observe_pid(id)
                .any_cpu()
                .exclude_kernel(!kernel)
                .exclude_callchain_kernel(!kernel)
                .sample_frequency(self.options.hz)
                .sample(sampled | SampleFlag::CALLCHAIN)
                .clockid(Clock::MONOTONIC);
            builder.build()
        };
        let opened = match open(self.kernel) {
            Err(error) if self.kernel && errno_of(&error) == libc::EACCES => {
                self.kernel = false;
                open(false)
            }
            other => other,
        };
        let refused = |error: std::io::Error| match errno_of(&error) {
            libc::ESRCH => ended(id),
            errno => explain(errno, self.level),
        };
        let counter = opened.map_err(refused)?;
        let bytes = self.options.ring_bytes;
        let mut sampler = counter.sampled(bytes).map_err(|error| Unavailable {
            source: "perf ring",
            cause: format!("mmap of {bytes} bytes: {error}"),
            remedy: "sysctl -w kernel.perf_event_mlock_kb=8192, or smaller rings".to_owned(),
        })?;
        sampler.enable().map_err(refused)?;
        Ok(sampler)
    }

    /// Gives every sample since the last drain, thread by thread, and closes the rings of threads that
    /// have ended. Allocates nothing.
    pub fn drain(&mut self, mut each: impl FnMut(&Sample<'_>)) -> ProfileDrained {
        let mut drained = ProfileDrained::default();
        let mut chain = Chain::default();
        for thread in &mut self.threads {
            // At most what the ring can hold: a thread that fills it as we read must not keep us.
            let records_max = self.options.ring_bytes.max(4_096) / 8;
            for _ in 0..records_max {
                let Some(record) = thread.sampler.next_record() else { break };
                let mut body = [0u8; BODY_MAX];
                let length = sample::gather(record.data(), &mut body);
                let parsed = sample::parse(record.ty(), &body[..length], &mut chain);
                drop(record);
                match parsed {
                    Parsed::Sample { thread, at_ns, cpu, .. } => {
                        drained.samples += 1;
                        drained.cut += u64::from(chain.cut());
                        each(&Sample { thread, at_ns, cpu, chain: &chain });
                    }
                    Parsed::Lost(count) => drained.lost = drained.lost.saturating_add(count),
                    Parsed::Throttled => drained.throttled += 1,
                    Parsed::Other => {}
                    Parsed::Broken => drained.broken += 1,
                }
            }
        }
        self.threads.retain(|thread| thread.alive);
        drained
    }
}
