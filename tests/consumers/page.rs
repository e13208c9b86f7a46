//! The HTML report in headless Chromium (playwright-core), looked at by axe-core and html-validate.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tailbeam::render::leaks::{Leaks, json};
use tailbeam::render::page;
use tailbeam::render::pages::{self, Cell, Page, Part, Picture, Sheet};
use tailbeam_harness::compare::scale::{Cost, Series, series};
use tailbeam_harness::compare::{
    Comparison, Recipe, Role, Rules, RunFigures, Side, Sources, Trial, TrialRun, compare, design,
};
use tailbeam_harness::report::Measured;
use tailbeam_harness::verdict::Outcomes;
use tailbeam_probes::stats::Histogram;

use super::Made;
use super::latency_fixture::Run;
use super::programs::{consumer, npm, run};

/// What a run may be called by somebody who wants to be more than text.
const HOSTILE: &str =
    "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u{2028}{{7*7}}";

/// Node and a browser, where they are.
fn browser() -> Option<(PathBuf, PathBuf)> {
    let found = |name: &str| {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|file| file.is_file())
    };
    let node = found("node")
        .or_else(|| Some(npm().join("node_modules/node/bin/node")).filter(|path| path.exists()));
    let chromium = found("chromium-headless-shell").or_else(|| found("chromium"));
    let packages = ["playwright-core", "axe-core", "html-validate"];
    let packages = packages.iter().all(|name| npm().join("node_modules").join(name).is_dir());
    let both = node.zip(chromium).filter(|_| packages);
    consumer("Chromium with playwright-core, axe-core and html-validate", both.is_some());
    both
}

/// What a command prints as JSON; null where it prints none.
fn command(words: &[&str]) -> Value {
    let words = std::iter::once("tailbeam").chain(words.iter().copied()).map(OsString::from);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    tailbeam::run(words, tailbeam::workloads![tailbeam::Elicit], &mut out, &mut err);
    assert!(
        !String::from_utf8_lossy(&err).starts_with("error"),
        "{}",
        String::from_utf8_lossy(&err)
    );
    serde_json::from_slice(&out).unwrap_or_default()
}

/// The document of a run whose names are hostile, with a heap that leaks.
fn document(dir: &Path) -> Value {
    let mut run = Run::new();
    // The limit that the plan's own gate is judged by.
    run.manifest.limits_ns = vec![300_000_000];
    run.manifest.workload = HOSTILE.to_owned();
    run.manifest.host = format!("kernel {HOSTILE}");
    for of in &mut run.manifest.unknowns {
        of.remedy = HOSTILE.to_owned();
    }
    run.write(dir);
    let mut document = command(&["report", dir.to_str().unwrap(), "--format", "json"]);
    let made = Made::new(|snapshot| {
        snapshot.command = HOSTILE.to_owned();
        snapshot.owner_names = (0..100).map(|owner| (owner, HOSTILE.to_owned())).collect();
    });
    let leaks = Leaks {
        run: HOSTILE,
        snapshot: &made.snapshot,
        symbols: &made.symbols,
        profile: &made.profile,
        report: &made.report,
        others: &[],
        waits: super::fixture::waits(),
        base: None,
        available_bytes: None,
    };
    document["data"]["leaks"] = json::summary(&leaks);
    document
}

/// Opens a page in all ways; what was seen.
fn open(page: &Path, json: &Path) -> Option<Value> {
    let (node, chromium) = browser()?;
    let pictures = match std::env::var_os("TAILBEAM_TEST_PICTURES") {
        Some(place) => PathBuf::from(place),
        None => page.parent().unwrap().join("pictures"),
    };
    fs::create_dir_all(&pictures).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("consumers/page.mjs");
    let mut command = Command::new(node);
    command
        .arg(script)
        .arg(npm().canonicalize().unwrap())
        .arg(chromium)
        .arg(page)
        .arg(json)
        .arg(pictures);
    Some(serde_json::from_str(&run(&mut command)).unwrap())
}

/// What must hold of every page in a browser.
fn holds(seen: &Value) {
    for view in seen["views"].as_array().unwrap() {
        assert_eq!(view["requests"].as_array().unwrap().len(), 1, "{view:#}");
        assert_eq!(view["said"], serde_json::json!([]), "{view:#}");
        assert_eq!(view["violations"], serde_json::json!([]), "{view:#}");
        assert!(view["wider"].as_i64().unwrap() <= 0, "the page scrolls sideways: {view:#}");
    }
    assert_eq!(seen["wrong"], serde_json::json!([]), "figures are the document's");
    assert_eq!((&seen["embedded"], &seen["strange"]), (&true.into(), &0.into()));
    assert_eq!(seen["scripts"], 1);
}

/// html-validate's complaints of a file.
fn valid(file: &Path) {
    let dir = file.parent().unwrap();
    fs::write(
        dir.join(".htmlvalidate.json"),
        r#"{"root": true, "extends": ["html-validate:recommended", "html-validate:document"], "rules": {"require-csp-nonce": "off", "no-raw-characters": ["error", {"relaxed": true}]}}"#,
    )
    .unwrap();
    let mut command = Command::new(npm().join("node_modules/.bin/html-validate"));
    let output =
        command.arg("--formatter").arg("text").arg(file).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

fn written(document: &Value, dir: &Path) -> (PathBuf, PathBuf) {
    let (page_file, json_file) = (dir.join("page.html"), dir.join("document.json"));
    let page = page::page(document);
    assert_eq!(page.lost, Vec::<String>::new(), "every pointer of the page leads somewhere");
    let mut html = Vec::new();
    page::html(&page, document, &mut html).unwrap();
    assert!(html.len() < 2 << 20, "{} bytes", html.len());
    fs::write(&page_file, html).unwrap();
    fs::write(&json_file, document.to_string()).unwrap();
    (page_file, json_file)
}

#[test]
fn a_soaks_page_holds_in_a_browser_whatever_its_names_are() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    fs::create_dir_all(&run_dir).unwrap();
    let document = document(&run_dir);
    let (page, json) = written(&document, dir.path());
    let Some(seen) = open(&page, &json) else { return };
    holds(&seen);
    assert!(seen["figures"].as_u64().unwrap() > 400, "{}", seen["figures"]);
    let text = seen["text"].as_str().unwrap();
    assert!(text.contains(document["data"]["verdict"].as_str().unwrap()));
    for gate in document["data"]["gates"].as_array().unwrap() {
        assert!(text.contains(gate["gate"].as_str().unwrap()), "{gate}");
        assert!(text.contains(gate["verdict"].as_str().unwrap()), "{gate}");
    }
    assert!(text.contains("<script>alert(1)</script>"), "hostile names stay text");
    assert!(seen["cursor"].as_str().unwrap().contains("served"), "{}", seen["cursor"]);
    valid(&page);
}

/// The checks above can fail: a page with a figure edited, a script put in, an image fetched.
#[test]
fn a_page_that_was_tampered_with_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let run_dir = dir.path().join("run");
    fs::create_dir_all(&run_dir).unwrap();
    let document = document(&run_dir);
    let (page, json) = written(&document, dir.path());
    let html = fs::read_to_string(&page).unwrap();
    let edits: [(&str, &str, &str); 3] = [
        ("value=\"6000\"", "value=\"6001\"", "wrong"),
        ("<h1>", "<h1><img alt=\"\" src=\"https://example.org/x.png\">", "strange"),
        ("<html lang=\"en\">", "<html>", "violations"),
    ];
    for (from, to, what) in edits {
        assert!(html.contains(from), "{from}");
        fs::write(&page, html.replacen(from, to, 1)).unwrap();
        let Some(seen) = open(&page, &json) else { return };
        let view = &seen["views"][0];
        let found = match what {
            "wrong" => !seen["wrong"].as_array().unwrap().is_empty(),
            "strange" => seen["strange"] == 1,
            _ => !view["violations"].as_array().unwrap().is_empty(),
        };
        assert!(found, "{what}: {seen:#}");
    }
}

/// A comparison, a series of fleets and one of faults are written this way.
#[test]
fn a_page_of_lines_and_tables_holds_whatever_its_names_are() {
    let dir = tempfile::tempdir().unwrap();
    let sheet = Sheet {
        head: vec!["metric".to_owned(), "A".to_owned(), HOSTILE.to_owned()],
        rows: vec![
            vec![
                HOSTILE.to_owned().into(),
                Cell { text: "88.0 us".to_owned(), at: Some("/p99".to_owned()) },
                "-".to_owned().into(),
            ];
            2
        ],
        words: 1,
    };
    let of = Page {
        title: format!("Comparison  {HOSTILE}"),
        verdict: Some(("NO-GO".to_owned(), HOSTILE.to_owned())),
        again: Some(format!("tailbeam compare --from {HOSTILE}")),
        parts: vec![
            Part::Line(HOSTILE.to_owned()),
            Part::Table(Sheet { words: 0, ..sheet.clone() }),
            Part::Heading("Pairs".to_owned()),
            Part::Caveat(HOSTILE.to_owned()),
            Part::Table(sheet),
            Part::Heading("Pairs".to_owned()),
            Part::Chart(Picture { lines: vec![format!("10 |### {HOSTILE}")], drawn: None }),
        ],
    };
    let document =
        serde_json::json!({"schema": "tailbeam.comparison", "data": HOSTILE, "p99": 88_000});
    let (page, json) = (dir.path().join("page.html"), dir.path().join("document.json"));
    let mut html = Vec::new();
    pages::html(&of, &document, &mut html).unwrap();
    fs::write(&page, html).unwrap();
    fs::write(&json, document.to_string()).unwrap();
    let Some(seen) = open(&page, &json) else { return };
    holds(&seen);
    let text = seen["text"].as_str().unwrap();
    assert_eq!(seen["figures"], 4, "two of each table");
    for said in ["NO-GO", "<script>alert(1)</script>", "88.0 us", "10 |###"] {
        assert!(text.contains(said), "{said}");
    }
    valid(&page);
}

#[test]
fn the_page_of_a_certificate_and_of_any_document_hold_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (store, run_dir) = (dir.path().join("store"), dir.path().join("store/run"));
    fs::create_dir_all(&run_dir).unwrap();
    document(&run_dir);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let key = dir.path().join("key.pem");
    command(&["certify", "--new-key", &text(&key)]);
    command(&["certify", &text(&run_dir), "--key", &text(&key)]);
    let certificate =
        command(&["report", &text(&run_dir.join("certificate.dsse.json")), "--format", "json"]);
    assert!(certificate["predicate"]["verdict"].is_string(), "{certificate:#}");
    let runs = command(&["--store", &text(&store), "runs", "list", "--format", "json"]);
    for (document, wanted) in [(certificate, "INCONCLUSIVE"), (runs, "<script>")] {
        let (page, json) = written(&document, dir.path());
        let Some(seen) = open(&page, &json) else { return };
        holds(&seen);
        assert!(seen["text"].as_str().unwrap().contains(wanted), "{wanted}");
        valid(&page);
    }
}

/// Side B at twice the P99 of A, in six pairs and two of A against itself.
fn comparison() -> Comparison {
    let run =
        |role, id: String| TrialRun { role, run: Measured::Known(id), steal: Measured::Known(0.0) };
    let trials = (0..8).map(|block| {
        let other = if block < 6 { Role::B } else { Role::A2 };
        let runs = [Role::A, other].map(|role| run(role, format!("{block}-{role:?}-{HOSTILE}")));
        Trial { seed: block, runs: runs.to_vec() }
    });
    let side =
        |name: &str| Side { name: format!("{name} {HOSTILE}"), args: Vec::new(), program: None };
    let recipe = Recipe {
        version: 1,
        id: HOSTILE.to_owned(),
        started: "2026-01-01T00:00:00Z".to_owned(),
        a: side("elicitation"),
        b: side("polling"),
        shared: vec![HOSTILE.to_owned()],
        design: Some(design(1, 6, 2)),
        rules: Rules::default(),
        sweep: Vec::new(),
        chosen: None,
        unfit: Vec::new(),
        trials: trials.collect(),
        stopped: false,
    };
    let level = |id: &str| if id.contains("-B-") { 2.0 } else { 1.0 };
    let noise = |id: &str| 1.0 + id.bytes().next().map_or(0.0, f64::from) / 1e4;
    let figures = |id: &str| {
        let ns = |ns: f64| Measured::Known(ns * level(id) * noise(id));
        let outcomes = Outcomes { attempts: 10, ok: 10, ..Outcomes::default() };
        Measured::Known(RunFigures {
            run: id.to_owned(),
            workload: HOSTILE.to_owned(),
            agents: 10_000,
            seed: 1,
            p50_ns: ns(1e6),
            p99_ns: ns(9e6),
            offered_per_s: Measured::Known(1_000.0),
            throughput_per_s: Measured::Known(1_000.0),
            cpu_per_op_ns: Measured::unknown(HOSTILE, HOSTILE),
            delivery: Measured::Known(1.0),
            outcomes: Measured::Known(outcomes),
            finished: true,
            stall: None,
            others: Measured::Known(0.0),
        })
    };
    let latency = |id: &str| {
        let mut all = Histogram::new();
        let ms = |n: u64| (n as f64 * 1e3 * level(id)).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small")]
        (1..20_000u64).for_each(|n| all.record(ms(n) as u64));
        Measured::Known(all)
    };
    let waits = |_: &str| Measured::unknown("no sweep", "none is needed");
    compare(&recipe, Vec::new(), &Sources { figures: &figures, waits: &waits, latency: &latency })
}

/// What is drawn of ratios, percentiles and fleets.
#[test]
fn the_pictures_of_comparisons_and_of_series_hold_as_well() {
    let of = comparison();
    assert_eq!(of.pairs.len(), 6);
    let cost = |agents: u64| {
        let figures = of.pairs[0].a.clone();
        let p99_ns = Measured::Known(1e6 * agents as f64);
        Measured::Known(Cost {
            figures: RunFigures { agents, p99_ns, ..figures },
            planned_per_s: 1_000.0,
            lateness_p99_ns: Measured::Known(1_000),
            live_min: Measured::Known(agents),
            bytes_per_agent: Measured::Known(400.0),
            rss_per_agent: Measured::unknown(HOSTILE, HOSTILE),
            core_max: Measured::Known(0.5),
            slowest: Measured::unknown(HOSTILE, HOSTILE),
            log: None,
        })
    };
    let mut points: Vec<_> = [10, 100, 1_000].map(|agents| (agents, cost(agents))).to_vec();
    points.push((10_000, Measured::unknown(HOSTILE, HOSTILE)));
    let identity = (HOSTILE.to_owned(), "2026-01-01T00:00:00Z".to_owned());
    let series = Series {
        none_below: Some(HOSTILE.to_owned()),
        ..series(identity, vec![HOSTILE.to_owned()], 300_000_000, points, false)
    };
    let documents = [
        (pages::comparison(&of), serde_json::json!({"schema": "tailbeam.compare", "data": of}), 80),
        (
            pages::series(&series),
            serde_json::json!({"schema": "tailbeam.scale", "data": series}),
            30,
        ),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (place, (page, document, figures)) in documents.into_iter().enumerate() {
        let dir = dir.path().join(place.to_string());
        fs::create_dir_all(&dir).unwrap();
        let (file, json) = (dir.join("page.html"), dir.join("document.json"));
        let mut html = Vec::new();
        pages::html(&page, &document, &mut html).unwrap();
        fs::write(&file, html).unwrap();
        fs::write(&json, document.to_string()).unwrap();
        let Some(seen) = open(&file, &json) else { return };
        holds(&seen);
        assert!(seen["figures"].as_u64().unwrap() >= figures, "{}", seen["figures"]);
        assert!(seen["text"].as_str().unwrap().contains("<script>alert(1)</script>"));
        let drawn = fs::read_to_string(&file).unwrap().matches("role=\"img\"").count();
        assert!(drawn >= 3, "{drawn} pictures");
        valid(&file);
    }
}
