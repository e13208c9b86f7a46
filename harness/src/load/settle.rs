//! How a request ends in the counts, the histograms and the stages.

use tailbeam_probes::record::latency::{PollCounts, Stamps};
use tailbeam_runtime::SendError;

use super::exchange::Exchange;
use super::latency::Parties;
use super::legs::Step;
use super::open::Open;
use super::recorder::{Recorder, Series};
use super::workload::{Settled, Workload};
use crate::chaos::board::Fate;

/// Counts a request, due at `due_ns`, that could not be sent. `exhausted`: the generator's own table was full.
pub(super) fn fail(r: &mut Recorder, due_ns: u64, exhausted: bool) {
    r.came_to(due_ns, Fate::Error);
    r.second.generator_exhausted += u64::from(exhausted);
    r.judge_unanswered();
}

/// What refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A mailbox that was full.
    Mailbox,
    /// A ring to a core that was full.
    Ring,
    /// There is no such agent any more.
    Gone,
}

impl Refusal {
    /// Takes back what was handed back, as one that was never sent: the request ends with it.
    pub(super) fn of<M>(refused: SendError<M>, never_sent: impl FnOnce(M)) -> Self {
        let refusal = match refused {
            SendError::Full(_) => Self::Mailbox,
            SendError::RingFull(_) => Self::Ring,
            SendError::Gone(_) => Self::Gone,
        };
        never_sent(refused.into_message());
        refusal
    }
}

/// Counts a request, due at an instant, that the runtime did not take and handed back. `whose`: the agent it was for.
pub(super) fn handed_back(
    r: &mut Recorder,
    (key, due_ns): (u64, u64),
    whose: Option<u32>,
    refusal: Refusal,
) {
    r.no_step(Step::Sent);
    r.open.remove(key);
    match refusal {
        Refusal::Mailbox => {
            r.second.mailbox_full += 1;
            // That of a middle is none of the agents'.
            if let Some(agent) = whose {
                r.found_full();
                r.latency.found_full(agent);
            }
        }
        Refusal::Ring => r.second.ring_full += 1,
        Refusal::Gone => {}
    }
    fail(r, due_ns, false);
}

/// Counts a request, due at an instant, that there was no memory for: it is refused, and was not sent.
#[cold]
pub(super) fn no_memory(r: &mut Recorder, (key, due_ns): (u64, u64)) {
    r.open.remove(key);
    r.second.refused_no_memory += 1;
    r.came_to(due_ns, Fate::Refused);
}

/// Counts a request, due at `due_ns`, that was not sent, because something before that ended it.
pub(super) fn unsent(r: &mut Recorder, due_ns: u64, settled: Settled) {
    match settled {
        Settled::Refused => r.came_to(due_ns, Fate::Refused),
        _ => fail(r, due_ns, false),
    }
}

/// Counts a request that its asker has withdrawn.
pub(super) fn withdrawn(r: &mut Recorder, open: &Open, now_ns: u64) {
    r.came_to(open.intended_ns, Fate::Cancelled);
    r.closed(open.sent_ns, now_ns);
    r.latency.withdrawn(now_ns.saturating_sub(open.sent_ns));
}

/// Counts a request that was answered in its time.
pub(super) fn settle<W: Workload>(
    r: &mut Recorder,
    settled: Settled,
    open: &Open,
    exchange: &Exchange<W>,
) {
    let stamps = &exchange.stamps;
    let now_ns = stamps.closed_ns;
    r.closed(open.sent_ns, now_ns);
    let fate = match settled {
        Settled::Ok => Fate::Ok,
        Settled::Declined => Fate::Declined,
        Settled::Cancelled => Fate::Cancelled,
        Settled::Refused => Fate::Refused,
        Settled::Error => Fate::Error,
    };
    r.came_to(open.intended_ns, fate);
    if fate == Fate::Error {
        r.judge_unanswered();
    }
    if !matches!(fate, Fate::Ok | Fate::Declined) {
        return;
    }
    let parties = Parties { asker: exchange.from, responder: exchange.to };
    served(r, open, parties, (stamps, exchange.counts.as_deref()));
}

/// Records a request that has got its answer in its time, and what its polls took.
pub(crate) fn served(
    r: &mut Recorder,
    open: &Open,
    parties: Parties,
    (stamps, counts): (&Stamps, Option<&PollCounts>),
) {
    let now_ns = stamps.closed_ns;
    let local = open.local as usize;
    r.completions[local] = r.completions[local].saturating_add(1);
    let end_to_end = now_ns - open.intended_ns;
    r.record(Series::EndToEnd, end_to_end);
    r.record(Series::ReplyPath, now_ns.saturating_sub(stamps.answered_ns));
    // Before its due instant it used less than the plan's delay: what the system took is not known then.
    if stamps.answered_ns < stamps.due_ns {
        r.second.early_answers += 1;
        return;
    }
    let system = end_to_end.saturating_sub(open.planned_ns);
    r.system(open, system);
    r.judge(system);
    r.staged(parties, stamps, open.drawn, counts);
}
