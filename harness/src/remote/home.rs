//! The second process: responders on shards of their own, and the connections by which they are asked.
//!
//! Each shard listens at an address of its own, so that whoever connects chooses the core. A connection says hello
//! first; then what is asked goes to the agent that it is for, on whichever core that lives, and its signed answer goes
//! back by the connection that the request came by. When a connection is over, answers for it are dropped and counted:
//! those who asked have long given up, or ask again by the next connection.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tailbeam_runtime::net::{TcpListener, TcpStream};
use tailbeam_runtime::{Addr, Agent, Config, Cores, Cx, NoObserver, OpError, Runtime, Stop};

use super::frame::{Frame, Hello, Reader};
use super::outbox::Outbox;
use super::within::until;
use crate::load::{Draw, Stream, answer_data};
use crate::plan::Plan;
use crate::protocol::elicitation::{Id, KeyRing, Nonce, Notice, RunSecret, Say, Signer};

/// What the second process is told by the first: on its stdin, as a secret is nobody else's.
#[derive(Clone, Serialize, Deserialize)]
pub struct HomeConfig {
    /// Secret of the run, of which the keys of its agents come.
    pub secret: [u8; 32],
    /// Agents of the run.
    pub agents: u32,
    /// From this one on they answer here.
    pub first: u32,
    /// Seed of the run: whether an agent declines is drawn from it.
    pub seed: u64,
    /// Share of requests that are declined.
    pub decline: f64,
    /// Requests that an agent holds, at most.
    pub pending_max: u32,
    /// Requests on their way to all of them, at most, by Little's law: bound of the timers.
    pub in_flight: u32,
    /// Cores; all that this process may use when empty.
    pub cores: Vec<usize>,
    /// Address of the listeners.
    pub ip: IpAddr,
    /// Port of the first shard's listener, the next ones follow; 0: free ones.
    pub port: u16,
}

impl HomeConfig {
    /// The second process of a run of `plan`, which listens at an address: a port of 0 is a free one.
    #[must_use]
    pub fn of(plan: &Plan, secret: [u8; 32], (ip, port): (IpAddr, u16)) -> Self {
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        // Little's law, doubled: what waits for its timer there.
        let held = plan.rate_per_s() * plan.timeout_ns as f64 / 1e9 * 2.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive and bounded"
        )]
        let in_flight = held.min(1e9) as u32;
        Self {
            secret,
            agents: narrow(plan.agents),
            first: first_of(plan),
            seed: plan.seed,
            decline: plan.protocol.decline,
            pending_max: plan.pending_max,
            in_flight,
            cores: plan.cores.clone().unwrap_or_default(),
            ip,
            port,
        }
    }
}

/// The agent from which on they answer in the second process: the second half of those that are asked.
pub(crate) fn first_of(plan: &Plan) -> u32 {
    let askers = u32::try_from(plan.askers()).unwrap_or(u32::MAX);
    askers - askers / 2
}

impl std::fmt::Debug for HomeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HomeConfig")
            .field("agents", &self.agents)
            .field("first", &self.first)
            .finish_non_exhaustive()
    }
}

/// Why the second process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The runtime did not start.
    #[error(transparent)]
    Start(#[from] tailbeam_runtime::StartError),
    /// A shard has ended, or had no room.
    #[error("{0}")]
    Shard(String),
    /// An address cannot be listened at.
    #[error("cannot listen at {address}: {cause}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        cause: String,
    },
}

/// What it did, for whoever started it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeReport {
    /// Connections that said hello.
    pub connections: u64,
    /// Requests that came.
    pub asked: u64,
    /// Answers that were given to a connection.
    pub answered: u64,
    /// Requests for which their agent had no room.
    pub full: u64,
    /// Elicitations that ended before they were answered, as the first process said.
    pub ended: u64,
    /// Answers whose connection was over, or full.
    pub undeliverable: u64,
    /// Connections that were ended because of what they said, or because there were too many.
    pub refused: u64,
    /// Connections that ended before they said hello.
    pub unheard: u64,
    /// Connections that could not be taken.
    pub failed_accepts: u64,
    /// CPU time of the process, ns, which its program reads; none where it cannot.
    pub cpu_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    asked: AtomicU64,
    answered: AtomicU64,
    full: AtomicU64,
    ended: AtomicU64,
    undeliverable: AtomicU64,
    refused: AtomicU64,
    unheard: AtomicU64,
    failed_accepts: AtomicU64,
}

fn count(of: &AtomicU64) {
    of.fetch_add(1, Relaxed);
}

/// What all shards share.
#[derive(Debug)]
struct Shared {
    config: HomeConfig,
    /// Address of agent `first + i`.
    agents: OnceLock<Vec<Addr<Responder>>>,
    counts: Counts,
}

/// One that is asked.
struct Asked {
    id: Id,
    challenge: Nonce,
    key: u64,
    since_ns: u64,
    due_ns: u64,
    by: Addr<Writer>,
}

enum ToResponder {
    Asked(Box<Asked>),
    /// Its bytes, as a message is aligned to 8.
    Ended([u8; 16]),
}

/// An agent that answers.
struct Responder {
    shared: Arc<Shared>,
    signer: Signer,
    draw: Draw,
    data: Arc<[u8]>,
    pending: Vec<Option<Box<Asked>>>,
    free: Vec<u32>,
}

impl Responder {
    fn new(shared: Arc<Shared>, keys: &KeyRing, index: u32) -> Self {
        let draw = Draw::new(shared.config.seed, u64::from(index));
        let (signer, data) = (Signer::new(index, keys), answer_data(index));
        Self { shared, signer, draw, data, pending: Vec::new(), free: Vec::new() }
    }

    fn respond(&self, asked: &Asked, cx: &mut Cx<'_>) {
        let declines = self.draw.unit(asked.id.seq(), Stream::Content) < self.shared.config.decline;
        let say = if declines { Say::Decline } else { Say::Accept(Arc::clone(&self.data)) };
        let now_ns = cx.fresh_ns();
        let message = self.signer.respond(asked.id, asked.challenge, now_ns, say);
        let held_ns = now_ns.saturating_sub(asked.since_ns);
        let answer = Some(Frame::Answer { key: asked.key, held_ns, message });
        let answer = ToWriter { answer, shared: Arc::clone(&self.shared) };
        // One that cannot be sent is dropped, and counts itself.
        drop(asked.by.try_send(cx, Box::new(answer)));
    }

    fn hold(&mut self, asked: Box<Asked>, cx: &mut Cx<'_>) {
        let held = self.pending.len() - self.free.len();
        if held >= self.shared.config.pending_max as usize {
            return count(&self.shared.counts.full);
        }
        if asked.due_ns <= cx.fresh_ns() {
            return self.respond(&asked, cx);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            u32::try_from(self.pending.len() - 1).expect("bounded by pending_max, a u32")
        });
        if cx.notify_at(asked.due_ns, u64::from(index)).is_err() {
            self.free.push(index);
            return count(&self.shared.counts.full);
        }
        self.pending[index as usize] = Some(asked);
    }
}

impl Agent for Responder {
    type Msg = ToResponder;
    const MAILBOX: u32 = 256;

    async fn on(&mut self, msg: ToResponder, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            ToResponder::Asked(asked) => self.hold(asked, cx),
            ToResponder::Ended(id) => {
                let id = Id::from_bytes(id);
                let held = |held: &Option<Box<Asked>>| held.as_ref().is_some_and(|of| of.id == id);
                if let Some(index) = self.pending.iter().position(held) {
                    // Its place is free once its timer has fired.
                    self.pending[index] = None;
                    count(&self.shared.counts.ended);
                }
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let index = usize::try_from(token).unwrap_or(usize::MAX);
        if let Some(place) = self.pending.get_mut(index) {
            let held = place.take();
            self.free.push(u32::try_from(index).expect("a place of the table"));
            if let Some(asked) = held {
                self.respond(&asked, cx);
            }
        }
        Ok(())
    }
}

/// An answer on its way to its connection. Dropped before it is there it counts as undeliverable, wherever that is: also in
/// the mailbox of a connection that is over.
struct ToWriter {
    answer: Option<Frame>,
    shared: Arc<Shared>,
}

impl Drop for ToWriter {
    fn drop(&mut self) {
        if self.answer.is_some() {
            count(&self.shared.counts.undeliverable);
        }
    }
}

/// Takes answers of all shards for one connection.
struct Writer {
    out: Outbox,
    shared: Arc<Shared>,
}

impl Agent for Writer {
    type Msg = Box<ToWriter>;
    const MAILBOX: u32 = 50_000;

    async fn on(&mut self, mut answer: Box<ToWriter>, _: &mut Cx<'_>) -> Result<(), Stop> {
        if answer.answer.as_ref().is_some_and(|frame| self.out.push(frame)) {
            answer.answer = None;
            count(&self.shared.counts.answered);
        }
        Ok(())
    }
}

/// A connection has so long to say hello, ns.
const HELLO_NS: u64 = 5_000_000_000;
/// One of which nothing is heard for so long is over, ns.
const SILENCE_NS: u64 = 5_000_000_000;
/// Between two tries to take a connection, after one that failed, ns.
const ACCEPT_NS: u64 = 50_000_000;
/// Connections of a core at once.
const CONNECTIONS_MAX: usize = 64;

/// What a connection does with a frame; an error ends it.
fn take(
    frame: Frame,
    shared: &Shared,
    (out, by): (&Outbox, Addr<Writer>),
    cx: &mut Cx<'_>,
) -> bool {
    let agent = |to: u32| {
        let at = to.checked_sub(shared.config.first)? as usize;
        shared.agents.get()?.get(at).copied()
    };
    match frame {
        Frame::Asked { key, delay_ns, notice: Notice::Asked { to, id, challenge, .. } } => {
            let Some(agent) = agent(to) else { return false };
            count(&shared.counts.asked);
            let since_ns = cx.fresh_ns();
            let due_ns = since_ns.saturating_add(delay_ns);
            let asked = Box::new(Asked { id, challenge, key, since_ns, due_ns, by });
            if agent.try_send(cx, ToResponder::Asked(asked)).is_err() {
                count(&shared.counts.full);
            }
            true
        }
        Frame::Ended(Notice::Settled { to, id, .. }) => {
            // One that is full answers, and the answer is refused.
            agent(to).is_some_and(|agent| {
                drop(agent.try_send(cx, ToResponder::Ended(id.to_bytes())));
                true
            })
        }
        // Without room for it whoever asked will hear of it: the connection is held for dead.
        Frame::Ping(number) => {
            out.push(&Frame::Pong(number));
            true
        }
        _ => false,
    }
}

/// Whether the other side says the right thing first; `None`: it ends, and has said nothing.
async fn hello(stream: &TcpStream, reader: &RefCell<Reader>, wanted: Hello) -> Option<bool> {
    loop {
        match reader.borrow_mut().next() {
            Ok(Some(Frame::Hello(hello))) => return Some(hello == wanted),
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return Some(false),
        }
        match stream.recv().await {
            Ok(Some(bytes)) => reader.borrow_mut().add(&bytes),
            Ok(None) | Err(_) => return None,
        }
    }
}

async fn connection(cx: &mut Cx<'_>, stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (stream, out) = (Rc::new(stream), Outbox::default());
    let reader = RefCell::new(Reader::default());
    let own = Hello { agents: shared.config.agents, first: shared.config.first };
    let until_ns = cx.fresh_ns() + HELLO_NS;
    match until(cx, until_ns, hello(&stream, &reader, own)).await.flatten() {
        Some(true) => {}
        Some(false) => return count(&shared.counts.refused),
        None => return count(&shared.counts.unheard),
    }
    let Ok(by) = cx.spawn(Writer { out: out.clone(), shared: Arc::clone(&shared) }) else {
        return count(&shared.counts.refused);
    };
    let (sends, waits) = (Rc::clone(&stream), out.clone());
    let sending = cx.spawn_with(async move |_: &mut Cx<'_>| waits.drain(&sends).await);
    out.push(&Frame::Hello(own));
    count(&shared.counts.connections);
    let mut wrong = sending.is_err();
    while !wrong && !out.is_closed() {
        // The other side asks every half second whether somebody is there: one that does not is not there itself.
        let until_ns = cx.fresh_ns() + SILENCE_NS;
        match until(cx, until_ns, stream.recv()).await {
            Some(Ok(Some(bytes))) => reader.borrow_mut().add(&bytes),
            Some(Ok(None) | Err(_)) | None => break,
        }
        loop {
            match reader.borrow_mut().next() {
                Ok(Some(frame)) => wrong = !take(frame, &shared, (&out, by), cx),
                Ok(None) => break,
                Err(_) => wrong = true,
            }
            if wrong {
                break;
            }
        }
    }
    if wrong {
        count(&shared.counts.refused);
    }
    let left = out.close();
    shared.counts.answered.fetch_sub(left, Relaxed);
    shared.counts.undeliverable.fetch_add(left, Relaxed);
    // Its task may wait in a send that the other side does not read.
    let _ = stream.shutdown_send();
    cx.kill(by.id());
}

async fn accept(cx: &mut Cx<'_>, listener: TcpListener, shared: Arc<Shared>) {
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(OpError::Closed) => return,
            // No descriptor is left, say: another one is tried, and not at once.
            Err(_) => {
                count(&shared.counts.failed_accepts);
                let again_ns = cx.fresh_ns() + ACCEPT_NS;
                let _ = cx.sleep_until(again_ns).await;
                continue;
            }
        };
        if open.get() >= CONNECTIONS_MAX {
            count(&shared.counts.refused);
            continue;
        }
        let (shared, open) = (Arc::clone(&shared), Rc::clone(&open));
        open.set(open.get() + 1);
        let place = Place(open);
        let run = async move |cx: &mut Cx<'_>| {
            connection(cx, stream, shared).await;
            drop(place);
        };
        // Without room for its task it ends.
        drop(cx.spawn_with(run));
    }
}

/// A connection's place among those of its core.
struct Place(Rc<Cell<usize>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The second process while it lives.
#[derive(Debug)]
pub struct Home {
    runtime: Runtime,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

impl Home {
    /// Makes the agents and listens.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn start(config: HomeConfig) -> Result<Self, HomeError> {
        let cores = match config.cores.is_empty() {
            true => Cores::Auto,
            false => Cores::List(config.cores.clone()),
        };
        let count = config.agents.saturating_sub(config.first);
        let bounds = Config {
            cores,
            agents_max: count + 4_096,
            timers_max: config.in_flight.saturating_mul(2).saturating_add(65_536),
            timer_slack_ns: 0,
            // Connections stay open at the end: nothing to wait for.
            drain_ns: 10_000_000,
            ..Config::default()
        };
        let runtime = Runtime::start(bounds, |_| NoObserver)?;
        let shared =
            Arc::new(Shared { config, agents: OnceLock::new(), counts: Counts::default() });
        let mut home = Self { runtime, shared, addresses: Vec::new() };
        home.populate()?;
        home.listen()?;
        Ok(home)
    }

    fn on<R: Send + 'static>(
        &self,
        shard: usize,
        f: impl FnOnce(&mut Cx<'_>) -> Result<R, String> + Send + 'static,
    ) -> Result<R, HomeError> {
        let done = self.runtime.run_on(shard, f);
        done.map_err(|_| HomeError::Shard("a core has stopped".to_owned()))?
            .map_err(HomeError::Shard)
    }

    fn populate(&self) -> Result<(), HomeError> {
        let (shards, first) = (self.runtime.shards(), self.shared.config.first);
        let total = self.shared.config.agents.saturating_sub(first) as usize;
        let mut per_shard = Vec::with_capacity(shards);
        for shard in 0..shards {
            let shared = Arc::clone(&self.shared);
            per_shard.push(self.on(shard, move |cx| {
                let keys = KeyRing::new(&RunSecret::new(shared.config.secret), 1);
                let spawn = |at: usize| {
                    let index = first + u32::try_from(at).expect("below the agents, a u32");
                    let agent = Responder::new(Arc::clone(&shared), &keys, index);
                    cx.spawn(agent).map_err(|error| error.to_string())
                };
                (shard..total).step_by(shards).map(spawn).collect::<Result<Vec<_>, _>>()
            })?);
        }
        let all = (0..total).map(|at| per_shard[at % shards][at / shards]).collect();
        self.shared.agents.set(all).expect("set once, before anybody listens");
        Ok(())
    }

    fn listen(&mut self) -> Result<(), HomeError> {
        let HomeConfig { ip, port, .. } = self.shared.config;
        for shard in 0..self.runtime.shards() {
            let offset = u16::try_from(shard).unwrap_or(u16::MAX);
            let port = if port == 0 { 0 } else { port.saturating_add(offset) };
            let address = SocketAddr::new(ip, port);
            let shared = Arc::clone(&self.shared);
            let listening = self.on(shard, move |cx| {
                let listener = TcpListener::bind(cx, address).map_err(|error| error.to_string())?;
                let own = listener.local_addr().map_err(|error| error.to_string())?;
                cx.spawn_with(async move |cx: &mut Cx<'_>| accept(cx, listener, shared).await)
                    .map_err(|error| error.to_string())?;
                Ok(own)
            });
            match listening {
                Ok(own) => self.addresses.push(own),
                Err(HomeError::Shard(cause)) => return Err(HomeError::Listen { address, cause }),
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Where it listens, a core each.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends it.
    #[must_use]
    pub fn end(self) -> HomeReport {
        drop(self.runtime.shutdown());
        let counts = &self.shared.counts;
        let of = |of: &AtomicU64| of.load(Relaxed);
        HomeReport {
            connections: of(&counts.connections),
            asked: of(&counts.asked),
            answered: of(&counts.answered),
            full: of(&counts.full),
            ended: of(&counts.ended),
            undeliverable: of(&counts.undeliverable),
            refused: of(&counts.refused),
            unheard: of(&counts.unheard),
            failed_accepts: of(&counts.failed_accepts),
            cpu_ns: None,
        }
    }
}
