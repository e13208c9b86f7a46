//! Asks: deadlines and cancels that reach the callee, replies that are dropped, and cycles.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Poll;
use std::time::Duration;

use common::{eventually, start};
use tailbeam_runtime::{Addr, Agent, AskError, Config, Cx, Reply, Runtime, SendError, Stop};

const MS: u64 = 1_000_000;

/// Answers as it is told.
struct Callee(Sender<&'static str>);

enum Question {
    Answer(Reply<[u64; 8]>),
    Drop(Reply<u64>),
    Keep(Reply<u64>),
    Sleep(u64),
    Panic(Reply<u64>),
    Watch(Reply<u64>),
}

impl Agent for Callee {
    type Msg = Question;
    const MAILBOX: u32 = 4;

    async fn on(&mut self, question: Question, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match question {
            Question::Answer(reply) => reply.send(cx, [7; 8]).map_err(|_| Stop),
            Question::Drop(reply) => {
                drop(reply);
                Ok(())
            }
            Question::Keep(reply) => {
                self.0.send("began").unwrap();
                std::mem::forget(reply);
                Ok(())
            }
            Question::Sleep(ns) => {
                let at_ns = cx.fresh_ns() + ns;
                cx.sleep_until(at_ns).await.map_err(|_| Stop)
            }
            Question::Panic(_reply) => panic!("planted"),
            Question::Watch(reply) => {
                self.0.send("watches").unwrap();
                while !reply.is_cancelled(cx) {
                    let at_ns = cx.fresh_ns() + MS;
                    cx.sleep_until(at_ns).await.map_err(|_| Stop)?;
                }
                self.0.send("cancelled").map_err(|_| Stop)
            }
        }
    }
}

/// Asks what it is told, and says how it ended.
struct Asker(Addr<Callee>, Sender<String>);

enum Do {
    Answer,
    /// With the last deadline that there is.
    AnswerEver,
    Drop,
    Panic,
    /// Asks to keep, with that deadline, and gives up after that time if it is shorter.
    Keep {
        deadline_ns: u64,
        drop_ns: u64,
    },
    Watch {
        drop_ns: u64,
    },
    /// Asks to keep, and waits for what becomes of it.
    Forgotten,
}

fn text<R: std::fmt::Debug>(result: Result<R, AskError<Question>>) -> String {
    match result {
        Ok(answer) => format!("{answer:?}"),
        Err(AskError::Expired) => "expired".to_owned(),
        Err(AskError::Dropped) => "dropped".to_owned(),
        Err(AskError::Send(SendError::Gone(_))) => "gone".to_owned(),
        Err(AskError::Send(_)) => "full".to_owned(),
        Err(AskError::Cycle { agents }) => format!("cycle of {agents}"),
        Err(AskError::Full) => "no timer".to_owned(),
        Err(_) => "other".to_owned(),
    }
}

/// Waits for a future until a time, then drops it.
async fn within<F: Future>(cx: &mut Cx<'_>, at_ns: u64, future: F) -> Option<F::Output> {
    let (mut future, mut sleep) = (pin!(future), pin!(cx.sleep_until(at_ns)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => sleep.as_mut().poll(context).map(|_| None),
    })
    .await
}

impl Agent for Asker {
    type Msg = Do;

    async fn on(&mut self, what: Do, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now_ns = cx.fresh_ns();
        let late_ns = now_ns + 10_000 * MS;
        let said = match what {
            Do::Answer => text(cx.ask(self.0, late_ns, Question::Answer).await),
            Do::AnswerEver => text(cx.ask(self.0, u64::MAX, Question::Answer).await),
            Do::Drop => text(cx.ask(self.0, late_ns, Question::Drop).await),
            Do::Panic => text(cx.ask(self.0, late_ns, Question::Panic).await),
            Do::Forgotten => text(cx.ask(self.0, late_ns, Question::Keep).await),
            Do::Keep { deadline_ns, drop_ns } => {
                let asked = cx.ask(self.0, now_ns + deadline_ns, Question::Keep);
                within(cx, now_ns + drop_ns, asked).await.map_or("gave up".to_owned(), text)
            }
            Do::Watch { drop_ns } => {
                let asked = cx.ask(self.0, late_ns, Question::Watch);
                within(cx, now_ns + drop_ns, asked).await.map_or("gave up".to_owned(), text)
            }
        };
        self.1.send(said).map_err(|_| Stop)
    }
}

struct Scene {
    runtime: Runtime,
    callee: Addr<Callee>,
    asker: Addr<Asker>,
    began: Receiver<&'static str>,
    said: Receiver<String>,
}

impl Scene {
    fn new(pair: (usize, usize)) -> Option<Self> {
        Self::with_timers(pair, Config::default().timers_max)
    }

    fn with_timers((here, there): (usize, usize), timers_max: u32) -> Option<Self> {
        let runtime = start(Config { drain_ns: 0, timers_max, ..Config::default() })?;
        let there = there.min(runtime.shards() - 1);
        let ((begin, began), (say, said)) = (channel(), channel());
        let callee = runtime.spawn_on(there, move || Callee(begin)).unwrap();
        let asker = runtime.spawn_on(here, move || Asker(callee, say)).unwrap();
        Some(Self { runtime, callee, asker, began, said })
    }

    fn ask(&self, what: Do) {
        let asker = self.asker;
        assert!(self.runtime.run_on(0, move |cx| asker.try_send(cx, what).is_ok()).unwrap());
    }

    fn tell(&self, question: Question) {
        let callee = self.callee;
        let tell = move |cx: &mut Cx<'_>| callee.try_send(cx, question).is_ok();
        assert!(self.runtime.run_on(callee.shard(), tell).unwrap());
    }

    fn said(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    fn sum(&self, of: fn(&tailbeam_runtime::ShardStats) -> u64) -> u64 {
        self.runtime.stats().iter().map(of).sum()
    }
}

const PAIRS: [(usize, usize); 2] = [(0, 0), (0, 1)];

#[test]
fn an_answer_of_any_size_comes_and_a_dropped_reply_is_said_at_once() {
    for pair in PAIRS {
        let Some(scene) = Scene::new(pair) else { return };
        scene.ask(Do::Answer);
        assert_eq!(scene.said(), "[7, 7, 7, 7, 7, 7, 7, 7]");
        scene.ask(Do::AnswerEver);
        assert_eq!(
            scene.said(),
            "[7, 7, 7, 7, 7, 7, 7, 7]",
            "a deadline that never comes is not over"
        );
        scene.ask(Do::Drop);
        assert_eq!(scene.said(), "dropped");
        // The callee fails with the question in hand, and is gone for the next.
        scene.ask(Do::Panic);
        assert_eq!(scene.said(), "dropped");
        scene.ask(Do::Answer);
        let said = scene.said();
        // Another core hears of the end with the first message in vain.
        assert!(said == "gone" || said == "dropped", "{said}");
        scene.ask(Do::Answer);
        assert_eq!(scene.said(), "gone");
        eventually("every ask is closed", || scene.sum(|shard| shard.asks_open) == 0);
    }
}

/// Most answers of the own core come within the pass: such an ask never has a timer, and needs no room for one.
#[test]
fn an_ask_has_a_timer_only_when_it_outlives_the_pass() {
    let Some(scene) = Scene::with_timers((0, 0), 1) else { return };
    let (begin, _began) = channel();
    let sleeper = scene.runtime.spawn_on(0, move || Callee(begin)).unwrap();
    let sleep = move |cx: &mut Cx<'_>| sleeper.try_send(cx, Question::Sleep(10_000 * MS)).is_ok();
    assert!(scene.runtime.run_on(0, sleep).unwrap());
    eventually("the only timer is taken", || scene.sum(|shard| shard.timers_pending) == 1);
    for _ in 0..10 {
        scene.ask(Do::Answer);
        assert_eq!(scene.said(), "[7, 7, 7, 7, 7, 7, 7, 7]");
    }
    scene.ask(Do::Forgotten);
    assert_eq!(scene.said(), "no timer");
    assert_eq!(scene.began.recv_timeout(Duration::from_secs(10)), Ok("began"));
    eventually("every ask is closed", || scene.sum(|shard| shard.asks_open) == 0);
}

#[test]
fn a_question_whose_deadline_is_over_is_skipped_and_counted() {
    for pair in PAIRS {
        let Some(scene) = Scene::new(pair) else { return };
        scene.tell(Question::Sleep(60 * MS));
        scene.ask(Do::Keep { deadline_ns: 10 * MS, drop_ns: 10_000 * MS });
        assert_eq!(scene.said(), "expired");
        eventually("skipped", || scene.sum(|shard| shard.asks_skipped) == 1);
        assert!(scene.began.try_recv().is_err(), "nobody works for it");
        // Its place in the mailbox is free again.
        for _ in 0..20 {
            scene.ask(Do::Answer);
            assert!(scene.said().starts_with("[7"));
        }
    }
}

#[test]
fn a_question_that_was_given_up_before_its_deadline_is_skipped() {
    for pair in PAIRS {
        let Some(scene) = Scene::new(pair) else { return };
        scene.tell(Question::Sleep(60 * MS));
        scene.ask(Do::Keep { deadline_ns: 10_000 * MS, drop_ns: 10 * MS });
        assert_eq!(scene.said(), "gave up");
        eventually("skipped", || scene.sum(|shard| shard.asks_skipped) == 1);
        assert!(scene.began.try_recv().is_err(), "nobody works for it");
        // One that is wanted begins.
        scene.ask(Do::Keep { deadline_ns: 20 * MS, drop_ns: 10_000 * MS });
        assert_eq!(scene.began.recv_timeout(Duration::from_secs(10)), Ok("began"));
        assert_eq!(scene.said(), "expired");
    }
}

#[test]
fn a_callee_at_work_can_see_that_nobody_waits() {
    for pair in PAIRS {
        let Some(scene) = Scene::new(pair) else { return };
        scene.ask(Do::Watch { drop_ns: 20 * MS });
        assert_eq!(scene.began.recv_timeout(Duration::from_secs(10)), Ok("watches"));
        assert_eq!(scene.said(), "gave up");
        assert_eq!(scene.began.recv_timeout(Duration::from_secs(10)), Ok("cancelled"));
    }
}

/// Asks the next in a ring, if it has one.
struct Link(Option<Addr<Link>>, Sender<String>);

enum Chain {
    Next(Addr<Link>),
    Begin(u64),
    Pass(Reply<u64>),
}

impl Link {
    async fn ask(&self, ns: u64, cx: &mut Cx<'_>) -> Result<u64, AskError<Chain>> {
        let deadline_ns = cx.fresh_ns() + ns;
        cx.ask(self.0.unwrap(), deadline_ns, Chain::Pass).await
    }
}

impl Agent for Link {
    type Msg = Chain;

    async fn on(&mut self, chain: Chain, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match chain {
            Chain::Next(next) => self.0 = Some(next),
            Chain::Begin(ns) => {
                let said = match self.ask(ns, cx).await {
                    Err(AskError::Cycle { agents }) => format!("cycle of {agents}"),
                    Err(AskError::Expired) => "expired".to_owned(),
                    _ => "other".to_owned(),
                };
                self.1.send(said).map_err(|_| Stop)?;
            }
            Chain::Pass(reply) => {
                let _ = self.ask(10_000 * MS, cx).await;
                drop(reply);
            }
        }
        Ok(())
    }
}

#[test]
fn a_cycle_of_asks_is_named_with_its_length() {
    let Some(runtime) = start(Config { drain_ns: 0, ..Config::default() }) else { return };
    for agents in [1, 2, 5] {
        let (say, said) = channel();
        let links: Vec<Addr<Link>> = (0..agents)
            .map(|at| {
                let say = say.clone();
                runtime.spawn_on(at % runtime.shards(), move || Link(None, say)).unwrap()
            })
            .collect();
        for at in 0..agents {
            let (link, next) = (links[at], links[(at + 1) % agents]);
            let join = move |cx: &mut Cx<'_>| link.try_send(cx, Chain::Next(next)).is_ok();
            assert!(runtime.run_on(link.shard(), join).unwrap());
        }
        let first = links[0];
        // The search has half of this for its way, on cores that others may have.
        let begin = move |cx: &mut Cx<'_>| first.try_send(cx, Chain::Begin(1_000 * MS)).is_ok();
        assert!(runtime.run_on(0, begin).unwrap());
        let said = said.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(said, format!("cycle of {agents}"));
    }
}

#[test]
fn a_chain_that_ends_in_a_slow_agent_is_no_cycle() {
    let Some(runtime) = start(Config { drain_ns: 0, ..Config::default() }) else { return };
    let (say, said) = channel();
    let spawn = |at: usize| {
        let say = say.clone();
        runtime.spawn_on(at % runtime.shards(), move || Link(None, say)).unwrap()
    };
    let (first, second, third) = (spawn(0), spawn(1), spawn(2));
    for (link, next) in [(first, second), (second, third)] {
        let join = move |cx: &mut Cx<'_>| link.try_send(cx, Chain::Next(next)).is_ok();
        assert!(runtime.run_on(link.shard(), join).unwrap());
    }
    // The third waits for one that never answers.
    let (begin, began) = channel();
    let slow = runtime.spawn_on(0, move || Callee(begin)).unwrap();
    struct Holder(Addr<Callee>);
    impl Agent for Holder {
        type Msg = ();
        async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
            let deadline_ns = cx.fresh_ns() + 10_000 * MS;
            let _ = cx.ask(self.0, deadline_ns, Question::Keep).await;
            Ok(())
        }
    }
    let holder = runtime.spawn_on(0, move || Holder(slow)).unwrap();
    runtime.run_on(0, move |cx| holder.try_send(cx, ()).unwrap()).unwrap();
    assert_eq!(began.recv_timeout(Duration::from_secs(10)), Ok("began"));
    let begin = move |cx: &mut Cx<'_>| {
        second.try_send(cx, Chain::Begin(10_000 * MS)).is_ok()
            && first.try_send(cx, Chain::Begin(60 * MS)).is_ok()
    };
    assert!(runtime.run_on(0, begin).unwrap());
    // The third panics, for it has nobody to ask: the second is told, the first only expires or hears of it.
    let said = said.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_ne!(said.split_whitespace().next(), Some("cycle"));
}
