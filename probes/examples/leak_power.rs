//! Power and false-alarm rates of the leak verdict in virtual soaks, with 95 % intervals (Clopper and
//! Pearson): `cargo run --release -p tailbeam-probes --example leak_power -- [SOAKS] [NAME] [SEED]`; a
//! name keeps the worlds that hold it ('' keeps all), and `coverage` looks only at the rate's interval, read once. Another seed
//! gives soaks that nothing was tuned on.
#![allow(dead_code, reason = "the tests use the rest")]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "simulated instants")]

#[path = "../tests/leak_worlds/soak.rs"]
mod soak;
#[path = "../tests/leak_worlds/world.rs"]
mod world;

use std::ops::Range;

use soak::{CLEAN, OWNER, SITE, built, soak};
use statrs::distribution::{Beta, ContinuousCDF as _};
use tailbeam_probes::analyse::leak::{LeakConfig, Soak, analyse, plan};
use world::{HOUR_NS, Life, MINUTE_NS, Who, World};

const R64: f64 = 65_536.0;

fn interval(k: usize, n: usize) -> String {
    let (a, b) = (k as f64, n as f64);
    let quantile = |x: f64, y: f64, p: f64| Beta::new(x, y).map_or(f64::NAN, |d| d.inverse_cdf(p));
    let low = if k == 0 { 0.0 } else { quantile(a, b - a + 1.0, 0.025) };
    let high = if k == n { 1.0 } else { quantile(a + 1.0, b - a, 0.975) };
    format!("{k:>4}/{n} {:>5.1} % [{:.1}, {:.1}]", a / b * 100.0, low * 100.0, high * 100.0)
}

fn main() -> std::io::Result<()> {
    let mut args = std::env::args().skip(1);
    let soaks: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    let wanted = args.next().unwrap_or_default();
    let seed: u64 = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let soaks = seed..seed + soaks;
    let out = &mut std::io::stdout().lock();
    if wanted == "coverage" {
        return coverage(out, soaks);
    }
    power(out, soaks.clone(), &wanted)?;
    clean(out, soaks.clone(), &wanted)?;
    at_the_floor(out, soaks, &wanted)?;
    plans(out)
}

/// A leak of 2 MB/h in one agent beside churn at the same site.
fn power(out: &mut impl std::io::Write, soaks: Range<u64>, wanted: &str) -> std::io::Result<()> {
    let config = LeakConfig::default();
    type Build = fn(&mut World);
    let worlds: [(&str, f64, Build); 5] = [
        ("20 MB steady churn, 64 KiB", R64, |w| w.churn(SITE, 20e6)),
        ("200 MB steady churn, 64 KiB", R64, |w| w.churn(SITE, 200e6)),
        ("20 MB Pareto(1.5), 64 KiB", R64, |w| w.churn_of(SITE, 20e6, Life::Pareto(1.5, 60.0))),
        ("200 MB Pareto(1.5), 64 KiB", R64, |w| w.churn_of(SITE, 200e6, Life::Pareto(1.5, 60.0))),
        ("20 MB steady churn, 512 KiB", 524_288.0, |w| w.churn(SITE, 20e6)),
    ];
    writeln!(out, "LEAK with the right site and agent, 2 MB/h, by the time of the first LEAK")?;
    for (name, mean, build) in worlds.into_iter().filter(|w| w.0.contains(wanted)) {
        let hours = if mean > R64 { 16 } else { 8 };
        let mut first = Vec::new();
        let (mut wrong, mut covered, mut widths) = (0, 0, 0.0);
        for seed in soaks.clone() {
            let world = built(
                |w| {
                    build(w);
                    w.leak(SITE, Who::One(OWNER), 2e6, 0..u64::MAX);
                },
                seed,
                mean,
                hours,
            );
            let seen = soak(&world, 5 * MINUTE_NS, &config);
            wrong += usize::from(seen.wrong);
            first.push(seen.right_ns.unwrap_or(u64::MAX));
            let report = analyse(&world.snapshot(4 * HOUR_NS), &config);
            let rate = report.site(SITE).and_then(|s| s.finding.rate).unwrap_or_default();
            covered += usize::from(rate.low <= 2e6 && 2e6 <= rate.high);
            widths += (rate.high - rate.low) / 2e6;
        }
        let n = first.len();
        let by = |minutes: u64| first.iter().filter(|&&t| t <= minutes * MINUTE_NS).count();
        writeln!(out, "  {name}")?;
        for minutes in
            [60, 90, 105, 120, 180, 240, 480, 960].into_iter().filter(|m| *m <= hours * 60)
        {
            writeln!(out, "    by {:>5.2} h {}", minutes as f64 / 60.0, interval(by(minutes), n))?;
        }
        writeln!(
            out,
            "    rate's interval at 4 h holds 2 MB/h {}, mean width {:.0} %; wrong site or agent {}",
            interval(covered, n),
            widths / n as f64 * 100.0,
            interval(wrong, n)
        )?;
    }
    Ok(())
}

/// Whether the rate's interval holds the planted rate, read once; seeds that nothing was tuned on.
fn coverage(out: &mut impl std::io::Write, soaks: Range<u64>) -> std::io::Result<()> {
    let config = LeakConfig::default();
    let count = usize::try_from(soaks.end - soaks.start).unwrap_or(0);
    for (planted, hours) in [(2e6, 2), (2e6, 4), (2e6, 8), (8e6, 4)] {
        let (mut below, mut above, mut late, mut sum, mut widths) = (0, 0, 0, 0.0, 0.0);
        for seed in soaks.clone() {
            let build = |w: &mut World| {
                w.churn(SITE, 20e6);
                w.leak(SITE, Who::One(OWNER), planted, 0..u64::MAX);
            };
            let world = built(build, 50_000 + seed, R64, hours);
            let report = analyse(&world.snapshot(hours * HOUR_NS), &config);
            let finding = report.site(SITE).map(|s| s.finding.clone());
            let rate = finding.as_ref().and_then(|f| f.rate).unwrap_or_default();
            below += usize::from(rate.high < planted);
            above += usize::from(rate.low > planted);
            let since = finding.and_then(|f| f.since);
            late += usize::from(since.is_some_and(|onset| !onset.from_start));
            sum += rate.estimate / planted;
            widths += (rate.high - rate.low) / planted;
        }
        writeln!(
            out,
            "{:>3} MB/h at {hours} h: holds {}, below it {below}, above {above}; mean {:.3} of it, width {:.0} %, a late start in {late}",
            planted / 1e6,
            interval(count - below - above, count),
            sum / count as f64,
            widths / count as f64 * 100.0
        )?;
        out.flush()?;
    }
    Ok(())
}

/// Clean soaks, read every five minutes.
fn clean(out: &mut impl std::io::Write, soaks: Range<u64>, wanted: &str) -> std::io::Result<()> {
    writeln!(out, "false LEAK in clean soaks, read every 5 min to the end")?;
    for named in CLEAN.into_iter().filter(|w| w.name.contains(wanted)) {
        let mut alarms = 0;
        let mut example = String::new();
        let mut last = std::collections::BTreeMap::<String, usize>::new();
        for seed in soaks.clone() {
            let world = built(named.build, 10_000 + seed, R64, named.hours);
            let seen = soak(&world, 5 * MINUTE_NS, &LeakConfig::default());
            if let Some(at) = seen.leak_ns {
                alarms += 1;
                example.push_str(&format!(" {:.2}", at as f64 / HOUR_NS as f64));
            }
            if let Some((_, verdict, reason)) = seen.readings.last() {
                let reason = reason.split(['{', '(']).take(2).collect::<Vec<_>>().join(" ");
                *last.entry(format!("{verdict:?} {reason}")).or_default() += 1;
            }
        }
        writeln!(
            out,
            "  {:<40} {} {last:?}{example}",
            named.name,
            interval(alarms, usize::try_from(soaks.end - soaks.start).unwrap_or(0))
        )?;
        out.flush()?;
    }
    Ok(())
}

/// A leak of exactly the floor, read every five minutes: LEAK is a false one, at most 5 % by design.
fn at_the_floor(
    out: &mut impl std::io::Write,
    soaks: Range<u64>,
    wanted: &str,
) -> std::io::Result<()> {
    if !"exactly the floor".contains(wanted) {
        return Ok(());
    }
    let called = soaks.clone().filter(|seed| {
        let leak = |w: &mut World| w.leak(SITE, Who::One(OWNER), 1e6, 0..u64::MAX);
        let world = built(leak, 20_000 + seed, R64, 16);
        soak(&world, 5 * MINUTE_NS, &LeakConfig::default()).leak_ns.is_some()
    });
    let called = interval(called.count(), usize::try_from(soaks.end - soaks.start).unwrap_or(0));
    writeln!(out, "a leak of exactly the floor, read every 5 min for 16 h: LEAK in {called}")
}

/// What `plan` says.
fn plans(out: &mut impl std::io::Write) -> std::io::Result<()> {
    writeln!(
        out,
        "plan: hours for LEAK with 80 % and 95 %, 1000 sites, beside 20 MB that live 60 s"
    )?;
    for mean in [32_768.0, 65_536.0, 131_072.0, 524_288.0] {
        for rate in [1.5e6, 2e6, 4e6, 20e6] {
            let found = plan(&Soak::of(rate, mean), &LeakConfig::default());
            let hours = |h: Option<f64>| h.map_or("never".to_owned(), |h| format!("{h:.1}"));
            let (eighty, most) = (hours(found.hours_80), hours(found.hours_95));
            let (kib, megabytes) = (mean / 1024.0, rate / 1e6);
            writeln!(out, "  {kib:>4} KiB {megabytes:>4} MB/h: {eighty:>6} {most:>6}")?;
        }
    }
    Ok(())
}
