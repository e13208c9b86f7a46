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

/// A slot is looked at once; what is answered afterwards may be the one too many that is late.
#[test]
fn a_return_that_late_answers_undo_is_none() {
    let mut axis = usual(60);
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    // 8 are late, and 10 open: 99.93 % are answered, 0.05 % are far away.
    axis.cells[200..204].fill(slot(300, 300, 2));
    (204..250).step_by(5).for_each(|at| axis.cells[at] = slot(300, 299, 0));
    let mut seek = Seek::new(&axis, baseline, 200 * 100 * MS);
    assert_eq!(seek.look(&axis, 250 * 100 * MS), Some(200));
    assert!(is_back(&axis, &baseline, span(150, 200, 250)));
    // Those come too: 18 of 15,000, and 15 may.
    (204..250).step_by(5).for_each(|at| axis.cells[at] = slot(300, 300, 1));
    assert_eq!(seek.look(&axis, 250 * 100 * MS), Some(200), "it has read them");
    assert!(!is_back(&axis, &baseline, span(150, 200, 250)));
    assert!(is_back(&axis, &baseline, span(150, 200, 260)), "from the third slot on");
}

/// Where few are due a second may have 10 % fewer by chance.
#[test]
fn few_requests_are_no_absence() {
    let few = |due: u64| slot(due, due, 0);
    let mut axis = Axis { cells: vec![few(50); 600], slot_ns: 100 * MS, expected: 50.0 };
    // 450 of 500 in a second: 2.2 standard deviations.
    axis.cells[70..80].fill(few(45));
    axis.cells[210..220].fill(few(45));
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    assert_eq!(judge(&axis, &baseline, span(150, 200, 600)).from_revert, Took::Ns(0));
    // 400: who asks was not there.
    axis.cells[210..220].fill(few(40));
    assert_ne!(judge(&axis, &baseline, span(150, 200, 600)).from_revert, Took::Ns(0));
    axis.cells[70..80].fill(few(40));
    assert_eq!(Baseline::of(&axis, 0..150), None);
    // Everywhere 6 % fewer than the plan has.
    axis.cells.fill(few(47));
    assert_eq!(Baseline::of(&axis, 0..150), None);
}

/// What is noisy before a fault bites is no begin of it.
#[test]
fn an_onset_is_where_the_excess_begins() {
    let mut axis = usual(60);
    // Noise: every third slot has 1.3 % late ones.
    (0..600).step_by(3).for_each(|at| axis.cells[at] = slot(300, 300, 4));
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    // Injected at 18.0 s, 20 % late from 20.0 s on: a slot says so.
    axis.cells[200..230].fill(slot(300, 300, 60));
    assert_eq!(judge(&axis, &baseline, span(180, 230, 600)).onset_ns, Some(2 * SECOND as i64));
    // The same with a slot of the baseline as bad as that, and 3 %: a second says so, to its noise.
    axis.cells[50] = slot(300, 300, 60);
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    axis.cells[200..230].fill(slot(300, 300, 9));
    let onset = judge(&axis, &baseline, span(180, 230, 600)).onset_ns.unwrap();
    assert!((1_900 * MS as i64..=2_000 * MS as i64).contains(&onset), "{onset}");
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

/// A second of the return may be as bad as the worst of the baseline, all five together may not.
#[test]
fn a_noisy_second_of_the_baseline_excuses_one_second_and_not_five() {
    let mut axis = usual(60);
    // One second in fifteen has 4 % late ones.
    axis.cells[70..80].fill(slot(300, 300, 12));
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    assert!((baseline.over - 0.04).abs() < 0.001);
    assert!((baseline.worst[1] - 0.04).abs() < 0.001 && (baseline.worst[2] - 0.008).abs() < 1e-3);
    // Since the revert every second is in the band, at 1.7 %: not back while that lasts.
    axis.cells[200..300].fill(slot(300, 300, 5));
    assert!(baseline.holds(&axis.sum(200..210), 3_000.0), "each second is in the band");
    // Of 50 slots with 300 each 150 may be late: those of 30 slots.
    assert_eq!(judge(&axis, &baseline, span(150, 200, 600)).from_revert, Took::Ns(7 * SECOND));
    let found = judge(&axis, &baseline, span(150, 200, 300));
    assert_eq!(found.from_revert, Took::MoreThan(10 * SECOND));
    let outside = found.outside.unwrap();
    assert!(outside.text().contains("no five in a row together"), "{}", outside.text());
}

/// One unanswered second of the baseline is no excuse for five.
#[test]
fn a_service_that_stays_as_unanswered_as_the_worst_second_is_not_back() {
    let mut axis = usual(60);
    // 0.67 % of a second in sixty: 0.011 % of all, so 99.9 % are asked of a return.
    axis.cells[70..80].fill(slot(300, 298, 0));
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    assert!((baseline.return_answered - 0.999).abs() < 1e-12);
    axis.cells[200..300].fill(slot(300, 298, 0));
    assert!(baseline.holds(&axis.sum(200..210), 3_000.0));
    // 15 of 15,000 may be: seven slots of two.
    assert_eq!(judge(&axis, &baseline, span(150, 200, 600)).from_revert, Took::Ns(9_300 * MS));
}

/// Few late ones are no return if they are later than anything of the baseline.
#[test]
fn how_late_is_bounded_too() {
    let mut axis = usual(60);
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    // The longest is 5 ms, whose bucket ends at 5.24: 1.2 times that.
    assert!((6 * MS..7 * MS).contains(&baseline.far_ns), "{baseline:?}");
    // 0.67 % at 500 ms: below 1 %, and above one in a thousand.
    axis.cells[200..300].fill(slot(300, 300, 2));
    assert!(baseline.holds(&axis.sum(200..210), 3_000.0));
    assert_eq!(judge(&axis, &baseline, span(150, 200, 600)).from_revert, Took::Ns(9_300 * MS));
}

/// The limit is 1.2 times the P99 as the buckets show it, and no end of a bucket behind one.
#[test]
fn the_limit_is_as_near_as_the_buckets_are() {
    for p99_ms in [3.0, 3.3, 3.54, 4.0, 4.2, 4.195, 7.77, 8.389] {
        let mut axis = usual(20);
        for cell in &mut axis.cells {
            // 100 of 300 lie evenly below and at what is the P99.
            cell.buckets.fill(0);
            cell.buckets[bucket((p99_ms * 1e6) as u64)] = 100;
            cell.buckets[bucket(MS)] = 200;
        }
        let baseline = Baseline::of(&axis, 0..150).unwrap();
        let margin = baseline.limit_ns as f64 / (p99_ms * 1e6);
        assert!((1.09..1.31).contains(&margin), "{p99_ms} ms: {margin}");
    }
}

#[test]
fn what_the_noise_of_a_host_adds_to_a_return_is_told() {
    let mut axis = usual(60);
    assert_eq!(Baseline::of(&axis, 0..150).unwrap().noise_ns, 0);
    // A second of 4 % at 3.0 and at 9.0 s: no five seconds have both.
    axis.cells[30..40].fill(slot(300, 300, 12));
    axis.cells[90..100].fill(slot(300, 300, 12));
    assert_eq!(Baseline::of(&axis, 0..150).unwrap().noise_ns, 0);
    // Both within five seconds: more than 150 late ones of 15,000 have those that begin from 1.3 to 3.7 s.
    axis.cells[90..100].fill(slot(300, 300, 0));
    axis.cells[60..70].fill(slot(300, 300, 12));
    assert_eq!(Baseline::of(&axis, 0..300).unwrap().noise_ns, 2_500 * MS);
}

/// A state that is never the same for five seconds is none to come back to.
#[test]
fn a_baseline_without_a_return_is_none() {
    let mut axis = usual(60);
    // The second that is bad is in each five of the nine: 0.07 % are not answered in all, 0.13 % in any five.
    axis.cells[40..50].fill(slot(300, 298, 0));
    assert_eq!(Baseline::of(&axis, 0..90), None);
    assert!(Baseline::of(&axis, 0..100).is_some(), "the last five are free of it");
}

/// One bad slot of the baseline hides a short fault, and none that lasts.
#[test]
fn a_noisy_slot_hides_no_fault_that_lasts() {
    let mut axis = usual(60);
    axis.cells[50] = slot(300, 300, 60);
    let baseline = Baseline::of(&axis, 0..150).unwrap();
    assert!((baseline.worst[0] - 0.2).abs() < 1e-3 && (baseline.worst[1] - 0.02).abs() < 1e-3);
    // 10 % late from 18.2 s on: no slot is worse than the worst, every second is.
    axis.cells[182..230].fill(slot(300, 300, 30));
    let found = judge(&axis, &baseline, span(180, 230, 600));
    assert_eq!(found.onset_ns, Some(200 * MS as i64));
    // Two of its slots may be in a second of the return.
    assert_eq!(found.from_injection, Took::Ns(4_800 * MS));
    // 1.7 %: worse than any five seconds.
    axis.cells[182..230].fill(slot(300, 300, 5));
    let found = judge(&axis, &baseline, span(180, 232, 600));
    assert_eq!(found.onset_ns, Some(200 * MS as i64), "{baseline:?}");
    // A noisy slot alone is no onset.
    axis.cells[182..230].fill(slot(300, 300, 0));
    axis.cells[190] = slot(300, 300, 60);
    assert_eq!(judge(&axis, &baseline, span(180, 232, 600)).onset_ns, None);
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
