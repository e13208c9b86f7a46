//! `demo`: a soak with a planted leak and a planted slow agent, what was found of both, and the truth.
//!
//! It opens nothing and needs no privileges. What is planted is in the run's plan; what is found comes from
//! the same report that `report` prints, which knows nothing of the plan's plants.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tailbeam_harness::evidence::records::{PlantedRecord, SlowedRecord};
use tailbeam_harness::evidence::{Store, read_run};
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::{HeapPlan, Plan, Plant, PlantKind, SlowKind, SlowPlant, Span};
use tailbeam_harness::verdict::Gate;

use super::how::How;
use super::{Outcome, drive, report};
use crate::Failure;
use crate::args::{DemoArgs, Format};
use crate::render::demo as view;
use crate::render::json::document;

/// Growth of the planted leak, bytes/h: 6 MB in the run.
const LEAK: f64 = 600e6;
/// Agents that leak. One alone has a turn every other second and leaks in lumps, and half a minute of lumps
/// looks like a structure that fills up.
const LEAKERS: u64 = 10;
/// Part of a site's survivors that must be theirs for the leak to count as found.
const THEIRS: f64 = 0.9;
/// Growth that the demo's gate allows, bytes/h: tables that still fill up in the first minute are below it.
const LIMIT: f64 = 100e6;
/// How long the slow agent computes for each request that it answers, ns.
const SLOW_NS: u64 = 20_000_000;
/// Mean distance between heap samples, bytes: a short run needs dense ones.
const SAMPLE: u32 = 16 << 10;

/// Runs `demo`.
pub(super) fn run(
    args: &DemoArgs,
    workloads: &[&'static dyn AnyWorkload],
    (root, given): (&Path, bool),
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Outcome {
    let Some(workload) = workloads.first() else {
        return Err(Failure::new(
            2,
            "no workload\n  cause: this program has none\n  remedy: name one in workloads![..]",
        ));
    };
    let plan = plan(args, *workload);
    plan.check().map_err(|error| Failure::new(2, error))?;
    let store = Store::open(root).map_err(|error| Failure::new(1, error))?;
    let ran = drive(&plan, *workload, &store, How::on(args.progress), err)?;
    let (whole, _) = report::whole(&ran.dir, None, &[])?;
    let frames = read_run(&ran.dir).map_err(|error| Failure::new(6, error))?;
    let Some(end) = frames.end else {
        return Err(Failure::new(
            6,
            format!(
                "run {} has no end\n  cause: its last frame cannot be read\n  remedy: `tailbeam runs fsck {}` says where",
                frames.manifest.id, frames.manifest.id
            ),
        ));
    };
    let found = Found {
        leak: (!end.planted.is_empty()).then(|| leak(&whole["data"], &end.planted)),
        slow: end.slowed.first().map(|truth| slow(&whole["data"], truth)),
    };
    let prefix = prefix(root, given);
    let shown = view::Demo {
        document: &whole,
        leak: found.leak.as_ref(),
        slow: found.slow.as_ref(),
        next: &next(&prefix, &frames.manifest.id),
    };
    match args.format {
        Format::Table => view::text(&shown, out)?,
        Format::Json => {
            let data = json!({
                "run": frames.manifest.id, "verdict": whole["data"]["verdict"],
                "leak": found.leak, "slow": found.slow, "next": shown.next,
            });
            document("tailbeam.demo", &data, out)?;
        }
    }
    let both = [&found.leak, &found.slow]
        .iter()
        .all(|of| of.as_ref().is_some_and(|of| of["found"] == true));
    Ok(match (ran.exit_code(), both) {
        (Some(code), _) => code,
        (None, true) => 0,
        (None, false) => 4,
    })
}

struct Found {
    leak: Option<Value>,
    slow: Option<Value>,
}

fn plan(args: &DemoArgs, workload: &dyn AnyWorkload) -> Plan {
    let mut plan = Plan::soak(workload.name());
    plan.agents = args.agents;
    plan.duration_ns = args.duration;
    // Short cycles, for the same reason.
    plan.think = Span::ms(200, 1_000);
    plan.delay = workload.default_delay();
    // As leaks of short runs are judged: see `LeakConfig::for_run`.
    plan.heap = HeapPlan {
        sample_bytes: SAMPLE,
        warm_up_ns: Some(args.duration / 6),
        horizon_ns: Some(args.duration / 4),
    };
    let agents = args.agents.max(LEAKERS + 2);
    let first = (agents - LEAKERS) / 3;
    let leaker = |agent| Plant {
        kind: PlantKind::ForgottenInsert,
        bytes_per_h: LEAK / LEAKERS as f64,
        agent: Some(agent),
    };
    plan.plants = (first..first + LEAKERS).map(leaker).collect();
    let agent = u32::try_from(agents - 2).unwrap_or(u32::MAX);
    plan.slow = vec![SlowPlant { kind: SlowKind::Compute, ns: SLOW_NS, agent, every: 1 }];
    plan.gates.retain(|gate| !matches!(gate, Gate::Leaks { .. }));
    plan.gates.push(Gate::Leaks { below: LIMIT });
    plan
}

/// The leak that was planted, and the worst that was found; it counts as found where a LEAK's survivors are
/// those agents'.
fn leak(data: &Value, truth: &[PlantedRecord]) -> Value {
    let agents: Vec<String> =
        truth.iter().filter_map(|of| of.plant.agent).map(|agent| agent.to_string()).collect();
    let is_leak = |of: &Value| of["finding"]["verdict"] == "LEAK";
    let owners = |site: &Value| site["agents"].as_array().cloned().unwrap_or_default();
    let leaks: Vec<&Value> = data["leaks"]["sites"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|site| is_leak(site) || owners(site).iter().any(is_leak))
        .collect();
    let theirs = |site: &Value| -> f64 {
        let own = |of: &&Value| agents.iter().any(|agent| of["agent"] == agent.as_str());
        owners(site).iter().filter(own).filter_map(|of| of["share"]["estimate"].as_f64()).sum()
    };
    let site = leaks.iter().find(|site| theirs(site) >= THEIRS).or(leaks.first()).copied();
    let sum = |of: fn(&PlantedRecord) -> u64| truth.iter().map(of).sum::<u64>();
    json!({
        "found": site.is_some_and(|site| theirs(site) >= THEIRS),
        "planted": {
            "kind": truth.first().map(|of| of.plant.kind.name()), "agents": agents,
            "objects": sum(|of| of.objects), "bytes": sum(|of| of.bytes),
            "rate_bytes_per_h": truth.iter().map(|of| of.plant.bytes_per_h).sum::<f64>(),
        },
        "leaks": leaks.len(),
        "their_share": site.map(theirs),
        "site": site,
        "unknown": data["leaks"]["unknown"].as_str(),
    })
}

/// The slow agent that was planted, and the one that weighs most by its service; it counts as found where
/// it is the same one, and no other may weigh as much.
fn slow(data: &Value, truth: &SlowedRecord) -> Value {
    let list = data["stages"]["agents"]["service"].as_array();
    let (first, second) = (list.and_then(|list| list.first()), list.and_then(|list| list.get(1)));
    let at_least = first.and_then(|of| of["at_least_ns"].as_u64()).unwrap_or(0);
    let others = second.and_then(|of| of["at_most_ns"].as_u64()).unwrap_or(0);
    let named = first.is_some_and(|of| of["agent"] == truth.slow.agent);
    json!({
        "found": named && at_least > others,
        "planted": {
            "kind": truth.slow.kind.name(), "agent": truth.slow.agent, "ns": truth.slow.ns,
            "times": truth.times, "together_ns": truth.ns,
        },
        "first": first,
        "second": second,
        "unknown": data["stages"]["unknown"].as_str(),
    })
}

/// The begin of a command that does the same as this one: as it was called, with the store that was given.
fn prefix(root: &Path, given: bool) -> String {
    let called = std::env::args().next().filter(|name| name.contains('/'));
    let program = called.unwrap_or_else(|| "tailbeam".to_owned());
    let quoted =
        |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
            true => text.to_owned(),
            false => format!("'{}'", text.replace('\'', "'\\''")),
        };
    match given {
        true => format!("{} --store {}", quoted(&program), quoted(&root.display().to_string())),
        false => quoted(&program),
    }
}

fn next(prefix: &str, run: &str) -> [String; 3] {
    [
        format!("{prefix} leaks {run}"),
        format!("{prefix} latency {run} --outliers 10"),
        format!("{prefix} report {run} -o report.html"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth() -> (PlantedRecord, SlowedRecord) {
        let plant = Plant { kind: PlantKind::ForgottenInsert, bytes_per_h: LEAK, agent: Some(17) };
        let slow = SlowPlant { kind: SlowKind::Compute, ns: SLOW_NS, agent: 40, every: 1 };
        (
            PlantedRecord { plant, objects: 9, bytes: 2_304, refused: 0 },
            SlowedRecord { slow, times: 3, ns: 60_000_000 },
        )
    }

    fn site(verdict: &str, agent: &str) -> Value {
        json!({"finding": {"verdict": verdict}, "agents": [
            {"agent": "5", "share": {"estimate": 0.05}, "finding": {"verdict": "CLEAN"}},
            {"agent": agent, "share": {"estimate": 0.95}, "finding": {"verdict": "CLEAN"}},
        ]})
    }

    #[test]
    fn only_what_was_planted_counts_as_found() {
        let (planted, slowed) = truth();
        let found = |sites: Value| {
            leak(&json!({"leaks": {"sites": sites}}), std::slice::from_ref(&planted))["found"]
                == true
        };
        assert!(found(json!([site("LEAK", "99"), site("LEAK", "17")])));
        assert!(!found(json!([site("LEAK", "99")])) && !found(json!([site("SUSPECT", "17")])));
        assert!(!found(json!([])));
        let of = |agent: u32, least: u64, most: u64| json!({"agent": agent, "at_least_ns": least, "at_most_ns": most});
        let found = |list: Value| {
            slow(&json!({"stages": {"agents": {"service": list}}}), &slowed)["found"] == true
        };
        assert!(found(json!([of(40, 60, 61), of(3, 1, 2)])));
        assert!(!found(json!([of(40, 60, 61), of(3, 1, 60)])), "another may weigh as much");
        assert!(!found(json!([of(3, 60, 61), of(40, 1, 2)])) && !found(json!([])));
    }
}
