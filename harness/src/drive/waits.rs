//! What the runtime's registry says at the end of a run.

use std::collections::BTreeMap;
use std::path::Path;

use tailbeam_runtime::{AgentId, LateWakers, Registry, WaitFor, Waiting};

use super::Progress;
use super::controller::Controller;
use crate::evidence::{LateRecord, WAITS, WAITS_VERSION, WaitKind, WaitRecord, Waits};
use crate::load::Workload;

impl<W: Workload> Controller<'_, W> {
    /// Writes it beside the frames, or says why it does not: that is no reason to lose a run.
    pub(super) fn note_waits(&self, dir: &Path, progress: &mut dyn FnMut(&Progress)) {
        if let Some(why) = self.write_waits(dir) {
            let event = Some(format!("{WAITS} was not written: {why}"));
            progress(&Progress { phase: "drain", event, ..Progress::default() });
        }
    }

    fn write_waits(&self, dir: &Path) -> Option<String> {
        let Ok(registry) = self.runtime.registry() else {
            return Some("a core has ended".to_owned());
        };
        let addresses = self.fleet.addresses.get().map_or(&[][..], Vec::as_slice);
        // Only of those that are named.
        let named: Vec<AgentId> = registry.waiting.iter().map(|of| of.oldest).collect();
        let agents = (0..).zip(addresses).map(|(index, address)| (address.id(), index));
        let agents = agents.filter(|(id, _)| named.contains(id)).collect();
        records(&registry, &agents).write(dir).err().map(|error| error.to_string())
    }
}

fn records(registry: &Registry, agents: &BTreeMap<AgentId, u64>) -> Waits {
    let mut waiting: Vec<WaitRecord> =
        registry.waiting.iter().map(|of| wait(of, registry.at_ns, agents)).collect();
    waiting.sort_by_key(|of| (of.wait_for != WaitKind::Nothing, std::cmp::Reverse(of.handlers)));
    let mut late: Vec<LateRecord> =
        registry.late.iter().map(|of| late(of, registry.at_ns)).collect();
    late.sort_by_key(|of| std::cmp::Reverse(of.wakers));
    Waits {
        version: WAITS_VERSION,
        waiting,
        late,
        late_unlisted: registry.late_unlisted,
        idle_wakers: registry.idle_wakers,
    }
}

fn wait(of: &Waiting, at_ns: u64, agents: &BTreeMap<AgentId, u64>) -> WaitRecord {
    WaitRecord {
        type_name: of.type_name.to_owned(),
        message: of.message.map(str::to_owned),
        wait_for: match of.wait_for {
            WaitFor::Nothing => WaitKind::Nothing,
            WaitFor::Waker => WaitKind::Waker,
            WaitFor::Timer => WaitKind::Timer,
            WaitFor::Answer => WaitKind::Answer,
            WaitFor::Turn => WaitKind::Turn,
            _ => WaitKind::Other,
        },
        handlers: of.handlers,
        bytes: of.bytes,
        messages: of.messages,
        wakers: of.wakers,
        oldest: of.oldest.to_string(),
        agent: agents.get(&of.oldest).copied(),
        suspended_ns: at_ns.saturating_sub(of.since_ns),
        polled_ns: at_ns.saturating_sub(of.polled_ns),
    }
}

fn late(of: &LateWakers, at_ns: u64) -> LateRecord {
    LateRecord {
        type_name: of.type_name.to_owned(),
        message: of.message.map(str::to_owned),
        agents: of.agents,
        wakers: of.wakers,
        first: of.first.to_string(),
        ended_ns: at_ns.saturating_sub(of.ended_ns),
    }
}
