#![expect(unsafe_code, reason = "the state of an agent is moved out of its slot")]
//! Agents that move to another core. The old place stays and leads on: what comes there is passed on in
//! order, for as long as the agent lives, and in one hop once it has been used after the last move.

use super::kin::Kin;
use super::lifecycle::{FORWARD, fill, take_state, type_of};
use super::{Addr, Agent, Control, Job, generation_of, index_of, shard_of};
use crate::channel::envelope::Envelope;
use crate::error::SendError;
use crate::shard::Shard;
use crate::shard::slab::Header;

/// Why an agent was not moved; it lives where it lived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoveError {
    /// Its handler is suspended, or messages wait for it: only an idle agent moves.
    #[error("the agent is busy: only an idle one moves; try again when its handler has finished")]
    Busy,
    /// It has ended, or is of another type, or has moved on: the present address is needed.
    #[error("there is no such agent")]
    Gone,
    /// The other shard's table of agents is full, or there is no such shard.
    #[error("the other shard has no room for the agent")]
    NoRoom,
    /// It has as many relations as it may have; each place where it has lived is one.
    #[error(
        "the agent has {max} relations and earlier places, as many as Config::relations_max allows"
    )]
    Full {
        /// Bound.
        max: u32,
    },
    /// A shard has ended.
    #[error("the shard has ended")]
    Stopped,
}

/// What travels beside the state.
struct Luggage {
    kin: Box<Kin>,
    messages: u32,
    polls: u32,
    cpu_ns: u64,
    age_max: u32,
    incarnation: u32,
}

impl Shard {
    /// A place for an agent that is about to come.
    pub(crate) fn expect_agent<A: Agent>(&self) -> Option<u64> {
        let place = self.reserve::<A>()?;
        let header = self.slab.header(index_of(place))?;
        header.set_expected(true);
        // It was spawned elsewhere.
        self.stats.borrow_mut().spawned -= 1;
        Some(place)
    }

    /// Whether an agent of that type lives here under that address.
    fn hosts<A: Agent>(&self, agent: u64) -> bool {
        let header = self.slab.header(index_of(agent));
        header.is_some_and(|header| {
            header.generation.get() == generation_of(agent) && header.is(type_of::<A>())
        })
    }

    /// The agent does not come.
    pub(crate) fn unexpect_agent(&self, place: u64) {
        self.release_agent(index_of(place));
    }

    /// Sends an idle agent of this shard to its new place.
    pub(crate) fn depart<A: Agent + Send>(&self, from: u64, to: u64) -> Result<(), MoveError> {
        let index = index_of(from);
        let header = self.slab.header(index).ok_or(MoveError::Gone)?;
        if header.generation.get() != generation_of(from) || !header.is(type_of::<A>()) {
            return Err(MoveError::Gone);
        }
        if header.is_busy() {
            return Err(MoveError::Busy);
        }
        let place = self.slab.state(index).ok_or(MoveError::Gone)?;
        let max = self.config.relations_max;
        self.relate(from, |kin| kin.homes.push(from)).map_err(|_| MoveError::Full { max })?;
        // SAFETY: the slot holds an agent of this type that is not busy, so not down, and not running: jobs run
        // between turns. From the next line on it holds none.
        let agent = unsafe { take_state::<A>(place) };
        header.kind.set(Some(&FORWARD));
        let mut stats = self.stats.borrow_mut();
        stats.live_agents -= 1;
        stats.places_kept += 1;
        drop(stats);
        let luggage = Luggage {
            kin: self.take_kin(index).unwrap_or_default(),
            messages: header.messages.take(),
            polls: header.polls.take(),
            cpu_ns: header.cpu_ns.take(),
            age_max: header.age_max.take(),
            incarnation: header.incarnation.get(),
        };
        self.lead_on(header, to);
        let job: Job = Box::new(move |shard: &Self| shard.settle_in(to, agent, luggage));
        self.send_control(to, Control::Job(job));
        Ok(())
    }

    fn settle_in<A: Agent>(&self, to: u64, agent: A, luggage: Luggage) {
        let index = index_of(to);
        let header = self.slab.header(index);
        let header = header.filter(|header| header.generation.get() == generation_of(to));
        let (Some(header), Some(place)) = (header, self.slab.state(index)) else { return };
        // SAFETY: the slot was reserved for this type by `expect_agent` and is down: it has no state.
        unsafe { fill(place, agent) };
        header.messages.set(luggage.messages);
        header.polls.set(luggage.polls);
        header.cpu_ns.set(luggage.cpu_ns);
        header.age_max.set(luggage.age_max);
        header.incarnation.set(luggage.incarnation);
        self.put_kin(index, luggage.kin);
        self.tell_places(to);
        self.stats.borrow_mut().moved += 1;
        header.set_expected(false);
        let control = take_control(header);
        self.arrived(header, to);
        control.into_iter().for_each(|control| control.deliver(self));
    }

    /// Sends what came to a moved agent's old place on to its new one.
    pub(super) fn pass_on<A: Agent>(
        &self,
        to: u64,
        msg: A::Msg,
        due: Option<super::cancel::Due>,
    ) -> Result<(), SendError<A::Msg>> {
        match due {
            None => self.send::<A>(to, msg),
            Some(due) => self.send_asked::<A>(to, due, || msg),
        }
    }
}

/// Takes what an agent was told before it came; its messages wait on.
fn take_control(header: &Header) -> Vec<Envelope> {
    let Some(mut pending) = header.pending.take() else { return Vec::new() };
    let arrivals = std::mem::take(&mut pending.arrivals);
    let (mut control, items) = (Vec::new(), std::mem::take(&mut pending.items));
    for (item, arrival) in items.into_iter().zip(arrivals) {
        if item.is_message() {
            pending.items.push_back(item);
            pending.arrivals.push_back(arrival);
        } else {
            control.push(item);
        }
    }
    header.pending.set(Some(pending));
    control
}

/// Moves an agent between two shards that run on other threads.
pub(crate) fn move_agent<A: Agent + Send>(
    runtime: &crate::Runtime,
    agent: Addr<A>,
    shard: usize,
) -> Result<Addr<A>, MoveError> {
    if shard_of(agent.0) == shard {
        let lives = runtime.run_on(shard, move |cx| cx.shard().hosts::<A>(agent.0));
        return match lives {
            Ok(true) => Ok(agent),
            Ok(false) => Err(MoveError::Gone),
            Err(_) => Err(MoveError::Stopped),
        };
    }
    if shard >= runtime.shards() {
        return Err(MoveError::NoRoom);
    }
    let stopped = |_| MoveError::Stopped;
    let place = runtime.run_on(shard, |cx| cx.shard().expect_agent::<A>()).map_err(stopped)?;
    let place = place.ok_or(MoveError::NoRoom)?;
    let departed = runtime
        .run_on(shard_of(agent.0), move |cx| cx.shard().depart::<A>(agent.0, place))
        .map_err(stopped)
        .flatten();
    if let Err(error) = departed {
        // A shard that has ended has freed the place itself.
        let _ = runtime.run_on(shard, move |cx| cx.shard().unexpect_agent(place));
        return Err(error);
    }
    Ok(Addr::new(place))
}
