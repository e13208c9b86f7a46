//! The page of a certificate: the judgement, its evidence, and how to verify it without this page.

use serde_json::Value;

use super::{Block, Doc, Fact, Figure, Page, Section, Table, Tone, Unit, glossary};

/// A judgement that was not signed.
pub(super) fn judged(doc: &Doc<'_>) -> Page {
    page(doc, "/data", Vec::new(), Vec::new())
}

/// A signed statement.
pub(super) fn statement(doc: &Doc<'_>) -> Page {
    let facts = vec![
        Fact::new("Issued", [doc.figure("/predicate/issued", Unit::Text)]),
        Fact::new(
            "Judged by",
            [Figure::text("tailbeam "), doc.figure("/predicate/judged_by", Unit::Text)],
        ),
        Fact::new("Scope", [doc.figure("/predicate/scope", Unit::Text)]),
    ];
    let mut files = Table::new("Files that the signature covers", &["file", "SHA-256", "size"], 2);
    for index in 0..doc.list("/subject").len() {
        let at = |path: &str, unit| doc.figure(&format!("/subject/{index}/{path}"), unit);
        files.rows.push(vec![
            at("name", Unit::Text),
            at("digest/sha256", Unit::Text),
            at("annotations/bytes", Unit::Bytes),
        ]);
    }
    let count = files.rows.len();
    let evidence = Section {
        id: "evidence".into(),
        title: "Evidence".to_owned(),
        lead: "This page shows what the certificate says. It has verified nothing: that takes the files, the envelope and a public key that you trust.".to_owned(),
        command: Some(command(doc)),
        blocks: vec![
            Block::Text("The signature alone can be checked by openssl 3, without Tailbeam:".to_owned()),
            Block::Code(OPENSSL.to_owned()),
            Block::Fold(format!("The {count} files"), vec![Block::Table(files)]),
        ],
    };
    page(doc, "/predicate", facts, vec![evidence])
}

/// How to verify it, with the names that the policy has for what was given.
fn command(doc: &Doc<'_>) -> String {
    let given = |kind: &str| {
        let of = doc.list(&format!("/predicate/{kind}")).iter();
        let names = of.filter(|of| of["id"].is_string()).filter_map(|of| of["name"].as_str());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let (runs, series) = (given("runs"), given("series"));
    let mut command = "tailbeam verify".to_owned();
    // By name, each: the first that was given need not be the policy's first.
    runs.iter().for_each(|name| command.push_str(&format!(" --run {name}=RUN")));
    series.iter().for_each(|name| command.push_str(&format!(" --series {name}=SERIES")));
    command + " --key FILE.pub"
}

/// DSSE signs its own encoding of type and payload (PAE), not the payload.
const OPENSSL: &str = "\
jq -r .payload certificate.dsse.json | base64 -d > payload; jq -r '.signatures[0].sig' certificate.dsse.json | base64 -d > sig
{ printf 'DSSEv1 28 application/vnd.in-toto+json %d ' \"$(stat -c %s payload)\"; cat payload; } > signed
openssl pkeyutl -verify -pubin -inkey me.pem.pub -rawin -in signed -sigfile sig";

fn page(doc: &Doc<'_>, root: &str, mut facts: Vec<Fact>, more: Vec<Section>) -> Page {
    let at = |path: &str| format!("{root}{path}");
    let verdict = doc.str(&at("/verdict")).to_owned();
    facts.insert(
        0,
        Fact::new(
            "Policy",
            [
                doc.figure(&at("/policy/name"), Unit::Text),
                Figure::text(" v"),
                doc.figure(&at("/policy/version"), Unit::Count),
            ],
        ),
    );
    let mut sections = vec![gates(doc, root), runs(doc, root)];
    if !doc.list(&at("/series")).is_empty() {
        sections.push(series(doc, root));
    }
    sections.extend(policy(doc, root));
    sections.extend(more);
    Page {
        kind: "Certificate".to_owned(),
        title: doc.str(&at("/policy/name")).to_owned(),
        verdict: Some((verdict, doc.str(&at("/policy/about")).to_owned())),
        facts,
        trust: Vec::new(),
        caveats: caveats(doc, root),
        sections,
        glossary: glossary::CERTIFICATE.to_vec(),
        lost: Vec::new(),
    }
}

/// What was asked for, whole: a name and a version say it to those who have the same program only.
fn policy(doc: &Doc<'_>, root: &str) -> Option<Section> {
    let text = serde_json::to_string_pretty(doc.get(&format!("{root}/policy"))?).ok()?;
    Some(Section {
        id: "policy".into(),
        title: "Policy".to_owned(),
        lead: "What a run must be, and what is required of it.".to_owned(),
        command: None,
        blocks: vec![Block::Fold("The whole policy".to_owned(), vec![Block::Code(text)])],
    })
}

fn caveats(doc: &Doc<'_>, root: &str) -> Vec<String> {
    let mut caveats = Vec::new();
    let runs = doc.list(&format!("{root}/runs")).iter().map(|of| ("run", of));
    for (kind, run) in
        runs.chain(doc.list(&format!("{root}/series")).iter().map(|of| ("series", of)))
    {
        let name = run["name"].as_str().unwrap_or_default();
        let words = |key: &str| run[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        caveats.extend(
            words("lacks").chain(words("caveats")).map(|text| format!("{kind} {name}: {text}")),
        );
        let broken = run["validity"].as_array().into_iter().flatten();
        for check in broken.filter(|check| check["holds"] == false) {
            let word = |key: &str| check[key].as_str().unwrap_or_default();
            caveats.push(format!("run {name}: {}: {}", word("name"), word("text")));
        }
    }
    caveats
}

fn gates(doc: &Doc<'_>, root: &str) -> Section {
    let columns = ["gate", "run or series", "required", "measured", "result", "judged on"];
    let mut table = Table::new("Gates of the policy", &columns, 5);
    let mut reasons = Vec::new();
    for (index, gate) in doc.list(&format!("{root}/gates")).iter().enumerate() {
        let at = |path: &str| format!("{root}/gates/{index}/{path}");
        let verdict = doc.figure(&at("result/verdict"), Unit::Text);
        let tone = Tone::of(&verdict.text);
        if tone != Tone::Good {
            let reason = gate["result"]["reason"].as_str().unwrap_or_default();
            reasons.push(format!("{}: {reason}", gate["id"].as_str().unwrap_or_default()));
        }
        table.rows.push(vec![
            doc.figure(&at("id"), Unit::Text),
            doc.figure(&at("run"), Unit::Text),
            doc.figure(&at("result/requirement"), Unit::Text),
            doc.figure(&at("result/measured"), Unit::Text),
            verdict.toned(tone),
            doc.figure(&at("result/n"), Unit::Count),
        ]);
    }
    let mut blocks = vec![Block::Table(table)];
    if !reasons.is_empty() {
        blocks.push(Block::List(reasons));
    }
    Section {
        id: "gates".into(),
        title: "Gates".to_owned(),
        lead: "One gate that fails is a NO-GO; one that is not decided makes the certificate INCONCLUSIVE.".to_owned(),
        command: None,
        blocks,
    }
}

fn runs(doc: &Doc<'_>, root: &str) -> Section {
    let columns = [
        "name",
        "run",
        "workload",
        "started",
        "host",
        "plan (SHA-256)",
        "measured",
        "agents",
        "planned",
        "seed",
    ];
    let mut table = Table::new("Runs", &columns, 6);
    for index in 0..doc.list(&format!("{root}/runs")).len() {
        let of = |key: &str, unit| doc.figure(&format!("{root}/runs/{index}/{key}"), unit);
        let mut row: Vec<Figure> = ["name", "id", "workload", "started", "host", "plan_sha256"]
            .map(|key| of(key, Unit::Text))
            .into();
        row.extend([
            of("measured_s", Unit::Seconds),
            of("agents", Unit::Count),
            of("planned_per_s", Unit::PerSecond),
            of("seed", Unit::Count),
        ]);
        table.rows.push(row);
    }
    Section {
        id: "runs".into(),
        title: "Runs".to_owned(),
        lead: "What was judged. A run that is not what the policy needs passes no gate.".to_owned(),
        command: None,
        blocks: vec![Block::Table(table)],
    }
}

/// Series of faults, and what each scenario of them is worth.
fn series(doc: &Doc<'_>, root: &str) -> Section {
    let mut blocks = Vec::new();
    for (index, of) in doc.list(&format!("{root}/series")).iter().enumerate() {
        let name = of["name"].as_str().unwrap_or_default();
        let of = |key: &str, unit| doc.figure(&format!("{root}/series/{index}/{key}"), unit);
        let columns = [
            "series",
            "started",
            "host",
            "under load",
            "agents",
            "planned",
            "shortest fault",
            "seed",
        ];
        let mut table = Table::new(&format!("Series {name}"), &columns, 3);
        table.rows.push(vec![
            of("id", Unit::Text),
            of("started", Unit::Text),
            of("host", Unit::Text),
            of("loaded_ns", Unit::Ns),
            of("agents", Unit::Count),
            of("planned_per_s", Unit::PerSecond),
            of("shortest_hold_ns", Unit::Ns),
            of("seed", Unit::Count),
        ]);
        blocks.push(Block::Table(table));
        let scenarios = scenarios(doc, &format!("{root}/series/{index}/scenarios"));
        if !scenarios.rows.is_empty() {
            blocks.push(Block::Table(scenarios));
        }
    }
    Section {
        id: "series".into(),
        title: "Series of faults".to_owned(),
        lead: "Faults injected under load. Each was judged anew by what every subject counted; the recovery is the longest of all injections, from the revert.".to_owned(),
        command: None,
        blocks,
    }
}

fn scenarios(doc: &Doc<'_>, root: &str) -> Table {
    let columns =
        ["scenario", "worth", "faults", "injections", "fewest of one", "longest recovery"];
    let mut table = Table::new("Scenarios", &columns, 2);
    for (index, scenario) in doc.list(root).iter().enumerate() {
        let of = |key: &str, unit| doc.figure(&format!("{root}/{index}/{key}"), unit);
        let verdict = of("verdict", Unit::Text);
        let tone = Tone::of(&verdict.text);
        let mut longest = of("longest_ns", Unit::Ns);
        if scenario["longer"] == true {
            longest.text.insert_str(0, "> ");
        }
        table.rows.push(vec![
            of("name", Unit::Text),
            verdict.toned(tone),
            of("faults", Unit::Count),
            of("injections", Unit::Count),
            of("fewest", Unit::Count),
            longest,
        ]);
    }
    table
}
