//! A middle's way to its log: events go one after the other, what depends on one waits until the log says
//! how far it is.
//!
//! One log has one sender, so the sender knows each event's number and how much room there is: an event that
//! the log would refuse is never sent, and whoever would cause it is refused first.

use std::collections::VecDeque;

use tailbeam_runtime::{Addr, Cx};

use super::middle::MiddleMsg;
use super::workload::Workload;
use crate::log::{Entry, LogAgent, LogMsg, Progress, Watch};
use crate::plan::{LogAck, LogSync, ProtocolPlan};

/// Events on their way to the log or in it, at most: below its mailbox and its queue.
pub(crate) const EVENTS_MAX: usize = 12_000;
/// Their bytes, at most.
pub(crate) const BYTES_MAX: usize = 24 << 20;
/// Kind of the event that a log begins with, so that its first segment is there before the load.
pub(crate) const MARK: u16 = u16::MAX;

/// Numbers of a link's events and what waits for them.
pub(crate) struct Link<T> {
    log: Addr<LogAgent>,
    /// Number of the next event.
    next: u64,
    done: u64,
    dead: bool,
    /// Whether what depends on an event waits for it.
    waits: bool,
    sizes: VecDeque<u32>,
    bytes: usize,
    waiting: VecDeque<(u64, T)>,
    /// Number behind the last event of which what waited for it was given back.
    told: u64,
    /// Events that found the log's mailbox full: what was told of them is not in the log.
    pub(crate) unlogged: u64,
    /// Sum and largest of the waits for the log, ns, and how many.
    pub(crate) waited: Waited,
}

/// Waits.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Waited {
    pub(crate) count: u64,
    pub(crate) sum_ns: u64,
    pub(crate) max_ns: u64,
}

impl Waited {
    pub(crate) fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }
}

impl<T> Link<T> {
    /// To a log whose next event has the number `next`. `never_waits`: whatever the plan says, as a defence that is switched
    /// off.
    pub(crate) fn new(
        log: Addr<LogAgent>,
        next: u64,
        plan: &ProtocolPlan,
        never_waits: bool,
    ) -> Self {
        let early = plan.durability == LogSync::Batch && plan.ack == LogAck::Before || never_waits;
        Self {
            log,
            next,
            done: next,
            dead: false,
            waits: !early,
            sizes: VecDeque::new(),
            bytes: 0,
            waiting: VecDeque::new(),
            told: next,
            unlogged: 0,
            waited: Waited::default(),
        }
    }

    /// Events that it takes now.
    pub(crate) fn room(&self) -> usize {
        if self.dead || self.bytes >= BYTES_MAX {
            return 0;
        }
        EVENTS_MAX.saturating_sub(self.sizes.len())
    }

    /// Sends an event; gives `then` back if it need not wait for it, and whether its event may be called kept: one that the
    /// log's mailbox had no room for is not, where others wait until they are.
    pub(crate) fn append(&mut self, entry: Entry, then: T, cx: &mut Cx<'_>) -> Option<(T, bool)> {
        let bytes = u32::try_from(entry.payload.len()).unwrap_or(u32::MAX);
        if self.log.try_send(cx, LogMsg::Append(Box::new(entry), None)).is_err() {
            self.unlogged += 1;
            return Some((then, !self.waits));
        }
        let number = self.next;
        self.next += 1;
        self.sizes.push_back(bytes);
        self.bytes += bytes as usize;
        if !self.waits {
            self.told = self.next;
            return Some((then, true));
        }
        self.waiting.push_back((number, then));
        None
    }

    /// The log is as far as this.
    pub(crate) fn progress(&mut self, now: Progress) {
        self.dead |= now.dead;
        while self.done < now.done {
            let bytes = self.sizes.pop_front().unwrap_or(0);
            self.bytes = self.bytes.saturating_sub(bytes as usize);
            self.done += 1;
        }
    }

    /// What waits no longer, and whether its event is in the log.
    pub(crate) fn next_ready(&mut self) -> Option<(T, bool)> {
        let &(number, _) = self.waiting.front()?;
        let kept = number < self.done;
        if !kept && !self.dead {
            return None;
        }
        if kept {
            self.told = number + 1;
        }
        self.waiting.pop_front().map(|(_, then)| (then, kept))
    }

    /// Below this number what events say was told.
    pub(crate) const fn told(&self) -> u64 {
        self.told
    }

    /// Whether the log has given up.
    pub(crate) const fn is_dead(&self) -> bool {
        self.dead
    }

    /// Events sent.
    pub(crate) const fn sent(&self) -> u64 {
        self.next
    }

    /// What waits.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// Has the middle at `me` told how far the log is.
pub(crate) fn watch<W: Workload>(
    log: Addr<LogAgent>,
    me: Addr<super::middle::MiddleAgent<W>>,
    cx: &mut Cx<'_>,
) -> bool {
    let tell = move |cx: &mut Cx<'_>, now| me.try_send(cx, MiddleMsg::Log(now)).is_ok();
    log.try_send(cx, LogMsg::Watch(Watch::new(tell))).is_ok()
}

/// What a link counted.
pub(crate) fn counted<T>(link: &Link<T>, add: &mut impl FnMut(&str, u64)) {
    add("events sent to the log", link.sent());
    add("events not logged", link.unlogged);
    add("waiting for the log at the end", link.waiting() as u64);
    add("waits for the log", link.waited.count);
    add("wait for the log, ns", link.waited.sum_ns);
    add("longest wait for the log, ns", link.waited.max_ns);
    add("logs that gave up", u64::from(link.is_dead()));
}
