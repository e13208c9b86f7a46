//! Every work, once for all peers.

use std::future::pending;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use ::tokio::sync::{oneshot, watch};

use super::actors::{Actors, Book, CannotRun, Executor, run_on};
use super::{Begun, Job, Work};
use crate::clock;
use crate::crowd::{BURST, Crowd, Resident, Spawning, spawn_round};
use crate::figure::Round;
use crate::sheet::Tally;
use crate::worker::{Msg, Worker};

/// One in so many asks of a single client is timed: each across cores, few on one core, where a time stamp
/// would be a part of the figure.
const TIMED_ACROSS: u32 = 1;
const TIMED_ON_ONE: u32 = 16;
/// Time between two looks at whether a crowd has done something.
const LOOK_NS: u64 = 500_000;

/// Starts `work` on `A`.
pub(crate) fn begin<A: Actors>(work: Work, job: Job) -> Result<Begun, String> {
    let closed = |me| Worker::closed(job.sheet, me, job.agents);
    let begun = match work {
        Work::Ask => workers::<A>(job, &closed, Starts::All),
        Work::SamePair => workers::<A>(job, &closed, Starts::FirstOnly),
        Work::Light => {
            let thinking = |me| Worker::thinking(job.sheet, me, job.agents);
            workers::<A>(job, &thinking, Starts::All)
        }
        Work::Cross => across::<A>(job),
        Work::SameAsk => on_one::<A>(job),
        Work::Oneway => stream::<A>(job),
        Work::Spawn => measured::<A, _>(job, move || spawned_twice::<A>(job.crowd)),
        Work::Idle => measured::<A, _>(job, move || idle::<A>(job.crowd)),
        Work::Timers => Ok(Begun::NotRun("its timers are tokio's".to_owned())),
    };
    begun.or_else(|CannotRun(why)| Ok(Begun::NotRun(why)))
}

/// Who is told to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starts {
    /// Everybody; agents lie on both cores in turn.
    All,
    /// Agent 0; all lie on the first core.
    FirstOnly,
}

fn workers<A: Actors>(
    job: Job,
    make: &dyn Fn(u32) -> Worker,
    starts: Starts,
) -> Result<Begun, CannotRun> {
    let book: Book<A::Address> = Box::leak(Box::new(OnceLock::new()));
    let used = if starts == Starts::All { 2 } else { 1 };
    let (go, wait) = watch::channel(false);
    let mut lists = Vec::new();
    for (which, &core) in job.cores.iter().enumerate().take(used) {
        let mine = (0..job.agents).filter(|me| *me as usize % used == which);
        let workers: Vec<(u32, Worker)> = mine.map(|me| (me, make(me))).collect();
        let (send, receive) = channel();
        let mut wait = wait.clone();
        run_on::<A::Executor, _>(core, move || async move {
            let (mut addresses, mut starters) = (Vec::new(), Vec::new());
            for (me, worker) in workers {
                addresses.push(A::worker(worker, book).await);
                if starts == Starts::All || me == 0 {
                    starters.push(me);
                }
            }
            drop(send.send(addresses));
            // It fails when the process ends.
            drop(wait.wait_for(|go| *go).await);
            let Some(book) = book.get() else { return };
            let refused = starters.iter().filter(|me| !A::tell(&book[**me as usize], Msg::Start));
            refused.for_each(|_| job.sheet.refused());
            pending().await
        })?;
        lists.push(receive);
    }
    let set = book.set(gather(lists, job.agents));
    assert!(set.is_ok(), "the book is written once");
    job.sheet.start();
    let _ = go.send(true);
    // A receiver whose sender is gone would end at once.
    std::mem::forget(go);
    Ok(Begun::Works)
}

/// The addresses of all agents, in their order, from the lists of the cores.
fn gather<T>(lists: Vec<Receiver<Vec<T>>>, agents: u32) -> Vec<T> {
    let lists = lists.into_iter().map(|list| list.recv().expect("a core that began does not end"));
    let mut lists: Vec<_> = lists.map(Vec::into_iter).collect();
    let used = lists.len();
    let next = |me: usize| lists[me % used].next().expect("each core has its share");
    (0..agents as usize).map(next).collect()
}

/// A client on the first core asks a callee on the second; both cores are never idle.
fn across<A: Actors>(job: Job) -> Result<Begun, CannotRun> {
    let (give, take) = oneshot::channel();
    run_on::<A::Executor, _>(job.cores[1], move || async move {
        drop(give.send(A::callee().await));
        A::busy(job.sheet);
        pending().await
    })?;
    run_on::<A::Executor, _>(job.cores[0], move || async move {
        if let Ok(callee) = take.await {
            A::client(callee, Tally::new(job.sheet, 0, TIMED_ACROSS));
        }
        A::busy(job.sheet);
        pending().await
    })?;
    Ok(Begun::Works)
}

/// A client asks a callee on its own core.
fn on_one<A: Actors>(job: Job) -> Result<Begun, CannotRun> {
    run_on::<A::Executor, _>(job.cores[0], move || async move {
        A::client(A::callee().await, Tally::new(job.sheet, 0, TIMED_ON_ONE));
        pending().await
    })?;
    Ok(Begun::Works)
}

/// A sender on the first core, a receiver on the second.
fn stream<A: Actors>(job: Job) -> Result<Begun, CannotRun> {
    let (give, take) = oneshot::channel();
    run_on::<A::Executor, _>(job.cores[1], move || async move {
        drop(give.send(A::sink(job.sheet).await));
        pending().await
    })?;
    run_on::<A::Executor, _>(job.cores[0], move || async move {
        if let Ok(sink) = take.await {
            A::flood(sink, job.sheet);
        }
        pending().await
    })?;
    Ok(Begun::Works)
}

/// A round that a peer's first core measures by itself.
fn measured<A: Actors, F: Future<Output = Round> + 'static>(
    job: Job,
    make: impl FnOnce() -> F + Send + 'static,
) -> Result<Begun, CannotRun> {
    let (send, receive) = channel();
    run_on::<A::Executor, _>(job.cores[0], move || async move {
        drop(send.send(make().await));
        pending().await
    })?;
    Ok(Begun::Measured(receive.recv().expect("a core that began does not end")))
}

/// Waits until `done`, letting others run. It sleeps: a main task of monoio's that is always ready lets no
/// other run at all.
async fn wait<E: Executor>(done: impl Fn() -> bool) {
    while !done() {
        E::sleep_until(clock::now_ns() + LOOK_NS).await;
    }
}

/// The round of `spawn`.
pub(crate) async fn spawned_twice<A: Actors>(agents: u32) -> Round {
    let mut idles = room(agents);
    let (first, crowd) = spawned::<A>(&mut idles).await;
    idles.iter_mut().filter_map(Option::take).for_each(A::end);
    wait::<A::Executor>(|| crowd.ended() == u64::from(agents)).await;
    let (second, _) = spawned::<A>(&mut idles).await;
    // They end with the process.
    std::mem::forget(idles);
    spawn_round(first, second, agents)
}

/// Room for the addresses, touched before anything is measured: it is the program's own.
fn room<T>(agents: u32) -> Vec<Option<T>> {
    (0..agents).map(|_| None).collect()
}

async fn spawned<A: Actors>(idles: &mut [Option<A::Idle>]) -> (Spawning, &'static Crowd) {
    let crowd = Crowd::leak();
    let mut spawning = Spawning::begin();
    for place in idles.iter_mut() {
        *place = Some(A::idle(crowd).await);
    }
    spawning.spawned();
    wait::<A::Executor>(|| crowd.ready() == idles.len() as u64).await;
    (spawning.ready(), crowd)
}

/// The round of `idle`.
pub(crate) async fn idle<A: Actors>(agents: u32) -> Round {
    let mut idles = room(agents);
    // What the first of its kind allocates is not an agent's.
    spawned::<A>(&mut idles[..1]).await;
    let mut resident = Resident::before();
    let (_, crowd) = spawned::<A>(&mut idles[1..]).await;
    resident.idle();
    let all = || (0..BURST).flat_map(|_| idles[1..].iter().flatten());
    let taken = all().filter(|idle| A::poke(idle, 1)).count() as u64;
    wait::<A::Executor>(|| crowd.read() == taken).await;
    let round = resident.after(agents - 1);
    std::mem::forget(idles);
    round
}
