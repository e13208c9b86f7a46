//! Who is compared. [`actors`] is what a peer must offer; [`start`] runs each work on it.

mod actix;
mod actors;
mod compio;
mod glommio;
mod kameo;
mod monoio;
mod ractor;
mod spsc;
mod start;
mod tailbeam;
mod tasks;
mod timers;
mod tokio;
mod tokio_mt;

use std::future::poll_fn;
use std::task::Poll;

use clap::ValueEnum;

use crate::figure::Round;
use crate::sheet::Sheet;

/// A runtime, as it is run here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// tokio, a current_thread runtime per core
    TokioCt,
    /// tokio, the work-stealing runtime with two workers
    TokioMt,
    /// Tailbeam's runtime
    Tailbeam,
    /// Tailbeam's runtime with a time stamp per turn
    TailbeamStamped,
    /// monoio, a runtime per core
    Monoio,
    /// glommio, an executor per core
    Glommio,
    /// compio, a runtime per core
    Compio,
    /// kameo on tokio current_thread per core
    Kameo,
    /// ractor on tokio current_thread per core
    Ractor,
    /// actix, a system per core
    Actix,
    /// The limit: a ring between two spinning threads, each message published
    Spsc,
    /// The limit of batches: as above, 32 messages published at once
    #[value(name = "spsc-32")]
    Spsc32,
}

/// What a child lets a peer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Ask,
    Cross,
    Oneway,
    SameAsk,
    SamePair,
    Light,
    Timers,
    Spawn,
    Idle,
}

/// What a peer needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) cores: [usize; 2],
    pub(crate) sheet: &'static Sheet,
    pub(crate) agents: u32,
    pub(crate) crowd: u32,
    pub(crate) seconds: f64,
}

/// What came of the start.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Agents work until the sheet closes.
    Works,
    /// It has measured by itself.
    Measured(Round),
    NotRun(String),
}

/// Starts a peer's work. An error is a failure of ours or the peer's; what a peer cannot do is a value.
pub(crate) fn begin(peer: Peer, work: Work, job: Job) -> Result<Begun, String> {
    match peer {
        Peer::TokioCt => tasks::begin::<tokio::CurrentThread>(work, job),
        Peer::TokioMt => tokio_mt::begin(work, job),
        Peer::Tailbeam => tailbeam::begin(work, job, false),
        Peer::TailbeamStamped => tailbeam::begin(work, job, true),
        Peer::Monoio => tasks::begin::<monoio::Monoio>(work, job),
        Peer::Glommio => glommio::begin(work, job),
        Peer::Compio => tasks::begin::<compio::Compio>(work, job),
        Peer::Kameo => start::begin::<kameo::Kameo>(work, job),
        Peer::Ractor => start::begin::<ractor::Ractor>(work, job),
        Peer::Actix => start::begin::<actix::Actix>(work, job),
        Peer::Spsc => spsc::begin(work, job, 1),
        Peer::Spsc32 => spsc::begin(work, job, 32),
    }
}

/// Is ready again at once; for executors without a yield of their own.
async fn ready_again() {
    let mut was_polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut was_polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
