//! The agents of random programs, and the letters they send each other.

use std::panic::resume_unwind;

use tailbeam_runtime::{Addr, Agent, Cx, Reply, SendError, Stop};

use crate::ops;
use crate::world::{AskEnd, Fate, Planted, TimerState, world, wrong};

/// Ends the running handler or drop as a panic does, without a word on the standard error.
pub(crate) fn planned_panic() -> ! {
    resume_unwind(Box::new("planned"))
}

/// The identity of a letter: whoever drops it unread is seen.
#[derive(Debug)]
pub(crate) struct Stamp {
    pub(crate) id: u32,
    /// Its drop panics when nobody has read it.
    grenade: bool,
}

impl Drop for Stamp {
    fn drop(&mut self) {
        let id = self.id as usize;
        let unread = world(|w| {
            if w.unpolled.take_if(|unpolled| *unpolled == id).is_some() {
                w.letter_returned(id);
                return false;
            }
            let fate = w.letters[id].fate;
            let unread = !matches!(fate, Fate::Read | Fate::Returned);
            if unread {
                w.letter_ended(id, Fate::Dropped);
            }
            unread
        });
        if unread && self.grenade && !std::thread::panicking() {
            planned_panic();
        }
    }
}

/// What a letter asks for.
#[derive(Debug)]
pub(crate) enum Act {
    Nothing,
    /// So many operations.
    Work(u8),
    Question(u32, Reply<Answer>),
    Nap(u32),
    /// Keeps its shard busy: it sends itself the next, so many times.
    Spin(u16),
    Park,
    Stop,
    Panic,
    PanicAfterNap(u32),
}

#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) stamp: Stamp,
    pub(crate) act: Act,
}

impl Letter {
    /// A letter from a shard to a node.
    pub(crate) fn new(origin: usize, node: usize, act: Act) -> Self {
        let (id, grenade) = world(|w| {
            let grenade = w.weighs(ops::Op::PanicInDrop) && w.rng.happens(10_000);
            (w.new_letter(origin, node), grenade)
        });
        Self { stamp: Stamp { id: u32::try_from(id).expect("few"), grenade }, act }
    }

    pub(crate) fn id(&self) -> usize {
        self.stamp.id as usize
    }
}

/// The answer to an ask; seen when it is dropped unread.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) ask: u32,
    pub(crate) id: u32,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let id = self.id as usize;
        let panics = world(|w| {
            let unread = w.answers[id] == Fate::Accepted;
            if unread {
                w.answer_ended(id, Fate::Dropped);
            }
            unread && w.weighs(ops::Op::PanicInDrop) && w.rng.happens(10_000)
        });
        if panics && !std::thread::panicking() {
            planned_panic();
        }
    }
}

/// What every node is.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) id: usize,
    /// The last letter of each shard: numbers grow, so what comes from one shard comes in order.
    last: [Option<u32>; 9],
    pub(crate) held: Vec<(u32, Reply<Answer>)>,
    pub(crate) timers: Vec<usize>,
}

impl Drop for Core {
    fn drop(&mut self) {
        let grenade = world(|w| {
            w.node_ended(self.id);
            w.nodes[self.id].grenade
        });
        if grenade && !std::thread::panicking() {
            self.panics();
        }
    }
}

impl Core {
    pub(crate) fn new(shard: usize) -> Self {
        let id = world(|w| w.new_node(shard));
        Self { id, last: [None; 9], held: Vec::new(), timers: Vec::new() }
    }

    pub(crate) fn panics(&self) -> ! {
        world(|w| {
            let node = &mut w.nodes[self.id];
            w.tally.nodes_panicked += u64::from(!std::mem::replace(&mut node.panicked, true));
        });
        planned_panic()
    }

    fn read(&mut self, stamp: Stamp, cx: &Cx<'_>) {
        let id = stamp.id;
        world(|w| {
            if w.is_planted(Planted::Lost) {
                return std::mem::forget(stamp);
            }
            let (origin, node) = (w.letters[id as usize].origin, w.letters[id as usize].node);
            w.letter_ended(id as usize, Fate::Read);
            if w.is_planted(Planted::HandledTwice) {
                w.letter_ended(id as usize, Fate::Read);
            }
            if node != self.id || w.nodes[node].shard != cx.shard_index() {
                w.wrong(|| format!("letter {id} of node {node} was read by {}", self.id));
            }
            let late = w.is_planted(Planted::Overtaken);
            if self.last[origin].replace(if late { id + 9 } else { id }) >= Some(id) {
                w.wrong(|| format!("letter {id} of shard {origin} was overtaken"));
            }
            // Read: its drop has nothing to say.
            std::mem::forget(stamp);
        });
    }

    fn fired(&mut self, token: u64, now_ns: u64) {
        let id = usize::try_from(token).expect("a number of ours");
        world(|w| {
            w.tally.timers_fired += 1;
            let twice = w.is_planted(Planted::TimerTwice);
            let timer = &mut w.timers[id];
            let state = std::mem::replace(&mut timer.state, TimerState::Fired);
            let (node, at_ns) = (timer.node, timer.at_ns);
            if node != self.id || state != TimerState::Pending || twice {
                w.wrong(|| format!("timer {id} of {node} fired at {}: it was {state:?}", self.id));
            }
            if now_ns < at_ns {
                w.wrong(|| format!("timer {id} fired {} ns early", at_ns - now_ns));
            }
        });
    }
}

/// A node with a mailbox and a size.
pub(crate) struct Node<const MAILBOX: u32, const PAD: usize> {
    core: Core,
    _pad: [u8; PAD],
}

pub(crate) type Small = Node<2, 0>;
pub(crate) type Large = Node<32, 700>;

impl<const MAILBOX: u32, const PAD: usize> Node<MAILBOX, PAD> {
    pub(crate) fn new(core: Core) -> Self {
        Self { core, _pad: [0; PAD] }
    }

    pub(crate) fn id(&self) -> usize {
        self.core.id
    }
}

impl<const M: u32, const PAD: usize> Agent for Node<M, PAD> {
    type Msg = Letter;
    const MAILBOX: u32 = M;

    async fn on(&mut self, letter: Letter, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let Letter { stamp, act } = letter;
        self.core.read(stamp, cx);
        ops::act(&mut self.core, act, cx).await
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.core.fired(token, cx.fresh_ns());
        ops::on_timer(&mut self.core, cx)
    }
}

/// An address of either type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Small(Addr<Small>),
    Large(Addr<Large>),
}

impl Target {
    pub(crate) fn shard(self) -> usize {
        match self {
            Self::Small(to) => to.shard(),
            Self::Large(to) => to.shard(),
        }
    }

    pub(crate) const fn mailbox(self) -> u32 {
        match self {
            Self::Small(_) => Small::MAILBOX,
            Self::Large(_) => Large::MAILBOX,
        }
    }

    /// Unread letters of one shard that it may have: another shard learns in batches what was read.
    pub(crate) fn bound(self, origin: usize) -> u32 {
        let max = self.mailbox();
        let arrears = if max < 8 { 1 } else { max / 4 };
        if origin == self.shard() { max } else { max + arrears - 1 }
    }

    /// Sends a letter and judges the outcome. Whether it was accepted.
    pub(crate) fn send(self, cx: &mut Cx<'_>, letter: Letter) -> bool {
        let id = letter.id();
        let sent = match self {
            Self::Small(to) => to.try_send(cx, letter),
            Self::Large(to) => to.try_send(cx, letter),
        };
        self.judge(id, cx.shard_index(), sent)
    }

    /// Notes what became of a letter that was to be sent.
    pub(crate) fn judge(
        self,
        id: usize,
        origin: usize,
        sent: Result<(), SendError<Letter>>,
    ) -> bool {
        let error = match sent {
            Ok(()) => {
                world(|w| w.letter_accepted(id, self.bound(origin)));
                return true;
            }
            Err(error) => error,
        };
        world(|w| {
            let node = w.letters[id].node;
            let record = &w.nodes[node];
            let (alive, unread) = (record.alive, record.unread[origin]);
            let full = matches!(error, SendError::Full(_));
            if matches!(error, SendError::Gone(_)) && alive && !w.stopping {
                w.wrong(|| format!("node {node} lives and is called gone"));
            }
            // Another shard counts what it has not been told of.
            if full && origin == self.shard() && unread < self.mailbox() {
                w.wrong(|| format!("node {node} is called full with {unread} unread"));
            }
        });
        let letter = error.into_message();
        if letter.id() != id {
            wrong(|| format!("letter {} came back for {id}", letter.id()));
        }
        world(|w| w.letter_returned(id));
        false
    }
}

/// An ask that has begun; it ends once, and this way when nobody says otherwise.
pub(crate) struct Asking(pub(crate) usize);

impl Asking {
    pub(crate) fn begin() -> Self {
        world(|w| {
            w.asks.push(AskEnd::Open);
            w.tally.asks += 1;
            Self(w.asks.len() - 1)
        })
    }

    pub(crate) fn end(self, end: AskEnd) {
        world(|w| w.ask_ended(self.0, end));
        std::mem::forget(self);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        world(|w| w.ask_ended(self.0, AskEnd::Cancelled));
    }
}
