//! What timers cost with a million of them pending, and how late sleeps of 5 ms are beside them:
//! `cargo run --release -p tailbeam-runtime --example timers`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::mpsc;

use tailbeam_runtime::{
    Agent, Config, Cores, Cx, NoObserver, Runtime, ShardStats, Stop, TimerId, TimersFull, clock,
};

const PENDING: usize = 1_000_000;
/// Timers cancelled and inserted per round.
const BATCH: usize = 100_000;
const ROUNDS: usize = 15;
const SECOND_NS: u64 = 1_000_000_000;
const SLEEP_NS: u64 = 5_000_000;
const SLEEPERS: usize = 100;
const SLEEPS: usize = 2_000;

/// xorshift64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn place(&mut self, from: usize) -> usize {
        let places = (PENDING - from) as u64;
        from + usize::try_from(self.below(places)).expect("below a million")
    }

    /// One to sixty seconds ahead.
    fn deadline(&mut self, now_ns: u64) -> u64 {
        now_ns + SECOND_NS + self.below(59 * SECOND_NS)
    }
}

/// ns per operation of each round.
#[derive(Default)]
struct Rounds {
    random_cancel: Vec<f64>,
    random_insert: Vec<f64>,
    ask_insert: Vec<f64>,
    ask_cancel: Vec<f64>,
}

fn timed(count: usize, work: impl FnOnce()) -> f64 {
    let from = clock::monotonic_ns();
    work();
    (clock::monotonic_ns() - from) as f64 / count as f64
}

/// Cancels and inserts on the shard itself, between two turns.
fn measure(cx: &mut Cx<'_>) -> Result<Rounds, TimersFull> {
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let now_ns = cx.fresh_ns();
    let deadlines = (0..PENDING).map(|_| draw.deadline(now_ns)).collect::<Vec<_>>();
    let mut ids = Vec::with_capacity(PENDING);
    // Twice: the first time touches the memory.
    for last in [false, true] {
        for &deadline in &deadlines {
            ids.push(cx.notify_at(deadline, 1)?);
        }
        if !last {
            for id in ids.drain(..) {
                cx.cancel(id);
            }
        }
    }
    let mut rounds = Rounds::default();
    let mut chosen = Vec::with_capacity(BATCH);
    let mut fresh: Vec<TimerId> = Vec::with_capacity(BATCH);
    for _ in 0..ROUNDS {
        chosen.clear();
        for place in 0..BATCH {
            // A partial shuffle: each timer is chosen once.
            let other = draw.place(place);
            ids.swap(place, other);
            chosen.push(ids[place]);
        }
        let next = (0..BATCH).map(|_| draw.deadline(now_ns)).collect::<Vec<_>>();
        let mut cancelled = 0;
        rounds.random_cancel.push(timed(BATCH, || {
            cancelled = chosen.iter().filter(|&&id| cx.cancel(id)).count();
        }));
        assert_eq!(cancelled, BATCH);
        fresh.clear();
        rounds.random_insert.push(timed(BATCH, || {
            fresh.extend(next.iter().flat_map(|&at_ns| cx.notify_at(at_ns, 1)));
        }));
        ids[..BATCH].copy_from_slice(&fresh);
        // Asks: one timeout, each cancelled soon after by its answer.
        fresh.clear();
        rounds.ask_insert.push(timed(BATCH, || {
            let asks = (0..BATCH as u64).flat_map(|n| cx.notify_at(now_ns + 30 * SECOND_NS + n, 1));
            fresh.extend(asks);
        }));
        rounds.ask_cancel.push(timed(BATCH, || {
            cancelled = fresh.iter().filter(|&&id| cx.cancel(id)).count();
        }));
        assert_eq!(cancelled, BATCH);
    }
    for id in ids {
        cx.cancel(id);
    }
    Ok(rounds)
}

/// Keeps a million timers pending: each is set anew when it fires.
struct Holder(Draw);

impl Agent for Holder {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now_ns = cx.now_ns();
        for _ in 0..PENDING {
            cx.notify_at(self.0.deadline(now_ns), 1).map_err(|_| Stop)?;
        }
        Ok(())
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let now_ns = cx.now_ns();
        cx.notify_at(self.0.deadline(now_ns), 1).map(drop).map_err(|_| Stop)
    }
}

/// Sleeps again and again and says how late it woke.
struct Sleeper(Draw, mpsc::Sender<Vec<u64>>);

impl Agent for Sleeper {
    type Msg = ();

    async fn on(&mut self, (): (), cx: &mut Cx<'_>) -> Result<(), Stop> {
        let mut late = Vec::with_capacity(SLEEPS);
        let first = cx.fresh_ns() + self.0.below(SLEEP_NS);
        cx.sleep_until(first).await.map_err(|_| Stop)?;
        for _ in 0..SLEEPS {
            let at_ns = cx.fresh_ns() + SLEEP_NS;
            cx.sleep_until(at_ns).await.map_err(|_| Stop)?;
            late.push(cx.fresh_ns() - at_ns);
        }
        self.1.send(late).map_err(|_| Stop)
    }
}

fn sleeps(runtime: &Runtime) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let holder = runtime.spawn_on(0, || Holder(Draw(7)))?;
    runtime.run_on(0, move |cx| drop(holder.try_send(cx, ())))?;
    let (done, finished) = mpsc::channel();
    for seed in 0..SLEEPERS {
        let done = done.clone();
        let sleeper = runtime.spawn_on(0, move || Sleeper(Draw(seed as u64 + 1), done))?;
        runtime.run_on(0, move |cx| drop(sleeper.try_send(cx, ())))?;
    }
    let mut late = finished.iter().take(SLEEPERS).flatten().collect::<Vec<_>>();
    late.sort_unstable();
    Ok(late)
}

fn line(name: &str, mut rounds: Vec<f64>) {
    rounds.sort_unstable_by(f64::total_cmp);
    let (min, max) = (rounds[0], rounds[rounds.len() - 1]);
    println!("{name:<34} {min:6.1} {:6.1} {max:6.1}", rounds[rounds.len() / 2]);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let timers_max = u32::try_from(PENDING + BATCH + 1_000)?;
    let config = Config { cores: Cores::List(vec![0]), timers_max, ..Config::default() };
    let runtime = Runtime::start(config, |_| NoObserver)?;
    let rounds = runtime.run_on(0, measure)??;
    println!("ns per call at {PENDING} pending, {ROUNDS} rounds of {BATCH}:   min median max");
    line("cancel, random", rounds.random_cancel);
    line("insert, random deadlines 1..60 s", rounds.random_insert);
    line("insert, one timeout of 30 s", rounds.ask_insert);
    line("cancel of those, in order", rounds.ask_cancel);
    let late = sleeps(&runtime)?;
    let rank =
        |per_mille: usize| late[(late.len() * per_mille / 1_000).min(late.len() - 1)] / 1_000;
    let stats: ShardStats = runtime.stats()[0];
    println!(
        "{} sleeps of 5 ms beside {} pending timers, late by us: p50 {} p99 {} p99.9 {} max {}",
        late.len(),
        stats.timers_pending,
        rank(500),
        rank(990),
        rank(999),
        rank(1_000)
    );
    println!(
        "{} timers fired, the latest {} us late",
        stats.timers_fired,
        stats.timer_late_max_ns / 1_000
    );
    println!("tables: {:.1} MB", stats.state_bytes as f64 / 1e6);
    Ok(())
}
