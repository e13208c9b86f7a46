//! The end of a runtime: every message that was accepted is read or counted, and dropped once.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread;

use common::{eventually, start};
use tailbeam_runtime::{Addr, Agent, Config, Cx, Reply, Runtime, SendError, ShutdownReport, Stop};

/// Counts what it reads.
struct Reader(Arc<AtomicU64>);

impl Agent for Reader {
    type Msg = Arc<()>;
    const MAILBOX: u32 = 50_000;

    async fn on(&mut self, _: Arc<()>, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Sends one message a turn, and goes on while it is asked to.
struct Writer {
    to: Addr<Reader>,
    left: u64,
    payload: Arc<()>,
    accepted: Arc<AtomicU64>,
}

impl Agent for Writer {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        if self.to.try_send(cx, Arc::clone(&self.payload)).is_ok() {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            self.left = self.left.saturating_sub(1);
        }
        if self.left > 0 {
            cx.me::<Self>().try_send(cx, ()).map_err(|_| Stop)?;
        }
        Ok(())
    }
}

struct Flood {
    accepted: u64,
    read: u64,
    report: ShutdownReport,
    payloads: usize,
}

/// Shuts a runtime down while every shard writes `messages` to a reader on the next one.
fn flood(runtime: Runtime, messages: u64) -> Flood {
    let (accepted, read) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let payload = Arc::new(());
    let shards = runtime.shards();
    for shard in 0..shards {
        let theirs = Arc::clone(&read);
        let to = runtime.spawn_on((shard + 1) % shards, move || Reader(theirs)).expect("room");
        let (payload, accepted) = (Arc::clone(&payload), Arc::clone(&accepted));
        let writer = move || Writer { to, left: messages, payload, accepted };
        let writer = runtime.spawn_on(shard, writer).expect("room");
        runtime.run_on(shard, move |cx| writer.try_send(cx, ())).expect("lives").expect("room");
    }
    let report = runtime.shutdown();
    let total = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let payloads = Arc::strong_count(&payload) - 1;
    Flood { accepted: total(&accepted), read: total(&read), report, payloads }
}

impl Flood {
    fn undelivered(&self) -> u64 {
        self.report.shards.iter().map(|shard| shard.messages_undelivered).sum()
    }
}

#[test]
fn a_drain_waits_for_what_other_shards_still_send() {
    let Some(runtime) = start(Config::default()) else { return };
    let shards = runtime.shards() as u64;
    let flood = flood(runtime, 20_000);
    assert!(flood.report.shards.iter().all(|shard| shard.drained), "{:?}", flood.report);
    assert_eq!((flood.accepted, flood.read), (shards * 20_000, shards * 20_000));
    assert_eq!((flood.undelivered(), flood.payloads), (0, 0));
}

#[test]
fn what_a_cut_drain_leaves_is_counted_and_dropped() {
    for drain_ns in [0, 1_000_000, 20_000_000] {
        let Some(runtime) = start(Config { drain_ns, ..Config::default() }) else { return };
        let flood = flood(runtime, u64::MAX);
        assert!(flood.report.shards.iter().any(|shard| !shard.drained), "{:?}", flood.report);
        // The one message that each writer sends itself may be unread too.
        let own = flood.report.shards.len() as u64;
        let unread = flood.accepted - flood.read;
        assert!((unread..=unread + own).contains(&flood.undelivered()), "{:?}", flood.report);
        assert_eq!(flood.payloads, 0, "every payload was dropped");
    }
}

/// Holds a message back: its handler never ends.
struct Stuck;

impl Agent for Stuck {
    type Msg = u8;

    async fn on(&mut self, _: u8, _: &mut Cx<'_>) -> Result<(), Stop> {
        std::future::pending().await
    }
}

#[test]
fn a_message_that_waits_in_a_mailbox_is_not_drained() {
    let Some(runtime) = start(Config { drain_ns: 30_000_000, ..Config::default() }) else { return };
    let stuck = runtime.spawn_on(0, || Stuck).expect("room");
    let last = runtime.shards() - 1;
    for n in 0..3 {
        runtime.run_on(last, move |cx| stuck.try_send(cx, n)).expect("lives").expect("room");
    }
    let report = runtime.shutdown().shards[0];
    assert_eq!((report.messages_undelivered, report.drained), (2, false));
}

/// Its handler sends and spawns when it is dropped.
struct LastWord {
    to: Addr<Reader>,
    said: Arc<AtomicU64>,
}

struct SaysOnDrop<'a, 'b>(&'a mut Cx<'b>, Addr<Reader>, Arc<AtomicU64>);

impl Drop for SaysOnDrop<'_, '_> {
    fn drop(&mut self) {
        let sent = self.1.try_send(self.0, Arc::new(()));
        let spawned = self.0.spawn(Stuck).is_ok();
        let refused = matches!(sent, Err(SendError::Gone(_))) && !spawned;
        self.2.store(if refused { 1 } else { 2 }, Ordering::Relaxed);
    }
}

impl Agent for LastWord {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let _last = SaysOnDrop(cx, self.to, Arc::clone(&self.said));
        std::future::pending().await
    }
}

#[test]
fn a_send_from_a_drop_is_refused_on_every_core() {
    let Some(runtime) = start(Config::default()) else { return };
    for target in [0, runtime.shards() - 1] {
        let Some(runtime) = start(Config::default()) else { return };
        let (said, read) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let to = runtime.spawn_on(target, move || Reader(read)).expect("room");
        let theirs = Arc::clone(&said);
        let one = runtime.spawn_on(0, move || LastWord { to, said: theirs }).expect("room");
        runtime.run_on(0, move |cx| one.try_send(cx, ())).expect("lives").expect("room");
        let report = runtime.shutdown();
        assert_eq!(said.load(Ordering::Relaxed), 1, "refused");
        assert!(report.shards.iter().all(|shard| shard.drained), "{report:?}");
    }
}

struct Answerer;

impl Agent for Answerer {
    type Msg = Reply<u64>;

    async fn on(&mut self, reply: Reply<u64>, cx: &mut Cx<'_>) -> Result<(), Stop> {
        reply.send(cx, 7).map_err(|_| Stop)
    }
}

struct Asker(Addr<Answerer>, u64, Arc<AtomicU64>);

impl Agent for Asker {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        for _ in 0..self.1 {
            let deadline = cx.fresh_ns() + 10_000_000_000;
            match cx.ask(self.0, deadline, |reply| reply).await {
                Ok(answer) => self.2.fetch_add(answer, Ordering::Relaxed),
                Err(_) => return Err(Stop),
            };
        }
        Ok(())
    }
}

#[test]
fn an_answer_on_its_way_is_waited_for() {
    let Some(runtime) = start(Config::default()) else { return };
    let answerer = runtime.spawn_on(runtime.shards() - 1, || Answerer).expect("room");
    let sum = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&sum);
    let asker = runtime.spawn_on(0, move || Asker(answerer, 500, theirs)).expect("room");
    runtime.run_on(0, move |cx| asker.try_send(cx, ())).expect("lives").expect("room");
    let report = runtime.shutdown();
    assert_eq!(sum.load(Ordering::Relaxed), 3_500, "{report:?}");
    assert!(report.shards.iter().all(|shard| shard.drained), "{report:?}");
}

/// A flood of wakes from a thread without a ring costs at most one entry per task.
#[test]
fn wakes_from_outside_are_bounded_by_the_tasks() {
    let Some(runtime) = start(Config::default()) else { return };
    let (send, receive) = std::sync::mpsc::channel::<Waker>();
    let polls = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&polls);
    let spawned = runtime.run_on(0, move |cx| {
        let waiting = std::future::poll_fn(move |context| {
            theirs.fetch_add(1, Ordering::Relaxed);
            let _ = send.send(context.waker().clone());
            Poll::<()>::Pending
        });
        cx.spawn_future(waiting).is_ok()
    });
    assert_eq!(spawned, Ok(true));
    let waker = receive.recv().expect("polled once");
    // The shard is held while the wakes come, so that they could only pile up.
    let (hold, held) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let (theirs, mine) = (Arc::clone(&hold), Arc::clone(&held));
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime.run_on(0, move |_| {
                mine.store(1, Ordering::SeqCst);
                while theirs.load(Ordering::SeqCst) == 0 {
                    thread::yield_now();
                }
            })
        });
        eventually("held", || held.load(Ordering::SeqCst) == 1);
        let before = polls.load(Ordering::SeqCst);
        (0..100_000).for_each(|_| waker.wake_by_ref());
        hold.store(1, Ordering::SeqCst);
        eventually("polled again", || polls.load(Ordering::SeqCst) > before);
        assert!(runtime.run_on(0, |_| ()).is_ok());
        assert_eq!(polls.load(Ordering::SeqCst), before + 1, "100,000 wakes are one poll");
    });
}
