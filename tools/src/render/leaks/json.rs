//! The leak report as one JSON document; its schema is published beside it. A figure that was not
//! measured is an object `{unknown, remedy}`, never a zero.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};
use tailbeam_harness::evidence::rfc3339;
use tailbeam_probes::Unavailable;
use tailbeam_probes::analyse::leak::{
    Finding, Growth, Interval, OwnerReport, Reason, Retention, SiteReport, Spread, Totals,
};
use tailbeam_probes::analyse::profile::{Amount, HeapProfile, Stack};
use tailbeam_probes::analyse::symbols::Resolved;
use tailbeam_probes::stats::Judgement;

use super::rows::{By, Row, rows};
use super::table::changes;
use super::words;
use super::{Leaks, places, waits, word};
use crate::render::export::owner_name;
use crate::render::json::document_of;

/// JSON Schema of the document.
pub const LEAKS_SCHEMA: &str = include_str!("../../../schemas/leaks.schema.json");
/// Name of the document.
pub const SCHEMA: &str = "tailbeam.leaks";
/// Version of the document.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize)]
struct Data {
    run: Value,
    sampling: Value,
    caveats: Vec<String>,
    verdict: &'static str,
    gate: Value,
    totals: Value,
    blind: Value,
    waits: Value,
    modules: Vec<Value>,
    sites: Vec<Value>,
    live: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Value>,
}

/// Writes the document: the report, the live heap by `by`, every object where they are asked for, and the
/// difference where there is a base.
///
/// # Errors
/// Those of `out`.
pub fn write(leaks: &Leaks<'_>, by: By, objects: bool, out: &mut dyn Write) -> io::Result<()> {
    document_of((SCHEMA, SCHEMA_VERSION), &data(leaks, by, objects), out)
}

/// Sites that a report shows.
const SITES_MAX: usize = 8;
/// Rows of what lives that it shows.
const ROWS_MAX: usize = 20;
/// Calls of a stack that it shows.
const CALLS_MAX: usize = 24;
/// Agents of a site that it shows.
const AGENTS_MAX: usize = 20;

/// The document for a report of the whole run: the worst sites, the largest rows, the innermost calls, and
/// how much of each was left out.
#[must_use]
pub fn summary(leaks: &Leaks<'_>) -> Value {
    let mut value = serde_json::to_value(data(leaks, By::Site, false)).unwrap_or_default();
    let sites = cut(&mut value, "sites", SITES_MAX);
    let rows = cut(&mut value["live"], "rows", ROWS_MAX);
    value["live"]["rows_left_out"] = json!(rows);
    value["sites_left_out"] = json!(sites);
    for site in value["sites"].as_array_mut().into_iter().flatten() {
        let (calls, agents) = (cut(site, "stack", CALLS_MAX), cut(site, "agents", AGENTS_MAX));
        site["calls_left_out"] = json!(calls);
        for call in site["stack"].as_array_mut().into_iter().flatten() {
            // A page shows people's names of things.
            if let Some(call) = call.as_object_mut() {
                call.remove("mangled");
                call.remove("module");
            }
        }
        site["agents_left_out"] = json!(site["agents_left_out"].as_u64().unwrap_or(0) + agents);
        // It depends on the host that reads the run and not on the run.
        if let Some(site) = site.as_object_mut() {
            site.remove("hours_to_exhaust_host");
        }
    }
    value
}

/// Cuts a list; returns how many were left out.
fn cut(value: &mut Value, key: &str, max: usize) -> u64 {
    let Some(list) = value[key].as_array_mut() else { return 0 };
    let left_out = list.len().saturating_sub(max);
    list.truncate(max);
    left_out as u64
}

fn data(leaks: &Leaks<'_>, by: By, objects: bool) -> Data {
    let report = leaks.report;
    Data {
        run: run(leaks),
        sampling: sampling(leaks),
        caveats: leaks.caveats(),
        verdict: word(report.verdict),
        gate: gate(leaks),
        totals: totals(&report.totals),
        blind: json!({
            "mean_bytes": report.blind.mean_bytes,
            "rate_80_bytes_per_h": report.blind.rate_80,
            "power_at_limit": report.blind.power_at_limit,
            "warm_up_bytes": report.blind.warm_up_bytes,
            "other_bytes": report.blind.other_bytes,
        }),
        waits: waits::document(leaks),
        modules: modules(leaks),
        sites: report.sites.iter().map(|of| site(leaks, of)).collect(),
        live: json!({
            "by": by.name(),
            "total": amount(leaks.profile.live_total()),
            "rows": rows(leaks, by).iter().map(|of| row(of, by)).collect::<Vec<_>>(),
        }),
        objects: objects.then(|| every(leaks)),
        diff: leaks.base.map(|(name, base)| diff(leaks.profile, name, base)),
    }
}

pub(super) fn unknown(cause: &str, remedy: &str) -> Value {
    json!({"unknown": cause, "remedy": remedy})
}

fn known<T>(found: &Result<T, Unavailable>, of: impl FnOnce(&T) -> Value) -> Value {
    match found {
        Ok(found) => of(found),
        Err(why) => unknown(&why.cause, &why.remedy),
    }
}

/// A finite number; JSON has no others.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { Value::Null }
}

fn interval(of: &Interval) -> Value {
    json!({"estimate": number(of.estimate), "low": number(of.low), "high": number(of.high)})
}

fn rate(of: Option<&Interval>) -> Value {
    of.map_or_else(|| unknown("too few old objects or readings", "run longer"), interval)
}

fn amount(of: Amount) -> Value {
    json!({"bytes": of.bytes, "objects": of.objects})
}

fn run(leaks: &Leaks<'_>) -> Value {
    let snapshot = leaks.snapshot;
    json!({
        "id": leaks.run,
        "command": snapshot.command,
        "pid": snapshot.pid,
        "started": rfc3339(snapshot.started_unix_ns),
        "at_ns": snapshot.at_ns,
    })
}

fn sampling(leaks: &Leaks<'_>) -> Value {
    let facts = &leaks.snapshot.sampler;
    let lost: Vec<Value> =
        facts.lost.iter().map(|(reason, n)| json!({"reason": reason, "samples": n})).collect();
    json!({
        "exact": facts.exact,
        "mean_bytes": facts.mean_bytes,
        "mean_min_bytes": facts.mean_range.0,
        "mean_max_bytes": facts.mean_range.1,
        "kept_ratio": number(facts.kept),
        "taken": facts.taken,
        "live_samples": leaks.snapshot.samples.len(),
        "lost": lost,
        "truncated_stacks": facts.truncated_stacks,
        "allocs": facts.allocs,
        "frees": facts.frees,
        "operations": facts.operations.map_or_else(
            || unknown("the program counted none", "count operations through the heap probe"),
            |n| json!(n),
        ),
        "self_ns": facts.self_ns,
        "state_bytes": facts.state_bytes,
    })
}

fn gate(leaks: &Leaks<'_>) -> Value {
    let gate = &leaks.report.gate;
    let (word, needed) = match &gate.judgement {
        Judgement::Pass => ("PASS", None),
        Judgement::Fail => ("FAIL", None),
        Judgement::Undecided { needed_s, .. } => ("INCONCLUSIVE", *needed_s),
    };
    json!({
        "verdict": word,
        "reason": gate.cause,
        "needs_more_s": needed,
        "rate_bytes_per_h": rate(gate.rate.as_ref()),
        "limit_bytes_per_h": gate.limit,
    })
}

fn retention(of: &Retention) -> Value {
    json!({"bytes": of.bytes, "rate_bytes_per_h": rate(of.rate.as_ref()), "grows": of.grows})
}

fn totals(of: &Totals) -> Value {
    json!({
        "live_bytes_per_h": known(&of.live, interval),
        "live_bytes_per_million": of.live_per_million.as_ref().map(interval),
        "explained_bytes_per_h": interval(&of.explained),
        "unexplained_bytes_per_h": of.unexplained.as_ref().map(interval),
        "explained_ratio": of.explained_share.map(number),
        "retained": known(&of.retained, retention),
        "foreign": known(&of.foreign, retention),
    })
}

fn modules(leaks: &Leaks<'_>) -> Vec<Value> {
    let modules = leaks.snapshot.modules.iter().zip(&leaks.symbols.modules);
    modules
        .map(|(module, resolved)| {
            let build_id: String = module.build_id.iter().map(|b| format!("{b:02x}")).collect();
            let word = match resolved {
                Resolved::Lines => "lines",
                Resolved::NamesOnly(_) => "names",
                Resolved::Unknown(_) => "unknown",
                Resolved::Unused => "unused",
            };
            let why = resolved.missing();
            json!({
                "path": module.path,
                "build_id": build_id,
                "symbols": word,
                "cause": why.map(|why| &why.cause),
                "remedy": why.map(|why| &why.remedy),
            })
        })
        .collect()
}

const fn reason_code(of: &Reason) -> &'static str {
    match of {
        Reason::TooEarly => "too_early",
        Reason::WarmUp => "warm_up",
        Reason::Turnover => "turnover",
        Reason::PerOwner { .. } => "per_owner",
        Reason::Backlog => "backlog",
        Reason::Stopped { .. } => "stopped",
        Reason::Load => "load",
        Reason::NoSurvivors => "no_survivors",
        Reason::Straddles => "straddles",
        Reason::BelowFloor => "below_floor",
        Reason::TailDies => "tail_dies",
    }
}

fn finding(of: &Finding) -> Value {
    let evidence = &of.evidence;
    let growth = of.growth.as_ref().map(|growth| match growth {
        Growth::Inserts => json!({"kind": "inserts"}),
        Growth::Chains { chains, doublings } => {
            json!({"kind": "chains", "chains": chains, "reallocations": doublings})
        }
        Growth::Orphans => json!({"kind": "orphans"}),
    });
    json!({
        "verdict": word(of.verdict),
        "reason": of.reason.as_ref().map(reason_code),
        "reason_text": of.reason.as_ref().map(words::reason),
        "rate_bytes_per_h": rate(of.rate.as_ref()),
        "rate_bytes_per_million": of.per_million.as_ref().map(interval),
        "rate_low_any_time_bytes_per_h": number(of.rate_low_any_time),
        "evidence": {
            "log_e": number(evidence.log_e), "p": number(evidence.p), "q": number(evidence.q),
            "old_ns": evidence.old_ns, "old_alive": evidence.old_alive,
            "old_dead": evidence.old_dead, "expected_dead": number(evidence.expected_dead),
        },
        "growth": growth,
        "since": of.since.as_ref().map(|onset| json!({
            "at_ns": onset.at_ns, "low_ns": onset.low_ns, "high_ns": onset.high_ns,
            "from_start": onset.from_start,
        })),
        "hours_needed": of.hours_needed.map(number),
    })
}

fn stack(profile: &HeapProfile, of: &Stack) -> Vec<Value> {
    let mut calls = Vec::new();
    for frame in &of.frames {
        let module = frame.module.and_then(|module| profile.modules.get(module));
        let path = module.map(|module| &module.path);
        if frame.functions.is_empty() {
            let name = profile.address_name(frame);
            calls.push(json!({
                "function": name, "mangled": null, "file": null, "line": null, "inlined": false,
                "module": path, "address": frame.address,
            }));
        }
        let last = frame.functions.len().saturating_sub(1);
        calls.extend(frame.functions.iter().enumerate().map(|(index, f)| {
            json!({
                "function": f.name, "mangled": f.mangled, "file": f.file, "line": f.line,
                "inlined": index < last, "module": path, "address": frame.address,
            })
        }));
    }
    calls
}

fn owner(leaks: &Leaks<'_>, of: &OwnerReport) -> Value {
    json!({
        "agent": owner_name(leaks.snapshot, of.owner),
        "owner": of.owner,
        "finding": finding(&of.finding),
        "sampled": of.sampled,
        "bytes": number(of.bytes),
        "share": interval(&of.share),
        "ended_ns": of.ended_ns,
    })
}

fn site(leaks: &Leaks<'_>, of: &SiteReport) -> Value {
    let index = leaks.stack_of(of.site);
    let known = index.map(|index| &leaks.profile.stacks[index]);
    let place = known.map(|stack| places(leaks.profile, stack).swap_remove(0));
    let alive = &of.survivors;
    let (spread, owners) = match of.spread {
        Spread::Untagged => ("untagged", 0),
        Spread::One(_) => ("one", 1),
        Spread::Some { owners } => ("some", owners),
        Spread::Even { owners } => ("even", owners),
    };
    let left = leaks.available_bytes.and_then(|bytes| of.finding.hours_until(bytes as f64));
    json!({
        "site": of.site,
        "function": place.as_ref().map_or("(stack unknown)", |place| &*place.name),
        "line": place.as_ref().map(|place| &*place.line).filter(|line| !line.is_empty()),
        "stack": known.map_or_else(Vec::new, |known| stack(leaks.profile, known)),
        "stack_truncated": known.is_some_and(|known| known.truncated),
        "live": amount(index.map_or_else(Amount::default, |index| leaks.profile.live_of(index))),
        "finding": finding(&of.finding),
        "survivors": {
            "sampled": alive.sampled, "born": alive.born,
            "objects": interval(&alive.objects), "bytes": interval(&alive.bytes),
            "survival_ratio": alive.survival.map(number), "oldest_ns": alive.oldest_ns,
            "ages": alive.ages.iter().map(|age| json!({
                "from_ns": age.from_ns, "sampled": age.sampled, "bytes": number(age.bytes),
            })).collect::<Vec<_>>(),
            "sizes": alive.sizes.iter().map(|size| json!({
                "size_bytes": size.size, "sampled": size.sampled,
                "objects": number(size.objects), "bytes": number(size.bytes),
            })).collect::<Vec<_>>(),
            "cores": alive.cores.iter().map(|core| json!({
                "core": core.core, "sampled": core.sampled, "bytes": number(core.bytes),
            })).collect::<Vec<_>>(),
        },
        "spread": {"kind": spread, "agents": owners},
        "agents": of.owners.iter().map(|own| owner(leaks, own)).collect::<Vec<_>>(),
        "agents_left_out": of.owners_left_out,
        "orphans": of.orphans.as_ref().map(|orphans| json!({
            "sampled": orphans.sampled, "bytes": number(orphans.bytes),
            "agents": orphans.owners, "longest_ns": orphans.longest_ns,
        })),
        "hours_to_exhaust_host": left.as_ref().map(interval),
    })
}

fn row(of: &Row, by: By) -> Value {
    let mut row = json!({
        "bytes": of.live.bytes, "objects": of.live.objects, "sites": of.sites,
        "verdict": of.verdict,
    });
    match by {
        By::Site => {
            row["site"] = json!(of.key);
            row["function"] = json!(of.name);
            row["line"] = json!((!of.line.is_empty()).then_some(&of.line));
            row["allocated"] = of.allocated.map_or(Value::Null, amount);
        }
        By::Agent => {
            row["owner"] = json!(of.key);
            row["agent"] = json!(of.name);
        }
        By::Core => row["core"] = json!(of.key),
        By::Size => {
            row["up_to_bytes"] = json!(of.key);
            row["exact"] = match of.exact {
                Some((bytes, objects)) => json!({"bytes": bytes, "objects": objects}),
                None => unknown("the allocator keeps no totals of this class", "use TailbeamAlloc"),
            };
        }
    }
    row
}

fn every(leaks: &Leaks<'_>) -> Vec<Value> {
    let snapshot = leaks.snapshot;
    let samples = snapshot.samples.iter().zip(&leaks.profile.by_sample);
    samples
        .map(|(sample, of)| {
            json!({
                "site": sample.site, "owner": sample.owner, "core": sample.core,
                "size_bytes": sample.size, "bytes": of.bytes, "objects": of.objects,
                "born_ns": sample.born_ns, "grown": sample.grown,
                "address": (sample.address != 0).then_some(sample.address),
            })
        })
        .collect()
}

fn diff(now: &HeapProfile, name: &str, base: &HeapProfile) -> Value {
    let (difference, changes) = changes(now, base);
    let rows: Vec<Value> = changes
        .iter()
        .map(|change| {
            let place = places(&difference, &difference.stacks[change.stack]).swap_remove(0);
            json!({
                "function": place.name,
                "line": (!place.line.is_empty()).then_some(place.line),
                "before": amount(change.before),
                "after": amount(change.after),
            })
        })
        .collect();
    json!({
        "base": name, "before": amount(base.live_total()), "after": amount(now.live_total()),
        "rows": rows,
    })
}
