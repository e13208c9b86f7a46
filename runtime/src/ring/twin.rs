//! The faulty twin of a ring: a real one whose bells get lost, or whose calls fail.

use std::os::fd::RawFd;

use super::{Calls, Doorbells, Event, Ring};
use crate::error::StartError;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// No bell fits the queue.
    BellsUnqueued,
    /// Every bell comes back as failed.
    BellsUnreached,
    /// Every other wait returns at once.
    EarlyWakes,
    /// Every third call fails for good, and its bells with it.
    EnterFails,
}

struct Twin {
    ring: Ring,
    fault: Fault,
    bells: u64,
    waits: u64,
    rung: Vec<usize>,
}

pub(crate) fn make(
    entries: u32,
    event: &Event,
    fault: Fault,
) -> Result<Box<dyn Doorbells>, StartError> {
    let ring = Ring::new(entries, event)?;
    Ok(Box::new(Twin { ring, fault, bells: 0, waits: 0, rung: Vec::new() }))
}

impl Doorbells for Twin {
    fn fd(&self) -> RawFd {
        self.ring.fd()
    }

    fn ring_bell(&mut self, target: RawFd, shard: usize) -> bool {
        self.bells += 1;
        let third = self.bells.is_multiple_of(3);
        match self.fault {
            Fault::BellsUnqueued => false,
            Fault::BellsUnreached => {
                self.rung.push(shard);
                true
            }
            Fault::EnterFails if third => true,
            _ => self.ring.ring_bell(target, shard),
        }
    }

    fn submit(&mut self) -> bool {
        // The bell that EnterFails has swallowed is said here, as an enter that failed says it.
        self.ring.submit() && self.fault != Fault::EnterFails
    }

    fn wait(&mut self, wait_ns: Option<u64>) {
        // Counted apart from the bells: in step with them, every third call could always be a bell.
        self.waits += 1;
        let turn = self.waits;
        match self.fault {
            Fault::EarlyWakes if turn.is_multiple_of(2) => {}
            Fault::EnterFails if turn.is_multiple_of(3) => {
                self.ring.calls.failed += 1;
                self.ring.wait_for_knock(wait_ns);
            }
            _ => self.ring.wait(wait_ns),
        }
    }

    fn unreached(&mut self) -> Option<usize> {
        self.rung.pop().or_else(|| self.ring.unreached())
    }

    fn calls(&self) -> Calls {
        self.ring.calls()
    }
}
