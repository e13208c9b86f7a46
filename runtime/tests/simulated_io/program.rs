//! Runs a random program of sockets and files under a seed, and compares what is seen with the model.

use std::fmt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tailbeam_runtime::sim::{Failure, Faults, Held, Rng, Simulation};
use tailbeam_runtime::{Agent, AgentId, Config, Cx, ShutdownReport, Stop};

use crate::files;
use crate::sockets::{self, End, Socket};
use crate::world::{Shared, Tally, World, world};

/// A ring that lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    Nothing,
    /// Last completions vanish.
    CompletionsLost,
    /// Short sends and writes say that they were not.
    CountsOverstated,
}

/// What a seed gave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) trace_hash: u64,
    pub(crate) steps: u64,
}

/// A violation, with all that is needed to see it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) seed: u64,
    pub(crate) what: String,
    life: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, life } = self;
        writeln!(f, "seed {seed}: {what}\n{life}\nto see it again:")?;
        write!(
            f,
            "  TAILBEAM_SIM_SEEDS={seed}..{} cargo test -p tailbeam-runtime --test simulated_io -- --ignored \
             --nocapture many_seeds",
            seed + 1
        )
    }
}

/// A directory of its own, removed when dropped; in memory where there is such a place.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let path = base.join(format!("tailbeam-simulated-io-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory for temporary files");
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Descriptors of this process; its tests run one at a time.
pub(crate) fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux has it").count()
}

/// One runtime.
#[derive(Debug)]
struct Life {
    faults: Faults,
    shards: usize,
    config: Config,
    tight: bool,
    /// Things that are begun.
    deeds: u64,
    /// Whether it is stopped in the middle.
    cut: bool,
}

impl Life {
    fn draw(rng: &mut Rng, planted: Planted) -> Self {
        let mut faults = Faults::drawn(rng);
        match planted {
            Planted::Nothing => {}
            Planted::CompletionsLost => faults.completions_lost_ppm = 20_000,
            Planted::CountsOverstated => {
                (faults.ops_short_ppm, faults.counts_overstated_ppm) = (100_000, 500_000);
            }
        }
        let tight = rng.below(3) == 0;
        // Where the kernel takes no buffers itself, each receive that waits holds one, and may wait for ever.
        let few_buffers = if faults.no_multishot_recv || faults.lends_refused_ppm > 0 {
            [64, 64, 128]
        } else {
            [2, 4, 16]
        };
        let mut of = |few: &[u32], enough: u32| if tight { rng.one_of(few) } else { enough };
        let config = Config {
            agents_max: 256,
            messages_max: 1_000,
            asks_max: 16,
            peer_ring_slots: 16,
            control_slots: 16,
            timers_max: 1_000,
            uring_entries: of(&[1, 2, 64], 256),
            ops_max: of(&[4, 24, 1_000], 1_000),
            buffers: of(&few_buffers, 1_024),
            buffer_bytes: of(&[16, 256], 1_024),
            accepted_max: of(&[1, 2], 16),
            drain_ns: rng.one_of(&[0, 1_000_000, 3_000_000_000]),
            ..Config::default()
        };
        let (shards, deeds) = (1 + rng.index(4), 6 + rng.below(20));
        Self { faults, shards, config, tight, deeds, cut: rng.below(3) == 0 }
    }
}

/// Runs the program of a seed.
pub(crate) fn run(seed: u64, dir: &Dir, planted: Planted) -> Result<Outcome, Violation> {
    let mut rng = Rng::new(seed ^ 0x696f_2d74_6169_6c62);
    let life = Life::draw(&mut rng, planted);
    let text = format!("{life:?}");
    let before = descriptors();
    let outcome = live(life, &mut rng, &dir.0).and_then(|outcome| {
        let left = descriptors();
        check(left == before, || format!("{left} descriptors are open, and not {before}"))?;
        Ok(outcome)
    });
    for entry in std::fs::read_dir(&dir.0).expect("made above") {
        let _ = std::fs::remove_file(entry.expect("readable").path());
    }
    outcome.map_err(|what| Violation { seed, what, life: text })
}

fn live(life: Life, rng: &mut Rng, dir: &Path) -> Result<Outcome, String> {
    World::begin(rng.split(), dir);
    world(|w| {
        w.fails = life.faults.ops_failed_ppm > 0;
        w.tight = life.tight;
        w.bytes_max = if life.tight { 2_000 } else { rng.one_of(&[2_000, 50_000, 300_000]) };
    });
    let Life { faults, shards, config, deeds, cut, .. } = life;
    let sim = Simulation::new(rng.bits(), config, shards, faults).expect("the limits work");
    let mut program = Program { sim, rng: rng.split(), agents: Vec::new(), deeds, cut };
    let result = program.run();
    let mut tally = world(|w| w.tally);
    for stats in program.sim.stats() {
        tally.ops += stats.ops_submitted;
        tally.cancelled += stats.ops_cancelled;
        tally.starved += stats.ops_starved;
        tally.full += stats.ops_full;
    }
    let (trace_hash, steps) = (program.sim.trace_hash(), program.sim.steps());
    drop(program);
    let wrong = world(|w| w.wrong.take());
    wrong.map_or(result, Err)?;
    files::judge_all()?;
    Ok(Outcome { tally, trace_hash, steps })
}

/// What an agent does in its only turn.
enum Work {
    Listen(usize),
    Connect(usize, usize),
    Exchange(usize, UnixStream),
    Serve(usize, UnixStream),
    File(usize),
}

struct Worker;

fn path(kind: &str, number: usize) -> PathBuf {
    world(|w| w.dir.join(format!("{kind}{number}")))
}

impl Agent for Worker {
    type Msg = Work;

    async fn on(&mut self, work: Work, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match work {
            Work::Listen(number) => sockets::listen(number, &path("listener", number), cx).await,
            Work::Connect(id, number) => sockets::client(id, &path("listener", number), cx).await,
            Work::Exchange(id, end) => {
                let socket = Socket::of_pair(cx, end).map_err(|_| Stop)?;
                sockets::exchange(End::new(id, 0, socket), &Shared::new(cx)).await;
            }
            Work::Serve(id, end) => {
                let socket = Socket::of_pair(cx, end).map_err(|_| Stop)?;
                let end = End::new(id, 1, socket);
                sockets::serve(end, &Shared::new(cx), Vec::new()).await;
            }
            Work::File(number) => files::work(&path("file", number), cx).await,
        }
        Err(Stop)
    }
}

struct Program {
    sim: Simulation,
    rng: Rng,
    agents: Vec<AgentId>,
    deeds: u64,
    cut: bool,
}

type Judged = Result<(), String>;

fn text(failure: Failure) -> String {
    failure.to_string()
}

fn check(holds: bool, what: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(what()) }
}

impl Program {
    fn run(&mut self) -> Judged {
        let (deeds, mut listeners) = (self.deeds, 0);
        for _ in 0..deeds {
            self.deed(&mut listeners)?;
            for _ in 0..self.rng.below(200) {
                self.sim.step().map_err(text)?;
            }
            world(|w| w.wrong.take()).map_or(Ok(()), Err)?;
        }
        if self.cut {
            for _ in 0..self.rng.below(2_000) {
                self.sim.step().map_err(text)?;
            }
        } else {
            self.rest()?;
        }
        world(|w| w.stopping = true);
        let report = self.sim.shutdown().map_err(text)?;
        self.check_end(&report)
    }

    fn deed(&mut self, listeners: &mut usize) -> Judged {
        match self.rng.below(10) {
            0..2 => {
                *listeners += 1;
                self.begin(Work::Listen(*listeners))
            }
            2..6 if *listeners > 0 => {
                let to = 1 + self.rng.index(*listeners);
                self.begin(Work::Connect(world(|w| w.connect(Some(to))), to))
            }
            6 => {
                let id = world(|w| w.connect(None));
                let (one, two) = UnixStream::pair().expect("descriptors");
                self.begin(Work::Exchange(id, one))?;
                self.begin(Work::Serve(id, two))
            }
            7 if !self.agents.is_empty() => {
                let victim = self.agents[self.rng.index(self.agents.len())];
                let kill = move |cx: &mut Cx<'_>| cx.kill(victim);
                world(|w| w.tally.kills += 1);
                self.sim.run_on(self.rng.index(self.sim.shards()), kill).map_err(text)
            }
            _ => self.begin(Work::File(self.agents.len())),
        }
    }

    /// Spawns a worker and gives it its work.
    fn begin(&mut self, work: Work) -> Judged {
        let shard = self.rng.index(self.sim.shards());
        let worker = self.sim.spawn_on(shard, || Worker).map_err(text)?;
        self.agents.push(worker.id());
        let send = move |cx: &mut Cx<'_>| worker.try_send(cx, work).is_ok();
        let sent = self.sim.run_on(shard, send).map_err(text)?;
        check(sent, || "a worker has no room for its work".to_owned())
    }

    /// Comes to rest, ends the listeners, and looks what is left.
    fn rest(&mut self) -> Judged {
        self.sim.run_until_idle().map_err(text)?;
        let (working, stuck) = world(|w| {
            let stuck =
                w.connections.iter().enumerate().find(|(_, connection)| connection.ends > 0);
            (w.working, stuck.map(|(id, connection)| format!("connection {id}: {connection:?}")))
        });
        check(working == 0, || format!("{working} handlers never end; {stuck:?}"))?;
        for &agent in &self.agents.clone() {
            self.sim.run_on(0, move |cx| cx.kill(agent)).map_err(text)?;
        }
        self.sim.run_until_idle().map_err(text)?;
        for (shard, held) in self.sim.held().into_iter().enumerate() {
            check(held == Held::default(), || format!("shard {shard} holds {held:?}"))?;
        }
        for (shard, stats) in self.sim.stats().into_iter().enumerate() {
            let (begun, ended) = (stats.ops_submitted, stats.ops_completed);
            check(begun == ended, || format!("shard {shard}: {begun} operations, {ended} ended"))?;
        }
        Ok(())
    }

    fn check_end(&self, report: &ShutdownReport) -> Judged {
        let leaked: u64 = report.shards.iter().map(|shard| shard.ops_leaked).sum();
        check(leaked == 0, || format!("{leaked} operations are leaked"))?;
        let panicked: u64 = report.shards.iter().map(|shard| shard.agents_panicked).sum();
        let planned = world(|w| w.tally.panics);
        check(panicked <= planned, || format!("{panicked} panics, of which {planned} were planned"))
    }
}
