//! How a hosted agent begins, goes, and takes the place of one that has gone or failed.

use tailbeam_runtime::Cx;

use super::super::draw::Stream;
use super::super::harm::Schedule;
use super::super::recorder;
use super::super::session::{Leaving, Session};
use super::super::workload::Workload;
use super::Hosted;
use crate::plan::Arrivals;

impl<W: Workload> Hosted<W> {
    /// Leaves word how far it is, for whoever takes its place.
    pub(super) fn keep(&self, left: bool) {
        if !self.fleet.born.is_empty() {
            let schedule = Schedule { next_ns: self.next_ns, k: self.k, left };
            recorder::with(|r| r.keep(self.local, schedule));
        }
    }

    /// Its session begins before the next request.
    pub(super) fn begin_session(&mut self) {
        let (k, mean_ns) = (u64::from(self.k), self.fleet.plan.shape.session_ns);
        self.session = Session::begin(self.draw(), k, self.next_ns, mean_ns);
    }

    /// Whether its session is over, and it goes now.
    pub(super) fn leaves(&self) -> bool {
        if !self.session.is_over(self.next_ns) {
            return false;
        }
        let (end_ns, closed_loop) = recorder::with(|r| (r.end_ns, r.closed_loop));
        if self.next_ns >= end_ns || closed_loop {
            return false;
        }
        let idle = self.open == 0 && self.inner.idle();
        let leaves = self.session.leaves(self.next_ns, idle, self.fleet.plan.timeout_ns);
        if let Some(how) = leaves {
            self.fleet.sessions.ends(how);
            self.keep(how == Leaving::Idle);
        }
        leaves.is_some()
    }

    /// Takes the place of one that has failed or gone: its open requests are lost, its schedule goes on.
    pub(super) fn rejoin(&mut self, cx: &mut Cx<'_>) {
        let (local, now_ns) = (self.local, cx.fresh_ns());
        let Schedule { next_ns, k, left } = recorder::with(|r| r.schedule(local));
        // Whoever went with nothing open has lost nothing, and nobody need look.
        let lost = if left { Vec::new() } else { recorder::with(|r| r.lose(local, now_ns)) };
        // Those are of its earlier life, and would find nobody.
        lost.iter().for_each(|&timer| _ = cx.cancel(timer));
        let Some(&start_ns) = self.fleet.start_ns.get().filter(|_| next_ns != 0) else { return };
        (self.next_ns, self.k) = (next_ns, k);
        self.inner.begin(start_ns, cx);
        if self.index >= self.fleet.askers {
            return;
        }
        if !lost.is_empty() && self.fleet.plan.shape.arrivals == Arrivals::Closed {
            let think = self.draw().span_ns(u64::from(k), Stream::Think, self.fleet.plan.think);
            self.next_ns = now_ns + think;
        }
        self.begin_session();
        self.issue(cx.stamp_ns(), cx);
    }
}
