//! The schedule of a run, drawn again from its seed and compared with what its agents are said to have asked.
//!
//! Every instant at which a request is due follows from seed, agent and number ([`Draw`]), so that a record in which
//! requests of agents were left out, or put in, disagrees with it whatever its sums say. What the windows of a run say was
//! asked must be what its agents did. It does not bind a latency: whoever holds the key signs what the frames say of one.

use crate::evidence::{Epoch, RunFrames, seed_of};
use crate::load::Draw;
use crate::plan::{Arrivals, Plan};

/// Draws that a check takes, as far as fewer agents than [`AGENTS_MIN`] are not asked for: a run of days has billions.
const DRAWS: u64 = 20_000_000;
/// Fewest agents that are drawn again, of a run that has as many.
const AGENTS_MIN: u64 = 100;
/// Draws that no check takes more of: some seconds.
const DRAWS_MAX: u64 = 400_000_000;
/// Share of the schedule that must have been asked. What the generator could not send is counted and told elsewhere.
const ASKED_MIN: f64 = 0.99;

/// What came of drawing again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// It agrees; in words.
    Drawn(String),
    /// It says nothing of this run; why.
    NotDrawn(String),
}

/// Draws the schedule of some agents again, and adds up what all of them are said to have asked.
///
/// # Errors
/// In words: who asked more than the schedule has, how much less all of them did, or that windows and agents do not say the
/// same.
pub fn schedule(run: &RunFrames) -> Result<Schedule, String> {
    if let Some(why) = impossible(run) {
        return Ok(Schedule::NotDrawn(format!("not drawn again: {why}")));
    }
    let Some(attempts) = &run.attempts else {
        return Err("it ended orderly, and nothing says how often each agent asked".to_owned());
    };
    let whole = run.epochs.len() == 1;
    let seed = |of: &&Epoch| of.number > 1 && of.seed != seed_of(run.plan.seed, of.number);
    if let Some(of) = run.epochs.iter().find(seed) {
        return Err(format!("epoch {} has a seed that does not follow from the plan's", of.number));
    }
    in_the_windows(run, attempts, whole)?;
    let (plan, askers) = (&run.plan, run.plan.askers());
    let each = plan.duration_ns as f64 / 1e9 * plan.rate_per_s() / askers.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
    let each = (each as u64).max(1);
    let some = (DRAWS / each).max(AGENTS_MIN).min(DRAWS_MAX / each).min(askers.max(1));
    if some == 0 {
        return Ok(Schedule::NotDrawn(format!(
            "not drawn again: an agent has {each} requests due, and {DRAWS_MAX} are drawn at most"
        )));
    }
    let step = askers.div_ceil(some).max(1);
    let (mut compared, mut due, mut asked) = (0u64, 0u64, 0u64);
    for agent in (0..askers).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let theirs = usize::try_from(agent).ok().and_then(|agent| attempts.get(agent));
        let theirs = u64::from(*theirs.ok_or_else(|| format!("agent {agent} is not in it"))?);
        let scheduled = if whole {
            requests(plan, agent, plan.duration_ns)
        } else {
            run.epochs.iter().map(|of| in_epoch(plan, agent, of)).sum()
        };
        if theirs > scheduled {
            return Err(format!(
                "agent {agent} asked {theirs} times, its schedule has {scheduled}"
            ));
        }
        (compared, due, asked) = (compared + 1, due + scheduled, asked + theirs);
    }
    let epochs = match run.epochs.len() {
        1 => String::new(),
        n => {
            format!(" in {n} epochs; what each did between its last word and a cut is in no count")
        }
    };
    let text = format!(
        "{asked} of {due} requests that {compared} of {askers} agents had due by seed {}{epochs}",
        plan.seed
    );
    if whole && (asked as f64) < ASKED_MIN * due as f64 {
        Err(text)
    } else {
        Ok(Schedule::Drawn(text))
    }
}

/// What the agents are said to have asked is what the windows have: leaving out requests, or a window, takes both. In an
/// epoch that was cut the windows may have more, what came behind the agents' last word, and a little less: that word is
/// given behind a window, core by core, and requests come due meanwhile. A second of them is allowed.
fn in_the_windows(run: &RunFrames, attempts: &[u32], whole: bool) -> Result<(), String> {
    let agents: u64 = attempts.iter().map(|&n| u64::from(n)).sum();
    let seconds = run.windows.iter().flat_map(|window| &window.seconds);
    let windows: u64 = seconds.map(|second| second.counts.outcomes.attempts).sum();
    let cuts = run.epochs.len().saturating_sub(1) as f64;
    let meanwhile = cuts * run.plan.rate_per_s();
    if agents as f64 > windows as f64 + meanwhile || whole && agents < windows {
        return Err(format!(
            "its agents asked {agents} times, its windows have {windows} requests"
        ));
    }
    Ok(())
}

/// Why the schedule says nothing of the counts.
fn impossible(run: &RunFrames) -> Option<String> {
    let end = match &run.end {
        Some(end) if end.reason == "finished" => end,
        _ => return Some("it was cut or stopped".to_owned()),
    };
    let plan = &run.plan;
    let why = match () {
        () if end.agents_panicked > 0 => "agents of it panicked",
        () if plan.shape.arrivals == Arrivals::Closed => "its loop was closed",
        () if plan.shape.session_ns.is_some() => "its agents came and went",
        () if plan.observe.saturate_ns > 0 => "it ended with a closed loop",
        () => return None,
    };
    Some(why.to_owned())
}

/// Requests of an agent's schedule in an epoch of a run that was cut: as far as its windows reach, and in the one that may
/// have been lost with its cut.
fn in_epoch(plan: &Plan, agent: u64, epoch: &Epoch) -> u64 {
    let drawn = Plan { seed: epoch.seed, ..plan.clone() };
    requests(&drawn, agent, epoch.issued_ns.saturating_add(plan.observe.window_ns()))
}

/// Requests of an agent's schedule within so much time.
fn requests(plan: &Plan, agent: u64, within_ns: u64) -> u64 {
    let (draw, fan_out) = (Draw::new(plan.seed, agent), u64::from(plan.shape.fan_out));
    let (mut at_ns, mut k) = (draw.first_distance_ns(plan), 0);
    while at_ns < within_ns {
        at_ns = at_ns.saturating_add(draw.distance_ns(k, plan).max(1));
        k += fan_out;
    }
    k
}
