//! What a user reads of a leak report, from values made by hand: texts checked by eye, JSON against the
//! published schema.

pub(crate) mod fixture;

use serde_json::Value;
use tailbeam::render::leaks::{self, By, Leaks, Page, json};
use tailbeam_probes::Unavailable;
use tailbeam_probes::analyse::leak::{LeakConfig, LeakReport, Soak, Verdict, plan};
use tailbeam_probes::analyse::profile::{Frames, HeapProfile};
use tailbeam_probes::analyse::symbols::Symbols;
use tailbeam_probes::record::heap::HeapSnapshot;

struct Made {
    snapshot: HeapSnapshot,
    symbols: Symbols,
    profile: HeapProfile,
    report: LeakReport,
}

fn made() -> Made {
    let (snapshot, symbols) = fixture::heap();
    let profile = HeapProfile::of(&snapshot, &symbols, Frames::Program);
    Made { profile, report: fixture::report(), snapshot, symbols }
}

impl Made {
    fn view(&self) -> Leaks<'_> {
        Leaks {
            run: "20261124-070000-000",
            snapshot: &self.snapshot,
            symbols: &self.symbols,
            profile: &self.profile,
            report: &self.report,
            others: &[],
            waits: fixture::waits(),
            base: None,
            available_bytes: Some(8 << 30),
        }
    }
}

const WIDE: Page = Page { width: None, top: 20, calls: 8 };

fn text(draw: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    draw(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Compares with the text kept beside this file; `TAILBEAM_UPDATE_TEXTS=1` writes it anew, to be read
/// before it is committed.
fn check(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("leaks/texts").join(name);
    if std::env::var_os("TAILBEAM_UPDATE_TEXTS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{} differs", path.display());
}

#[test]
fn texts_are_as_they_were_read() {
    let made = made();
    let view = made.view();
    check("list.txt", &text(|out| leaks::list(&view, WIDE, out)));
    check("tree.txt", &text(|out| leaks::tree(&view, WIDE, out)));
    check("objects.txt", &text(|out| leaks::objects(&view, WIDE, out)));
    for by in [By::Site, By::Agent, By::Core, By::Size] {
        check(&format!("by-{}.txt", by.name()), &text(|out| leaks::table(&view, by, WIDE, out)));
    }
}

#[test]
fn an_agent_that_leaks_alone_is_listed_and_without_a_leak_the_largest_are() {
    let mut made = made();
    made.report.verdict = Verdict::Suspect;
    made.report.sites[0].finding.verdict = Verdict::Clean;
    let mut own = made.report.sites[0].owners[0].clone();
    own.finding.rate = made.report.sites[0].finding.rate;
    made.report.sites[0].owners[0] = own;
    let drawn = text(|out| leaks::list(&made.view(), WIDE, out));
    assert!(drawn.contains("#1 LEAK  exchange::book::Book::apply"), "{drawn}");
    let agent =
        "agent     pricer-17 +1.90 MiB/h [+1.71 MiB, +2.08 MiB]; the site as a whole is CLEAN";
    assert!(drawn.contains(agent) && !drawn.contains("Most live"), "{drawn}");
    made.report.sites.remove(0);
    check("list-without-leak.txt", &text(|out| leaks::list(&made.view(), WIDE, out)));
}

fn document(view: &Leaks<'_>, by: By, objects: bool) -> Value {
    serde_json::from_str(&text(|out| json::write(view, by, objects, out))).unwrap()
}

#[test]
fn the_document_keeps_its_schema_in_every_form() {
    let schema: Value = serde_json::from_str(json::LEAKS_SCHEMA).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let made = made();
    let mut view = made.view();
    for by in [By::Site, By::Agent, By::Core, By::Size] {
        for objects in [false, true] {
            let printed = document(&view, by, objects);
            let errors: Vec<String> = schema
                .iter_errors(&printed)
                .map(|e| format!("{} at {}", e, e.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{errors:?}");
        }
    }
    view.base = Some(("earlier", &made.profile));
    view.available_bytes = None;
    schema.validate(&document(&view, By::Site, true)).unwrap();
    let why = Unavailable {
        source: "the runtime's registry",
        cause: "no registry".to_owned(),
        remedy: "use one".to_owned(),
    };
    view.waits = Err(&why);
    assert_eq!(document(&view, By::Site, false)["data"]["waits"]["unknown"], "no registry");
    assert!(text(|out| leaks::list(&view, WIDE, out)).contains("unknown (no registry; use one)"));
    schema.validate(&document(&view, By::Site, true)).unwrap();
    // The schema refuses what it should: a figure without its unit, a verdict of its own.
    view.waits = fixture::waits();
    let good = document(&view, By::Site, false);
    for (path, bad) in [
        ("/data/verdict", Value::from("FINE")),
        ("/data/sites/0/finding/rate_bytes_per_h", Value::Null),
        ("/data/live/rows/0/bytes", Value::from(1.5)),
        ("/data/waits", Value::Null),
        ("/data/waits/waiting/0/wait_for", Value::from("me")),
    ] {
        let mut broken = good.clone();
        *broken.pointer_mut(path).unwrap() = bad;
        assert!(!schema.is_valid(&broken), "{path}");
    }
}

#[test]
fn tables_and_documents_hold_the_same_whole_numbers() {
    let made = made();
    let view = made.view();
    for by in [By::Site, By::Agent, By::Core, By::Size] {
        let live = &document(&view, by, false)["data"]["live"];
        let rows = live["rows"].as_array().unwrap();
        let sum: i64 = rows.iter().map(|row| row["bytes"].as_i64().unwrap()).sum();
        assert_eq!(live["total"]["bytes"], sum, "by {}", by.name());
        let table = text(|out| leaks::table(&view, by, WIDE, out));
        for row in rows {
            let bytes = tailbeam::render::units::count(row["bytes"].as_u64().unwrap());
            assert!(table.contains(&bytes), "{bytes} is not in\n{table}");
        }
    }
    let objects = &document(&view, By::Site, true)["data"]["objects"];
    let sum: i64 =
        objects.as_array().unwrap().iter().map(|object| object["bytes"].as_i64().unwrap()).sum();
    assert_eq!(sum, made.profile.live_total().bytes);
}

#[test]
fn a_page_cuts_names_and_nothing_when_piped() {
    let made = made();
    let view = made.view();
    let narrow = Page { width: Some(60), top: 2, calls: 8 };
    for drawn in [
        text(|out| leaks::table(&view, By::Site, narrow, out)),
        text(|out| leaks::tree(&view, narrow, out)),
    ] {
        let rows = drawn.lines().skip(2).filter(|line| !line.starts_with("  ! "));
        assert!(rows.clone().all(|line| line.chars().count() <= 60), "{drawn}");
        assert!(rows.clone().any(|line| line.contains('…')), "{drawn}");
    }
    // A name loses its beginning: the end is what tells functions apart.
    let usual = Page { width: Some(90), ..narrow };
    let table = text(|out| leaks::table(&view, By::Site, usual, out));
    assert!(
        table.contains("Book::apply  src")
            && table.contains("…")
            && table.contains("src/book.rs:214"),
        "{table}"
    );
    let table = text(|out| leaks::table(&view, By::Site, narrow, out));
    assert!(table.contains("3 more rows (--top 5)"), "{table}");
    let (list, tree) =
        (text(|out| leaks::list(&view, WIDE, out)), text(|out| leaks::tree(&view, WIDE, out)));
    assert!(!list.contains('\u{1b}') && !tree.contains('\u{1b}') && !tree.contains('…'));
}

#[test]
fn in_exact_mode_every_object_is_a_row() {
    let mut made = made();
    made.snapshot.sampler.exact = true;
    made.snapshot.sampler.mean_bytes = 1;
    for (k, sample) in (1..).zip(&mut made.snapshot.samples) {
        sample.address = 0x1000 * k;
        sample.weight = sample.size as f64;
    }
    made.profile = HeapProfile::of(&made.snapshot, &made.symbols, Frames::Program);
    let view = made.view();
    let page = Page { width: None, top: 1_000, calls: 8 };
    let drawn = text(|out| leaks::objects(&view, page, out));
    let rows = drawn.lines().filter(|line| line.contains(" 0x")).count();
    assert_eq!(rows, made.snapshot.samples.len());
    let sum: u64 = made.snapshot.samples.iter().map(|sample| sample.size).sum();
    let total = format!("{rows} objects live, {} bytes", tailbeam::render::units::count(sum));
    assert!(drawn.contains(&total), "{drawn}");
    check(
        "objects-exact.txt",
        &text(|out| leaks::objects(&view, Page { width: None, top: 5, calls: 8 }, out)),
    );
}

#[test]
fn a_difference_says_what_came_and_what_went() {
    let made = made();
    let mut before = made.snapshot.clone();
    before.samples.retain(|sample| sample.born_ns < 4 * fixture::HOUR || sample.site == 4);
    // Twice the decoding before: it went down since.
    let extra: Vec<_> = before.samples.iter().filter(|s| s.site == 3).copied().collect();
    before.samples.extend(extra.iter().chain(&extra));
    let base = HeapProfile::of(&before, &made.symbols, Frames::Program);
    let mut view = made.view();
    view.base = Some(("20261124-060000-000", &base));
    check("diff.txt", &text(|out| leaks::diff(&view, WIDE, out)));
    let diff = &document(&view, By::Site, false)["data"]["diff"];
    let of = |row: &Value, side: &str| row[side]["bytes"].as_i64().unwrap();
    let rows = diff["rows"].as_array().unwrap();
    for side in ["before", "after"] {
        let sum: i64 = rows.iter().map(|row| of(row, side)).sum();
        assert_eq!(diff[side]["bytes"], sum);
    }
    let decode = rows.iter().find(|row| row["function"] == "exchange::wire::decode").unwrap();
    assert!(of(decode, "after") < of(decode, "before"), "{decode}");
}

#[test]
fn a_plan_is_longer_for_less_and_keeps_its_schema() {
    let config = LeakConfig::default();
    let of = |rate: f64, mean: f64| {
        let soak = Soak::of(rate, mean);
        (soak, plan(&soak, &config))
    };
    let plans = [of(2e6, 65_536.0), of(2e6, 524_288.0)];
    let drawn = text(|out| leaks::plan::text(&plans, &config, out));
    assert!(drawn.contains("1.91 MiB/h") && drawn.contains("64.0 KiB"), "{drawn}");
    assert!(plans[0].1.hours_95 < plans[1].1.hours_95, "{drawn}");
    let printed = text(|out| leaks::plan::json(&plans, &config, out));
    let schema: Value = serde_json::from_str(leaks::plan::PLAN_SCHEMA).unwrap();
    let document = serde_json::from_str(&printed).unwrap();
    jsonschema::validator_for(&schema).unwrap().validate(&document).unwrap();
}
