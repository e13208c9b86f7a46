//! The benches: what each shows, in which columns, and which of them are compared.

use clap::ValueEnum;

use crate::child::name;
use crate::{Args, echo};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Bench {
    /// Closed-loop asks to random agents, half of them across cores
    Ask,
    /// Asks across cores while an agent that is always ready runs on both
    Cross,
    /// 48-byte messages one way from core to core
    Oneway,
    /// Asks on one core, awaited and as a pair of messages
    Same,
    /// Asks after 100 ms of thought, timed from the intended instant
    Light,
    /// Timers with many pending
    Timers,
    /// Spawning on memory that was touched before
    Spawn,
    /// Memory of idle agents
    Idle,
    /// TCP echo over loopback, client and server in two processes
    Echo,
    /// All of these
    All,
}

/// A column of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) digits: usize,
    /// Whether it has a ratio to the first peer, and min and max.
    pub(crate) compared: bool,
}

const fn compared(name: &'static str, digits: usize) -> Column {
    Column { name, digits, compared: true }
}

const fn plain(name: &'static str, digits: usize) -> Column {
    Column { name, digits, compared: false }
}

const ASK: [Column; 13] = [
    compared("M ask/s", 2),
    plain("min/agent", 0),
    plain("p1", 0),
    plain("p50", 0),
    plain("max", 0),
    plain("max/min", 2),
    plain("starved", 0),
    plain("refused", 0),
    compared("p50 us", 1),
    plain("p99 us", 1),
    plain("p99.9 us", 1),
    plain("p99.9/p50", 2),
    plain("little", 3),
];
const CROSS: [Column; 4] =
    [compared("p50 us", 2), compared("p99 us", 2), plain("p99.9 us", 2), plain("round trips", 0)];
const ONEWAY: [Column; 2] = [compared("M msg/s", 2), plain("ns/msg", 1)];
const SAME: [Column; 2] = [compared("ask ns", 1), compared("pair ns", 1)];
const LIGHT: [Column; 7] = [
    compared("CPU us/ask", 2),
    compared("p50 us", 1),
    compared("p99 us", 1),
    plain("p99.9 us", 1),
    plain("k ask/s", 1),
    plain("min/agent", 0),
    plain("refused", 0),
];
const TIMERS: [Column; 5] = [
    compared("insert ns", 1),
    compared("cancel ns", 1),
    plain("late p50 us", 1),
    compared("late p99 us", 1),
    plain("sleeps", 0),
];
const SPAWN: [Column; 4] = [
    compared("M spawn/s", 2),
    compared("M ready/s", 2),
    plain("first M spawn/s", 2),
    plain("first faults", 0),
];
const IDLE: [Column; 4] =
    [compared("B idle", 1), compared("B after", 1), plain("change %", 2), plain("MB before", 1)];
const ECHO: [Column; 9] = [
    compared("k req/s", 1),
    compared("p50 us", 0),
    compared("p99 us", 0),
    plain("p99.9 us", 0),
    compared("server us/req", 2),
    plain("client us/req", 2),
    plain("min/conn", 0),
    plain("max/conn", 0),
    plain("broken", 0),
];

impl Bench {
    /// The benches asked for.
    pub(crate) fn expand(asked: &[Self]) -> Vec<Self> {
        let all = [
            Self::Ask,
            Self::Cross,
            Self::Oneway,
            Self::Same,
            Self::Light,
            Self::Timers,
            Self::Spawn,
            Self::Idle,
            Self::Echo,
        ];
        if asked.contains(&Self::All) { all.to_vec() } else { asked.to_vec() }
    }

    /// Whether its figures depend on time; bytes do not.
    pub(crate) const fn is_timed(self) -> bool {
        !matches!(self, Self::Idle)
    }

    pub(crate) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Ask | Self::All => &ASK,
            Self::Cross => &CROSS,
            Self::Oneway => &ONEWAY,
            Self::Same => &SAME,
            Self::Light => &LIGHT,
            Self::Timers => &TIMERS,
            Self::Spawn => &SPAWN,
            Self::Idle => &IDLE,
            Self::Echo => &ECHO,
        }
    }

    /// What the table is headed with.
    pub(crate) fn title(self, args: &Args) -> String {
        let (agents, crowd) = (args.agents, args.crowd);
        match self {
            Self::Ask | Self::All => {
                format!("ask: closed loop, {agents} agents, random peers, half across cores")
            }
            Self::Cross => {
                "cross: one ask at a time between two cores that are never idle".to_owned()
            }
            Self::Oneway => "oneway: 48-byte messages from core to core".to_owned(),
            Self::Same => "same: one ask at a time on one core, per round trip".to_owned(),
            Self::Light => format!(
                "light: {} agents ask every 100 ms, timed from the intended instant",
                args.thinkers
            ),
            Self::Timers => format!("timers: {crowd} pending on one core; sleeps of 5 ms"),
            Self::Spawn => {
                format!("spawn: {crowd} agents with mailbox on one core, the second time")
            }
            Self::Idle => {
                format!(
                    "idle: resident bytes of each of {crowd} agents; after ten messages to each"
                )
            }
            Self::Echo => format!(
                "echo: {} connections, {} bytes; server on one core, client ({}) on the other",
                args.connections,
                echo::BYTES,
                args.client.map_or_else(|| "each peer's own".to_owned(), |client| name(&client)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_every_bench_once_and_each_compares_something() {
        let all = Bench::expand(&[Bench::Idle, Bench::All]);
        assert_eq!(all.len(), Bench::value_variants().len() - 1);
        assert!(all.iter().all(|bench| bench.columns().iter().any(|column| column.compared)));
        assert_eq!(Bench::expand(&[Bench::Idle]), [Bench::Idle]);
    }
}
