//! Agents on executors that have tasks and no agents: a task each, with a bounded channel of tokio's as its
//! mailbox, which works on any executor and across threads. The executors' own channels stay on one thread.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::Poll;

use ::tokio::sync::mpsc::{Receiver, Sender, channel};
use ::tokio::sync::oneshot;

use super::actors::{Actors, Book, Executor, Local};
use super::{Begun, Job, Work, start, timers};
use crate::crowd::{self, Crowd, Idle};
use crate::sheet::{Sheet, Tally};
use crate::worker::{self, Msg, Worker};

/// Messages of a stream that may wait.
pub(crate) const STREAM: usize = 4_096;

/// A message of a stream: 48 bytes, what a cell of 64 bytes of ours carries.
pub(crate) type Cell = [u64; 6];

/// A question with the way back.
pub(crate) type Query = (u64, oneshot::Sender<u64>);

/// Agents as tasks of `E`.
pub(crate) struct Tasks<E>(PhantomData<E>);

/// Starts `work`.
pub(crate) fn begin<E: Local>(work: Work, job: Job) -> Result<Begun, String> {
    match work {
        Work::Timers => {
            timers::begin::<E>(job, move |n| E::spawn(timers::sleeper::<E>(job.sheet, n)))
        }
        work => start::begin::<Tasks<E>>(work, job),
    }
}

impl<E: Local> Actors for Tasks<E> {
    type Executor = E;
    type Address = Sender<Msg>;
    type Callee = Sender<Query>;
    type Sink = Sender<Cell>;
    type Idle = Sender<u64>;

    async fn worker(worker: Worker, book: Book<Sender<Msg>>) -> Sender<Msg> {
        let (send, inbox) = channel(worker::MAILBOX);
        if worker.thinks() {
            E::spawn(think::<E>(worker, inbox, book));
        } else {
            E::spawn(work(worker, inbox, book));
        }
        send
    }

    fn tell(to: &Sender<Msg>, msg: Msg) -> bool {
        to.try_send(msg).is_ok()
    }

    async fn callee() -> Sender<Query> {
        let (send, inbox) = channel(worker::MAILBOX);
        E::spawn(answer(inbox));
        send
    }

    fn client(to: Sender<Query>, tally: Tally) {
        E::spawn(ask(to, tally));
    }

    fn busy(sheet: &'static Sheet) {
        E::spawn(async move {
            while sheet.is_open() {
                E::yield_now().await;
            }
        });
    }

    async fn sink(sheet: &'static Sheet) -> Sender<Cell> {
        let (send, inbox) = channel(STREAM);
        E::spawn(drain(inbox, sheet));
        send
    }

    fn flood(to: Sender<Cell>, sheet: &'static Sheet) {
        E::spawn(flood(to, sheet));
    }

    async fn idle(crowd: &'static Crowd) -> Sender<u64> {
        let (send, inbox) = channel(crowd::MAILBOX);
        E::spawn(idle(Idle::new(crowd), inbox));
        send
    }

    fn poke(to: &Sender<u64>, word: u64) -> bool {
        to.try_send(word).is_ok()
    }

    fn end(idle: Sender<u64>) {
        drop(idle);
    }
}

fn handle(worker: &mut Worker, msg: Msg, book: Book<Sender<Msg>>) {
    let Some((to, msg)) = worker.on(msg) else { return };
    let sent = book.get().is_some_and(|book| book[to as usize].try_send(msg).is_ok());
    if !sent {
        worker.refused();
    }
}

/// A worker without timers.
pub(crate) async fn work(mut worker: Worker, mut inbox: Receiver<Msg>, book: Book<Sender<Msg>>) {
    while let Some(msg) = inbox.recv().await {
        handle(&mut worker, msg, book);
    }
}

/// A worker that asks at given instants; its first message is the start.
pub(crate) async fn think<E: Executor>(
    mut worker: Worker,
    mut inbox: Receiver<Msg>,
    book: Book<Sender<Msg>>,
) {
    let Some(mut last) = inbox.recv().await else { return };
    handle(&mut worker, last, book);
    while let Some(due_ns) = worker.due_after(last) {
        let mut due = pin!(E::sleep_until(due_ns));
        loop {
            let msg = next(&mut inbox, due.as_mut()).await;
            handle(&mut worker, msg, book);
            if msg == Msg::Due {
                last = msg;
                break;
            }
        }
    }
    // The sheet has closed: the others may still want their answers.
    work(worker, inbox, book).await;
}

/// The next message, or that it is due.
async fn next(inbox: &mut Receiver<Msg>, mut due: Pin<&mut impl Future<Output = ()>>) -> Msg {
    poll_fn(|cx| match inbox.poll_recv(cx) {
        Poll::Ready(Some(msg)) => Poll::Ready(msg),
        _ => due.as_mut().poll(cx).map(|()| Msg::Due),
    })
    .await
}

/// Answers each question.
pub(crate) async fn answer(mut inbox: Receiver<Query>) {
    while let Some((n, reply)) = inbox.recv().await {
        // An asker that has gone needs no answer.
        let _ = reply.send(n + 1);
    }
}

/// Asks one question after the other.
pub(crate) async fn ask(to: Sender<Query>, mut tally: Tally) {
    let mut n = 0;
    loop {
        tally.ask();
        let (reply, answer) = oneshot::channel();
        if to.send((n, reply)).await.is_err() {
            return;
        }
        match answer.await {
            Ok(answer) => n = answer,
            Err(_) => return,
        }
        if !tally.answered() {
            return;
        }
    }
}

/// Takes a stream.
pub(crate) async fn drain(mut inbox: Receiver<Cell>, sheet: &'static Sheet) {
    let mut count = 0;
    while let Some(cell) = inbox.recv().await {
        count += std::hint::black_box(cell[0]);
        sheet.received(count);
    }
}

/// Sends a stream.
pub(crate) async fn flood(to: Sender<Cell>, sheet: &'static Sheet) {
    while sheet.is_open() && to.send([1; 6]).await.is_ok() {}
}

/// Waits for messages that do not come.
pub(crate) async fn idle(mut state: Idle, mut inbox: Receiver<u64>) {
    state.started();
    while let Some(word) = inbox.recv().await {
        state.read(word);
    }
}
