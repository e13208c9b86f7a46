//! The list: verdict first, then each leak with where, who, how old and how fast, then what is not a leak
//! and what could not have been seen.

use std::io::{self, Write};

use tailbeam_probes::Unavailable;
use tailbeam_probes::analyse::leak::{
    LeakReport, OwnerReport, Reason, Retention, SiteReport, Verdict,
};
use tailbeam_probes::stats::Judgement;

use super::rows::{By, rows};
use super::waits::waits;
use super::words::{
    freed, growth, hours, ns, percent, plural, rate, reason, signed, since, sparkline, who, whole,
};
use super::{Leaks, Page, Place, places, word};
use crate::render::export::owner_name;
use crate::render::units::{bytes, count, span};

/// Writes the list.
///
/// # Errors
/// Those of `out`.
pub fn list(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    head(leaks, page, out)?;
    let mut number = 0;
    for site in &leaks.report.sites {
        if matches!(worst(site), Verdict::Leak | Verdict::Suspect) {
            number += 1;
            block(leaks, page, (number, site), out)?;
        }
    }
    waits(leaks, page, out)?;
    largest(leaks, page, out)?;
    undecided(leaks, page, out)?;
    not_leaks(leaks, page, out)?;
    blind(leaks, out)
}

/// The verdict on a site, or on the agent whose part of it is worse.
fn worst(site: &SiteReport) -> Verdict {
    let agents = site.owners.iter().map(|own| own.finding.verdict);
    agents.min().map_or(site.finding.verdict, |worst| worst.min(site.finding.verdict))
}

/// Where the most bytes live, when no leak has said it.
fn largest(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    if leaks.report.sites.iter().any(|site| worst(site) == Verdict::Leak) {
        return Ok(());
    }
    let rows = rows(leaks, By::Site);
    let live: Vec<_> = rows.iter().filter(|row| row.live.bytes > 0).take(5).collect();
    if live.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nMost live    of {} (all: --by site)", bytes(total(leaks)))?;
    for row in live {
        let size = bytes(row.live.bytes as f64);
        let objects = count(row.live.objects.unsigned_abs());
        let text = format!("   {size:>9} in {objects:<9} {:<46} {}", row.name, row.line);
        writeln!(out, "{}", page.fit(text.trim_end()))?;
    }
    Ok(())
}

fn total(leaks: &Leaks<'_>) -> f64 {
    leaks.profile.live_total().bytes.max(0) as f64
}

fn head(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let (snapshot, report) = (leaks.snapshot, leaks.report);
    let command = if snapshot.command.is_empty() { "?" } else { &snapshot.command };
    let facts = format!(
        "Leak attribution  run {}  {command}  {}  {}",
        leaks.run,
        ns(report.at_ns),
        leaks.sampling()
    );
    writeln!(out, "{}", page.fit(&facts))?;
    let counts: Vec<String> =
        [Verdict::Leak, Verdict::Suspect, Verdict::Inconclusive, Verdict::Clean]
            .into_iter()
            .filter_map(|verdict| {
                let n = report.count(verdict);
                (n > 0).then(|| format!("{} {}", count(n as u64), word(verdict)))
            })
            .collect();
    let sites =
        if counts.is_empty() { "no site was judged".to_owned() } else { counts.join(" · ") };
    writeln!(out, "\nVerdict  {}  ({sites}; {})", word(report.verdict), explained(report))?;
    let gate = match &report.gate.judgement {
        Judgement::Pass => "PASS",
        Judgement::Fail => "FAIL",
        Judgement::Undecided { .. } => "INCONCLUSIVE",
    };
    writeln!(
        out,
        "Gate     {gate}  growth <= {}/h: {}",
        plan_rate(report.gate.limit),
        report.gate.cause
    )?;
    for caveat in leaks.caveats() {
        writeln!(out, "  ! {caveat}")?;
    }
    Ok(())
}

fn explained(report: &LeakReport) -> String {
    let totals = &report.totals;
    match (&totals.live, totals.explained_share) {
        (Ok(live), Some(share)) => {
            format!("LEAK and SUSPECT explain {} of {}", percent(share), rate(live))
        }
        (Ok(live), None) => format!("live bytes: {}", rate(live)),
        (Err(why), _) => format!("growth of live bytes: {}", unavailable(why)),
    }
}

pub(super) fn unavailable(why: &Unavailable) -> String {
    format!("unknown ({}; {})", why.cause, why.remedy)
}

/// One leak or suspect.
fn block(
    leaks: &Leaks<'_>,
    page: Page,
    (number, site): (usize, &SiteReport),
    out: &mut dyn Write,
) -> io::Result<()> {
    let finding = &site.finding;
    let stack = leaks.stack_of(site.site).map(|index| &leaks.profile.stacks[index]);
    let calls = stack.map_or_else(Vec::new, |stack| places(leaks.profile, stack));
    let name = calls.first().map_or("(stack unknown)", |place| &*place.name);
    let speed = finding.rate.as_ref().map_or_else(
        || "rate unknown (too few old objects; run longer)".to_owned(),
        |r| format!("{} 95 % CI", rate(r)),
    );
    let title = format!("\n#{number} {}  {name}  {speed}", word(worst(site)));
    writeln!(out, "{}", page.fit(&title))?;
    let mut line = |key: &str, text: &str| writeln!(out, "   {key:<9} {text}");
    if let Some(onset) = &finding.since {
        line("since", &since(onset, leaks.snapshot))?;
    }
    if let Some(r) = &finding.per_million {
        line(
            "per 1 M",
            &format!(
                "{} per million operations [{}, {}]",
                signed(r.estimate),
                signed(r.low),
                signed(r.high)
            ),
        )?;
    }
    if let Some(why) = &finding.reason {
        line("but", &reason(why))?;
    }
    if worst(site) != finding.verdict {
        let own = site.owners.iter().filter(|own| own.finding.verdict == worst(site));
        let agents: Vec<String> = own.take(3).map(|own| agent(leaks, own)).collect();
        line(
            "agent",
            &format!("{}; the site as a whole is {}", agents.join(", "), word(finding.verdict)),
        )?;
    }
    if let Some(how) = &finding.growth {
        line("growth", &growth(how))?;
    }
    objects(leaks.snapshot.sampler.exact, site, &mut line)?;
    stack_lines(&calls, page, &mut line)?;
    line("who", &who(site, leaks.snapshot))?;
    if let Some(orphans) = &site.orphans {
        line(
            "orphans",
            &format!(
                "{} of {} that ended, the first {} ago: {} sampled objects",
                bytes(orphans.bytes),
                plural(u64::from(orphans.owners), "agent"),
                ns(orphans.longest_ns),
                count(orphans.sampled)
            ),
        )?;
    }
    line("freed by", &freed(finding))?;
    line("impact", &impact(leaks, site))?;
    if let Some(h) = finding.hours_needed {
        line("needs", &format!("about {} more to decide", hours(h)))?;
    }
    line(
        "next",
        &format!(
            "tailbeam export {} --to pprof -o heap.pb.gz && go tool pprof -top -sample_index=inuse_space -tagfocus=verdict={} heap.pb.gz",
            leaks.run,
            word(worst(site))
        ),
    )
}

fn stack_lines(calls: &[Place], page: Page, line: &mut Line<'_>) -> io::Result<()> {
    for (index, place) in calls.iter().take(page.calls).enumerate() {
        let arrow = if index == 0 { "" } else { "└ " };
        let key = if index == 0 { "where" } else { "" };
        let call = format!("{arrow}{:<46} {}", place.name, place.line);
        let room = Page { width: page.width.map(|width| width.saturating_sub(13)), ..page };
        line(key, &room.fit(call.trim_end()))?;
    }
    if calls.len() > page.calls {
        line(
            "",
            &format!(
                "  {} more (--calls {})",
                plural((calls.len() - page.calls) as u64, "call"),
                calls.len()
            ),
        )?;
    }
    Ok(())
}

/// An agent's part of a site and how fast it grows.
fn agent(leaks: &Leaks<'_>, own: &OwnerReport) -> String {
    let speed = own.finding.rate.as_ref().map_or_else(|| "rate unknown".to_owned(), rate);
    format!("{} {speed}", owner_name(leaks.snapshot, own.owner))
}

/// Writes a line under a key.
type Line<'a> = dyn FnMut(&str, &str) -> io::Result<()> + 'a;

fn objects(exact: bool, site: &SiteReport, line: &mut Line<'_>) -> io::Result<()> {
    let alive = &site.survivors;
    let survival =
        alive.survival.map_or_else(String::new, |s| format!(" (survival {})", percent(s)));
    let figures = match exact {
        true => format!(
            "{} live, {}, of {} born{survival}",
            count(alive.sampled),
            bytes(alive.bytes.estimate),
            count(alive.born)
        ),
        false => format!(
            "about {} [{}, {}] live, {} [{}, {}]; {} sampled of {} sampled births{survival}",
            whole(alive.objects.estimate),
            whole(alive.objects.low),
            whole(alive.objects.high),
            bytes(alive.bytes.estimate),
            bytes(alive.bytes.low),
            bytes(alive.bytes.high),
            count(alive.sampled),
            count(alive.born)
        ),
    };
    line("objects", &figures)?;
    let ages: Vec<f64> = alive.ages.iter().map(|age| age.sampled as f64).collect();
    if !ages.is_empty() {
        let oldest = ns(alive.oldest_ns);
        line("age", &format!("{}  young to old, oldest {oldest}", sparkline(&ages)))?;
    }
    let sizes: Vec<String> = alive
        .sizes
        .iter()
        .map(|size| {
            let others = || "others".to_owned();
            let name = size.size.map_or_else(others, |size| format!("{} B", count(size)));
            format!("{name} x {}", whole(size.objects))
        })
        .collect();
    if sizes.is_empty() { Ok(()) } else { line("size", &sizes.join(", ")) }
}

fn impact(leaks: &Leaks<'_>, site: &SiteReport) -> String {
    let Some(available) = leaks.available_bytes else {
        return "unknown (this host's available memory cannot be read)".to_owned();
    };
    let Some(left) = site.finding.hours_until(available as f64) else {
        return "unknown (no rate yet; run longer)".to_owned();
    };
    format!(
        "{} that this host has available would be used up in {} [{}, {}]",
        bytes(available as f64),
        hours(left.estimate),
        hours(left.low),
        hours(left.high)
    )
}

fn undecided(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let all = leaks.report.sites.iter();
    let all = all.filter(|site| worst(site) == Verdict::Inconclusive);
    let (sites, empty): (Vec<&SiteReport>, Vec<_>) =
        all.partition(|site| site.survivors.sampled > 0);
    if sites.is_empty() && empty.is_empty() {
        return Ok(());
    }
    let nothing = match empty.len() {
        0 => String::new(),
        n => format!(", and {} that hold nothing now", plural(n as u64, "site")),
    };
    writeln!(out, "\nUndecided    {}{nothing}", plural(sites.len() as u64, "site"))?;
    for site in sites.iter().take(page.top) {
        let stack = leaks.stack_of(site.site).map(|index| &leaks.profile.stacks[index]);
        let calls = stack.map_or_else(Vec::new, |stack| places(leaks.profile, stack));
        let name = calls.first().map_or("(stack unknown)", |place| &*place.name);
        let why = site.finding.reason.as_ref().map_or_else(|| "too few samples".to_owned(), reason);
        let needs = site
            .finding
            .hours_needed
            .map_or_else(String::new, |h| format!("; about {} more", hours(h)));
        let speed = site.finding.rate.as_ref().map_or_else(|| "rate unknown".to_owned(), rate);
        writeln!(out, "{}", page.fit(&format!("   {name}  {speed}: {why}{needs}")))?;
    }
    if sites.len() > page.top {
        writeln!(
            out,
            "   {} more (--top {})",
            count((sites.len() - page.top) as u64),
            sites.len()
        )?;
    }
    Ok(())
}

fn retention(found: &Result<Retention, Unavailable>) -> String {
    match found {
        Ok(found) => {
            let grows = if found.grows { ", GROWS" } else { "" };
            let speed = found.rate.as_ref().map_or_else(String::new, |r| format!(", {}", rate(r)));
            format!("{}{speed}{grows}", bytes(found.bytes.max(0.0)))
        }
        Err(why) => unavailable(why),
    }
}

fn not_leaks(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let totals = &leaks.report.totals;
    writeln!(
        out,
        "\nNot leaks    held by the allocator and not live: {}",
        retention(&totals.retained)
    )?;
    type Test = fn(&Reason) -> bool;
    let kinds: [(&str, Test); 5] = [
        ("fill up and stop (warm-up)", |r| matches!(r, Reason::WarmUp)),
        ("turn over (caches, queues)", |r| matches!(r, Reason::Turnover | Reason::TailDies)),
        ("one per agent", |r| matches!(r, Reason::PerOwner { .. })),
        ("grow with the load", |r| matches!(r, Reason::Load)),
        ("stopped growing", |r| matches!(r, Reason::Stopped { .. })),
    ];
    let parts: Vec<String> = kinds
        .iter()
        .filter_map(|(name, test)| {
            let sites = leaks.report.sites.iter();
            let n = sites.filter(|s| s.finding.reason.as_ref().is_some_and(test)).count();
            (n > 0).then(|| format!("{} {name}", plural(n as u64, "site")))
        })
        .collect();
    if !parts.is_empty() {
        writeln!(out, "{}", page.fit(&format!("             {}", parts.join(" · "))))?;
    }
    Ok(())
}

fn blind(leaks: &Leaks<'_>, out: &mut dyn Write) -> io::Result<()> {
    let (totals, blind) = (&leaks.report.totals, &leaks.report.blind);
    let mut lines = vec![format!(
        "outside the allocator (stacks, code, C libraries, mapped files): {}",
        retention(&totals.foreign)
    )];
    lines.push(match blind.rate_80 {
        Some(rate) => format!(
            "a leak of {}/h would have been called by now in 8 of 10 runs; one at the limit of {}/h in {}",
            bytes(rate),
            plan_rate(leaks.report.gate.limit),
            percent(blind.power_at_limit)
        ),
        None => format!(
            "no rate has 8 chances in 10 to be called within {}; `tailbeam leaks --plan '{}/h'` says how long a soak must be",
            span(leaks.report.at_ns as f64 / 1e9),
            plan_rate(leaks.report.gate.limit)
        ),
    });
    if blind.warm_up_bytes > 0.0 {
        lines.push(format!("born in the warm-up and not judged: {}", bytes(blind.warm_up_bytes)));
    }
    if blind.other_bytes > 0.0 {
        lines.push(format!("at stacks without room in the table: {}", bytes(blind.other_bytes)));
    }
    if let Some(unexplained) = &totals.unexplained {
        lines.push(format!("growth that no leak explains: {}", rate(unexplained)));
    }
    for (index, line) in lines.iter().enumerate() {
        let key = if index == 0 { "\nBlind spots " } else { "            " };
        writeln!(out, "{key} {line}")?;
    }
    Ok(())
}

/// A rate as `--plan` takes it.
fn plan_rate(limit: f64) -> String {
    format!("{} MB", limit / 1e6)
}
