//! The exports read by the programs they are for. A test skips, and says so, where its consumer is not
//! installed; with `TAILBEAM_REQUIRE_CONSUMERS=1` that is a failure. `.ci/consumers` fetches them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cpu;
mod firefox;
#[path = "../leaks/fixture.rs"]
mod fixture;
mod folded;
mod hdr_java;
mod latency;
#[path = "../latency/fixture.rs"]
mod latency_fixture;
mod page;
mod pprof;
mod programs;
mod rows;
mod speedscope;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tailbeam::render::export::pprof::Metric;
use tailbeam::render::export::{self, Export};
use tailbeam::render::leaks::{By, ByReport, Leaks, json};
use tailbeam_probes::analyse::leak::LeakReport;
use tailbeam_probes::analyse::profile::{Frames, HeapProfile};
use tailbeam_probes::analyse::symbols::Symbols;
use tailbeam_probes::record::heap::HeapSnapshot;

/// A heap with everything that an export needs.
struct Made {
    snapshot: HeapSnapshot,
    symbols: Symbols,
    profile: HeapProfile,
    report: LeakReport,
}

impl Made {
    fn new(change: impl FnOnce(&mut HeapSnapshot)) -> Self {
        let (mut snapshot, symbols) = fixture::heap();
        change(&mut snapshot);
        let profile = HeapProfile::of(&snapshot, &symbols, Frames::Program);
        Self { profile, report: fixture::report(), snapshot, symbols }
    }

    fn export(&self, base: Option<&Self>, write: impl FnOnce(&Export<'_>)) {
        let profile = match base {
            Some(base) => self.profile.clone().less(&base.profile),
            None => self.profile.clone(),
        };
        write(&Export {
            run: "20261124-070000-000",
            snapshot: &self.snapshot,
            profile: &profile,
            base: base.map(|_| "before"),
            verdicts: &ByReport(&self.report),
            comments: &["sampled 1/64.0 KiB".to_owned(), "a second comment".to_owned()],
        });
    }

    fn file(&self, path: &Path, base: Option<&Self>, kind: &str) {
        let mut file = std::fs::File::create(path).unwrap();
        self.export(base, |export| match kind {
            "pprof" => export::pprof::write(export, &mut file).unwrap(),
            "folded" => {
                export::folded::write(export, Metric::InuseSpace, &mut file).unwrap();
            }
            _ => export::gzipped(&mut file, |out| export::firefox::write(export, out)).unwrap(),
        });
    }

    /// What `tailbeam leaks --by site --format json` prints.
    fn leaks(&self, by: By) -> Value {
        let view = Leaks {
            run: "20261124-070000-000",
            snapshot: &self.snapshot,
            symbols: &self.symbols,
            profile: &self.profile,
            report: &self.report,
            others: &[],
            waits: fixture::waits(),
            base: None,
            available_bytes: None,
        };
        let mut out = Vec::new();
        json::write(&view, by, false, &mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }

    /// Live bytes by function, from that document.
    fn by_function(&self) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for row in self.leaks(By::Site)["data"]["live"]["rows"].as_array().unwrap() {
            let function = row["function"].as_str().unwrap().to_owned();
            *sums.entry(function).or_default() += row["bytes"].as_i64().unwrap();
        }
        sums
    }
}

/// The heap of four hours earlier: half the leak, another cache, more decoding than later.
fn earlier() -> Made {
    Made::new(|snapshot| {
        snapshot.at_ns = 4 * fixture::HOUR;
        snapshot.samples.retain(|s| s.born_ns < 4 * fixture::HOUR || s.site == 4);
        let more: Vec<_> = snapshot.samples.iter().filter(|s| s.site == 3).copied().collect();
        snapshot.samples.extend(more.iter().chain(&more));
    })
}
