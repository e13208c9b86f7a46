//! What two builds of `tailbeam` take of the cores for the same load, in turn: `builds_cost A B [ROUNDS [SECONDS]]`.
//!
//! Each round runs `soak --workload ask` of both, in an order that is drawn, and makes a pair of their CPU time
//! (looking on for work not counted) and their latency. `A` less `B`, with its interval; one build twice must show no
//! difference. `.ci/own-cost` builds both.
#![expect(clippy::print_stdout, reason = "an example reports on stdout")]
#![allow(clippy::unwrap_used, reason = "an example fails by panicking")]

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tailbeam_probes::analyse::overhead::{Difference, Pair, Second, cost, on_first};

/// 10,000 agents that ask once in 10 ms: 1 M asks/s.
const LOAD: [&str; 8] =
    ["--workload", "ask", "--agents", "10000", "--think", "5ms..15ms", "--heap-sample", "off"];

/// One run, as a second of an average.
fn run(program: &str, seconds: &str, saturate: Option<&str>) -> (Second, f64, usize) {
    let store = env::temp_dir().join(format!("tailbeam-builds-cost-{}", std::process::id()));
    let mut command = Command::new(program);
    command.arg("--store").arg(&store).arg("soak").args(LOAD).args(["--own-cost", "off"]);
    command.args(["--duration", seconds, "--progress", "none", "--format", "json"]);
    if let Some(time) = saturate {
        command.args(["--saturate", time]);
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let second = second(&document["data"]);
    let saturated = &document["data"]["own_cost"]["saturated"]["replies_per_s"];
    let cores = document["data"]["cores"].as_array().unwrap().len();
    (second, saturated.as_f64().unwrap_or(0.0), cores)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shares and rates")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn second(data: &Value) -> Second {
    let figure = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("no figure: {value}"));
    let cores = data["cores"].as_array().unwrap();
    let share: f64 =
        cores.iter().map(|core| figure(&core["cpu_share"]) - figure(&core["spun_share"])).sum();
    let rate = figure(&data["load"]["served_per_s"]);
    let system = &data["latency"][0];
    Second {
        len_ns: 1_000_000_000,
        cpu_ns: whole(share * 1e9),
        requests: whole(rate),
        mean_ns: figure(&system["mean_ns"]),
        p99_ns: figure(&system["p99_ns"]),
    }
}

fn show(name: &str, of: Difference, scale: f64, unit: &str) {
    let Difference { mean, low, high } = of;
    let found = if of.is_found() { "" } else { "  not told from nothing" };
    println!(
        "{name:<28} {:+.2} {unit} [{:+.2}, {:+.2}]{found}",
        mean * scale,
        low * scale,
        high * scale
    );
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [a, b, rest @ ..] = &args[..] else {
        println!("usage: builds_cost A B [ROUNDS [SECONDS [SATURATE]]]");
        return;
    };
    assert!(Path::new(a).exists() && Path::new(b).exists(), "both are programs");
    let rounds: u32 = rest.first().map_or(6, |n| n.parse().unwrap());
    let seconds = rest.get(1).map_or("8s", String::as_str);
    let saturate = rest.get(2).map(String::as_str);
    let (mut pairs, mut saturated, mut cores) = (Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let a_first = on_first(u64::from(rounds), round);
        let [first, last] = if a_first { [a, b] } else { [b, a] };
        let (first, last) = (run(first, seconds, saturate), run(last, seconds, saturate));
        let (of_a, of_b) = if a_first { (first, last) } else { (last, first) };
        cores = of_a.2;
        for (name, (second, fast, _)) in [("A", &of_a), ("B", &of_b)] {
            println!(
                "round {round} {name}  {:.2} % of {cores} cores at {} replies/s, mean {:.1} us{}",
                second.cpu_ns as f64 / 1e7 / cores as f64,
                second.requests,
                second.mean_ns / 1e3,
                if *fast > 0.0 { format!(", saturated {fast:.0}/s") } else { String::new() }
            );
        }
        pairs.push(Pair { on: of_a.0, off: of_b.0 });
        let fast = |of: &(Second, f64, usize)| Second {
            len_ns: 1_000_000_000,
            requests: whole(of.1),
            ..Second::default()
        };
        saturated.push(Pair { on: fast(&of_a), off: fast(&of_b) });
    }
    match cost(&pairs, cores) {
        Ok(cost) => {
            println!("A less B, {} pairs of runs, 95 % interval", cost.pairs);
            show("CPU time of the cores", cost.cpu_share, 100.0, "%");
            show("CPU time of a request", cost.cpu_per_request_ns, 1.0, "ns");
            show("mean latency", cost.mean_ns, 1e-3, "us");
        }
        Err(why) => println!("no interval: {why:?}"),
    }
    if let Ok(cost) = cost(&saturated, cores) {
        show("saturated throughput", cost.throughput, 100.0, "%");
    }
}
