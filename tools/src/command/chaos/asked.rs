//! What a series is asked to do: scenarios and the plan of its subjects, from flags and files.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use tailbeam_harness::chaos::record::ChaosPlan;
use tailbeam_harness::chaos::scenario::{self, Fault, Scenario};
use tailbeam_harness::load::AnyWorkload;
use tailbeam_harness::plan::Plan;

use super::{MS, SECOND, act};
use crate::Failure;
use crate::args::{Command, Unparsed, parse, usage};
use crate::chaos_args::ChaosArgs;

/// Length of a slot, ns.
const SLOT_NS: u64 = 100 * MS;
/// Time before the baseline, ns: agents begin within a think time.
const WARM_NS: u64 = 2 * SECOND;
/// The workload of a subject: the one that has owners, limits and a log that promises something.
pub(super) const WORKLOAD: &str = "elicitation";

/// Scenarios of a file.
fn of_file(path: &Path) -> Result<Vec<Scenario>, Failure> {
    let refused = |cause: &dyn std::fmt::Display, remedy: &str| {
        let name = path.display();
        Failure::new(2, format!("{name} cannot be used\n  cause: {cause}\n  remedy: {remedy}"))
    };
    let text = fs::read_to_string(path)
        .map_err(|error| refused(&error, "name a file that can be read"))?;
    let file: ScenarioFile = toml::from_str(&text).map_err(|error| {
        refused(
            &error.to_string().trim(),
            "`tailbeam chaos --list --format json` shows how scenarios are written",
        )
    })?;
    for (at, of) in file.scenario.iter().enumerate() {
        scenario::check(of)
            .map_err(|error| Failure::new(2, format!("{}: {error}", path.display())))?;
        if file.scenario[..at].iter().any(|other| other.name == of.name) {
            let cause = format!("two scenarios are called {}", of.name);
            return Err(refused(&cause, "give each another name"));
        }
    }
    Ok(file.scenario)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ScenarioFile {
    scenario: Vec<Scenario>,
}

/// The scenarios that are asked for, or their faults as SCENARIO/FAULT.
pub(super) fn chosen(args: &ChaosArgs) -> Result<Vec<Scenario>, Failure> {
    if let Some(rounds) = args.swarm {
        range("--swarm", u64::from(rounds), 1, 100)?;
        let swarm = scenario::swarm(rounds, args.seed);
        if swarm.faults.len() < rounds as usize {
            let text = format!(
                "--swarm is {rounds}\n  cause: seed {} draws only {} different sets\n  remedy: ask for so many, or give another --seed",
                args.seed,
                swarm.faults.len()
            );
            return Err(Failure::new(2, text));
        }
        return Ok(vec![swarm]);
    }
    let all = match &args.file {
        Some(path) => of_file(path)?,
        None => scenario::all(),
    };
    if args.scenarios.is_empty() {
        return Ok(all);
    }
    let mut chosen: Vec<Scenario> = Vec::new();
    for word in &args.scenarios {
        let (name, fault) =
            word.split_once('/').map_or((word.as_str(), None), |(a, b)| (a, Some(b)));
        let known = all.iter().find(|of| of.name == name);
        let faults = known.map(|of| {
            let wanted = |f: &&Fault| fault.is_none_or(|fault| f.name == fault);
            of.faults.iter().filter(wanted).cloned().collect::<Vec<_>>()
        });
        let (Some(known), Some(faults)) = (known, faults.filter(|faults| !faults.is_empty()))
        else {
            let names: Vec<&str> = all.iter().map(|of| of.name.as_str()).collect();
            return Err(Failure::new(
                2,
                format!(
                    "no scenario {word:?}\n  cause: there are {}\n  remedy: `tailbeam chaos --list` shows them with their faults",
                    names.join(", ")
                ),
            ));
        };
        match chosen.iter_mut().find(|of| of.name == name) {
            Some(of) => of
                .faults
                .extend(faults.into_iter().filter(|f| !of.faults.contains(f)).collect::<Vec<_>>()),
            None => chosen.push(Scenario { faults, ..known.clone() }),
        }
    }
    Ok(chosen)
}

fn range(name: &str, value: u64, min: u64, max: u64) -> Result<(), Failure> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let text = format!(
        "{name} is {value}\n  cause: it must lie between {min} and {max}\n  remedy: `tailbeam chaos --help` shows the flags"
    );
    Err(Failure::new(2, text))
}

/// Flags of a subject's `soak`, the ones behind `--` last: they go before the others.
fn subject_flags(args: &ChaosArgs) -> Vec<String> {
    let ms = |ns: u64| format!("{}ms", ns / MS);
    let think = format!("{}..{}", ms(args.think.min_ns), ms(args.think.max_ns));
    let (agents, seed) = (args.agents.to_string(), args.seed.to_string());
    let own = ["--workload", WORKLOAD, "--durability", "batch", "--own-cost", "off"];
    let given = ["--agents", &agents, "--think", &think, "--seed", &seed];
    let flags = own.iter().chain(&given).map(|&flag| flag.to_owned());
    flags.chain(args.flags.iter().cloned()).collect()
}

/// The plan of a series. What it says of its subjects is what their own flags say, those behind `--` among them.
pub(super) fn planned(
    args: &ChaosArgs,
    workloads: &[&'static dyn AnyWorkload],
) -> Result<ChaosPlan, Failure> {
    range("--injections", u64::from(args.injections), 1, 100)?;
    range("--hold in ms", args.hold / MS, 100, act::HOLD_MS_MAX)?;
    range("--baseline in ms", args.baseline / MS, 5_000, 3_600_000)?;
    range("--patience in ms", args.patience / MS, 5_000, 600_000)?;
    let flags = subject_flags(args);
    let plan = subject_plan(&flags, workloads)?;
    Ok(ChaosPlan {
        agents: plan.agents,
        rate_per_s: plan.rate_per_s(),
        flags,
        warm_ns: WARM_NS + plan.think.max_ns,
        baseline_ns: args.baseline,
        hold_ns: args.hold,
        injections: args.injections,
        patience_ns: args.patience,
        timeout_ns: plan.timeout_ns,
        settle_ns: plan.delay.max_ns + SECOND,
        slot_ns: SLOT_NS,
        seed: args.seed,
        broken: args.broken.map(Into::into),
    })
}

/// The plan that a `soak` makes of its flags.
pub(in crate::command) fn subject_plan(
    flags: &[String],
    workloads: &[&'static dyn AnyWorkload],
) -> Result<Plan, Failure> {
    let words = ["tailbeam", "soak"].into_iter().chain(flags.iter().map(String::as_str));
    let cli = parse(words.map(OsString::from), workloads).map_err(|error| {
        let cause = match error {
            Unparsed::Flags(error) => usage(&error),
            Unparsed::Config(text) => text,
        };
        Failure::new(2, cause)
    })?;
    let Command::Soak(soak) = cli.command else {
        return Err(Failure::new(2, "the flags behind -- are no flags of `soak`"));
    };
    let name = soak.soak.workload.as_deref().unwrap_or(WORKLOAD);
    let workload = workloads.iter().find(|of| of.name() == name).ok_or_else(|| {
        Failure::new(
            2,
            format!("no workload {name:?}\n  cause: this program has no such agents\n  remedy: name one that it has, as in `chaos .. -- --workload NAME`"),
        )
    })?;
    super::super::plan(&soak.soak, *workload)
}
