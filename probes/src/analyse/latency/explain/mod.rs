//! Why one request took so long: what each of its waits was behind, and what its service was made of.
//!
//! A wait is a span of time on one core. What that core did in it is known where it was long: turns of
//! 100 us and more (`Config::long_turn_ns` of the runtime), each with its agent, and intervals off the CPU of
//! 20 us and more. The rest of a wait is shorter turns, the scheduler's work and waking up, which are not
//! recorded one by one; it is told as [`Wait::rest_ns`] and given to nobody.
//!
//! Where switches are not recorded, how long a long turn was off its CPU is known and not when. A wait that has
//! only a part of such a turn is given what must lie in it, and the rest is nobody's either.
//!
//! Some causes are no core's: a CPU quota that holds the whole process, and links between cores that hold messages
//! back. These are known by the second.

mod blame;
mod fleet;
mod index;
mod service;

pub use blame::{BandCauses, Blame, Draws, causes};
pub use index::Index;
pub use service::{Service, service};

use super::stages::{Staged, stages, system_ns};
use crate::record::latency::{CARRIED, Exemplar, Leg, LongTurn, Stage};
use index::Core;

/// What a core did while a request waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behind {
    /// It ran a long turn.
    Turn {
        /// Of this agent; `u32::MAX`: none of the workload's.
        agent: u32,
    },
    /// It was off its CPU and could have run: another thread had it. Outside of any turn also one that was parked,
    /// had something to do, and was ready for most of the time until it came.
    Preempted {
        /// In a long turn of this agent.
        during: Option<u32>,
    },
    /// It was off its CPU in a long turn and could not have run: a blocking call of this agent, or the thread was
    /// held from outside (ptrace, a freezer). The kernel's records do not tell which, so it is not called the
    /// agent's doing.
    Blocked {
        /// Of this agent.
        during: u32,
    },
    /// It was off its CPU and not ready, outside of any long turn: parked although there was something to do, held
    /// from outside, or in a blocking call of a turn that was not long.
    Asleep,
    /// It could have run, and the CPU quota of the process held it: of the time that it was ready without a CPU, the
    /// share that the kernel counted as throttled in that second.
    Throttled,
    /// The core did nothing else that was recorded, and the message was on its way for longer than a millisecond, in
    /// a second in which links between cores held messages back.
    Link,
    /// It was on its way to another process or back, on the connection or in the queues before and behind it.
    Carried,
    /// Nobody knows: it was sent and no answer came, and what was recorded of its core is not all of that time.
    NeverAnswered,
}

/// A part of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cause {
    /// Behind what.
    pub behind: Behind,
    /// On which core.
    pub shard: u16,
    /// For how long, ns.
    pub ns: u64,
    /// In how many pieces.
    pub pieces: u64,
}

/// A wait of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// In which stage.
    pub stage: Stage,
    /// For which core.
    pub shard: u16,
    /// From, ns of `CLOCK_MONOTONIC`.
    pub from_ns: u64,
    /// To, ns.
    pub to_ns: u64,
    /// What it was behind, longest first. With `rest_ns` they are the wait, and nothing is in two of them:
    /// a turn's time off the CPU is not told as a turn.
    pub causes: Vec<Cause>,
    /// Behind nothing that was recorded, ns.
    pub rest_ns: u64,
}

/// A request and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// Its system latency, ns.
    pub system_ns: u64,
    /// Its stages.
    pub staged: Staged,
    /// Its waits, longest first; none of 0 ns.
    pub waits: Vec<Wait>,
    /// After it was suspended, until it was polled again, ns: a part of its run-queue stage. Of one
    /// suspension it is among the waits, shorter by up to twice the service; of several only this sum is known.
    pub resume_wait_ns: u64,
    /// Its service.
    pub service: Service,
}

/// Explains one request. `clock_ns`: by how much stamps may be out of order.
#[must_use]
pub fn explain(exemplar: &Exemplar, index: &Index, clock_ns: u64) -> Explained {
    let stamps = &exemplar.stamps;
    let mut waits: Vec<Wait> = spans(exemplar)
        .into_iter()
        .filter(|(_, _, from, to)| from < to && *from != 0)
        .map(|(stage, shard, from, to)| wait(index, stage, shard, (from, to)))
        .collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.to_ns - wait.from_ns));
    Explained {
        system_ns: system_ns(stamps),
        staged: stages(stamps, clock_ns),
        waits,
        resume_wait_ns: stamps.resume_wait_ns,
        service: service(exemplar, index),
    }
}

type Span = (Stage, u16, u64, u64);

/// The waits of a request: stage, the core that was waited for, from, to.
fn spans(exemplar: &Exemplar) -> Vec<Span> {
    let stamps = &exemplar.stamps;
    let (asker, responder) = (exemplar.asker_shard, exemplar.responder_shard);
    let mut spans = vec![(Stage::Schedule, asker, stamps.intended_ns, stamps.sent_ns)];
    if stamps.answered_ns == 0 {
        spans.push((Stage::Unanswered, responder, stamps.sent_ns, stamps.closed_ns));
        return spans;
    }
    let out = [Stage::SendQueue, Stage::Hop, Stage::RunQueue, Stage::Mailbox];
    leg(&mut spans, &stamps.out, stamps.sent_ns, (asker, responder), out);
    if stamps.polls == 2 && stamps.due_ns == 0 {
        // Its service is before and after, in parts that are not known: here it waited whatever they are.
        let from = stamps.out.turn_ns + stamps.suspended_ns + stamps.service_ns;
        let to = stamps.answered_ns.saturating_sub(stamps.service_ns);
        spans.push((Stage::RunQueue, responder, from, to));
    }
    if stamps.polls == CARRIED {
        // Its timer was another process', and no core here is to blame for that.
        let from = stamps.answered_ns.saturating_sub(stamps.suspended_ns);
        spans.push((Stage::Suspended, responder, from, stamps.answered_ns));
    } else {
        spans.push((Stage::Timer, responder, stamps.due_ns, stamps.timer_turn_ns));
    }
    let back = [Stage::ReplySendQueue, Stage::ReplyHop, Stage::ReplyRunQueue, Stage::ReplyMailbox];
    leg(&mut spans, &stamps.back, stamps.answered_ns, (responder, asker), back);
    spans.push((Stage::Settle, asker, stamps.back.turn_ns, stamps.closed_ns));
    spans
}

fn leg(
    spans: &mut Vec<Span>,
    leg: &Leg,
    sent_ns: u64,
    (from, to): (u16, u16),
    [queue, hop, run, mailbox]: [Stage; 4],
) {
    let mut ready_ns = sent_ns;
    if leg.published_ns != 0 {
        spans.push((queue, from, sent_ns, leg.published_ns));
        spans.push((hop, to, leg.published_ns.max(sent_ns), leg.seen_ns));
        ready_ns = leg.seen_ns.max(sent_ns);
    }
    if leg.aside_ns == 0 {
        spans.push((run, to, ready_ns, leg.turn_ns));
    } else {
        spans.push((run, to, ready_ns, leg.aside_ns));
        spans.push((mailbox, to, leg.aside_ns, leg.turn_ns));
    }
}

fn wait(index: &Index, stage: Stage, shard: u16, (from_ns, to_ns): (u64, u64)) -> Wait {
    let mut causes: Vec<Cause> = Vec::new();
    let mut add = |behind: Behind, ns: u64| {
        if ns == 0 {
            return;
        }
        match causes.iter_mut().find(|cause| cause.behind == behind) {
            Some(cause) => {
                cause.ns += ns;
                cause.pieces += 1;
            }
            None => causes.push(Cause { behind, shard, ns, pieces: 1 }),
        }
    };
    let mut known = 0;
    if let Some(core) = index.core(shard) {
        let turns: Vec<(LongTurn, u64, u64)> = core.turns(from_ns, to_ns).collect();
        let mut on: Vec<u64> = turns.iter().map(|(_, from, to)| to - from).collect();
        // Of time ready without a CPU the quota has its share, wherever in the span it was.
        let mut off = |(preempted, during), ns: u64, span: (u64, u64)| {
            let held = if preempted { index.fleet.throttled(span, ns) } else { 0 };
            add(Behind::Throttled, held);
            add(off_behind(preempted, during), ns - held);
        };
        for (late, from, to) in core.late(from_ns, to_ns) {
            // What a record of a switch tells of it is told below.
            let other = core.off(from, to).map(|(_, from, to)| to - from).sum::<u64>();
            let ns = (to - from).saturating_sub(other);
            let ready = late.ready_ns.is_some_and(|ready| ready >= (late.to_ns - late.from_ns) / 2);
            known += ns;
            off((ready, None), ns, (from, to));
        }
        for (of, from, to) in core.off(from_ns, to_ns) {
            let mut left = to - from;
            known += left;
            for ((turn, begin, end), on) in turns.iter().zip(&mut on) {
                let both = to.min(*end).saturating_sub(from.max(*begin)).min(left);
                *on = on.saturating_sub(both);
                left -= both;
                off((of.preempted, Some(turn.agent)), both, (from, to));
            }
            off((of.preempted, None), left, (from, to));
        }
        let mut ran: Vec<(u32, u64)> = Vec::new();
        for ((turn, from, to), on) in turns.iter().zip(on) {
            let (on, lacked) = split(turn, on, core);
            known += on;
            ran.push((turn.agent, on));
            if let Some((preempted, ns)) = lacked {
                known += ns;
                off((preempted, Some(turn.agent)), ns, (*from, *to));
            }
        }
        ran.into_iter().for_each(|(agent, on)| add(Behind::Turn { agent }, on));
    }
    let mut rest_ns = (to_ns - from_ns).saturating_sub(known);
    if let Some(behind) = index.fleet.instead(stage, (from_ns, to_ns), rest_ns) {
        add(behind, std::mem::take(&mut rest_ns));
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.ns));
    Wait { stage, shard, from_ns, to_ns, causes, rest_ns }
}

/// Of a turn whose time off its CPU is known but not when: how much of a part of it was on the CPU for certain,
/// and how much off it, whether it was mostly ready then. The rest may be either and is nobody's.
fn split(turn: &LongTurn, part_ns: u64, core: &Core) -> (u64, Option<(bool, u64)>) {
    let Some(off) = core.turn_off(turn) else { return (part_ns, None) };
    let on_ns = turn.len_ns.saturating_sub(off.off_ns);
    let preempted = off.ready_ns.is_some_and(|ready| ready >= off.off_ns / 2);
    (part_ns.saturating_sub(off.off_ns), Some((preempted, part_ns.saturating_sub(on_ns))))
}

const fn off_behind(preempted: bool, during: Option<u32>) -> Behind {
    match (preempted, during) {
        (true, during) => Behind::Preempted { during },
        (false, Some(during)) => Behind::Blocked { during },
        (false, None) => Behind::Asleep,
    }
}

#[cfg(test)]
mod tests;
