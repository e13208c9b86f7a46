//! What measuring cost, of runs that are stored: measured, not measured and why, and where figures disagree.

use tailbeam::render::latency as render;
use tailbeam::render::text as soak;
use tailbeam_harness::evidence::records::LoweredRecord;
use tailbeam_harness::plan::CostPlan;
use tailbeam_harness::report::{self, Measured, OwnCost};

use super::fixture::{Run, SECOND, START, saturated_pair};
use super::{By, check, part, report as built, text};

fn cost(change: impl FnOnce(&mut Run)) -> OwnCost {
    built(change).own_cost
}

fn drawn(of: &OwnCost) -> String {
    text(|out| render::cost(of, out))
}

fn saturated(run: &mut Run) {
    run.plan.observe.saturate_ns = 5 * SECOND;
    run.saturated = (0..5).map(saturated_pair).collect();
}

fn lowered(run: &mut Run) {
    run.windows[4].lowered.push(LoweredRecord {
        at_ns: START + 41 * SECOND,
        from: "stages, counters at each tick, and counts of single requests".to_owned(),
        to: "stages, and counters at each tick".to_owned(),
        share: 0.0213,
    });
}

#[test]
fn texts_are_as_they_were_read() {
    let all = |run: &mut Run| {
        saturated(run);
        lowered(run);
    };
    check("cost.txt", &drawn(&cost(all)));
    let off = |run: &mut Run| {
        run.plan.observe.cost = CostPlan::Off;
        run.manifest.units = None;
        run.windows.iter_mut().for_each(|window| window.cost.clear());
    };
    check("cost_unknown.txt", &drawn(&cost(off)));
}

#[test]
fn the_difference_is_of_all_cores_and_has_its_sign() {
    let of = cost(|_| {});
    let Measured::Known(measured) = &of.measured else { panic!("{:?}", of.measured) };
    // 20 ms and 1.6 ms for each number of a pair, 1 to 5, of 2 s.
    let mean = (20.0 + 1.6 * 3.0) / 2_000.0;
    assert!((measured.cpu_share.mean - mean).abs() < 1e-9, "{measured:?}");
    assert!(measured.cpu_share.low > 0.01 && measured.cpu_share.high < 0.015, "{measured:?}");
    assert_eq!((measured.pairs, measured.cores, measured.switched), (5, 2, true));
    let swap = |run: &mut Run| {
        for pair in run.windows.iter_mut().flat_map(|window| &mut window.cost) {
            std::mem::swap(&mut pair.on, &mut pair.off);
        }
    };
    let of = cost(swap);
    let less = of.measured.known().unwrap().cpu_share;
    assert!((less.mean + mean).abs() < 1e-9, "{less:?}");
    assert!(drawn(&of).contains("CPU time   -1.24 %"), "{}", drawn(&of));
}

#[test]
fn what_was_not_measured_has_cause_and_remedy() {
    let unknown = |change: &dyn Fn(&mut Run)| match cost(|run| change(run)).measured {
        Measured::Unknown { unknown, remedy } => (unknown, remedy),
        Measured::Known(known) => panic!("{known:?}"),
    };
    let few = |run: &mut Run| run.windows.iter_mut().skip(4).for_each(|w| w.cost.clear());
    let (cause, remedy) = unknown(&few);
    assert_eq!(cause, "3 pairs of seconds; an interval takes 4");
    assert!(remedy.contains("for 50 s or more"), "{remedy}");
    let (cause, remedy) = unknown(&|run| {
        few(run);
        run.plan.observe.cost = CostPlan::Off;
    });
    assert!(cause.contains("did not ask") && remedy.contains("--own-cost pairs"), "{remedy}");
    let (cause, _) = unknown(&|run| {
        few(run);
        run.plan.observe.on = false;
    });
    assert_eq!(cause, "nothing was observed");
    // A second in which nothing ended is in no pair.
    let (cause, _) =
        unknown(&|run| run.windows.iter_mut().skip(4).for_each(|w| w.cost[0].off.requests = 0));
    assert!(cause.starts_with("3 pairs"), "{cause}");
}

#[test]
fn like_with_like_is_called_so_and_a_difference_there_is_shouted() {
    let same = cost(|run| run.plan.observe.cost = CostPlan::Same);
    assert!(drawn(&same).contains("NOTHING WAS SWITCHED and a difference is found"), "{same:?}");
    let none = cost(|run| {
        run.plan.observe.cost = CostPlan::Same;
        for (k, window) in run.windows.iter_mut().enumerate() {
            if let Some(pair) = window.cost.first_mut() {
                let apart = 1_000_000 * k as u64;
                pair.on.cpu_ns = pair.off.cpu_ns + if k % 2 == 0 { apart } else { 0 };
                pair.off.cpu_ns += if k % 2 == 0 { 0 } else { apart };
            }
        }
    });
    assert!(drawn(&none).contains("nothing was switched and nothing is found"), "{none:?}");
    assert!(!drawn(&none).contains("twice apart"), "no model is of nothing");
}

#[test]
fn a_saturated_phase_counts_only_when_the_cores_had_nothing_to_spare() {
    let of = cost(saturated);
    let Measured::Known(loss) = &of.saturated else { panic!("{:?}", of.saturated) };
    assert!((loss.throughput.mean + 0.042).abs() < 1e-9 && loss.throughput.high < 0.0, "{loss:?}");
    let idle = cost(|run| {
        saturated(run);
        run.saturated[2].off.cpu_ns /= 2;
    });
    assert!(drawn(&idle).contains("1 pairs with time to spare left out"), "{}", drawn(&idle));
    let idler = cost(|run| {
        saturated(run);
        run.saturated[2].off.cpu_ns /= 2;
        run.saturated[3].on.cpu_ns /= 2;
    });
    let text = drawn(&idler);
    assert!(text.contains("3 pairs of spans with busy cores, 2 with time to spare"), "{text}");
    let unsealed = cost(|run| {
        saturated(run);
        run.sealed = false;
    });
    assert!(drawn(&unsealed).contains("this run was not sealed"), "{}", drawn(&unsealed));
}

#[test]
fn the_model_stands_beside_and_a_gulf_between_them_is_said() {
    let of = cost(|_| {});
    let Measured::Known(model) = &of.model else { panic!("{:?}", of.model) };
    // 12,000 turns of each of two cores at 9 ns; 6,000 requests of 60 s at 55.5 ns; 12 ms of 10 s by the meters.
    assert!((model.turns_share - 12_000.0 * 9e-9).abs() < 1e-12, "{model:?}");
    assert!((model.requests_share - 50.0 * 55.5e-9).abs() < 1e-12, "{model:?}");
    assert!((model.meters_share - 0.0012).abs() < 1e-12, "{model:?}");
    assert!(
        model.disagrees && drawn(&of).contains("more than twice apart"),
        "1.2 % against 0.13 %"
    );
    let near = cost(|run| run.manifest.units.as_mut().unwrap().turn_ns = 900.0);
    assert!(!drawn(&near).contains("more than twice apart"), "{near:?}");
}

/// The soak's own summary is `report`'s text: the same words stand in it.
#[test]
fn the_summary_of_a_run_says_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = Run::new();
    saturated(&mut run);
    lowered(&mut run);
    run.write(dir.path());
    let report = report::build(dir.path(), Some(&[])).unwrap();
    let summary = part(&text(|out| soak::report(&report, out)), "\nMeasuring (");
    assert!(summary.starts_with(&drawn(&report.own_cost)), "{summary}");
    let whole = built(|run| {
        saturated(run);
        lowered(run);
    });
    assert_eq!(report.own_cost, whole.own_cost);
    let latency = text(|out| render::report(&whole, By::Stage, out));
    assert!(latency.ends_with(&drawn(&whole.own_cost)), "{latency}");
}
