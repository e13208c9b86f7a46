//! Token buckets per agent, as a virtual schedule (GCRA, ITU-T I.371): a bucket is the instant at which it
//! will be full again. That is the token bucket exactly, in integers, and an agent at rest has no bucket.

use std::collections::HashMap;

use super::message::Message;
use super::refusal::Refusal;

/// One bucket's law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A token comes every so many ns.
    pub interval_ns: u64,
    /// Tokens of a full bucket.
    pub capacity: u32,
}

impl Rate {
    /// `per_minute` tokens a minute; the bucket holds a minute's and three more, as the original's.
    #[must_use]
    pub const fn per_minute(per_minute: u32) -> Self {
        Self { interval_ns: 60_000_000_000 / per_minute as u64, capacity: per_minute + BURST }
    }

    /// Four times an offered rate of one message per `cycle_ns`.
    #[must_use]
    pub fn above(cycle_ns: u64) -> Self {
        let interval_ns = (cycle_ns / 4).max(1);
        let minute = u32::try_from(60_000_000_000 / interval_ns).unwrap_or(u32::MAX);
        Self { interval_ns, capacity: minute.saturating_add(BURST) }
    }

    /// Takes a token from a bucket that is full at `full_ns`.
    fn take(self, full_ns: &mut u64, now_ns: u64) -> Result<(), u64> {
        let lag = u64::from(self.capacity.max(1) - 1).saturating_mul(self.interval_ns);
        let full = (*full_ns).max(now_ns);
        if full - now_ns > lag {
            return Err(full - now_ns - lag);
        }
        *full_ns = full.saturating_add(self.interval_ns);
        Ok(())
    }
}

const BURST: u32 = 3;

/// What each agent may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Requests.
    pub requests: Rate,
    /// Answers and withdrawals.
    pub responses: Rate,
}

impl Profile {
    /// The original's limits: 10 requests and 20 answers a minute, 3 more at once.
    pub const STOCK: Self =
        Self { requests: Rate::per_minute(10), responses: Rate::per_minute(20) };

    /// Four times the offered rate of a preset: an agent asks every `request_cycle_ns` and, by the
    /// preset's choice of targets, is asked every `response_cycle_ns` (at 100 askers for each of 101
    /// names, a hundredth of the former).
    #[must_use]
    pub fn load(request_cycle_ns: u64, response_cycle_ns: u64) -> Self {
        Self { requests: Rate::above(request_cycle_ns), responses: Rate::above(response_cycle_ns) }
    }
}

/// The buckets of the agents whose messages pass here.
#[derive(Debug)]
pub struct Limiter {
    profile: Profile,
    agents_max: usize,
    /// When the buckets of an agent (requests, responses) are full again, ns.
    buckets: HashMap<u32, [u64; 2]>,
    swept_ns: u64,
}

/// A full table is searched for agents at rest at most this often: a flood must not buy searches.
const SWEEP_NS: u64 = 1_000_000_000;

impl Limiter {
    /// Buckets of at most `agents_max` agents that are not at rest.
    #[must_use]
    pub fn new(profile: Profile, agents_max: usize) -> Self {
        Self { profile, agents_max, buckets: HashMap::new(), swept_ns: 0 }
    }

    /// Takes the token that `caller` needs for `message`. Queries need none: they change nothing.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], [`Refusal::LimiterFull`].
    pub fn take(&mut self, now_ns: u64, caller: u32, message: &Message) -> Result<(), Refusal> {
        let (which, rate) = match message {
            Message::Create(_) => (0, self.profile.requests),
            Message::Respond(_) | Message::Cancel(_) => (1, self.profile.responses),
            Message::Pending { .. } | Message::Status { .. } => return Ok(()),
        };
        if !self.buckets.contains_key(&caller) && self.buckets.len() >= self.agents_max {
            self.sweep(now_ns);
            if self.buckets.len() >= self.agents_max {
                return Err(Refusal::LimiterFull);
            }
        }
        let buckets = self.buckets.entry(caller).or_insert([0; 2]);
        rate.take(&mut buckets[which], now_ns).map_err(|retry_ns| Refusal::RateLimited { retry_ns })
    }

    /// Forgets agents whose buckets are full: one made anew is the same.
    fn sweep(&mut self, now_ns: u64) {
        if self.swept_ns == 0 || now_ns.saturating_sub(self.swept_ns) >= SWEEP_NS {
            self.swept_ns = now_ns.max(1);
            self.buckets.retain(|_, full| full.iter().any(|&full_ns| full_ns > now_ns));
        }
    }

    /// Agents with a bucket.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn stock_is_thirteen_and_twenty_three_then_one_every_six_and_three_seconds() {
        for (rate, burst, every) in
            [(Profile::STOCK.requests, 13, 6 * S), (Profile::STOCK.responses, 23, 3 * S)]
        {
            let mut full = 0;
            let passed = (0..100).filter(|_| rate.take(&mut full, S).is_ok()).count();
            assert_eq!(passed, burst);
            assert_eq!(rate.take(&mut full, S), Err(every));
            assert_eq!(rate.take(&mut full, S + every - 1), Err(1));
            assert_eq!(rate.take(&mut full, S + every), Ok(()));
        }
        let load = Profile::load(3_300_000_000, 33_000_000);
        assert_eq!(
            (load.requests.interval_ns, load.responses.interval_ns),
            (825_000_000, 8_250_000)
        );
    }

    #[test]
    fn a_full_table_lets_agents_at_rest_go_and_refuses_the_rest() {
        let mut limiter = Limiter::new(Profile::STOCK, 2);
        let cancel = |by| {
            let id = super::super::Id::new(0, 0, 0);
            Message::Cancel(super::super::Cancel { id, by, at_ns: 0, tag: super::super::Tag::NONE })
        };
        for agent in [1, 2] {
            limiter.take(S, agent, &cancel(agent)).unwrap();
        }
        assert_eq!(limiter.take(S, 3, &cancel(3)), Err(Refusal::LimiterFull));
        assert_eq!(limiter.take(5 * S, 3, &cancel(3)), Ok(()), "1 and 2 were full again");
        assert_eq!(limiter.len(), 1);
    }

    proptest! {
        /// Against tokens that are counted in real numbers.
        #[test]
        fn it_is_a_token_bucket(steps in prop::collection::vec(0u64..9_000, 1..200), per_minute in 1u32..60) {
            let rate = Rate { interval_ns: 60_000 / u64::from(per_minute), capacity: per_minute + 3 };
            let (mut full, mut now) = (0, 1);
            let (mut thousandths, whole) = (u128::from(rate.capacity) * u128::from(rate.interval_ns), u128::from(rate.interval_ns));
            for step in steps {
                now += step;
                thousandths = (thousandths + u128::from(step)).min(u128::from(rate.capacity) * whole);
                let passes = thousandths >= whole;
                prop_assert_eq!(rate.take(&mut full, now).is_ok(), passes);
                if passes { thousandths -= whole; }
            }
        }
    }
}
