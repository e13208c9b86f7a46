use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::twin::{Fault, Twin};
use super::*;

fn config(durability: Durability, ack: Ack) -> LogConfig {
    LogConfig {
        durability,
        ack,
        queue_max: 20,
        queue_bytes_max: 4_096,
        batch_max: 6,
        batch_bytes_max: 600,
        segment_bytes: 1_024,
        payload_max: 300,
        failures_max: 3,
        rest_ns: (2, 5),
        key: LogKey([3; 16]),
    }
}

fn entry(payload: &[u8]) -> Entry {
    Entry { kind: 1, version: 1, payload: payload.into() }
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::None),
        Just(Durability::PerEvent),
        (0u64..3).prop_map(|wait_ns| Durability::Batch { wait_ns })
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => (0usize..400).prop_map(Fault::Short),
        1 => Just(Fault::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever fails and whenever the power goes: what was acknowledged after a sync is there, once, in
    /// order and as it was; nothing is there that was not offered; the sums close.
    #[test]
    fn what_was_acknowledged_is_there(
        durability in durability(), before: bool, seed: u64,
        steps in prop::collection::vec((0usize..330, 0usize..3, fault()), 1..120),
    ) {
        let ack = if before { Ack::Before } else { Ack::After };
        let mut core = Core::new(config(durability, ack), 0, 0);
        let mut disk = Twin::new(LogKey([3; 16]), 1_024);
        let mut offered: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut acked = 0;
        let mut dead = false;
        for (now, (len, offers, fault)) in steps.into_iter().enumerate() {
            for n in 0..offers {
                let payload = vec![(now + n).to_le_bytes()[0]; len];
                let room = core.room();
                match core.offer(now as u64, entry(&payload)) {
                    Ok(seq) => { prop_assert_eq!(offered.insert(seq, payload), None); }
                    Err(back) => {
                        prop_assert_eq!(&back.payload[..], &payload[..], "given back");
                        prop_assert!(room == 0 || len > 300 || core.queue_bytes + record_len(len) > 4_096);
                    }
                }
            }
            disk.step(&mut core, now as u64, fault);
            dead |= core.is_dead();
            prop_assert!(core.held() <= 20 && core.queue_bytes <= 4_096);
            prop_assert!(dead || core.acked() >= acked, "never taken back");
            acked = core.acked();
            let counts = core.counts();
            prop_assert_eq!(counts.offered, counts.refused + counts.lost + core.front_seq + core.held() as u64);
        }
        let durable = core.front_seq;
        let mut bits = seed;
        disk.cut(|| { bits = bits.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15); bits & 4 != 0 });
        let (records, found) = disk.read();
        let synced = durability != Durability::None;
        if synced {
            for (seq, payload) in offered.range(..durable) {
                let read = records.iter().find(|(read, _)| read == seq);
                prop_assert_eq!(read.map(|(_, payload)| payload), Some(payload), "{} of {}: {:?}", seq, durable, found);
            }
            prop_assert!(found.damage.iter().all(|damage| !damage.acknowledged), "{:?}", found);
        }
        prop_assert!(records.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (seq, payload) in &records {
            prop_assert_eq!(offered.get(seq), Some(payload));
        }
        // What is between the records that were read and is not there is named.
        let missing: u64 = found.damage.iter().filter_map(|d| d.missing).map(|(from, to)| to - from).sum();
        let last = records.last().map_or(0, |(seq, _)| seq + 1);
        prop_assert_eq!(missing + records.len() as u64, last.max(found.next_seq.min(last + missing)));
    }
}

fn run(core: &mut Core, disk: &mut Twin) {
    while disk.step(core, 1 << 40, Fault::None) {}
}

#[test]
fn each_durability_has_its_writes_and_syncs() {
    let wait_ns = 0;
    for (durability, writes, syncs) in [
        (Durability::None, 2, 0),
        (Durability::Batch { wait_ns }, 2, 2),
        (Durability::PerEvent, 12, 12),
    ] {
        let mut core = Core::new(config(durability, Ack::After), 0, 0);
        let mut disk = Twin::new(LogKey([3; 16]), 1_024);
        for n in 0..12 {
            assert_eq!(core.offer(0, entry(&[n; 8])), Ok(u64::from(n)));
            assert_eq!(core.acked(), 0);
        }
        run(&mut core, &mut disk);
        let counts = *core.counts();
        assert_eq!(
            (counts.writes, counts.syncs, core.acked()),
            (writes, syncs, 12),
            "{durability:?}"
        );
        assert_eq!(disk.read().0.len(), 12);
    }
}

#[test]
fn a_segment_is_begun_early_when_that_is_wanted_and_once() {
    let mut core = Core::new(config(Durability::None, Ack::After), 0, 0);
    // Nothing is begun yet, so there is nothing to begin anew.
    core.renew();
    let mut begun = Vec::new();
    for round in 0..3u8 {
        if round == 2 {
            core.renew();
        }
        core.offer(0, entry(&[round; 20])).unwrap();
        loop {
            match core.next(0) {
                Action::Rotate { segment, first_seq } => {
                    begun.push((segment, first_seq));
                    core.rotated(true);
                }
                Action::Write { bytes, .. } => core.wrote(true, bytes),
                Action::Wait(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((begun, core.acked()), (vec![(0, 0), (1, 2)], 3));
}

#[test]
fn acknowledged_before_means_before_and_a_wait_is_kept() {
    let mut core = Core::new(config(Durability::Batch { wait_ns: 50 }, Ack::Before), 7, 3);
    let mut disk = Twin::new(LogKey([3; 16]), 1_024);
    core.offer(100, entry(b"a")).unwrap();
    assert_eq!(core.acked(), 8);
    assert_eq!(core.next(149), Action::Wait(Some(150)));
    assert!(disk.step(&mut core, 150, Fault::None), "begins segment 3");
    for _ in 0..5 {
        core.offer(150, entry(b"b")).unwrap();
    }
    assert!(disk.step(&mut core, 150, Fault::None));
    assert_eq!(core.next(150), Action::Sync);
    core.synced(true);
    assert_eq!((core.counts().batch_most, core.held()), (6, 0), "a full batch does not wait");
    assert_eq!(core.next(150), Action::Wait(None));
}

#[test]
fn a_failed_sync_is_not_tried_again_and_its_events_go_to_a_new_segment() {
    let mut core = Core::new(config(Durability::Batch { wait_ns: 0 }, Ack::After), 0, 0);
    let mut disk = Twin::new(LogKey([3; 16]), 1_024);
    for n in 0..4u8 {
        core.offer(0, entry(&[n; 4])).unwrap();
    }
    for fault in [Fault::None, Fault::None, Fault::Refuse] {
        disk.step(&mut core, 0, fault);
    }
    assert_eq!((core.acked(), core.counts().failures), (0, 1));
    assert!(core.is_degraded());
    let (mut now_ns, mut rests) = (100, Vec::new());
    for segment in 1..6 {
        let Action::Wait(Some(until_ns)) = core.next(now_ns) else { panic!("it rests first") };
        assert_eq!(core.due_at(until_ns - 1), Err(Some(until_ns)));
        assert_eq!(
            core.next(until_ns - 1),
            Action::Wait(Some(until_ns)),
            "a rest is not begun anew"
        );
        rests.push(until_ns - now_ns);
        now_ns = until_ns;
        assert_eq!(core.next(now_ns), Action::Rotate { segment, first_seq: 0 });
        core.rotated(false);
    }
    assert_eq!(rests, [2, 4, 5, 5, 5], "doubled up to the bound");
    assert_eq!((core.acked(), core.held(), core.counts().lost), (0, 4, 0));
    assert!(matches!(core.next(now_ns), Action::Wait(Some(_))), "the last rest begins");
    run(&mut core, &mut disk);
    assert_eq!((core.acked(), core.is_degraded(), core.counts().failures), (4, false, 6));
    assert_eq!(disk.read().0.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_log_that_never_began_gives_up_and_gives_back() {
    let mut core = Core::new(config(Durability::Batch { wait_ns: 0 }, Ack::After), 0, 0);
    for n in 0..4u8 {
        core.offer(0, entry(&[n; 4])).unwrap();
    }
    for now_ns in [0, 10, 20] {
        let rests = matches!(core.next(now_ns), Action::Wait(Some(_)));
        assert_eq!(rests, now_ns > 0);
        assert!(!rests || matches!(core.next(now_ns + 5), Action::Rotate { .. }));
        core.rotated(false);
    }
    assert_eq!((core.next(30), core.room(), core.counts().lost), (Action::Dead, 0, 4));
    assert_eq!(core.offer(0, entry(b"x")), Err(entry(b"x")));
    assert_eq!(core.acked(), 0, "what was lost is not acknowledged");
}

/// What a run over a disk that fails and comes back has left.
struct Healed {
    offered: Vec<(u64, Vec<u8>)>,
    acked: u64,
    /// Acknowledged when the power went.
    promised: u64,
    read: Vec<(u64, Vec<u8>)>,
    after_cut: Vec<u64>,
    counts: CoreCounts,
}

/// Offers and fails as `steps` say, then has a good disk for as long as it takes; a power cut at the end.
fn heal(lies: bool, durability: Durability, steps: &[(usize, usize, Fault)]) -> Healed {
    let mut core = Core::new(config(durability, Ack::After), 0, 0);
    let mut disk = Twin::new(LogKey([3; 16]), 1_024);
    disk.lies = lies;
    let mut offered = Vec::new();
    // The first segment is there: a log that never began has nothing to come back to.
    offered.extend(core.offer(0, entry(b"first")).map(|seq| (seq, b"first".to_vec())));
    assert!(disk.step(&mut core, 1 << 20, Fault::None));
    let mut now_ns = 1 << 21;
    let mut promised = core.acked();
    for &(len, offers, fault) in steps {
        for n in 0..offers {
            let payload = vec![n.to_le_bytes()[0]; len];
            offered.extend(core.offer(now_ns, entry(&payload)).map(|seq| (seq, payload)));
        }
        disk.step(&mut core, now_ns, fault);
        assert!(!core.is_dead() && core.held() <= 20);
        promised = core.acked();
        now_ns += 1;
    }
    let mut cut = disk.clone();
    cut.cut(|| false);
    let after_cut = cut.read().0.into_iter().map(|(seq, _)| seq).collect();
    for _ in 0..4_000 {
        disk.step(&mut core, now_ns, Fault::None);
        now_ns += 1;
    }
    let (acked, counts) = (core.acked(), *core.counts());
    Healed { offered, acked, promised, read: disk.read().0, after_cut, counts }
}

impl Healed {
    /// The first promise that was not kept.
    fn broken(&self, synced: bool) -> Option<String> {
        let Self { offered, acked, promised, read, after_cut, .. } = self;
        let lost = |seq: &u64| !after_cut.contains(seq);
        if synced && let Some(lost) = (0..*promised).find(lost) {
            return Some(format!("{lost} was acknowledged and the power took it"));
        }
        if *acked != offered.len() as u64 {
            return Some(format!("{acked} of {} acknowledged on a good disk", offered.len()));
        }
        (read != offered).then(|| "not each once, in order and as it was".to_owned())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever fails for however long: once the disk is good again everything that was taken is acknowledged, and is
    /// there once, in order; nothing is lost, and nothing was acknowledged that a power cut would have taken.
    #[test]
    fn a_disk_that_comes_back_finds_everything(
        durability in durability(), outage in 0usize..60,
        steps in prop::collection::vec((0usize..290, 0usize..3, fault()), 1..80),
    ) {
        let mut steps = steps;
        let middle = steps.len() / 2;
        let refused = std::iter::repeat_n((20, 1, Fault::Refuse), outage);
        steps.splice(middle..middle, refused);
        let healed = heal(false, durability, &steps);
        prop_assert_eq!(healed.counts.lost, 0);
        prop_assert_eq!(healed.broken(durability != Durability::None), None);
    }
}

/// The check above must find a log that acknowledges what a failed sync has lost.
#[test]
fn a_log_that_acknowledges_before_the_disk_has_it_is_found() {
    let steps: Vec<_> =
        (0..60).map(|n| (40, 1, if n % 7 == 3 { Fault::Refuse } else { Fault::None })).collect();
    for durability in [Durability::PerEvent, Durability::Batch { wait_ns: 1 }] {
        assert_eq!(heal(false, durability, &steps).broken(true), None);
        assert!(heal(true, durability, &steps).broken(true).is_some(), "{durability:?}");
    }
}
