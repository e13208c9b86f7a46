//! The named worlds, and what a soak of one shows when it is read again and again.

use tailbeam_probes::analyse::leak::{LeakConfig, LeakReport, Verdict, analyse};

use crate::world::{HOUR_NS, Life, MINUTE_NS, Who, World};

/// Site and owner of every planted leak.
pub(crate) const SITE: u32 = 1;
pub(crate) const OWNER: u32 = 17;

/// A world to soak.
#[derive(Clone, Copy)]
pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) build: fn(&mut World),
    pub(crate) hours: u64,
}

/// Clean programs: none of them may ever be called LEAK.
pub(crate) const CLEAN: [Named; 14] = [
    Named { name: "steady churn 20 MB", build: |w| w.churn(SITE, 20e6), hours: 8 },
    Named { name: "steady churn 200 MB", build: |w| w.churn(SITE, 200e6), hours: 8 },
    Named {
        name: "Pareto(1.5) tail 20 MB",
        build: |w| w.churn_of(SITE, 20e6, Life::Pareto(1.5, 60.0)),
        hours: 8,
    },
    Named {
        name: "Pareto(1.5) tail 200 MB",
        build: |w| w.churn_of(SITE, 200e6, Life::Pareto(1.5, 60.0)),
        hours: 8,
    },
    Named {
        name: "cold cache, fill 1 h, entries 0.5-3 h",
        build: |w| w.cache(SITE, 20e6, HOUR_NS, Life::Uniform(1_800.0, 10_800.0)),
        hours: 16,
    },
    Named {
        name: "warm-up exp(20 min)",
        build: |w| w.fill(SITE, 20e6, 20 * MINUTE_NS, None),
        hours: 8,
    },
    Named {
        name: "bounded cache, random eviction",
        build: |w| w.cache(SITE, 20e6, 10 * MINUTE_NS, Life::Steady(1_200.0)),
        hours: 8,
    },
    Named {
        name: "bounded cache, oldest out, 25 min",
        build: |w| w.cache(SITE, 20e6, 25 * MINUTE_NS, Life::Fixed(1_500.0)),
        hours: 8,
    },
    Named {
        name: "plateau per agent, 1000 agents",
        build: |w| w.fill(SITE, 20e6, 20 * MINUTE_NS, Some(1_000)),
        hours: 8,
    },
    Named { name: "bursty backlog", build: |w| w.backlog(SITE, 40e6), hours: 8 },
    Named { name: "growth by load", build: |w| w.load(SITE, 20e6), hours: 8 },
    Named {
        name: "fragmentation only",
        build: |w| {
            w.churn(SITE, 20e6);
            w.fragments(5e6);
        },
        hours: 8,
    },
    Named {
        name: "leak of half the floor",
        build: |w| {
            w.churn(SITE, 20e6);
            w.leak(SITE, Who::One(OWNER), 0.5e6, 0..u64::MAX);
        },
        hours: 16,
    },
    Named { name: "every decoy at once", build: decoys, hours: 8 },
];

/// All decoys at sites of their own.
pub(crate) fn decoys(w: &mut World) {
    w.churn(2, 20e6);
    w.churn_of(3, 20e6, Life::Pareto(1.5, 60.0));
    w.cache(4, 20e6, 10 * MINUTE_NS, Life::Steady(1_200.0));
    w.fill(5, 10e6, 15 * MINUTE_NS, None);
    w.fill(6, 10e6, 15 * MINUTE_NS, Some(1_000));
    w.backlog(7, 20e6);
    w.load(8, 10e6);
    w.fragments(3e6);
}

/// What reading a soak of a world again and again showed.
#[derive(Default, Clone, Debug)]
pub(crate) struct Seen {
    /// First instant with a LEAK anywhere, ns.
    pub(crate) leak_ns: Option<u64>,
    /// First instant with the planted site and owner as LEAK, ns.
    pub(crate) right_ns: Option<u64>,
    /// A LEAK at another site or of another owner was called.
    pub(crate) wrong: bool,
    /// The last report.
    pub(crate) last: Option<LeakReport>,
    /// Every reading: instant, verdict and reason of the planted site.
    pub(crate) readings: Vec<(u64, Verdict, String)>,
}

/// Reads a soak every `every_ns`.
pub(crate) fn soak(world: &World, every_ns: u64, config: &LeakConfig) -> Seen {
    let mut seen = Seen::default();
    let mut at_ns = every_ns;
    while at_ns <= world.hours() * HOUR_NS {
        let report = analyse(&world.snapshot(at_ns), config);
        for site in report.sites.iter().filter(|s| s.finding.verdict == Verdict::Leak) {
            seen.leak_ns.get_or_insert(at_ns);
            let owners = || {
                let leaks = site.owners.iter().filter(|o| o.finding.verdict == Verdict::Leak);
                leaks.map(|o| o.owner)
            };
            seen.wrong |= site.site != SITE || owners().any(|owner| owner != OWNER);
            if site.site == SITE && owners().any(|owner| owner == OWNER) {
                seen.right_ns.get_or_insert(at_ns);
            }
        }
        if let Some(site) = report.site(SITE) {
            let reason = format!("{:?}", site.finding.reason);
            seen.readings.push((at_ns, site.finding.verdict, reason));
        }
        seen.last = Some(report);
        at_ns += every_ns;
    }
    seen
}

/// A world with a seed of its own.
pub(crate) fn built(build: impl Fn(&mut World), seed: u64, mean: f64, hours: u64) -> World {
    let mut world = World::new(seed, mean, hours);
    build(&mut world);
    world
}
