//! What a peer offers: an executor, and agents with mailboxes on it.

use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread;

use crate::crowd::Crowd;
use crate::place;
use crate::sheet::{Sheet, Tally};
use crate::worker::{Msg, Worker};

/// An executor that a pinned thread runs.
pub(crate) trait Executor: 'static {
    /// Runs what `make` makes on the calling thread, which is pinned to `core`, until it ends.
    ///
    /// # Errors
    /// Why this executor cannot run here.
    fn run<F: Future<Output = ()> + 'static>(
        core: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String>;

    /// Ends at that instant, `CLOCK_MONOTONIC` ns.
    fn sleep_until(at_ns: u64) -> impl Future<Output = ()>;
}

/// An executor whose tasks stay on its thread.
pub(crate) trait Local: Executor {
    fn spawn(future: impl Future<Output = ()> + 'static);

    /// Lets others run, and is ready again at once.
    fn yield_now() -> impl Future<Output = ()>;
}

/// Addresses by agent, set when all are there.
pub(crate) type Book<A> = &'static OnceLock<Vec<A>>;

/// Agents with mailboxes; each function is called on the core whose agents it makes. What fails to start
/// panics, which ends the round as failed.
pub(crate) trait Actors: 'static {
    type Executor: Executor;
    /// Of a worker.
    type Address: Send + Sync + 'static;
    /// Of an agent that answers.
    type Callee: Send + 'static;
    /// Of an agent that takes a stream of 48-byte messages.
    type Sink: Send + 'static;
    /// Of an idle agent.
    type Idle: 'static;

    fn worker(worker: Worker, book: Book<Self::Address>) -> impl Future<Output = Self::Address>;
    /// Whether it was taken.
    fn tell(to: &Self::Address, msg: Msg) -> bool;
    fn callee() -> impl Future<Output = Self::Callee>;
    /// Spawns one that asks until the sheet closes.
    fn client(to: Self::Callee, tally: Tally);
    /// Spawns one that is always ready until the sheet closes.
    fn busy(sheet: &'static Sheet);
    fn sink(sheet: &'static Sheet) -> impl Future<Output = Self::Sink>;
    /// Spawns one that sends as fast as it is let until the sheet closes.
    fn flood(to: Self::Sink, sheet: &'static Sheet);
    fn idle(crowd: &'static Crowd) -> impl Future<Output = Self::Idle>;
    /// Sends it a word; whether it was taken.
    fn poke(to: &Self::Idle, word: u64) -> bool;
    /// Ends it.
    fn end(idle: Self::Idle);
}

/// Why an executor did not start.
#[derive(Debug)]
pub(crate) struct CannotRun(pub(crate) String);

/// Runs what `make` makes on a pinned thread of its own; returns when it has begun.
pub(crate) fn run_on<E: Executor, F: Future<Output = ()> + 'static>(
    core: usize,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<(), CannotRun> {
    let (begun, started) = mpsc::channel();
    thread::spawn(move || {
        place::pin(core);
        let ready = begun.clone();
        let ran = E::run(core, move || {
            // The receiver waits below until one of the two is sent.
            let _ = ready.send(Ok(()));
            make()
        });
        if let Err(why) = ran {
            let _ = begun.send(Err(CannotRun(why)));
        }
    });
    started.recv().unwrap_or_else(|_| Err(CannotRun("its thread ended at once".to_owned())))
}
