//! A heap made by hand, with known names, sums and verdict: five sites of an imaginary exchange.

use std::sync::LazyLock;

use tailbeam_harness::evidence::{LateRecord, WAITS_VERSION, WaitKind, WaitRecord, Waits};
use tailbeam_probes::Unavailable;
use tailbeam_probes::analyse::leak::{
    AgeCount, Blind, CoreCount, Evidence, Finding, Gate, Growth, Interval, LeakReport, Onset,
    Orphans, OwnerReport, Reason, Retention, SiteReport, SizeCount, Spread, Survivors, Totals,
    Verdict,
};
use tailbeam_probes::analyse::symbols::{Function, Resolved, Symbols};
use tailbeam_probes::record::heap::{
    Births, Census, ClassTotals, Frame, HeapSnapshot, Module, Sample, SamplerFacts, Site,
};
use tailbeam_probes::stats::Judgement;

pub(crate) const HOUR: u64 = 3_600_000_000_000;

/// What the registry said: handlers of each kind, and wakers of agents that have ended.
static WAITS: LazyLock<Waits> = LazyLock::new(|| {
    let wait = |type_name: &str, message: Option<&str>, wait_for| WaitRecord {
        type_name: type_name.to_owned(),
        message: message.map(str::to_owned),
        wait_for,
        handlers: 3,
        bytes: 960,
        messages: 0,
        wakers: 0,
        oldest: "1:514.1".to_owned(),
        agent: None,
        suspended_ns: 7 * HOUR,
        polled_ns: 7 * HOUR,
    };
    let session =
        |wait_for| wait("exchange::session::Session", Some("exchange::session::Order"), wait_for);
    let late = LateRecord {
        type_name: "exchange::session::Session".to_owned(),
        message: Some("exchange::session::Order".to_owned()),
        agents: 12,
        wakers: 13,
        first: "0:9.4".to_owned(),
        ended_ns: 2 * HOUR,
    };
    let nothing = WaitKind::Nothing;
    Waits {
        version: WAITS_VERSION,
        waiting: vec![
            wait("exchange::quote::refresh::{{closure}}", None, nothing),
            WaitRecord { handlers: 1, messages: 4, agent: Some(17), ..session(nothing) },
            WaitRecord { wakers: 5, ..session(WaitKind::Waker) },
            session(WaitKind::Timer),
        ],
        late: vec![late],
        late_unlisted: 0,
        idle_wakers: 2,
    }
});

pub(crate) fn waits() -> Result<&'static Waits, &'static Unavailable> {
    Ok(&WAITS)
}

/// Sites: function chains, innermost first; `(name, file, line)`, inlined ones share a frame.
type Call = (&'static str, &'static str, u32);
const SITES: [&[&[Call]]; 6] = [
    &[],
    // The leak: a Vec's growth inlined into the function that inserts.
    &[
        &[("__rustc::__rust_alloc", "", 0)],
        &[
            (
                "alloc::raw_vec::RawVecInner<A>::finish_grow",
                "/rustc/a/library/alloc/src/raw_vec.rs",
                472,
            ),
            ("alloc::vec::Vec<T,A>::push", "/rustc/a/library/alloc/src/vec/mod.rs", 2_442),
            ("exchange::book::Book::apply", "/src/exchange/src/book.rs", 214),
        ],
        &[("exchange::session::on_message", "/src/exchange/src/session.rs", 88)],
        &[("exchange::main", "/src/exchange/src/main.rs", 12)],
    ],
    // A suspect.
    &[
        &[("__rustc::__rust_alloc", "", 0)],
        &[("exchange::session::Cache::remember", "/src/exchange/src/session.rs", 140)],
        &[("exchange::session::on_message", "/src/exchange/src/session.rs", 91)],
        &[("exchange::main", "/src/exchange/src/main.rs", 12)],
    ],
    // Churn.
    &[
        &[("malloc", "", 0)],
        &[("exchange::wire::decode", "/src/exchange/src/wire.rs", 31)],
        &[("exchange::session::on_message", "/src/exchange/src/session.rs", 85)],
        &[("exchange::main", "/src/exchange/src/main.rs", 12)],
    ],
    // A library without symbols, asked by a stack of its own.
    &[&[("malloc", "", 0)], &[], &[("exchange::main", "/src/exchange/src/main.rs", 20)]],
    // All dead by now.
    &[&[("malloc", "", 0)], &[("exchange::setup", "/src/exchange/src/main.rs", 7)]],
];

pub(crate) fn heap() -> (HeapSnapshot, Symbols) {
    let mut snapshot = HeapSnapshot {
        at_ns: 8 * HOUR,
        started_unix_ns: 1_795_503_600_000_000_000,
        pid: 4_242,
        command: "/opt/exchange --port 80".to_owned(),
        sampler: SamplerFacts {
            mean_bytes: 65_536,
            mean_range: (65_536, 65_536),
            kept: 1.0,
            taken: 1_234,
            allocs: 5_000_000,
            frees: 4_900_000,
            operations: Some(2_000_000),
            self_ns: 9_000_000,
            state_bytes: 4 << 20,
            ..SamplerFacts::default()
        },
        epoch_ns: HOUR / 4,
        modules: vec![
            module("/opt/exchange", 0x5500_0000_0000, 0xab),
            module("/usr/lib/libquote.so.2", 0x7f00_0000_0000, 0xcd),
        ],
        classes: [32, 96, 256, 4_096].map(class).to_vec(),
        owner_names: vec![(17, "pricer-17".to_owned())],
        ..HeapSnapshot::default()
    };
    let mut symbols = Symbols {
        modules: vec![Resolved::Lines, Resolved::Unknown(stripped())],
        ..Symbols::default()
    };
    for (id, frames) in (0..).zip(SITES) {
        let mut site = Site { id, ..Site::default() };
        for (depth, calls) in (0..).zip(frames) {
            // Equal calls are equal addresses.
            let first =
                calls.first().map_or(7, |call| u64::from(call.2) + call.0.len() as u64 * 1_000);
            let module = u32::from(calls.is_empty());
            let last = depth == frames.len() - 1;
            let address = 0x1000 + first * 16 + u64::from(last);
            let frame = Frame { module, address };
            site.frames.push(frame);
            if !calls.is_empty() {
                symbols.frames.insert(frame, calls.iter().map(function).collect());
            }
        }
        snapshot.sites.push(site);
    }
    samples(&mut snapshot);
    for hour in 0..=8 {
        snapshot.census.push(Census {
            at_ns: hour * HOUR,
            live_bytes: 20_000_000 + hour * 2_000_000,
            live_objects: 50_000 + hour * 20_000,
            held_bytes: Some(64_000_000),
            rss_bytes: Some(80_000_000),
            operations: Some(hour * 250_000),
        });
    }
    (snapshot, symbols)
}

fn module(path: &str, bias: u64, id: u8) -> Module {
    Module { path: path.to_owned(), build_id: vec![id; 20], bias, range: (bias, bias + 0x10_0000) }
}

fn class(up_to: u64) -> ClassTotals {
    ClassTotals {
        up_to,
        live_bytes: up_to * 100,
        live_objects: 110,
        allocated_bytes: up_to * 9_999,
    }
}

fn stripped() -> Unavailable {
    Unavailable {
        source: "symbols",
        cause: "/usr/lib/libquote.so.2 is stripped: no symbol covers its frames".to_owned(),
        remedy: "build it without strip".to_owned(),
    }
}

fn function(&(name, file, line): &Call) -> Function {
    Function {
        name: name.to_owned(),
        mangled: format!("_R{name}"),
        file: (!file.is_empty()).then(|| file.to_owned()),
        line: (line > 0).then_some(line),
    }
}

/// 240 + 10 + 60 + 20 samples with weights that are no whole numbers.
fn samples(snapshot: &mut HeapSnapshot) {
    let mut add = |site, n: u64, size: u64, owner: fn(u64) -> u32| {
        let weight = size as f64 / (1.0 - (-(size as f64 + 1.0) / 65_536.0).exp());
        for k in 0..n {
            snapshot.samples.push(Sample {
                site,
                owner: owner(k),
                core: if k % 4 == 3 { 3 } else { 9 },
                size,
                weight,
                born_ns: HOUR + k * (6 * HOUR) / n,
                grown_ns: HOUR + k * (6 * HOUR) / n,
                ..Sample::default()
            });
        }
        snapshot.births.push(Births {
            site,
            epoch: 4,
            count: n + 1,
            bytes: weight * (n + 1) as f64,
        });
    };
    add(1, 240, 88, |_| 17);
    add(2, 10, 1_000, |k| 100 + u32::try_from(k % 5).unwrap_or(0));
    add(3, 60, 200, |k| u32::try_from(k % 3).unwrap_or(0) + 40);
    add(4, 20, 4_000, |_| 0);
    add(5, 0, 24, |_| 0);
}

fn interval(estimate: f64, low: f64, high: f64) -> Interval {
    Interval { estimate, low, high }
}

fn finding(verdict: Verdict, reason: Option<Reason>) -> Finding {
    Finding {
        verdict,
        reason,
        rate: None,
        per_million: None,
        rate_low_any_time: 0.0,
        evidence: Evidence {
            p: 1.0,
            q: 1.0,
            old_ns: 2 * HOUR,
            old_dead: 40,
            expected_dead: 30.0,
            ..Evidence::default()
        },
        growth: None,
        since: None,
        hours_needed: None,
    }
}

fn site(site: u32, finding: Finding, survivors: Survivors, spread: Spread) -> SiteReport {
    SiteReport {
        site,
        finding,
        survivors,
        spread,
        owners: Vec::new(),
        owners_left_out: 0,
        orphans: None,
    }
}

fn owner(owner: u32, verdict: Verdict, share: Interval) -> OwnerReport {
    OwnerReport {
        owner,
        finding: finding(verdict, None),
        sampled: 240,
        bytes: 15_739_000.0,
        share,
        ended_ns: None,
    }
}

fn leaking() -> SiteReport {
    let finding = Finding {
        rate: Some(interval(1_992_294.4, 1_793_064.96, 2_181_038.08)),
        per_million: Some(interval(7_969_177.0, 7_172_259.0, 8_724_152.0)),
        rate_low_any_time: 1_700_000.0,
        evidence: Evidence {
            log_e: 40.0,
            p: 3.2e-9,
            q: 1.6e-8,
            old_ns: 2 * HOUR,
            old_alive: 200,
            old_dead: 0,
            expected_dead: 61.25,
        },
        growth: Some(Growth::Inserts),
        since: Some(Onset {
            at_ns: HOUR,
            low_ns: HOUR - HOUR / 90,
            high_ns: HOUR + HOUR / 90,
            from_start: false,
        }),
        ..finding(Verdict::Leak, None)
    };
    let survivors = Survivors {
        sampled: 240,
        objects: interval(178_853.0, 157_000.0, 202_000.0),
        bytes: interval(15_739_048.0, 13_800_000.0, 17_800_000.0),
        born: 241,
        survival: Some(0.99585),
        oldest_ns: 7 * HOUR,
        ages: (0..14u64)
            .map(|k| AgeCount { from_ns: k * HOUR / 2, sampled: k * k, bytes: 0.0 })
            .collect(),
        sizes: vec![
            SizeCount { size: Some(88), sampled: 230, objects: 171_000.0, bytes: 15.0e6 },
            SizeCount { size: None, sampled: 10, objects: 7_853.0, bytes: 0.7e6 },
        ],
        cores: vec![
            CoreCount { core: 9, sampled: 180, bytes: 11_804_286.0 },
            CoreCount { core: 3, sampled: 60, bytes: 3_934_762.0 },
        ],
    };
    SiteReport {
        owners: vec![owner(17, Verdict::Leak, interval(1.0, 0.985, 1.0))],
        orphans: Some(Orphans { sampled: 3, bytes: 196_000.0, owners: 1, longest_ns: HOUR }),
        ..site(1, finding, survivors, Spread::One(17))
    }
}

fn suspect() -> SiteReport {
    let finding = Finding {
        rate: Some(interval(125_829.0, -10_485.0, 262_144.0)),
        evidence: Evidence {
            p: 0.04,
            q: 0.09,
            old_ns: 3 * HOUR,
            old_alive: 8,
            old_dead: 1,
            expected_dead: 4.5,
            ..Evidence::default()
        },
        hours_needed: Some(7.0),
        ..finding(Verdict::Suspect, Some(Reason::Straddles))
    };
    let survivors =
        Survivors { sampled: 10, born: 11, oldest_ns: 7 * HOUR, ..Survivors::default() };
    let owners =
        (100..104).map(|id| owner(id, Verdict::Inconclusive, interval(0.25, 0.05, 0.55))).collect();
    SiteReport { owners, ..site(2, finding, survivors, Spread::Some { owners: 5 }) }
}

pub(crate) fn report() -> LeakReport {
    let quiet = |id, verdict, reason| {
        site(id, finding(verdict, Some(reason)), Survivors::default(), Spread::Untagged)
    };
    let mut young = quiet(4, Verdict::Inconclusive, Reason::Backlog);
    young.survivors.sampled = 20;
    young.finding.hours_needed = Some(60.0);
    LeakReport {
        at_ns: 8 * HOUR,
        verdict: Verdict::Leak,
        sites: vec![leaking(), suspect(), young, quiet(3, Verdict::Clean, Reason::Turnover)],
        totals: Totals {
            live: Ok(interval(2_000_000.0, 1_950_000.0, 2_050_000.0)),
            live_per_million: Some(interval(8e6, 7.8e6, 8.2e6)),
            explained: interval(1_992_294.4, 1_793_064.96, 2_181_038.08),
            unexplained: Some(interval(7_705.6, -231_038.0, 256_935.0)),
            explained_share: Some(0.996),
            retained: Ok(Retention {
                bytes: 28e6,
                rate: Some(interval(-2e6, -2.1e6, -1.9e6)),
                grows: false,
            }),
            foreign: Err(Unavailable {
                source: "rss",
                cause: "no reading of the resident set".to_owned(),
                remedy: "run on Linux with /proc".to_owned(),
            }),
        },
        gate: Gate {
            judgement: Judgement::Fail,
            cause: "exchange::book::Book::apply leaks".to_owned(),
            rate: Some(interval(2_000_000.0, 1_950_000.0, 2_050_000.0)),
            limit: 2e6,
        },
        blind: Blind {
            mean_bytes: 65_536,
            rate_80: Some(400_000.0),
            power_at_limit: 0.99,
            warm_up_bytes: 1_000_000.0,
            other_bytes: 0.0,
        },
    }
}
