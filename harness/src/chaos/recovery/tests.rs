//! Services that are made up: the judge must find what was done to them, to a slot.

use super::super::board::{Fate, bucket};
use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// A slot with so many requests due and answered, of which `late` took 500 ms and the others 1 to 5 ms.
fn slot(due: u64, answered: u64, late: u64) -> Cell {
    let mut cell = Cell { due, ..Cell::default() };
    cell.fates[Fate::Ok as usize] = answered;
    cell.fates[Fate::Expired as usize] = due - answered;
    for n in 0..answered {
        let ns = if n < late { 500 * MS } else { MS + n % 5 * MS };
        cell.buckets[bucket(ns)] += 1;
    }
    cell
}

/// So many seconds as usual.
fn usual(seconds: usize) -> Axis {
    Axis { cells: vec![slot(300, 300, 0); seconds * 10], slot_ns: 100 * MS, expected: 300.0 }
}

fn span(injected: u64, reverted: u64, until: u64) -> Span {
    let ns = |tenths: u64| tenths * 100 * MS;
    Span { injected_ns: ns(injected), reverted_ns: ns(reverted), until_ns: ns(until) }
}

#[test]
fn a_service_that_nothing_happens_to_was_never_away() {
    let axis = usual(40);
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 400));
    assert_eq!(
        (found.onset_ns, found.from_injection, found.from_revert),
        (None, Took::Ns(0), Took::Ns(0))
    );
    assert_eq!((found.slots, found.available, found.not_asked), (50, 50, 0));
}

#[test]
fn an_outage_is_found_to_the_slot() {
    let mut axis = usual(60);
    // Away from 15.3 s to 22.1 s; the fault was taken back at 20 s.
    axis.cells[153..221].fill(slot(300, 0, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 600));
    assert_eq!(found.onset_ns, Some(300 * MS as i64));
    assert_eq!(
        (found.from_injection, found.from_revert),
        (Took::Ns(7_100 * MS), Took::Ns(2_100 * MS))
    );
    assert_eq!((found.slots, found.available), (71, 3));
    assert_eq!((found.due, found.answered), (71 * 300, 3 * 300));
}

/// Who looks on while slots become known finds what the judge finds in all of them, and reads each slot once.
#[test]
fn a_return_that_is_looked_for_is_that_of_the_judge() {
    let away = [0..0, 200..201, 200..263, 210..215, 200..640, 595..600, 590..591];
    for (number, away) in away.into_iter().enumerate() {
        for late in [0, 8, 300] {
            let mut axis = usual(66);
            axis.cells[away.clone()].fill(slot(300, 300 - late % 300, late));
            let baseline = Baseline::of(&axis, 0..100).unwrap();
            let mut seek = Seek::new(&axis, baseline, 200 * 100 * MS);
            let looks = (200..=640).step_by(7);
            let found = looks.clone().find_map(|until| seek.look(&axis, until * 100 * MS));
            let judged = match judge(&axis, &baseline, span(150, 200, 640)).from_revert {
                Took::Ns(ns) => Some(200 + (ns / (100 * MS)) as usize),
                Took::MoreThan(_) => None,
            };
            assert_eq!(found, judged, "case {number}, {late} late");
            let last = looks.last().unwrap();
            assert!(found.is_some() || seek.known() == last as usize - 200, "{}", seek.known());
        }
    }
}

#[test]
fn good_seconds_within_a_fault_are_no_return_from_it() {
    let mut axis = usual(60);
    // 10 s of a fault: a blip at its begin, six good seconds, away from 6.1 s on until 3 s after the revert.
    axis.cells[151..153].fill(slot(300, 0, 0));
    axis.cells[211..280].fill(slot(300, 0, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 250, 600));
    assert_eq!(
        (found.from_injection, found.from_revert),
        (Took::Ns(13_000 * MS), Took::Ns(3_000 * MS))
    );
    // One that is there at the revert was back when it came back for good, or for the first five seconds.
    axis.cells[211..280].fill(slot(300, 300, 0));
    let found = judge(&axis, &baseline, span(150, 250, 600));
    assert_eq!((found.from_injection, found.from_revert), (Took::Ns(300 * MS), Took::Ns(0)));
}

#[test]
fn slowness_alone_is_an_onset_and_no_outage() {
    let mut axis = usual(60);
    axis.cells[150..200].fill(slot(300, 300, 30));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 600));
    assert_eq!((found.onset_ns, found.from_revert), (Some(0), Took::Ns(0)));
    assert_eq!((found.slots, found.available), (50, 50));
    assert!(found.during_p99_ns > Some(400 * MS) && found.after_p99_ns < Some(10 * MS));
}

#[test]
fn who_is_dead_asks_nothing_and_is_away_all_the_same() {
    let mut axis = usual(60);
    axis.cells[150..190].fill(Cell::default());
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 151, 600));
    assert_eq!(
        (found.from_injection, found.from_revert),
        (Took::Ns(4_000 * MS), Took::Ns(3_900 * MS))
    );
    assert_eq!((found.available, found.not_asked), (0, 40 * 300));
}

#[test]
fn who_is_not_back_when_nobody_looks_any_more_took_longer() {
    let mut axis = usual(40);
    axis.cells[150..].fill(slot(300, 290, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 400));
    assert_eq!(found.from_revert, Took::MoreThan(20 * SECOND));
    // Four good seconds are no return.
    axis.cells[360..].fill(slot(300, 300, 0));
    assert_eq!(
        judge(&axis, &baseline, span(150, 200, 400)).from_revert,
        Took::MoreThan(20 * SECOND)
    );
}

#[test]
fn requests_that_were_open_at_the_injection_suffer_before_it() {
    let mut axis = usual(40);
    axis.cells[146..170].fill(slot(300, 200, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    assert_eq!(judge(&axis, &baseline, span(150, 160, 400)).onset_ns, Some(-400 * MS as i64));
}

#[test]
fn what_happens_after_the_return_is_no_work_of_the_fault() {
    let mut axis = usual(40);
    axis.cells[300..320].fill(slot(300, 0, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 400));
    assert_eq!((found.onset_ns, found.from_injection), (None, Took::Ns(0)));
}

#[test]
fn a_noisy_baseline_is_its_own_band() {
    let mut axis = usual(40);
    // One second in five has 3 % late ones.
    (0..8).for_each(|n| axis.cells[n * 50..n * 50 + 10].fill(slot(300, 300, 9)));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    assert!((baseline.over - 0.03).abs() < 0.001);
    assert_eq!(judge(&axis, &baseline, span(150, 200, 400)).from_revert, Took::Ns(0));
    axis.cells[150..300].fill(slot(300, 300, 15));
    assert_eq!(judge(&axis, &baseline, span(150, 200, 400)).from_revert, Took::Ns(10 * SECOND));
}

/// One bad second of the baseline is the band of one second, and no excuse for five of them in a row.
#[test]
fn a_service_that_stays_as_bad_as_the_worst_second_is_not_back() {
    let mut axis = usual(60);
    // One second in fifteen has 10 % late ones, or 1 % unanswered.
    for (bad, late) in [(slot(300, 300, 30), true), (slot(300, 297, 0), false)] {
        axis.cells.fill(slot(300, 300, 0));
        axis.cells[70..80].fill(bad.clone());
        axis.cells[200..300].fill(bad.clone());
        // Then one of five: back.
        axis.cells[320..330].fill(bad.clone());
        let baseline = Baseline::of(&axis, 0..150).unwrap();
        assert!(baseline.holds(&axis.sum(200..210), 3_000.0), "each second is in the band");
        // Mean 1/15 of the worst, standard deviation sqrt(1/15) of it, t(0.99, 14) 2.624: 0.067 + 2.624 x 0.258 x 0.516.
        let bound = 0.0667 + 2.624 * 0.2582 * (0.2_f64 + 1.0 / 15.0).sqrt();
        if late {
            assert!((baseline.return_over - 0.1 * bound).abs() < 1e-4, "{baseline:?}");
        } else {
            assert!((baseline.return_answered - (1.0 - 0.01 * bound)).abs() < 1e-5, "{baseline:?}");
        }
        let found = judge(&axis, &baseline, span(180, 200, 600));
        // 41.6 % of five seconds may be bad: 20 slots of 50, of which 10 come later.
        assert_eq!(found.from_revert, Took::Ns(9 * SECOND), "{late}");
        let found = judge(&axis, &baseline, span(180, 200, 300));
        assert_eq!(found.from_revert, Took::MoreThan(10 * SECOND));
        let outside = found.outside.unwrap();
        assert!(outside.text().contains("no five in a row together"), "{}", outside.text());
    }
}

#[test]
fn what_a_service_lacked_that_was_not_back_is_told() {
    let mut axis = usual(60);
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    axis.cells[200..220].fill(slot(300, 200, 0));
    axis.cells[240..270].fill(slot(300, 300, 20));
    axis.cells[280..290].fill(Cell::default());
    let outside = judge(&axis, &baseline, span(180, 200, 300)).outside.unwrap();
    // Of a second in which nothing was due nothing was answered either, and nothing known to be in time.
    let seen = (outside.seconds, outside.few_due, outside.unanswered, outside.late);
    assert_eq!(seen, (10, 1, 3, 4));
    assert_eq!(
        outside.text(),
        "of 10 seconds 1 had too few requests due, 3 too few answered, 4 too many late"
    );
    assert_eq!(judge(&axis, &baseline, span(180, 200, 600)).outside, None);
}

#[test]
fn cancelled_requests_count_for_nobody_and_refused_ones_against() {
    let mut cell = slot(300, 270, 0);
    cell.fates[Fate::Expired as usize] = 0;
    cell.fates[Fate::Cancelled as usize] = 30;
    assert!((answered(&cell) - 1.0).abs() < 1e-12);
    let mut axis = usual(40);
    for cell in &mut axis.cells[150..250] {
        *cell = slot(300, 30, 0);
        cell.fates.swap(Fate::Expired as usize, Fate::Refused as usize);
    }
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 400));
    assert_eq!(
        (found.from_revert, found.available),
        (Took::Ns(5 * SECOND), 0),
        "a log that refuses"
    );
}

#[test]
fn a_steady_small_loss_is_no_onset_and_no_return() {
    let mut axis = usual(60);
    // As bad as the worst slot of the baseline, in every slot.
    axis.cells[50] = slot(300, 298, 0);
    axis.cells[150..].fill(slot(300, 298, 0));
    let baseline = Baseline::of(&axis, 0..100).unwrap();
    let found = judge(&axis, &baseline, span(150, 200, 600));
    assert_eq!(found.onset_ns, None);
    assert_eq!(found.from_injection, Took::MoreThan(45 * SECOND));
}

#[test]
fn too_little_is_no_baseline() {
    assert_eq!(Baseline::of(&usual(1), 0..10), None);
    let few = Axis { cells: vec![slot(10, 10, 0); 100], slot_ns: 100 * MS, expected: 10.0 };
    assert_eq!(Baseline::of(&few, 0..90), None, "900 latencies");
    let mut unwell = usual(10);
    unwell.cells[40..50].fill(slot(300, 290, 0));
    assert_eq!(Baseline::of(&unwell, 0..100), None, "it answers 96.7 % in a second");
    let asked = Axis { expected: 400.0, ..usual(10) };
    assert_eq!(Baseline::of(&asked, 0..100), None, "three quarters of the load are due");
}

#[test]
fn five_clean_trials_leave_almost_a_half() {
    assert!((failure_bound(5) - 0.4507).abs() < 1e-4 && (failure_bound(59) - 0.0495).abs() < 1e-3);
    assert!((failure_bound(0) - 1.0).abs() < 1e-12);
}
