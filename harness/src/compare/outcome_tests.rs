use super::*;
use crate::compare::design;

/// A run whose figures are all good.
pub(in crate::compare) fn run(id: &str, p99_ns: f64) -> RunFigures {
    let known = Measured::Known;
    RunFigures {
        run: id.to_owned(),
        workload: "elicit".to_owned(),
        agents: 10,
        seed: 1,
        p50_ns: known(p99_ns / 10.0),
        p99_ns: known(p99_ns),
        offered_per_s: known(1_000.0),
        throughput_per_s: known(1_000.0),
        cpu_per_op_ns: known(20_000.0),
        delivery: known(1.0),
        outcomes: Measured::Known(Outcomes { attempts: 10, ok: 10, ..Outcomes::default() }),
        finished: true,
        stall: None,
        others: known(0.0),
    }
}

fn side(name: &str) -> Side {
    Side { name: name.to_owned(), args: Vec::new(), program: None }
}

/// A recipe of `pairs` blocks whose runs are named block and role.
fn recipe(pairs: usize) -> Recipe {
    let drawn = design(3, pairs, pairs);
    let run = |block: usize, role: &Role| TrialRun {
        role: *role,
        run: Measured::Known(format!("{block}{role:?}")),
        steal: Measured::Known(0.0),
    };
    let trials = drawn.blocks[..pairs].iter().enumerate().map(|(block, of)| Trial {
        seed: of.seed,
        runs: of.order.iter().map(|role| run(block, role)).collect(),
    });
    Recipe {
        version: crate::compare::VERSION,
        id: "c".to_owned(),
        started: String::new(),
        a: side("a"),
        b: side("b"),
        shared: Vec::new(),
        rules: Rules::default(),
        sweep: Vec::new(),
        chosen: None,
        unfit: Vec::new(),
        trials: trials.collect(),
        design: Some(drawn),
        stopped: false,
    }
}

fn compared(recipe: &Recipe, figures: &dyn Fn(&str) -> Measured<RunFigures>) -> Comparison {
    let none = |_: &str| Measured::unknown("not asked for", "ask for it");
    compare(recipe, Vec::new(), &Sources { figures, waits: &none, latency: &none })
}

/// P99 of B is twice that of A, with a little noise that differs by run.
fn figures(id: &str) -> Measured<RunFigures> {
    let noise = id.bytes().map(u64::from).sum::<u64>() % 7;
    let level = if id.ends_with('B') { 2e6 } else { 1e6 };
    Measured::Known(run(id, level * (1.0 + 0.001 * noise as f64)))
}

#[test]
fn a_baseline_of_which_no_setting_is_fit_compares_nothing() {
    let mut recipe = recipe(8);
    assert_eq!(compared(&recipe, &figures).verdict, Overall::NoGo);
    recipe.unfit.push(Role::B);
    let found = compared(&recipe, &figures);
    assert_eq!(found.verdict, Overall::Inconclusive);
    assert!(found.caveats[0].contains("no setting of side B"), "{:?}", found.caveats);
}

#[test]
fn pairs_are_judged_and_the_document_survives_the_way_to_disk() {
    let recipe = recipe(6);
    let back: Recipe = serde_json::from_str(&serde_json::to_string(&recipe).unwrap()).unwrap();
    assert_eq!(back, recipe);
    let compared = compared(&back, &figures);
    assert_eq!((compared.pairs.len(), compared.aa.len(), compared.excluded.len()), (6, 6, 0));
    let of = |metric| compared.metrics.iter().find(|row| row.metric == metric).unwrap();
    assert_eq!(of(Metric::P99).judged, Judged::Worse);
    assert!((of(Metric::P99).effect.known().unwrap().ratio - 2.0).abs() < 0.02);
    assert_eq!(of(Metric::Throughput).judged, Judged::Equivalent);
    assert_eq!(of(Metric::Delivery).judged, Judged::Equivalent);
    assert_eq!(compared.verdict, Overall::NoGo);
    assert!(compared.outcomes.iter().all(|side| side.closed && side.outcomes.attempts == 60));
    let text = serde_json::to_string(&compared).unwrap();
    assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), compared);
}

#[test]
fn a_run_is_left_out_by_its_rule_and_listed_and_its_pair_with_it() {
    let mut recipe = recipe(7);
    recipe.trials[0].runs[0].steal = Measured::Known(0.02);
    let roles =
        |block: usize| recipe.trials[block].runs.iter().map(|run| run.role).collect::<Vec<_>>();
    let first = roles(0)[0];
    let planted = |id: &str| {
        let Measured::Known(mut figures) = figures(id) else { unreachable!() };
        match id {
            "1A" => figures.stall = Some("host gap 0.4 s".to_owned()),
            "2B" => figures.others = Measured::Known(0.2),
            "3B" => figures.finished = false,
            "4A" => return Measured::unknown("no such run", "look for it"),
            _ => {}
        }
        Measured::Known(figures)
    };
    let compared = compared(&recipe, &planted);
    let rules: Vec<&str> = compared.excluded.iter().map(|out| out.why.rule.as_str()).collect();
    assert_eq!(rules, ["steal", "stall", "others", "unfinished", "failed"]);
    assert_eq!(compared.excluded[0].role, first);
    let lost = 4 + usize::from(first != Role::A2);
    assert_eq!(compared.pairs.len(), 7 - lost);
    assert_eq!(compared.verdict, Overall::Inconclusive);
    assert!(compared.caveats.iter().any(|caveat| caveat.contains("of 7 pairs")));
}

#[test]
fn sums_that_do_not_close_compare_nothing() {
    let recipe = recipe(6);
    let leaky = |id: &str| {
        let Measured::Known(mut figures) = figures(id) else { unreachable!() };
        if id == "3B" {
            figures.outcomes =
                Measured::Known(Outcomes { attempts: 11, ok: 10, ..Outcomes::default() });
        }
        Measured::Known(figures)
    };
    let compared = compared(&recipe, &leaky);
    assert_eq!(compared.verdict, Overall::Inconclusive);
    assert!(!compared.outcomes[1].closed && compared.outcomes[0].closed);
    assert!(compared.caveats.iter().any(|caveat| caveat.contains("NOT close")));
}

#[test]
fn stored_runs_take_their_noise_from_neighbours() {
    let mut recipe = recipe(8);
    recipe.design = None;
    recipe.trials.iter_mut().for_each(|trial| trial.runs.retain(|run| run.role != Role::A2));
    let compared = compared(&recipe, &figures);
    assert_eq!((compared.pairs.len(), compared.aa.len(), compared.seed), (8, 4, None));
    assert_eq!(compared.verdict, Overall::NoGo);
    assert!(compared.caveats.iter().any(|caveat| caveat.contains("stored before")));
}

#[test]
fn those_that_did_not_fail_are_no_go_of_those_that_did() {
    let equal = |broken: &'static [&'static str]| {
        let recipe = recipe(12);
        let figures = move |id: &str| {
            if broken.contains(&id) {
                return Measured::unknown("it ended with code 101", "look at its output");
            }
            Measured::Known(run(id, 1e6 + (id.bytes().map(u64::from).sum::<u64>() % 7) as f64))
        };
        compared(&recipe, &figures)
    };
    assert_eq!(equal(&[]).verdict, Overall::Go);
    for one in [&["3A"][..], &["3A2"], &["3B"]] {
        let found = equal(one);
        assert_eq!(found.verdict, Overall::Inconclusive, "{one:?}");
        assert!(found.caveats.iter().any(|of| of.contains("makes no GO")), "{:?}", found.caveats);
    }
    let found = equal(&["1B", "3B", "5B"]);
    assert_eq!(found.verdict, Overall::NoGo, "3 failures of 12 runs beside none of 24");
    assert!(found.caveats.iter().any(|of| of.contains("3 of 12 runs of B and 0 of 24 of A")));
    assert_eq!(equal(&["1B", "3B", "5A"]).verdict, Overall::Inconclusive);
    // The run in which it was stopped has not failed.
    let mut stopped = recipe(12);
    stopped.stopped = true;
    let last = |id: &str| {
        let mut figures = run(id, 1e6);
        figures.finished = id != "11B";
        Measured::Known(figures)
    };
    assert_eq!(compared(&stopped, &last).verdict, Overall::Go);
}
