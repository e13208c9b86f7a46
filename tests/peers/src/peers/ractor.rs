//! ractor's actors on a tokio current_thread runtime per core. Their mailboxes have no bound.

use ::ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use super::actors::{Actors, Book, Local as _};
use super::tasks::Cell;
use super::tokio::CurrentThread;
use crate::clock;
use crate::crowd::{Crowd, Idle};
use crate::sheet::{Sheet, Tally};
use crate::worker::{Msg, Worker};

/// Messages of a stream between two asks that hold it back: nothing else does.
const PACED: u64 = 1_024;

type Done = Result<(), ActorProcessingErr>;

/// Its actors.
pub(crate) struct Ractor;

struct Asker(Book<ActorRef<Msg>>);

/// Has [`Msg::Due`] come when it is due: a task that sleeps, which is its only timer.
fn wind(worker: &Worker, last: Msg, me: &ActorRef<Msg>) {
    if let Some(due_ns) = worker.due_after(last) {
        drop(me.send_after(clock::until(due_ns), || Msg::Due));
    }
}

impl Actor for Asker {
    type Msg = Msg;
    type State = Worker;
    type Arguments = Worker;

    async fn pre_start(
        &self,
        _: ActorRef<Msg>,
        worker: Worker,
    ) -> Result<Worker, ActorProcessingErr> {
        Ok(worker)
    }

    async fn handle(&self, me: ActorRef<Msg>, msg: Msg, worker: &mut Worker) -> Done {
        let out = worker.on(msg);
        wind(worker, msg, &me);
        let Some((to, msg)) = out else { return Ok(()) };
        let sent = self.0.get().is_some_and(|book| Ractor::tell(&book[to as usize], msg));
        if !sent {
            worker.refused();
        }
        Ok(())
    }
}

struct Callee;

pub(crate) struct Query(u64, RpcReplyPort<u64>);

impl Actor for Callee {
    type Msg = Query;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Query>, (): ()) -> Done {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Query>, Query(n, reply): Query, (): &mut ()) -> Done {
        // An asker that has gone needs no answer.
        let _ = reply.send(n + 1);
        Ok(())
    }
}

struct Sink(&'static Sheet);

/// Of a stream.
pub(crate) enum Flow {
    Cell(Cell),
    Pace(RpcReplyPort<()>),
}

impl Actor for Sink {
    type Msg = Flow;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Flow>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(&self, _: ActorRef<Flow>, msg: Flow, count: &mut u64) -> Done {
        match msg {
            Flow::Cell(cell) => {
                *count += std::hint::black_box(cell[0]);
                self.0.received(*count);
            }
            Flow::Pace(reply) => drop(reply.send(())),
        }
        Ok(())
    }
}

struct Rests;

impl Actor for Rests {
    type Msg = u64;
    type State = Idle;
    type Arguments = Idle;

    async fn pre_start(&self, _: ActorRef<u64>, idle: Idle) -> Result<Idle, ActorProcessingErr> {
        idle.started();
        Ok(idle)
    }

    async fn handle(&self, _: ActorRef<u64>, word: u64, idle: &mut Idle) -> Done {
        idle.read(word);
        Ok(())
    }
}

/// Spawns without a name; it returns when the actor has started.
async fn spawn<A: Actor>(actor: A, arguments: A::Arguments) -> ActorRef<A::Msg> {
    let (actor, _) = Actor::spawn(None, actor, arguments).await.expect("it starts");
    actor
}

impl Actors for Ractor {
    type Executor = CurrentThread;
    type Address = ActorRef<Msg>;
    type Callee = ActorRef<Query>;
    type Sink = ActorRef<Flow>;
    type Idle = ActorRef<u64>;

    async fn worker(worker: Worker, book: Book<ActorRef<Msg>>) -> ActorRef<Msg> {
        spawn(Asker(book), worker).await
    }

    fn tell(to: &ActorRef<Msg>, msg: Msg) -> bool {
        to.cast(msg).is_ok()
    }

    async fn callee() -> ActorRef<Query> {
        spawn(Callee, ()).await
    }

    fn client(to: ActorRef<Query>, mut tally: Tally) {
        CurrentThread::spawn(async move {
            let mut n = 0;
            loop {
                tally.ask();
                match to.call(|reply| Query(n, reply), None).await {
                    Ok(answer) if answer.is_success() => n = answer.unwrap(),
                    _ => return,
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

    async fn sink(sheet: &'static Sheet) -> ActorRef<Flow> {
        spawn(Sink(sheet), ()).await
    }

    fn flood(to: ActorRef<Flow>, sheet: &'static Sheet) {
        CurrentThread::spawn(async move {
            while sheet.is_open() {
                for _ in 0..PACED {
                    if to.cast(Flow::Cell([1; 6])).is_err() {
                        return;
                    }
                }
                if to.call(Flow::Pace, None).await.is_err() {
                    return;
                }
            }
        });
    }

    async fn idle(crowd: &'static Crowd) -> ActorRef<u64> {
        spawn(Rests, Idle::new(crowd)).await
    }

    fn poke(to: &ActorRef<u64>, word: u64) -> bool {
        to.cast(word).is_ok()
    }

    fn end(idle: ActorRef<u64>) {
        idle.stop(None);
    }
}
