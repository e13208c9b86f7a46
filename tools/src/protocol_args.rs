//! Flags of `soak` for protocols and the shape of the load.

use clap::{Args, ValueEnum};
use tailbeam_harness::plan::{
    Arrivals, LimitPlan, LogAck, LogCore, LogSync, PollPlan, ProtocolPlan, Responders, ShapePlan,
    Targets, bytes as size,
};

use crate::args::duration;

/// When the event log syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// Never: events survive the process, not the machine
    None,
    /// Together, as often as the disk allows
    Batch,
    /// Each by a sync of its own
    PerEvent,
}

/// When a transition is told, with --durability batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckWhen {
    /// Before its event is durable: for comparison
    Before,
    /// After
    After,
}

/// Limits per agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Limits {
    /// Four times what is offered
    Load,
    /// 10 requests and 20 answers a minute, 3 more at once
    Stock,
}

/// Where the event log runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogOn {
    /// On its owner's core
    Shared,
    /// On the last core, which then hosts no agents
    Own,
}

/// When agents ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// After think time and planned delay of the request before, whatever became of it
    Cycle,
    /// A Poisson process with the think time as its mean
    Poisson,
    /// After the request before has ended: a closed loop, which hides what it does not send
    Closed,
}

/// Where responders answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RespondersIn {
    /// In this process, all of them
    Here,
    /// The second half of the agents in a second process, over TCP
    Tcp,
}

#[derive(Debug, Args)]
pub(crate) struct ProtocolArgs {
    /// A named shape: the flags of `tailbeam presets`; those beside it go before
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// A TOML file with the flags of a soak (agents = "20k", preset = "compare", ..)
    #[arg(long, value_name = "FILE")]
    pub(crate) scenario: Option<std::path::PathBuf>,
    /// When the event log syncs
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) durability: Durability,
    /// When a transition is told, with --durability batch
    #[arg(long, value_enum, default_value = "after")]
    pub(crate) ack: AckWhen,
    /// Limits per agent
    #[arg(long, value_enum, default_value = "load")]
    pub(crate) limits: Limits,
    /// Where the event log runs
    #[arg(long, value_enum, default_value = "shared")]
    pub(crate) log_core: LogOn,
    /// Where responders answer
    #[arg(long, value_enum, default_value = "here")]
    pub(crate) responders: RespondersIn,
    /// Keep the event log after the run
    #[arg(long)]
    pub(crate) keep_log: bool,
    /// Share of requests that are declined (5%, 0.05)
    #[arg(long, default_value = "0", value_parser = share)]
    pub(crate) decline: f64,
    /// Share of requests that their asker withdraws while they are pending
    #[arg(long, default_value = "0", value_parser = share)]
    pub(crate) cancel: f64,
    /// Length of a request's text (64B, 16KiB, 1MiB); the workload's own when not given
    #[arg(long, value_name = "SIZE", value_parser = message)]
    pub(crate) message_bytes: Option<u32>,
    /// Who is asked: uniform, ring, or one of the first N
    #[arg(long, default_value = "uniform", value_name = "WHO", value_parser = targets)]
    pub(crate) targets: Targets,
    /// When agents ask
    #[arg(long, value_enum, default_value = "cycle")]
    pub(crate) arrivals: When,
    /// How many are asked at each instant
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) fan_out: u32,
    /// Mean length of an agent's session: then it goes, and another one takes its place; all the run when not given
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) session: Option<u64>,
    /// Time between two looks of a poller
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    pub(crate) poll_interval: u64,
    /// Pollers are woken by the next message instead of looking again
    #[arg(long)]
    pub(crate) long_poll: bool,
    /// Messages of one look at most
    #[arg(long, default_value_t = 10)]
    pub(crate) poll_batch: u32,
    /// How long a poller's call waits
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    pub(crate) poll_timeout: u64,
    /// How long a message may wait for its poller; until it is fetched when not given
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) message_ttl: Option<u64>,
}

impl ProtocolArgs {
    pub(crate) fn plan(&self) -> ProtocolPlan {
        ProtocolPlan {
            durability: match self.durability {
                Durability::None => LogSync::None,
                Durability::Batch => LogSync::Batch,
                Durability::PerEvent => LogSync::PerEvent,
            },
            ack: match self.ack {
                AckWhen::Before => LogAck::Before,
                AckWhen::After => LogAck::After,
            },
            limits: match self.limits {
                Limits::Load => LimitPlan::Load,
                Limits::Stock => LimitPlan::Stock,
            },
            log_core: match self.log_core {
                LogOn::Shared => LogCore::Shared,
                LogOn::Own => LogCore::Own,
            },
            responders: match self.responders {
                RespondersIn::Here => Responders::Here,
                RespondersIn::Tcp => Responders::Tcp,
            },
            decline: self.decline,
            cancel: self.cancel,
            message_bytes: self.message_bytes.unwrap_or(0),
            keep_log: self.keep_log,
            poll: PollPlan {
                interval_ns: self.poll_interval,
                long: self.long_poll,
                batch: self.poll_batch,
                wait_ns: self.poll_timeout,
                ttl_ns: self.message_ttl,
            },
            ..ProtocolPlan::default()
        }
    }

    pub(crate) fn shape(&self) -> ShapePlan {
        let arrivals = match self.arrivals {
            When::Cycle => Arrivals::Cycle,
            When::Poisson => Arrivals::Poisson,
            When::Closed => Arrivals::Closed,
        };
        let (targets, fan_out, session_ns) = (self.targets, self.fan_out, self.session);
        ShapePlan { targets, arrivals, fan_out, session_ns }
    }
}

pub(crate) fn share(text: &str) -> Result<f64, String> {
    let (digits, scale) = text.strip_suffix('%').map_or((text, 1.0), |digits| (digits, 0.01));
    let value: f64 = digits.trim().parse().map_err(|_| format!("{text:?} is no share"))?;
    match value * scale {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{text} is not between 0 and 1")),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded just before; Rust casts of floats saturate"
)]
fn message(text: &str) -> Result<u32, String> {
    let bytes = size(text)?.round();
    if (1.0..=1_048_576.0).contains(&bytes) {
        Ok(bytes as u32)
    } else {
        Err(format!("{text} is not between 1B and 1MiB"))
    }
}

fn targets(text: &str) -> Result<Targets, String> {
    match text {
        "uniform" => Ok(Targets::Uniform),
        "ring" => Ok(Targets::Ring),
        number => number
            .parse()
            .map(Targets::First)
            .map_err(|_| format!("{text:?} is not uniform, ring or a number of agents")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_people_type() {
        assert_eq!([share("5%"), share("0.05"), share("1")].map(Result::unwrap), [0.05, 0.05, 1.0]);
        assert!(share("101%").is_err() && share("-1").is_err() && share("x").is_err());
        assert_eq!([message("64B"), message("1MiB")].map(Result::unwrap), [64, 1 << 20]);
        assert!(message("0").is_err() && message("2MiB").is_err());
        assert_eq!(
            ["uniform", "ring", "101"].map(targets).map(Result::unwrap),
            [Targets::Uniform, Targets::Ring, Targets::First(101)]
        );
        assert!(targets("some").is_err());
    }
}
