//! Runs a random program under a seed, and compares the runtime with the model.

use std::fmt;
use std::sync::Arc;

use tailbeam_runtime::sim::{Failure, Faults, Held, Rng, Simulation};
use tailbeam_runtime::{Config, Cx, LinkFault, LinkFaults, ShutdownReport, SupervisorMsg};

use crate::node::Act;
use crate::world::{AskEnd, Fate, Planted, Tally, TimerState, World, world};
use crate::{names, ops, relations};

/// How the program of a seed ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It comes to rest, every node is stopped, then the runtime.
    Rest,
    /// The runtime is stopped after this many operations.
    Cut(u64),
}

/// What a seed gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) lives: u64,
    pub(crate) trace_hash: u64,
    pub(crate) steps: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.lives += other.lives;
        self.trace_hash = self.trace_hash.rotate_left(1) ^ other.trace_hash;
        self.steps += other.steps;
    }
}

/// A violation, with all that is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) seed: u64,
    ops: u64,
    pub(crate) what: String,
    setup: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, ops, what, setup } = self;
        writeln!(f, "seed {seed}: {what}\n{setup}\nto see it again:")?;
        write!(
            f,
            "  TAILBEAM_SIM_SEEDS={seed}..{} TAILBEAM_SIM_OPS={ops} cargo test -p tailbeam-runtime \
             --test simulation -- --ignored --nocapture many_seeds",
            seed + 1
        )
    }
}

/// Runs `ops` operations under a seed: one runtime after the other, because half of them are stopped in the
/// middle.
pub(crate) fn run(seed: u64, ops: u64, planted: Planted) -> Result<Outcome, Violation> {
    let mut rng = Rng::new(seed ^ 0x7461_696c_6265_616d);
    let mut sum = Outcome::default();
    while sum.tally.ops < ops {
        let life = Life {
            faults: Faults::drawn(&mut rng),
            shards: 1 + rng.index(8),
            // Drawn from nothing: a seed's program is the same with stamps, and on slow links.
            config: Config {
                turn_stamps: seed % 2 == 1,
                link_faults: slow_links(seed),
                ..draw_config(&mut rng)
            },
            end: if rng.below(2) == 0 { End::Rest } else { End::Cut(rng.up_to(ops)) },
        };
        let setup = format!("{life:?}, after {} operations", sum.tally.ops);
        let outcome = live(life, &mut rng, ops - sum.tally.ops, planted);
        sum.add(outcome.map_err(|what| Violation { seed, ops, what, setup })?);
    }
    Ok(sum)
}

/// One runtime.
#[derive(Debug)]
struct Life {
    faults: Faults,
    shards: usize,
    config: Config,
    end: End,
}

fn live(life: Life, rng: &mut Rng, ops: u64, planted: Planted) -> Result<Outcome, String> {
    let Life { faults, shards, config, end } = life;
    let (drain_ns, tight) = (config.drain_ns, config.relations_max < 100);
    World::begin(rng.split(), ops, planted);
    world(|w| (w.skew_ns, w.tight) = (faults.skew_max_ns, tight));
    let sim = Simulation::new(rng.bits(), config, shards, faults).expect("the limits work");
    let mut program = Program { sim, rng: rng.split(), end, drain_ns };
    let result = program.run();
    let (sim, wrong) = (program.sim, world(|w| w.wrong.take()));
    let (trace_hash, steps) = (sim.trace_hash(), sim.steps());
    let outcome = Outcome { tally: world(|w| w.tally), lives: 1, trace_hash, steps };
    drop(sim);
    wrong.map_or(result, Err).map(|()| outcome)
}

/// Links that delay what they carry, in every third run. None loses anything, so every promise holds on them.
fn slow_links(seed: u64) -> Option<Arc<LinkFaults>> {
    let links = Arc::new(LinkFaults::new(seed));
    let mut rng = Rng::new(seed);
    let delay_ns = rng.one_of(&[2_000, 80_000, 3_000_000]);
    let share_permille = rng.one_of(&[0, 500]);
    links.set(LinkFault { delay_ns, share_permille, ..LinkFault::default() });
    seed.is_multiple_of(3).then_some(links)
}

/// Limits that bite, in some of the runs.
fn draw_config(rng: &mut Rng) -> Config {
    Config {
        agents_max: rng.one_of(&[6, 64, 64, 1_000]),
        timers_max: rng.one_of(&[2, 64, 10_000]),
        messages_max: rng.one_of(&[8, 200, 10_000]),
        asks_max: rng.one_of(&[1, 16, 1_000]),
        relations_max: rng.one_of(&[3, 4_096, 4_096]),
        peer_ring_slots: rng.one_of(&[1, 2, 16, 256]),
        control_slots: rng.one_of(&[1, 4, 256]),
        uring_entries: rng.one_of(&[1, 2, 64]),
        turn_messages: rng.one_of(&[1, 3, 64]),
        turn_ns: rng.one_of(&[1, 1_000, 50_000]),
        drain_ns: rng.one_of(&[0, 1_000_000, 3_000_000_000]),
        ..Config::default()
    }
}

struct Program {
    sim: Simulation,
    rng: Rng,
    end: End,
    drain_ns: u64,
}

/// Longer than any timer of the programs.
const REST_NS: u64 = 3_000_000_000;

type Judged = Result<(), String>;

fn text(failure: Failure) -> String {
    failure.to_string()
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(what()) }
}

impl Program {
    fn run(&mut self) -> Judged {
        self.work()?;
        match self.end {
            End::Rest => {
                self.rest()?;
                self.check_at_rest()?;
                self.check_room()?;
                self.rest()?;
                self.stop_supervisors()?;
                self.stop_nodes()?;
                let report = self.sim.shutdown().map_err(text)?;
                let drained = report.shards.iter().all(|shard| shard.drained);
                check(drained || self.drain_ns == 0, || format!("not drained: {report:?}"))?;
                self.check_end(&report)
            }
            End::Cut(_) => {
                world(|w| w.stopping = true);
                self.sim.stop();
                self.work()?;
                let report = self.sim.shutdown().map_err(text)?;
                self.check_end(&report)
            }
        }
    }

    /// Injects and goes on, until the operations are done or it is time to stop.
    fn work(&mut self) -> Judged {
        let stopping = world(|w| w.stopping);
        for _ in 0..10_000_000u64 {
            let done = world(|w| w.tally.ops);
            let cut = matches!(self.end, End::Cut(at) if !stopping && done >= at);
            let enough = cut || done >= world(|w| w.ops_max);
            if enough || (stopping && self.has_ended()) {
                return world(|w| w.wrong.take()).map_or(Ok(()), Err);
            }
            self.inject()?;
            for _ in 0..self.rng.below(24) {
                self.sim.step().map_err(text)?;
            }
            if let Some(wrong) = world(|w| w.wrong.take()) {
                return Err(wrong);
            }
        }
        Err("the operations are never done".to_owned())
    }

    fn has_ended(&self) -> bool {
        self.sim.held().iter().all(|held| *held == Held::default())
    }

    fn inject(&mut self) -> Judged {
        let shard = self.rng.index(self.sim.shards());
        let count = 1 + self.rng.below(6);
        match self.rng.below(16) {
            0..4 => {
                if world(World::begin_op) {
                    ops::wake();
                }
            }
            4..6 if world(|w| !w.stopping && w.weighs(ops::Op::Move) && w.begin_op()) => {
                let node = world(|w| {
                    let count = w.living.len();
                    (count > 0).then(|| w.living[w.rng.index(count)])
                });
                return node
                    .map_or(Ok(()), |node| relations::move_node(node, shard, &mut self.sim));
            }
            _ => self.sim.post_on(shard, move |cx| ops::from_outside(cx, count)),
        }
        Ok(())
    }

    /// Goes on until nobody waits for anything.
    fn rest(&mut self) -> Judged {
        loop {
            // Where a node has lived, what comes is tried again for as long as the node's mailbox is full: for
            // ever, if it is one that waits here.
            let woken = self.still_woken()?;
            let parked = world(|w| w.parked.clone());
            let unpolled = self.still_woken()?.into_iter().find(|park| woken.contains(park));
            check(unpolled.is_none(), || format!("future {unpolled:?} was woken and not polled"))?;
            if parked.is_empty() && self.comes_to_rest()? {
                return Ok(());
            }
            for park in parked {
                let waker = world(|w| w.waker_of(park, true));
                waker.into_iter().for_each(|waker| waker.wake());
            }
        }
    }

    /// Goes on until nothing is left to happen (`true`), or somebody waits here: what comes for one that has lived
    /// elsewhere is then tried again for ever (seed 1223, where one began to wait after seconds of rest).
    fn comes_to_rest(&mut self) -> Result<bool, String> {
        for _ in 0..20_000_000u64 {
            if !self.sim.step().map_err(text)? {
                return Ok(world(|w| w.parked.is_empty()));
            }
            if world(|w| !w.parked.is_empty()) {
                return Ok(false);
            }
        }
        Err("nobody waits, and something always happens".to_owned())
    }

    /// Goes on for longer than any timer; the waiting futures that were woken and have not been polled since.
    fn still_woken(&mut self) -> Result<Vec<usize>, String> {
        self.sim.run_for(REST_NS).map_err(text)?;
        Ok(world(|w| w.parked.iter().copied().filter(|&park| w.parks[park].woken).collect()))
    }

    /// Every message has come to an end, every ask and timer too, and nothing is held.
    fn check_at_rest(&mut self) -> Judged {
        check_messages()?;
        self.ask_for_supervisors()?;
        world(|w| w.check_bonds())?;
        world(|w| {
            if let Some(ask) = w.asks.iter().position(|end| *end == AskEnd::Open) {
                return Err(format!("ask {ask} never ended"));
            }
            let waits = |timer: &&crate::world::TimerRecord| {
                let node = &w.nodes[timer.node];
                timer.state == TimerState::Pending && node.alive && node.lives == timer.life
            };
            let timer = w.timers.iter().position(|timer| waits(&timer));
            check(timer.is_none(), || format!("timer {timer:?} never fired"))
        })?;
        for (shard, held) in self.sim.held().into_iter().enumerate() {
            // A living node keeps the places where it has lived.
            let slots = world(|w| {
                let addresses = w.living.iter().flat_map(|&id| &w.nodes[id].addresses);
                let supervisors = w.bonds.trees.iter().filter(|tree| tree.lives);
                addresses.filter(|address| address.to.shard() == shard).count()
                    + supervisors.filter(|tree| tree.supervisor.shard() == shard).count()
            });
            // Those that live may hold replies of asks that were cancelled.
            let cancels = if world(|w| w.living.is_empty()) { 0 } else { held.cancels };
            let expected = Held { slots: slots as u64, cancels, ..Held::default() };
            check(held == expected, || format!("shard {shard} holds {held:?}, not {expected:?}"))?;
        }
        self.check_stats()
    }

    /// As many nodes as the model has, ended as they have in it.
    fn check_stats(&self) -> Judged {
        let stats = self.sim.stats();
        let unstarted = world(|w| w.tally.nodes_unstarted);
        let sum = |of: fn(&tailbeam_runtime::ShardStats) -> u64| stats.iter().map(of).sum::<u64>();
        let of_runtime = (
            sum(|s| s.live_agents),
            sum(|s| s.panicked),
            // Those that were on their way when the runtime ended have ended nowhere.
            sum(|s| s.stopped + s.panicked + s.killed + s.live_agents) + world(|w| w.tally.moves)
                - sum(|s| s.moved),
        );
        let lives = sum(|s| s.spawned + s.restarted);
        let of_model = world(|w| {
            let supervisors = w.bonds.trees.iter().filter(|tree| tree.lives).count();
            ((w.living.len() + supervisors) as u64, w.tally.nodes_panicked, lives)
        });
        check(of_runtime == of_model, || {
            format!("live, panicked, sum: {of_runtime:?}, in the model {of_model:?}")
        })?;
        let begun = world(|w| w.tally.nodes + w.tally.supervisors);
        check((begun - unstarted..=begun).contains(&lives), || {
            format!("{lives} lives, in the model {begun}, {unstarted} not started")
        })
    }

    /// Which supervisors live.
    fn ask_for_supervisors(&mut self) -> Judged {
        for number in 0..world(|w| w.bonds.trees.len()) {
            let supervisor = world(|w| w.bonds.trees[number].supervisor);
            let account = move |cx: &mut Cx<'_>| cx.account(supervisor.id()).is_some();
            let lives = self.sim.run_on(supervisor.shard(), account).map_err(text)?;
            world(|w| w.bonds.trees[number].lives = lives);
        }
        self.sim.run_until_idle().map_err(text)
    }

    /// Ends every supervisor, and its children with it.
    fn stop_supervisors(&mut self) -> Judged {
        self.ask_for_supervisors()?;
        let living = world(|w| {
            let lives = w.bonds.trees.iter().filter(|tree| tree.lives);
            lives.map(|tree| tree.supervisor).collect::<Vec<_>>()
        });
        for &supervisor in &living {
            let stop = move |cx: &mut Cx<'_>| supervisor.try_send(cx, SupervisorMsg::Stop).is_ok();
            self.sim.run_on(supervisor.shard(), stop).map_err(text)?;
            self.rest()?;
        }
        self.check_at_rest()?;
        let left = world(|w| w.bonds.trees.iter().filter(|tree| tree.lives).count());
        world(|w| w.tally.supervisors_gone = w.bonds.trees.len() as u64 - living.len() as u64);
        check(left == 0, || format!("{left} supervisors do not stop"))
    }

    /// Every mailbox takes again what it may hold, from every shard.
    fn check_room(&mut self) -> Judged {
        let living = world(|w| w.living.clone());
        for &node in living.iter().take(6) {
            let Some(to) = world(|w| w.nodes[node].to()) else { continue };
            for shard in 0..self.sim.shards() {
                let full = || self.sim.stats()[shard].full;
                let before = full();
                let count = to.mailbox();
                let fill = move |cx: &mut Cx<'_>| {
                    (0..count).filter(|_| ops::send_straight(cx, node, Act::Nothing)).count()
                };
                self.sim.run_on(shard, fill).map_err(text)?;
                self.sim.run_until_idle().map_err(text)?;
                let full = self.sim.stats()[shard].full;
                check(full == before, || format!("node {node}: shard {shard} has lost credits"))?;
            }
        }
        check_messages()
    }

    /// Ends every node, by a letter.
    fn stop_nodes(&mut self) -> Judged {
        for round in 0.. {
            let living = world(|w| w.living.clone());
            if living.is_empty() {
                break;
            }
            check(round < 1_000, || format!("{living:?} cannot be stopped"))?;
            for &node in &living {
                let shard = self.rng.index(self.sim.shards());
                let stop = move |cx: &mut Cx<'_>| {
                    ops::send_straight(cx, node, Act::Stop);
                };
                self.sim.run_on(shard, stop).map_err(text)?;
            }
            self.rest()?;
        }
        self.check_at_rest()?;
        let taken = self.sim.run_on(0, |cx| names::taken(cx)).map_err(text)?;
        check(taken == 0, || format!("{taken} names are those of nobody"))?;
        let related: u64 = self.sim.stats().iter().map(|stats| stats.agents_related).sum();
        check(related == 0, || format!("{related} agents that have ended are related"))
    }

    /// After the end: every message is accounted for, and so is every node.
    fn check_end(&self, report: &ShutdownReport) -> Judged {
        check_messages()?;
        let tally = world(|w| w.tally);
        let dropped = tally.letters_dropped + tally.answers_dropped;
        let stats = self.sim.stats();
        let dead: u64 = stats.iter().map(|stats| stats.dead_letters).sum();
        let skipped: u64 = stats.iter().map(|stats| stats.asks_skipped).sum();
        let undelivered: u64 = report.shards.iter().map(|shard| shard.messages_undelivered).sum();
        // The answer to a spawn elsewhere that nobody takes is none of ours.
        let untaken = tally.spawns_at - tally.nodes_elsewhere;
        let all = dead + undelivered + skipped;
        check((dropped..=dropped + untaken).contains(&all), || {
            format!(
                "{} letters and {} answers were dropped unread: {dead} dead letters, {undelivered} \
                 undelivered, {skipped} skipped",
                tally.letters_dropped, tally.answers_dropped
            )
        })?;
        let lied =
            report.shards.iter().find(|shard| shard.drained && shard.messages_undelivered > 0);
        check(lied.is_none(), || format!("{lied:?} is not drained"))?;
        let living = world(|w| w.living.len());
        check(living == 0, || format!("{living} nodes were not dropped"))?;
        world(|w| w.bonds.trees.iter_mut().for_each(|tree| tree.lives = false));
        self.check_stats()
    }
}

/// Every message was read, dropped or handed back.
fn check_messages() -> Judged {
    world(|w| {
        let open = |fate: &Fate| matches!(fate, Fate::Made | Fate::Accepted);
        if let Some(letter) = w.letters.iter().position(|letter| open(&letter.fate)) {
            return Err(format!("letter {letter} is lost: {:?}", w.letters[letter].fate));
        }
        let answer = w.answers.iter().position(open);
        check(answer.is_none(), || format!("answer {answer:?} is lost"))
    })
}
