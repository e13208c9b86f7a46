//! The registry of waits and wakers, through the real runtime: handlers that nobody can wake, wakers of agents that
//! have ended, and clean twins of both.

mod common;

use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use common::{eventually, start};
use tailbeam_runtime::{
    Addr, Agent, Config, Cx, Registry, Reply, Runtime, Stop, WaitFor, Waiting, clock,
};

/// Where wakers are kept by others than the runtime.
type Kept = Arc<Mutex<Vec<Waker>>>;

enum Do {
    /// Waits for what never comes.
    Forget,
    /// Leaves its waker and waits until it is woken.
    Leave(Kept),
    /// Leaves two wakers and does not wait.
    LeaveAndGoOn(Kept),
    /// Leaves its waker and ends.
    LeaveAndEnd(Kept),
    Sleep(u64),
    Ask(Addr<Answerer>),
    Nothing,
}

struct Worker;

impl Agent for Worker {
    type Msg = Do;

    async fn on(&mut self, what: Do, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match what {
            Do::Forget => pending().await,
            Do::Leave(kept) => until_woken(&kept).await,
            Do::LeaveAndGoOn(kept) => {
                leave(&kept).await;
                leave(&kept).await;
            }
            Do::LeaveAndEnd(kept) => {
                leave(&kept).await;
                return Err(Stop);
            }
            Do::Sleep(until_ns) => cx.sleep_until(until_ns).await.expect("a timer is free"),
            Do::Ask(whom) => {
                let deadline_ns = cx.fresh_ns() + 60_000_000_000;
                assert_eq!(cx.ask(whom, deadline_ns, |reply| reply).await.ok(), Some(7));
            }
            Do::Nothing => {}
        }
        Ok(())
    }
}

/// Answers the first ask when the second comes, and that one at once.
#[derive(Default)]
struct Answerer(Option<Reply<u64>>);

impl Agent for Answerer {
    type Msg = Reply<u64>;

    async fn on(&mut self, reply: Reply<u64>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        if let Some(first) = self.0.replace(reply) {
            assert!(first.send(cx, 7).is_ok());
            let second = self.0.take().expect("just put");
            assert!(second.send(cx, 7).is_ok());
        }
        Ok(())
    }
}

async fn leave(kept: &Kept) {
    poll_fn(|context| {
        kept.lock().expect("no panic").push(context.waker().clone());
        Poll::Ready(())
    })
    .await;
}

async fn until_woken(kept: &Kept) {
    let mut left = false;
    poll_fn(|context| {
        if std::mem::replace(&mut left, true) {
            return Poll::Ready(());
        }
        kept.lock().expect("no panic").push(context.waker().clone());
        Poll::Pending
    })
    .await;
}

fn tell(runtime: &Runtime, worker: Addr<Worker>, what: Do) {
    let sent = runtime.run_on(worker.shard(), move |cx| worker.try_send(cx, what).is_ok());
    assert_eq!(sent, Ok(true));
}

fn worker(runtime: &Runtime, shard: usize, what: Do) -> Addr<Worker> {
    let worker = runtime.spawn_on(shard, || Worker).expect("room");
    tell(runtime, worker, what);
    worker
}

fn read(runtime: &Runtime) -> Registry {
    runtime.registry().expect("the shards live")
}

/// The registry when it holds; the last one otherwise.
fn when(runtime: &Runtime, what: &str, holds: impl Fn(&Registry) -> bool) -> Registry {
    eventually(what, || holds(&read(runtime)));
    read(runtime)
}

fn of(registry: &Registry, wait_for: WaitFor) -> Vec<Waiting> {
    registry.waiting.iter().filter(|of| of.wait_for == wait_for).copied().collect()
}

fn is_clean(registry: &Registry) -> bool {
    registry.forgotten().count() == 0
        && (registry.late.len(), registry.late_unlisted, registry.idle_wakers) == (0, 0, 0)
}

#[test]
fn a_handler_that_nobody_can_wake_is_forgotten_and_so_is_a_spawned_future() {
    let Some(runtime) = start(Config::default()) else { return };
    let before_ns = clock::monotonic_ns();
    let last = runtime.shards() - 1;
    let forgetful = worker(&runtime, last, Do::Forget);
    tell(&runtime, forgetful, Do::Nothing);
    tell(&runtime, forgetful, Do::Nothing);
    let spawn = |cx: &mut Cx<'_>| (0..5).all(|_| cx.spawn_future(pending()).is_ok());
    assert_eq!(runtime.run_on(0, spawn), Ok(true));
    let both = |registry: &Registry| {
        registry.forgotten().map(|of| of.handlers + of.messages).sum::<u64>() == 8
    };
    let registry = when(&runtime, "all have been polled", both);
    let forgotten = of(&registry, WaitFor::Nothing);
    let agent = forgotten.iter().find(|of| of.message.is_some()).expect("an agent");
    assert!(agent.type_name.ends_with("::Worker"), "{agent:?}");
    assert!(agent.message.is_some_and(|name| name.ends_with("::Do")), "{agent:?}");
    assert_eq!((agent.handlers, agent.messages, agent.wakers), (1, 2, 0));
    assert_eq!(agent.oldest, forgetful.id());
    assert!(agent.bytes > 0 && agent.since_ns <= agent.polled_ns, "{agent:?}");
    assert!((before_ns..=registry.at_ns).contains(&agent.polled_ns), "{agent:?}");
    let tasks = forgotten.iter().find(|of| of.message.is_none()).expect("futures");
    assert_eq!((tasks.handlers, tasks.wakers), (5, 0));
    assert!(tasks.type_name.contains("Pending<()>"), "{tasks:?}");
    // Whom somebody kills is forgotten no more.
    assert!(runtime.run_on(last, move |cx| cx.kill(forgetful.id())).is_ok());
    let left = when(&runtime, "killed", |registry| of(registry, WaitFor::Nothing).len() == 1);
    assert_eq!(of(&left, WaitFor::Nothing)[0].handlers, 5);
}

#[test]
fn what_can_be_woken_is_not_forgotten_and_leaves_nothing_behind() {
    let Some(runtime) = start(Config::default()) else { return };
    let kept = Kept::default();
    let answerer = runtime.spawn_on(runtime.shards() - 1, Answerer::default).expect("room");
    let wake_ns = clock::monotonic_ns() + 300_000_000;
    worker(&runtime, 0, Do::Sleep(wake_ns));
    worker(&runtime, 0, Do::Leave(Arc::clone(&kept)));
    worker(&runtime, 0, Do::Ask(answerer));
    let registry = when(&runtime, "all wait", |registry| registry.waiting.len() == 3);
    assert!(is_clean(&registry), "{registry:?}");
    for (wait_for, wakers) in [(WaitFor::Timer, 0), (WaitFor::Waker, 1), (WaitFor::Answer, 0)] {
        let one = of(&registry, wait_for);
        assert_eq!((one.len(), one[0].handlers, one[0].wakers), (1, 1, wakers), "{one:?}");
    }
    // The second ask has both answered; the waker is woken on this thread, and so used up.
    worker(&runtime, 0, Do::Ask(answerer));
    kept.lock().expect("no panic").drain(..).for_each(Waker::wake);
    let registry = when(&runtime, "all have ended", |registry| registry.waiting.is_empty());
    assert!(is_clean(&registry), "{registry:?}");
}

#[test]
fn a_handler_is_forgotten_when_its_last_waker_is_dropped_wherever_that_is() {
    let Some(runtime) = start(Config::default()) else { return };
    let last = runtime.shards() - 1;
    for place in [Some(0), Some(last), None] {
        let kept = Kept::default();
        let worker = worker(&runtime, 0, Do::Leave(Arc::clone(&kept)));
        eventually("it waits", || !kept.lock().expect("no panic").is_empty());
        // A clone made here counts as one made there.
        let more = kept.lock().expect("no panic")[0].clone();
        let registry = when(&runtime, "both count", |registry| {
            of(registry, WaitFor::Waker).iter().any(|of| of.wakers == 2)
        });
        assert!(is_clean(&registry), "{registry:?}");
        drop(more);
        let drop_all = move || kept.lock().expect("no panic").clear();
        match place {
            Some(shard) => runtime.run_on(shard, move |_| drop_all()).expect("lives"),
            None => drop_all(),
        }
        let registry = when(&runtime, "forgotten", |registry| registry.forgotten().count() == 1);
        assert_eq!(of(&registry, WaitFor::Nothing)[0].oldest, worker.id());
        assert!(runtime.run_on(0, move |cx| cx.kill(worker.id())).is_ok());
        when(&runtime, "killed", |registry| registry.waiting.is_empty());
    }
}

#[test]
fn wakers_of_agents_that_have_ended_are_late_until_they_are_dropped() {
    let Some(runtime) = start(Config::default()) else { return };
    let kept = Kept::default();
    let ended: Vec<_> =
        (0..3).map(|_| worker(&runtime, 0, Do::LeaveAndEnd(Arc::clone(&kept)))).collect();
    let registry = when(&runtime, "all have ended", |registry| {
        registry.late.first().is_some_and(|late| late.agents == 3)
    });
    assert!(registry.waiting.is_empty() && registry.idle_wakers == 0, "{registry:?}");
    let late = registry.late[0];
    assert!(late.type_name.ends_with("::Worker") && registry.late.len() == 1, "{late:?}");
    assert_eq!((late.wakers, late.first), (3, ended[0].id()));
    // A waker that comes too late wakes nobody, and is gone.
    kept.lock().expect("no panic").pop().expect("kept").wake();
    let registry = when(&runtime, "one is gone", |registry| registry.late[0].agents == 2);
    assert_eq!(registry.late[0].wakers, 2);
    // Whoever lives in one of their slots now has no waker out.
    let twin = worker(&runtime, 0, Do::Nothing);
    assert_eq!(read(&runtime).idle_wakers, 0);
    kept.lock().expect("no panic").clear();
    when(&runtime, "all are gone", is_clean);
    // Wakers of an agent that lives on and waits for nothing are neither late nor waited for.
    tell(&runtime, twin, Do::LeaveAndGoOn(Arc::clone(&kept)));
    let registry = when(&runtime, "two are out", |registry| registry.idle_wakers == 2);
    assert!(registry.late.is_empty() && registry.waiting.is_empty(), "{registry:?}");
    assert!(runtime.run_on(0, move |_| kept.lock().expect("no panic").clear()).is_ok());
    when(&runtime, "all are gone", is_clean);
    drop(runtime.shutdown());
}
