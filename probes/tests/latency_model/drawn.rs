//! A run of which one request in so many was drawn to have its stages noted.

use tailbeam_probes::analyse::latency::conservation;
use tailbeam_probes::analyse::latency::conserve::{Conservation, Given, Outcome, Verdict, What};
use tailbeam_probes::record::latency::{LatencyWindow, LegSum, ResponderSums, Sums};

use crate::book::Book;
use crate::world::{BOUND, Plan, US, World};

const EVERY: u32 = 4;

fn book() -> Book {
    let plan = Plan {
        seed: 3,
        requests: 40_000,
        every_ns: 12 * US,
        sample_ns: 20 * US,
        ..Plan::default()
    };
    World::book(&plan)
}

/// Leaves of each bucket the share that `kept` says, and counts the others apart.
fn thinned(book: &Book, kept: impl Fn(usize) -> f64) -> Vec<LatencyWindow> {
    let mut windows = book.windows.clone();
    // What is not a whole request goes on to the next bucket, as a draw would have it in the mean.
    let mut rest = 0.0;
    for window in &mut windows {
        let (mut asked, mut undrawn) = (Sums::default(), LegSum::default());
        window.disordered = 0;
        for bucket in &mut window.buckets {
            let all = bucket.sums;
            let wanted = all.count as f64 * kept(bucket.bucket.into()) + rest;
            let count = (wanted as u64).min(all.count);
            rest = wanted - count as f64;
            let part =
                |ns: u64| (u128::from(ns) * u128::from(count) / u128::from(all.count)) as u64;
            bucket.sums =
                Sums { count, system_ns: part(all.system_ns), stages: all.stages.map(part) };
            undrawn.count += all.count - count;
            undrawn.ns += all.system_ns - bucket.sums.system_ns;
            asked.merge(&bucket.sums);
        }
        window.buckets.retain(|bucket| bucket.sums.count > 0);
        window.responders =
            vec![ResponderSums { shard: window.shard, all: asked, late: Sums::default() }];
        (window.more.staged_every, window.more.undrawn) = (EVERY, undrawn);
    }
    windows
}

fn checked(windows: &[LatencyWindow], book: &Book) -> Conservation {
    conservation(&Given { windows, counted: Some(&book.counted), clock_ns: BOUND })
}

fn failed(windows: &[LatencyWindow], book: &Book) -> Vec<What> {
    checked(windows, book).failed().map(|check| check.what).collect()
}

#[test]
fn the_stages_of_some_stand_for_all_and_it_is_checked_that_they_do() {
    let book = book();
    let fair = |_: usize| 1.0 / f64::from(EVERY);
    let windows = thinned(&book, fair);
    let found = checked(&windows, &book);
    assert_eq!(found.verdict, Verdict::Pass, "{:#?}", found.failed().collect::<Vec<_>>());
    let made = |what| found.checks.iter().any(|c| c.what == what && c.outcome == Outcome::Pass);
    assert!(made(What::Drawn) && made(What::Fair));
    let all = checked(&book.windows, &book);
    assert!(all.checks.iter().all(|check| ![What::Drawn, What::Fair].contains(&check.what)));

    let mut lost = windows.clone();
    lost[1].more.undrawn.count -= 1;
    assert_eq!(failed(&lost, &book), [What::Requests], "one that nobody has counted");
    let mut lost = windows.clone();
    lost[1].more.undrawn.ns -= 1;
    assert_eq!(failed(&lost, &book), [What::Latency], "a ns of it");
    let mut other = windows;
    other.iter_mut().for_each(|window| window.more.staged_every = 5);
    assert!(failed(&other, &book).contains(&What::Drawn), "more were drawn than it says");
    other[0].more.staged_every = EVERY;
    assert!(failed(&other, &book).contains(&What::Drawn), "windows do not agree");
}

#[test]
fn a_draw_of_the_quick_is_not_fair() {
    let book = book();
    let counts = book.windows.iter().flat_map(|window| &window.buckets);
    let buckets: Vec<(u16, u64)> = counts.map(|of| (of.bucket, of.sums.count)).collect();
    let all: u64 = buckets.iter().map(|of| of.1).sum();
    let middle = buckets.iter().map(|of| f64::from(of.0) * of.1 as f64).sum::<f64>() / all as f64;
    // As many as there should be, but twice as often of the quicker ones.
    let quick: u64 = buckets.iter().filter(|of| f64::from(of.0) < middle).map(|of| of.1).sum();
    let share = quick as f64 / all as f64;
    let (twice, fewer) =
        (1.4 / f64::from(EVERY), (1.0 - 1.4 * share) / (1.0 - share) / f64::from(EVERY));
    let windows = thinned(&book, |bucket| if (bucket as f64) < middle { twice } else { fewer });
    let found = failed(&windows, &book);
    assert!(found.contains(&What::Fair) && !found.contains(&What::Drawn), "{found:?}");
}
