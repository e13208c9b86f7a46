//! What every peer fills in the same way: completions per agent and the latency of every 16th ask.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One in so many asks of an agent is timed; a time stamp costs as much as a message.
pub(crate) const TIMED: u32 = 16;
/// Sub-buckets per power of two: 3 %.
const SUB: u64 = 32;
const BUCKETS: usize = 64 * SUB as usize;
const THREADS: usize = 4;

/// On cache lines of its own (128: the adjacent-line prefetcher pairs lines): what one core writes must not
/// slow the other, for that would be the bench's cost and not the peer's.
#[repr(align(128))]
struct Apart<T>(T);

/// Shared by the agents of a round.
pub(crate) struct Sheet {
    /// Agents go on while this is set.
    open: Apart<AtomicBool>,
    /// By core, as agents are placed: those of agents 0, 2, 4.. and those of 1, 3, 5..
    completions: [Vec<AtomicU32>; 2],
    start: Instant,
    threads: AtomicUsize,
    buckets: Vec<Apart<[AtomicU64; BUCKETS]>>,
    sums: [Apart<AtomicU64>; THREADS],
    /// Sends that a full mailbox or ring refused; its agent stops asking.
    refused: Apart<AtomicU64>,
    /// Asks sent before this are not timed, ns since `start`.
    warm_ns: AtomicU64,
    agents: u32,
}

/// What a child prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) per_s: f64,
    pub(crate) regime: String,
    pub(crate) round_trip_ns: f64,
    /// Completions per agent: smallest, 1st percentile, median, largest.
    pub(crate) agents: [u32; 4],
    pub(crate) starved: u32,
    pub(crate) timed: u64,
    pub(crate) refused: u64,
    /// p50, p99, p99.9, largest bucket, ns; none when no ask was timed.
    pub(crate) latency_ns: Option<[u64; 4]>,
    /// Throughput x mean latency / asks outstanding; none when no ask was timed.
    pub(crate) little: Option<f64>,
}

thread_local! {
    static SLOT: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

fn bucket(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let power = 63 - u64::from(ns.leading_zeros());
    let sub = (ns >> (power - 5)) & (SUB - 1);
    ((power - 4) * SUB + sub) as usize
}

/// Largest value of a bucket.
fn top(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let (power, sub) = (bucket / SUB + 4, bucket % SUB);
    ((SUB + sub + 1) << (power - 5)) - 1
}

impl Sheet {
    pub(crate) fn new(agents: u32) -> Self {
        Self {
            open: Apart(AtomicBool::new(true)),
            completions: [agents.div_ceil(2), agents / 2]
                .map(|count| (0..count + 32).map(|_| AtomicU32::new(0)).collect()),
            start: Instant::now(),
            threads: AtomicUsize::new(0),
            buckets: (0..THREADS).map(|_| Apart([const { AtomicU64::new(0) }; BUCKETS])).collect(),
            sums: [const { Apart(AtomicU64::new(0)) }; THREADS],
            refused: Apart(AtomicU64::new(0)),
            warm_ns: AtomicU64::new(u64::MAX),
            agents,
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.0.load(Ordering::Relaxed)
    }

    /// Ends the round.
    pub(crate) fn close(&self) {
        self.open.0.store(false, Ordering::Relaxed);
    }

    /// Notes a send that was refused.
    pub(crate) fn refused(&self) {
        self.refused.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a completion of `agent`; only the agent itself writes its count.
    pub(crate) fn completed(&self, agent: u32, count: u32) {
        self.completions[agent as usize % 2][agent as usize / 2].store(count, Ordering::Relaxed);
    }

    /// The warm-up is over: asks are timed from now on. Returns the completions so far.
    pub(crate) fn warmed_up(&self) -> Vec<u32> {
        self.warm_ns.store(self.now_ns(), Ordering::Relaxed);
        self.counts()
    }

    /// Completions of each agent.
    pub(crate) fn counts(&self) -> Vec<u32> {
        (0..self.agents as usize)
            .map(|agent| self.completions[agent % 2][agent / 2].load(Ordering::Relaxed))
            .collect()
    }

    /// Notes that the answer to an ask of that instant has come.
    pub(crate) fn answered(&self, sent_ns: u64) {
        if sent_ns >= self.warm_ns.load(Ordering::Relaxed) {
            self.timed(self.now_ns() - sent_ns);
        }
    }

    fn timed(&self, ns: u64) {
        let slot = SLOT.with(|slot| {
            if slot.get() == usize::MAX {
                slot.set(self.threads.fetch_add(1, Ordering::Relaxed) % THREADS);
            }
            slot.get()
        });
        self.buckets[slot].0[bucket(ns)].fetch_add(1, Ordering::Relaxed);
        self.sums[slot].0.fetch_add(ns, Ordering::Relaxed);
    }

    /// The figures of a round of `length_s` in which the agents completed `counts`.
    pub(crate) fn outcome(
        &self,
        mut counts: Vec<u32>,
        length_s: f64,
        round_trip_ns: f64,
    ) -> Outcome {
        counts.sort_unstable();
        let total: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let per_s = total as f64 / length_s;
        let merged: Vec<u64> = (0..BUCKETS)
            .map(|bucket| self.buckets.iter().map(|b| b.0[bucket].load(Ordering::Relaxed)).sum())
            .collect();
        let timed: u64 = merged.iter().sum();
        let sum: u64 = self.sums.iter().map(|sum| sum.0.load(Ordering::Relaxed)).sum();
        let mean_s = (timed > 0).then(|| sum as f64 / timed as f64 / 1e9);
        let last = counts.len() - 1;
        Outcome {
            per_s,
            regime: crate::place::regime(round_trip_ns).to_owned(),
            round_trip_ns,
            agents: [counts[0], counts[last / 100], counts[last / 2], counts[last]],
            starved: counts.iter().take_while(|&&count| count == 0).count() as u32,
            timed,
            refused: self.refused.0.load(Ordering::Relaxed),
            latency_ns: (timed > 0)
                .then(|| [0.5, 0.99, 0.999, 1.0].map(|q| quantile(&merged, timed, q))),
            little: mean_s.map(|mean_s| per_s * mean_s / counts.len() as f64),
        }
    }
}

/// `count` is the sum of `buckets`, and not 0.
fn quantile(buckets: &[u64], count: u64, q: f64) -> u64 {
    let rank = ((count as f64 * q).ceil() as u64).clamp(1, count);
    let mut seen = 0;
    let reached = buckets.iter().position(|&n| {
        seen += n;
        seen >= rank
    });
    top(reached.expect("the ranks end with the count"))
}

/// Where the next ask goes: xorshift64*, one state per agent.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(agent: u32) -> Self {
        Self((u64::from(agent) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Another agent than `me`.
    pub(crate) fn other(&mut self, me: u32, agents: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        let drawn = ((bits * u64::from(agents - 1)) >> 32) as u32;
        drawn + u32::from(drawn >= me)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_values_to_three_percent() {
        for ns in (0..2_000).chain([1_000_000, 123_456_789, u64::from(u32::MAX) * 7]) {
            let top = top(bucket(ns));
            assert!(top >= ns && (top - ns) as f64 <= ns as f64 / 31.0 + 1.0, "{ns} in {top}");
        }
    }

    #[test]
    fn figures_are_those_of_the_asks() {
        let sheet = Sheet::new(100);
        for agent in 1..100 {
            sheet.completed(agent, agent);
        }
        (0..99).for_each(|_| sheet.timed(1_000));
        sheet.timed(1_000_000);
        let outcome = sheet.outcome(sheet.counts(), 2.0, 50.0);
        assert_eq!((outcome.agents, outcome.starved), ([0, 0, 49, 99], 1));
        assert_eq!(outcome.per_s, 2_475.0);
        let latency = outcome.latency_ns.expect("100 were timed");
        assert!(latency[0] < 1_040 && latency[3] >= 1_000_000);
    }

    #[test]
    fn what_was_not_timed_is_unknown() {
        let sheet = Sheet::new(3);
        sheet.refused();
        let outcome = sheet.outcome(sheet.counts(), 2.0, 50.0);
        assert_eq!((outcome.latency_ns, outcome.little, outcome.refused), (None, None, 1));
        assert_eq!((outcome.per_s, outcome.starved), (0.0, 3));
    }

    #[test]
    fn nobody_asks_itself() {
        let mut dice = Dice::new(3);
        assert!((0..10_000).map(|_| dice.other(3, 5)).all(|other| other != 3 && other < 5));
    }
}
