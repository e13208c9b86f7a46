//! Samples of a program and of all that it starts, threads and processes, from their first instruction.
//!
//! The kernel maps no ring for an event that is inherited and follows its thread over all CPUs, but it
//! does for one of a thread on one CPU. So there is an event and a ring per CPU: what the program starts
//! inherits the events and writes into the same rings. Nothing is missed between two looks, and no look
//! is needed. The price is one descriptor per thread and CPU for a program that runs already, and none
//! for one that we start: it inherits from the thread that starts it, and counts from execve(2) on.
//!
//! An event of a thread on a CPU samples after each whole period of the thread's time there: a thread
//! that ends before its first period (10 ms at 99 Hz) has no sample. The report compares the samples with
//! the CPU time, and says so.

use std::fs;

use perf_event2::events::Software;
use perf_event2::{Builder, Clock, Counter, SampleFlag, Sampler};

use super::ProfileDrained;
use super::records::{self, Event, RECORD_MAX, Read};
use super::sample::{Chain, Parsed};
use crate::Unavailable;
use crate::collect::perf::{ended, errno_of, explain, paranoid};
use crate::collect::sys;

/// How to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeOptions {
    /// Samples per second of CPU time of a thread; 0 for none, only the other records.
    pub hz: u64,
    /// Record each switch, about 1 us each.
    pub switches: bool,
    /// Room of each CPU's ring; halved as often as the kernel has not so much to give.
    pub ring_bytes: usize,
    /// Descriptors that an attached program may take.
    pub descriptors_max: usize,
}

impl Default for TreeOptions {
    fn default() -> Self {
        // The kernel allows a user 516 KiB per CPU: two recorders have room.
        Self { hz: 99, switches: false, ring_bytes: 256 << 10, descriptors_max: 4_096 }
    }
}

/// Of whom events are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// The calling thread's children to be, from their execve(2) on.
    Children,
    /// A thread that runs, from now on.
    Thread(i32),
}

/// The events and rings.
pub struct TreeProfiler {
    options: TreeOptions,
    kernel: bool,
    build_ids: bool,
    rings: Vec<(u32, Sampler)>,
    /// Events of further threads, which write into the rings.
    others: Vec<Counter>,
    chain: Chain,
    pending: Vec<Event>,
}

impl std::fmt::Debug for TreeProfiler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeProfiler")
            .field("rings", &self.rings.len())
            .field("others", &self.others.len())
            .finish_non_exhaustive()
    }
}

impl TreeProfiler {
    /// For a program that the calling thread will start, and for no other thread's children. What this
    /// thread itself does is not recorded.
    ///
    /// # Errors
    /// [`Unavailable`] when perf is refused.
    pub fn launching(options: TreeOptions) -> Result<Self, Unavailable> {
        Self::open(options, Of::Children)
    }

    /// For a program that runs, by one of its threads; [`adopt`](Self::adopt) the others.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no such thread, it is another user's, or perf is refused.
    pub fn attach(thread: u32, options: TreeOptions) -> Result<Self, Unavailable> {
        Self::open(options, Of::Thread(thread.cast_signed()))
    }

    fn open(options: TreeOptions, of: Of) -> Result<Self, Unavailable> {
        let mut tree = Self {
            options,
            kernel: true,
            build_ids: true,
            rings: Vec::new(),
            others: Vec::new(),
            chain: Chain::default(),
            pending: Vec::new(),
        };
        for cpu in online() {
            let counter = tree.counter(of, cpu)?;
            let sampler = tree.ring(counter, of, cpu)?;
            tree.rings.push((cpu, sampler));
        }
        for (_, ring) in tree.rings.iter_mut().filter(|_| of != Of::Children) {
            ring.enable().map_err(|error| explain(errno_of(&error), paranoid()))?;
        }
        Ok(tree)
    }

    /// Whether samples show the kernel's side.
    #[must_use]
    pub const fn kernel(&self) -> bool {
        self.kernel
    }

    /// CPU time between two samples of a thread, ns; 0 when nothing is sampled.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        1_000_000_000u64.checked_div(self.options.hz).unwrap_or(0)
    }

    /// Bytes of all rings.
    #[must_use]
    pub const fn ring_bytes(&self) -> usize {
        self.options.ring_bytes * self.rings.len()
    }

    /// Records another thread that runs already, and what it will start.
    ///
    /// # Errors
    /// [`Unavailable`] when it has ended, is refused, or no descriptor is left for it.
    pub fn adopt(&mut self, thread: u32) -> Result<(), Unavailable> {
        if self.others.len() + self.rings.len() > self.options.descriptors_max {
            return Err(Unavailable {
                source: "perf_event_open",
                cause: format!("{} descriptors are in use", self.options.descriptors_max),
                remedy: "raise ulimit -n, or start the program under record".to_owned(),
            });
        }
        let mut opened = Vec::with_capacity(self.rings.len());
        for cpu in self.rings.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>() {
            opened.push(self.counter(Of::Thread(thread.cast_signed()), cpu)?);
        }
        for (counter, (_, ring)) in opened.iter_mut().zip(&self.rings) {
            let refused = |errno: i32| explain(errno, paranoid());
            sys::set_output(&*counter, ring.as_counter())
                .map_err(|errno| refused(errno.raw_os_error()))?;
            counter.enable().map_err(|error| refused(errno_of(&error)))?;
        }
        self.others.append(&mut opened);
        Ok(())
    }

    /// The event of a thread on a CPU, with as much as the kernel lets us see.
    fn counter(&mut self, of: Of, cpu: u32) -> Result<Counter, Unavailable> {
        let level = paranoid();
        for _ in 0..3 {
            match builder(&self.options, of, cpu, (self.kernel, self.build_ids)).build() {
                Ok(counter) => return Ok(counter),
                Err(error) => match (errno_of(&error), of) {
                    (libc::ESRCH, Of::Thread(thread)) => return Err(ended(thread)),
                    (libc::EACCES | libc::EPERM, _) if self.kernel => self.kernel = false,
                    // Linux before 5.12 knows no build-ids in records.
                    (libc::EINVAL | libc::E2BIG, _) if self.build_ids => self.build_ids = false,
                    (0, _) if self.build_ids => self.build_ids = false,
                    (errno, _) => return Err(explain(errno, level)),
                },
            }
        }
        Err(explain(libc::EINVAL, level))
    }

    fn ring(&mut self, counter: Counter, of: Of, cpu: u32) -> Result<Sampler, Unavailable> {
        let mut counter = counter;
        loop {
            let bytes = self.options.ring_bytes;
            match counter.sampled(bytes) {
                Ok(ring) => return Ok(ring),
                Err(error) if bytes <= 8_192 => {
                    return Err(Unavailable {
                        source: "perf ring",
                        cause: format!("mmap of {bytes} bytes: {error}"),
                        remedy: "sysctl -w kernel.perf_event_mlock_kb=2048, or ulimit -l unlimited"
                            .to_owned(),
                    });
                }
                Err(_) => self.options.ring_bytes = bytes / 2,
            }
            counter = self.counter(of, cpu)?;
        }
    }

    /// Gives every record from before `until_ns` that was not given yet, in order of time over all CPUs.
    /// Say an instant a little before now: what happens on another CPU just now is not in its ring yet.
    pub fn drain(&mut self, until_ns: u64, mut each: impl FnMut(Event)) -> ProfileDrained {
        let mut drained = ProfileDrained::default();
        let mut body = [0u8; RECORD_MAX];
        // A record has 8 bytes at least; a program that writes as fast as we read must not keep us.
        let records_max = self.options.ring_bytes / 8;
        for (_, ring) in &mut self.rings {
            for _ in 0..records_max {
                let Some(record) = ring.next_record() else { break };
                let length = gather(record.data(), &mut body);
                let read =
                    records::read(record.ty(), record.misc(), &body[..length], &mut self.chain);
                drop(record);
                match read {
                    Read::Event(event) => self.pending.push(event),
                    Read::Own(Parsed::Lost(count)) => {
                        drained.lost = drained.lost.saturating_add(count);
                    }
                    Read::Own(Parsed::Throttled) => drained.throttled += 1,
                    Read::Own(Parsed::Broken) => drained.broken += 1,
                    Read::Own(_) => {}
                }
            }
        }
        self.pending.sort_by_key(|event| event.at_ns);
        let due = self.pending.partition_point(|event| event.at_ns < until_ns);
        for event in self.pending.drain(..due) {
            if let records::Told::Sample { cut, .. } = &event.told {
                drained.samples += 1;
                drained.cut += u64::from(*cut);
            }
            each(event);
        }
        drained
    }
}

fn builder(
    options: &TreeOptions,
    of: Of,
    cpu: u32,
    (kernel, build_ids): (bool, bool),
) -> Builder<'static> {
    let event = if options.hz == 0 { Software::DUMMY } else { Software::CPU_CLOCK };
    let mut builder = Builder::new(event);
    match of {
        Of::Children => builder.observe_self().enable_on_exec(true),
        Of::Thread(thread) => builder.observe_pid(thread),
    };
    let sampled = SampleFlag::IP | SampleFlag::TID | SampleFlag::TIME | SampleFlag::CPU;
    builder
        .one_cpu(cpu as usize)
        .inherit(true)
        .exclude_kernel(!kernel)
        .exclude_callchain_kernel(!kernel)
        .mmap(true)
        .mmap2(true)
        .build_id(build_ids)
        .comm(true)
        .comm_exec(true)
        .task(true)
        .context_switch(options.switches)
        .sample_id_all(true)
        .sample(sampled | SampleFlag::CALLCHAIN)
        .clockid(Clock::MONOTONIC);
    if options.hz > 0 {
        builder.sample_frequency(options.hz);
    }
    builder
}

/// Copies a record's one or two parts as far as they are read; how much that is.
fn gather(parts: &[&[u8]], into: &mut [u8; RECORD_MAX]) -> usize {
    let mut length = 0;
    for part in parts {
        let room = part.len().min(RECORD_MAX - length);
        into[length..length + room].copy_from_slice(&part[..room]);
        length += room;
    }
    length
}

/// CPUs that are online; CPU 0 alone where sysfs does not say.
#[must_use]
pub(in crate::collect) fn online() -> Vec<u32> {
    let text = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cpus = list(text.trim());
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// `0-3,8` as numbers.
fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse::<u32>().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus() {
        assert_eq!(list("0-2,8"), [0, 1, 2, 8]);
        assert_eq!(list("0"), [0]);
        assert_eq!(list(""), [0u32; 0]);
        assert!(!online().is_empty());
    }
}
