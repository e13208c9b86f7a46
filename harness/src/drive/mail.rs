//! How much mail waits at agents that do not read: looked at while a supervisor keeps some from reading, and said on its
//! board, beside the bound that this run gives its mailboxes.

use std::sync::Arc;

use tailbeam_probes::clock;
use tailbeam_runtime::{Addr, Config};

use super::DriveError;
use super::controller::Controller;
use crate::chaos::board::{Board, Defence};
use crate::load::{Hosted, Workload};

/// Time between two looks, ns: each counts what waits, message by message.
const LOOK_NS: u64 = 100_000_000;
/// Agents of a core that are looked at, those first that stop reading first.
const LOOKED_AT: usize = 64;
/// Bound of a mailbox, per sending core, where it is in effect none: the most that the runtime can count.
const NO_BOUND: u32 = 50_000;

/// When mail was looked at last.
#[derive(Debug, Default)]
pub(super) struct Looks {
    at_ns: u64,
}

/// The bounds of a runtime whose mailboxes have theirs taken away, if a supervisor wants that.
pub(super) fn bounded(config: Config, board: Option<&Arc<Board>>) -> Config {
    let off = board.is_some_and(|board| board.is_off(Defence::Mailbox));
    Config { mailboxes_min: if off { NO_BOUND } else { config.mailboxes_min }, ..config }
}

impl<W: Workload> Controller<'_, W> {
    /// Looks at the mail of agents that do not read, if there are any and the last look is long enough ago.
    pub(super) fn look_at_mail(&self, looks: &mut Looks) -> Result<(), DriveError> {
        let Some((board, harm)) = self.control.board.as_ref().zip(self.fleet.harm.as_ref()) else {
            return Ok(());
        };
        let (them, now_ns) = (harm.not_reading(), clock::monotonic_ns());
        if them.is_empty() || now_ns < looks.at_ns + LOOK_NS {
            return Ok(());
        }
        looks.at_ns = now_ns;
        // Also with the defence off: what is said is what agents promise.
        board.set_mailbox_bound(self.runtime.mailbox_bound::<Hosted<W>>());
        for shard in 0..self.shards {
            let mine = them.iter().filter(|&&agent| agent as usize % self.shards == shard);
            let mine: Vec<Addr<Hosted<W>>> =
                mine.take(LOOKED_AT).map(|&agent| self.fleet.address(agent)).collect();
            let seen = self.on(shard, move |cx| {
                let accounts = mine.iter().filter_map(|agent| cx.account(agent.id()));
                accounts.fold((0, 0), |(agents, deepest), account| {
                    (agents + 1, u64::from(account.waiting).max(deepest))
                })
            })?;
            let core = u32::try_from(shard).unwrap_or(u32::MAX);
            if core < board.shape().cores {
                board.saw_mail(core, seen.0, seen.1);
            }
        }
        Ok(())
    }
}
