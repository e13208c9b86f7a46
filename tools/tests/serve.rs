//! `soak --listen`: a run that is scraped while it lasts, by us, by promtool, by Python's strict parser and by a
//! Prometheus; the last three where `.ci/consumers` has put them.
#![expect(clippy::unwrap_used, reason = "a test reports by panicking")]

#[path = "../../tests/consumers/programs.rs"]
mod programs;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use programs::{consumer, npm};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_tailbeam");
const OPEN: &str = "application/openmetrics-text;version=1.0.0";

fn wait_ms(ms: u64) {
    std::thread::park_timeout(Duration::from_millis(ms));
}

/// A soak that is scraped; it ends with the value.
struct Soak {
    child: Child,
    at: String,
    _store: tempfile::TempDir,
}

impl Soak {
    /// None, and said, where there is no io_uring.
    fn start(args: &[&str]) -> Option<Self> {
        let store = tempfile::tempdir().unwrap();
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(store.path());
        command.args(["soak", "--agents", "500", "--think", "50ms..100ms", "--duration", "60s"]);
        command
            .args(["--delay", "0ms", "--listen", "127.0.0.1:0", "--progress", "plain"])
            .args(args);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let at = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let found = line.strip_prefix("metrics: http://").map(str::to_owned);
            said.push(line);
            found
        });
        if at.is_none() && said.iter().any(|line| line.contains("no io_uring")) {
            let required = std::env::var_os("TAILBEAM_TEST_RINGS").is_some();
            assert!(!required, "TAILBEAM_TEST_RINGS is set and there is no io_uring");
            let _ = child.wait();
            return None;
        }
        // Whoever does not read them would stop the program.
        std::thread::spawn(move || lines.for_each(drop));
        let at = at.unwrap_or_else(|| panic!("{said:?}")).trim_end_matches("/metrics").to_owned();
        Some(Self { child, at, _store: store })
    }

    /// Once it has requests: two seconds after the first one.
    fn scraped(&self, accept: &str) -> String {
        for _ in 0..200 {
            let (_, text) = get(&self.at, "/metrics", accept);
            if answered(&text) > 0.0 && text.contains("tailbeam_core_turns_total") {
                return text;
            }
            wait_ms(100);
        }
        panic!("nothing was answered in 20 s");
    }
}

impl Drop for Soak {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        let _ = kill_process(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Head and text of an answer.
fn get(at: &str, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(at).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {at}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), text.to_owned())
}

/// The value of a sample.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn answered(text: &str) -> f64 {
    value(text, "tailbeam_requests_total{outcome=\"ok\"}").unwrap_or(0.0)
}

/// Sum of the samples of a name.
fn sum(text: &str, name: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn a_run_is_scraped_while_it_lasts() {
    let Some(soak) = Soak::start(&["--workload", "ask"]) else { return };
    let text = soak.scraped("text/plain");
    for part in ["tailbeam_run_info{run=\"2", "workload=\"ask\"} 1", "tailbeam_agents 500"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    // Each request that was answered is in the histogram, as the plan has no delay.
    let count = sum(&text, "tailbeam_system_latency_seconds_count{");
    assert_eq!(count, answered(&text), "{text}");
    let buckets: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with("tailbeam_system_latency_seconds_bucket{core=\"0\""))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(buckets.is_sorted(), "{buckets:?}");
    // A later scrape has more of everything that is a counter.
    wait_ms(2_200);
    let later = soak.scraped(OPEN);
    assert!(answered(&later) > answered(&text) && later.ends_with("# EOF\n"), "{later}");
    let turns = "tailbeam_core_turns_total{";
    assert!(sum(&later, turns) > sum(&text, turns));
}

#[test]
fn an_address_that_others_reach_takes_a_second_word() {
    let store = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("--store").arg(store.path()).args(["soak", "--duration", "1s"]).args(args);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = run(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("cause:") && text.contains("--listen-public"), "{text}");
    assert_eq!(run(&["--listen", "nowhere"]).0, Some(2));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, text) = run(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(code == Some(1) && text.contains("cannot serve metrics"), "{text}");
    let open = ["--listen", "0.0.0.0:0", "--listen-public", "--agents", "2", "--workload", "ask"];
    let (code, text) = run(&open);
    assert!(code != Some(2) && text.contains("metrics: http://0.0.0.0:"), "{text}");
}

/// A consumer's verdict on a text that it reads from stdin.
fn reads(command: &mut Command, text: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{said}\n{text}");
    said
}

#[test]
fn promtool_and_pythons_strict_parser_accept_the_text() {
    let promtool = npm().join("prometheus/usr/bin/promtool");
    let python = npm().join("py/bin/python");
    let module = Command::new(&python).args(["-c", "import prometheus_client"]).output();
    let parses = module.is_ok_and(|output| output.status.success());
    let (check, parse) =
        (consumer("promtool", promtool.exists()), consumer("prometheus-client", parses));
    let Some(soak) = Soak::start(&["--workload", "ask"]) else { return };
    if check {
        let said = reads(Command::new(&promtool).args(["check", "metrics"]), &soak.scraped(""));
        assert!(said.trim().is_empty(), "it has something to say: {said}");
    }
    if parse {
        let script = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
print(json.dumps({f.name: [f.type, f.unit, len(f.samples)] for f in families(sys.stdin.read())}))";
        let said = reads(Command::new(&python).args(["-c", script]), &soak.scraped(OPEN));
        let found: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(found["tailbeam_requests"][0], "counter", "{said}");
        assert_eq!(found["tailbeam_system_latency_seconds"][1], "seconds", "{said}");
        assert_eq!(found["tailbeam_run"][0], "info", "{said}");
    }
}

/// A Prometheus of our own; it ends with the value.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn prometheus(dir: &Path, target: &str) -> Option<(Prometheus, String)> {
    let program = npm().join("prometheus/usr/bin/prometheus");
    if !consumer("prometheus", program.exists()) {
        return None;
    }
    let config = dir.join("prometheus.yml");
    let jobs = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: soak\n  static_configs: [{{targets: ['{target}']}}]\n"
    );
    fs::write(&config, jobs).unwrap();
    // A port that is free now.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = free.local_addr().unwrap().to_string();
    drop(free);
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("data").display()));
    command.arg(format!("--web.listen-address={at}"));
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some((Prometheus(quiet.spawn().unwrap()), at))
}

#[test]
fn a_prometheus_scrapes_it_and_answers_queries() {
    let dir = tempfile::tempdir().unwrap();
    let Some(soak) = Soak::start(&["--workload", "ask"]) else { return };
    soak.scraped("");
    let Some((_server, at)) = prometheus(dir.path(), &soak.at) else { return };
    let query = |query: &str| -> Option<f64> {
        TcpStream::connect(&at).ok()?;
        let (_, text) = get(&at, &format!("/api/v1/query?query={query}"), "application/json");
        let json = text.get(text.find('{')?..=text.rfind('}')?)?;
        let answer: Value = serde_json::from_str(json).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let rate = "sum(rate(tailbeam_requests_total%5B10s%5D))";
    let p99 = "histogram_quantile(0.99,sum%20by(le)(rate(tailbeam_system_latency_seconds_bucket%5B10s%5D)))";
    for _ in 0..300 {
        // 500 agents, 75 ms between two requests of one; of the first samples it is less.
        let offered = query(rate).is_some_and(|rate| (5_000.0..8_000.0).contains(&rate));
        if offered && query(p99).is_some_and(f64::is_finite) {
            assert_eq!(query("up"), Some(1.0));
            return;
        }
        wait_ms(100);
    }
    panic!("no such rate in 30 s: {:?}", query(rate));
}
