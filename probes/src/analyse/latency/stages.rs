//! The stages of one request from its stamps.
//!
//! A stage runs from the stamp before it to its own, and a stamp is shared where one ends and the next
//! begins: nothing is counted twice and nothing falls between. Stamps of two cores may be out of order by
//! the clock's bound and by a look at the queues; within `bound_ns` the later stage then begins where the
//! earlier one ended, takes 0 and is counted. Beyond it the request is disordered: its stages mean nothing.
//!
//! Service, suspension and resumption are measured by the responder, not as differences of the stamps
//! around them. So the sum of the stages can differ from what the asker's clock says, and is checked.

use crate::record::latency::{Leg, STAGES, Stage, StageNs, Stamps};

/// A request cut into stages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Staged {
    /// Time in each, ns.
    pub stages: StageNs,
    /// Stages that were negative within the bound and taken as 0.
    pub clamped: u32,
    /// The first stage that ends before it begins by more than the bound, or has a stamp missing. The
    /// stages are then not to be used.
    pub disordered: Option<Stage>,
}

/// Walks from stamp to stamp.
struct Walk {
    staged: Staged,
    at_ns: u64,
    bound_ns: u64,
}

impl Walk {
    #[inline]
    fn to(&mut self, stage: Stage, stamp_ns: u64) {
        let cell = &mut self.staged.stages[stage.index()];
        if stamp_ns >= self.at_ns {
            *cell += stamp_ns - self.at_ns;
            self.at_ns = stamp_ns;
        } else if self.at_ns - stamp_ns <= self.bound_ns {
            self.staged.clamped += 1;
        } else if self.staged.disordered.is_none() {
            self.staged.disordered = Some(stage);
        }
    }

    /// Along a message, from its sending to the turn that took it. `from` is its first stage.
    #[inline]
    fn leg(&mut self, leg: &Leg, [queue, hop, run, mailbox]: [Stage; 4]) {
        // From the same core it is seen as it is sent: all until it is taken is the run queue's.
        if leg.published_ns != 0 {
            self.to(queue, leg.published_ns);
            self.to(hop, leg.seen_ns);
        }
        if leg.aside_ns != 0 {
            self.to(run, leg.aside_ns);
            self.to(mailbox, leg.turn_ns);
        } else {
            self.to(run, leg.turn_ns);
        }
    }
}

const OUT: [Stage; 4] = [Stage::SendQueue, Stage::Hop, Stage::RunQueue, Stage::Mailbox];
const BACK: [Stage; 4] =
    [Stage::ReplySendQueue, Stage::ReplyHop, Stage::ReplyRunQueue, Stage::ReplyMailbox];

/// Cuts a request into stages. `bound_ns`: by how much stamps of two cores may be out of order (the
/// clock's bound and the resolution of a look). Some ns.
///
/// One without an answer (`answered_ns` 0) is late and then unanswered; one never sent is all unanswered.
///
/// ```
/// use tailbeam_probes::analyse::latency::{stages, sum_ns, system_ns};
/// use tailbeam_probes::record::latency::{Leg, Stage, Stamps};
/// let stamps = Stamps {
///     intended_ns: 1_000,
///     sent_ns: 1_200,
///     out: Leg { turn_ns: 1_500, ..Leg::default() },
///     service_ns: 400,
///     answered_ns: 1_900,
///     back: Leg { published_ns: 1_950, seen_ns: 2_100, aside_ns: 0, turn_ns: 2_150 },
///     closed_ns: 2_160,
///     ..Stamps::default()
/// };
/// let staged = stages(&stamps, 100);
/// assert_eq!(staged.stages[Stage::RunQueue.index()], 300);
/// assert_eq!(staged.stages[Stage::ReplyHop.index()], 150);
/// assert_eq!(sum_ns(&staged.stages), system_ns(&stamps));
/// ```
#[inline]
#[must_use]
pub fn stages(stamps: &Stamps, bound_ns: u64) -> Staged {
    let mut walk = Walk { staged: Staged::default(), at_ns: stamps.intended_ns, bound_ns };
    if stamps.sent_ns != 0 {
        walk.to(Stage::Schedule, stamps.sent_ns);
    }
    if stamps.answered_ns == 0 {
        // An answer that was to come later was not the system's to give before.
        let planned = stamps.planned_ns.min(stamps.closed_ns.saturating_sub(walk.at_ns));
        walk.at_ns += planned;
        walk.to(Stage::Unanswered, stamps.closed_ns);
        return walk.staged;
    }
    walk.leg(&stamps.out, OUT);
    if stamps.due_ns != 0 {
        // From the turn that took it to the due instant is the plan's; a due instant before the turn is
        // no plan of this request.
        if stamps.due_ns < stamps.out.turn_ns {
            walk.staged.disordered = walk.staged.disordered.or(Some(Stage::Timer));
        }
        walk.at_ns = stamps.due_ns;
        walk.to(Stage::Timer, stamps.timer_turn_ns);
    }
    let cells = &mut walk.staged.stages;
    cells[Stage::Service.index()] += stamps.service_ns;
    cells[Stage::Suspended.index()] += stamps.suspended_ns;
    cells[Stage::RunQueue.index()] += stamps.resume_wait_ns;
    if stamps.answered_ns.saturating_add(bound_ns) < walk.at_ns {
        walk.staged.disordered = walk.staged.disordered.or(Some(Stage::Service));
    }
    walk.at_ns = stamps.answered_ns;
    walk.leg(&stamps.back, BACK);
    walk.to(Stage::Settle, stamps.closed_ns);
    walk.staged
}

/// Sum of the stages, ns.
#[inline]
#[must_use]
pub fn sum_ns(stages: &StageNs) -> u64 {
    stages.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
}

/// What the system took by the asker's two clock reads, ns: intended to closed, without the planned delay.
/// 0 when they are out of order.
#[inline]
#[must_use]
pub const fn system_ns(stamps: &Stamps) -> u64 {
    stamps.closed_ns.saturating_sub(stamps.intended_ns).saturating_sub(stamps.planned_ns)
}

const _: () = assert!(Stage::Unanswered.index() + 1 == STAGES, "a cell for each stage");

#[cfg(test)]
mod tests {
    use super::*;

    fn across() -> Stamps {
        Stamps {
            intended_ns: 10_000,
            sent_ns: 10_100,
            out: Leg { published_ns: 10_300, seen_ns: 10_600, aside_ns: 11_000, turn_ns: 11_500 },
            polls: 2,
            service_ns: 600,
            suspended_ns: 700,
            resume_wait_ns: 800,
            answered_ns: 13_600,
            back: Leg { published_ns: 14_500, seen_ns: 15_500, aside_ns: 16_600, turn_ns: 17_800 },
            closed_ns: 19_100,
            ..Stamps::default()
        }
    }

    #[test]
    fn stages_are_the_differences_of_their_stamps() {
        let staged = stages(&across(), 0);
        let expected =
            [100, 200, 300, 400 + 800, 500, 600, 700, 0, 900, 1_000, 1_100, 1_200, 1_300, 0];
        assert_eq!(staged, Staged { stages: expected, clamped: 0, disordered: None });
        assert_eq!(sum_ns(&staged.stages), system_ns(&across()));
    }

    #[test]
    fn on_one_core_there_is_no_queue_and_no_hop() {
        let mut stamps = across();
        stamps.out = Leg { published_ns: 0, seen_ns: 3, aside_ns: 0, turn_ns: 11_500 };
        let staged = stages(&stamps, 0);
        assert_eq!(staged.disordered, None, "what was seen is not looked at");
        assert_eq!(staged.stages[..5], [100, 0, 0, 1_400 + 800, 0]);
        assert_eq!(sum_ns(&staged.stages), system_ns(&stamps));
    }

    #[test]
    fn the_plan_is_not_the_system() {
        let mut stamps = across();
        stamps.planned_ns = 50_000;
        stamps.due_ns = 61_500;
        stamps.timer_turn_ns = 61_900;
        (stamps.suspended_ns, stamps.resume_wait_ns) = (0, 0);
        stamps.answered_ns = 62_500;
        stamps.back = Leg { published_ns: 0, seen_ns: 0, aside_ns: 0, turn_ns: 63_000 };
        stamps.closed_ns = 63_010;
        let staged = stages(&stamps, 0);
        assert_eq!(staged.stages[4..], [500, 600, 0, 400, 0, 0, 500, 0, 10, 0]);
        assert_eq!(sum_ns(&staged.stages), system_ns(&stamps));
        stamps.due_ns = 11_000;
        assert_eq!(
            stages(&stamps, 1_000).disordered,
            Some(Stage::Timer),
            "due before it was taken"
        );
    }

    #[test]
    fn what_is_out_of_order_within_the_bound_is_counted_and_keeps_the_sum() {
        let mut stamps = across();
        stamps.out.published_ns = 10_060;
        let staged = stages(&stamps, 40);
        assert_eq!((staged.clamped, staged.disordered), (1, None));
        assert_eq!(staged.stages[1..3], [0, 500], "the hop begins with the sending");
        assert_eq!(sum_ns(&staged.stages), system_ns(&stamps));
        assert_eq!(stages(&stamps, 39).disordered, Some(Stage::SendQueue));
        stamps.back.turn_ns = 0;
        assert_eq!(stages(&stamps, 40).disordered, Some(Stage::ReplyMailbox), "a stamp is missing");
        let mut stamps = across();
        stamps.answered_ns = 11_499;
        assert_eq!(stages(&stamps, 0).disordered, Some(Stage::Service));
    }

    #[test]
    fn without_an_answer_nothing_else_is_known() {
        let stamps =
            Stamps { intended_ns: 5, sent_ns: 9, closed_ns: 1_000_009, ..Stamps::default() };
        let staged = stages(&stamps, 0);
        assert_eq!(staged.stages[Stage::Schedule.index()], 4);
        assert_eq!(staged.stages[Stage::Unanswered.index()], 1_000_000);
        assert_eq!(sum_ns(&staged.stages), system_ns(&stamps));
        let planned = Stamps { planned_ns: 600_000, ..stamps };
        assert_eq!(stages(&planned, 0).stages[Stage::Unanswered.index()], 400_000);
        assert_eq!(sum_ns(&stages(&planned, 0).stages), system_ns(&planned));
        let never = Stamps { sent_ns: 0, ..stamps };
        assert_eq!(stages(&never, 0).stages[Stage::Unanswered.index()], 1_000_004);
    }
}
