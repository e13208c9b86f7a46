//! A shard's operations as its loop and its futures see them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::table::Finished;
use super::{Body, Completion, Key, Lease, Pool, Table};
use crate::config::Config;
use crate::error::OpError;
use crate::panics::{contain, drop_contained};
use crate::ring::Doorbells;
use crate::stats::ShardStats;

/// Time between two enters of a shard that has other work, ns: with the pass before it, 50 us at most.
const ENTER_NS: u64 = 30_000;
/// The same while most buffers wait to be read, ns: what was received is worked off before more is fetched.
/// A kernel that fills buffers faster than they are read runs out of them, and each receive that finds none
/// has to be asked for anew.
const BACKLOG_NS: u64 = 500_000;
/// Longest wait for the ring to take what it had no room for, ns.
const BLOCKED_WAIT_NS: u64 = 1_000_000;
/// Waits without any completion, of 10 ms each, after which a shard that ends leaves operations behind.
const REAP_WAITS: u32 = 100;
pub(crate) const REAP_WAIT_NS: u64 = 10_000_000;

/// The table and the pool of a shard. Streams and files hold it, and outlive the shard harmlessly.
pub(crate) struct Ops {
    table: RefCell<Table>,
    pool: Rc<Pool>,
    closed: Cell<bool>,
    done: RefCell<Vec<Completion>>,
    woken: RefCell<Vec<Waker>>,
    /// When the shard last entered although it was busy.
    entered_ns: Cell<u64>,
}

impl fmt::Debug for Ops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ops").finish_non_exhaustive()
    }
}

impl Ops {
    pub(crate) fn new(config: &Config) -> Rc<Self> {
        let pool = Pool::new(config.buffers, config.buffer_bytes);
        Rc::new(Self {
            table: RefCell::new(Table::new(config, Rc::clone(&pool))),
            pool,
            closed: Cell::new(false),
            done: RefCell::default(),
            woken: RefCell::default(),
            entered_ns: Cell::new(0),
        })
    }

    /// Why an operation was not taken.
    fn refusal(&self) -> OpError {
        if self.closed.get() { OpError::Closed } else { OpError::Full }
    }

    fn admit(
        &self,
        body: Body,
        open: impl FnOnce(&mut Table, Body) -> Result<Key, Body>,
    ) -> Result<Key, (OpError, Body)> {
        if self.closed.get() {
            return Err((OpError::Closed, body));
        }
        open(&mut self.table.borrow_mut(), body).map_err(|body| (self.refusal(), body))
    }

    /// Works on the table. Wakers may be anybody's, and so are their clones and drops: these happen while
    /// nothing is borrowed, for they may come back here.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.borrow_mut();
        let result = work(&mut table);
        let gone = table.take_gone();
        drop(table);
        gone.into_iter().for_each(|waker| _ = drop_contained(waker));
        result
    }

    fn poll<R>(
        &self,
        key: Key,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Table) -> Poll<R>,
    ) -> Poll<R> {
        let waker = cx.waker();
        let mut awaited = true;
        let polled = self.with(|table| {
            let polled = poll(table);
            awaited = polled.is_ready() || table.is_awaited(key, waker);
            polled
        });
        if !awaited {
            // No completion comes meanwhile: the shard's loop takes them between its turns.
            let waker = waker.clone();
            self.with(|table| table.wait(key, waker));
        }
        polled
    }

    /// Puts an operation with one result into the outbox.
    pub(super) fn start(&self, body: Body) -> Result<Key, (OpError, Body)> {
        self.admit(body, Table::start)
    }

    pub(super) fn open_recv(&self, body: Body) -> Result<Key, OpError> {
        self.admit(body, Table::open_recv).map_err(|(error, _)| error)
    }

    pub(super) fn open_accept(&self, body: Body) -> Result<Key, OpError> {
        self.admit(body, Table::open_accept).map_err(|(error, _)| error)
    }

    pub(super) fn poll_once(&self, key: Key, cx: &Context<'_>) -> Poll<Option<Finished>> {
        self.poll(key, cx, |table| table.poll_once(key))
    }

    pub(super) fn poll_recv(&self, key: Key, cx: &Context<'_>) -> Poll<Result<Lease, i32>> {
        self.poll(key, cx, |table| table.poll_recv(key))
    }

    pub(super) fn poll_accept(&self, key: Key, cx: &Context<'_>) -> Poll<Result<OwnedFd, i32>> {
        self.poll(key, cx, |table| table.poll_accept(key))
    }

    pub(super) fn orphan(&self, key: Key) {
        self.with(|table| table.orphan(key));
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Ops {
    /// Hands completions to those who wait for them. Two loads when there are none.
    pub(crate) fn complete(&self, ring: &mut dyn Doorbells) {
        if !ring.has_completed() {
            return;
        }
        let mut done = self.done.take();
        let mut woken = self.woken.take();
        ring.completions(&mut done);
        self.with(|table| {
            woken.extend(done.drain(..).filter_map(|completion| table.complete(completion)));
        });
        // Wakers may be anybody's, so the table is free while they run.
        for waker in woken.drain(..) {
            let _ = contain(|| waker.wake());
        }
        self.done.replace(done);
        self.woken.replace(woken);
    }

    /// Gives the ring what this pass, which began at `now_ns`, has asked for, and enters the kernel from time
    /// to time if the shard stays busy and the kernel has something to take or to say; whether the shard
    /// must go on. No call while nothing lives.
    pub(crate) fn flush(&self, ring: &mut dyn Doorbells, busy: bool, now_ns: u64) -> bool {
        let (blocked, hungry) = self.with(|table| {
            if table.live() == 0 {
                return (false, false);
            }
            self.return_buffers(ring);
            let blocked = !table.launch(ring);
            // Orphans have given up theirs.
            self.return_buffers(ring);
            (blocked, table.is_hungry())
        });
        let busy = busy || blocked || hungry;
        let patience_ns = if self.pool.is_low() { BACKLOG_NS } else { ENTER_NS };
        if blocked || (busy && now_ns >= self.entered_ns.get() + patience_ns) {
            self.entered_ns.set(now_ns);
            if ring.wants_enter() && !ring.submit() {
                // What could not be submitted stays queued; a ring that has failed is not asked in haste.
                ring.wait(Some(BLOCKED_WAIT_NS));
            }
        }
        busy || ring.has_completed()
    }

    fn return_buffers(&self, ring: &mut dyn Doorbells) {
        if self.pool.is_lent() {
            self.pool.hand_over(|buffers| ring.return_buffers(&self.pool, buffers));
        }
    }

    /// Takes no more operations, and cancels what lives.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.with(Table::orphan_all);
    }

    /// Takes the kernel's last words; `None` when more are to come: the caller waits for [`REAP_WAIT_NS`] at most and
    /// asks again. `waits` is 0 at first. What the kernel keeps for too long is never freed; returns how many
    /// operations that are.
    pub(crate) fn end(&self, ring: &mut dyn Doorbells, waits: &mut u32) -> Option<u64> {
        loop {
            let live = self.live();
            self.complete(ring);
            *waits = if self.live() < live { 0 } else { *waits + 1 };
            if self.live() == 0 || *waits > REAP_WAITS {
                break;
            }
            if !self.flush(ring, false, 0) {
                return None;
            }
        }
        let left = self.with(Table::take_flights);
        let leaked = left.len() as u64;
        if leaked > 0 {
            // The kernel may still write there.
            std::mem::forget(left);
            std::mem::forget(Rc::clone(&self.pool));
        }
        Some(leaked)
    }

    /// Operations that live.
    pub(crate) fn live(&self) -> u32 {
        self.table.borrow().live()
    }

    /// Buffers that users or streams hold.
    pub(crate) fn buffers_in_use(&self) -> u32 {
        self.pool.in_use()
    }

    /// Puts the counters where the shard publishes them.
    pub(crate) fn count(&self, stats: &mut ShardStats) {
        let table = self.table.borrow();
        let counts = table.counts();
        stats.ops_submitted = counts.submitted;
        stats.ops_completed = counts.completed;
        stats.ops_live = table.live().into();
        stats.ops_full = counts.full;
        stats.ops_cancelled = counts.cancels;
        stats.ops_starved = counts.starved;
        stats.buffers_in_use = self.pool.in_use().into();
    }
}
