//! The operations of random programs. To add one: a variant, its weight, an arm in `perform` or `sync`, and a
//! function; what must come of it goes into `world.rs`.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tailbeam_runtime::sim::Rng;
use tailbeam_runtime::{Addr, Agent, AskError, Cx, Reply, Stop};

use crate::node::{
    Act, Answer, Asking, Core, Large, Letter, Low, Node, Small, Target, each, planned_panic,
};
use crate::world::{AskEnd, Fate, Planted, TimerRecord, TimerState, World, world, wrong};
use crate::{names, relations};

/// Timers of a node that it remembers, and replies that it holds back.
const KEPT_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Spawn,
    SpawnFuture,
    Send,
    Burst,
    SendToSelf,
    /// Sends to itself under the address of another type.
    Lie,
    Wake,
    NotifyAt,
    CancelTimer,
    Ask,
    /// An ask whose future is dropped: before its first poll, after it, or when a sleep ends first.
    AskCancelled,
    AnswerHeld,
    Nap,
    Park,
    Spin,
    Stop,
    Panic,
    /// An idle node goes to another shard, while letters come.
    Move,
    Kill,
    KillSupervisor,
    Monitor,
    Demonitor,
    Link,
    Unlink,
    Supervise,
    Subscribe,
    Unsubscribe,
    Publish,
    SpawnAt,
    Register,
    Find,
    /// Looks at the account of a node of this shard.
    Look,
    /// Not done: lets drops of nodes, letters and futures panic.
    PanicInDrop,
}

const WEIGHTS: [(Op, u32); 33] = [
    (Op::Spawn, 60),
    (Op::SpawnFuture, 20),
    (Op::Send, 300),
    (Op::Burst, 8),
    (Op::SendToSelf, 40),
    (Op::Lie, 5),
    (Op::Wake, 60),
    (Op::NotifyAt, 50),
    (Op::CancelTimer, 25),
    (Op::Ask, 120),
    (Op::AskCancelled, 30),
    (Op::AnswerHeld, 40),
    (Op::Nap, 20),
    (Op::Park, 15),
    (Op::Spin, 1),
    (Op::Stop, 6),
    (Op::Panic, 4),
    (Op::Move, 40),
    (Op::Kill, 4),
    (Op::KillSupervisor, 1),
    (Op::Monitor, 25),
    (Op::Demonitor, 8),
    (Op::Link, 6),
    (Op::Unlink, 3),
    (Op::Supervise, 8),
    (Op::Subscribe, 10),
    (Op::Unsubscribe, 4),
    (Op::Publish, 10),
    (Op::SpawnAt, 15),
    (Op::Register, 8),
    (Op::Find, 8),
    (Op::Look, 20),
    (Op::PanicInDrop, 1),
];

/// The weights of a run: each operation is absent now and then, so that runs differ in kind.
pub(crate) fn weights(rng: &mut Rng) -> Vec<(Op, u32)> {
    let always = [Op::Spawn, Op::Send];
    let absent = |rng: &mut Rng, op| !always.contains(&op) && rng.happens(150_000);
    WEIGHTS.iter().map(|&(op, weight)| (op, if absent(rng, op) { 0 } else { weight })).collect()
}

fn draw(w: &mut World) -> Op {
    let drawn: u32 = w.weights.iter().map(|(_, weight)| weight).sum();
    let mut left = w.rng.below(drawn.into());
    for &(op, weight) in &w.weights {
        if left < weight.into() {
            return op;
        }
        left -= u64::from(weight);
    }
    Op::Send
}

/// What a letter of this program asks for.
fn draw_act(w: &mut World) -> Act {
    let ns = |w: &mut World| u32::try_from(w.rng.up_to(400_000)).expect("small");
    let has = |w: &World, op| w.weighs(op);
    match w.rng.below(100) {
        0..4 => Act::Nap(ns(w)),
        4..6 if has(w, Op::Park) => Act::Park,
        6..8 if has(w, Op::Stop) => Act::Stop,
        8..9 if has(w, Op::Panic) => Act::Panic,
        9..10 if has(w, Op::Panic) => Act::PanicAfterNap(ns(w)),
        10..70 => Act::Work(u8::try_from(w.rng.below(4)).expect("small")),
        _ => Act::Nothing,
    }
}

fn span_ns(w: &mut World) -> u64 {
    let max = w.rng.one_of(&[1, 50_000, 1_000_000, 20_000_000, 2_000_000_000]);
    w.rng.up_to(max)
}

/// Does what a letter asks for.
pub(crate) async fn act(core: &mut Core, act: Act, cx: &mut Cx<'_>) -> Result<(), Stop> {
    match act {
        Act::Nothing => Ok(()),
        Act::Work(count) => {
            for _ in 0..count {
                perform(core, cx).await?;
            }
            Ok(())
        }
        Act::Question(ask, reply) => answer(core, ask, reply, cx),
        Act::Nap(ns) => {
            nap(cx, ns.into()).await;
            Ok(())
        }
        Act::Spin(left) => {
            if left > 0 {
                send_act(cx, core.id, Act::Spin(left - 1));
            }
            Ok(())
        }
        Act::Park => {
            Parking::new(Some(core.id)).await;
            Ok(())
        }
        Act::Stop => Err(Stop),
        Act::Panic => core.panics(),
        Act::PanicAfterNap(ns) => {
            nap(cx, ns.into()).await;
            core.panics()
        }
    }
}

/// One operation of a node, in its handler.
async fn perform(core: &mut Core, cx: &mut Cx<'_>) -> Result<(), Stop> {
    let Some(op) = world(|w| w.begin_op().then(|| draw(w))) else { return Ok(()) };
    match op {
        Op::Ask => ask(cx, false).await,
        Op::AskCancelled => ask(cx, true).await,
        Op::Nap => {
            let ns = world(span_ns);
            nap(cx, ns).await;
        }
        Op::Park => Parking::new(Some(core.id)).await,
        Op::Spin => spin(core, cx),
        Op::Stop => return Err(Stop),
        Op::Panic => core.panics(),
        Op::SendToSelf => send_to(cx, core.id),
        Op::Lie => lie(core, cx),
        Op::NotifyAt => notify_at(core, cx),
        Op::CancelTimer => cancel_timer(core, cx),
        Op::AnswerHeld => answer_held(core, cx),
        Op::Monitor => relations::monitor(core, cx),
        Op::Demonitor => relations::demonitor(core, cx),
        Op::Link => relations::link(core, cx),
        Op::Unlink => relations::unlink(core, cx),
        Op::Subscribe => relations::subscribe(core, cx),
        Op::Unsubscribe => relations::unsubscribe(core, cx),
        Op::Register => names::register(core, cx),
        other => sync(other, cx),
    }
    Ok(())
}

/// An operation that needs neither a handler nor a node.
fn sync(op: Op, cx: &mut Cx<'_>) {
    match op {
        Op::Spawn => spawn(cx),
        Op::SpawnFuture => spawn_future(cx),
        Op::Burst => burst(cx),
        Op::Wake => wake(),
        Op::Kill => relations::kill(cx),
        Op::KillSupervisor => relations::kill_supervisor(cx),
        Op::Supervise => relations::supervise(cx),
        Op::Publish => relations::publish(cx),
        Op::SpawnAt => names::spawn_at(cx),
        Op::Find => names::find(cx),
        Op::Look => names::look(cx),
        _ => send(cx),
    }
}

/// A node's timer: mostly nothing, or work that needs no waiting.
pub(crate) fn on_timer(core: &mut Core, cx: &mut Cx<'_>) -> Result<(), Stop> {
    match world(|w| if w.begin_op() { w.rng.below(40) } else { 99 }) {
        0 if world(|w| w.weighs(Op::Stop)) => return Err(Stop),
        1 if world(|w| w.weighs(Op::Panic)) => core.panics(),
        2..8 => notify_at(core, cx),
        8..20 => send(cx),
        20..24 => answer_held(core, cx),
        24..27 if world(|w| w.weighs(Op::Monitor)) => relations::monitor(core, cx),
        _ => {}
    }
    Ok(())
}

/// Operations of a thread that has no ring, on the shard it has posted to.
pub(crate) fn from_outside(cx: &mut Cx<'_>, count: u64) {
    for _ in 0..count {
        let Some(op) = world(|w| w.begin_op().then(|| draw(w))) else { return };
        let few = world(|w| w.living.len() < w.nodes_wanted / 2);
        sync(if few { Op::Spawn } else { op }, cx);
    }
}

fn spawn(cx: &mut Cx<'_>) {
    let shard = cx.shard_index();
    let (enough, kind) = world(|w| (w.living.len() >= w.nodes_wanted, w.rng.below(5)));
    if enough {
        return send(cx);
    }
    let core = Core::new(shard);
    let id = core.id;
    let spawned = match kind {
        0 | 1 => spawn_node(core, cx).map(Target::Small),
        2 | 3 => spawn_node(core, cx).map(Target::Large),
        _ => spawn_node(core, cx).map(Target::Low),
    };
    if let Some(to) = spawned {
        world(|w| w.lives_at(id, to));
    }
}

fn spawn_node<const M: u32, const PAD: usize>(
    core: Core,
    cx: &mut Cx<'_>,
) -> Option<Addr<Node<M, PAD>>> {
    let id = core.id;
    // One that is handed back is dropped here, and only after it was noted.
    let refused = |node: usize| world(|w| w.node_refused(node, id));
    cx.spawn(Node::new(core)).map_err(|error| refused(error.agent.id())).ok()
}

fn spawn_future(cx: &mut Cx<'_>) {
    let parking = Parking::new(None);
    let again = world(|w| w.rng.below(3));
    // A full table drops the future, and the parking with it.
    let _ = cx.spawn_future(async move {
        parking.await;
        for _ in 0..again {
            Parking::new(None).await;
        }
    });
}

fn send(cx: &mut Cx<'_>) {
    if let Some(node) = world(World::somebody) {
        send_to(cx, node);
    }
}

fn send_to(cx: &mut Cx<'_>, node: usize) {
    let act = world(draw_act);
    send_act(cx, node, act);
}

/// Sends a letter; whether it was accepted.
pub(crate) fn send_act(cx: &mut Cx<'_>, node: usize, act: Act) -> bool {
    let Some((via, to)) = world(|w| w.address_of(node)) else { return false };
    to.send(cx, Letter::new(cx.shard_index(), (node, via), act))
}

/// [`send_act`] to where the node lives.
pub(crate) fn send_straight(cx: &mut Cx<'_>, node: usize, act: Act) -> bool {
    let last = world(|w| w.nodes[node].addresses.len().checked_sub(1).zip(w.nodes[node].to()));
    let Some((via, to)) = last else { return false };
    to.send(cx, Letter::new(cx.shard_index(), (node, via), act))
}

/// More than a mailbox or a ring holds.
fn burst(cx: &mut Cx<'_>) {
    let Some(node) = world(World::somebody) else { return };
    for _ in 0..world(|w| w.rng.below(80)) {
        send_act(cx, node, Act::Nothing);
    }
}

fn spin(core: &Core, cx: &mut Cx<'_>) {
    let turns = world(|w| w.rng.one_of(&[9, 90, 2_500]));
    send_act(cx, core.id, Act::Spin(turns));
}

fn lie(core: &Core, cx: &mut Cx<'_>) {
    let last =
        world(|w| w.nodes[core.id].addresses.len().checked_sub(1).zip(w.nodes[core.id].to()));
    let Some((via, truth)) = last else { return };
    let lie = match truth {
        Target::Small(_) => Target::Low(cx.me::<Low>()),
        Target::Low(_) => Target::Large(cx.me::<Large>()),
        Target::Large(_) => Target::Small(cx.me::<Small>()),
    };
    lie.send(cx, Letter::new(cx.shard_index(), (core.id, via), Act::Nothing));
}

/// Wakes a future from here: from its own shard, another, or a thread without one.
pub(crate) fn wake() {
    let waker = world(|w| w.some_waker(false));
    waker.into_iter().for_each(|waker| waker.wake());
}

fn notify_at(core: &mut Core, cx: &mut Cx<'_>) {
    let at_ns = cx.fresh_ns() + world(span_ns);
    let token = world(|w| {
        let late_ns = if w.is_planted(Planted::TimerEarly) { 9_000_000_000 } else { 0 };
        let (state, at_ns) = (TimerState::Pending, at_ns + late_ns);
        let (node, life) = (core.id, core.life);
        w.timers.push(TimerRecord { node, life, shard: cx.shard_index(), at_ns, state, id: None });
        w.timers.len() - 1
    });
    match cx.notify_at(at_ns, token as u64) {
        Ok(id) => world(|w| w.timers[token].id = Some(id)),
        Err(_) => world(|w| w.timers[token].state = TimerState::Cancelled),
    }
    if core.timers.len() == KEPT_MAX {
        core.timers.remove(0);
    }
    core.timers.push(token);
}

fn cancel_timer(core: &mut Core, cx: &mut Cx<'_>) {
    if core.timers.is_empty() {
        return;
    }
    let index = world(|w| w.rng.index(core.timers.len()));
    let timer = core.timers[index];
    let Some(id) = world(|w| w.timers[timer].id) else { return };
    let cancelled = cx.cancel(id);
    world(|w| {
        let state = w.timers[timer].state;
        if cancelled && state != TimerState::Pending {
            w.wrong(|| format!("timer {timer} was {state:?} and could be cancelled"));
        }
        if cancelled {
            w.timers[timer].state = TimerState::Cancelled;
            w.tally.timers_cancelled += 1;
        }
    });
}

async fn nap(cx: &mut Cx<'_>, ns: u64) {
    let until_ns = cx.fresh_ns() + ns;
    let slept = cx.sleep_until(until_ns).await;
    let now_ns = cx.fresh_ns();
    if slept.is_ok() && now_ns < until_ns {
        wrong(|| format!("a sleep ended {} ns early", until_ns - now_ns));
    }
}

async fn ask(cx: &mut Cx<'_>, cancelled: bool) {
    let Some(node) = world(World::somebody) else { return };
    if let Some((via, target)) = world(|w| w.address_of(node)) {
        each!(target, to => ask_at(cx, ((node, via), target, to), cancelled).await);
    }
}

async fn ask_at<A: Agent<Msg = Letter>>(
    cx: &mut Cx<'_>,
    (node, target, to): ((usize, usize), Target, Addr<A>),
    cancelled: bool,
) {
    let asking = Asking::begin();
    let deadline_ns = cx.fresh_ns() + world(span_ns);
    let (id, origin) = (u32::try_from(asking.0).expect("few"), cx.shard_index());
    let letter = Cell::new(None);
    let asked = cx.ask(to, deadline_ns, |reply| {
        let made = Letter::new(origin, node, Act::Question(id, reply));
        letter.set(Some(made.id()));
        made
    });
    let letter = letter.get();
    let accept = |w: &mut World, letter| w.letter_accepted(letter, origin, target);
    if cancelled && world(|w| w.rng.below(3) == 0) {
        // Never polled: whether it was sent shows when the letter goes with the future.
        return drop_unpolled(asked, letter, target, origin);
    }
    let mut asked = pin!(asked);
    let first = poll_once(asked.as_mut()).await;
    let sent = letter.filter(|_| !matches!(first, Some(Err(AskError::Send(_)))));
    world(|w| sent.into_iter().for_each(|letter| accept(w, letter)));
    if first.is_none() && world(|w| w.is_planted(Planted::AskLeaked)) {
        return forget_asked(cx, deadline_ns);
    }
    let end = match first {
        Some(end) => end,
        None if cancelled && world(|w| w.rng.below(2) == 0) => return,
        None if cancelled => {
            let ns = world(span_ns);
            match race(asked, cx.sleep_until(cx.now_ns() + ns)).await {
                Some(end) => end,
                None => return,
            }
        }
        None => asked.await,
    };
    judge_ask(asking, end, deadline_ns, (letter, target), cx);
}

fn judge_ask(
    asking: Asking,
    end: Result<Answer, AskError<Letter>>,
    deadline_ns: u64,
    (letter, target): (Option<usize>, Target),
    cx: &mut Cx<'_>,
) {
    let end = match end {
        Ok(answer) => {
            world(|w| w.answer_ended(answer.id as usize, Fate::Read));
            if answer.ask as usize != asking.0 {
                wrong(|| format!("ask {} was given the answer of {}", asking.0, answer.ask));
            }
            AskEnd::Answered
        }
        Err(AskError::Expired | AskError::Cycle { .. }) => {
            if cx.fresh_ns() < deadline_ns {
                wrong(|| format!("ask {} expired before its deadline", asking.0));
            }
            AskEnd::Expired
        }
        Err(AskError::Send(error)) => {
            target.judge(letter.expect("it came back"), cx.shard_index(), Err(error));
            AskEnd::Refused
        }
        Err(AskError::Dropped) => AskEnd::Dropped,
        Err(_) => AskEnd::Refused,
    };
    asking.end(end);
}

/// Drops an ask that was never polled. A letter that was refused lies in the future and comes back with it.
fn drop_unpolled<F>(asked: F, letter: Option<usize>, target: Target, origin: usize) {
    let Some(letter) = letter else { return drop(asked) };
    world(|w| w.unpolled = Some(letter));
    drop(asked);
    world(|w| {
        if w.unpolled.take().is_some() {
            w.letter_accepted(letter, origin, target);
        }
    });
}

/// The planted leak: an ask whose slot is never given back.
fn forget_asked(cx: &mut Cx<'_>, deadline_ns: u64) {
    let nobody = cx.me::<Nobody>();
    std::mem::forget(cx.ask(nobody, deadline_ns, |reply: Reply<Answer>| reply));
}

/// An agent that is never spawned.
struct Nobody;

impl Agent for Nobody {
    type Msg = Reply<Answer>;

    async fn on(&mut self, _: Reply<Answer>, _: &mut Cx<'_>) -> Result<(), Stop> {
        Ok(())
    }
}

/// Answers a question now, later or never.
fn answer(core: &mut Core, ask: u32, reply: Reply<Answer>, cx: &mut Cx<'_>) -> Result<(), Stop> {
    match world(|w| w.rng.below(20)) {
        0 => {}
        1 if world(|w| w.weighs(Op::Panic)) => core.panics(),
        2..6 if core.held.len() < KEPT_MAX => core.held.push((ask, reply)),
        6 if world(|w| w.weighs(Op::Stop)) => return Err(Stop),
        _ => reply_to(ask, reply, cx),
    }
    Ok(())
}

fn answer_held(core: &mut Core, cx: &mut Cx<'_>) {
    if let Some((ask, reply)) = core.held.pop() {
        reply_to(ask, reply, cx);
    }
}

fn reply_to(ask: u32, reply: Reply<Answer>, cx: &mut Cx<'_>) {
    let id = world(|w| {
        w.answers.push(Fate::Accepted);
        w.answers.len() - 1
    });
    let answer = Answer { ask, id: u32::try_from(id).expect("few") };
    if let Err(answer) = reply.send(cx, answer) {
        world(|w| w.answer_ended(answer.id as usize, Fate::Returned));
    }
}

/// Waits until somebody wakes and releases it.
struct Parking {
    id: usize,
    node: Option<usize>,
}

impl Parking {
    fn new(node: Option<usize>) -> Self {
        Self { id: world(World::new_park), node }
    }
}

impl Future for Parking {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        world(|w| {
            let seen = !w.is_planted(Planted::PollUnseen);
            let park = &mut w.parks[self.id];
            park.waker = Some(context.waker().clone());
            park.woken &= !seen;
            if park.released { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl Drop for Parking {
    fn drop(&mut self) {
        let panics = world(|w| {
            // One that was never polled may be dropped by whoever could not spawn it.
            let polled = w.park_ended(self.id);
            let panics = polled && w.weighs(Op::PanicInDrop) && w.rng.happens(10_000);
            let node = self.node.filter(|_| panics).map(|node| &mut w.nodes[node]);
            if let Some(node) = node {
                node.has_cause = true;
                w.tally.nodes_panicked += u64::from(!std::mem::replace(&mut node.panicked, true));
            }
            panics
        });
        if panics && !std::thread::panicking() {
            planned_panic();
        }
    }
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The first future's value, or none when the other is first.
async fn race<F: Future, G: Future>(mut one: Pin<&mut F>, other: G) -> Option<F::Output> {
    let mut other = pin!(other);
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = one.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        other.as_mut().poll(context).map(|_| None)
    })
    .await
}
