//! Two views of one board: what one writes the other reads, whoever dies.

use std::sync::Arc;

use super::*;

const SECRET: [u8; 32] = [7; 32];
const SHAPE: Shape = Shape { cores: 2, slots: 10, slot_ns: 100, from_ns: 1_000 };

#[test]
fn what_a_core_counts_is_read_by_another_view() {
    let ours = Board::create(SHAPE, &SECRET).unwrap();
    let theirs = Arc::new(Board::attach(&ours.path(), 0).unwrap());
    assert_eq!((theirs.shape(), theirs.secret()), (SHAPE, SECRET));
    let lane = Lane::new(&theirs, 1).unwrap();
    assert!(Lane::new(&theirs, 2).is_none());
    lane.due(1_250);
    lane.due(1_299);
    lane.came_to(1_250, Fate::Ok);
    lane.took(1_250, 3_000);
    theirs.bite(Knob::LogSyncErrno);
    ours.set(Knob::LogSyncErrno, 5);
    theirs.set_durable(1, 7);
    theirs.set_told(1, 9);
    drop((lane, theirs.level(Knob::LogSyncErrno)));
    drop(theirs);
    let cell = ours.read(2);
    assert_eq!((cell.due, cell.fate(Fate::Ok), cell.open(), cell.timed()), (2, 1, 1, 1));
    assert_eq!((ours.level(Knob::LogSyncErrno), ours.bites(Knob::LogSyncErrno)), (5, 1));
    assert_eq!(
        (ours.durable(1), ours.told(1), ours.told(0), ours.read(3), ours.read(10)),
        (7, 9, 0, Cell::default(), Cell::default())
    );
}

#[test]
fn what_is_due_outside_of_its_time_is_counted_apart() {
    let board = Arc::new(Board::create(SHAPE, &SECRET).unwrap());
    let lane = Lane::new(&board, 0).unwrap();
    for at_ns in [0, 999, 2_000, u64::MAX] {
        lane.due(at_ns);
    }
    lane.due(1_000);
    lane.due(1_999);
    assert_eq!((board.outside(0), board.read(0).due, board.read(9).due), (4, 1, 1));
}

#[test]
fn a_subject_whose_clock_is_another_counts_in_the_same_slots() {
    let ours = Board::create(SHAPE, &SECRET).unwrap();
    let theirs = Arc::new(Board::attach(&ours.path(), 1_000_000).unwrap());
    Lane::new(&theirs, 0).unwrap().due(1_001_500);
    assert_eq!(ours.read(5).due, 1);
}

#[test]
fn what_is_no_board_is_refused() {
    let none = std::env::temp_dir().join(format!("tailbeam-no-board-{}", std::process::id()));
    std::fs::write(&none, [0; 4_096]).unwrap();
    let refused = Board::attach(&none, 0).map(|_| ());
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidData);
    std::fs::write(&none, [0; 12]).unwrap();
    assert_eq!(Board::attach(&none, 0).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    std::fs::remove_file(&none).unwrap();
    for shape in
        [Shape { cores: 0, ..SHAPE }, Shape { slots: 0, ..SHAPE }, Shape { slot_ns: 0, ..SHAPE }]
    {
        assert!(Board::create(shape, &SECRET).is_err());
    }
    assert!(Board::create(Shape { slots: u32::MAX, ..SHAPE }, &SECRET).is_err(), "more than 4 GiB");
}

#[test]
fn buckets_are_narrow_and_in_order() {
    for at in 0..BUCKETS {
        let (from, to) = (bucket_from_ns(at), bucket_from_ns(at + 1));
        assert_eq!((bucket(from), bucket(to - 1)), (at, at));
        assert!((to - from) * 16 <= from, "{at}");
    }
    assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    assert_eq!(bucket_from_ns(BUCKETS), 1 << 36);
}

#[test]
fn quantiles_lie_at_most_a_bucket_above() {
    let board = Arc::new(Board::create(SHAPE, &SECRET).unwrap());
    let lane = Lane::new(&board, 0).unwrap();
    (1..=1_000_u64).for_each(|n| lane.took(1_000, n * 10_000));
    let cell = board.read(0);
    for (q, exact) in [(0.5, 5_000_000_u64), (0.99, 9_900_000), (1.0, 10_000_000)] {
        let found = cell.quantile_ns(q).unwrap();
        assert!(found >= exact && found <= exact + exact / 15, "{q}: {found}");
    }
    assert_eq!((Cell::default().quantile_ns(0.5), cell.over(bucket_from_ns(BUCKETS))), (None, 0));
}
