//! Figures of a leak report in words.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded and bounded just before; Rust casts of floats saturate"
)]

use tailbeam_harness::evidence::rfc3339;
use tailbeam_probes::analyse::leak::{
    Finding, Growth, Interval, Onset, Reason, SiteReport, Spread,
};
use tailbeam_probes::record::heap::HeapSnapshot;

use crate::render::export::owner_name;
use crate::render::units::{bytes, count, span};

/// Bytes with a sign.
pub(super) fn signed(value: f64) -> String {
    let sign = if value < 0.0 { '-' } else { '+' };
    format!("{sign}{}", bytes(value.abs()))
}

/// A rate with its interval.
pub(super) fn rate(rate: &Interval) -> String {
    format!("{}/h [{}, {}]", signed(rate.estimate), signed(rate.low), signed(rate.high))
}

/// An estimated count.
pub(super) fn whole(value: f64) -> String {
    count(value.max(0.0).round() as u64)
}

/// Nanoseconds as a person says them.
pub(super) fn ns(value: u64) -> String {
    span(value as f64 / 1e9)
}

/// Hours as a person says them; days from two on, years when it is far.
pub(super) fn hours(value: f64) -> String {
    match value {
        h if !h.is_finite() => "never".to_owned(),
        h if h < 48.0 => span(h * 3_600.0),
        h if h < 24.0 * 700.0 => format!("{:.1} days", h / 24.0),
        h => format!("{:.1} years", h / 24.0 / 365.25),
    }
}

/// Probability with as many digits as it is worth.
pub(super) fn chance(p: f64) -> String {
    match p {
        p if p >= 0.001 => format!("{p:.3}"),
        p if p > 0.0 => format!("{p:.0e}"),
        _ => "below 1e-300".to_owned(),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.05 => "<0.1 %".to_owned(),
        p if p < 9.95 || (99.0..99.95).contains(&p) => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// When growth began.
pub(super) fn since(onset: &Onset, snapshot: &HeapSnapshot) -> String {
    if onset.from_start {
        return "the start".to_owned();
    }
    let at = rfc3339(snapshot.started_unix_ns.saturating_add(onset.at_ns));
    format!(
        "{at}, {} after the start (between {} and {})",
        ns(onset.at_ns),
        ns(onset.low_ns),
        ns(onset.high_ns)
    )
}

/// Why it is not, or not yet, a leak.
pub(super) fn reason(reason: &Reason) -> String {
    match reason {
        Reason::TooEarly => "the run is younger than three times the declared warm-up".to_owned(),
        Reason::WarmUp => "births of survivors decline: a structure that fills up".to_owned(),
        Reason::Turnover => "as much dies as is born: a cache or a queue".to_owned(),
        Reason::PerOwner { owners, of } => format!(
            "each agent keeps at most one: {} of {} have theirs, then the growth ends",
            count(u64::from(*owners)),
            count(*of)
        ),
        Reason::Backlog => {
            "all survivors are younger than the declared horizon: a queue that may drain".to_owned()
        }
        Reason::Stopped { at_ns } => {
            format!("nothing has stayed since {} after the start", ns(*at_ns))
        }
        Reason::Load => "more lives because more is asked for; lifetimes did not change".to_owned(),
        Reason::NoSurvivors => "no object outlives its kind".to_owned(),
        Reason::Straddles => "the interval of the rate straddles the floor".to_owned(),
        Reason::BelowFloor => "the rate is below the floor".to_owned(),
        Reason::TailDies => "old objects still die as fast as a long tail would".to_owned(),
    }
}

/// How it grows.
pub(super) fn growth(growth: &Growth) -> String {
    match growth {
        Growth::Inserts => {
            "objects of their own, made and never freed: an insert without its remove".to_owned()
        }
        Growth::Chains { chains, doublings } => format!(
            "{} that still grow, up to {doublings} reallocations: an unbounded Vec, String or table",
            plural(u64::from(*chains), "block")
        ),
        Growth::Orphans => "objects outlived the agent that made them".to_owned(),
    }
}

/// A count with its noun.
pub(super) fn plural(n: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// Whose the survivors are, and on which cores they were made.
pub(super) fn who(site: &SiteReport, snapshot: &HeapSnapshot) -> String {
    let named = |owner: u32| owner_name(snapshot, owner);
    let whose = match site.spread {
        Spread::Untagged => {
            "unknown agent: the program tagged none; remedy: tag owners (probes::collect::owner)"
                .to_owned()
        }
        Spread::One(owner) => {
            let share = site.owners.iter().find(|of| of.owner == owner).map(|of| of.share);
            let share = share.map_or_else(String::new, |s| {
                format!(
                    " ({} of the old objects, at least {})",
                    percent(s.estimate),
                    percent(s.low)
                )
            });
            format!("agent {}{share}", named(owner))
        }
        Spread::Some { owners } => {
            let list: Vec<String> = site
                .owners
                .iter()
                .take(3)
                .map(|of| format!("{} ({})", named(of.owner), percent(of.share.estimate)))
                .collect();
            let more = if u64::from(owners) > list.len() as u64 { ", …" } else { "" };
            format!("{}: {}{more}", plural(u64::from(owners), "agent"), list.join(", "))
        }
        Spread::Even { owners } => {
            format!("evenly over the {} that have any", plural(u64::from(owners), "agent"))
        }
    };
    let total: f64 = site.survivors.cores.iter().map(|core| core.bytes).sum();
    let cores: Vec<String> = site
        .survivors
        .cores
        .iter()
        .take(4)
        .filter(|core| core.bytes > 0.0)
        .map(|core| format!("core {} {}", core.core, percent(core.bytes / total)))
        .collect();
    let more = if site.survivors.cores.len() > 4 { ", …" } else { "" };
    if cores.is_empty() { whose } else { format!("{whose} · {}{more}", cores.join(", ")) }
}

/// Bars of a histogram by age, youngest first, in at most twelve steps.
pub(super) fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let step = values.len().div_ceil(12).max(1);
    let sums: Vec<f64> = values.chunks(step).map(|chunk| chunk.iter().sum()).collect();
    let max = sums.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match max > 0.0 {
        true => BARS[((value / max * 7.0).round() as usize).min(7)],
        false => BARS[0],
    };
    sums.iter().map(bar).collect()
}

/// The case for "nothing frees it".
pub(super) fn freed(finding: &Finding) -> String {
    let evidence = &finding.evidence;
    let old = ns(evidence.old_ns);
    let all = evidence.old_alive + evidence.old_dead;
    let by = match evidence.old_dead {
        0 => format!("nobody: 0 of {} sampled objects older than {old} died", count(all)),
        dead => format!("{} of {} sampled objects older than {old} died", count(dead), count(all)),
    };
    format!(
        "{by}; at least {:.1} would have, had they a bounded life (p {}, q {})",
        evidence.expected_dead,
        chance(evidence.p),
        chance(evidence.q)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_as_people_say_them() {
        assert_eq!(signed(-1_536.0), "-1.50 KiB");
        let interval = Interval { estimate: 1_992_294.4, low: -512.0, high: 2_181_038.08 };
        assert_eq!(rate(&interval), "+1.90 MiB/h [-512 B, +2.08 MiB]");
        assert_eq!(
            [0.5, 47.0, 225.6, 1e6, f64::INFINITY].map(hours),
            ["30 min", "47.0 h", "9.4 days", "114.1 years", "never"]
        );
        assert_eq!(
            [0.5, 0.0012, 3.2e-9, 0.0].map(chance),
            ["0.500", "0.001", "3e-9", "below 1e-300"]
        );
        assert_eq!(
            [0.0, 0.0001, 0.004, 0.0994, 0.989, 0.9958, 1.0].map(percent),
            ["0.0 %", "<0.1 %", "0.4 %", "9.9 %", "99 %", "99.6 %", "100 %"]
        );
        assert_eq!(sparkline(&[0.0, 1.0, 7.0]), "▁▂█");
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
        assert_eq!(sparkline(&[1.0; 24]).chars().count(), 12);
    }
}
