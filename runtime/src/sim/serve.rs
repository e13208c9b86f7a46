//! The operations of all shards, in the order in which they are due.

use super::seat::Seat;
use super::trace::What;
use super::{Failure, Simulation};

impl Simulation {
    /// Tries the operations that are due. One that is done may be what another one waits for, and so may a move.
    pub(super) fn serve(&mut self) -> Result<(), Failure> {
        if !self.seats.iter().any(Seat::has_operations) {
            return Ok(());
        }
        loop {
            if std::mem::take(&mut self.stirred) {
                self.look(false);
            }
            let due = self.seats.iter().enumerate();
            let due = due.filter_map(|(shard, seat)| Some((seat.next_op_ns()?, shard))).min();
            let Some((_, shard)) = due.filter(|(at_ns, _)| *at_ns <= self.now_ns) else {
                return Ok(());
            };
            let served = self.seats[shard].serve();
            self.note_rings();
            match served {
                Ok(tried) => self.stirred = !matches!(tried, Some(What::Blocks(_))),
                Err(what) => return Err(Failure::Broken { shard, what, place: self.place() }),
            }
        }
    }

    /// Looks which operations have become ready, at rest or after a move; whether any has.
    pub(super) fn look(&mut self, at_rest: bool) -> bool {
        let found = self.seats.iter_mut().fold(false, |found, seat| seat.look(at_rest) | found);
        self.note_rings();
        found
    }

    /// Takes what the rings have decided into the trace.
    pub(super) fn note_rings(&mut self) {
        let mut air = self.air.borrow_mut();
        for (shard, what) in air.noted.drain(..) {
            self.trace.note(self.now_ns, shard, what);
        }
    }
}
