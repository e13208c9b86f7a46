//! A runtime on one thread, in which a seed decides everything that a machine leaves to chance: which shard
//! goes on, how long it takes, when a bell arrives and whether it does, what the clocks say.
//!
//! The shards, their rounds, rings of messages, wakes, timers and endings are the real ones; what is
//! replaced is the thread, the clock and the ring. A shard is taken on in the moves of its loop: a round,
//! the look before it sleeps, the wake. One that sleeps moves again only when a bell or a knock has
//! arrived, or its time is over, or it wakes for nothing; so a lost wake is seen: the shard sleeps on its
//! work with nothing on its way to it, which is a [`Failure`]. What happens between two instructions of one
//! move is not covered here: the models in `channel` are for that. Shards sleep at once here
//! ([`Idle::Park`](crate::Idle)): looking on is a model in `channel`.
//!
//! Operations on sockets and files are done by the simulated ring itself, between two moves, by system calls on the real
//! descriptors that never wait. When each is tried, what it does of what it was asked to, and what it says is drawn:
//! completions are late, overtake each other, are short or failed, come before a cancellation or in its place; a kernel
//! lacks multishot operations, buffer rings or sends without a copy. An operation whose descriptor is not ready waits,
//! and keeps nobody from coming to rest: an accept without a client is no work. That a shard keeps what it has given to
//! the ring, and does not touch the buffers that the ring may fill, is watched ([`Failure::Broken`]). Not simulated are
//! power cuts (a sync is made, and what was not synced is not lost), other processes, and sockets and files that are
//! used without the runtime; bind, listen and shutdown are the plain system calls that they are in a real runtime.
//!
//! The same seed, the same program and the same build give the same run, which [`Simulation::trace_hash`]
//! proves. Programs draw from an [`Rng`] of their own and take no decision from addresses, hash maps,
//! threads or the time of day. With Unix sockets and files that holds as long as nobody else uses them, and the sizes
//! of socket buffers (`net.core.wmem_default`) are the same. It does not hold for TCP, whose windows and timers go by
//! the time of day: a seed repeats the faults, and the order of events mostly. Of 200 runs of a seed over loopback, with
//! six connections and on a busy machine, 200 had the same trace when each echoed 1 kB, and 182 when each echoed 300 kB.
//! [`Simulation::is_exact`] says whether a run can be repeated, and a [`Failure`] says when it cannot.
//!
//! ```
//! use tailbeam_runtime::sim::{Faults, Rng, Simulation};
//! use tailbeam_runtime::{Agent, Config, Cx, Stop};
//!
//! struct Counter(u64);
//! impl Agent for Counter {
//!     type Msg = u64;
//!     async fn on(&mut self, n: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
//!         self.0 += n;
//!         if self.0 < 3 { Ok(()) } else { Err(Stop) }
//!     }
//! }
//!
//! let run = |seed| {
//!     let faults = Faults::drawn(&mut Rng::new(seed));
//!     let mut sim = Simulation::new(seed, Config::default(), 2, faults).unwrap();
//!     let counter = sim.spawn_on(0, || Counter(0)).unwrap();
//!     for n in [1, 2] {
//!         sim.run_on(1, move |cx| counter.try_send(cx, n)).unwrap().unwrap();
//!     }
//!     sim.run_until_idle().unwrap();
//!     assert_eq!(sim.stats()[0].stopped, 1);
//!     assert!(sim.shutdown().unwrap().shards.iter().all(|shard| shard.drained));
//!     sim.trace_hash()
//! };
//! assert_eq!(run(1), run(1));
//! assert_ne!(run(1), run(2));
//! ```

mod calls;
mod failure;
mod fate;
mod faults;
mod kernel;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod paths;
mod ring;
mod rng;
mod seat;
mod serve;
#[cfg(test)]
mod tests;
mod trace;

pub use crate::shard::Held;
pub use failure::{Failure, Place};
pub use faults::Faults;
pub use rng::Rng;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::agent::{Addr, Agent, Cx, MoveError};
use crate::clock::{Clock, ManualClock};
use crate::config::Config;
use crate::error::StartError;
use crate::observe::Observer;
use crate::op::REAP_WAIT_NS;
use crate::panics::contain;
use crate::ring::Event;
use crate::ring::bell::{Bells, ShardBell, ThreadBell};
use crate::runtime::{self, ShutdownReport};
use crate::shard::Shard;
use crate::shard::shared::Shared;
use crate::shard::waker::Home;
use crate::stats::ShardStats;
use crate::stopping::{Next, Stopping};

use ring::{Air, SimRing};
use seat::{Seat, State};
use trace::{Trace, What};

/// Most shards of a simulation.
pub const SHARDS_MAX: usize = 8;
/// Most steps of one call that runs until something has happened.
const STEPS_MAX: u64 = 20_000_000;
/// Steps between two searches for sleepers that nobody will wake.
const SEARCH_STEPS: u64 = 8;
/// Moves of a shard that keeps back a bell: longer, and its messages wait for the end of its work.
const KEPT_BACK_MAX: u64 = 1_000;
/// Moves of each shard that a simulation is given when it is dropped.
const DROP_MOVES_MAX: u32 = 1_000;
/// Instant at which a simulation begins: not 0, which no clock of a machine says.
const BEGIN_NS: u64 = 1_000_000_000;

/// A runtime under a seed.
pub struct Simulation {
    seed: u64,
    faults: Faults,
    rng: Rng,
    now_ns: u64,
    /// No jump goes beyond this instant.
    jump_max_ns: u64,
    seats: Vec<Seat>,
    /// For each shard, for how many moves of others its bell was kept back while it slept on work.
    kept_back: Vec<u64>,
    shared: Vec<Arc<Shared>>,
    air: Rc<RefCell<Air>>,
    /// Whether something may have become ready for an operation that waits.
    stirred: bool,
    trace: Trace,
    drain_ns: u64,
    stopping: Option<Stop>,
    _home: Home,
}

/// The thread that stops the runtime.
struct Stop {
    steps: Stopping,
    /// When it goes on; `None` when it is done.
    at_ns: Option<u64>,
}

impl std::fmt::Debug for Simulation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulation").field("place", &self.place()).finish_non_exhaustive()
    }
}

impl Simulation {
    /// A runtime of `shards` shards, 1 to [`SHARDS_MAX`]; the cores of `config` are not looked at.
    ///
    /// # Errors
    /// [`StartError`] when a limit cannot work.
    pub fn new(
        seed: u64,
        config: Config,
        shards: usize,
        faults: Faults,
    ) -> Result<Self, StartError> {
        config.check()?;
        if shards == 0 || shards > SHARDS_MAX {
            let (name, value, rule) = ("shards", shards as u64, "1 to 8");
            return Err(StartError::Limit { name, value, rule });
        }
        let bells = Bells { shards: ShardBell::MsgRing, threads: ThreadBell::EventFd };
        let directory = Arc::default();
        let note = || Event::Note(AtomicBool::new(false));
        let shared: Vec<_> = (0..shards)
            .map(|core| Arc::new(Shared::new(core, &directory, bells, note())))
            .collect();
        let home = Home::take(shared.clone().into())?;
        let mut rng = Rng::new(seed);
        let air = Rc::new(RefCell::new(Air::new(shards, rng.split(), faults)));
        let links = runtime::links(shards, &config);
        let seats = links.into_iter().enumerate().map(|(index, links)| {
            let clock = Rc::new(ManualClock::new(BEGIN_NS));
            let (place, theirs) = ((home.number(), index), Clock::Manual(Rc::clone(&clock)));
            let shard = Shard::new(place, config.clone(), shared.clone(), links, theirs)
                .expect("address space for a simulation");
            let ring = SimRing::new(index, config.uring_entries, Rc::clone(&air));
            Seat::new(shard, ring, clock)
        });
        let seats = seats.collect();
        Shard::leave();
        Ok(Self {
            seed,
            faults,
            rng,
            now_ns: BEGIN_NS,
            jump_max_ns: u64::MAX,
            seats,
            kept_back: vec![0; shards],
            shared,
            air,
            stirred: false,
            trace: Trace::new(seed),
            drain_ns: config.drain_ns,
            stopping: None,
            _home: home,
        })
    }

    /// Has an observer told of what a shard does from now on.
    pub fn observe(&mut self, shard: usize, observer: impl Observer) {
        if let Some(shard) = self.seats.get(shard).and_then(Seat::shard) {
            shard.observe(Box::new(observer));
        }
    }

    /// Number of shards.
    #[must_use]
    pub const fn shards(&self) -> usize {
        self.seats.len()
    }

    /// The instant, ns. Clocks of shards are at most [`Faults::skew_max_ns`] ahead of it.
    #[must_use]
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Hash of every decision so far, with its instant and what came of it.
    #[must_use]
    pub const fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// Whether the same seed gives the same run: `false` once a socket of another kind than Unix was used.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.air.borrow().exact
    }

    /// Decisions so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.trace.steps()
    }

    /// Counters of every shard, as last published: before each sleep and at the end.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        self.shared.iter().map(|shared| shared.stats()).collect()
    }

    /// What every shard holds; nothing for one that has ended.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let held = |seat: &Seat| seat.shard().map(|shard| shard.held()).unwrap_or_default();
        self.seats.iter().map(held).collect()
    }

    /// Gives a shard a closure to run between two turns, as a thread without a ring does, and does not wait
    /// for it. It is dropped unread when the shard has ended.
    pub fn post_on(&mut self, shard: usize, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) {
        self.trace.note(self.now_ns, shard, What::Job);
        let Some(seat) = self.seats.get(shard).filter(|seat| seat.report().is_none()) else {
            return;
        };
        seat.shared.post_job(Box::new(move |shard: &Rc<Shard>| {
            // A panic of the closure is its own affair, as in `Runtime::run_on`.
            let _ = contain(|| f(&mut Cx::new(shard, u64::MAX)));
        }));
    }

    /// Runs a closure on a shard between two turns, and the simulation until that has happened.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_on<R: Send + 'static>(
        &mut self,
        shard: usize,
        f: impl FnOnce(&mut Cx<'_>) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        let result = Arc::new(Mutex::new(None));
        let theirs = Arc::downgrade(&result);
        self.post_on(shard, move |cx| {
            let value = f(cx);
            if let Some(result) = theirs.upgrade() {
                *result.lock().expect("nothing runs under the lock") = Some(value);
            }
        });
        // The closure holds the only weak reference: without one it has run, or was dropped unread.
        self.run_while(|_| Arc::weak_count(&result) > 0)?;
        let value = result.lock().expect("nothing runs under the lock").take();
        value.ok_or_else(|| Failure::Stopped { shard, place: self.place() })
    }

    /// Spawns an agent on a shard; `make` runs there.
    ///
    /// # Errors
    /// [`Failure::Stopped`] when the shard has ended or its table is full.
    pub fn spawn_on<A: Agent>(
        &mut self,
        shard: usize,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Result<Addr<A>, Failure> {
        let address = self.run_on(shard, move |cx| cx.spawn(make()).ok())?;
        address.ok_or_else(|| Failure::Stopped { shard, place: self.place() })
    }

    /// Moves an idle agent to another shard, as [`Runtime::move_agent`](crate::Runtime::move_agent) does; the
    /// simulation goes on between its steps.
    ///
    /// # Errors
    /// [`MoveError`]; `Stopped` also when the simulation cannot go on, which its next step says.
    pub fn move_agent<A: Agent + Send>(
        &mut self,
        agent: Addr<A>,
        shard: usize,
    ) -> Result<Addr<A>, MoveError> {
        if agent.shard() == shard {
            return Ok(agent);
        }
        if shard >= self.shards() {
            return Err(MoveError::NoRoom);
        }
        let (from, stopped) = (agent.handle(), |_| MoveError::Stopped);
        let place = self.run_on(shard, |cx| cx.shard().expect_agent::<A>()).map_err(stopped)?;
        let place = place.ok_or(MoveError::NoRoom)?;
        let depart = move |cx: &mut Cx<'_>| cx.shard().depart::<A>(from, place);
        if let Err(error) = self.run_on(agent.shard(), depart).map_err(stopped).flatten() {
            let _ = self.run_on(shard, move |cx| cx.shard().unexpect_agent(place));
            return Err(error);
        }
        Ok(Addr::new(place))
    }

    /// Goes on until nothing is left to happen: every shard sleeps without a deadline.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_until_idle(&mut self) -> Result<(), Failure> {
        self.run_while(|_| true)
    }

    /// Goes on until `span_ns` are over, or nothing is left to happen.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn run_for(&mut self, span_ns: u64) -> Result<(), Failure> {
        let end_ns = self.now_ns.saturating_add(span_ns);
        self.jump_max_ns = end_ns;
        let done = self.run_while(|sim| sim.now_ns < end_ns);
        self.jump_max_ns = u64::MAX;
        done
    }

    /// Begins to stop the runtime, as [`Simulation::shutdown`] does; the next steps go on with it.
    pub fn stop(&mut self) {
        let steps = Stopping::new(&self.shared, self.drain_ns);
        self.stopping.get_or_insert(Stop { steps, at_ns: Some(self.now_ns) });
    }

    /// Stops every shard, drains for at most `Config::drain_ns`, and ends all.
    ///
    /// # Errors
    /// [`Failure`]: a shutdown that does not end among them.
    pub fn shutdown(&mut self) -> Result<ShutdownReport, Failure> {
        self.stop();
        self.run_while(|sim| sim.seats.iter().any(|seat| seat.report().is_none()))?;
        let shards: Vec<_> = self.seats.iter().filter_map(Seat::report).collect();
        if shards.len() < self.seats.len() {
            return Err(Failure::NoEnd { place: self.place() });
        }
        Ok(ShutdownReport { shards })
    }

    fn run_while(&mut self, goes_on: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let end = self.steps() + STEPS_MAX;
        while goes_on(self) && self.step()? {
            if self.steps() > end {
                return Err(Failure::Endless { steps: STEPS_MAX, place: self.place() });
            }
        }
        Ok(())
    }

    /// Takes one decision; `false` when nothing is left to happen.
    ///
    /// # Errors
    /// [`Failure`] when a wake is lost or late.
    pub fn step(&mut self) -> Result<bool, Failure> {
        self.deliver_bells();
        self.serve()?;
        if self.steps().is_multiple_of(SEARCH_STEPS) {
            self.search_sleepers()?;
        }
        let Some(chosen) = self.choose() else { return self.jump() };
        if chosen < self.seats.len() {
            self.go_on(chosen);
            self.count_kept_bells(chosen)?;
        } else {
            self.go_on_stopping();
        }
        Ok(true)
    }

    fn deliver_bells(&mut self) {
        let mut air = self.air.borrow_mut();
        air.now_ns = self.now_ns;
        while let Some(shard) = air.arrive() {
            self.trace.note(self.now_ns, shard, What::Bell);
        }
    }

    /// Who goes on: a shard, or the stopping thread, whose number is the one after the last shard's.
    fn choose(&mut self) -> Option<usize> {
        if self.rng.happens(self.faults.wakes_early_ppm) {
            let shard = self.rng.index(self.seats.len());
            if matches!(self.seats[shard].state, State::Asleep(_)) {
                self.trace.note(self.now_ns, shard, What::WokeEarly);
                return Some(shard);
            }
        }
        let (mut able, mut count) = ([0; SHARDS_MAX + 1], 0);
        let air = self.air.borrow();
        for (index, seat) in self.seats.iter().enumerate() {
            let free = seat.report().is_none() && seat.stalled_until_ns <= self.now_ns;
            if free && seat.is_woken(self.now_ns, air.has_completions(index)) {
                (able[count], count) = (index, count + 1);
            }
        }
        let stop_ns = self.stopping.as_ref().and_then(|stop| stop.at_ns);
        if stop_ns.is_some_and(|at_ns| at_ns <= self.now_ns) {
            (able[count], count) = (self.seats.len(), count + 1);
        }
        drop(air);
        (count > 0).then(|| able[self.rng.index(count)])
    }

    fn go_on(&mut self, chosen: usize) {
        let Faults { skew_max_ns, look_max_ns, wake_late_max_ns, .. } = self.faults;
        let ahead_ns = self.rng.up_to(skew_max_ns);
        let look_ns = self.rng.up_to(look_max_ns);
        let late_ns = self.rng.up_to(wake_late_max_ns);
        let seat = &mut self.seats[chosen];
        seat.clock.set(self.now_ns + ahead_ns, look_ns);
        let what = seat.go_on(self.now_ns, late_ns);
        seat.clock.set(0, 0);
        let clock_ns = seat.clock.peek_ns();
        self.stirred |= matches!(what, What::Round(_) | What::Ended);
        self.note_rings();
        self.trace.note(clock_ns, chosen, what);
        // What the clock of the shard says has passed for all, but for the skew.
        self.pass_time(clock_ns.saturating_sub(skew_max_ns));
        if self.rng.happens(self.faults.stalls_ppm) {
            let stall_ns = self.rng.up_to(self.faults.stall_max_ns);
            self.seats[chosen].stalled_until_ns = self.now_ns + stall_ns;
            self.trace.note(self.now_ns, chosen, What::Stall);
        }
    }

    fn go_on_stopping(&mut self) {
        let Some(stop) = &mut self.stopping else { return };
        stop.at_ns = match stop.steps.step(self.now_ns) {
            Next::Step => Some(self.now_ns),
            Next::Wait(ns) => Some(self.now_ns + ns),
            Next::Done => None,
        };
        self.trace.note(self.now_ns, self.seats.len(), What::Stop);
        self.pass_time(0);
    }

    /// The time of a step passes: short ones are the most frequent.
    fn pass_time(&mut self, at_least_ns: u64) {
        let max_ns = self.rng.up_to(self.faults.step_max_ns);
        self.now_ns = (self.now_ns + 1 + self.rng.up_to(max_ns)).max(at_least_ns);
    }

    /// Nobody can go on now: to the next instant at which somebody can.
    fn jump(&mut self) -> Result<bool, Failure> {
        self.search_sleepers()?;
        // Whoever drives the simulation may have a hand in sockets too.
        if self.seats.iter().any(Seat::has_operations) && self.look(true) {
            return Ok(true);
        }
        let air = self.air.borrow();
        let stop_ns = self.stopping.as_ref().and_then(|stop| stop.at_ns);
        let now_ns = self.now_ns;
        let seats = self.seats.iter().enumerate();
        let seats = seats.filter_map(|(n, seat)| seat.next_ns(now_ns, air.has_completions(n)));
        let ops = self.seats.iter().filter_map(Seat::next_op_ns);
        let next_ns = seats.chain(ops).chain(air.next_ns()).chain(stop_ns).min();
        drop(air);
        let Some(next_ns) = next_ns else { return Ok(false) };
        self.now_ns = next_ns.min(self.jump_max_ns).max(now_ns);
        self.trace.note(self.now_ns, self.seats.len(), What::Jump);
        Ok(true)
    }

    /// Whether a shard sleeps on work and no wake is on its way to it. Its deadline does not count.
    fn is_unattended(&self, shard: usize) -> bool {
        let air = self.air.borrow();
        let seat = &self.seats[shard];
        let attended = air.is_on_way_to(shard) || seat.is_called(air.has_completions(shard));
        !attended && seat.sleeps_on_work()
    }

    /// Finds shards that sleep on work although no wake is on its way and no shard will send one.
    fn search_sleepers(&self) -> Result<(), Failure> {
        for shard in 0..self.seats.len() {
            // A bell that its sender still holds is rung, or told to have failed, with its next call.
            let held = |seat: &Seat| seat.holds_bell_for(shard);
            if self.is_unattended(shard) && !self.seats.iter().any(held) {
                return Err(Failure::LostWake { shard, place: self.place() });
            }
        }
        Ok(())
    }

    /// Counts how often a shard goes on and keeps back the bell that another one waits for.
    fn count_kept_bells(&mut self, holder: usize) -> Result<(), Failure> {
        self.kept_back[holder] = 0;
        if !self.seats[holder].holds_bells() {
            return Ok(());
        }
        for shard in 0..self.seats.len() {
            if !self.seats[holder].holds_bell_for(shard) || !self.is_unattended(shard) {
                continue;
            }
            self.kept_back[shard] += 1;
            if self.kept_back[shard] > KEPT_BACK_MAX {
                let moves = self.kept_back[shard];
                return Err(Failure::LateWake { shard, holder, moves, place: self.place() });
            }
        }
        Ok(())
    }

    fn place(&self) -> Place {
        Place {
            seed: self.seed,
            step: self.steps(),
            now_ns: self.now_ns,
            trace_hash: self.trace_hash(),
            exact: self.is_exact(),
            last: self.trace.last(),
        }
    }
}

impl Drop for Simulation {
    /// Ends what has not ended, without faults, so that agents are dropped as a runtime drops them.
    fn drop(&mut self) {
        for shared in &self.shared {
            shared.ending.stop();
            shared.ending.close();
        }
        self.air.borrow_mut().faults = Faults::NONE;
        // To wake, to run a round, to seal, to see that all have sealed, and to end every operation: a few moves each,
        // unless a completion was lost.
        for _ in 0..DROP_MOVES_MAX {
            if self.seats.iter().all(|seat| seat.report().is_some()) {
                break;
            }
            self.seats.iter_mut().for_each(|seat| _ = seat.go_on(self.now_ns, 0));
            self.now_ns += REAP_WAIT_NS;
            self.air.borrow_mut().now_ns = self.now_ns;
            while self.seats.iter_mut().any(|seat| matches!(seat.serve(), Ok(Some(_)))) {}
        }
        Shard::leave();
    }
}
