//! What is planted in agents so that the leak detector can be tested: real leaks of each kind at a given rate, and
//! decoys that must not be called leaks. Each kind allocates in a function of its own, which is its site.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes and ns far below 2^53, above 0; Rust casts of floats saturate"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::ReadDir;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};

use tailbeam_probes::collect::heap::{owner, owner_ended};
use tailbeam_runtime::{Agent, Cx, Stop};

use super::recorder;
use crate::plan::{Plan, Plant, PlantKind};

/// Bytes of most planted objects.
const OBJECT: usize = 256;
/// What `opendir` of glibc allocates, bytes: a buffer of 32 KiB and its head.
const DIRECTORY: usize = 32_816;
/// Objects planted in one turn; what is due beyond it comes in the next.
const BURST: u32 = 4_096;
/// Entries of the bounded cache.
const CACHE: usize = 1_024;
const HOUR_NS: f64 = 3.6e12;
/// A burst of the backlog comes this often, ns, and drains in half of that.
const BURSTS_NS: u64 = 60_000_000_000;

/// Futures that a run's forgotten tasks need slots for, per shard at most.
pub(crate) fn tasks_max(plan: &Plan) -> u64 {
    let hours = plan.duration_ns as f64 / HOUR_NS;
    let tasks = plan.plants.iter().filter(|plant| plant.kind == PlantKind::ForgottenTask);
    tasks.map(|plant| (plant.bytes_per_h * hours) as u64 / OBJECT as u64 + 1_024).sum()
}

/// What was planted, by plant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Planted {
    pub(crate) objects: u64,
    /// Bytes that were requested for them; 0 for what the C library allocates, which is not known here.
    pub(crate) bytes: u64,
    /// Objects that found no room (slots, descriptors).
    pub(crate) refused: u64,
}

/// One plant in one agent.
pub(crate) struct Plot {
    plant: usize,
    kind: PlantKind,
    bytes_per_ns: f64,
    length_ns: u64,
    since_ns: u64,
    /// Bytes planted here so far.
    planted: u64,
    bed: Bed,
}

/// What holds the objects.
#[derive(Default)]
struct Bed {
    map: BTreeMap<u64, Box<[u8]>>,
    words: Vec<u64>,
    queue: VecDeque<Box<[u8]>>,
    values: Vec<Box<[u8]>>,
    directories: Vec<ReadDir>,
}

/// The plots of an agent, if it has any.
pub(crate) fn plots(plan: &Plan, index: u32) -> Vec<Plot> {
    let mine = |plant: &Plant| plant.agent.is_none_or(|agent| agent == u64::from(index));
    let plants = plan.plants.iter().enumerate().filter(|(_, plant)| mine(plant));
    let plots = plants.map(|(number, plant)| {
        let share = if plant.agent.is_none() { plan.agents as f64 } else { 1.0 };
        Plot {
            plant: number,
            kind: plant.kind,
            bytes_per_ns: plant.bytes_per_h / share / HOUR_NS,
            length_ns: plan.duration_ns,
            since_ns: 0,
            planted: 0,
            bed: Bed::default(),
        }
    });
    plots.collect()
}

impl Plot {
    /// Plants what is due by now.
    pub(crate) fn tend(&mut self, now_ns: u64, cx: &mut Cx<'_>) {
        if self.since_ns == 0 {
            self.since_ns = now_ns;
        }
        let age_ns = now_ns - self.since_ns;
        match self.kind {
            PlantKind::Plateau => return self.plateau(),
            PlantKind::Backlog => self.drain(age_ns),
            _ => {}
        }
        let due = self.bytes_per_ns * self.due_ns(age_ns) as f64;
        let size = if self.kind == PlantKind::CLibrary { DIRECTORY } else { OBJECT };
        let mut burst = BURST;
        while self.planted as f64 + size as f64 <= due && burst > 0 {
            let planted = self.plant_one(cx);
            self.planted += size as u64;
            self.count(planted);
            burst -= 1;
        }
    }

    /// The part of an age in which this kind grows, ns.
    fn due_ns(&self, age_ns: u64) -> u64 {
        match self.kind {
            // It fills up quickly at first and then more slowly, and is full after a sixth of the run.
            PlantKind::WarmUp => {
                let full = (self.length_ns / 6).max(1);
                let part = (age_ns.min(full)) as f64 / full as f64;
                ((1.0 - (1.0 - part) * (1.0 - part)) * full as f64) as u64
            }
            // All of a period at its beginning.
            PlantKind::Backlog => age_ns / BURSTS_NS * BURSTS_NS,
            _ => age_ns,
        }
    }

    /// Counts an object of so many requested bytes, or one that found no room.
    fn count(&self, planted: Option<usize>) {
        recorder::with(|r| {
            if let Some(all) = r.planted.get_mut(self.plant) {
                all.objects += u64::from(planted.is_some());
                all.bytes += planted.unwrap_or(0) as u64;
                all.refused += u64::from(planted.is_none());
            }
        });
    }

    /// Plants an object; the bytes requested for it, without what holds it. None when it found no room.
    fn plant_one(&mut self, cx: &mut Cx<'_>) -> Option<usize> {
        let bed = &mut self.bed;
        match self.kind {
            PlantKind::ForgottenInsert => forgotten_insert(&mut bed.map, self.planted),
            PlantKind::RcCycle => {
                rc_cycle();
                return Some(2 * PAIR);
            }
            PlantKind::GrowingVec => growing_vec(&mut bed.words),
            PlantKind::ForgottenTask => return forgotten_task(cx).then_some(OBJECT),
            PlantKind::KeptWaker => return kept_waker(cx).then_some(OBJECT),
            PlantKind::Orphan => return orphan(cx).then_some(OBJECT),
            PlantKind::CLibrary => return c_library(&mut bed.directories).then_some(0),
            PlantKind::BoundedCache => bounded_cache(&mut bed.queue),
            PlantKind::WarmUp => bed.values.push(warm_up()),
            PlantKind::Backlog => bed.queue.push_back(backlog()),
            PlantKind::Fragmentation => {
                return Some(fragmentation(&mut bed.values, self.planted));
            }
            PlantKind::Plateau => {}
        }
        Some(OBJECT)
    }

    fn plateau(&mut self) {
        if self.bed.values.is_empty() {
            self.bed.values.push(plateau());
            self.count(Some(8 * OBJECT));
        }
    }

    fn drain(&mut self, age_ns: u64) {
        let into = (age_ns % BURSTS_NS) as f64 / (BURSTS_NS / 2) as f64;
        let burst = self.bytes_per_ns * BURSTS_NS as f64 / OBJECT as f64;
        let left = (burst * (1.0 - into).max(0.0)) as usize;
        let gone = self.bed.queue.len().saturating_sub(left);
        self.bed.queue.drain(..gone);
    }
}

fn planted_object(fill: u8) -> Box<[u8]> {
    vec![fill; OBJECT].into_boxed_slice()
}

#[inline(never)]
fn forgotten_insert(map: &mut BTreeMap<u64, Box<[u8]>>, key: u64) {
    map.insert(key, planted_object(1));
}

/// Two that hold each other, each with half an object's bytes.
struct Pair {
    other: RefCell<Option<Rc<Pair>>>,
    _load: [u8; OBJECT / 2 - 40],
}

/// Bytes that an `Rc` requests for one: two counts beside it.
const PAIR: usize = size_of::<Pair>() + 2 * size_of::<usize>();

#[inline(never)]
fn rc_cycle() {
    let one = || Rc::new(Pair { other: RefCell::new(None), _load: [2; OBJECT / 2 - 40] });
    let (a, b) = (one(), one());
    a.other.replace(Some(Rc::clone(&b)));
    b.other.replace(Some(a));
}

#[inline(never)]
fn growing_vec(words: &mut Vec<u64>) {
    words.extend([3; OBJECT / 8]);
}

#[inline(never)]
fn forgotten_task(cx: &mut Cx<'_>) -> bool {
    let load = planted_object(4);
    let waits = async move {
        std::future::pending::<()>().await;
        drop(load);
    };
    cx.spawn_future(waits).is_ok()
}

thread_local! {
    /// What ended agents have left behind.
    static LEFT: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
    /// Who wants to be told of something, and what of, for ever.
    static TOLD: RefCell<Vec<(Waker, Box<[u8]>)>> = const { RefCell::new(Vec::new()) };
}

/// A future that asks to be woken, does not wait for it and ends.
fn kept_waker(cx: &mut Cx<'_>) -> bool {
    let asks = poll_fn(|context| {
        register(context.waker());
        Poll::Ready(())
    });
    cx.spawn_future(asks).is_ok()
}

#[inline(never)]
fn register(waker: &Waker) {
    let one = (waker.clone(), planted_object(11));
    TOLD.with_borrow_mut(|told| told.push(one));
}

/// Owners of agents that end are counted down from here: hosted agents count up.
static NEXT: AtomicU32 = AtomicU32::new(u32::MAX);

/// An agent that keeps something where it outlives it, and ends.
struct Mayfly(u32);

impl Agent for Mayfly {
    type Msg = ();

    async fn on(&mut self, (): (), _: &mut Cx<'_>) -> Result<(), Stop> {
        let _tag = owner::scope(self.0);
        orphaned();
        Err(Stop)
    }
}

impl Drop for Mayfly {
    fn drop(&mut self) {
        owner_ended(self.0);
    }
}

#[inline(never)]
fn orphaned() {
    LEFT.with_borrow_mut(|left| left.push(planted_object(5)));
}

fn orphan(cx: &mut Cx<'_>) -> bool {
    let mayfly = Mayfly(NEXT.fetch_sub(1, Ordering::Relaxed));
    cx.spawn(mayfly).is_ok_and(|address| address.try_send(cx, ()).is_ok())
}

#[inline(never)]
fn c_library(directories: &mut Vec<ReadDir>) -> bool {
    let opened = std::fs::read_dir("/");
    opened.map(|directory| directories.push(directory)).is_ok()
}

#[inline(never)]
fn bounded_cache(queue: &mut VecDeque<Box<[u8]>>) {
    if queue.len() >= CACHE {
        queue.pop_front();
    }
    queue.push_back(planted_object(6));
}

#[inline(never)]
fn warm_up() -> Box<[u8]> {
    planted_object(7)
}

#[inline(never)]
fn plateau() -> Box<[u8]> {
    vec![8; 8 * OBJECT].into_boxed_slice()
}

#[inline(never)]
fn backlog() -> Box<[u8]> {
    planted_object(9)
}

/// Keeps 512 blocks of sizes between 16 B and 2 KiB and replaces them one by one; bytes of the new one.
#[inline(never)]
fn fragmentation(values: &mut Vec<Box<[u8]>>, planted: u64) -> usize {
    let number = planted / OBJECT as u64;
    let size = 16usize << (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61);
    let block = vec![10; size].into_boxed_slice();
    match values.len() {
        0..512 => values.push(block),
        len => values[number as usize % len] = block,
    }
    size
}
