//! The agents of random programs, and the letters they send each other.

use std::panic::resume_unwind;

use tailbeam_runtime::sim::Simulation;
use tailbeam_runtime::{Addr, Agent, AgentId, Class, Cx, Down, MoveError, Reply, SendError, Stop};

use crate::world::{ANYBODY, AskEnd, Fate, Planted, TimerState, world, wrong};
use crate::{ops, relations};

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
            if let Some(copies) = &mut w.publishing {
                // A copy that was not sent; nothing else is dropped meanwhile.
                copies.retain(|copy| *copy != id);
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
    /// A letter from a shard to one of a node's addresses.
    pub(crate) fn new(origin: usize, node: (usize, usize), act: Act) -> Self {
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

/// A copy of what is published, for one member.
impl Clone for Letter {
    fn clone(&self) -> Self {
        let (origin, publication) = world(|w| {
            let original = &w.letters[self.id()];
            (original.origin, original.via)
        });
        let copy = Self::new(origin, (ANYBODY, publication), Act::Nothing);
        world(|w| {
            w.published_unread[origin] += 1;
            w.letters[copy.id()].fate = Fate::Accepted;
            w.publishing.get_or_insert_default().push(copy.id());
        });
        copy
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
    /// Which of its lives this is.
    pub(crate) life: u32,
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
        Self::begin(world(|w| w.new_node(shard, None)))
    }

    /// A life of a node.
    pub(crate) fn begin(id: usize) -> Self {
        let life = world(|w| w.begin_life(id));
        Self { id, life, held: Vec::new(), timers: Vec::new() }
    }

    pub(crate) fn panics(&self) -> ! {
        world(|w| {
            let node = &mut w.nodes[self.id];
            node.has_cause = true;
            w.tally.nodes_panicked += u64::from(!std::mem::replace(&mut node.panicked, true));
        });
        planned_panic()
    }

    fn read(&self, stamp: Stamp, cx: &Cx<'_>) {
        let id = stamp.id as usize;
        // Read: its drop has nothing to say.
        std::mem::forget(stamp);
        world(|w| {
            let (origin, node, via) = (w.letters[id].origin, w.letters[id].node, w.letters[id].via);
            w.nodes[self.id].read += 1;
            let restarted = self.life > 1 && w.is_planted(Planted::RestartLosesMail);
            if restarted || w.is_planted(Planted::Lost) {
                return;
            }
            w.letter_ended(id, Fate::Read);
            let old = node != ANYBODY && via + 1 < w.nodes[node].addresses.len();
            let twice = old && w.is_planted(Planted::ForwardedTwice);
            if twice || w.is_planted(Planted::HandledTwice) {
                w.letter_ended(id, Fate::Read);
            }
            if node == ANYBODY {
                return w.read_published(id, self.id);
            }
            if node != self.id || w.nodes[node].shard != cx.shard_index() {
                w.wrong(|| format!("letter {id} of node {node} was read by {}", self.id));
            }
            let late = w.is_planted(Planted::Overtaken);
            let last = &mut w.nodes[node].addresses[via].last[origin];
            if last.replace(if late { id + 9 } else { id }) >= Some(id) {
                w.wrong(|| format!("letter {id} of shard {origin} was overtaken"));
            }
        });
    }

    fn fired(&mut self, token: u64, shard: usize, now_ns: u64) {
        let id = usize::try_from(token).expect("a number of ours");
        world(|w| {
            w.tally.timers_fired += 1;
            let twice = w.is_planted(Planted::TimerTwice);
            let timer = &mut w.timers[id];
            let state = std::mem::replace(&mut timer.state, TimerState::Fired);
            let (node, at_ns) = (timer.node, timer.at_ns);
            let node = if timer.life == self.life { node } else { usize::MAX };
            if node != self.id || state != TimerState::Pending || twice {
                w.wrong(|| format!("timer {id} of {node} fired at {}: it was {state:?}", self.id));
            }
            // One that was passed on comes by the clock of another shard.
            let skew_ns = if w.timers[id].shard == shard { 0 } else { w.skew_ns };
            if now_ns + skew_ns < at_ns {
                w.wrong(|| format!("timer {id} fired {} ns early", at_ns - now_ns));
            }
        });
    }
}

/// A node with a mailbox and a size. The large ones are told of the ends of those that they are linked to.
pub(crate) struct Node<const MAILBOX: u32, const PAD: usize> {
    core: Core,
    _pad: [u8; PAD],
}

pub(crate) type Small = Node<2, 0>;
pub(crate) type Large = Node<32, 700>;
pub(crate) type Low = Node<12, 64>;

impl<const MAILBOX: u32, const PAD: usize> Node<MAILBOX, PAD> {
    /// More than any address may hold of one shard.
    pub(crate) const MAX_BOUND: u32 = 64;

    pub(crate) fn new(core: Core) -> Self {
        Self { core, _pad: [0; PAD] }
    }

    pub(crate) fn id(&self) -> usize {
        self.core.id
    }

    fn seen(&self, cx: &Cx<'_>) {
        let me = match MAILBOX {
            2 => Target::Small(cx.me()),
            12 => Target::Low(cx.me()),
            _ => Target::Large(cx.me()),
        };
        world(|w| w.seen(self.core.id, me));
        let tailbeam_runtime::Path { published_ns, seen_ns, aside_ns, turn_ns } = cx.path();
        let aside_ns = if aside_ns == 0 { turn_ns } else { aside_ns };
        let in_order = published_ns <= seen_ns && seen_ns <= aside_ns && aside_ns <= turn_ns;
        if !in_order || seen_ns == 0 || turn_ns != cx.turn_ns() {
            world(|w| w.wrong(|| format!("it came by {:?}", cx.path())));
        }
    }
}

impl<const M: u32, const PAD: usize> Agent for Node<M, PAD> {
    type Msg = Letter;
    const MAILBOX: u32 = M;
    const CLASS: Class = match M {
        2 => Class::High,
        12 => Class::Low,
        _ => Class::Normal,
    };
    const TRAPS_EXITS: bool = M == 32;

    async fn on(&mut self, letter: Letter, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let Letter { stamp, act } = letter;
        self.seen(cx);
        self.core.read(stamp, cx);
        let done = ops::act(&mut self.core, act, cx).await;
        done.inspect_err(|_| world(|w| w.stops(self.core.id)))
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.seen(cx);
        self.core.fired(token, cx.shard_index(), cx.fresh_ns());
        ops::on_timer(&mut self.core, cx).inspect_err(|_| world(|w| w.stops(self.core.id)))
    }

    fn on_down(&mut self, down: Down, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.seen(cx);
        relations::on_down(&self.core, down, cx).inspect_err(|_| world(|w| w.stops(self.core.id)))
    }

    fn on_started(&mut self, _: u32, _: Option<AgentId>, cx: &mut Cx<'_>) {
        self.seen(cx);
    }
}

/// An address of any type.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Small(Addr<Small>),
    Large(Addr<Large>),
    Low(Addr<Low>),
}

/// The same for each type of address.
macro_rules! each {
    ($target:expr, $to:ident => $result:expr) => {
        match $target {
            $crate::node::Target::Small($to) => $result,
            $crate::node::Target::Large($to) => $result,
            $crate::node::Target::Low($to) => $result,
        }
    };
}
pub(crate) use each;

impl Target {
    pub(crate) fn shard(self) -> usize {
        each!(self, to => to.shard())
    }

    pub(crate) fn id(self) -> AgentId {
        each!(self, to => to.id())
    }

    pub(crate) const fn mailbox(self) -> u32 {
        match self {
            Self::Small(_) => Small::MAILBOX,
            Self::Large(_) => Large::MAILBOX,
            Self::Low(_) => Low::MAILBOX,
        }
    }

    pub(crate) const fn traps(self) -> bool {
        matches!(self, Self::Large(_))
    }

    /// Unread letters of one shard that it may have: another shard learns in batches what was read.
    pub(crate) fn bound(self, origin: usize) -> u32 {
        let max = self.mailbox();
        let arrears = if max < 8 { 1 } else { max / 4 };
        if origin == self.shard() { max } else { max + arrears - 1 }
    }

    pub(crate) fn move_to(self, shard: usize, sim: &mut Simulation) -> Result<Self, MoveError> {
        Ok(match self {
            Self::Small(to) => Self::Small(sim.move_agent(to, shard)?),
            Self::Large(to) => Self::Large(sim.move_agent(to, shard)?),
            Self::Low(to) => Self::Low(sim.move_agent(to, shard)?),
        })
    }

    /// Sends a letter and judges the outcome. Whether it was accepted.
    pub(crate) fn send(self, cx: &mut Cx<'_>, letter: Letter) -> bool {
        let id = letter.id();
        let sent = each!(self, to => to.try_send(cx, letter));
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
                world(|w| w.letter_accepted(id, origin, self));
                return true;
            }
            Err(error) => error,
        };
        world(|w| {
            let (node, via) = (w.letters[id].node, w.letters[id].via);
            let record = &w.nodes[node];
            // What came to where it lived before is passed on here, from this shard if it was one of those.
            let others = record.addresses.iter().enumerate().filter(|(other, _)| *other != via);
            let passed: u32 = others.flat_map(|(_, address)| address.unread).sum();
            let own = record.addresses[via].unread[origin];
            // A copy goes to the address that was known when it was published. If this is an old place of this
            // shard, the shard passes it on and counts it as its own, whoever has published it.
            let places = record.addresses.iter().enumerate();
            let is_old_place = places
                .filter(|(other, _)| *other != via)
                .any(|(_, address)| address.to.shard() == origin);
            let published = match is_old_place {
                true => w.published_unread.iter().sum(),
                false => w.published_unread[origin],
            };
            let unread = own + passed + published;
            let alive = record.alive;
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
