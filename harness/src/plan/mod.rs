//! A plan: every parameter of a run, as values, frozen into the run directory before the first request.

mod heap;
mod observe;
mod protocol;
mod shape;
mod slow;

pub use heap::{
    HeapPlan, Plant, PlantError, PlantKind, bytes, bytes_per_h, parse_decoy, parse_plant,
};
pub(crate) use observe::TOP;
pub use observe::{CostPlan, ObservePlan};
pub use protocol::{
    LimitPlan, LogAck, LogCore, LogSync, MESSAGE_MAX, PollPlan, ProtocolPlan, Responders,
};
pub use shape::{Arrivals, ShapePlan, Targets};
pub use slow::{SlowError, SlowKind, SlowPlant, parse_slow};

use serde::{Deserialize, Serialize};

use crate::verdict::{Gate, default_gates};

/// Largest number of agents a plan may ask for; a handle has 32 index bits per core, memory ends earlier.
pub const AGENTS_MAX: u64 = 16_000_000;
/// Longest run, 31 days: a monotonic clock in u64 ns and 32-bit window numbers hold far more.
pub const DURATION_MAX_NS: u64 = 31 * 24 * 3_600 * 1_000_000_000;
/// Longest think time, delay or timeout.
const SPAN_MAX_NS: u64 = 3_600 * 1_000_000_000;

/// A closed range of durations; draws are uniform in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Smallest, ns.
    pub min_ns: u64,
    /// Largest, ns.
    pub max_ns: u64,
}

impl Span {
    /// A span in milliseconds.
    #[must_use]
    pub const fn ms(min: u64, max: u64) -> Self {
        Self { min_ns: min * 1_000_000, max_ns: max * 1_000_000 }
    }

    /// Mean of a uniform draw, ns.
    #[must_use]
    pub const fn mean_ns(self) -> f64 {
        (self.min_ns as f64 + self.max_ns as f64) / 2.0
    }
}

/// A kind of requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Share of the requests; those of all kinds add up to 1.
    pub share: f64,
    /// Their planned delay.
    pub delay: Span,
}

impl Kind {
    /// From the shortest to the longest delay of all; `None` of no kinds.
    #[must_use]
    pub fn hull(kinds: &[Self]) -> Option<Span> {
        Some(Span {
            min_ns: kinds.iter().map(|kind| kind.delay.min_ns).min()?,
            max_ns: kinds.iter().map(|kind| kind.delay.max_ns).max()?,
        })
    }
}

/// Every parameter of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Workload name.
    pub workload: String,
    /// Agents, all live at once.
    pub agents: u64,
    /// Cores to pin shards to; `None` takes every allowed core.
    pub cores: Option<Vec<usize>>,
    /// Time during which requests are due, ns; the drain comes after it.
    pub duration_ns: u64,
    /// Think time between two intended instants of an agent, without the delay.
    pub think: Span,
    /// Planned delay of the responder; part of the cycle, not of the system latency. Of several kinds of requests, from
    /// the shortest to the longest.
    pub delay: Span,
    /// Kinds of requests, each with a delay of its own; none when all are alike.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Kind>,
    /// Deadline of a request from its intended instant, ns.
    pub timeout_ns: u64,
    /// Open requests an agent may have; one more is a counted refusal.
    pub open_max: u32,
    /// Requests a responder may hold; one more is a counted refusal.
    pub pending_max: u32,
    /// Seed of every draw.
    pub seed: u64,
    /// How the heap is sampled.
    #[serde(default)]
    pub heap: HeapPlan,
    /// What is planted to test the leak detector.
    #[serde(default)]
    pub plants: Vec<Plant>,
    /// How it observes its cores and requests.
    #[serde(default)]
    pub observe: ObservePlan,
    /// What is planted to test the attribution of latency.
    #[serde(default)]
    pub slow: Vec<SlowPlant>,
    /// Who asks whom, and when.
    #[serde(default)]
    pub shape: ShapePlan,
    /// How its protocol is set.
    #[serde(default)]
    pub protocol: ProtocolPlan,
    /// Gates to judge.
    pub gates: Vec<Gate>,
}

/// Why a plan cannot be run: each names the value, the reason and the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A count or duration is outside what a run can have.
    #[error("{name} is {value}\n  cause: it must lie between {min} and {max}\n  remedy: {remedy}")]
    OutOfRange {
        /// Parameter.
        name: &'static str,
        /// Given value.
        value: String,
        /// Smallest accepted.
        min: String,
        /// Largest accepted.
        max: String,
        /// What to do.
        remedy: &'static str,
    },
    /// What is planted lies in an agent, and goes with it.
    #[error(
        "{name} cannot be had with --session\n  cause: what is planted lies in the agent, and would begin anew with each that takes its place\n  remedy: leave one of them away"
    )]
    WithSessions {
        /// Parameter.
        name: &'static str,
    },
    /// A span is the wrong way round.
    #[error(
        "{name} runs backwards\n  cause: its lower bound is above its upper bound\n  remedy: write the smaller duration first, as in 1s..5s"
    )]
    Backwards {
        /// Parameter.
        name: &'static str,
    },
}

impl Plan {
    /// The soak of the original assessment: think U(1,5) s, delay U(0.1,0.5) s, 10 s timeout.
    #[must_use]
    pub fn soak(workload: &str) -> Self {
        Self {
            workload: workload.to_owned(),
            agents: 10_000,
            cores: None,
            duration_ns: 60_000_000_000,
            think: Span::ms(1_000, 5_000),
            delay: Span::ms(100, 500),
            kinds: Vec::new(),
            timeout_ns: 10_000_000_000,
            open_max: 16,
            pending_max: 64,
            seed: 1,
            heap: HeapPlan::default(),
            plants: Vec::new(),
            observe: ObservePlan::default(),
            slow: Vec::new(),
            shape: ShapePlan::default(),
            protocol: ProtocolPlan::default(),
            gates: default_gates(),
        }
    }

    /// Requests per second that the schedule asks for; of a closed loop, the most that it can.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.askers() as f64 * f64::from(self.shape.fan_out) * 1e9 / self.cycle_ns().max(1.0)
    }

    /// Mean time between two requests of an agent, ns.
    #[must_use]
    pub fn cycle_ns(&self) -> f64 {
        match self.shape.arrivals {
            Arrivals::Poisson => self.think.mean_ns(),
            Arrivals::Cycle | Arrivals::Closed => self.think.mean_ns() + self.delay_mean_ns(),
        }
    }

    /// Mean planned delay, ns.
    #[must_use]
    pub fn delay_mean_ns(&self) -> f64 {
        match &self.kinds[..] {
            [] => self.delay.mean_ns(),
            kinds => kinds.iter().map(|kind| kind.share * kind.delay.mean_ns()).sum(),
        }
    }

    /// Agents that ask and are asked; those behind them attack.
    #[must_use]
    pub const fn askers(&self) -> u64 {
        self.agents.saturating_sub(self.protocol.attackers as u64)
    }

    /// Checks every relation a run relies on.
    ///
    /// # Errors
    /// The first parameter that no run can have.
    pub fn check(&self) -> Result<(), PlanError> {
        let ns = 1.0e9;
        within(
            "--agents",
            self.agents,
            (2, AGENTS_MAX),
            "an agent asks another one, so ask for 2 or more; split larger fleets over hosts",
        )?;
        within_s("--duration", self.duration_ns, (1_000_000_000, DURATION_MAX_NS))?;
        within_s("--timeout", self.timeout_ns, (1_000_000, SPAN_MAX_NS))?;
        for (name, span) in [("--think", self.think), ("--delay", self.delay)] {
            if span.min_ns > span.max_ns {
                return Err(PlanError::Backwards { name });
            }
            within_s(name, span.max_ns, (0, SPAN_MAX_NS))?;
        }
        within_s("--think", self.think.max_ns, (1_000_000, SPAN_MAX_NS))?;
        self.check_kinds()?;
        within(
            "--open-max",
            u64::from(self.open_max),
            (1, 4_096),
            "a bound on open requests per agent; 16 fits a 10 s timeout",
        )?;
        within(
            "--pending-max",
            u64::from(self.pending_max),
            (1, 65_536),
            "a bound on requests a responder holds",
        )?;
        let slow = self.slow.iter().map(|slow| u64::from(slow.agent));
        for agent in self.plants.iter().filter_map(|plant| plant.agent).chain(slow) {
            within(
                "agent of a plant",
                agent,
                (0, self.agents - 1),
                "name an agent that the run has (a leak may also be planted in agent=all)",
            )?;
        }
        self.check_observe()?;
        self.check_protocol()?;
        if self.delay.max_ns >= self.timeout_ns {
            return Err(PlanError::OutOfRange {
                name: "--delay",
                value: format!("up to {} s", self.delay.max_ns as f64 / ns),
                min: "0 s".to_owned(),
                max: format!("less than the timeout of {} s", self.timeout_ns as f64 / ns),
                remedy: "raise --timeout or lower --delay: a reply planned after its deadline can only expire",
            });
        }
        Ok(())
    }
}

/// Kinds of requests at most.
const KINDS_MAX: usize = 16;

impl Plan {
    fn check_kinds(&self) -> Result<(), PlanError> {
        let kinds = &self.kinds;
        let sum: f64 = kinds.iter().map(|kind| kind.share).sum();
        let good = |kind: &Kind| kind.share > 0.0 && kind.delay.min_ns <= kind.delay.max_ns;
        let whole = (sum - 1.0).abs() < 1e-6 && kinds.iter().all(good);
        let known = kinds.len() <= KINDS_MAX && Kind::hull(kinds).is_none_or(|of| of == self.delay);
        if kinds.is_empty() || whole && known {
            return Ok(());
        }
        Err(PlanError::OutOfRange {
            name: "--kinds",
            value: format!("{} kinds that make {:.4} %", kinds.len(), sum * 100.0),
            min: "1 kind".to_owned(),
            max: format!("{KINDS_MAX} kinds that make 100 %"),
            remedy: "write shares that add up, as in 70%:30ms,20%:80ms,10%:200ms",
        })
    }

    fn check_protocol(&self) -> Result<(), PlanError> {
        let (protocol, poll) = (&self.protocol, &self.protocol.poll);
        within(
            "agents that attack",
            u64::from(protocol.attackers),
            (0, self.agents - 2),
            "leave two agents or more that ask each other",
        )?;
        if let Targets::First(first) = self.shape.targets {
            let remedy = "name 2 agents or more, and no more than the run has";
            within("--targets", u64::from(first), (2, self.askers()), remedy)?;
        }
        let closed = self.shape.arrivals == Arrivals::Closed;
        within(
            "--fan-out",
            u64::from(self.shape.fan_out),
            (1, if closed { 1 } else { shape::FAN_OUT_MAX }),
            "a closed loop asks one at a time",
        )?;
        for (name, planted) in [
            ("--plant-leak or --plant-decoy", !self.plants.is_empty()),
            ("--plant-slow", !self.slow.is_empty()),
        ] {
            if planted && self.shape.session_ns.is_some() {
                return Err(PlanError::WithSessions { name });
            }
        }
        // A session is no shorter than a few requests, or nothing else would be measured.
        within_s(
            "--session",
            self.shape.session_ns.unwrap_or(SPAN_MAX_NS),
            (100_000_000, SPAN_MAX_NS),
        )?;
        within(
            "--message-bytes",
            u64::from(protocol.message_bytes),
            (0, MESSAGE_MAX),
            "a request's text is at most 1 MiB",
        )?;
        for (name, share) in [("--decline", protocol.decline), ("--cancel", protocol.cancel)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(PlanError::OutOfRange {
                    name,
                    value: share.to_string(),
                    min: "0".to_owned(),
                    max: "1".to_owned(),
                    remedy: "write a share, as in 0.05 or 5%",
                });
            }
        }
        within_s("--poll-interval", poll.interval_ns, (100_000, SPAN_MAX_NS))?;
        within_s("--poll-timeout", poll.wait_ns, (1_000_000, 300_000_000_000))?;
        within("--poll-batch", u64::from(poll.batch), (1, 1_000), "shipped with 10")
    }

    fn check_observe(&self) -> Result<(), PlanError> {
        let observe = &self.observe;
        within_s("tick", observe.tick_ns(self.duration_ns), observe::TICK)?;
        within_s("window", observe.window_ns(), observe::WINDOW)?;
        let kept = observe.exemplars(self.duration_ns) as u64;
        within("exemplars", kept, (0, observe::EXEMPLARS_MAX), "keep fewer requests whole")?;
        within_s("--saturate", observe.saturate_ns, (0, observe::SATURATE_MAX_NS))?;
        within("planted slownesses", self.slow.len() as u64, (0, 255), "plant fewer")?;
        for slow in &self.slow {
            within_s("planted slowness", slow.ns, (1_000, slow::SLOW_MAX_NS))?;
            let every = u64::from(slow.every);
            within("every", every, (1, u64::from(u32::MAX)), "1 is each request")?;
        }
        Ok(())
    }
}

fn within(
    name: &'static str,
    value: u64,
    bounds: (u64, u64),
    remedy: &'static str,
) -> Result<(), PlanError> {
    if value >= bounds.0 && value <= bounds.1 {
        return Ok(());
    }
    Err(PlanError::OutOfRange {
        name,
        value: value.to_string(),
        min: bounds.0.to_string(),
        max: bounds.1.to_string(),
        remedy,
    })
}

fn within_s(name: &'static str, value: u64, bounds: (u64, u64)) -> Result<(), PlanError> {
    if value >= bounds.0 && value <= bounds.1 {
        return Ok(());
    }
    let seconds = |ns: u64| format!("{} s", ns as f64 / 1e9);
    Err(PlanError::OutOfRange {
        name,
        value: seconds(value),
        min: seconds(bounds.0),
        max: seconds(bounds.1),
        remedy: "give a duration with a unit, as in 300ms, 60s, 2h",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soak_offers_what_the_original_meant() {
        let plan = Plan::soak("elicit");
        assert!(plan.check().is_ok());
        assert!((plan.rate_per_s() - 3_030.3).abs() < 0.1);
    }

    #[test]
    fn kinds_of_requests_make_the_mean_delay_and_the_rate() {
        let kind = |share, ms| Kind { share, delay: Span::ms(ms, ms) };
        let mut plan = Plan::soak("elicit");
        plan.kinds = vec![kind(0.7, 30), kind(0.2, 80), kind(0.1, 200)];
        plan.delay = Kind::hull(&plan.kinds).unwrap();
        assert_eq!(plan.delay, Span::ms(30, 200));
        assert!(plan.check().is_ok(), "{:?}", plan.check());
        assert!((plan.delay_mean_ns() - 57e6).abs() < 1.0, "{}", plan.delay_mean_ns());
        assert!((plan.cycle_ns() - 3.057e9).abs() < 1.0);
        let text = toml::to_string(&plan).unwrap();
        assert_eq!(toml::from_str::<Plan>(&text).unwrap(), plan);
        assert!(!toml::to_string(&Plan::soak("elicit")).unwrap().contains("kinds"));
    }

    #[test]
    fn absurd_values_are_refused_with_a_remedy() {
        for change in [
            (|p: &mut Plan| p.agents = 0) as fn(&mut Plan),
            |p| p.agents = 1,
            |p| p.agents = u64::MAX,
            |p| p.duration_ns = 0,
            |p| p.think = Span { min_ns: 5, max_ns: 1 },
            |p| p.think = Span { min_ns: 0, max_ns: 0 },
            |p| p.delay = Span::ms(1, 20_000),
            |p| p.timeout_ns = 0,
            |p| p.open_max = 0,
            |p| p.pending_max = 0,
            |p| p.shape.session_ns = Some(1),
            |p| p.kinds = vec![Kind { share: 0.9, delay: p.delay }],
            |p| p.kinds = vec![Kind { share: 1.0, delay: Span::ms(1, 2) }],
            |p| {
                p.shape.session_ns = Some(1_000_000_000);
                p.slow = vec![SlowPlant { kind: SlowKind::Compute, ns: 5_000, agent: 1, every: 1 }];
            },
        ] {
            let mut plan = Plan::soak("elicit");
            change(&mut plan);
            let error = plan.check().expect_err("refused").to_string();
            assert!(error.contains("cause:") && error.contains("remedy:"), "{error}");
        }
    }
}
