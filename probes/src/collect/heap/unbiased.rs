#![expect(clippy::cast_possible_truncation, reason = "sizes and sites are small")]
//! Proof that estimates are right: known heaps, the real countdown, collector, file and reader.

use std::collections::HashMap;

use super::cells::{Counted, Draws, Local, count_alloc, count_realloc, slow_alloc};
use super::collector::{Birth, Collector, Thread};
use super::config::HeapConfig;
use super::sample::{Draw, mix};
use super::unwind::Registers;
use crate::record::heap::{HeapSnapshot, Sample, estimate};
use crate::record::heap_file;

const SITES: u64 = 20;
const RUNS: u64 = 200;
/// Counts by class: each class draws on its own, the harder case.
const CLASSES: bool = true;

struct World {
    collector: Collector,
    local: Local,
    /// Objects that were sampled, by address.
    sampled: HashMap<u64, u32>,
    /// Live bytes by site, exact.
    truth: [u64; SITES as usize],
    state: u64,
    path: std::path::PathBuf,
}

struct Drawing<'a>(&'a Collector);

impl Draws for Drawing<'_> {
    fn draw(&self, thread: &Thread) -> Option<Draw> {
        Some(self.0.draw(thread))
    }

    fn exact(&self) -> bool {
        false
    }
}

struct Object {
    site: u64,
    size: usize,
    address: u64,
}

impl World {
    fn new(dir: &std::path::Path, seed: u64, objects_max: u32) -> World {
        let path = dir.join("heap.tbh");
        let config = HeapConfig {
            mean_bytes: 2_048,
            objects_max,
            seed,
            manual_clock: true,
            ..HeapConfig::new(&path)
        };
        let collector = Collector::create(&config).expect("starts");
        let (local, sampled) = (Local::new(), HashMap::new());
        World { collector, local, sampled, truth: [0; SITES as usize], state: seed, path }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state) % below
    }

    fn born(&mut self, object: &Object, mean: f32) {
        let registers = Registers { ip: 0x1000 + object.site, sp: 0, fp: 0 };
        let birth = Birth { address: object.address, size: object.size as u64, mean, registers };
        if let Some(index) = self.collector.born(&self.local.thread, &birth) {
            self.sampled.insert(object.address, index);
        }
    }

    fn alloc(&mut self, object: &Object) {
        self.truth[object.site as usize] += object.size as u64;
        if count_alloc::<CLASSES>(&self.local, object.size) {
            let counted = Counted { size: object.size, units: object.size as u64 + 1 };
            let met = slow_alloc::<CLASSES>(&self.local, counted, &Drawing(&self.collector));
            if let Some(mean) = met {
                self.born(object, mean);
            }
        }
    }

    fn realloc(&mut self, object: &mut Object, size: usize) {
        let old = std::mem::replace(&mut object.size, size);
        self.truth[object.site as usize] += size as u64;
        self.truth[object.site as usize] -= old as u64;
        let slow = count_realloc::<CLASSES>(&self.local, old, size);
        let counted = Counted { size, units: size.saturating_sub(old) as u64 };
        let met = slow
            .then(|| slow_alloc::<CLASSES>(&self.local, counted, &Drawing(&self.collector)))
            .flatten();
        if let Some(&index) = self.sampled.get(&object.address) {
            self.collector.grown(index, object.address, (object.address, size as u64));
        } else if let Some(mean) = met {
            self.born(object, mean);
        }
    }

    fn free(&mut self, object: &Object) {
        self.truth[object.site as usize] -= object.size as u64;
        if let Some(index) = self.sampled.remove(&object.address) {
            self.collector.died(&self.local.thread, index, object.address);
        }
    }

    fn read(&self) -> HeapSnapshot {
        assert!(self.collector.tick(1_000, None));
        heap_file::read(&self.path).expect("readable")
    }
}

/// Sizes from 24 bytes to 24 KiB by site; half of the objects die, a third of the sites reallocate. At
/// least 1,000 means live at each site in the end.
fn live_through(world: &mut World) {
    for site in 0..SITES {
        let base = 24usize << (site / 2);
        let mut held = Vec::new();
        let mut address = (site + 1) << 40;
        while world.truth[site as usize] < 2_048 * 1_000 {
            for _ in 0..8 {
                address += 64;
                let size = base / 2 + world.random(base as u64) as usize;
                let mut object = Object { site, size, address };
                world.alloc(&object);
                if site % 3 == 1 {
                    for _ in 0..world.random(4) {
                        let size = object.size + world.random(base as u64) as usize;
                        world.realloc(&mut object, size);
                    }
                    let size = object.size - world.random(object.size as u64 / 2) as usize;
                    world.realloc(&mut object, size);
                }
                held.push(object);
            }
            for _ in 0..4 {
                let at = world.random(held.len() as u64) as usize;
                let object = held.swap_remove(at);
                world.free(&object);
            }
        }
    }
}

/// Mean error by site and pooled coverage of the intervals, over all runs.
fn check(objects_max: u32, within: f64) {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut errors, mut covered) = ([0.0; SITES as usize], 0u64);
    let mut kept = 1.0f64;
    for run in 0..RUNS {
        let mut world = World::new(dir.path(), run * 7 + 1, objects_max);
        live_through(&mut world);
        let seen = world.read();
        assert_eq!(seen.sampler.lost, [], "nothing was lost");
        conserved(&seen);
        kept = kept.min(seen.sampler.kept);
        for site in 0..SITES {
            let address = 0x1000 + site;
            let id =
                seen.sites.iter().find(|s| s.frames.first().is_some_and(|f| f.address == address));
            let id = id.expect("the site was sampled").id;
            let of: Vec<&Sample> = seen.samples.iter().filter(|s| s.site == id).collect();
            let (estimate, truth) = (estimate(of), world.truth[site as usize] as f64);
            errors[site as usize] += (estimate.bytes / truth - 1.0) / RUNS as f64;
            covered += u64::from((estimate.low..=estimate.high).contains(&truth));
        }
    }
    let worst = errors.iter().fold(0.0f64, |worst, error| worst.max(error.abs()));
    let coverage = covered as f64 / (RUNS * SITES) as f64;
    assert!(worst < within, "mean error {worst} of {errors:?}");
    assert!((0.93..=0.97).contains(&coverage), "coverage {coverage}, kept {kept}");
    assert_eq!(kept < 1.0, objects_max < 1 << 16, "thinned when it was to be: {kept}");
}

/// Births less deaths is what lives, in counts and weights, by site.
fn conserved(seen: &HeapSnapshot) {
    for site in &seen.sites {
        let births = seen.births.iter().filter(|b| b.site == site.id);
        let deaths = seen.deaths.iter().filter(|d| d.site == site.id);
        let live = seen.samples.iter().filter(|s| s.site == site.id);
        let (born, born_bytes) = births.fold((0, 0.0), |sum, b| (sum.0 + b.count, sum.1 + b.bytes));
        let (died, died_bytes) = deaths.fold((0, 0.0), |sum, d| (sum.0 + d.count, sum.1 + d.bytes));
        let (lives, weight) = live.fold((0, 0.0), |sum, s| (sum.0 + 1, sum.1 + s.weight));
        assert_eq!(born, died + lives, "{site:?}");
        assert!((born_bytes - died_bytes - weight).abs() < 1.0 + 1e-9 * born_bytes, "{site:?}");
    }
}

#[test]
fn estimates_are_unbiased_and_their_intervals_cover() {
    check(1 << 16, 0.01);
}

#[test]
fn thinning_leaves_estimates_unbiased_and_covered() {
    check(6_000, 0.015);
}
