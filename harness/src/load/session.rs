//! Sessions: agents that go, and others that take their place. Lengths are exponential, so that what is left of one does
//! not depend on how long it has lasted, and a fleet is in its steady state from the first second.
//!
//! The instants of a session lie on the schedule, not on the clock: the same seed has the same sessions, however late the
//! load is. An agent goes at the first intended instant behind its end at which it has no request open and holds none of
//! anybody else; after the grace of one timeout it goes all the same, and what it had open is lost.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::draw::Draw;

/// The session of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    until_ns: u64,
}

/// How an agent goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// With nothing open.
    Idle,
    /// With requests open, or held.
    Cut,
}

impl Session {
    /// One without an end.
    pub(crate) const ENDLESS: Self = Self { until_ns: u64::MAX };

    /// One that begins at `now_ns`, before request `k`; without an end where there is no mean length.
    pub(crate) fn begin(draw: Draw, k: u64, now_ns: u64, mean_ns: Option<u64>) -> Self {
        mean_ns.map_or(Self::ENDLESS, |mean_ns| Self {
            until_ns: now_ns.saturating_add(draw.session_ns(k, mean_ns)),
        })
    }

    /// Whether it is over at an intended instant.
    pub(crate) const fn is_over(self, intended_ns: u64) -> bool {
        intended_ns >= self.until_ns
    }

    /// Whether its agent goes at that instant.
    pub(crate) const fn leaves(
        self,
        intended_ns: u64,
        idle: bool,
        grace_ns: u64,
    ) -> Option<Leaving> {
        if !self.is_over(intended_ns) {
            return None;
        }
        match idle {
            true => Some(Leaving::Idle),
            false if intended_ns - self.until_ns >= grace_ns => Some(Leaving::Cut),
            false => None,
        }
    }
}

/// Sessions that have ended. They are rare beside requests, so the cores may share them.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    ended: AtomicU64,
    cut: AtomicU64,
}

impl Sessions {
    /// One more has.
    pub(crate) fn ends(&self, how: Leaving) {
        self.ended.fetch_add(1, Relaxed);
        self.cut.fetch_add(u64::from(how == Leaving::Cut), Relaxed);
    }

    /// All of them, and those in which something was still open.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.ended.load(Relaxed), self.cut.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn an_agent_goes_when_it_is_idle_and_at_the_latest_after_the_grace() {
        let session = Session { until_ns: 10 * S };
        assert_eq!(session.leaves(10 * S - 1, true, S), None);
        assert_eq!(session.leaves(10 * S, true, S), Some(Leaving::Idle));
        assert_eq!(session.leaves(10 * S, false, S), None);
        assert_eq!(session.leaves(11 * S - 1, false, S), None);
        assert_eq!(session.leaves(11 * S, false, S), Some(Leaving::Cut));
        assert_eq!(Session::ENDLESS.leaves(u64::MAX - 1, true, 0), None);
        assert_eq!(Session::begin(Draw::new(1, 2), 3, 4, None), Session::ENDLESS);
    }

    #[test]
    fn sessions_have_their_mean_and_no_memory() {
        let draw = |agent| Draw::new(7, agent);
        let lengths: Vec<u64> = (0..20_000)
            .map(|agent| Session::begin(draw(agent), 0, S, Some(300 * S)).until_ns - S)
            .collect();
        let mean = lengths.iter().sum::<u64>() as f64 / lengths.len() as f64 / S as f64;
        // Three standard errors: 300 / sqrt(20,000) = 2.1.
        assert!((mean - 300.0).abs() < 6.4, "{mean}");
        let longer = |than: u64| lengths.iter().filter(|of| **of > than * S).count() as f64;
        let (of_all, of_those) = (longer(300) / 20_000.0, longer(600) / longer(300));
        assert!((of_all - of_those).abs() < 0.03, "{of_all} {of_those}");
        let again = Session::begin(draw(5), 1, S, Some(300 * S));
        assert_ne!(again, Session::begin(draw(5), 0, S, Some(300 * S)), "its next one is another");
    }
}
