//! The schedule of a run, drawn again from its seed and compared with what its agents are said to have asked.
//!
//! Every instant at which a request is due follows from seed, agent and number ([`Draw`]), so that a record in which
//! requests were left out, or put in, disagrees with it whatever its sums say.

use crate::evidence::RunFrames;
use crate::load::Draw;
use crate::plan::{Arrivals, Plan};

/// Draws that a check may take, as far as fewer agents than [`AGENTS_MIN`] are not asked for: a run of days has billions.
const DRAWS_MAX: u64 = 20_000_000;
/// Fewest agents that are drawn again, of a run that has as many.
const AGENTS_MIN: u64 = 100;
/// Share of the schedule that must have been asked. What the generator could not send is counted and told elsewhere.
const ASKED_MIN: f64 = 0.99;

/// Draws the schedule of some agents again. `Ok` says what was compared, or why nothing could be.
///
/// # Errors
/// In words: who asked more than the schedule has, or how much less all of them did.
pub fn schedule(run: &RunFrames) -> Result<String, String> {
    if let Some(why) = impossible(run) {
        return Ok(format!("not drawn again: {why}"));
    }
    let Some(attempts) = &run.attempts else {
        return Err("it ended orderly, and nothing says how often each agent asked".to_owned());
    };
    let (plan, askers) = (&run.plan, run.plan.askers());
    let each = plan.duration_ns as f64 / 1e9 * plan.rate_per_s() / askers.max(1) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive")]
    let some = (DRAWS_MAX / (each as u64).max(1)).max(AGENTS_MIN).clamp(1, askers.max(1));
    let step = askers.div_ceil(some).max(1);
    let (mut compared, mut due, mut asked) = (0u64, 0u64, 0u64);
    for agent in (0..askers).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let theirs = usize::try_from(agent).ok().and_then(|agent| attempts.get(agent));
        let theirs = u64::from(*theirs.ok_or_else(|| format!("agent {agent} is not in it"))?);
        let scheduled = requests(plan, agent);
        if theirs > scheduled {
            return Err(format!(
                "agent {agent} asked {theirs} times, its schedule has {scheduled}"
            ));
        }
        (compared, due, asked) = (compared + 1, due + scheduled, asked + theirs);
    }
    let text = format!(
        "{asked} of {due} requests that {compared} of {askers} agents had due by seed {}",
        plan.seed
    );
    if (asked as f64) < ASKED_MIN * due as f64 { Err(text) } else { Ok(text) }
}

/// Why the schedule says nothing of the counts.
fn impossible(run: &RunFrames) -> Option<String> {
    let end = match &run.end {
        Some(end) if end.reason == "finished" => end,
        _ => return Some("it was cut or stopped".to_owned()),
    };
    let plan = &run.plan;
    let why = match () {
        () if run.epochs.len() > 1 => "each of its epochs has a seed of its own",
        () if end.agents_panicked > 0 => "agents of it panicked",
        () if plan.shape.arrivals == Arrivals::Closed => "its loop was closed",
        () if plan.shape.session_ns.is_some() => "its agents came and went",
        () if plan.observe.saturate_ns > 0 => "it ended with a closed loop",
        () => return None,
    };
    Some(why.to_owned())
}

/// Requests of an agent's schedule within the run.
fn requests(plan: &Plan, agent: u64) -> u64 {
    let (draw, fan_out) = (Draw::new(plan.seed, agent), u64::from(plan.shape.fan_out));
    let (mut at_ns, mut k) = (draw.first_distance_ns(plan), 0);
    while at_ns < plan.duration_ns {
        at_ns = at_ns.saturating_add(draw.distance_ns(k, plan).max(1));
        k += fan_out;
    }
    k
}
