//! Turns what a board says into faults of this process, every 10 ms: the thread that looks at the clock looks at the
//! knobs too, so that no core has to. A knob is seen within that time, or as late as that thread is when the process has
//! no CPU; what it has done is on the board as soon.
//!
//! Links between cores ([`LinkFaults`]) and the wall clock ([`Wall`]) are set here. Knobs of logs and of agents are read
//! where they bite (`log/disk.rs`, `load/harm.rs`). When the load is over the links are whole and the clock is right,
//! whatever the board says: a run must be able to end.

use std::sync::Arc;

use tailbeam_runtime::{LinkFault, LinkFaults, RingFault, RingFaultCounts, RingFaults};

use super::DriveError;
use crate::chaos::board::{Board, Knob};
use crate::log::Wall;

/// Time between two looks, ns.
pub(super) const KNOBS_NS: u64 = 10_000_000;
/// Nobody skews further than this, ns: 100 years.
const SKEW_MAX_NS: i64 = 100 * 366 * 86_400 * 1_000_000_000;

/// What can be wrong in a runtime.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    pub(super) links: Arc<LinkFaults>,
    pub(super) rings: Arc<RingFaults>,
}

impl Faults {
    /// Nothing is wrong; what will be is drawn from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { links: Arc::new(LinkFaults::new(seed)), rings: Arc::new(RingFaults::new(seed)) }
    }
}

/// The knobs that are turned into faults here.
#[derive(Debug)]
pub(super) struct Knobs {
    board: Arc<Board>,
    faults: Option<Faults>,
    wall: Wall,
    /// What links had done at the last look: dropped, made to wait.
    done: (u64, u64),
    /// What rings had done.
    rings: RingFaultCounts,
    /// A core was told to end.
    ending: bool,
    /// Since when the clock drifts, and by how much, ppm.
    drift: Option<(u64, i64)>,
}

impl Knobs {
    pub(super) fn new(board: Arc<Board>, faults: Option<Faults>, wall: Wall) -> Self {
        let rings = RingFaultCounts::default();
        Self { board, faults, wall, done: (0, 0), rings, ending: false, drift: None }
    }

    /// The one that is turned into requests.
    pub(super) fn herd(&self) -> Herd {
        let seen = self.board.level(Knob::HerdNow);
        Herd { board: Arc::clone(&self.board), seen }
    }

    /// Does what the board says now, and says what was done since the last look.
    pub(super) fn look(&mut self, now_ns: u64) {
        self.look_at_links();
        self.look_at_rings();
        self.look_at_clock(now_ns);
    }

    fn narrow(&self, knob: Knob) -> u32 {
        u32::try_from(self.board.level(knob)).unwrap_or(u32::MAX)
    }

    fn look_at_rings(&mut self) {
        let Some(Faults { rings, .. }) = &self.faults else { return };
        let what = self.board.level(Knob::RingWhat);
        let fault = RingFault {
            files: what & 1 != 0,
            sockets: what & 2 != 0,
            fail_ppm: self.narrow(Knob::RingFailPpm),
            errno: self.narrow(Knob::RingFailErrno),
            short_ppm: self.narrow(Knob::RingShortPpm),
            late_ppm: self.narrow(Knob::RingLatePpm),
            late_ns: self.board.level(Knob::RingLateNs),
            reorder: self.board.level(Knob::RingReorder) != 0,
        };
        if rings.get() != fault {
            rings.set(fault);
        }
        self.count_rings();
    }

    fn count_rings(&mut self) {
        let Some(Faults { rings, .. }) = &self.faults else { return };
        let now = rings.counts();
        let then = std::mem::replace(&mut self.rings, now);
        let failed = now.failed - then.failed;
        let (short, late) = (now.shortened - then.shortened, now.late - then.late);
        let reversed = now.reversed - then.reversed;
        for (knob, n) in [
            (Knob::RingFailPpm, failed),
            (Knob::RingFailErrno, failed),
            (Knob::RingShortPpm, short),
            (Knob::RingLatePpm, late),
            (Knob::RingLateNs, late),
            (Knob::RingReorder, reversed),
            (Knob::RingWhat, failed + short + late + reversed),
        ] {
            self.board.bite_n(knob, n);
        }
    }

    fn look_at_links(&mut self) {
        let Some(Faults { links, .. }) = &self.faults else { return };
        let fault = LinkFault {
            loss_ppm: self.narrow(Knob::LinkLossPpm),
            delay_ns: self.board.level(Knob::LinkDelayNs),
            from: self.board.level(Knob::LinkFrom),
            share_permille: self.narrow(Knob::LinkSharePermille),
        };
        // Cores read that line with each message: it is written when something changes, and only then.
        if links.get() != fault {
            links.set(fault);
        }
        let ends = usize::try_from(self.board.level(Knob::CoreEnds)).ok();
        if let Some(core) = ends.and_then(|ends| ends.checked_sub(1)).filter(|_| !self.ending) {
            // Nobody is left who could say that it has bitten: that the process ends does.
            self.ending = true;
            self.board.bite(Knob::CoreEnds);
            links.end_shard(core);
        }
        self.count_links();
    }

    fn count_links(&mut self) {
        let Some(Faults { links, .. }) = &self.faults else { return };
        let done = (links.dropped(), links.delayed() + links.overflowed());
        let (dropped, waited) = std::mem::replace(&mut self.done, done);
        self.board.bite_n(Knob::LinkLossPpm, done.0 - dropped);
        self.board.bite_n(Knob::LinkDelayNs, done.1 - waited);
        let any = done.0 - dropped + done.1 - waited;
        for narrows in [Knob::LinkFrom, Knob::LinkSharePermille] {
            if self.board.level(narrows) != 0 {
                self.board.bite_n(narrows, any);
            }
        }
    }

    fn look_at_clock(&mut self, now_ns: u64) {
        let offset_ns = self.board.level(Knob::RealtimeOffsetNs).cast_signed();
        let drift_ppm = self.board.level(Knob::RealtimeDriftPpm).cast_signed();
        if self.drift.is_none_or(|(_, ppm)| ppm != drift_ppm) {
            self.drift = Some((now_ns, drift_ppm));
        }
        let since_ns = self.drift.map_or(now_ns, |(since_ns, _)| since_ns);
        let drifted =
            i128::from(drift_ppm) * i128::from(now_ns.saturating_sub(since_ns)) / 1_000_000;
        let most = i128::from(SKEW_MAX_NS);
        let skew = (i128::from(offset_ns) + drifted).clamp(-most, most);
        self.wall.skew(i64::try_from(skew).unwrap_or(SKEW_MAX_NS));
        // It bites where somebody writes down a wrong time of day: in the logs.
    }
}

impl Drop for Knobs {
    /// The load is over.
    fn drop(&mut self) {
        if let Some(Faults { links, rings }) = &self.faults {
            links.heal();
            rings.heal();
        }
        self.count_links();
        self.count_rings();
        self.wall.skew(0);
    }
}

/// The knob that has all agents ask at once, which a core must tell them: the controller looks at it with each of its
/// samples, every 20 ms.
#[derive(Debug)]
pub(super) struct Herd {
    board: Arc<Board>,
    seen: u64,
}

impl Herd {
    /// Calls `all` when the knob was turned, and says how many it has told.
    pub(super) fn look(
        &mut self,
        all: impl FnOnce() -> Result<u64, DriveError>,
    ) -> Result<(), DriveError> {
        let level = self.board.level(Knob::HerdNow);
        if std::mem::replace(&mut self.seen, level) != level && level != 0 {
            self.board.bite_n(Knob::HerdNow, all()?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::board::Shape;

    const S: u64 = 1_000_000_000;

    fn knobs() -> (Arc<Board>, Faults, Wall, Knobs) {
        let shape = Shape { cores: 1, slots: 1, slot_ns: 1, from_ns: 0 };
        let board = Arc::new(Board::create(shape, &[0; 32]).unwrap());
        let (faults, wall) = (Faults::new(1), Wall::of(S, 50 * S));
        let knobs = Knobs::new(Arc::clone(&board), Some(faults.clone()), wall.clone());
        (board, faults, wall, knobs)
    }

    #[test]
    fn links_are_as_the_board_says_and_whole_at_the_end() {
        let (board, Faults { links, .. }, _, mut knobs) = knobs();
        knobs.look_at_links();
        assert_eq!(links.get(), LinkFault::default());
        for (knob, level) in [
            (Knob::LinkLossPpm, 1 << 40),
            (Knob::LinkDelayNs, 7),
            (Knob::LinkFrom, 2),
            (Knob::LinkSharePermille, 333),
        ] {
            board.set(knob, level);
        }
        knobs.look_at_links();
        let fault = LinkFault { loss_ppm: u32::MAX, delay_ns: 7, from: 2, share_permille: 333 };
        assert_eq!(links.get(), fault);
        drop(knobs);
        assert_eq!(links.get(), LinkFault::default());
        assert_eq!(board.bites(Knob::LinkLossPpm) + board.bites(Knob::LinkFrom), 0, "nothing sent");
    }

    #[test]
    fn rings_are_as_the_board_says_and_whole_at_the_end() {
        let (board, Faults { rings, .. }, _, mut knobs) = knobs();
        for (knob, level) in [
            (Knob::RingWhat, 2),
            (Knob::RingFailPpm, 1),
            (Knob::RingFailErrno, 28),
            (Knob::RingShortPpm, 3),
            (Knob::RingLatePpm, 4),
            (Knob::RingLateNs, 1 << 40),
            (Knob::RingReorder, 1),
        ] {
            board.set(knob, level);
        }
        knobs.look_at_rings();
        let fault = RingFault {
            files: false,
            sockets: true,
            fail_ppm: 1,
            errno: 28,
            short_ppm: 3,
            late_ppm: 4,
            late_ns: 1 << 40,
            reorder: true,
        };
        assert_eq!(rings.get(), fault);
        drop(knobs);
        assert_eq!(rings.get(), RingFault::default());
        assert_eq!(
            board.bites(Knob::RingWhat) + board.bites(Knob::RingFailPpm),
            0,
            "nothing asked"
        );
    }

    #[test]
    fn a_clock_steps_and_drifts_and_is_right_at_the_end() {
        let (board, _, wall, mut knobs) = knobs();
        let real = |mono_ns: u64| mono_ns + 49 * S;
        knobs.look_at_clock(2 * S);
        assert_eq!(wall.real_ns(2 * S), real(2 * S));
        board.set(Knob::RealtimeOffsetNs, (-30 * S.cast_signed()).cast_unsigned());
        knobs.look_at_clock(3 * S);
        assert_eq!(wall.real_ns(3 * S), real(3 * S) - 30 * S);
        board.set(Knob::RealtimeDriftPpm, 10_000);
        knobs.look_at_clock(4 * S);
        knobs.look_at_clock(14 * S);
        assert_eq!(wall.real_ns(14 * S), real(14 * S) - 30 * S + S / 10, "1 % of 10 s");
        board.set(Knob::RealtimeOffsetNs, 0);
        board.set(Knob::RealtimeDriftPpm, 0);
        knobs.look_at_clock(15 * S);
        assert_eq!(wall.real_ns(15 * S), real(15 * S));
        assert_eq!(board.bites(Knob::RealtimeOffsetNs), 0, "nobody has written it down");
        board.set(Knob::RealtimeOffsetNs, 1 << 62);
        knobs.look_at_clock(16 * S);
        assert!(wall.real_ns(16 * S) > real(16 * S));
        drop(knobs);
        assert_eq!(wall.real_ns(16 * S), real(16 * S), "the load is over");
    }

    #[test]
    fn a_herd_is_called_once_for_each_turn_of_its_knob() {
        let (board, _, _, knobs) = knobs();
        let mut herd = knobs.herd();
        let mut look = || herd.look(|| Ok(100)).unwrap();
        look();
        board.set(Knob::HerdNow, 1);
        (0..3).for_each(|_| look());
        board.set(Knob::HerdNow, 0);
        look();
        board.set(Knob::HerdNow, 2);
        look();
        assert_eq!(board.bites(Knob::HerdNow), 200);
    }
}
