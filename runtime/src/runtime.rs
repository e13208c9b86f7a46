//! Starting, reaching and ending the shards.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::agent::{self, Account, Addr, Agent, By, Cx, MoveError, Placement, Registry};
use crate::channel::envelope::Envelope;
use crate::channel::spsc;
use crate::clock::{self, Clock};
use crate::config::{Choice, Config};
use crate::error::{StartError, Stopped};
use crate::observe::Observer;
use crate::panics::contain;
use crate::ring::faulty::Faulty;
use crate::ring::{Doorbells, Event, Ring};
use crate::shard::idle::Idling;
use crate::shard::lane::reservations;
use crate::shard::run::{self, ShardReport};
use crate::shard::shared::Shared;
use crate::shard::waker::Home;
use crate::shard::{Links, Shard, pin, stamp};
use crate::stall::{Detector, Stall};
use crate::stats::ShardStats;
use crate::stopping::{Next, Stopping};

/// What the shards left behind, in the order of the cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownReport {
    /// One per shard.
    pub shards: Vec<ShardReport>,
}

/// One shard per core.
#[derive(Debug)]
pub struct Runtime {
    cores: Vec<usize>,
    choice: Choice,
    shared: Vec<Arc<Shared>>,
    threads: Vec<JoinHandle<ShardReport>>,
    drain_ns: u64,
    home: Home,
    stalls: Detector,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts one pinned thread per core, each with its own ring.
    ///
    /// # Errors
    /// [`StartError`]; no thread is left behind.
    pub fn start<O: Observer>(
        config: Config,
        observer: impl Fn(usize) -> O,
    ) -> Result<Self, StartError> {
        let make = |entries: u32, event: &Event| -> Result<Box<dyn Doorbells>, StartError> {
            Ok(Box::new(Ring::new(entries, event)?))
        };
        Self::start_on(config, observer, make)
    }

    /// [`Runtime::start`] on rings of the caller's; tests give faulty ones.
    pub(crate) fn start_on<O: Observer>(
        config: Config,
        observer: impl Fn(usize) -> O,
        make_ring: MakeRing,
    ) -> Result<Self, StartError> {
        config.check()?;
        let cores = pin::resolve(&config.cores)?;
        let directory = Arc::default();
        let choice = Choice::make(&config, &cores);
        let shared = cores
            .iter()
            .map(|&core| Ok(Arc::new(Shared::new(core, &directory, choice.bells, Event::fd()?))))
            .collect::<Result<Vec<_>, StartError>>()?;
        let drain_ns = config.drain_ns;
        let (stall_ns, stalls_max) = (config.stall_ns, config.stalls_max);
        let mut runtime = Self {
            cores,
            choice,
            home: Home::take(shared.clone().into())?,
            shared,
            threads: Vec::new(),
            drain_ns,
            stalls: Detector::default(),
        };
        let (ready, started) = mpsc::channel();
        for (index, links) in links(runtime.cores.len(), &config).into_iter().enumerate() {
            let seat = Seat {
                place: (runtime.home.number(), index),
                core: runtime.cores[index],
                config: config.clone(),
                peers: runtime.shared.clone(),
                links,
                idling: Idling::new(runtime.choice.idle, runtime.choice.wake_ns()),
                observer: Box::new(observer(index)),
                ready: ready.clone(),
                make_ring,
            };
            let builder = thread::Builder::new().name(format!("shard-{}", seat.core));
            match builder.spawn(move || seat.run()) {
                Ok(handle) => runtime.threads.push(handle),
                Err(source) => return Err(StartError::Kernel { action: "start a thread", source }),
            }
        }
        drop(ready);
        runtime.stalls = Detector::start(runtime.shared.clone(), stall_ns, stalls_max)?;
        // An error ends every thread: dropping `runtime` stops and joins those that run.
        for outcome in started.iter().take(runtime.cores.len()) {
            outcome?;
        }
        Ok(runtime)
    }

    /// Number of shards.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shared.len()
    }

    /// CPU of each shard.
    #[must_use]
    pub fn cores(&self) -> &[usize] {
        &self.cores
    }

    /// The bells and the way to idle, and why.
    #[must_use]
    pub const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Runs `f` on a shard between two turns and waits for its result.
    ///
    /// # Errors
    /// [`Stopped`] when the shard has ended, or `f` panicked.
    pub fn run_on<R: Send + 'static>(
        &self,
        shard: usize,
        f: impl FnOnce(&mut Cx<'_>) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let shared = self.shared.get(shard).ok_or(Stopped)?;
        if shared.ending.has_ended() {
            return Err(Stopped);
        }
        let (send, receive) = mpsc::sync_channel(1);
        shared.post_job(Box::new(move |shard: &Rc<Shard>| {
            if let Some(result) = contain(|| f(&mut Cx::new(shard, u64::MAX))) {
                // The caller may have gone; its result goes with it.
                let _ = send.send(result);
            }
        }));
        // A shard that has ended since, by a panic, has dropped the jobs that it found then, and looks for none after.
        if shared.ending.has_ended() {
            drop(shared.take_jobs());
        }
        receive.recv().map_err(|_| Stopped)
    }

    /// Spawns an agent on a shard; `make` runs there, so the agent need not be `Send`.
    ///
    /// # Errors
    /// [`Stopped`] when the shard has ended or its table is full.
    pub fn spawn_on<A: Agent>(
        &self,
        shard: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, Stopped> {
        self.run_on(shard, move |cx| cx.spawn(make()).ok())?.ok_or(Stopped)
    }

    /// Spawns an agent where a policy says; `make` runs there.
    ///
    /// # Errors
    /// [`Stopped`] when there is no such shard, it has ended or its table is full.
    pub fn spawn<A: Agent>(
        &self,
        placement: Placement,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, Stopped> {
        let rotor = &self.shared.first().ok_or(Stopped)?.directory.rotor;
        let shard = placement.shard(rotor, &|| self.stats(), self.shards());
        self.spawn_on(shard.ok_or(Stopped)?, make)
    }

    /// Moves an idle agent to another shard and returns its new address. The old one stays valid: what is sent
    /// there is passed on in order; it costs a slot until the agent ends (`places_kept`). Relations, names, timers and
    /// accounts go along.
    ///
    /// # Errors
    /// [`MoveError`]; the agent lives where it lived.
    pub fn move_agent<A: Agent + Send>(
        &self,
        agent: Addr<A>,
        shard: usize,
    ) -> Result<Addr<A>, MoveError> {
        agent::move_agent(self, agent, shard)
    }

    /// The agents with the largest accounts, `count` at most. Looks at every agent between two turns of its
    /// shard: about 10 ms for a million.
    #[must_use]
    pub fn accounts(&self, by: By, count: usize) -> Vec<Account> {
        let of = |shard| self.run_on(shard, move |cx| cx.shard().accounts(by, count));
        let mut all: Vec<Account> =
            (0..self.shards()).filter_map(|s| of(s).ok()).flatten().collect();
        agent::account::keep(&mut all, by, count);
        all
    }

    /// The handlers that wait, by what they wait for, and the wakers that are out: what will never run again is
    /// among them. Looks at every agent, timer and open ask of each shard between two turns, which waits meanwhile.
    ///
    /// # Errors
    /// [`Stopped`] when a shard has ended: what it held is gone.
    pub fn registry(&self) -> Result<Registry, Stopped> {
        let mut all = Registry::default();
        for shard in 0..self.shards() {
            all.merge(self.run_on(shard, |cx| cx.shard().registry())?);
        }
        Ok(all)
    }

    /// Has `hook` told of each stall while it lasts, on the detector's thread: it may look where the turn is, and then
    /// ask, by the function that it is given, whether that was still the same turn. As long as it takes, no other stall
    /// is found. It takes the place of an earlier one, and must not set another; its panics are contained.
    pub fn on_stall(&self, hook: impl FnMut(&Stall, &dyn Fn() -> bool) + Send + 'static) {
        self.stalls.hook(Box::new(hook));
    }

    /// Takes the stalls that were found since the last call, and the number of all since the start: those that
    /// did not fit `Config::stalls_max`, the shortest as far as was known when they were found, are in the number only.
    #[must_use]
    pub fn stalls(&self) -> (Vec<Stall>, u64) {
        self.stalls.take()
    }

    /// Messages that wait at one agent of this type at most, from all cores together, as the type says
    /// ([`Agent::MAILBOX`]).
    #[must_use]
    pub fn mailbox_bound<A: Agent>(&self) -> u64 {
        let others = self.shards() as u64 - 1;
        u64::from(A::MAILBOX) + others * u64::from(reservations(A::MAILBOX))
    }

    /// Counters of every shard, as last published.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.shared.iter().map(|shared| shared.stats()).collect()
    }

    /// Stops every shard, lets queues, mailboxes and rings run empty for at most `drain_ns`, then ends all
    /// shards together and joins the threads. A handler that never returns is waited for.
    #[must_use]
    pub fn shutdown(mut self) -> ShutdownReport {
        ShutdownReport { shards: self.stop() }
    }

    /// [`Runtime::shutdown`] with another bound than [`Config::drain_ns`]: 0 where nobody waits for what is on its way.
    #[must_use]
    pub fn shutdown_within(mut self, drain_ns: u64) -> ShutdownReport {
        self.drain_ns = drain_ns;
        ShutdownReport { shards: self.stop() }
    }

    fn stop(&mut self) -> Vec<ShardReport> {
        let mut stopping = Stopping::new(&self.shared, self.drain_ns);
        loop {
            match stopping.step(clock::monotonic_ns()) {
                Next::Step => {}
                Next::Wait(ns) => thread::park_timeout(Duration::from_nanos(ns)),
                Next::Done => break,
            }
        }
        // A shard's thread contains every panic of user code; one of our own shows as not drained.
        self.threads.drain(..).map(|thread| thread.join().unwrap_or_default()).collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn links(shards: usize, config: &Config) -> Vec<Links> {
    let (slots, control_slots) = (config.peer_ring_slots as usize, config.control_slots as usize);
    let mut links: Vec<Links> = (0..shards).map(|_| Links::none(shards)).collect();
    for from in 0..shards {
        for to in (0..shards).filter(|&to| to != from) {
            let make = if config.turn_stamps && stamp::BUILT { spsc::dated } else { spsc::channel };
            let (producer, consumer) = make(slots);
            links[from].producers[to] = Some(producer);
            links[to].consumers[from] = Some(consumer);
            let (producer, consumer) = spsc::channel::<u64>(slots);
            links[to].acks_out[from] = Some(producer);
            links[from].acks_in[to] = Some(consumer);
            let (producer, consumer) = spsc::channel::<Envelope>(control_slots);
            links[from].control_out[to] = Some(producer);
            links[to].control_in[from] = Some(consumer);
        }
    }
    links
}

/// Makes the ring of a shard, on its thread.
pub(crate) type MakeRing = fn(u32, &Event) -> Result<Box<dyn Doorbells>, StartError>;

/// The ring with its faults, if it is ever to have any.
fn suffering(ring: Box<dyn Doorbells>, config: &Config, shard: usize) -> Box<dyn Doorbells> {
    match &config.ring_faults {
        Some(faults) => {
            let room = (config.uring_entries, config.ops_max);
            Box::new(Faulty::new(ring, Arc::clone(faults), shard, room))
        }
        None => ring,
    }
}

/// What a thread takes along to become a shard.
struct Seat {
    /// Numbers of the runtime and of the shard in it.
    place: (u16, usize),
    core: usize,
    config: Config,
    peers: Vec<Arc<Shared>>,
    links: Links,
    idling: Idling,
    observer: Box<dyn Observer>,
    ready: mpsc::Sender<Result<(), StartError>>,
    make_ring: MakeRing,
}

/// Says that the shard has ended, however its thread does; the others wait for it otherwise, and so does who has posted
/// a job that nobody will run.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ending.end();
        drop(self.0.take_jobs());
    }
}

impl Seat {
    fn run(self) -> ShardReport {
        let shared = Arc::clone(&self.peers[self.place.1]);
        let _ends = Ends(Arc::clone(&shared));
        let ring = pin::pin(self.core)
            .and_then(|()| (self.make_ring)(self.config.uring_entries, shared.event()));
        let mut ring = match ring {
            Ok(ring) => suffering(ring, &self.config, self.place.1),
            Err(error) => {
                let _ = self.ready.send(Err(error));
                return ShardReport::default();
            }
        };
        let shard = Shard::new(self.place, self.config, self.peers, self.links, Clock::Monotonic);
        let shard = match shard {
            Ok(shard) => shard,
            Err(error) => {
                let _ = self.ready.send(Err(error));
                return ShardReport::default();
            }
        };
        shared.set_ring(ring.fd());
        shard.set_thread_id();
        shard.observe(self.observer);
        let _ = self.ready.send(Ok(()));
        drop(self.ready);
        run::run(&shard, ring.as_mut(), self.idling)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::agent::Stop;
    use crate::observe::NoObserver;
    use crate::ring::twin;

    /// Two agents on two cores that throw one ball: each throw finds the other shard asleep.
    struct Player(Option<Addr<Self>>, mpsc::Sender<u32>);

    enum Play {
        With(Addr<Player>),
        Ball(u32),
    }

    impl Agent for Player {
        type Msg = Play;

        async fn on(&mut self, play: Play, cx: &mut Cx<'_>) -> Result<(), Stop> {
            match (play, self.0) {
                (Play::With(other), _) => self.0 = Some(other),
                (Play::Ball(0), _) => self.1.send(0).map_err(|_| Stop)?,
                (Play::Ball(left), Some(other)) => {
                    other.try_send(cx, Play::Ball(left - 1)).map_err(|_| Stop)?;
                }
                (Play::Ball(_), None) => return Err(Stop),
            }
            Ok(())
        }
    }

    /// Throws 500 balls; returns the failed ring calls.
    #[expect(clippy::print_stderr, reason = "a test that skips must say so")]
    fn play(make: MakeRing) -> Option<u64> {
        let runtime = match Runtime::start_on(Config::default(), |_| NoObserver, make) {
            Err(StartError::Missing) => {
                let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
                assert!(!required, "TAILBEAM_TEST_RINGS is set and this kernel has no io_uring");
                eprintln!("SKIPPED: this kernel has no io_uring");
                return None;
            }
            runtime => runtime.expect("has io_uring"),
        };
        let last = runtime.shards() - 1;
        let (done, finished) = mpsc::channel();
        let other = done.clone();
        let one = runtime.spawn_on(0, move || Player(None, done)).expect("room");
        let two = runtime.spawn_on(last, move || Player(None, other)).expect("room");
        let begin = move |cx: &mut Cx<'_>| {
            one.try_send(cx, Play::With(two)).is_ok()
                && two.try_send(cx, Play::With(one)).is_ok()
                && one.try_send(cx, Play::Ball(500)).is_ok()
        };
        assert!(runtime.run_on(0, begin).expect("lives"));
        assert_eq!(finished.recv(), Ok(0));
        let failed = runtime.stats().iter().map(|shard| shard.ring_failed).sum();
        assert!(runtime.shutdown().shards.iter().all(|shard| shard.drained));
        Some(failed)
    }

    /// In a process of its own: the bound is on all of its memory.
    #[test]
    fn no_room_for_tables_is_an_error_of_the_start() {
        const WITHIN: &str = "TAILBEAM_TEST_WITHIN";
        if std::env::var_os(WITHIN).is_some() {
            let config = Config { agents_max: 1 << 30, ..Config::default() };
            let make = |entries, event: &_| twin::make(entries, event, twin::Fault::None);
            match Runtime::start_on(config, |_| NoObserver, make) {
                Err(StartError::Missing) => {}
                Err(error) => assert!(error.to_string().contains("address space"), "{error}"),
                Ok(_) => panic!("2 tables of 4 GiB in 6 GiB"),
            }
            return;
        }
        let name = "runtime::tests::no_room_for_tables_is_an_error_of_the_start";
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -v 6291456 && exec \"$0\" \"$@\""]);
        shell.arg(std::env::current_exe().expect("a test binary")).args(["--exact", name]);
        let output = shell.env(WITHIN, "").output().expect("a shell");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn no_message_is_lost_when_rings_fail() {
        let Some(failed) = play(|entries, event| twin::make(entries, event, twin::Fault::None))
        else {
            return;
        };
        assert_eq!(failed, 0);
        play(|entries, event| twin::make(entries, event, twin::Fault::BellsUnqueued));
        play(|entries, event| twin::make(entries, event, twin::Fault::BellsUnreached));
        play(|entries, event| twin::make(entries, event, twin::Fault::EarlyWakes));
        let failed = play(|entries, event| twin::make(entries, event, twin::Fault::EnterFails));
        assert!(failed.is_some_and(|failed| failed > 0), "the fault must have happened");
    }
}
