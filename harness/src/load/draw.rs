//! Every draw of a schedule from (seed, agent, k, stream): counter-based, so that a resume, a verifier
//! or a responder on another core gets the same number without sharing state.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use crate::plan::{Arrivals, Kind, Plan, Span};

/// Which number of a request is drawn; one stream per purpose keeps them independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Stream {
    /// Think time before request k.
    Think = 1,
    /// Responder's planned delay of request k.
    Delay = 2,
    /// Target of request k.
    Target = 3,
    /// Position in the stationary cycle at the start.
    Start = 4,
    /// Free for the workload's own requests.
    Content = 5,
    /// Whether request k is written down whole.
    Sample = 6,
    /// Length of the session that begins before request k.
    Session = 7,
    /// Of which kind request k is.
    Kind = 8,
}

/// The draws of one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    seed: u64,
    agent: u64,
}

/// SplitMix64 finaliser (Steele, Lea, Flood 2014): a bijection with full avalanche.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Draw {
    /// The draws of `agent` under `seed`.
    #[must_use]
    pub const fn new(seed: u64, agent: u64) -> Self {
        Self { seed, agent }
    }

    /// 64 uniform bits for request `k` and `stream`.
    #[must_use]
    pub const fn bits(self, k: u64, stream: Stream) -> u64 {
        let a = mix(self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let b = mix(a ^ self.agent.wrapping_mul(0xd6e8_feb8_6659_fd93));
        mix(b ^ mix(k.wrapping_mul(0xa076_1d64_78bd_642f).wrapping_add(stream as u64)))
    }

    /// Uniform in [0, 1) with 53 bits.
    #[must_use]
    pub const fn unit(self, k: u64, stream: Stream) -> f64 {
        (self.bits(k, stream) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform integer in `0..n`; `n` must not be 0. Multiply-shift, bias below n / 2^64.
    #[must_use]
    pub const fn below(self, k: u64, stream: Stream, n: u64) -> u64 {
        ((self.bits(k, stream) as u128 * n as u128) >> 64) as u64
    }

    /// Uniform duration in `span`, ns.
    #[must_use]
    pub const fn span_ns(self, k: u64, stream: Stream, span: Span) -> u64 {
        span.min_ns + self.below(k, stream, span.max_ns - span.min_ns + 1)
    }

    /// Planned delay of request `k`, ns: that of its kind, where the plan has kinds.
    #[must_use]
    pub fn delay_ns(self, k: u64, plan: &Plan) -> u64 {
        let Some((last, others)) = plan.kinds.split_last() else {
            return self.span_ns(k, Stream::Delay, plan.delay);
        };
        let mut left = self.unit(k, Stream::Kind);
        let found = others.iter().find(|kind| {
            left -= kind.share;
            left < 0.0
        });
        self.span_ns(k, Stream::Delay, found.unwrap_or(last).delay)
    }

    /// Cycle k, think + delay, ns: the distance from intended instant k to k + 1.
    #[must_use]
    pub fn cycle_ns(self, k: u64, plan: &Plan) -> u64 {
        self.span_ns(k, Stream::Think, plan.think) + self.delay_ns(k, plan)
    }

    /// From intended instant k to k + 1 as the plan's shape says, ns.
    #[must_use]
    pub fn distance_ns(self, k: u64, plan: &Plan) -> u64 {
        match plan.shape.arrivals {
            Arrivals::Poisson => self.exponential_ns((k, Stream::Think), plan.think.mean_ns()),
            Arrivals::Cycle | Arrivals::Closed => self.cycle_ns(k, plan),
        }
    }

    /// First intended instant as the plan's shape says, ns after the start. The agents of a closed loop begin
    /// together.
    #[must_use]
    pub fn first_distance_ns(self, plan: &Plan) -> u64 {
        match plan.shape.arrivals {
            // Without memory: what is left of a distance is drawn as a whole one.
            Arrivals::Poisson => {
                self.exponential_ns((u64::MAX, Stream::Think), plan.think.mean_ns())
            }
            Arrivals::Cycle => self.first_ns(plan),
            Arrivals::Closed => 0,
        }
    }

    /// Length of the session that begins before request `k`, exponential with this mean, ns.
    #[must_use]
    pub fn session_ns(self, k: u64, mean_ns: u64) -> u64 {
        self.exponential_ns((k, Stream::Session), mean_ns as f64)
    }

    fn exponential_ns(self, (k, stream): (u64, Stream), mean_ns: f64) -> u64 {
        // 1 - u lies in (0, 1]; with 53 bits the longest is 37 means.
        let ns = -(1.0 - self.unit(k, stream)).ln() * mean_ns;
        (ns as u64).max(1)
    }

    /// First intended instant, ns after the start, from the stationary residual of the cycle: the
    /// cycle that covers the start is drawn in proportion to its length (its kind by share and mean, then by rejection
    /// against the longest cycle of that kind), the start falls uniformly in it. So the rate is level from the first
    /// second.
    #[must_use]
    pub fn first_ns(self, plan: &Plan) -> u64 {
        let delay = self.first_delay(plan);
        let longest = (plan.think.max_ns + delay.max_ns).max(1) as f64;
        // 64 tries: each accepts with probability mean/longest (>= 1/2 for any span), so the last
        // resort is taken once in 2^64.
        for attempt in 0..ATTEMPTS {
            // Cycles before the start use counters from the far end, which no request reaches.
            let k = u64::MAX - attempt;
            let cycle = self.span_ns(k, Stream::Think, plan.think);
            let cycle = (cycle + self.span_ns(k, Stream::Delay, delay)) as f64;
            if self.unit(2 * attempt, Stream::Start) < cycle / longest {
                return (cycle * self.unit(2 * attempt + 1, Stream::Start)) as u64;
            }
        }
        (longest / 2.0) as u64
    }

    /// The delay of the kind whose cycle covers the start: of kinds with long cycles more do.
    fn first_delay(self, plan: &Plan) -> Span {
        let weight = |kind: &Kind| kind.share * (plan.think.mean_ns() + kind.delay.mean_ns());
        let whole: f64 = plan.kinds.iter().map(weight).sum();
        let mut left = self.unit(2 * ATTEMPTS, Stream::Start) * whole;
        let found = plan.kinds.iter().find(|kind| {
            left -= weight(kind);
            left < 0.0
        });
        found.or(plan.kinds.last()).map_or(plan.delay, |kind| kind.delay)
    }
}

/// Tries for the cycle that covers the start.
const ATTEMPTS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_every_key() {
        let base = Draw::new(1, 2).bits(3, Stream::Think);
        assert_eq!(base, Draw::new(1, 2).bits(3, Stream::Think));
        for other in [
            Draw::new(2, 2).bits(3, Stream::Think),
            Draw::new(1, 3).bits(3, Stream::Think),
            Draw::new(1, 2).bits(4, Stream::Think),
            Draw::new(1, 2).bits(3, Stream::Delay),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_rate_is_level_from_the_first_second() {
        level(&Plan::soak("elicit"));
        let kind = |share, ms| Kind { share, delay: Span::ms(ms, ms) };
        let mut plan = Plan::soak("elicit");
        plan.think = Span::ms(100, 1_900);
        plan.kinds = vec![kind(0.7, 30), kind(0.2, 80), kind(0.1, 4_000)];
        plan.delay = Kind::hull(&plan.kinds).unwrap();
        level(&plan);
        // Far apart: of one in a hundred the cycle is a hundred times as long as that of the others.
        plan.think = Span::ms(100, 500);
        plan.kinds = vec![kind(0.99, 30), kind(0.01, 25_000)];
        plan.delay = Kind::hull(&plan.kinds).unwrap();
        level(&plan);
    }

    fn level(plan: &Plan) {
        let agents = 20_000u64;
        let mut per_second = [0u64; 12];
        for agent in 0..agents {
            let draw = Draw::new(7, agent);
            let mut at = draw.first_ns(plan);
            let mut k = 0;
            while let Some(slot) =
                usize::try_from(at / 1_000_000_000).ok().and_then(|s| per_second.get_mut(s))
            {
                *slot += 1;
                at += draw.cycle_ns(k, plan);
                k += 1;
            }
        }
        let expected = agents as f64 * 1e9 / plan.cycle_ns();
        for (second, &count) in per_second.iter().enumerate() {
            // Five standard deviations of a Poisson count, an upper bound for this renewal process.
            let off = (count as f64 - expected).abs();
            assert!(off < 5.0 * expected.sqrt(), "second {second}: {count} against {expected}");
        }
    }

    #[test]
    fn kinds_have_their_shares_and_their_delays() {
        let kind = |share, ms| Kind { share, delay: Span::ms(ms, ms + 1) };
        let mut plan = Plan::soak("elicit");
        plan.kinds = vec![kind(0.7, 30), kind(0.2, 80), kind(0.1, 200)];
        plan.delay = Kind::hull(&plan.kinds).unwrap();
        let mut seen = [0u32; 3];
        for k in 0..20_000 {
            let ms = Draw::new(5, 9).delay_ns(k, &plan) / 1_000_000;
            let of = [30, 80, 200].iter().position(|from| (*from..=from + 1).contains(&ms));
            seen[of.expect("a delay of one of them")] += 1;
        }
        for (seen, share) in seen.into_iter().zip([0.7, 0.2, 0.1]) {
            // Five standard deviations.
            let off = (f64::from(seen) - 20_000.0 * share).abs();
            assert!(off < 5.0 * (20_000.0 * share * (1.0 - share)).sqrt(), "{seen} for {share}");
        }
    }

    #[test]
    fn spans_include_both_ends_and_nothing_else() {
        let span = Span { min_ns: 3, max_ns: 5 };
        let mut seen = [false; 3];
        for k in 0..200 {
            seen[usize::try_from(Draw::new(1, 1).span_ns(k, Stream::Think, span) - 3).unwrap()] =
                true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
