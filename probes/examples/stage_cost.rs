//! What it costs per request to cut it into stages and to keep it: medians of rounds.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use std::hint::black_box;

use tailbeam_probes::analyse::latency::{
    Reservoir, SpaceSaving, StageTable, TopSlow, stages, system_ns,
};
use tailbeam_probes::clock;
use tailbeam_probes::record::latency::{Exemplar, Leg, Stamps, Why};

const ROUNDS: usize = 31;
const REQUESTS: usize = 16_384;

/// Median of rounds, ns per request, and the least.
fn line(name: &str, requests: &[Stamps], mut each: impl FnMut(usize, &Stamps)) {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begin = clock::monotonic_ns();
            requests.iter().enumerate().for_each(|(i, stamps)| each(i, stamps));
            (clock::monotonic_ns() - begin) as f64 / requests.len() as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44} {:>6.1} ns (least {:.1})", rounds[ROUNDS / 2], rounds[0]);
}

/// Requests between two cores, latencies over some octaves.
fn requests() -> Vec<Stamps> {
    let mut state = 7u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let mut at = 1_000_000;
    let mut then = |step: u64| {
        at += step;
        at
    };
    let mut one = || Stamps {
        intended_ns: then(10),
        sent_ns: then(next(1_000)),
        out: Leg {
            published_ns: then(next(2_000)),
            seen_ns: then(next(2_000)),
            aside_ns: 0,
            turn_ns: then(next(50_000)),
        },
        polls: 1,
        service_ns: 700,
        answered_ns: then(700),
        back: Leg {
            published_ns: then(next(2_000)),
            seen_ns: then(next(2_000)),
            aside_ns: 0,
            turn_ns: then(next(5_000)),
        },
        closed_ns: then(40),
        ..Stamps::default()
    };
    (0..REQUESTS).map(|_| one()).collect()
}

fn main() {
    let requests = requests();
    line("stages", &requests, |_, stamps| {
        black_box(stages(black_box(stamps), 200));
    });
    let mut table = StageTable::new();
    line("stages + StageTable::add", &requests, |_, stamps| {
        let staged = stages(stamps, 200);
        table.add(system_ns(stamps), &staged.stages);
    });
    let mut heavy = SpaceSaving::new(64);
    line("SpaceSaving::add, 64 of 10,000 agents", &requests, |i, stamps| {
        heavy.add(u32::try_from(i * 7_919 % 10_000).unwrap_or(0), stamps.service_ns);
    });
    let mut heavy = SpaceSaving::new(64);
    line("SpaceSaving::add, 64 of 64 agents", &requests, |i, stamps| {
        heavy.add(u32::try_from(i % 64).unwrap_or(0), stamps.service_ns);
    });
    let mut heavy = SpaceSaving::new(16);
    line("SpaceSaving::add, 16 of 10,000 agents", &requests, |i, stamps| {
        heavy.add(u32::try_from(i * 7_919 % 10_000).unwrap_or(0), stamps.service_ns);
    });
    let whole = |stamps: &Stamps, why| Exemplar {
        why,
        asker: 1,
        responder: 2,
        asker_shard: 0,
        responder_shard: 1,
        stamps: *stamps,
        counts: None,
    };
    let mut drawn = Reservoir::new(16, 1);
    line("Reservoir::offer, 16", &requests, |_, stamps| {
        drawn.offer(|| whole(stamps, Why::Uniform));
    });
    let mut top = TopSlow::new(8);
    line("TopSlow::offer, 8", &requests, |_, stamps| {
        top.offer(system_ns(stamps), || whole(stamps, Why::Top));
    });
    let (mut table, mut shard) = (StageTable::new(), StageTable::new());
    let mut heavy = SpaceSaving::new(64);
    (drawn, top) = (Reservoir::new(16, 1), TopSlow::new(8));
    line("all of it, two tables", &requests, |i, stamps| {
        let (staged, ns) = (stages(stamps, 200), system_ns(stamps));
        table.add(ns, &staged.stages);
        shard.add(ns, &staged.stages);
        heavy.add(u32::try_from(i * 7_919 % 10_000).unwrap_or(0), stamps.service_ns);
        drawn.offer(|| whole(stamps, Why::Uniform));
        top.offer(ns, || whole(stamps, Why::Top));
    });
    black_box((table.total(), shard.total(), heavy.total(), drawn.offered(), top.kept().len()));
}
