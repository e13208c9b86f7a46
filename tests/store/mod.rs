//! The runs of a store: marks, removal, damage, rows for other tools, reports in every form. The runs are
//! made by hand, so nothing has to be waited for.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tailbeam::render::page::{self, Block};

use crate::latency::fixture::Run;

struct Store(tempfile::TempDir);

impl Store {
    fn new(ids: &[&str]) -> Self {
        let store = Self(tempfile::tempdir().unwrap());
        for id in ids {
            store.add(id, |_| {});
        }
        store
    }

    fn add(&self, id: &str, change: impl FnOnce(&mut Run)) {
        let mut run = Run::new();
        run.manifest.id = id.to_owned();
        run.manifest.limits_ns = vec![300_000_000];
        change(&mut run);
        fs::create_dir_all(self.dir(id)).unwrap();
        run.write(&self.dir(id));
    }

    fn dir(&self, id: &str) -> PathBuf {
        self.0.path().join(id)
    }

    /// Exit code, stdout, stderr.
    fn run(&self, line: &str) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let words = ["tailbeam", "--store"].map(OsString::from).into_iter();
        let words = words.chain([self.0.path().as_os_str().to_owned()]);
        let words = words.chain(line.split(' ').map(OsString::from));
        let code = tailbeam::run(words, tailbeam::workloads![tailbeam::Elicit], &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
        out
    }

    fn json(&self, line: &str) -> Value {
        let (_, out, err) = self.run(&format!("{line} --format json"));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}: {err}"))
    }

    fn refused(&self, line: &str, code: u8, text: &str) {
        let (found, out, err) = self.run(line);
        assert_eq!((found, out.as_str()), (code, ""), "{line}: {err}");
        assert!(err.contains(text) && err.contains("remedy:"), "{line}: {err}");
    }

    fn ids(&self) -> Vec<String> {
        let runs = self.json("runs list");
        let runs = runs["data"].as_array().unwrap().iter();
        runs.map(|run| run["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Health and findings of a run, as fsck says them.
    fn health(&self, id: &str) -> (u8, Value) {
        let (code, out, _) = self.run(&format!("runs fsck {id} --format json"));
        let value: Value = serde_json::from_str(&out).unwrap();
        (code, value["data"]["runs"][0].clone())
    }
}

const A: &str = "20261124-070000-000";
const B: &str = "20261125-070000-000";

#[test]
fn tags_name_runs_and_pins_keep_them() {
    let store = Store::new(&[A, B]);
    assert_eq!(store.ok(&format!("runs tag {A} base")), format!("@base is {A}\n"));
    assert_eq!(store.ok("runs path @base").trim(), store.dir(A).display().to_string());
    assert!(store.json("report @base")["data"]["run"]["id"] == A);
    assert!(store.ok("runs tag @last @base").contains(&format!("@base is {B}; it was {A}")));
    let listed = store.json("runs list");
    assert_eq!(listed["data"][1]["tags"], serde_json::json!(["base"]));
    store.ok(&format!("runs pin {A}"));
    store.refused(&format!("runs rm {B} {A} --yes"), 1, "pinned");
    assert_eq!(store.ids(), [A, B], "nothing goes when one may not");
    store.ok(&format!("runs pin {A} --remove"));
    assert!(store.ok(&format!("runs rm {A}")).contains("nothing was removed: add --yes"));
    assert_eq!(store.ids(), [A, B]);
    store.ok(&format!("runs rm {A} --yes"));
    assert_eq!(store.ids(), [B]);
    store.ok("runs tag --remove base");
    store.refused("report @base", 1, "no run named");
    for (line, code, text) in [
        ("runs tag @last last", 2, "newest"),
        ("runs tag @last a~1", 2, "cannot be a tag"),
        ("runs tag --remove nothing", 1, "no run is tagged"),
        ("runs show nothing", 1, "no run named"),
        ("runs rm nothing --yes", 1, "no run named"),
        ("runs gc", 2, "--older-than"),
    ] {
        store.refused(line, code, text);
    }
    let shown = store.ok("runs show @last");
    assert!(shown.contains("seg/0000.log") && shown.contains("plan.toml"), "{shown}");
}

#[test]
fn gc_takes_the_oldest_and_only_with_yes() {
    let store = Store::new(&[]);
    for (id, day) in [("a", 1), ("b", 2), ("c", 3)] {
        store.add(id, |run| run.manifest.started_unix_ns = day * 86_400_000_000_000);
    }
    store.ok("runs pin a");
    let gc = "runs gc --older-than 30d --keep 1";
    let said = store.ok(gc);
    assert!(said.contains("stays     a  pinned") && said.contains("would go  b"), "{said}");
    assert_eq!(store.ids(), ["a", "b", "c"]);
    fs::create_dir_all(store.0.path().join(".removed-x/seg")).unwrap();
    assert!(store.ok(&format!("{gc} --yes")).contains(".removed-x"));
    assert_eq!(store.ids(), ["a", "c"]);
    assert!(!store.0.path().join(".removed-x").exists());
    let all = store.ok("runs gc --max 1");
    assert!(all.contains("would go  c") && all.contains("still"), "{all}");
    // One without an end that has just been written may be live.
    store.add("d", |run| run.sealed = false);
    assert!(store.ok("runs gc --max 1").contains("stays     d"), "{all}");
}

#[test]
fn fsck_names_file_and_offset_of_damage_and_keeps_what_is_whole() {
    let store = Store::new(&[A]);
    let segment = store.dir(A).join("seg/0000.log");
    let whole = fs::read(&segment).unwrap();
    assert_eq!(store.health(A), (0, store.health(A).1));
    assert_eq!(store.health(A).1["health"], "whole", "{:#}", store.health(A).1);
    // Any byte, anywhere.
    for at in (0..whole.len()).step_by(whole.len() / 60) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&segment, &flipped).unwrap();
        let (code, run) = store.health(A);
        let worst = run["health"].as_str().unwrap();
        let last = at + 400 > whole.len();
        assert!(worst != "whole" && (code == 6 || last), "byte {at}: {run:#}");
        let placed = run["findings"].as_array().unwrap().iter().any(|of| {
            of["file"] == "seg/0000.log"
                && of["offset"].as_u64().is_some_and(|found| found <= at as u64)
        });
        assert!(placed, "byte {at}: {run:#}");
    }
    // Cut: what was synced is there.
    fs::write(&segment, &whole[..whole.len() - 200]).unwrap();
    let (code, run) = store.health(A);
    assert_eq!((code, &run["health"]), (0, &"unsealed".into()), "{run:#}");
    assert!(run["frames"].as_u64().unwrap() > 10);
    assert_eq!(store.run("runs fsck --strict").0, 6);
    let text = store.ok("runs fsck");
    assert!(text.contains("seg/0000.log at byte") && text.contains("torn tail"), "{text}");
    fs::write(&segment, &whole).unwrap();
    for (file, bytes, health) in [
        ("heap.tbh", &b"no heap state"[..], "damaged"),
        ("host.json", b"{", "damaged"),
        ("certificate.dsse.json", b"x", "damaged"),
        ("plan.toml", b"agents = 5\n", "unreadable"),
    ] {
        let path = store.dir(A).join(file);
        let before = fs::read(&path).ok();
        fs::write(&path, bytes).unwrap();
        let (code, run) = store.health(A);
        assert_eq!((code, &run["health"]), (6, &health.into()), "{file}: {run:#}");
        assert!(run["findings"].as_array().unwrap().iter().any(|of| of["file"] == file), "{run:#}");
        match before {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    }
    assert_eq!(store.health(A).1["health"], "whole");
    // A mark of a run that is gone.
    store.ok(&format!("runs pin {A}"));
    fs::remove_dir_all(store.dir(A)).unwrap();
    assert!(store.ok("runs fsck").contains("is no run of this store"));
}

#[test]
fn rows_hold_the_figures_of_the_frames() {
    let store = Store::new(&[A]);
    let out = store.ok("export @last --to jsonl");
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 6);
    let sum = |key: &str| rows.iter().map(|row| row[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("attempts"), sum("latency_count")), (6_000, 6_000));
    assert_eq!(rows[1]["from"], "2026-11-30T00:53:30.000Z");
    assert!(rows[0]["latency_p999_ns"].is_u64() && rows[0]["rss_bytes"] == 1 << 20);
    let cores = store.ok("export @last --to jsonl --rows cores --from 10s --until 20s");
    let cores: Vec<Value> = cores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(cores.iter().map(|row| row["core"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(
        (&cores[0]["turns_ns"], &cores[0]["task_clock_ns"]),
        (&3_400_000_000u64.into(), &3_300_000_000u64.into())
    );
    assert_eq!(
        (&cores[0]["cycles"], &cores[0]["cycles_quality"]),
        (&Value::Null, &"unknown".into())
    );
    assert!(cores[0]["unknown"]["cycles"].as_str().unwrap().contains("no PMU"));
    // The same as CSV: as many cells in each line as names.
    let csv = store.ok("export @last --to csv --rows cores");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 13);
    let commas = |line: &str| line.matches(',').count();
    assert!(lines.iter().all(|line| commas(line) == commas(lines[0])), "{csv}");
}

/// Every figure of a page's tables.
fn figures(blocks: &[Block], found: &mut Vec<String>) {
    for block in blocks {
        match block {
            Block::Table(table) => {
                found.extend(table.rows.iter().flatten().map(|of| of.text.clone()))
            }
            Block::Facts(facts) => {
                found.extend(facts.iter().flat_map(|fact| &fact.figures).map(|of| of.text.clone()));
            }
            Block::Fold(_, inner) => figures(inner, found),
            Block::Card(card) => figures(&card.blocks, found),
            _ => {}
        }
    }
}

#[test]
fn every_form_of_a_report_has_the_same_figures() {
    let store = Store::new(&[A]);
    let document = store.json("report @last");
    let (_, schema, _) = store.run("report --schema");
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    schema.validate(&document).unwrap();
    let made = page::page(&document);
    assert_eq!(made.lost, Vec::<String>::new(), "every pointer leads somewhere");
    let mut wanted = Vec::new();
    made.sections.iter().for_each(|section| figures(&section.blocks, &mut wanted));
    assert!(wanted.len() > 500, "{}", wanted.len());
    let (_, text, _) = store.run("report @last --format text");
    let (_, markdown, _) = store.run("report @last --format markdown");
    let (_, html, _) = store.run("report @last --format html");
    let unmarked = markdown.replace('\\', "");
    let entities = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    for figure in wanted.iter().filter(|figure| !figure.is_empty()) {
        assert!(text.contains(figure.as_str()), "{figure:?} is not in the text");
        assert!(unmarked.contains(figure.as_str()), "{figure:?} is not in the Markdown");
        assert!(html.contains(&entities(figure)), "{figure:?} is not in the HTML");
    }
    let file = store.0.path().join("r.html");
    let (code, out, err) = store.run(&format!("report @last -o {}", file.display()));
    assert!(matches!(code, 3 | 4) && out.is_empty(), "{code}: {err}");
    assert_eq!(fs::read_to_string(&file).unwrap(), html);
    // A document of ours is shown as well, and no other file.
    fs::write(store.0.path().join("d.json"), store.ok("runs list --format json")).unwrap();
    assert!(store.ok(&format!("report {}/d.json", store.0.path().display())).contains(A));
    fs::write(store.0.path().join("x.json"), "{}").unwrap();
    store.refused(&format!("report {}/x.json", store.0.path().display()), 6, "no document of ours");
    store.refused("report @last -o /nowhere/r.html", 1, "cannot write");
}

/// Whether a program can be used here; says so when not.
#[expect(clippy::print_stderr, reason = "a test that skips must say so")]
fn can(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed");
    }
    found
}

fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out.into_owned()
}

#[test]
fn shells_take_the_completions_and_man_the_pages() {
    let store = Store::new(&[]);
    let dir = store.0.path();
    for shell in ["bash", "zsh", "fish"] {
        let file = dir.join(shell);
        fs::write(&file, store.ok(&format!("completions {shell}"))).unwrap();
        if can(shell) {
            succeeds(Command::new(shell).arg("-n").arg(&file));
        }
    }
    if can("bash") {
        let script = format!(
            "source {}; COMP_WORDS=(tailbeam re); COMP_CWORD=1; _tailbeam tailbeam re tailbeam; echo ${{COMPREPLY[@]}}",
            dir.join("bash").display()
        );
        let words = succeeds(Command::new("bash").args(["-c", &script]));
        assert!(words.contains("report") && words.contains("record"), "{words}");
    }
    if can("fish") {
        let script = format!("source {}; complete -C 'tailbeam do'", dir.join("fish").display());
        assert!(succeeds(Command::new("fish").args(["-c", &script])).contains("doctor"));
    }
    store.ok(&format!("man {}", dir.join("man1").display()));
    let pages: Vec<PathBuf> =
        fs::read_dir(dir.join("man1")).unwrap().map(|of| of.unwrap().path()).collect();
    assert!(pages.iter().any(|path| path.ends_with(Path::new("tailbeam-runs-gc.1"))), "{pages:?}");
    if can("mandoc") {
        for page in &pages {
            succeeds(Command::new("mandoc").args(["-Tlint", "-W", "error"]).arg(page));
        }
    }
    store.refused("man /proc/nowhere", 1, "cannot write man pages");
}

#[test]
fn settings_from_a_file_stand_behind_flags_and_say_where_they_are_from() {
    let store = Store::new(&[]);
    let file = store.0.path().join("ci.toml");
    fs::write(&file, "[soak]\nagents = \"5k\"\n[demo]\nduration = \"20s\"\n").unwrap();
    let line = |rest: &str| format!("--config {} {rest}", file.display());
    let shown = store.ok(&line("config show --origin"));
    let row =
        |key: &str| shown.lines().find(|line| line.trim().starts_with(key)).unwrap().to_owned();
    assert!(
        row("soak.agents").contains("5k") && row("soak.agents").contains("ci.toml:2"),
        "{shown}"
    );
    assert!(
        row("soak.duration").contains("60s") && row("soak.duration").contains("default"),
        "{shown}"
    );
    assert!(store.ok(&line("config check")).contains("ci.toml"));
    fs::write(&file, "[soak]\nagentes = 5\n").unwrap();
    let (code, out, err) = store.run(&line("runs list"));
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("ci.toml:2") && err.contains("did you mean \"agents\"?"), "{err}");
    let (code, _, err) = store.run("--config /nowhere.toml runs list");
    assert!(code == 2 && err.contains("cannot read /nowhere.toml"), "{err}");
}
