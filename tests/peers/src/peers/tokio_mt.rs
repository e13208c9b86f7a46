//! tokio's work-stealing runtime with two pinned workers. Its tasks have no core: `cross`, `oneway` and `same`
//! run wherever its workers take them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ::tokio::runtime::{Builder, Runtime};
use ::tokio::sync::mpsc::{Sender, channel};
use ::tokio::task::yield_now;

use super::actors::{Actors, Book, Executor};
use super::tasks::{self, Cell, Query};
use super::{Begun, Job, Work, start, timers};
use crate::crowd::{self, Crowd, Idle};
use crate::figure::Round;
use crate::sheet::{Sheet, Tally};
use crate::worker::{self, Msg, Worker};
use crate::{clock, place};

/// The runtime, one per process.
struct MultiThread;

/// The cores of its workers.
static CORES: OnceLock<[usize; 2]> = OnceLock::new();

/// Starts `work`.
pub(crate) fn begin(work: Work, job: Job) -> Result<Begun, String> {
    // It is the same for every work of a process.
    CORES.get_or_init(|| job.cores);
    match work {
        Work::Timers => timers::begin::<MultiThread>(job, move |n| {
            spawn(timers::sleeper::<MultiThread>(job.sheet, n));
        }),
        Work::Spawn => on_worker(start::spawned_twice::<Tasks>(job.crowd)),
        Work::Idle => on_worker(start::idle::<Tasks>(job.crowd)),
        work => start::begin::<Tasks>(work, job),
    }
}

/// Has a worker measure a round: another thread would take its core.
fn on_worker(round: impl Future<Output = Round> + Send + 'static) -> Result<Begun, String> {
    let (send, receive) = mpsc::channel();
    runtime()?.spawn(async move { drop(send.send(round.await)) });
    receive.recv().map(Begun::Measured).map_err(|error| error.to_string())
}

fn runtime() -> Result<&'static Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME.get_or_init(build).as_ref().map_err(Clone::clone)
}

fn build() -> Result<Runtime, String> {
    let cores = *CORES.get().ok_or("it has no cores")?;
    let next = AtomicUsize::new(0);
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .on_thread_start(move || place::pin(cores[next.fetch_add(1, Ordering::Relaxed) % 2]))
        .build()
        .map_err(|error| error.to_string())
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    drop(::tokio::spawn(future));
}

impl Executor for MultiThread {
    /// The calling thread is none of the workers: it starts the others and then waits.
    fn run<F: Future<Output = ()> + 'static>(
        _: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        runtime()?.block_on(async move { make().await });
        Ok(())
    }

    fn sleep_until(at_ns: u64) -> impl Future<Output = ()> {
        ::tokio::time::sleep_until(clock::instant(at_ns).into())
    }
}

/// Agents as tasks that must be `Send`; the rest is as in [`tasks`].
struct Tasks;

impl Actors for Tasks {
    type Executor = MultiThread;
    type Address = Sender<Msg>;
    type Callee = Sender<Query>;
    type Sink = Sender<Cell>;
    type Idle = Sender<u64>;

    async fn worker(worker: Worker, book: Book<Sender<Msg>>) -> Sender<Msg> {
        let (send, inbox) = channel(worker::MAILBOX);
        if worker.thinks() {
            spawn(tasks::think::<MultiThread>(worker, inbox, book));
        } else {
            spawn(tasks::work(worker, inbox, book));
        }
        send
    }

    fn tell(to: &Sender<Msg>, msg: Msg) -> bool {
        to.try_send(msg).is_ok()
    }

    async fn callee() -> Sender<Query> {
        let (send, inbox) = channel(worker::MAILBOX);
        spawn(tasks::answer(inbox));
        send
    }

    fn client(to: Sender<Query>, tally: Tally) {
        spawn(tasks::ask(to, tally));
    }

    fn busy(sheet: &'static Sheet) {
        spawn(async move {
            while sheet.is_open() {
                yield_now().await;
            }
        });
    }

    async fn sink(sheet: &'static Sheet) -> Sender<Cell> {
        let (send, inbox) = channel(tasks::STREAM);
        spawn(tasks::drain(inbox, sheet));
        send
    }

    fn flood(to: Sender<Cell>, sheet: &'static Sheet) {
        spawn(tasks::flood(to, sheet));
    }

    async fn idle(crowd: &'static Crowd) -> Sender<u64> {
        let (send, inbox) = channel(crowd::MAILBOX);
        spawn(tasks::idle(Idle::new(crowd), inbox));
        send
    }

    fn poke(to: &Sender<u64>, word: u64) -> bool {
        to.try_send(word).is_ok()
    }

    fn end(idle: Sender<u64>) {
        drop(idle);
    }
}
