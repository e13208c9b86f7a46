//! Resident memory of idle agents with 64 bytes of state, mailbox and accounting included, and after a burst
//! of ten messages to each: `cargo run --release -p tailbeam-runtime --example idle_memory [-- AGENTS]`.

use std::error::Error;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tailbeam_runtime::{Addr, Agent, Config, Cx, NoObserver, Runtime, Stop};

static READ: AtomicU64 = AtomicU64::new(0);

struct Idle([u64; 8]);

impl Agent for Idle {
    type Msg = u64;

    async fn on(&mut self, n: u64, _: &mut Cx<'_>) -> Result<(), Stop> {
        self.0[0] += n;
        READ.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Resident bytes of this process.
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib * 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let agents: u32 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    let config = Config { agents_max: agents, messages_max: 1 << 24, ..Config::default() };
    let runtime = Runtime::start(config, |_| NoObserver)?;
    let per_shard = agents / u32::try_from(runtime.shards())?;
    // The addresses are the program's own: room for them is touched before anything is measured.
    let mut addresses: Vec<Vec<Addr<Idle>>> = Vec::new();
    for shard in 0..runtime.shards() {
        addresses.push(runtime.run_on(shard, move |cx| {
            let first = cx.spawn(Idle([1; 8])).ok();
            first.map_or_else(Vec::new, |first| vec![first; per_shard as usize])
        })?);
    }
    let before = resident()?;
    for (shard, room) in addresses.iter_mut().enumerate() {
        let mut room_of_shard = std::mem::take(room);
        *room = runtime.run_on(shard, move |cx| {
            room_of_shard.iter_mut().skip(1).for_each(|place| {
                *place = cx.spawn(Idle([1; 8])).unwrap_or(*place);
            });
            room_of_shard
        })?;
    }
    let live: u64 = u64::from(per_shard) * runtime.shards() as u64;
    let idle = resident()?;
    let mut out = std::io::stdout().lock();
    let each = |bytes: u64| (bytes - before) as f64 / live as f64;
    writeln!(out, "{live} idle agents: {:.1} B each, {before} B before", each(idle))?;
    burst(&runtime, addresses)?;
    let after = resident()?;
    let more = 100.0 * (after as f64 / idle as f64 - 1.0);
    writeln!(out, "after a burst of ten messages each: {:.1} B each, {more:+.2} %", each(after))?;
    Ok(())
}

/// Ten messages to every agent at once, from its own core; returns when all are read.
fn burst(runtime: &Runtime, addresses: Vec<Vec<Addr<Idle>>>) -> Result<(), Box<dyn Error>> {
    let mut sent = 0;
    for (shard, addresses) in addresses.into_iter().enumerate() {
        sent += runtime.run_on(shard, move |cx: &mut Cx<'_>| {
            let all = (0..10).flat_map(|_| &addresses);
            let sent = all.filter(|agent| agent.try_send(cx, 1).is_ok()).count() as u64;
            // They were there before, and so must be after.
            std::mem::forget(addresses);
            sent
        })?;
    }
    while READ.load(Ordering::Relaxed) < sent {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}
