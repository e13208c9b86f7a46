//! The middles of a workload's cores and their logs: made before its agents, asked what they counted at the
//! end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_probes::clock;
use tailbeam_runtime::{Addr, Cx};

use super::DriveError;
use super::controller::Controller;
use super::replay;
use crate::chaos::board::{Defence, Place};
use crate::evidence::records::CountRecord;
use crate::load::Workload;
use crate::load::link::MARK;
use crate::load::middle::{Kept, MiddleAgent, MiddleMsg, Setup};
use crate::log::scan::{Scanner, recover_by};
use crate::log::{
    Ack, Durability, Entry, Health, LogAgent, LogConfig, LogKey, LogMsg, Receipt, remove_prepared,
};
use crate::plan::{LogAck, LogSync, Plan};
use crate::protocol::elicitation::RunSecret;

/// Bytes of a log's segment: two are there at any time, and each is filled with zeros before it is used.
const SEGMENT_BYTES: u64 = 16 << 20;
/// How long a log may take to begin its first segment, and a middle to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The logs of a run, and what belongs to them.
#[derive(Debug, Default)]
pub(super) struct Logs {
    dir: Option<PathBuf>,
    pub(super) keep: bool,
    /// One per owner.
    pub(super) dirs: Vec<PathBuf>,
    pub(super) key: Option<LogKey>,
    /// Bytes that were taken away on the way.
    pub(super) tidied: u64,
    /// Damaged places that were found when they were begun.
    damaged: u64,
    logs: Vec<Addr<LogAgent>>,
}

impl Logs {
    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.logs.len()
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take().filter(|_| !self.keep) {
            // What cannot be taken away is in nobody's way: the name is this run's alone.
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

fn config(plan: &Plan, key: LogKey) -> LogConfig {
    let durability = match plan.protocol.durability {
        LogSync::None => Durability::None,
        LogSync::Batch => Durability::Batch { wait_ns: 0 },
        LogSync::PerEvent => Durability::PerEvent,
    };
    let ack = match plan.protocol.ack {
        LogAck::Before => Ack::Before,
        LogAck::After => Ack::After,
    };
    LogConfig { durability, ack, key, segment_bytes: SEGMENT_BYTES, ..LogConfig::default() }
}

/// A secret that is this run's: 32 bytes of the kernel's generator.
fn secret() -> Result<[u8; 32], DriveError> {
    let mut bytes = [0; 32];
    let failed = |cause: String| DriveError::EventLog { path: "/dev/urandom".to_owned(), cause };
    let mut source =
        std::fs::File::open("/dev/urandom").map_err(|error| failed(error.to_string()))?;
    std::io::Read::read_exact(&mut source, &mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    Ok(bytes)
}

/// Where a log goes on: its next event and segment, and where what it holds is damaged, but for
/// writes that were cut off ([`is_cut_off`](crate::log::Damage::is_cut_off)).
type Next = ((u64, u32), Vec<Place>);

/// What a log's directory holds, and where it goes on. Damage is no error: what follows it is there, and it is counted.
/// `blind`: by a reader without its defence against damage.
fn kept(dir: &std::path::Path, key: LogKey, blind: bool) -> Result<(Kept, Next), String> {
    let bytes = replay::bytes(dir);
    if bytes > replay::REPLAY_MAX {
        return Err(format!("it holds {bytes} bytes, more than are read again"));
    }
    let mut kept = Kept::default();
    let scanner = Scanner::new(key, None);
    let scanner = if blind { scanner.blind() } else { scanner };
    let found = recover_by(scanner, dir, key, |found| {
        kept.records.push((found.record.kind, found.record.payload.into()));
    });
    let found = found.map_err(|error| error.to_string())?;
    let damaged = found.damage.iter().filter(|of| !of.is_cut_off());
    let damaged = damaged.map(|of| Place {
        segment: of.segment,
        // Segments have 16 MiB.
        byte: u32::try_from(of.offset).unwrap_or(u32::MAX),
        event: of.missing.map(|(from, _)| from),
    });
    let damaged = damaged.collect();
    Ok((kept, ((found.next_seq, found.next_segment), damaged)))
}

impl<W: Workload> Controller<'_, W> {
    /// Makes log and middle of every core with agents; nothing for a workload without.
    pub(super) fn start_middles(&mut self, root: &std::path::Path) -> Result<(), DriveError> {
        if !W::MIDDLE {
            let none = self.fleet.middles.set(Vec::new());
            none.expect("set once, before any agent begins");
            return Ok(());
        }
        let home = self.control.log_home.as_ref();
        let secret = home.map_or_else(secret, |home| Ok(home.secret))?;
        self.secret = secret;
        let key = LogKey(RunSecret::new(secret).log_key());
        let own = || root.join(format!(".log-{}-{}", std::process::id(), clock::monotonic_ns()));
        let dir = home.map_or_else(own, |home| home.dir.clone());
        self.logs.dir = Some(dir.clone());
        self.logs.key = Some(key);
        self.logs.keep = self.plan.protocol.keep_log || home.is_some();
        // An agent's requests are numbered by 32 bits.
        let begun = self.control.board.as_ref().map_or(0, |board| board.begun().1);
        let mut middles = Vec::with_capacity(self.shards);
        for shard in 0..self.shards {
            let (log, kept) = self.start_log(shard, dir.join(format!("owner-{shard}")), key)?;
            let setup = Setup {
                fleet: Arc::clone(&self.fleet),
                shard,
                shards: self.shards,
                log,
                secret,
                kept,
                first_request: begun << 32,
                board: self.control.board.clone(),
            };
            let made = self.on(shard, move |cx| {
                let middle = W::middle(&setup)?;
                cx.spawn(MiddleAgent::<W>::new(middle)).ok()
            })?;
            middles.push(made.ok_or_else(|| self.no_room())?);
        }
        self.fleet.middles.set(middles).expect("set once, before any agent begins");
        Ok(())
    }

    fn no_room(&self) -> DriveError {
        let cause = "there was no room for the agent of a core's log or owner".to_owned();
        DriveError::Spawn { live: self.live_agents(), asked: self.plan.agents, cause }
    }

    fn start_log(
        &mut self,
        owner: usize,
        dir: PathBuf,
        key: LogKey,
    ) -> Result<(Addr<LogAgent>, Kept), DriveError> {
        let failed = |path: &std::path::Path, cause: String| {
            let path = path.display().to_string();
            DriveError::EventLog { path, cause }
        };
        std::fs::create_dir_all(&dir).map_err(|error| failed(&dir, error.to_string()))?;
        let config = config(self.plan, key);
        let (wall, board) = (self.wall.clone(), self.control.board.clone());
        let shard = self.log_shard.unwrap_or(owner);
        let place = dir.clone();
        remove_prepared(&dir).map_err(|error| failed(&dir, error.to_string()))?;
        let off = |defence| board.as_ref().is_some_and(|board| board.is_off(defence));
        let kept = kept(&dir, key, off(Defence::Checksum));
        let (mut kept, (next, damaged)) = kept.map_err(|cause| failed(&dir, cause))?;
        self.logs.damaged += damaged.len() as u64;
        if let (Some(board), Ok(core)) = (&board, u32::try_from(owner)) {
            board.set_damage(core, &damaged);
        }
        if off(Defence::Replay) {
            kept.records.clear();
        }
        let log = self
            .on(shard, move |cx| {
                let log = LogAgent::new(config, place, next, 0).with_wall(wall);
                cx.spawn(log.planted(board)).ok()
            })?
            .ok_or_else(|| self.no_room())?;
        self.logs.logs.push(log);
        self.logs.dirs.push(dir.clone());
        // The first segment is made before the load begins.
        let begun = self.answer(shard, async move |cx: &mut Cx<'_>| {
            let entry = Box::new(Entry { kind: MARK, version: 1, payload: Box::new([]) });
            let deadline = cx.fresh_ns() + 60_000_000_000;
            cx.ask(log, deadline, |reply| LogMsg::Append(entry, Some(reply))).await.ok()
        })?;
        match begun.flatten() {
            Some(Receipt::Kept(mark)) => {
                kept.next = mark + 1;
                Ok((log, kept))
            }
            other => {
                let health = self.health(shard, log)?;
                let said = health.and_then(|health| health.last_error);
                let cause = said.unwrap_or_else(|| format!("its first event: {other:?}"));
                Err(failed(&dir, cause))
            }
        }
    }

    fn health(&self, shard: usize, log: Addr<LogAgent>) -> Result<Option<Health>, DriveError> {
        let asked = self.answer(shard, async move |cx: &mut Cx<'_>| {
            let deadline = cx.fresh_ns() + 10_000_000_000;
            cx.ask(log, deadline, LogMsg::Health).await.ok().map(|health| *health)
        })?;
        Ok(asked.flatten())
    }

    /// Runs a future on a shard and waits for what it says; none when it did not in time.
    pub(super) fn answer<R: Send + 'static>(
        &self,
        shard: usize,
        run: impl AsyncFnOnce(&mut Cx<'_>) -> R + Send + 'static,
    ) -> Result<Option<R>, DriveError> {
        let (told, said) = mpsc::channel();
        self.on(shard, move |cx| {
            let run = async move |cx: &mut Cx<'_>| {
                // Whoever waits may have given up.
                let _ = told.send(run(cx).await);
            };
            drop(cx.spawn_with(run));
        })?;
        Ok(said.recv_timeout(PATIENCE).ok())
    }

    /// What the middles and their logs have counted, summed over the cores; the longest of what is longest.
    pub(super) fn protocol_counts(&self) -> Result<Vec<CountRecord>, DriveError> {
        let mut all: Vec<CountRecord> = Vec::new();
        let mut add = |name: String, count: u64| {
            let largest = name.starts_with("longest") || name.starts_with("largest");
            match all.iter_mut().find(|record| record.name == name) {
                Some(record) if largest => record.count = record.count.max(count),
                Some(record) => record.count += count,
                None => all.push(CountRecord { name, count }),
            }
        };
        if self.plan.shape.session_ns.is_some() {
            let (ended, cut) = self.fleet.sessions.counted();
            add("sessions that ended".to_owned(), ended);
            add("sessions that ended with requests open".to_owned(), cut);
        }
        let middles = self.fleet.middles.get().map_or(&[][..], Vec::as_slice);
        for (shard, &middle) in middles.iter().enumerate() {
            let counted = self.answer(shard, async move |cx: &mut Cx<'_>| {
                let deadline = cx.fresh_ns() + 10_000_000_000;
                cx.ask(middle, deadline, MiddleMsg::Counts).await.ok()
            })?;
            match counted.flatten() {
                Some(counted) => counted.into_iter().for_each(|(name, count)| add(name, count)),
                None => add("cores that did not say what they counted".to_owned(), 1),
            }
        }
        if !self.logs.logs.is_empty() {
            add("log: damaged places at its begin".to_owned(), self.logs.damaged);
        }
        for (owner, &log) in self.logs.logs.iter().enumerate() {
            let Some(health) = self.health(self.log_shard.unwrap_or(owner), log)? else {
                add("logs that did not say what they counted".to_owned(), 1);
                continue;
            };
            let counts = health.counts;
            add("log: events".to_owned(), counts.offered - counts.refused);
            add("log: refused".to_owned(), counts.refused);
            add("log: lost".to_owned(), counts.lost);
            add("log: writes".to_owned(), counts.writes);
            add("log: syncs".to_owned(), counts.syncs);
            add("log: segments".to_owned(), counts.segments);
            add("log: failures".to_owned(), counts.failures);
            add("largest batch of the log".to_owned(), counts.batch_most);
            if health.degraded {
                add("logs that could not write at the end".to_owned(), 1);
            }
        }
        Ok(all)
    }
}
