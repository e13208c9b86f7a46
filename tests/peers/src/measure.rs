//! What a child does: it starts a peer's agents, lets them warm up and work, and reads the sheet.

use std::time::Duration;

use crate::bench::Bench;
use crate::child::name;
use crate::echo::{Load, Server};
use crate::figure::{Figure, Line, Round};
use crate::histogram::Read;
use crate::peers::{self, Begun, Job, Peer, Work};
use crate::sheet::Sheet;
use crate::usage::Used;
use crate::{Args, clock, echo, place, usage};

/// Time for the answers to what was asked before the end.
const SETTLE: Duration = Duration::from_millis(500);

/// Runs a round.
pub(crate) fn run(peer: Peer, bench: Bench, args: &Args) -> Result<Line, String> {
    let job = |agents: u32| -> Result<Job, String> {
        let sheet = Box::leak(Box::new(Sheet::new(agents)));
        Ok(Job { cores: place::cores()?, sheet, agents, crowd: args.crowd, seconds: args.seconds })
    };
    let window =
        |work: Work, agents: u32, seconds: f64| -> Result<Measured, String> {
            let job = job(agents)?;
            Ok(match peers::begin(peer, work, job)? {
                Begun::Works => Measured::Window(Box::new(Window::of(job.sheet, seconds, &|| {
                    Some(Used::default())
                }))),
                Begun::Measured(round) => Measured::Line(Line::Measured(round)),
                Begun::NotRun(why) => Measured::Line(Line::NotRun(why)),
            })
        };
    let seconds = args.seconds;
    let read = match bench {
        Bench::Ask | Bench::All => window(Work::Ask, args.agents, seconds)?.read(ask),
        Bench::Cross => window(Work::Cross, 2, seconds)?.read(cross),
        Bench::Oneway => window(Work::Oneway, 2, seconds)?.read(oneway),
        Bench::Light => window(Work::Light, args.thinkers, seconds)?.read(light),
        Bench::Timers => window(Work::Timers, 2, seconds)?.read(|_| Vec::new()),
        Bench::Spawn => window(Work::Spawn, 2, seconds)?.read(|_| Vec::new()),
        Bench::Idle => window(Work::Idle, 2, seconds)?.read(|_| Vec::new()),
        Bench::Echo => echo_round(peer, args)?,
        Bench::Same => {
            let ask = window(Work::SameAsk, 2, seconds / 2.0)?.read(round_trip);
            let pair = window(Work::SamePair, 2, seconds / 2.0)?.read(round_trip);
            joined(ask, pair)
        }
    };
    Ok(read)
}

enum Measured {
    Window(Box<Window>),
    Line(Line),
}

impl Measured {
    fn read(self, figures: fn(&Window) -> Vec<Figure>) -> Line {
        match self {
            Self::Line(line) => line,
            Self::Window(window) => Line::Measured(Round {
                window_ns: window.ns,
                used: window.beside.map_or(window.used, |beside| window.used.and(beside)),
                figures: figures(&window),
            }),
        }
    }
}

/// What happened between the warm-up and the end.
struct Window {
    ns: [u64; 2],
    used: Used,
    /// What another process has used for it.
    beside: Option<Used>,
    counts: Vec<u32>,
    received: u64,
    refused: u64,
    latency: Read,
}

impl Window {
    /// Lets the agents work, after a third as long to warm up: memory is touched and queues grow then.
    fn of(sheet: &Sheet, seconds: f64, beside: &dyn Fn() -> Option<Used>) -> Self {
        clock::sleep(Duration::from_secs_f64(seconds / 3.0));
        sheet.warmed_up();
        let (counts, received, used) = (sheet.counts(), sheet.receipts(), usage::process());
        let beside_then = beside();
        let start_ns = clock::now_ns();
        clock::sleep(Duration::from_secs_f64(seconds));
        let end_ns = clock::now_ns();
        let (used_then, received_then) = (usage::process(), sheet.receipts());
        let beside = beside().zip(beside_then).map(|(now, then)| now.since(then));
        let counts_then = sheet.counts();
        sheet.close();
        clock::sleep(SETTLE);
        Self {
            ns: [start_ns, end_ns],
            used: used_then.since(used),
            beside,
            counts: counts_then
                .iter()
                .zip(&counts)
                .map(|(now, was)| now.wrapping_sub(*was))
                .collect(),
            received: received_then - received,
            refused: sheet.refusals(),
            latency: sheet.latency(),
        }
    }

    fn length_s(&self) -> f64 {
        (self.ns[1] - self.ns[0]) as f64 / 1e9
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|&count| u64::from(count)).sum()
    }

    /// A quantile of the latency, or how little there was.
    fn us(&self, q: f64) -> Figure {
        let value = self.latency.quantile_ns(q).map(|ns| ns as f64 / 1e3);
        Figure::or(value, &format!("none in {:.1} s", self.length_s()))
    }
}

fn ask(window: &Window) -> Vec<Figure> {
    let mut counts = window.counts.clone();
    counts.sort_unstable();
    let last = counts.len() - 1;
    let at = |rank: usize| f64::from(counts[rank]);
    let per_s = window.total() as f64 / window.length_s();
    let quantile = |q| window.latency.quantile_ns(q).map(|ns| ns as f64);
    let spread = quantile(0.999).zip(quantile(0.5)).map(|(p999, p50)| p999 / p50);
    let mean_s = window.latency.mean_ns().map(|ns| ns / 1e9);
    let starved = counts.iter().take_while(|&&count| count == 0).count();
    vec![
        (per_s / 1e6).into(),
        at(0).into(),
        at(last / 100).into(),
        at(last / 2).into(),
        at(last).into(),
        Figure::or((counts[0] > 0).then(|| at(last) / at(0)), "some have none"),
        (starved as f64).into(),
        (window.refused as f64).into(),
        window.us(0.5),
        window.us(0.99),
        window.us(0.999),
        Figure::or(spread, "unknown"),
        Figure::or(mean_s.map(|mean_s| per_s * mean_s / counts.len() as f64), "unknown"),
    ]
}

fn cross(window: &Window) -> Vec<Figure> {
    vec![window.us(0.5), window.us(0.99), window.us(0.999), (window.latency.count as f64).into()]
}

fn oneway(window: &Window) -> Vec<Figure> {
    if window.received == 0 {
        let none = Figure::Unknown(format!("none in {:.1} s", window.length_s()));
        return vec![none.clone(), none];
    }
    let per_s = window.received as f64 / window.length_s();
    vec![(per_s / 1e6).into(), (1e9 / per_s).into()]
}

fn light(window: &Window) -> Vec<Figure> {
    let asks = window.total() as f64;
    vec![
        (window.used.cpu_us / asks).into(),
        window.us(0.5),
        window.us(0.99),
        window.us(0.999),
        (asks / window.length_s() / 1e3).into(),
        f64::from(window.counts.iter().copied().min().unwrap_or(0)).into(),
        (window.refused as f64).into(),
    ]
}

/// A server and a client of `echo`.
fn echo_round(peer: Peer, args: &Args) -> Result<Line, String> {
    let client = echo::client_of(peer, args);
    if let Some(lacks) = [peer, client].into_iter().find(|peer| !echo::has(*peer)) {
        return Ok(Line::NotRun(format!("no echo is written for {} here", name(&lacks))));
    }
    let (connections, core) = (args.connections, place::cores()?[1]);
    let server = Server::start(peer)?;
    let sheet = Box::leak(Box::new(Sheet::new(connections)));
    echo::ask(client, Load { core, server: server.address, connections, sheet })?;
    let window = Window::of(sheet, args.seconds, &|| server.used());
    Ok(Measured::Window(Box::new(window)).read(echo))
}

fn echo(window: &Window) -> Vec<Figure> {
    let requests = window.total() as f64;
    let counts = || window.counts.iter().map(|&count| f64::from(count));
    let each = |used: Option<Used>| Figure::or(used.map(|used| used.cpu_us / requests), "unknown");
    vec![
        (requests / window.length_s() / 1e3).into(),
        window.us(0.5),
        window.us(0.99),
        window.us(0.999),
        each(window.beside),
        each(Some(window.used)),
        counts().fold(f64::INFINITY, f64::min).into(),
        counts().fold(0.0, f64::max).into(),
        (window.refused as f64).into(),
    ]
}

fn round_trip(window: &Window) -> Vec<Figure> {
    let each = (window.total() > 0).then(|| window.length_s() * 1e9 / window.total() as f64);
    vec![Figure::or(each, &format!("none in {:.1} s", window.length_s()))]
}

/// The figures of two rounds as those of one.
fn joined(one: Line, other: Line) -> Line {
    match (one, other) {
        (Line::Measured(one), Line::Measured(other)) => Line::Measured(Round {
            window_ns: [one.window_ns[0], other.window_ns[1]],
            used: one.used.and(other.used),
            figures: one.figures.into_iter().chain(other.figures).collect(),
        }),
        (Line::Measured(_), other) => other,
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;

    fn window(counts: Vec<u32>) -> Window {
        let latency = Histogram::new().read();
        Window {
            ns: [0, 2_000_000_000],
            used: Used { cpu_us: 99.0, faults: 3, waited_us: None },
            beside: Some(Used::default()),
            counts,
            received: 0,
            refused: 1,
            latency,
        }
    }

    #[test]
    fn figures_are_those_of_the_asks() {
        let figures = ask(&window((0..100).collect()));
        let known = figures.iter().map(Figure::known).collect::<Vec<_>>();
        let expected = [Some(0.002_475), Some(0.0), Some(0.0), Some(49.0), Some(99.0), None];
        assert_eq!(known[..6], expected);
        assert_eq!(known[6..8], [Some(1.0), Some(1.0)]);
        assert_eq!(figures.len(), Bench::Ask.columns().len());
    }

    #[test]
    fn what_was_not_measured_is_unknown() {
        let nothing = window(vec![0, 0]);
        let none = Figure::Unknown("none in 2.0 s".to_owned());
        assert_eq!(cross(&nothing)[0], none);
        assert_eq!(oneway(&nothing), [none.clone(), none.clone()]);
        assert_eq!(round_trip(&nothing)[0], none);
        assert_eq!(light(&nothing)[..2], [Figure::Unknown("unknown".to_owned()), none]);
        assert_eq!(ask(&nothing)[11].known(), None);
    }

    #[test]
    fn every_bench_has_a_figure_per_column() {
        let window = window(vec![1, 1]);
        assert_eq!(cross(&window).len(), Bench::Cross.columns().len());
        assert_eq!(oneway(&window).len(), Bench::Oneway.columns().len());
        assert_eq!(light(&window).len(), Bench::Light.columns().len());
        assert_eq!(echo(&window).len(), Bench::Echo.columns().len());
        assert_eq!(2 * round_trip(&window).len(), Bench::Same.columns().len());
    }
}
