//! The runtime through its public boundary, on the real kernel.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use common::{eventually, start};
use tailbeam_runtime::{
    Addr, Agent, AskError, Config, Cores, Cx, NoObserver, Reply, Runtime, SendError, Stop,
};

struct Sink {
    seen: Arc<AtomicU64>,
    last: u64,
}

enum SinkMsg {
    Add(u64),
    Stop,
    Panic,
    Nap(u64),
    Double(u64, Reply<u64>),
    #[expect(dead_code, reason = "dropped unread: that is the case")]
    Forget(Reply<u64>),
    Timer(u64, u64),
}

impl Agent for Sink {
    type Msg = SinkMsg;
    const MAILBOX: u32 = 4;

    async fn on(&mut self, msg: SinkMsg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            SinkMsg::Add(n) => {
                self.seen.fetch_add(n, Ordering::SeqCst);
            }
            SinkMsg::Stop => return Err(Stop),
            SinkMsg::Panic => panic!("planned"),
            SinkMsg::Nap(ns) => {
                let until = cx.fresh_ns() + ns;
                cx.sleep_until(until).await.expect("a timer is free");
                assert!(cx.fresh_ns() >= until, "never early");
            }
            SinkMsg::Double(n, reply) => reply.send(cx, n * 2).expect("the ring has room"),
            SinkMsg::Forget(_) => {}
            SinkMsg::Timer(in_ns, token) => {
                let at = cx.fresh_ns() + in_ns;
                cx.notify_at(at, token).expect("a timer is free");
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, token: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        assert!(token > self.last, "in the order of deadlines");
        self.last = token;
        self.seen.fetch_add(token, Ordering::SeqCst);
        Ok(())
    }
}

fn sink(runtime: &Runtime, shard: usize) -> (Addr<Sink>, Arc<AtomicU64>) {
    let seen = Arc::new(AtomicU64::new(0));
    let theirs = Arc::clone(&seen);
    (runtime.spawn_on(shard, move || Sink { seen: theirs, last: 0 }).expect("room"), seen)
}

fn send(
    runtime: &Runtime,
    from: usize,
    to: Addr<Sink>,
    msg: SinkMsg,
) -> Result<(), SendError<SinkMsg>> {
    runtime.run_on(from, move |cx| to.try_send(cx, msg)).expect("the shard lives")
}

#[test]
fn messages_arrive_from_every_core_and_wake_sleepers() {
    let Some(runtime) = start(Config::default()) else { return };
    for to in 0..runtime.shards() {
        for from in 0..runtime.shards() {
            let (address, seen) = sink(&runtime, to);
            for n in [1, 2, 4] {
                send(&runtime, from, address, SinkMsg::Add(n)).map_err(|_| ()).expect("room");
            }
            eventually("delivered", || seen.load(Ordering::SeqCst) == 7);
        }
    }
    let report = runtime.shutdown();
    assert!(
        report.shards.iter().all(|shard| shard.drained && shard.messages_undelivered == 0),
        "{report:?}"
    );
}

#[test]
fn a_full_mailbox_hands_the_message_back_here_and_across_cores() {
    let Some(runtime) = start(Config::default()) else { return };
    let last = runtime.shards() - 1;
    for from in [0, last] {
        let (address, seen) = sink(&runtime, 0);
        send(&runtime, 0, address, SinkMsg::Nap(200_000_000)).map_err(|_| ()).expect("room");
        eventually("napping", || runtime.stats()[0].timers_pending > 0);
        let (accepted, returned) = runtime
            .run_on(from, move |cx| {
                let mut outcome = (0, 0);
                for n in 0..6 {
                    match address.try_send(cx, SinkMsg::Add(1)) {
                        Ok(()) => outcome.0 += 1,
                        Err(SendError::Full(SinkMsg::Add(1))) => outcome.1 += 1,
                        Err(_) => panic!("message {n}"),
                    }
                }
                outcome
            })
            .expect("lives");
        assert_eq!((accepted, returned), (4, 2));
        eventually("the kept ones are handled after the nap", || seen.load(Ordering::SeqCst) == 4);
    }
}

#[test]
fn a_bound_that_is_taken_away_lets_mail_pile_up_and_is_said_all_the_same() {
    let config = Config { mailboxes_min: 50_000, ..Config::default() };
    let Some(runtime) = start(config) else { return };
    let last = runtime.shards() - 1;
    assert_eq!(runtime.mailbox_bound::<Sink>(), 4 + 4 * last as u64);
    for from in [0, last] {
        let (address, seen) = sink(&runtime, 0);
        send(&runtime, 0, address, SinkMsg::Nap(1_000_000_000)).map_err(|_| ()).expect("room");
        eventually("napping", || runtime.stats()[0].timers_pending > 0);
        let mut accepted = 0;
        // In pieces, as a ring holds 4,096 messages.
        for _ in 0..4 {
            accepted += runtime
                .run_on(from, move |cx| {
                    (0..1_000).filter(|_| address.try_send(cx, SinkMsg::Add(1)).is_ok()).count()
                })
                .expect("lives");
        }
        assert_eq!(accepted, 4_000);
        eventually("all wait for it", || {
            let account = runtime.run_on(0, move |cx| cx.account(address.id()));
            account.expect("lives").is_some_and(|account| account.waiting == 4_000)
        });
        eventually("and are handled", || seen.load(Ordering::SeqCst) == 4_000);
    }
    let wrong = Config { mailboxes_min: 50_001, ..Config::default() };
    assert!(wrong.check().is_err());
}

#[test]
fn a_stopped_or_panicked_agent_is_gone_and_its_shard_lives() {
    let Some(runtime) = start(Config::default()) else { return };
    for (end, panicked) in [(SinkMsg::Stop, 0), (SinkMsg::Panic, 1)] {
        let (address, _) = sink(&runtime, 0);
        send(&runtime, 0, address, end).map_err(|_| ()).expect("room");
        let last = runtime.shards() - 1;
        eventually("gone", || {
            matches!(send(&runtime, last, address, SinkMsg::Add(1)), Err(SendError::Gone(_)))
        });
        let (next, seen) = sink(&runtime, 0);
        assert_ne!(next.handle(), address.handle(), "a stale address names nobody");
        send(&runtime, 0, next, SinkMsg::Add(9)).map_err(|_| ()).expect("room");
        eventually("the shard lives", || seen.load(Ordering::SeqCst) == 9);
        eventually("counted", || runtime.stats()[0].panicked == panicked);
    }
}

#[test]
fn timers_fire_in_order() {
    let Some(runtime) = start(Config::default()) else { return };
    let (address, seen) = sink(&runtime, 0);
    for (in_ms, token) in [(30, 4), (10, 1), (20, 2)] {
        send(&runtime, 0, address, SinkMsg::Timer(in_ms * 1_000_000, token))
            .map_err(|_| ())
            .expect("room");
    }
    eventually("all three", || seen.load(Ordering::SeqCst) == 7);
}

#[test]
fn an_ask_is_answered_or_expires() {
    let Some(runtime) = start(Config::default()) else { return };
    let (address, _) = sink(&runtime, runtime.shards() - 1);
    let (send_result, results) = mpsc::channel();
    struct Asker(Addr<Sink>, mpsc::Sender<Result<u64, ()>>);
    impl Agent for Asker {
        type Msg = bool;
        async fn on(&mut self, answered: bool, cx: &mut Cx<'_>) -> Result<(), Stop> {
            let deadline = cx.fresh_ns() + if answered { 5_000_000_000 } else { 20_000_000 };
            let result = cx
                .ask(self.0, deadline, |reply| {
                    if answered { SinkMsg::Double(21, reply) } else { SinkMsg::Forget(reply) }
                })
                .await;
            if let Err(AskError::Expired) = &result {
                assert!(cx.fresh_ns() >= deadline);
            }
            self.1.send(result.map_err(|_| ())).map_err(|_| Stop)
        }
    }
    let asker = runtime.spawn_on(0, move || Asker(address, send_result)).expect("room");
    for answered in [true, false, true] {
        runtime.run_on(0, move |cx| asker.try_send(cx, answered)).expect("lives").expect("room");
    }
    let got: Vec<_> =
        (0..3).map(|_| results.recv_timeout(Duration::from_secs(10)).expect("a result")).collect();
    assert_eq!(got, [Ok(42), Err(()), Ok(42)]);
}

#[test]
fn an_always_ready_agent_does_not_keep_its_core_from_others() {
    let config = Config { drain_ns: 50_000_000, ..Config::default() };
    let Some(runtime) = start(config) else { return };
    struct Busy;
    impl Agent for Busy {
        type Msg = ();
        async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
            let _ = cx.me::<Self>().try_send(cx, ());
            Ok(())
        }
    }
    let busy = runtime.spawn_on(0, || Busy).expect("room");
    runtime.run_on(0, move |cx| busy.try_send(cx, ())).expect("lives").expect("room");
    let (address, seen) = sink(&runtime, 0);
    let last = runtime.shards() - 1;
    let before = runtime.stats()[0].turns;
    for _ in 0..100 {
        let sent = seen.load(Ordering::SeqCst);
        send(&runtime, last, address, SinkMsg::Add(1)).map_err(|_| ()).expect("room");
        eventually("delivered beside the busy one", || seen.load(Ordering::SeqCst) > sent);
    }
    eventually("the busy one went on", || runtime.stats()[0].turns > before + 100);
    assert!(
        !runtime.shutdown().shards[0].drained,
        "it is never done, and the drain's time ends it"
    );
}

#[test]
fn a_million_messages_cross_the_cores_and_none_is_lost() {
    let Some(runtime) = start(Config::default()) else { return };
    struct Ping {
        peer: Option<Addr<Ping>>,
        left: u64,
        seen: Arc<AtomicU64>,
    }
    enum Ball {
        Peer(Addr<Ping>),
        Hit,
    }
    impl Agent for Ping {
        type Msg = Ball;
        async fn on(&mut self, ball: Ball, cx: &mut Cx<'_>) -> Result<(), Stop> {
            match ball {
                Ball::Peer(peer) => self.peer = Some(peer),
                Ball::Hit => {
                    self.seen.fetch_add(1, Ordering::Relaxed);
                    self.left -= 1;
                    if self.left > 0 {
                        let peer = self.peer.expect("told before the first ball");
                        peer.try_send(cx, Ball::Hit).map_err(|_| Stop)?;
                    }
                }
            }
            Ok(())
        }
    }
    let seen = Arc::new(AtomicU64::new(0));
    let pairs = 64;
    let balls = 4_000;
    for _ in 0..pairs {
        let last = runtime.shards() - 1;
        let (one, two) = (Arc::clone(&seen), Arc::clone(&seen));
        let a =
            runtime.spawn_on(0, move || Ping { peer: None, left: balls, seen: one }).expect("room");
        let b = runtime
            .spawn_on(last, move || Ping { peer: None, left: balls, seen: two })
            .expect("room");
        runtime
            .run_on(0, move |cx| {
                assert!(
                    a.try_send(cx, Ball::Peer(b)).is_ok() && b.try_send(cx, Ball::Peer(a)).is_ok()
                );
                assert!(a.try_send(cx, Ball::Hit).is_ok());
            })
            .expect("lives");
    }
    eventually("every ball was hit", || seen.load(Ordering::Relaxed) == pairs * (2 * balls - 1));
}

#[test]
fn what_cannot_start_says_why() {
    let refuse =
        |config: Config| Runtime::start(config, |_| NoObserver).expect_err("refused").to_string();
    let bad_core = refuse(Config { cores: Cores::List(vec![4_000]), ..Config::default() });
    assert!(
        bad_core.contains("core 4000 is not allowed") && bad_core.contains("remedy:"),
        "{bad_core}"
    );
    assert!(
        refuse(Config { cores: Cores::List(vec![0, 0]), ..Config::default() }).contains("twice")
    );
    assert!(refuse(Config { cores: Cores::List(vec![]), ..Config::default() }).contains("no core"));
    assert!(refuse(Config { peer_ring_slots: 3, ..Config::default() }).contains("power of two"));
    assert!(refuse(Config { agents_max: 0, ..Config::default() }).contains("agents_max"));
}

#[test]
fn a_full_table_hands_the_agent_back_and_a_drain_ends() {
    let Some(runtime) = start(Config { agents_max: 2, drain_ns: 50_000_000, ..Config::default() })
    else {
        return;
    };
    let refused = runtime
        .run_on(0, |cx| {
            (0..3).filter(|_| cx.spawn(Sink { seen: Arc::default(), last: 0 }).is_err()).count()
        })
        .expect("lives");
    assert_eq!(refused, 1);
    let report = runtime.shutdown();
    assert_eq!(report.shards[0].agents_live, 2);
}

/// Panics when nobody has read it.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("planned");
    }
}

#[test]
fn a_message_whose_drop_panics_takes_no_shard_down() {
    let Some(runtime) = start(Config::default()) else { return };
    struct Holder;
    enum Held {
        Stop,
        Grenade(Grenade),
    }
    impl Agent for Holder {
        type Msg = Held;
        async fn on(&mut self, held: Held, _: &mut Cx<'_>) -> Result<(), Stop> {
            match held {
                Held::Stop => Err(Stop),
                Held::Grenade(grenade) => {
                    std::mem::forget(grenade);
                    Ok(())
                }
            }
        }
    }
    let last = runtime.shards() - 1;
    let holder = runtime.spawn_on(last, || Holder).expect("room");
    let plant = move |cx: &mut Cx<'_>| {
        let stop = holder.try_send(cx, Held::Stop).is_ok();
        // Unread when its agent stops, in the mailbox or on the way.
        stop && holder.try_send(cx, Held::Grenade(Grenade)).is_ok()
    };
    assert!(runtime.run_on(0, plant).expect("lives"));
    eventually("stopped", || runtime.stats()[last].stopped == 1);
    assert_eq!(runtime.run_on(last, |cx| cx.shard_index()), Ok(last));
    let report = runtime.shutdown();
    assert!(report.shards.iter().all(|shard| shard.drained), "{report:?}");
}
