//! actix' actors, a system with its own tokio current_thread runtime per core.

use ::actix::dev::Request;
use ::actix::{Actor, Addr, AsyncContext as _, Context, Handler, Message, System, spawn};

use ::tokio::task::yield_now;

use super::actors::{Actors, Book, Executor};
use super::tasks::{Cell, STREAM};
use crate::clock;
use crate::crowd::{self, Crowd, Idle};
use crate::sheet::{Sheet, Tally};
use crate::worker::{self, Msg, Worker};

/// Its actors.
pub(crate) struct Actix;

impl Executor for Actix {
    fn run<F: Future<Output = ()> + 'static>(
        _: usize,
        make: impl FnOnce() -> F,
    ) -> Result<(), String> {
        System::new().block_on(async move { make().await });
        Ok(())
    }

    fn sleep_until(at_ns: u64) -> impl Future<Output = ()> {
        ::tokio::time::sleep_until(clock::instant(at_ns).into())
    }
}

/// An agent that asks and answers.
pub(crate) struct Asker(Worker, Book<Addr<Asker>>);

impl Asker {
    /// Has [`Msg::Due`] come when it is due.
    fn wind(&self, last: Msg, cx: &mut Context<Self>) {
        if let Some(due_ns) = self.0.due_after(last) {
            cx.notify_later(Msg::Due, clock::until(due_ns));
        }
    }
}

impl Message for Msg {
    type Result = ();
}

impl Actor for Asker {
    type Context = Context<Self>;

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_mailbox_capacity(worker::MAILBOX);
    }
}

impl Handler<Msg> for Asker {
    type Result = ();

    fn handle(&mut self, msg: Msg, cx: &mut Context<Self>) {
        let out = self.0.on(msg);
        self.wind(msg, cx);
        let Some((to, msg)) = out else { return };
        let sent = self.1.get().is_some_and(|book| Actix::tell(&book[to as usize], msg));
        if !sent {
            self.0.refused();
        }
    }
}

/// Answers.
pub(crate) struct Callee;

struct Query(u64);

impl Message for Query {
    type Result = u64;
}

impl Actor for Callee {
    type Context = Context<Self>;
}

impl Handler<Query> for Callee {
    type Result = u64;

    fn handle(&mut self, Query(n): Query, _: &mut Context<Self>) -> u64 {
        n + 1
    }
}

/// Takes a stream.
pub(crate) struct Sink(&'static Sheet, u64);

struct Flow(Cell);

impl Message for Flow {
    type Result = ();
}

impl Actor for Sink {
    type Context = Context<Self>;

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_mailbox_capacity(STREAM);
    }
}

impl Handler<Flow> for Sink {
    type Result = ();

    fn handle(&mut self, Flow(cell): Flow, _: &mut Context<Self>) {
        self.1 += std::hint::black_box(cell[0]);
        self.0.received(self.1);
    }
}

/// Has nothing to do.
pub(crate) struct Rests(Idle);

struct Word(u64);

impl Message for Word {
    type Result = ();
}

impl Actor for Rests {
    type Context = Context<Self>;

    fn started(&mut self, cx: &mut Context<Self>) {
        cx.set_mailbox_capacity(crowd::MAILBOX);
        self.0.started();
    }
}

impl Handler<Word> for Rests {
    type Result = ();

    fn handle(&mut self, Word(word): Word, _: &mut Context<Self>) {
        self.0.read(word);
    }
}

impl Actors for Actix {
    type Executor = Self;
    type Address = Addr<Asker>;
    type Callee = Addr<Callee>;
    type Sink = Addr<Sink>;
    type Idle = Addr<Rests>;

    async fn worker(worker: Worker, book: Book<Addr<Asker>>) -> Addr<Asker> {
        Asker(worker, book).start()
    }

    fn tell(to: &Addr<Asker>, msg: Msg) -> bool {
        to.try_send(msg).is_ok()
    }

    async fn callee() -> Addr<Callee> {
        Callee.start()
    }

    fn client(to: Addr<Callee>, mut tally: Tally) {
        spawn(async move {
            let mut n = 0;
            loop {
                tally.ask();
                let answer: Request<Callee, Query> = to.send(Query(n));
                match answer.await {
                    Ok(answer) => n = answer,
                    Err(_) => return,
                }
                if !tally.answered() {
                    return;
                }
            }
        });
    }

    fn busy(sheet: &'static Sheet) {
        spawn(async move {
            while sheet.is_open() {
                yield_now().await;
            }
        });
    }

    async fn sink(sheet: &'static Sheet) -> Addr<Sink> {
        Sink(sheet, 0).start()
    }

    /// `send` waits for the receiver to have handled its message; `try_send` says when there is no room.
    fn flood(to: Addr<Sink>, sheet: &'static Sheet) {
        spawn(async move {
            while sheet.is_open() {
                if to.try_send(Flow([1; 6])).is_err() {
                    yield_now().await;
                }
            }
        });
    }

    async fn idle(crowd: &'static Crowd) -> Addr<Rests> {
        Rests(Idle::new(crowd)).start()
    }

    fn poke(to: &Addr<Rests>, word: u64) -> bool {
        to.try_send(Word(word)).is_ok()
    }

    /// It ends when nobody can reach it.
    fn end(idle: Addr<Rests>) {
        drop(idle);
    }
}
