//! The operations of one shard, from the first wish to the last completion. Knows no kernel: it is given
//! a ring to submit to and completions to take.
//!
//! ```text
//!  open -> Idle -> Queued -> Flight -> Done -> taken        (one result)
//!                    ^  `-> Starved     |
//!                    `------- Idle <----'                   (streams: receive, accept)
//! ```

use std::collections::VecDeque;
use std::os::fd::{IntoRawFd as _, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::pool::NO_BUFFER;
use super::slots::{Accepted, Inbox, Phase, Role, Slots};
use super::{Abilities, Body, Completion, Flight, Key, Lease, Op, Payload, Pool};
use crate::config::Config;
use crate::ring::Doorbells;

/// Filled buffers that one stream may have unread before its receive is cancelled until they are read.
const UNREAD_MAX: u16 = 16;

/// Counters of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OpCounts {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) full: u64,
    pub(crate) cancels: u64,
    pub(crate) starved: u64,
    pub(crate) stray: u64,
}

/// How an operation with one result ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) result: i32,
    pub(crate) made: Option<OwnedFd>,
    pub(crate) body: Body,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Slots,
    pool: Rc<Pool>,
    /// Each slot is in at most one of these, and at most once; so they are as bounded as the slots.
    outbox: VecDeque<Key>,
    starved: VecDeque<Key>,
    cancels: VecDeque<Key>,
    accepted_max: usize,
    counts: OpCounts,
    /// Wakers that nobody will call: their drop may run code of users, so the table does not drop them.
    gone: Vec<Waker>,
}

impl Table {
    pub(crate) fn new(config: &Config, pool: Rc<Pool>) -> Self {
        Self {
            slots: Slots::new(config.ops_max),
            pool,
            outbox: VecDeque::new(),
            starved: VecDeque::new(),
            cancels: VecDeque::new(),
            accepted_max: config.accepted_max as usize,
            counts: OpCounts::default(),
            gone: Vec::new(),
        }
    }

    /// Operations that live.
    pub(crate) const fn live(&self) -> u32 {
        self.slots.live()
    }

    pub(crate) const fn counts(&self) -> OpCounts {
        self.counts
    }

    /// The body of an operation that a ring has, for one that does its work itself.
    pub(crate) fn flying(&mut self, key: Key) -> Option<&mut Body> {
        self.slots.get(key).filter(|slot| slot.phase == Phase::Flight)?.body.as_mut()
    }

    fn open(&mut self, body: Body, role: Role) -> Result<Key, Body> {
        let opened = self.slots.insert(body, role);
        self.counts.full += u64::from(opened.is_err());
        opened
    }

    /// Puts an operation with one result into the outbox.
    pub(crate) fn start(&mut self, body: Body) -> Result<Key, Body> {
        let key = self.open(body, Role::Once { result: 0, made: None })?;
        self.queue(key);
        Ok(key)
    }

    /// Makes a stream of received data, which asks for none yet.
    pub(crate) fn open_recv(&mut self, body: Body) -> Result<Key, Body> {
        self.open(body, Role::Recv(Inbox::new()))
    }

    /// Makes a stream of accepted connections, which asks for none yet.
    pub(crate) fn open_accept(&mut self, body: Body) -> Result<Key, Body> {
        self.open(body, Role::Accept(Accepted::default()))
    }

    fn queue(&mut self, key: Key) {
        if let Some(slot) = self.slots.get(key) {
            slot.phase = Phase::Queued;
            slot.cancelled = false;
            self.outbox.push_back(key);
        }
    }

    /// Asks the kernel to cancel, once per flight.
    fn ask_to_cancel(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.phase == Phase::Flight && !slot.cancelled {
            slot.cancelled = true;
            self.counts.cancels += 1;
            self.cancels.push_back(key);
        }
    }

    /// Nobody waits for this operation any more.
    pub(crate) fn orphan(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        slot.orphaned = true;
        self.gone.extend(slot.waker.take());
        // At once: what it has not read may be all that others wait for.
        if let Role::Recv(inbox) = &mut slot.role {
            while take_first(&self.pool, inbox).is_some() {}
        }
        match slot.phase {
            Phase::Flight => self.ask_to_cancel(key),
            // The queue that holds it finds it orphaned and frees it.
            Phase::Queued | Phase::Starved => {}
            Phase::Idle | Phase::Done | Phase::Vacant => self.free(key),
        }
    }

    fn free(&mut self, key: Key) {
        let Some((_, role, waker)) = self.slots.remove(key) else { return };
        self.gone.extend(waker);
        if let Role::Recv(mut inbox) = role {
            while let Some(lease) = take_first(&self.pool, &mut inbox) {
                drop(lease);
            }
        }
    }

    /// Cancels and orphans whatever lives.
    pub(crate) fn orphan_all(&mut self) {
        for key in self.slots.occupied() {
            self.orphan(key);
        }
    }

    /// Takes out what the kernel still has, for it to be leaked.
    pub(crate) fn take_flights(&mut self) -> Vec<Body> {
        let mut bodies = Vec::new();
        for key in self.slots.occupied() {
            let Some((body, _, waker)) = self.slots.remove(key) else { continue };
            bodies.push(body);
            self.gone.extend(waker);
        }
        bodies
    }

    /// Takes the wakers that are to be dropped.
    pub(crate) fn take_gone(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.gone)
    }
}

impl Drop for Table {
    /// A shard that ends has taken what is left; one whose thread unwinds has not, and the kernel may still
    /// write there.
    fn drop(&mut self) {
        let left = self.take_flights();
        if !left.is_empty() {
            std::mem::forget(left);
            std::mem::forget(Rc::clone(&self.pool));
        }
    }
}

/// What the outbox does with a slot.
enum Launch {
    Flown,
    Dropped,
    Starved,
    /// The ring takes nothing now.
    Blocked,
}

impl Table {
    /// Gives the ring what waits for it; `false` when something could not be given.
    pub(crate) fn launch(&mut self, ring: &mut dyn Doorbells) -> bool {
        self.feed();
        while let Some(key) = self.outbox.pop_front() {
            match self.launch_one(key, ring) {
                Launch::Flown => {
                    self.counts.submitted += 1;
                }
                Launch::Dropped => self.free(key),
                Launch::Starved => {
                    self.counts.starved += 1;
                    self.starved.push_back(key);
                }
                Launch::Blocked => {
                    self.outbox.push_front(key);
                    return false;
                }
            }
        }
        while let Some(key) = self.cancels.pop_front() {
            // It may have ended meanwhile, and be asked for anew.
            let asked =
                self.slots.get(key).filter(|slot| slot.phase == Phase::Flight && slot.cancelled);
            let Some(body) = asked.and_then(|slot| slot.body.as_ref()) else { continue };
            if !ring.cancel_op(key, &body.op) {
                self.cancels.push_front(key);
                return false;
            }
        }
        true
    }

    fn launch_one(&mut self, key: Key, ring: &mut dyn Doorbells) -> Launch {
        let Some(slot) = self.slots.get(key) else { return Launch::Dropped };
        if slot.orphaned {
            return Launch::Dropped;
        }
        let Some(body) = slot.body.as_mut() else { return Launch::Dropped };
        match &slot.role {
            Role::Once { .. } => {}
            Role::Accept(_) => {
                body.op = Op::Accept { multi: ring.abilities().multishot_accept };
            }
            Role::Recv(_) => {
                if !prepare_recv(body, &self.pool, ring) {
                    slot.phase = Phase::Starved;
                    return Launch::Starved;
                }
            }
        }
        if !ring.submit_op(Flight { key, body }) {
            return Launch::Blocked;
        }
        slot.phase = Phase::Flight;
        Launch::Flown
    }

    /// Lets receives that found no buffer try again, as many as there are buffers; a quarter of them is left
    /// to receives that stand, as long as one can be fed.
    fn feed(&mut self) {
        while let Some(&key) = self.starved.front()
            && self.slots.get(key).is_none_or(|slot| slot.orphaned)
        {
            self.starved.pop_front();
            self.free(key);
        }
        let (free, reserve) = (self.pool.free() as usize, usize::from(self.pool.count() / 4));
        let fed = free.saturating_sub(reserve).saturating_sub(self.outbox.len()).max(free.min(1));
        for _ in 0..fed {
            let Some(key) = self.starved.pop_front() else { return };
            match self.slots.get(key) {
                Some(slot) if slot.orphaned => self.free(key),
                _ => self.queue(key),
            }
        }
    }

    /// Whether another launch would get further: receives wait, and buffers are free.
    pub(crate) fn is_hungry(&self) -> bool {
        !self.starved.is_empty() && self.pool.free() > 0
    }
}

/// Chooses how to receive; `false` when a buffer is needed and there is none.
fn prepare_recv(body: &mut Body, pool: &Rc<Pool>, ring: &mut dyn Doorbells) -> bool {
    let Abilities { multishot_recv, .. } = ring.abilities();
    let multi = multishot_recv && (pool.is_lent() || (pool.has_memory() && ring.lend(pool)));
    body.op = Op::Recv { multi };
    if multi {
        return true;
    }
    if !matches!(body.payload, Payload::Lease(_)) {
        let Some(lease) = pool.take_idle() else { return false };
        body.payload = Payload::Lease(lease);
    }
    true
}

impl Table {
    /// Takes a completion; returns whom to wake.
    pub(crate) fn complete(&mut self, completion: Completion) -> Option<Waker> {
        completion.buffer.into_iter().for_each(|_| self.pool.take_filled());
        let (key, last) = (completion.key, !completion.more);
        let slot = self.slots.get(key).filter(|slot| slot.phase == Phase::Flight);
        let Some(slot) = slot else {
            self.counts.stray += 1;
            completion.buffer.into_iter().for_each(|buffer| self.pool.give_back(buffer));
            return None;
        };
        if last {
            slot.phase = Phase::Done;
            self.counts.completed += 1;
        }
        match self.take_result(completion) {
            Next::Wake => {}
            Next::Wait => return None,
            Next::Cancel => self.ask_to_cancel(key),
            Next::Starve => {
                self.counts.starved += 1;
                self.starved.push_back(key);
                return None;
            }
            Next::Free => {
                self.free(key);
                return None;
            }
        }
        self.slots.get(key)?.waker.take()
    }

    fn take_result(&mut self, completion: Completion) -> Next {
        let (pool, accepted_max) = (&self.pool, self.accepted_max);
        let Some(slot) = self.slots.get(completion.key) else { return Next::Wait };
        let last = slot.phase == Phase::Done;
        let next = match &mut slot.role {
            Role::Once { result, made } => {
                if !completion.notification {
                    (*result, *made) = (completion.result, completion.made);
                    slot.body.as_mut().into_iter().for_each(|body| note_closed(body, *result));
                }
                return match (last, slot.orphaned) {
                    (false, _) => Next::Wait,
                    (true, true) => Next::Free,
                    (true, false) => Next::Wake,
                };
            }
            Role::Recv(inbox) => {
                let payload = slot.body.as_mut().map(|body| std::mem::take(&mut body.payload));
                received(pool, inbox, payload, &completion)
            }
            Role::Accept(accepted) => {
                match completion.made {
                    Some(file) => accepted.files.push_back(file),
                    None if transient(completion.result) => {}
                    None => accepted.error = Some(completion.result),
                }
                if accepted.files.len() >= accepted_max { Next::Cancel } else { Next::Wake }
            }
        };
        if !last {
            return next;
        }
        slot.phase = Phase::Idle;
        match next {
            _ if slot.orphaned => Next::Free,
            Next::Starve => {
                slot.phase = Phase::Starved;
                Next::Starve
            }
            _ => Next::Wake,
        }
    }
}

/// A descriptor that the kernel has closed is not ours to close: its number may be another's already.
fn note_closed(body: &mut Body, result: i32) {
    if matches!(body.op, Op::Close { .. }) && result != -libc::ECANCELED {
        let op = std::mem::replace(&mut body.op, Op::Recv { multi: false });
        if let Op::Close { file } = op {
            let _ = file.into_raw_fd();
        }
    }
}

/// What follows a completion.
enum Next {
    Wake,
    Wait,
    Cancel,
    Starve,
    Free,
}

/// Whether an operation ended for a reason that says nothing about its file: it may be asked again.
fn transient(result: i32) -> bool {
    matches!(-result, libc::ECANCELED | libc::EINTR | libc::EAGAIN | libc::ENOBUFS)
}

/// Puts received bytes into the inbox.
fn received(
    pool: &Rc<Pool>,
    inbox: &mut Inbox,
    payload: Option<Payload>,
    completion: &Completion,
) -> Next {
    let lease = match (completion.buffer, payload) {
        (Some(buffer), _) => Some(pool.lease(buffer, completion.result.max(0).unsigned_abs())),
        (None, Some(Payload::Lease(lease))) => Some(lease),
        _ => None,
    };
    match (completion.result, lease) {
        (result @ 1.., Some(mut lease)) => {
            lease.truncate(result.unsigned_abs() as usize);
            let filled = u32::try_from(lease.len()).expect("at most a buffer");
            let buffer = lease.into_buffer();
            pool.note(buffer).set((filled, NO_BUFFER));
            if inbox.held == 0 {
                inbox.first = buffer;
            } else {
                let (len, _) = pool.note(inbox.last).get();
                pool.note(inbox.last).set((len, buffer));
            }
            inbox.last = buffer;
            inbox.held += 1;
            if inbox.held >= UNREAD_MAX { Next::Cancel } else { Next::Wake }
        }
        (result, _) if -result == libc::ENOBUFS => Next::Starve,
        (result, _) if transient(result) => Next::Wake,
        (result, _) => {
            inbox.end = Some(result.min(0));
            Next::Wake
        }
    }
}

fn take_first(pool: &Rc<Pool>, inbox: &mut Inbox) -> Option<Lease> {
    if inbox.held == 0 {
        return None;
    }
    let buffer = inbox.first;
    let (len, next) = pool.note(buffer).get();
    inbox.first = next;
    inbox.held -= 1;
    Some(pool.lease(buffer, len))
}

impl Table {
    /// Whether this waker waits for an operation already. One that is gone needs none.
    pub(crate) fn is_awaited(&mut self, key: Key, waker: &Waker) -> bool {
        let slot = self.slots.get(key);
        slot.is_none_or(|slot| slot.waker.as_ref().is_some_and(|own| own.will_wake(waker)))
    }

    /// Puts a waker in the place of the one that waits.
    pub(crate) fn wait(&mut self, key: Key, waker: Waker) {
        let before = match self.slots.get(key) {
            Some(slot) => slot.waker.replace(waker),
            None => Some(waker),
        };
        self.gone.extend(before);
    }

    /// Takes the one result; its slot is vacant afterwards.
    pub(crate) fn poll_once(&mut self, key: Key) -> Poll<Option<Finished>> {
        let Some(slot) = self.slots.get(key) else { return Poll::Ready(None) };
        if slot.phase != Phase::Done {
            return Poll::Pending;
        }
        let Some((body, role, waker)) = self.slots.remove(key) else { return Poll::Ready(None) };
        self.gone.extend(waker);
        Poll::Ready(match role {
            Role::Once { result, made } => Some(Finished { result, made, body }),
            _ => None,
        })
    }

    /// Takes received bytes. `Err` holds a negated errno, or 0 at the end of the stream.
    pub(crate) fn poll_recv(&mut self, key: Key) -> Poll<Result<Lease, i32>> {
        let Some(slot) = self.slots.get(key) else { return Poll::Ready(Err(0)) };
        let Role::Recv(inbox) = &mut slot.role else { return Poll::Ready(Err(0)) };
        if let Some(lease) = take_first(&self.pool, inbox) {
            return Poll::Ready(Ok(lease));
        }
        if let Some(end) = inbox.end {
            return Poll::Ready(Err(end));
        }
        if slot.phase == Phase::Idle {
            self.queue(key);
        }
        Poll::Pending
    }

    /// Takes a connection. `Err` holds a negated errno; a later poll tries again.
    pub(crate) fn poll_accept(&mut self, key: Key) -> Poll<Result<OwnedFd, i32>> {
        let Some(slot) = self.slots.get(key) else { return Poll::Ready(Err(-libc::EBADF)) };
        let Role::Accept(accepted) = &mut slot.role else {
            return Poll::Ready(Err(-libc::EBADF));
        };
        if let Some(file) = accepted.files.pop_front() {
            return Poll::Ready(Ok(file));
        }
        if let Some(error) = accepted.error.take() {
            return Poll::Ready(Err(error));
        }
        if slot.phase == Phase::Idle {
            self.queue(key);
        }
        Poll::Pending
    }
}
