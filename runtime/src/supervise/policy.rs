//! What a supervisor decides, as a pure machine: it is told what happened and when, and says what to do.

use std::collections::{BTreeMap, VecDeque};

use crate::agent::End;

/// Which children are restarted with one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// That one.
    OneForOne,
    /// All.
    OneForAll,
    /// That one and those that were named after it.
    RestForOne,
}

/// How many restarts are borne: one more within the time, and the supervisor gives up and fails itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts.
    pub restarts: u32,
    /// Time, ns.
    pub within_ns: u64,
}

/// How long a restart waits: `first_ns` for the first failure within the time of the intensity, doubled by
/// each further one up to `max_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// First wait, ns; 0 restarts at once.
    pub first_ns: u64,
    /// Longest wait, ns.
    pub max_ns: u64,
}

impl Backoff {
    /// No wait.
    pub const NONE: Self = Self { first_ns: 0, max_ns: 0 };

    fn wait_ns(self, failures: usize) -> u64 {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_ns
            .saturating_mul(1u64.checked_shl(doublings).unwrap_or(u64::MAX))
            .min(self.max_ns)
    }
}

/// When a child is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// However it ends.
    Permanent,
    /// When it fails, not when it stops.
    Transient,
    /// Never.
    Temporary,
}

/// The plan of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Supervision {
    /// Which children are restarted with one that failed.
    pub strategy: Strategy,
    /// How many restarts are borne.
    pub intensity: Intensity,
    /// How long a restart waits.
    pub backoff: Backoff,
}

impl Default for Supervision {
    /// One for one, 3 restarts in 5 s, without a wait.
    fn default() -> Self {
        Self {
            strategy: Strategy::OneForOne,
            intensity: Intensity { restarts: 3, within_ns: 5_000_000_000 },
            backoff: Backoff::NONE,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// Told to end, to be restarted with another.
    Halting,
    /// To be started at that time, ns.
    Down(u64),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// End it, but keep its place.
    Halt(u32),
    /// Start it, or start it anew.
    Start(u32),
    /// It does not come back, and is no child any more.
    Release(u32),
    /// Call `due` at that time.
    WakeAt(u64),
    /// Fail.
    GiveUp,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Tree {
    plan: Supervision,
    /// By number, which is never given again: so in the order in which they were named.
    children: BTreeMap<u32, (Restart, State)>,
    /// Instants of the failures within the time of the intensity.
    recent: VecDeque<u64>,
}

impl Tree {
    pub(crate) const fn new(plan: Supervision) -> Self {
        Self { plan, children: BTreeMap::new(), recent: VecDeque::new() }
    }

    /// Adds a child that is being started.
    pub(crate) fn add(&mut self, child: u32, restart: Restart) {
        self.children.insert(child, (restart, State::Up));
    }

    /// A child has ended.
    pub(crate) fn ended(&mut self, now_ns: u64, child: u32, why: End, out: &mut Vec<Output>) {
        let Some(&(restart, state)) = self.children.get(&child) else { return };
        match state {
            State::Down(_) => return,
            State::Halting if restart == Restart::Temporary => self.leave(child, out),
            // It may have failed before it was told to end: that costs no restart.
            State::Halting => self.set(child, State::Down(now_ns)),
            State::Up => {
                let again = match restart {
                    Restart::Permanent => true,
                    Restart::Transient => why != End::Stopped,
                    Restart::Temporary => false,
                };
                if !again {
                    return self.leave(child, out);
                }
                if !self.may_restart(now_ns) {
                    return out.push(Output::GiveUp);
                }
                self.take_down(now_ns, child, out);
            }
        }
        self.due(now_ns, out);
    }

    fn set(&mut self, child: u32, state: State) {
        self.children.entry(child).and_modify(|child| child.1 = state);
    }

    fn leave(&mut self, child: u32, out: &mut Vec<Output>) {
        self.children.remove(&child);
        out.push(Output::Release(child));
    }

    /// Notes a failure; whether it is borne.
    fn may_restart(&mut self, now_ns: u64) -> bool {
        let Intensity { restarts, within_ns } = self.plan.intensity;
        self.recent.retain(|&at| now_ns.saturating_sub(at) < within_ns);
        self.recent.push_back(now_ns);
        self.recent.len() <= restarts as usize
    }

    fn take_down(&mut self, now_ns: u64, child: u32, out: &mut Vec<Output>) {
        let at_ns = now_ns.saturating_add(self.plan.backoff.wait_ns(self.recent.len()));
        self.set(child, State::Down(at_ns));
        let group = match self.plan.strategy {
            Strategy::OneForOne => child..=child,
            Strategy::OneForAll => 0..=u32::MAX,
            Strategy::RestForOne => child..=u32::MAX,
        };
        for (&other, (_, state)) in self.children.range_mut(group) {
            if *state == State::Up {
                *state = State::Halting;
                out.push(Output::Halt(other));
            }
        }
    }

    /// Starts, in order, what is to be started by now.
    pub(crate) fn due(&mut self, now_ns: u64, out: &mut Vec<Output>) {
        let down = |state: &State| if let State::Down(at_ns) = state { Some(*at_ns) } else { None };
        let times = self.children.values().filter_map(|(_, state)| down(state));
        // Together, when they depend on each other: nobody starts before all have ended and waited.
        let together = self.plan.strategy != Strategy::OneForOne;
        let gate_ns = if together { times.max() } else { times.min() };
        let Some(gate_ns) = gate_ns else { return };
        let halting = self.children.values().any(|(_, state)| *state == State::Halting);
        if together && halting {
            return;
        }
        if gate_ns > now_ns {
            return out.push(Output::WakeAt(gate_ns));
        }
        let mut next = None;
        for (&child, (_, state)) in &mut self.children {
            match down(state) {
                Some(at_ns) if together || at_ns <= now_ns => {
                    *state = State::Up;
                    out.push(Output::Start(child));
                }
                Some(at_ns) => next = Some(next.map_or(at_ns, |next: u64| next.min(at_ns))),
                None => {}
            }
        }
        out.extend(next.map(Output::WakeAt));
    }

    /// Whether a child was told to end and has not.
    pub(crate) fn is_halting(&self, child: u32) -> bool {
        self.children.get(&child).is_some_and(|(_, state)| *state == State::Halting)
    }

    /// Children that are meant to live.
    pub(crate) fn is_up(&self, child: u32) -> bool {
        self.children.get(&child).is_some_and(|(_, state)| *state == State::Up)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn tree(strategy: Strategy, backoff: Backoff, children: &[Restart]) -> Tree {
        let intensity = Intensity { restarts: 2, within_ns: 10 * SECOND };
        let mut tree = Tree::new(Supervision { strategy, intensity, backoff });
        for (child, &restart) in (0..).zip(children) {
            tree.add(child, restart);
        }
        tree
    }

    fn ended(tree: &mut Tree, now_ns: u64, child: u32, why: End) -> Vec<Output> {
        let mut out = Vec::new();
        tree.ended(now_ns, child, why, &mut out);
        out
    }

    #[test]
    fn each_kind_of_child_comes_back_when_it_should() {
        let kinds = [Restart::Permanent, Restart::Transient, Restart::Temporary];
        let mut tree = tree(Strategy::OneForOne, Backoff::NONE, &kinds);
        assert_eq!(ended(&mut tree, 1, 0, End::Stopped), [Output::Start(0)]);
        assert_eq!(ended(&mut tree, 2, 1, End::Panicked), [Output::Start(1)]);
        assert_eq!(ended(&mut tree, 3, 1, End::Stopped), [Output::Release(1)]);
        assert_eq!(ended(&mut tree, 4, 2, End::Panicked), [Output::Release(2)]);
        assert_eq!(ended(&mut tree, 5, 2, End::Panicked), [], "it is out");
        assert_eq!(ended(&mut tree, 6, 9, End::Panicked), [], "there is none");
        assert_eq!(tree.children.len(), 1, "those that do not come back take no place");
    }

    #[test]
    fn too_many_restarts_are_given_up_and_old_ones_are_forgotten() {
        let mut tree = tree(Strategy::OneForOne, Backoff::NONE, &[Restart::Permanent]);
        assert_eq!(ended(&mut tree, 0, 0, End::Panicked), [Output::Start(0)]);
        assert_eq!(ended(&mut tree, SECOND, 0, End::Panicked), [Output::Start(0)]);
        assert_eq!(ended(&mut tree, 11 * SECOND, 0, End::Panicked), [Output::Start(0)]);
        assert_eq!(ended(&mut tree, 12 * SECOND, 0, End::Panicked), [Output::Start(0)]);
        assert_eq!(ended(&mut tree, 13 * SECOND, 0, End::Panicked), [Output::GiveUp]);
    }

    #[test]
    fn all_are_halted_and_started_in_order_when_all_have_ended() {
        let mut tree = tree(Strategy::OneForAll, Backoff::NONE, &[Restart::Permanent; 3]);
        assert_eq!(ended(&mut tree, 1, 1, End::Panicked), [Output::Halt(0), Output::Halt(2)]);
        assert_eq!(ended(&mut tree, 2, 2, End::Killed), []);
        let all = [Output::Start(0), Output::Start(1), Output::Start(2)];
        assert_eq!(ended(&mut tree, 3, 0, End::Killed), all);
    }

    #[test]
    fn the_rest_is_what_was_named_later() {
        let mut tree = tree(Strategy::RestForOne, Backoff::NONE, &[Restart::Permanent; 3]);
        assert_eq!(ended(&mut tree, 1, 1, End::Panicked), [Output::Halt(2)]);
        assert_eq!(ended(&mut tree, 2, 2, End::Killed), [Output::Start(1), Output::Start(2)]);
        assert_eq!(ended(&mut tree, 3, 2, End::Panicked), [Output::Start(2)]);
    }

    #[test]
    fn waits_double_and_each_child_has_its_own() {
        let backoff = Backoff { first_ns: 100, max_ns: 150 };
        let mut tree = tree(Strategy::OneForOne, backoff, &[Restart::Permanent; 2]);
        assert_eq!(ended(&mut tree, 1_000, 0, End::Panicked), [Output::WakeAt(1_100)]);
        assert_eq!(ended(&mut tree, 1_050, 1, End::Panicked), [Output::WakeAt(1_100)]);
        let mut out = Vec::new();
        tree.due(1_100, &mut out);
        assert_eq!(out, [Output::Start(0), Output::WakeAt(1_200)]);
        out.clear();
        tree.due(1_200, &mut out);
        assert_eq!(out, [Output::Start(1)]);
        assert!(tree.is_up(0) && tree.is_up(1));
    }
}
