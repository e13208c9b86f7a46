//! Agents in their slots: states of every shape, handlers that wait, credits, addresses that lie.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{eventually, start};
use tailbeam_runtime::{Addr, Agent, Config, Cx, Runtime, SendError, Stop};

/// Naps at `Nap`, and checks that numbers come in order.
struct Counter {
    next: u64,
    seen: Arc<AtomicU64>,
}

enum Count {
    Nap(u64),
    Number(u64),
    PanicAfterNap(u64),
}

impl Agent for Counter {
    type Msg = Count;
    const MAILBOX: u32 = 500;

    async fn on(&mut self, msg: Count, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            Count::Nap(ns) => nap(cx, ns).await,
            Count::PanicAfterNap(ns) => {
                nap(cx, ns).await;
                panic!("planned");
            }
            Count::Number(n) => {
                assert_eq!(n, self.next, "in the order they were sent");
                self.next += 1;
                self.seen.store(self.next, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

async fn nap(cx: &mut Cx<'_>, ns: u64) {
    let until = cx.fresh_ns() + ns;
    cx.sleep_until(until).await.expect("a timer is free");
}

fn counter(runtime: &Runtime, shard: usize) -> (Addr<Counter>, Arc<AtomicU64>) {
    let seen = Arc::<AtomicU64>::default();
    let theirs = Arc::clone(&seen);
    let make = move || Counter { next: 0, seen: theirs };
    (runtime.spawn_on(shard, make).expect("room"), seen)
}

#[test]
fn messages_wait_for_a_suspended_handler_in_their_order() {
    let Some(runtime) = start(Config::default()) else { return };
    for from in [0, runtime.shards() - 1] {
        let (address, seen) = counter(&runtime, 0);
        let send = move |cx: &mut Cx<'_>| {
            assert!(address.try_send(cx, Count::Nap(20_000_000)).is_ok());
            (0..400).filter(|&n| address.try_send(cx, Count::Number(n)).is_ok()).count()
        };
        assert_eq!(runtime.run_on(from, send), Ok(400));
        eventually("all were handled", || seen.load(Ordering::SeqCst) == 400);
    }
    assert!(runtime.shutdown().shards.iter().all(|shard| shard.drained));
}

#[test]
fn a_handler_that_panics_after_it_waited_ends_its_agent_and_counts_what_waited() {
    let Some(runtime) = start(Config::default()) else { return };
    let (address, seen) = counter(&runtime, 0);
    let send = move |cx: &mut Cx<'_>| {
        assert!(address.try_send(cx, Count::PanicAfterNap(5_000_000)).is_ok());
        (0..7).filter(|&n| address.try_send(cx, Count::Number(n)).is_ok()).count()
    };
    assert_eq!(runtime.run_on(0, send), Ok(7));
    eventually("ended", || runtime.stats()[0].panicked == 1);
    eventually("counted", || runtime.stats()[0].dead_letters == 7);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    assert!(runtime.shutdown().shards[0].drained);
}

/// A state of a given shape that checks its address and counts its drops.
struct Shaped<T> {
    _shape: T,
    dropped: Arc<AtomicU64>,
    seen: Arc<AtomicU64>,
}

impl<T> Drop for Shaped<T> {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl<T: 'static> Agent for Shaped<T> {
    type Msg = u64;

    async fn on(&mut self, n: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        assert_eq!(std::ptr::from_ref(self).addr() % align_of::<Self>(), 0);
        self.seen.fetch_add(n, Ordering::SeqCst);
        if n == 9 { Err(Stop) } else { Ok(()) }
    }
}

fn shaped<T: Copy + Send + 'static>(runtime: &Runtime, shape: T) {
    let (dropped, seen) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    for end in [9, 0] {
        let (theirs, heard) = (Arc::clone(&dropped), Arc::clone(&seen));
        let make = move || Shaped { _shape: shape, dropped: theirs, seen: heard };
        let address = runtime.spawn_on(0, make).expect("room");
        let tell = move |cx: &mut Cx<'_>| {
            address.try_send(cx, 1).is_ok() && address.try_send(cx, end).is_ok()
        };
        assert_eq!(runtime.run_on(0, tell), Ok(true));
    }
    eventually("heard", || seen.load(Ordering::SeqCst) == 11);
    eventually("the first has stopped", || dropped.load(Ordering::SeqCst) == 1);
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line;

#[repr(align(256))]
#[derive(Clone, Copy)]
struct FourLines;

#[test]
fn states_of_every_shape_lie_where_they_must_and_are_dropped_once() {
    let Some(runtime) = start(Config::default()) else { return };
    shaped(&runtime, ());
    shaped(&runtime, [1u8; 100]);
    shaped(&runtime, Line);
    shaped(&runtime, FourLines);
    shaped(&runtime, [1u64; 500]);
    shaped(&runtime, [1u64; 5_000]);
    assert_eq!(runtime.shutdown().shards[0].agents_live, 6);
}

/// Tells another type's agent something, at its own address.
struct Liar;

impl Agent for Liar {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let other = cx.me::<Shaped<()>>();
        assert!(other.try_send(cx, 1).is_ok(), "it is found out when it is delivered");
        Ok(())
    }
}

#[test]
fn an_address_of_another_type_or_runtime_reaches_nobody() {
    let Some(runtime) = start(Config::default()) else { return };
    let Some(other) = start(Config::default()) else { return };
    let liar = runtime.spawn_on(0, || Liar).expect("room");
    for lies in 1..=3 {
        assert!(runtime.run_on(0, move |cx| liar.try_send(cx, ()).is_ok()).expect("lives"));
        eventually("a dead letter", || runtime.stats()[0].dead_letters == lies);
    }
    // The same slot of another runtime holds an agent of another type.
    let (_, seen) = counter(&other, 0);
    for from in 0..other.shards() {
        let before: u64 = other.stats()[0].dead_letters;
        let sent = other.run_on(from, move |cx| liar.try_send(cx, ()).is_ok()).expect("lives");
        eventually("refused", || !sent || other.stats()[0].dead_letters == before + 1);
    }
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    assert_eq!(runtime.stats()[0].panicked + other.stats()[0].panicked, 0);
}

/// Reads until it is told to stop.
struct Small(Arc<AtomicU64>);

impl Agent for Small {
    type Msg = u64;
    const MAILBOX: u32 = 4;

    async fn on(&mut self, n: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.fetch_add(1, Ordering::SeqCst);
        match n {
            0 => Err(Stop),
            1 => Ok(()),
            ns => {
                nap(cx, ns).await;
                Ok(())
            }
        }
    }
}

/// Sends `count` messages as the mailbox allows.
fn pour(runtime: &Runtime, from: usize, to: Addr<Small>, mut count: u64) {
    while count > 0 {
        let sent = runtime.run_on(from, move |cx| {
            (0..count).take_while(|_| to.try_send(cx, 1).is_ok()).count() as u64
        });
        count -= sent.expect("lives");
    }
}

#[test]
fn credits_come_back_whatever_became_of_the_messages() {
    let Some(runtime) = start(Config::default()) else { return };
    let last = runtime.shards() - 1;
    for from in [0, last] {
        for life in 0..200 {
            let seen = Arc::<AtomicU64>::default();
            let theirs = Arc::clone(&seen);
            let to = runtime.spawn_on(0, move || Small(theirs)).expect("room");
            pour(&runtime, from, to, 11);
            eventually("all were read", || seen.load(Ordering::SeqCst) == 11);
            if life % 2 == 0 {
                // Its mailbox has its full room again, and no more.
                let fill = move |cx: &mut Cx<'_>| {
                    assert!(to.try_send(cx, 3_000_000).is_ok());
                    (0..6).filter(|_| to.try_send(cx, 1).is_ok()).count()
                };
                let more = runtime.run_on(from, fill).expect("lives");
                assert!((3..=4).contains(&more), "{more}");
            }
            // Accepted at least once; then the end is known.
            let gone = || {
                let answer = runtime.run_on(from, move |cx| to.try_send(cx, 0)).expect("lives");
                matches!(answer, Err(SendError::Gone(_)))
            };
            assert!(!gone());
            eventually("stopped", gone);
        }
    }
    assert!(runtime.shutdown().shards.iter().all(|shard| shard.drained));
}
