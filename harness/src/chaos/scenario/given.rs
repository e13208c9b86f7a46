//! Scenarios that are not the program's own: drawn by a seed, or of a file.

use super::super::recovery::PARTIAL_NS;
use super::table::fault;
use super::{Act, Fault, Scenario, Way, all};
use crate::chaos::board::Knob;
use crate::load::{Draw, Stream};

/// Faults of a scenario, and acts of a fault, at most.
const FAULTS_MAX: usize = 64;
const ACTS_MAX: usize = 8;

/// Why a scenario cannot be run: what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}\n  cause: {cause}\n  remedy: {remedy}")]
pub struct ScenarioError {
    /// Scenario, and fault.
    place: String,
    what: String,
    cause: &'static str,
    remedy: &'static str,
}

/// Whether an act can be done beside others, and taken back while the subject lives.
const fn is_alone(act: &Act) -> bool {
    act.restarts()
        || act.is_of_the_start()
        || act.needs_disk()
        || matches!(act, Act::Corrupt(_) | Act::Partition(_) | Act::Together(_))
}

/// Whether a swarm can have it.
fn can_be_drawn(act: &Act) -> bool {
    match act {
        Act::Together(acts) => !acts.iter().any(is_alone),
        act => !is_alone(act),
    }
}

/// Whether a scenario of a file can be run.
///
/// # Errors
/// The first thing that no scenario can have.
pub fn check(of: &Scenario) -> Result<(), ScenarioError> {
    let plain = |name: &str| {
        let letter =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        !name.is_empty() && name.len() <= 64 && name.chars().all(letter)
    };
    let names = "names become names of files";
    let error = |place: &str, what: String, cause, remedy| {
        Err(ScenarioError { place: place.to_owned(), what, cause, remedy })
    };
    if !plain(&of.name) {
        return error(
            "scenario",
            format!("{:?} is no name", of.name),
            names,
            "use a to z, 0 to 9, _ and -",
        );
    }
    if of.faults.is_empty() || of.faults.len() > FAULTS_MAX {
        let what = format!("it has {} faults", of.faults.len());
        return error(&of.name, what, "a scenario has 1 to 64", "write [[scenario.faults]]");
    }
    for (at, one) in of.faults.iter().enumerate() {
        let place = format!("{}/{}", of.name, one.name);
        if !plain(&one.name) || of.faults[..at].iter().any(|other| other.name == one.name) {
            let what = format!("{:?} is no name of its own", one.name);
            return error(
                &place,
                what,
                names,
                "give each fault another name of a to z, 0 to 9, _ and -",
            );
        }
        if one.hold_ns.is_some_and(|ns| ns == 0 || ns > 10 * PARTIAL_NS) {
            let what = "it lasts no time, or longer than 10 minutes".to_owned();
            return error(&place, what, "hold_ns is in nanoseconds", "write 5_000_000_000 for 5 s");
        }
        if one.answered_min.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            let what = "answered_min is no share".to_owned();
            return error(&place, what, "a share lies between 0 and 1", "write 0.999 for 99.9 %");
        }
        check_act(&place, &one.act)?;
    }
    Ok(())
}

fn check_act(place: &str, act: &Act) -> Result<(), ScenarioError> {
    let error = |what: String, cause, remedy| {
        Err(ScenarioError { place: place.to_owned(), what, cause, remedy })
    };
    match act {
        Act::Knobs(knobs) if knobs.iter().all(|(_, level)| *level == 0) => error(
            "no knob is turned".to_owned(),
            "0 is off",
            "write knobs = [[\"log_sync_delay_ns\", 500_000_000]]",
        ),
        Act::Proxy(knobs) if knobs.iter().all(|(_, level)| *level == 0) => error(
            "no knob is turned".to_owned(),
            "0 is off",
            "write proxy = [[\"proxy_latency_ns\", 50_000_000]]",
        ),
        Act::Knobs(knobs) if knobs.iter().any(|(knob, _)| knob.is_of_a_proxy()) => error(
            "the subject has no knob of a proxy".to_owned(),
            "proxy_reset, proxy_half_open and proxy_latency_ns are done on the way to its peer",
            "write proxy = [[\"proxy_reset\", 1]]",
        ),
        Act::Proxy(knobs) if !knobs.iter().all(|(knob, _)| knob.is_of_a_proxy()) => error(
            "a proxy has no knob of the subject".to_owned(),
            "it has proxy_reset, proxy_half_open and proxy_latency_ns",
            "write knobs = [..] for the others, and both in together = [..]",
        ),
        Act::Knobs(knobs) if !knows_its_errno(knobs) => error(
            "operations are to fail with no error".to_owned(),
            "ring_fail_errno is 1 to 4095, and without it none fails",
            "write [\"ring_fail_errno\", 5] for EIO beside ring_fail_ppm",
        ),
        Act::Together(acts) if shares_a_knob(acts) => error(
            "two of the acts turn the same knob".to_owned(),
            "the last one would be done, and the other one be said to be",
            "make them faults of their own",
        ),
        Act::CpuQuota(percent) if !(1..=100_000).contains(percent) => error(
            format!("a quota of {percent} %"),
            "100 is one core",
            "write 50 for half of a core",
        ),
        Act::Memory(percent) if !(1..=1_000).contains(percent) => {
            error(format!("a neighbour of {percent} %"), "it takes this much of 32 MiB", "write 97")
        }
        Act::Partition(Way::Loss(percent)) if !(1..=100).contains(percent) => {
            error(format!("a loss of {percent} %"), "it is a share of packets", "write 10")
        }
        Act::DiskThrottle(bytes) if *bytes < 4_096 => error(
            format!("{bytes} bytes per second"),
            "a page has 4,096",
            "write 1_000_000 for 1 MB/s",
        ),
        Act::Together(acts) if acts.len() < 2 || acts.len() > ACTS_MAX => error(
            format!("{} acts together", acts.len()),
            "together are 2 to 8",
            "write one act, or more",
        ),
        Act::Together(acts) => match acts.iter().find(|act| is_alone(act)) {
            Some(alone) => error(
                format!("{alone:?} cannot be done beside others"),
                "it ends the process, is of its start, needs a disk or a cable of its own, or is done to a copy",
                "make it a fault of its own",
            ),
            None => acts.iter().try_for_each(|act| check_act(place, act)),
        },
        _ => Ok(()),
    }
}

/// Whether operations that are to fail have something to fail with.
fn knows_its_errno(knobs: &[(Knob, u64)]) -> bool {
    let level = |wanted: Knob| knobs.iter().find(|(knob, _)| *knob == wanted).map_or(0, |of| of.1);
    level(Knob::RingFailPpm) == 0 || (1..=4_095).contains(&level(Knob::RingFailErrno))
}

/// Whether two of these acts turn the same knob.
fn shares_a_knob(acts: &[Act]) -> bool {
    let knobs = |act: &Act| act.knobs().unwrap_or_default().iter().map(|of| of.0).collect();
    let all: Vec<Knob> = acts.iter().flat_map(|act| -> Vec<Knob> { knobs(act) }).collect();
    all.iter().enumerate().any(|(at, knob)| all[..at].contains(knob))
}

/// The draw of an injection: from it come its instant and, of a copy, its place.
#[must_use]
pub const fn drawn(seed: u64, fault: u64, injection: u64) -> u64 {
    Draw::new(seed, fault).bits(injection, Stream::Start)
}

/// So many faults, each of two or three of different scenarios at once, drawn by a seed from those that can be done beside
/// others. A set that was drawn before is drawn again, four times as often as faults are wanted: there may be fewer.
#[must_use]
pub fn swarm(rounds: u32, seed: u64) -> Scenario {
    let pool: Vec<(String, Vec<Fault>)> = all()
        .into_iter()
        .map(|of| {
            (
                of.name,
                of.faults.into_iter().filter(|fault| can_be_drawn(&fault.act)).collect::<Vec<_>>(),
            )
        })
        .filter(|(_, faults)| !faults.is_empty())
        .collect();
    let (mut faults, mut k) = (Vec::<Fault>::new(), 0);
    let mut draw = |below: usize| {
        k += 1;
        usize::try_from(Draw::new(seed, 0).below(k, Stream::Content, below as u64)).unwrap_or(0)
    };
    for _ in 0..rounds.saturating_mul(4) {
        if faults.len() >= rounds as usize {
            break;
        }
        let mut left: Vec<&(String, Vec<Fault>)> = pool.iter().collect();
        let mut drawn: Vec<&Fault> = Vec::new();
        for _ in 0..2 + draw(2) {
            let of = left.swap_remove(draw(left.len()));
            drawn.push(&of.1[draw(of.1.len())]);
        }
        drawn.sort_by(|a, b| a.name.cmp(&b.name));
        let name = drawn.iter().map(|of| of.name.as_str()).collect::<Vec<_>>().join("+");
        if faults.iter().all(|of| of.name != name) {
            let what = drawn.iter().map(|of| of.what.as_str()).collect::<Vec<_>>().join("; ");
            // One that is made of several is done as these, beside the others.
            let acts = drawn.iter().flat_map(|of| match &of.act {
                Act::Together(acts) => acts.clone(),
                act => vec![act.clone()],
            });
            let acts: Vec<Act> = acts.collect();
            if shares_a_knob(&acts) {
                continue;
            }
            faults.push(fault(&name, &what, Act::Together(acts)));
        }
    }
    Scenario { name: "swarm".to_owned(), about: format!("faults at once, of seed {seed}"), faults }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_the_same_for_a_seed_and_has_what_can_be_done_at_once() {
        let swarm_of = |seed| swarm(20, seed);
        assert_eq!(swarm_of(7), swarm_of(7));
        assert_ne!(swarm_of(7).faults, swarm_of(8).faults);
        let found = swarm_of(7);
        assert_eq!(found.faults.len(), 20);
        for one in &found.faults {
            let Act::Together(acts) = &one.act else { panic!("{one:?}") };
            assert!((2..=4).contains(&acts.len()) && !acts.iter().any(is_alone));
            check_act("swarm", &one.act).unwrap();
        }
    }

    #[test]
    fn what_no_scenario_can_have_is_refused_with_its_place() {
        let good = || Scenario {
            name: "night".into(),
            about: String::new(),
            faults: vec![fault("slow", "", Act::Knobs(vec![(Knob::LogSyncDelayNs, 5)]))],
        };
        assert!(check(&good()).is_ok());
        for program in all() {
            check(&program).unwrap();
        }
        let refused = |change: fn(&mut Scenario)| {
            let mut of = good();
            change(&mut of);
            let text = check(&of).expect_err("refused").to_string();
            assert!(text.contains("cause:") && text.contains("remedy:"), "{text}");
            text
        };
        refused(|of| of.name = "../x".into());
        refused(|of| of.faults.clear());
        refused(|of| of.faults.push(of.faults[0].clone()));
        refused(|of| of.faults[0].hold_ns = Some(0));
        refused(|of| of.faults[0].answered_min = Some(99.9));
        refused(|of| of.faults[0].act = Act::Knobs(Vec::new()));
        refused(|of| of.faults[0].act = Act::Proxy(Vec::new()));
        refused(|of| of.faults[0].act = Act::Knobs(vec![(Knob::ProxyReset, 1)]));
        refused(|of| {
            of.faults[0].act = Act::Proxy(vec![(Knob::ProxyReset, 1), (Knob::HerdNow, 1)])
        });
        refused(|of| of.faults[0].act = Act::CpuQuota(0));
        refused(|of| of.faults[0].act = Act::Knobs(vec![(Knob::RingFailPpm, 9)]));
        refused(|of| {
            let knob = || Act::Knobs(vec![(Knob::LogSyncDelayNs, 5)]);
            of.faults[0].act = Act::Together(vec![knob(), knob()]);
        });
        refused(|of| of.faults[0].act = Act::Together(vec![Act::Freeze]));
        let text = refused(|of| of.faults[0].act = Act::Together(vec![Act::Freeze, Act::Kill]));
        assert!(text.starts_with("night/slow: Kill cannot"), "{text}");
    }
}
