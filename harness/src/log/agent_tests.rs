//! On the real ring and the real disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_runtime::{Config, Cores, NoObserver, Runtime, clock};

use super::super::core::{Ack, Durability};
use super::super::{LogKey, recover_dir};
use super::*;
use crate::chaos::board::{Knob, Shape};
use crate::rings::has_rings;

const KEY: LogKey = LogKey([6; 16]);
const PATIENCE: Duration = Duration::from_secs(60);

fn config(durability: Durability) -> LogConfig {
    LogConfig { durability, segment_bytes: 8 << 10, key: KEY, ..LogConfig::default() }
}

/// Appends `count` events of 200 bytes, 32 at a time, and stops the runtime; their receipts. [`None`] on a
/// machine without a ring.
fn append(dir: &Path, config: LogConfig, next: (u64, u32), count: usize) -> Option<Vec<Receipt>> {
    if !has_rings() {
        return None;
    }
    let cores = Config { cores: Cores::Auto, ..Config::default() };
    let runtime = Runtime::start(cores, |_| NoObserver).unwrap();
    let dir = dir.to_owned();
    let log = runtime.spawn_on(0, move || LogAgent::new(config, dir, next, 0)).unwrap();
    let (done, finished) = mpsc::channel();
    for lane in 0..32 {
        let done = done.clone();
        let ask = move |cx: &mut Cx<'_>| {
            let run = async move |cx: &mut Cx<'_>| {
                for n in (lane..count).step_by(32) {
                    let payload = vec![n.to_le_bytes()[0]; 200].into();
                    let entry = Box::new(Entry { kind: 1, version: 1, payload });
                    let deadline = clock::monotonic_ns() + 60_000_000_000;
                    let make = |reply| LogMsg::Append(entry, Some(reply));
                    let receipt = cx.ask(log, deadline, make).await;
                    done.send(receipt.expect("an answer")).expect("received");
                }
            };
            assert!(cx.spawn_with(run).is_ok(), "room");
        };
        runtime.run_on(0, ask).unwrap();
    }
    let receipts = (0..count).map(|_| finished.recv_timeout(PATIENCE).expect("in time")).collect();
    assert!(runtime.shutdown().shards.iter().all(|shard| shard.agents_panicked == 0));
    Some(receipts)
}

#[test]
fn what_was_kept_is_there_after_a_restart_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut next, mut total) = ((0, 0), 0);
    for durability in
        [Durability::None, Durability::Batch { wait_ns: 100_000 }, Durability::PerEvent]
    {
        let Some(receipts) = append(dir.path(), config(durability), next, 500) else { return };
        let mut numbers: Vec<u64> = receipts
            .iter()
            .map(|receipt| match receipt {
                Receipt::Kept(seq) => *seq,
                other => panic!("{other:?}"),
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (total..total + 500).collect::<Vec<_>>());
        total += 500;
        let mut payloads = 0;
        let found = recover_dir(dir.path(), KEY, None, |found| {
            assert!(
                found.record.payload.len() == 200
                    && found.record.payload.windows(2).all(|w| w[0] == w[1])
            );
            payloads += 1;
        });
        let found = found.unwrap();
        assert_eq!((found.damage.clone(), payloads, found.next_seq), (vec![], total, total));
        assert!(found.next_segment > next.1 + 10, "500 records of 232 bytes do not fit 8 KiB");
        next = (found.next_seq, found.next_segment);
    }
}

#[test]
fn a_log_without_a_disk_gives_everything_back_and_loses_nothing_in_silence() {
    let config = LogConfig { ack: Ack::After, ..config(Durability::PerEvent) };
    let Some(receipts) = append(Path::new("/proc/no/such/place"), config, (0, 0), 200) else {
        return;
    };
    let count = |which: fn(&Receipt) -> bool| receipts.iter().filter(|r| which(r)).count();
    let (lost, back) =
        (count(|r| matches!(r, Receipt::Lost)), count(|r| matches!(r, Receipt::Back(_))));
    assert!(lost > 0 && lost <= 32 && lost + back == 200, "{lost} lost, {back} back");
}

fn board() -> Arc<Board> {
    let shape = Shape { cores: 1, slots: 1, slot_ns: 1, from_ns: 0 };
    Arc::new(Board::create(shape, &[0; 32]).unwrap())
}

/// A log under a board, and askers that append one event after the other until they are told to stop.
struct Rig {
    runtime: Runtime,
    log: Addr<LogAgent>,
    stop: Arc<AtomicBool>,
    receipts: mpsc::Receiver<(u8, Receipt)>,
}

const LANES: u8 = 8;

impl Rig {
    fn start(dir: &Path, board: &Arc<Board>) -> Option<Self> {
        if !has_rings() {
            return None;
        }
        let runtime = Runtime::start(Config::default(), |_| NoObserver).unwrap();
        let (config, dir) = (config(Durability::Batch { wait_ns: 0 }), dir.to_owned());
        let config = LogConfig { rest_ns: (2_000_000, 20_000_000), ..config };
        let theirs = Some(Arc::clone(board));
        let made = move || LogAgent::new(config, dir, (0, 0), 0).planted(theirs);
        let log = runtime.spawn_on(0, made).unwrap();
        let (stop, (done, receipts)) = (Arc::<AtomicBool>::default(), mpsc::channel());
        for lane in 0..LANES {
            let (done, stop) = (done.clone(), Arc::clone(&stop));
            let run = async move |cx: &mut Cx<'_>| {
                while !stop.load(Ordering::Relaxed) {
                    let entry = Entry { kind: 1, version: 1, payload: vec![lane; 100].into() };
                    let make = |reply| LogMsg::Append(Box::new(entry), Some(reply));
                    let receipt = cx.ask(log, cx.now_ns() + 60_000_000_000, make).await;
                    let receipt = receipt.expect("a log that answers");
                    done.send((lane, receipt)).expect("received");
                    let next_ns = cx.fresh_ns() + 100_000;
                    let _ = cx.sleep_until(next_ns).await;
                }
            };
            runtime.run_on(0, move |cx| assert!(cx.spawn_with(run).is_ok(), "room")).unwrap();
        }
        Some(Self { runtime, log, stop, receipts })
    }

    fn health(&self) -> Health {
        let (say, said) = mpsc::channel();
        let log = self.log;
        let run = async move |cx: &mut Cx<'_>| {
            let deadline_ns = cx.fresh_ns() + 10_000_000_000;
            say.send(*cx.ask(log, deadline_ns, LogMsg::Health).await.expect("lives")).unwrap();
        };
        self.runtime.run_on(0, move |cx| assert!(cx.spawn_with(run).is_ok())).unwrap();
        said.recv_timeout(PATIENCE).unwrap()
    }

    /// Stops the askers; everything that they were told.
    fn end(self) -> Vec<(u8, Receipt)> {
        self.stop.store(true, Ordering::Relaxed);
        // Each asker holds a sender until it ends.
        let all = self.receipts.iter().collect();
        assert!(self.runtime.shutdown().shards.iter().all(|shard| shard.drained));
        all
    }

    fn until(&self, what: &str, condition: impl Fn(&Health) -> bool) -> Health {
        let end_ns = clock::monotonic_ns() + 30_000_000_000;
        loop {
            let health = self.health();
            if condition(&health) {
                return health;
            }
            assert!(clock::monotonic_ns() < end_ns, "{what}: {health:?}");
        }
    }
}

/// Each planted fault bites, is said, and ends; every event that was acknowledged is there once.
#[test]
fn a_disk_with_planted_faults_loses_nothing_that_was_acknowledged() {
    const MS: u64 = 1_000_000;
    for (knob, level) in [
        (Knob::LogSyncErrno, 5),
        (Knob::LogWriteErrno, 28),
        (Knob::LogWriteErrno, 5),
        (Knob::LogWriteShort, 41),
        (Knob::LogSyncDelayNs, 30 * MS),
    ] {
        let (dir, board) = (tempfile::tempdir().unwrap(), board());
        let Some(rig) = Rig::start(dir.path(), &board) else { return };
        let before = rig.until("it works", |health| health.counts.syncs > 3);
        assert_eq!((before.degraded, before.counts.failures), (false, 0));
        board.set(knob, level);
        let fails = knob != Knob::LogSyncDelayNs;
        let bad = rig.until("it bites", |health| {
            board.bites(knob) > 2 && (!fails || health.degraded && health.counts.failures > 1)
        });
        assert_eq!((bad.dead, fails), (false, bad.last_error.is_some()), "{bad:?}");
        assert!(bad.held <= usize::from(LANES), "{bad:?}");
        board.set(knob, 0);
        let syncs = bad.counts.syncs + 10;
        let good = rig.until("it works again", |health| health.counts.syncs > syncs);
        assert!(!good.degraded && good.counts.lost == 0, "{good:?}");
        let bites = board.bites(knob);
        let told = rig.end();
        assert_eq!(board.bites(knob), bites, "it is over");
        let mut kept: Vec<(u64, u8)> = told
            .iter()
            .map(|(lane, receipt)| match receipt {
                Receipt::Kept(seq) => (*seq, *lane),
                other => panic!("{knob:?}: {other:?}"),
            })
            .collect();
        kept.sort_unstable();
        let mut read = Vec::new();
        let found = recover_dir(dir.path(), KEY, None, |found| {
            read.push((found.record.seq, found.record.payload[0]));
        });
        assert_eq!(read, kept, "{knob:?}: each once, in order");
        assert!(found.unwrap().damage.iter().all(|damage| !damage.acknowledged));
        // What could not begin leaves nothing behind; each segment that did holds records or is the next.
        let files = std::fs::read_dir(dir.path()).unwrap().count() as u64;
        assert!(files <= good.counts.segments + 20, "{files} files");
    }
}

#[test]
fn a_board_without_faults_changes_nothing() {
    let (dir, board) = (tempfile::tempdir().unwrap(), board());
    let Some(rig) = Rig::start(dir.path(), &board) else { return };
    let health = rig.until("it works", |health| health.counts.syncs > 20);
    assert_eq!((health.counts.failures, health.degraded, health.last_error), (0, false, None));
    let told = rig.end();
    assert!(told.iter().all(|(_, receipt)| matches!(receipt, Receipt::Kept(_))));
    let knobs =
        [Knob::LogSyncErrno, Knob::LogWriteErrno, Knob::LogWriteShort, Knob::LogSyncDelayNs];
    assert!(knobs.iter().all(|&knob| board.bites(knob) == 0));
}
