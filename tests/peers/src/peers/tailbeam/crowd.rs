//! Idle agents.

use tailbeam_runtime::{Addr, Agent, Cx, Runtime, Stop};

use super::run_on;
use crate::clock;
use crate::crowd::{BURST, Crowd, Idle, MAILBOX, Resident, Spawning, spawn_round};
use crate::figure::Round;
use crate::peers::Job;

/// Time between two looks at whether a crowd has done something.
const LOOK: std::time::Duration = std::time::Duration::from_micros(200);

struct Rests(Idle);

/// A word, or that it is time to end.
type Word = Option<u64>;

impl Agent for Rests {
    type Msg = Word;
    const MAILBOX: u32 = MAILBOX as u32;

    async fn on(&mut self, word: Word, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.0.read(word.ok_or(Stop)?);
        Ok(())
    }
}

type Addresses = Vec<Addr<Rests>>;

/// Spawns one, and makes room for the addresses of as many as are wanted: it is the program's own.
fn first(runtime: &Runtime, agents: u32) -> Result<Addresses, String> {
    let crowd = Crowd::leak();
    let first = run_on(runtime, 0, move |cx| cx.spawn(Rests(Idle::new(crowd))).ok())?;
    Ok(vec![first.ok_or("none could be spawned")?; agents as usize])
}

/// An agent is ready when it is spawned: it has no part of its own to run before its first message.
fn spawned(
    runtime: &Runtime,
    mut addresses: Addresses,
    crowd: &'static Crowd,
) -> Result<(Addresses, Spawning), String> {
    run_on(runtime, 0, move |cx| {
        let mut spawning = Spawning::begin();
        for place in &mut addresses {
            *place =
                cx.spawn(Rests(Idle::new(crowd))).map_err(|_| "an agent could not be spawned")?;
        }
        spawning.spawned();
        Ok((addresses, spawning.ready()))
    })?
}

/// Sends all so many words before any of them is read; returns how many were taken.
fn tell(
    runtime: &Runtime,
    addresses: Addresses,
    (word, times): (Word, usize),
) -> Result<(Addresses, u64), String> {
    run_on(runtime, 0, move |cx| {
        let all = (0..times).flat_map(|_| &addresses);
        let taken = all.filter(|agent| agent.try_send(cx, word).is_ok()).count();
        (addresses, taken as u64)
    })
}

fn wait(done: impl Fn() -> bool) {
    while !done() {
        clock::sleep(LOOK);
    }
}

pub(super) fn spawned_twice(runtime: &Runtime, job: Job) -> Result<Round, String> {
    let (once, again) = (Crowd::leak(), Crowd::leak());
    let addresses = first(runtime, job.crowd)?;
    let (addresses, before) = spawned(runtime, addresses, once)?;
    let (addresses, ending) = tell(runtime, addresses, (None, 1))?;
    wait(|| once.ended() == ending);
    let (addresses, after) = spawned(runtime, addresses, again)?;
    std::mem::forget(addresses);
    Ok(spawn_round(before, after, job.crowd))
}

pub(super) fn idle(runtime: &Runtime, job: Job) -> Result<Round, String> {
    let crowd = Crowd::leak();
    let addresses = first(runtime, job.crowd)?;
    let mut resident = Resident::before();
    let (addresses, _) = spawned(runtime, addresses, crowd)?;
    resident.idle();
    let (addresses, taken) = tell(runtime, addresses, (Some(1), BURST))?;
    wait(|| crowd.read() == taken);
    let round = resident.after(job.crowd);
    std::mem::forget(addresses);
    Ok(round)
}
