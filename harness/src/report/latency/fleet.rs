//! What was done to the whole process: a CPU quota that held it, links between its cores that lost or held messages; and
//! how far the requests came that got no answer.

use serde::{Deserialize, Serialize};
use tailbeam_probes::record::latency::{CarriedSecond, FleetSecond};

use crate::evidence::records::{Manifest, SecondRecord};
use crate::report::Measured;

/// What a CPU quota did to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttled {
    /// Periods of the quota in which something was to run; 0 without a quota.
    pub periods: u64,
    /// Of these, so many ended with nothing left of it.
    pub times: u64,
    /// Time that CPUs had something to run and were not let, of all CPUs together, ns.
    pub ns: u64,
    /// Length of the seconds in which that was, ns.
    pub seconds_ns: u64,
    /// Length of the seconds in which it was looked for, ns.
    pub looked_ns: u64,
}

/// What faulty links between cores did to messages; somebody injects them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// Lost.
    pub dropped: u64,
    /// Made to wait.
    pub delayed: u64,
}

/// A number that is known within bounds: requests that are still open may be among them, and at which place is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Between {
    /// At least.
    pub at_least: u64,
    /// At most.
    pub at_most: u64,
}

/// Where requests were last seen to which no answer has come, by counts of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSeen {
    /// Sent, and never taken by a turn of the responder.
    pub sent: Between,
    /// Taken, and never answered.
    pub taken: Between,
    /// Answered, and the answer never taken by a turn of the asker.
    pub answered: Between,
}

/// The seconds that are asked about.
#[derive(Debug, Clone, Default)]
pub(super) struct Fleet {
    throttled: Throttle,
    links: Links,
    steps: [u64; 4],
    /// Carried to a second process, given up there, not carried, connections lost.
    carried: [u64; 4],
    seconds: u64,
    /// Requests open when the first of them began.
    open_before: u64,
    begun: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Throttle {
    sums: [u64; 5],
    unread: u64,
}

impl Fleet {
    /// A second before those that are asked about.
    pub(super) fn before(&mut self, seconds: &[SecondRecord]) {
        if let Some(last) = seconds.last().filter(|_| !self.begun) {
            self.open_before = if last.cut { 0 } else { last.open_end };
        }
    }

    pub(super) fn add(&mut self, second: &FleetSecond) {
        self.begun = true;
        self.seconds += 1;
        let length_ns = second.to_ns.saturating_sub(second.from_ns);
        match second.throttle {
            Some(of) => {
                let held_ns = if of.times > 0 || of.ns > 0 { length_ns } else { 0 };
                let more = [of.periods, of.times, of.ns, held_ns, length_ns];
                self.throttled.sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
            None => self.throttled.unread += 1,
        }
        self.links.dropped += second.links_dropped;
        self.links.delayed += second.links_delayed;
        self.steps.iter_mut().zip(second.steps).for_each(|(sum, more)| *sum += more);
    }

    pub(super) fn add_carried(&mut self, second: &CarriedSecond) {
        let more = [second.carried, second.given_up, second.not_carried, second.lost];
        self.carried.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
    }

    /// What the quota did; unknown where it was read in no second.
    pub(super) fn throttled(&self, manifest: &Manifest) -> Measured<Throttled> {
        let [periods, times, ns, seconds_ns, looked_ns] = self.throttled.sums;
        if looked_ns > 0 {
            return Measured::Known(Throttled { periods, times, ns, seconds_ns, looked_ns });
        }
        if let Some(of) = manifest.unknowns.iter().find(|of| of.thing.contains("CPU quota")) {
            return Measured::unknown(&of.unknown, &of.remedy);
        }
        match self.throttled.unread {
            0 => unrecorded(),
            _ => Measured::unknown(
                "the group of the process could not be read in any second",
                "see whether it was put into another group in each of them",
            ),
        }
    }

    pub(super) fn links(&self) -> Measured<Links> {
        if self.seconds > 0 { Measured::Known(self.links) } else { unrecorded() }
    }

    /// Where requests without an answer were last seen; so many are open at the end.
    pub(super) fn last_seen(&self, open_end: u64) -> Measured<LastSeen> {
        if self.seconds == 0 {
            return unrecorded();
        }
        let [sent, taken, answered] = std::array::from_fn(|leg| {
            let (came, left) = (self.steps[leg], self.steps[leg + 1]);
            Between {
                at_least: came.saturating_sub(left.saturating_add(open_end)),
                at_most: came.saturating_add(self.open_before).saturating_sub(left),
            }
        });
        Measured::Known(LastSeen { sent, taken, answered })
    }

    /// What must be known before a figure is believed.
    pub(super) fn caveats(&self, seconds: &[SecondRecord]) -> Vec<String> {
        let mut caveats = Vec::new();
        let [periods, times, ns, seconds_ns, looked_ns] = self.throttled.sums;
        if ns > 0 {
            let s = |ns: u64| ns as f64 / 1e9;
            caveats.push(format!(
                "the CPU quota of the process throttled it {times} times in {periods} of the quota's periods, for {:.2} s of all CPUs together, in {:.1} of {:.1} s",
                s(ns), s(seconds_ns), s(looked_ns)
            ));
        }
        if looked_ns > 0 && self.throttled.unread > 0 {
            caveats.push(format!(
                "in {} seconds it is not known whether a CPU quota held the process",
                self.throttled.unread
            ));
        }
        if self.links.delayed > 0 {
            caveats.push(format!(
                "links between cores held {} messages back, a fault that somebody injected: a way over an agent between the two (an owner) has two hops, and its second one is in the stage mailbox",
                self.links.delayed
            ));
        }
        let expired: u64 = seconds.iter().map(|second| second.counts.outcomes.expired).sum();
        let open_end = seconds.last().map_or(0, |last| last.open_end);
        let [carried, given_up, not_carried, lost] = self.carried;
        if given_up + not_carried + lost > 0 {
            caveats.push(format!(
                "the hop to the second process: of {carried} requests that its TCP connections carried {given_up} came back with no answer in time or not before their connection ended, {not_carried} more found no connection or no room on it; connections ended {lost} times"
            ));
        }
        if expired > 0 || self.links.dropped > 0 {
            caveats.extend(self.unanswered(expired, open_end));
        }
        caveats
    }

    fn unanswered(&self, expired: u64, open_end: u64) -> Option<String> {
        let seen = *self.last_seen(open_end).known()?;
        let hop = match self.links.dropped {
            0 => "on its way, in a queue or in a mailbox, which is not known".to_owned(),
            n if n >= seen.sent.at_most => format!(
                "the hop: links between cores lost {n} messages, a fault that somebody injected"
            ),
            n => format!(
                "links between cores lost {n} messages, a fault that somebody injected: the hop has at most so many of them; of the others queue and mailbox are not told apart"
            ),
        };
        let there = match self.carried[1] + self.carried[2] {
            0 => String::new(),
            n => format!(" ({n} of them for the second process, on the hop there or back)"),
        };
        Some(format!(
            "{expired} requests were given up at their deadline. Where those were last seen to which no answer came: {} when they were sent ({hop}), {} when the responder took them{there}, {} when it had answered (the reply hop, or behind it)",
            seen.sent.words(),
            seen.taken.words(),
            seen.answered.words()
        ))
    }
}

fn unrecorded<T>() -> Measured<T> {
    Measured::unknown("the run was recorded before this was counted", "record a new run")
}

impl Between {
    fn words(self) -> String {
        match self.at_least == self.at_most {
            true => self.at_least.to_string(),
            false => format!("{} to {}", self.at_least, self.at_most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tailbeam_probes::record::latency::ThrottleRecord;

    const S: u64 = 1_000_000_000;

    fn second(k: u64, throttle: Option<(u64, u64)>, steps: [u64; 4]) -> FleetSecond {
        FleetSecond {
            from_ns: k * S,
            to_ns: (k + 1) * S,
            throttle: throttle.map(|(times, ns)| ThrottleRecord { periods: 10, times, ns }),
            steps,
            ..FleetSecond::default()
        }
    }

    fn manifest() -> Manifest {
        serde_json::from_value(serde_json::json!({
            "id": "", "recorded_by": "", "workload": "", "started_unix_ns": 0, "start_ns": 0,
            "plan_sha256": "", "cores": [4], "limits_ns": [], "host": "",
        }))
        .expect("a manifest")
    }

    #[test]
    fn throttling_is_summed_told_where_it_was_and_unknown_where_nobody_looked() {
        let mut fleet = Fleet::default();
        assert!(fleet.throttled(&manifest()).known().is_none());
        assert!(fleet.caveats(&[]).is_empty());
        fleet.add(&second(0, Some((0, 0)), [0; 4]));
        assert!(fleet.caveats(&[]).is_empty(), "a clean second");
        fleet.add(&second(1, Some((7, S / 2)), [0; 4]));
        fleet.add(&second(2, None, [0; 4]));
        let throttled = *fleet.throttled(&manifest()).known().expect("read in two seconds");
        let (seconds_ns, looked_ns) = (S, 2 * S);
        let expected = Throttled { periods: 20, times: 7, ns: S / 2, seconds_ns, looked_ns };
        assert_eq!(throttled, expected);
        let said = fleet.caveats(&[]);
        assert!(said[0].contains("throttled it 7 times") && said[0].contains("0.50 s"), "{said:?}");
        assert!(said[1].starts_with("in 1 seconds"), "{said:?}");
    }

    #[test]
    fn requests_without_an_answer_were_last_seen_where_the_steps_end() {
        let mut fleet = Fleet::default();
        fleet.add(&second(0, None, [1_000, 600, 600, 590]));
        fleet.add(&FleetSecond { links_dropped: 410, ..second(1, None, [0; 4]) });
        let exactly = |n| Between { at_least: n, at_most: n };
        let seen = LastSeen { sent: exactly(400), taken: exactly(0), answered: exactly(10) };
        assert_eq!(fleet.last_seen(0), Measured::Known(seen));
        let open = *fleet.last_seen(30).known().expect("counted");
        assert_eq!(open.sent, Between { at_least: 370, at_most: 400 }, "some may be open");
        let said = fleet.unanswered(400, 0).expect("counted");
        assert!(said.contains("400 when they were sent (the hop: links"), "{said}");
    }
}
