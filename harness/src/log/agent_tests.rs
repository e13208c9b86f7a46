//! On the real ring and the real disk.

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use tailbeam_runtime::{Config, Cores, NoObserver, Runtime, clock, features};

use super::super::core::{Ack, Durability};
use super::super::{LogKey, recover_dir};
use super::*;

const KEY: LogKey = LogKey([6; 16]);
const PATIENCE: Duration = Duration::from_secs(60);

fn config(durability: Durability) -> LogConfig {
    LogConfig { durability, segment_bytes: 8 << 10, key: KEY, ..LogConfig::default() }
}

/// Appends `count` events of 200 bytes, 32 at a time, and stops the runtime; their receipts. [`None`] on a
/// machine without a ring.
fn append(dir: &Path, config: LogConfig, next: (u64, u32), count: usize) -> Option<Vec<Receipt>> {
    if features::probe().is_err() {
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
