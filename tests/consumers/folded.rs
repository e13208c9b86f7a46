//! Folded stacks, by inferno where it is installed.

use std::process::Command;

use tailbeam::render::export::folded;
use tailbeam::render::export::pprof::Metric;

use super::programs::{consumer, npm, run};
use super::{Made, earlier};

fn lines(made: &Made, base: Option<&Made>, metric: Metric) -> String {
    let mut out = Vec::new();
    made.export(base, |export| folded::write(export, metric, &mut out).unwrap());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_is_a_stack_from_the_root_and_its_value() {
    let made = Made::new(|_| {});
    let text = lines(&made, None, Metric::InuseSpace);
    let leak = "exchange::main;exchange::session::on_message;exchange::book::Book::apply 15562476";
    assert!(text.lines().any(|line| line == leak), "{text}");
    let sum = |text: &str| -> i64 {
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    };
    assert_eq!(sum(&text), made.profile.live_total().bytes);
    assert!(!text.contains("exchange::setup"), "it holds nothing");
    assert!(lines(&made, None, Metric::AllocSpace).contains("exchange::setup 62927"));
    let both = lines(&made, Some(&earlier()), Metric::InuseSpace);
    let leak = format!("{} 7781238 15562476", leak.rsplit_once(' ').unwrap().0);
    assert!(both.lines().any(|line| line == leak), "{both}");
}

#[test]
fn inferno_draws_a_flame_graph_and_a_differential_one() {
    let program = npm().join("bin/inferno-flamegraph");
    if !consumer("inferno-flamegraph", program.exists()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = Made::new(|_| {});
    for (name, base) in [("live", None), ("diff", Some(earlier()))] {
        let path = dir.path().join(name);
        std::fs::write(&path, lines(&made, base.as_ref(), Metric::InuseSpace)).unwrap();
        let svg = run(Command::new(&program).args(["--countname", "bytes"]).arg(&path));
        for part in [
            "exchange::book::Book::apply (15,562,476 bytes",
            "exchange::wire::decode (3,918,600 bytes",
        ] {
            assert!(svg.contains(part), "{name}: {part:?} is not in {svg}");
        }
    }
}
