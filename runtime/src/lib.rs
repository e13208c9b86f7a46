//! Thread-per-core runtime that hosts agents on io_uring.
//!
//! One shard per core: a pinned thread with its own ring, agents, mailboxes and timers. Messages to
//! another core go through one bounded ring per ordered pair; a sleeping shard is woken by a doorbell,
//! a running one is not disturbed.
//!
//! ```
//! use tailbeam_runtime::{Agent, Config, Cores, Cx, NoObserver, Runtime, Stop};
//!
//! struct Counter(u64);
//! impl Agent for Counter {
//!     type Msg = u64;
//!     async fn on(&mut self, n: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
//!         self.0 += n;
//!         Ok(())
//!     }
//! }
//!
//! # if tailbeam_runtime::features::probe().is_err() { return; }
//! let runtime = Runtime::start(Config { cores: Cores::Auto, ..Config::default() }, |_| NoObserver).unwrap();
//! let counter = runtime.spawn_on(0, || Counter(0)).unwrap();
//! runtime.run_on(0, move |cx| counter.try_send(cx, 5)).unwrap().unwrap();
//! assert!(runtime.shutdown().shards[0].drained);
//! ```

mod channel;
mod sync;

// Under loom only the lock-free parts are compiled: they are what is modelled.

#[cfg(not(loom))]
mod agent;
#[cfg(not(loom))]
pub mod clock;
#[cfg(not(loom))]
mod config;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
pub mod fs;
#[cfg(not(loom))]
mod link;
#[cfg(not(loom))]
mod memory;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
mod observe;
#[cfg(not(loom))]
mod op;
#[cfg(not(loom))]
mod panics;
#[cfg(not(loom))]
mod prefetch;
#[cfg(not(loom))]
mod ring;
#[cfg(not(loom))]
mod runtime;
#[cfg(not(loom))]
mod shard;
#[cfg(not(loom))]
pub mod sim;
#[cfg(not(loom))]
mod stall;
#[cfg(not(loom))]
mod stats;
#[cfg(not(loom))]
mod stopping;
#[cfg(not(loom))]
mod supervise;
#[cfg(not(loom))]
mod timer;

#[cfg(not(loom))]
pub use {
    agent::{
        Account, Addr, Agent, AgentId, By, Class, Cx, Down, End, LateWakers, MonitorId, MoveError,
        Placement, Published, Recipient, Registry, RelationError, Reply, SleepUntil, Stop, WaitFor,
        Waiting, YieldNow,
    },
    channel::envelope::{ASK_MAX, MESSAGE_MAX},
    config::{Bell, Choice, Config, Cores},
    error::{AddError, AskError, OpError, SendError, SpawnError, StartError, Stopped, TimersFull},
    link::{LinkFault, LinkFaults},
    observe::{NoObserver, Observer, Queues},
    ring::faults::{RingFault, RingFaultCounts, RingFaults},
    runtime::{Runtime, ShutdownReport},
    shard::idle::Idle,
    shard::path::{Path, poll_path},
    shard::run::ShardReport,
    shard::stamp::StampSource,
    stall::Stall,
    stats::ShardStats,
    supervise::{
        Backoff, ChildInfo, ChildSpec, Intensity, Restart, Strategy, Supervision, Supervisor,
        SupervisorMsg,
    },
    timer::TimerId,
};

/// What this kernel's io_uring can do.
#[cfg(not(loom))]
pub mod features {
    pub use crate::ring::bell::{Bells, ShardBell, ThreadBell};
    pub use crate::ring::calibrate::{BellCost, Calibration, calibrate};
    pub use crate::ring::probe::{RingFeatures, probe};
}
