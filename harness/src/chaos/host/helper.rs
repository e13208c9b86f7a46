//! Processes of ours that take something away: a core, memory of a group, or what passes between two processes.
//!
//! Each is our own program again, started by a [`Launcher`] with the words of the helper behind
//! its arguments. Each ends by itself when its time is over or when its stdin ends, which is when the supervisor
//! does; a hog also by limits of the kernel (`RLIMIT_CPU`, and `RLIMIT_RTTIME` at real-time priority), which need no
//! other process to run: so there is no killer beside it that could be starved.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, prlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use tailbeam_probes::clock::{monotonic_ns, thread_cpu_ns};

use super::failure::{self, Failure};
use super::process::timespec;
use super::subject::Run;
use super::{Launcher, proxy};

/// Longest life of a helper, ms.
pub const LIFE_MS_MAX: u64 = 700_000;
/// Longest life of a proxy, ms: it stands in the way of a subject for all of its life, and does nothing until it is told
/// to. A week; no board is as long.
pub const PROXY_LIFE_MS_MAX: u64 = 604_800_000;
const MS: u64 = 1_000_000;
/// Touched to have a page of memory; the smallest page of any machine that we run on.
const PAGE: usize = 4_096;

/// What a helper does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Helper {
    /// Computes on one core without end.
    Hog {
        /// The core.
        core: usize,
        /// Its life, ms.
        life_ms: u64,
    },
    /// Holds memory that it has touched.
    Ballast {
        /// How much.
        bytes: u64,
        /// Its life, ms.
        life_ms: u64,
    },
    /// Passes on what comes in over TCP, as the [`proxy`] knobs of a board say.
    Proxy {
        /// Where it listens; port 0 is one that is free, and [`Board::proxy_port`](crate::chaos::board::Board::proxy_port)
        /// says which.
        listen: SocketAddr,
        /// Where its connections lead.
        to: SocketAddr,
        /// Where the board is found.
        board: PathBuf,
        /// Its life, ms.
        life_ms: u64,
    },
}

impl Helper {
    /// Its words on a command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let three = |name: &str, what: u64, life_ms: &u64| {
            [name.to_owned(), what.to_string(), life_ms.to_string()].into()
        };
        match self {
            Self::Hog { core, life_ms } => three("hog", *core as u64, life_ms),
            Self::Ballast { bytes, life_ms } => three("ballast", *bytes, life_ms),
            Self::Proxy { listen, to, board, life_ms } => [
                "proxy".to_owned(),
                listen.to_string(),
                to.to_string(),
                board.display().to_string(),
                life_ms.to_string(),
            ]
            .into(),
        }
    }

    /// How it is started: our own program again.
    #[must_use]
    pub fn started_by(&self, launcher: &Launcher) -> Run {
        let mut run = Run::new(&launcher.program, &[]);
        run.args = launcher.args.iter().cloned().chain(self.words()).collect();
        run
    }

    /// Reads the words. None: they are no helper's.
    #[must_use]
    pub fn parse(words: &[String]) -> Option<Self> {
        if let [name, listen, to, board, life_ms] = words {
            let life_ms = life_ms.parse().ok().filter(|ms| *ms <= PROXY_LIFE_MS_MAX)?;
            let (listen, to, board) = (listen.parse().ok()?, to.parse().ok()?, board.into());
            return (name == "proxy").then_some(Self::Proxy { listen, to, board, life_ms });
        }
        let [name, what, life_ms] = words else { return None };
        let life_ms = life_ms.parse().ok().filter(|ms| *ms <= LIFE_MS_MAX)?;
        match name.as_str() {
            "hog" => Some(Self::Hog { core: what.parse().ok()?, life_ms }),
            "ballast" => Some(Self::Ballast { bytes: what.parse().ok()?, life_ms }),
            _ => None,
        }
    }

    /// Does it in this process until its time or its stdin is over.
    ///
    /// # Errors
    /// The core is not ours, there is not so much memory, or nobody may listen there.
    pub fn run(self) -> Result<(), Failure> {
        match self {
            Self::Hog { core, life_ms } => hog(core, life_ms),
            Self::Ballast { bytes, life_ms } => ballast(bytes, life_ms),
            Self::Proxy { listen, to, board, life_ms } => {
                proxy::serve(listen, to, &board, life_ms * MS)
            }
        }
    }
}

/// The supervisor closed its end of the pipe, or died, within `ms`.
fn alone_within(ms: u64) -> bool {
    let stdin = io::stdin();
    let mut pipe = [PollFd::new(&stdin, PollFlags::IN)];
    let found = poll(&mut pipe, Some(&timespec(ms)));
    let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    found.is_ok_and(|ready| ready > 0 && pipe[0].revents().intersects(over))
}

fn limit(resource: Resource, most: u64) -> Result<(), Failure> {
    let both = Rlimit { current: Some(most), maximum: Some(most) };
    let set = prlimit(None, resource, both);
    set.map(|_| ()).map_err(|error| failure::io(Path::new("this process"), "limit", error))
}

fn hog(core: usize, life_ms: u64) -> Result<(), Failure> {
    let until_ns = monotonic_ns() + life_ms * MS;
    // At the hard limit the kernel kills, from its tick.
    limit(Resource::Cpu, life_ms / 1_000 + 2)?;
    limit(Resource::Rttime, life_ms * 1_000 + 500_000)?;
    if core >= CpuSet::MAX_CPU {
        return Err(failure::io(Path::new("core"), "find", io::ErrorKind::InvalidInput));
    }
    let mut one = CpuSet::new();
    one.set(core);
    let pinned = sched_setaffinity(None, &one);
    pinned.map_err(|error| failure::io(Path::new("a core"), "pin to", error))?;
    while monotonic_ns() < until_ns && !alone_within(0) {
        let piece = thread_cpu_ns() + MS;
        while thread_cpu_ns() < piece {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

fn ballast(bytes: u64, life_ms: u64) -> Result<(), Failure> {
    let until_ns = monotonic_ns() + life_ms * MS;
    let too_much = || failure::io(Path::new("memory"), "take", io::ErrorKind::OutOfMemory);
    let bytes = usize::try_from(bytes).map_err(|_| too_much())?;
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| too_much())?;
    memory.resize(bytes, 0);
    // Each page is written with something else than zero, so that it can be no shared page of zeros.
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
    while monotonic_ns() < until_ns && !alone_within(100) {}
    std::hint::black_box(&memory);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_written_and_nothing_else_is() {
        for helper in [
            Helper::Hog { core: 1, life_ms: 7 },
            Helper::Ballast { bytes: 1 << 40, life_ms: LIFE_MS_MAX },
            Helper::Proxy {
                listen: "[::1]:0".parse().unwrap(),
                to: "127.0.0.1:9".parse().unwrap(),
                board: "/proc/7/fd/3".into(),
                life_ms: PROXY_LIFE_MS_MAX,
            },
        ] {
            assert_eq!(Helper::parse(&helper.words()), Some(helper));
        }
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for bad in [
            "hog",
            "hog x 7",
            "hog 1 700001",
            "hog 1 7 7",
            "dog 1 7",
            "ballast -1 7",
            "proxy 1.1.1.1:1 1.1.1.1:1 /b 604800001",
            "proxy 1.1.1.1 1.1.1.1:1 /b 7",
            "hog 1.1.1.1:1 1.1.1.1:1 /b 7",
        ] {
            assert_eq!(Helper::parse(&words(bad)), None, "{bad}");
        }
    }
}
