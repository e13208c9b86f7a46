//! Requests: sums of stages, counts, books.

use std::collections::{BTreeMap, BTreeSet};

use super::super::bands::{Band, Bands};
use super::check::{Check, Figures, Misfit, What};
use super::{Counted, Given, SHARE, disordered, misfit, shards};
use crate::record::latency::{LatencyWindow, Sums};

/// Share of disordered requests that is let pass: a tenth of the highest band, so that it cannot be theirs.
const DISORDERED: f64 = 1e-4;

pub(super) fn all(given: &Given<'_>, found: &Bands) -> Vec<Check> {
    let mut checks = vec![windows(given.windows), order(found), books(given.windows)];
    checks.extend(counted(given));
    checks.extend(drawn(given));
    let whole = Band { range_ns: (0, u64::MAX), sums: found.total, ..Band::default() };
    checks.push(sums(given, What::Band { band: None }, &whole));
    // In an empty band there is nothing to compare: its neighbours share its bucket.
    let held = found.bands.iter().enumerate().filter(|(_, band)| band.sums.count > 0);
    checks.extend(held.map(|(k, band)| sums(given, What::Band { band: Some(k) }, band)));
    checks.extend(misfit::stages(given, found));
    checks
}

/// Clock reads of two cores lie at both ends of what is compared.
const ENDS: f64 = 2.0;

fn sums(given: &Given<'_>, what: What, band: &Band) -> Check {
    if band.sums.count == 0 {
        return Check::unknown(what, "buckets", "no request was recorded", "record some");
    }
    let right = band.mean_system_ns();
    let figures = Figures {
        left: band.sums.mean_staged_ns(),
        right,
        allowed: SHARE * right + ENDS * given.clock_ns as f64,
        n: band.sums.count,
    };
    Check::both_sides(what, figures, || misfit::of_band(given.windows, band))
}

fn order(found: &Bands) -> Check {
    let all = found.total.count.saturating_add(found.disordered);
    if all == 0 {
        return Check::unknown(What::Order, "buckets", "no request was recorded", "record some");
    }
    let (left, allowed) = (found.disordered as f64, DISORDERED * all as f64);
    let figures = Figures { left, right: 0.0, allowed, n: all };
    Check::of(What::Order, figures, disordered(found) <= DISORDERED, || Misfit::Unclear)
}

/// Each core has each window from its first to the last of all.
fn windows(windows: &[LatencyWindow]) -> Check {
    let have: BTreeSet<(u16, u32)> = windows.iter().map(|w| (w.shard, w.window)).collect();
    let numbers = || windows.iter().map(|window| window.window);
    let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else {
        return Check::unknown(What::Windows, "windows", "none was recorded", "record some");
    };
    let shards = shards(windows);
    let missing =
        (first..=last).find(|window| shards.iter().any(|shard| !have.contains(&(*shard, *window))));
    let wanted = (u64::from(last - first) + 1) * shards.len() as u64;
    let (left, right) = (windows.len() as f64, wanted as f64);
    let figures = Figures { left, right, allowed: 0.0, n: wanted };
    // The same window twice from one core is as wrong as none.
    Check::both_sides(What::Windows, figures, || missing.map_or(Misfit::Itself, Misfit::Window))
}

/// In each window of each core the same requests by who asked and by who answered, to the last ns.
fn books(windows: &[LatencyWindow]) -> Check {
    let sum = |mut all: Sums, sums: &Sums| {
        all.merge(sums);
        all
    };
    let (mut left, mut right, mut wrong) = (0.0, 0.0, None);
    for window in windows {
        let asked = window.buckets.iter().map(|b| &b.sums).fold(Sums::default(), sum);
        let answered = window.responders.iter().map(|r| &r.all).fold(Sums::default(), sum);
        left += asked.count as f64;
        right += answered.count as f64;
        if asked != answered {
            wrong = wrong.or(Some(window.window));
        }
    }
    if windows.is_empty() {
        return Check::unknown(What::Books, "windows", "none was recorded", "record some");
    }
    let figures = Figures { left, right, allowed: 0.0, n: windows.len() as u64 };
    Check::of(What::Books, figures, wrong.is_none(), || {
        wrong.map_or(Misfit::Itself, Misfit::Window)
    })
}

/// Standard errors that a draw may be off: once in 1.7 million by chance.
const ERRORS: f64 = 5.0;

/// Whether those drawn are as many as they should be, and as late as all: then their means are those of all. Nothing
/// where each is drawn.
fn drawn(given: &Given<'_>) -> Vec<Check> {
    let every = given.windows.iter().map(LatencyWindow::stands_for).max().unwrap_or(1);
    if every == 1 {
        return Vec::new();
    }
    let (mut held, mut squares, mut others) = (Sums::default(), 0.0, Sums::default());
    let mut wrong = None;
    for window in given.windows {
        others.count += window.more.undrawn.count;
        others.system_ns = others.system_ns.saturating_add(window.more.undrawn.ns);
        // Those in no bucket were drawn too.
        held.count += window.disordered;
        for of in window.buckets.iter().map(|bucket| &bucket.sums) {
            held.merge(of);
            squares += of.mean_system_ns().powi(2) * of.count as f64;
        }
        if window.stands_for() != every {
            wrong = wrong.or(Some(window.window));
        }
    }
    let disordered = given.windows.iter().map(|window| window.disordered).sum::<u64>();
    let n = (held.count - disordered) as f64;
    let (all, chance) = ((held.count + others.count) as f64, 1.0 / every as f64);
    let count = Figures {
        left: held.count as f64,
        right: all * chance,
        allowed: ERRORS * (all * chance * (1.0 - chance)).sqrt() + 1.0,
        n: held.count + others.count,
    };
    let misfit = || wrong.map_or(Misfit::Itself, Misfit::Window);
    let fits = wrong.is_none() && count.residual().abs() <= count.allowed;
    let mean = held.system_ns as f64 / n.max(1.0);
    let of_all =
        (held.system_ns as f64 + others.system_ns as f64) / (n + others.count as f64).max(1.0);
    // By the means of the buckets, each of which is up to an eighth wide.
    let variance = (squares / n.max(1.0) - mean.powi(2)).max(0.0) + (mean / 8.0).powi(2);
    let allowed = ERRORS * (variance / n.max(1.0)).sqrt();
    let fair = Figures { left: mean, right: of_all, allowed, n: held.count };
    vec![
        Check::of(What::Drawn, count, fits, misfit),
        Check::both_sides(What::Fair, fair, || Misfit::Itself),
    ]
}

/// Against the recorder's own count and sum of each window.
fn counted(given: &Given<'_>) -> [Check; 2] {
    let Some(counted) = given.counted else {
        return [What::Requests, What::Latency].map(|what| {
            let cause = "the recorder's own counts are not known";
            Check::unknown(what, "histogram of system latency", cause, "read it with the windows")
        });
    };
    // Requests in the buckets, disordered ones and system latency by window. Those that were closed while
    // stages were off, and those not drawn, are counted apart, and added.
    let mut found: BTreeMap<u32, (u64, u64, u128)> = BTreeMap::new();
    for window in given.windows {
        let (requests, disordered, system_ns) = found.entry(window.window).or_default();
        *disordered += window.disordered;
        for apart in [&window.unstaged, &window.more.undrawn] {
            *requests += apart.count;
            *system_ns += u128::from(apart.ns);
        }
        for bucket in &window.buckets {
            *requests += bucket.sums.count;
            *system_ns += u128::from(bucket.sums.system_ns);
        }
    }
    let mut apart: BTreeMap<u32, &Counted> = counted.iter().map(|one| (one.window, one)).collect();
    let n = found.len() as u64;
    let (mut requests, mut latency) = (Figures::default(), Figures::default());
    (requests.n, latency.n) = (n, n);
    let (mut wrong_count, mut wrong_sum) = (None, None);
    for (window, (count, disordered, system_ns)) in found {
        let other = apart.remove(&window).copied().unwrap_or_default();
        requests.left += (count + disordered) as f64;
        requests.right += other.requests as f64;
        latency.left += system_ns as f64;
        latency.right += other.system_ns as f64;
        if count + disordered != other.requests {
            wrong_count = wrong_count.or(Some(window));
        }
        // Of disordered requests the latency is in the histogram and in no bucket.
        let fits = system_ns == other.system_ns
            || (disordered > 0 && system_ns < other.system_ns && count < other.requests);
        if !fits {
            wrong_sum = wrong_sum.or(Some(window));
        }
    }
    for (window, other) in apart {
        requests.right += other.requests as f64;
        latency.right += other.system_ns as f64;
        if other.requests > 0 {
            (wrong_count, wrong_sum) = (wrong_count.or(Some(window)), wrong_sum.or(Some(window)));
        }
    }
    let check = |what, figures, wrong: Option<u32>| {
        Check::of(what, figures, wrong.is_none(), || wrong.map_or(Misfit::Itself, Misfit::Window))
    };
    [check(What::Requests, requests, wrong_count), check(What::Latency, latency, wrong_sum)]
}
