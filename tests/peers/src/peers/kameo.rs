//! kameo's actors on a tokio current_thread runtime per core, with bounded mailboxes.

use ::kameo::Actor;
use ::kameo::actor::{ActorRef, Spawn as _};
use ::kameo::error::Infallible;
use ::kameo::mailbox::bounded;
use ::kameo::message::{Context, Message};

use super::actors::{Actors, Book, Local as _};
use super::tasks::{Cell, STREAM};
use super::tokio::CurrentThread;
use crate::clock;
use crate::crowd::{self, Crowd, Idle};
use crate::sheet::{Sheet, Tally};
use crate::worker::{self, Msg, Worker};

/// Its actors.
pub(crate) struct Kameo;

/// An agent that asks and answers.
pub(crate) struct Asker(Worker, Book<ActorRef<Asker>>);

/// An actor whose arguments are its state.
macro_rules! plain_actor {
    ($name:ty) => {
        impl Actor for $name {
            type Args = Self;
            type Error = Infallible;

            async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
                Ok(state)
            }
        }
    };
}

plain_actor!(Asker);

impl Asker {
    /// Has [`Msg::Due`] come when it is due: a task that sleeps, which is its only timer.
    fn wind(&self, last: Msg, me: &ActorRef<Self>) {
        if let Some(due_ns) = self.0.due_after(last) {
            drop(me.tell(Msg::Due).send_after(clock::until(due_ns)));
        }
    }
}

impl Message<Msg> for Asker {
    type Reply = ();

    async fn handle(&mut self, msg: Msg, cx: &mut Context<Self, ()>) {
        let out = self.0.on(msg);
        self.wind(msg, cx.actor_ref());
        let Some((to, msg)) = out else { return };
        let sent = self.1.get().is_some_and(|book| Kameo::tell(&book[to as usize], msg));
        if !sent {
            self.0.refused();
        }
    }
}

/// Answers.
pub(crate) struct Callee;
plain_actor!(Callee);

impl Message<u64> for Callee {
    type Reply = u64;

    async fn handle(&mut self, n: u64, _: &mut Context<Self, u64>) -> u64 {
        n + 1
    }
}

/// Takes a stream.
pub(crate) struct Sink(&'static Sheet, u64);
plain_actor!(Sink);

impl Message<Cell> for Sink {
    type Reply = ();

    async fn handle(&mut self, cell: Cell, _: &mut Context<Self, ()>) {
        self.1 += std::hint::black_box(cell[0]);
        self.0.received(self.1);
    }
}

/// Has nothing to do.
pub(crate) struct Rests(Idle);

impl Actor for Rests {
    type Args = Self;
    type Error = Infallible;

    async fn on_start(state: Self, _: ActorRef<Self>) -> Result<Self, Infallible> {
        state.0.started();
        Ok(state)
    }
}

impl Message<u64> for Rests {
    type Reply = ();

    async fn handle(&mut self, word: u64, _: &mut Context<Self, ()>) {
        self.0.read(word);
    }
}

impl Actors for Kameo {
    type Executor = CurrentThread;
    type Address = ActorRef<Asker>;
    type Callee = ActorRef<Callee>;
    type Sink = ActorRef<Sink>;
    type Idle = ActorRef<Rests>;

    async fn worker(worker: Worker, book: Book<ActorRef<Asker>>) -> ActorRef<Asker> {
        Asker::spawn_with_mailbox(Asker(worker, book), bounded(worker::MAILBOX))
    }

    fn tell(to: &ActorRef<Asker>, msg: Msg) -> bool {
        to.tell(msg).try_send().is_ok()
    }

    async fn callee() -> ActorRef<Callee> {
        Callee::spawn_with_mailbox(Callee, bounded(worker::MAILBOX))
    }

    fn client(to: ActorRef<Callee>, mut tally: Tally) {
        CurrentThread::spawn(async move {
            let mut n = 0;
            loop {
                tally.ask();
                match to.ask(n).await {
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
        CurrentThread::spawn(async move {
            while sheet.is_open() {
                CurrentThread::yield_now().await;
            }
        });
    }

    async fn sink(sheet: &'static Sheet) -> ActorRef<Sink> {
        Sink::spawn_with_mailbox(Sink(sheet, 0), bounded(STREAM))
    }

    fn flood(to: ActorRef<Sink>, sheet: &'static Sheet) {
        CurrentThread::spawn(
            async move { while sheet.is_open() && to.tell([1; 6]).await.is_ok() {} },
        );
    }

    async fn idle(crowd: &'static Crowd) -> ActorRef<Rests> {
        Rests::spawn_with_mailbox(Rests(Idle::new(crowd)), bounded(crowd::MAILBOX))
    }

    fn poke(to: &ActorRef<Rests>, word: u64) -> bool {
        to.tell(word).try_send().is_ok()
    }

    /// It ends when nobody can reach it.
    fn end(idle: ActorRef<Rests>) {
        drop(idle);
    }
}
