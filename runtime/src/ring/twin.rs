//! The faulty twin of a ring: a real one whose bells get lost, whose calls fail, or whose operations end
//! otherwise than asked. What it says about an operation is always true of the kernel too: one that it
//! fails was never submitted, one that it cancels was cancelled, and a last word is never said early.

use std::os::fd::RawFd;
use std::rc::Rc;

use super::faulty::reverse;
use super::{Calls, Doorbells, Event, Ring};
use crate::error::StartError;
use crate::op::{Abilities, Completion, Flight, Key, Op, Pool};

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
    /// Completions come three looks late.
    OpsDelayed,
    /// Completions of different operations come in the reverse order.
    OpsReordered,
    /// Sends, reads and writes move at most three bytes.
    OpsShort,
    /// Every third operation fails with EIO and is not submitted.
    OpsFail,
    /// Every third operation is cancelled as soon as it is submitted.
    OpsCancelled,
    /// The queue takes only every second operation.
    OpsUnqueued,
    /// A kernel that has no multishot operation, no ring of buffers and no send without a copy.
    OpsPlain,
}

/// Looks at completions that `OpsDelayed` lets pass.
const DELAY: u32 = 3;

struct Twin {
    ring: Ring,
    fault: Fault,
    bells: u64,
    waits: u64,
    rung: Vec<usize>,
    ops: u64,
    /// Failed without the kernel.
    failed: Vec<Completion>,
    /// Held back, and for how many looks.
    held: Vec<Completion>,
    looks: u32,
}

pub(crate) fn make(
    entries: u32,
    event: &Event,
    fault: Fault,
) -> Result<Box<dyn Doorbells>, StartError> {
    let ring = Ring::new(entries, event)?;
    let (rung, failed, held) = (Vec::new(), Vec::new(), Vec::new());
    Ok(Box::new(Twin { ring, fault, bells: 0, waits: 0, rung, ops: 0, failed, held, looks: 0 }))
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

    fn has_completions(&mut self) -> bool {
        self.ring.has_completions()
    }

    fn calls(&self) -> Calls {
        self.ring.calls()
    }

    fn abilities(&self) -> Abilities {
        match self.fault {
            Fault::OpsPlain => Abilities::default(),
            _ => self.ring.abilities(),
        }
    }

    fn submit_op(&mut self, mut op: Flight<'_>) -> bool {
        self.ops += 1;
        let (third, key) = (self.ops.is_multiple_of(3), op.key());
        match self.fault {
            Fault::OpsFail if third => {
                let (more, notification, buffer, made) = (false, false, None, None);
                let result = -libc::EIO;
                self.failed.push(Completion { key, result, more, notification, buffer, made });
                true
            }
            Fault::OpsCancelled if third => {
                let target = super::user_data(key, op.body().op.makes_file());
                let cancel = super::entry::cancel(target).user_data(super::CANCEL);
                self.ring.submit_op(op) && self.ring.push(&cancel)
            }
            Fault::OpsUnqueued if self.ops.is_multiple_of(2) => false,
            Fault::OpsShort => {
                shorten(&mut op.body().op);
                self.ring.submit_op(op)
            }
            _ => self.ring.submit_op(op),
        }
    }

    fn cancel_op(&mut self, key: Key, op: &Op) -> bool {
        self.ring.cancel_op(key, op)
    }

    fn lend(&mut self, pool: &Rc<Pool>) -> bool {
        self.ring.lend(pool)
    }

    fn return_buffers(&mut self, pool: &Pool, buffers: &[u16]) {
        self.ring.return_buffers(pool, buffers);
    }

    fn wants_enter(&mut self) -> bool {
        self.ring.wants_enter()
    }

    fn has_completed(&self) -> bool {
        self.ring.has_completed() || !self.failed.is_empty() || !self.held.is_empty()
    }

    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.failed);
        match self.fault {
            Fault::OpsDelayed => {
                self.looks += 1;
                if self.looks.is_multiple_of(DELAY) {
                    into.append(&mut self.held);
                }
                self.ring.completions(&mut self.held);
            }
            Fault::OpsReordered => {
                self.ring.completions(into);
                let mut made = std::mem::take(into);
                reverse(&mut made, into);
            }
            _ => self.ring.completions(into),
        }
    }
}

fn shorten(op: &mut Op) {
    if let Op::Send { len, .. } | Op::Read { len, .. } | Op::Write { len, .. } = op {
        *len = (*len).min(3);
    }
}
