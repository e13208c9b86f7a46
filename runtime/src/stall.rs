//! The stall detector: a thread that looks at what each shard says of its running turn and names the agent of
//! one that lasts too long, while it lasts. It also sets the byte that [`Cx::need_preempt`](crate::Cx) reads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::agent::AgentId;
use crate::clock;
use crate::error::StartError;
use crate::panics::{contain, drop_contained};
use crate::shard::shared::Shared;

/// Looks per threshold: a stall is found at 1 to 1.25 times the threshold.
const LOOKS: u64 = 4;

/// A turn that kept its core from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// CPU of the shard.
    pub core: usize,
    /// Who ran; none when the shard itself was busy, or a job.
    pub agent: Option<AgentId>,
    /// Its Rust type.
    pub type_name: &'static str,
    /// The type of its messages.
    pub message_type: &'static str,
    /// Since when the shard had not looked up from its work, monotonic ns. Turns of some us may lie before the
    /// one that stalls.
    pub since_ns: u64,
    /// How long it had lasted at the detector's last look at it, ns of the wall's clock, whether or not the thread had its
    /// core: up to a quarter of `Config::stall_ns` less than it lasted in the end, and less than that when
    /// [`Runtime::stalls`](crate::Runtime::stalls) took it before, or while a hook kept the detector.
    pub lasted_ns: u64,
}

/// Told of a stall while it lasts; the second argument says whether it still does.
pub(crate) type Hook = Box<dyn FnMut(&Stall, &dyn Fn() -> bool) + Send>;

/// What the detector knows of one shard.
#[derive(Debug, Default, Clone, Copy)]
struct Watch {
    /// The look that the last stall began with.
    reported_ns: u64,
}

impl Watch {
    /// Whether a shard whose last look was at `at_ns` stalls now, and was not said to for the same look.
    fn stalls(&mut self, at_ns: u64, now_ns: u64, stall_ns: u64) -> bool {
        let stalls = at_ns != 0 && now_ns.saturating_sub(at_ns) >= stall_ns;
        stalls && std::mem::replace(&mut self.reported_ns, at_ns) != at_ns
    }

    /// Whether it is the stall that was said last.
    const fn lasts(&self, at_ns: u64) -> bool {
        at_ns != 0 && at_ns == self.reported_ns
    }
}

#[derive(Default)]
struct Found {
    stalls: Mutex<VecDeque<Stall>>,
    count: AtomicU64,
    hook: Mutex<Option<Hook>>,
    end: AtomicBool,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Found {
    /// A stall that is new.
    fn add(&self, stall: Stall, lasts: &dyn Fn() -> bool, max: u32) {
        // Before anybody can take it: who takes a stall finds what the hook has made of it.
        if let Some(hook) = self.hook.lock().expect("a panic of a hook is contained").as_mut() {
            let _ = contain(|| hook(&stall, lasts));
        }
        let mut stalls = self.stalls.lock().expect("no user code runs under the lock");
        // With the list: who takes both has in the list what the number holds, as far as there is room.
        self.count.fetch_add(1, Ordering::Relaxed);
        if stalls.len() >= max as usize {
            let shortest = stalls.iter().enumerate().min_by_key(|(_, of)| of.lasted_ns);
            let Some((at, _)) = shortest.filter(|(_, of)| of.lasted_ns < stall.lasted_ns) else {
                return;
            };
            stalls.remove(at);
        }
        stalls.push_back(stall);
    }

    /// The last one of a core goes on.
    fn lasts(&self, (core, since_ns): (usize, u64), now_ns: u64) {
        let mut stalls = self.stalls.lock().expect("no user code runs under the lock");
        let same = |stall: &&mut Stall| (stall.core, stall.since_ns) == (core, since_ns);
        if let Some(stall) = stalls.iter_mut().rev().find(same) {
            stall.lasted_ns = now_ns - since_ns;
        }
    }
}

/// The thread; it ends when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    found: Arc<Found>,
    thread: Option<JoinHandle<()>>,
}

impl Detector {
    /// Starts to look. It wakes four times per `stall_ns`, about 10 us of CPU each.
    pub(crate) fn start(
        shards: Vec<Arc<Shared>>,
        stall_ns: u64,
        max: u32,
    ) -> Result<Self, StartError> {
        if stall_ns == 0 {
            return Ok(Self::default());
        }
        let found = Arc::<Found>::default();
        let shared = Arc::clone(&found);
        let run = move || {
            let mut watches = vec![Watch::default(); shards.len()];
            let mut looked_ns = clock::monotonic_ns();
            while !shared.end.load(Ordering::Acquire) {
                thread::park_timeout(Duration::from_nanos(stall_ns / LOOKS));
                // Who kept this thread from looking may have kept the turns from ending: a process that was stopped, or a
                // host that stood still. What still lasts at the next look is a stall.
                let now_ns = clock::monotonic_ns();
                let late = now_ns.saturating_sub(looked_ns) >= stall_ns;
                look(
                    &shards,
                    &mut watches,
                    (stall_ns, if late { None } else { Some(max) }),
                    &shared,
                );
                // A hook takes as long as it likes.
                looked_ns = if late { now_ns } else { clock::monotonic_ns() };
            }
        };
        let thread = thread::Builder::new().name("stalls".to_owned()).spawn(run);
        let thread =
            thread.map_err(|source| StartError::Kernel { action: "start a thread", source })?;
        Ok(Self { found, thread: Some(thread) })
    }

    /// Has `hook` told of each stall while it lasts.
    pub(crate) fn hook(&self, hook: Hook) {
        let mut place = self.found.hook.lock().expect("a panic of a hook is contained");
        let before = place.replace(hook);
        drop(place);
        let _ = drop_contained(before);
    }

    /// Takes what was found; the number of all since the start.
    pub(crate) fn take(&self) -> (Vec<Stall>, u64) {
        let mut stalls = self.found.stalls.lock().expect("no user code runs under the lock");
        (stalls.drain(..).collect(), self.found.count.load(Ordering::Relaxed))
    }
}

impl Drop for Detector {
    fn drop(&mut self) {
        self.found.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What panics in a hook is contained.
            let _ = thread.join();
        }
    }
}

/// `max`: stalls that are kept; without it no turn is judged.
fn look(
    shards: &[Arc<Shared>],
    watches: &mut [Watch],
    (stall_ns, max): (u64, Option<u32>),
    found: &Found,
) {
    for (shard, watch) in shards.iter().zip(watches) {
        let (at_ns, running, kind) = shard.beat.look();
        let now_ns = clock::monotonic_ns();
        if shard.beat.look().0 != at_ns {
            // It has looked up meanwhile: whose turn it was read is not known.
            continue;
        }
        if at_ns != 0 && now_ns.saturating_sub(at_ns) >= stall_ns / LOOKS {
            shard.beat.preempt();
        }
        let Some(max) = max else { continue };
        if !watch.stalls(at_ns, now_ns, stall_ns) {
            if watch.lasts(at_ns) {
                found.lasts((shard.core, at_ns), now_ns);
            }
            continue;
        }
        let stall = Stall {
            core: shard.core,
            agent: (running != 0 && running != u64::MAX).then_some(AgentId(running)),
            type_name: kind.map_or("the shard itself, or a job", |kind| (kind.name)()),
            message_type: kind.map_or("none", |kind| (kind.message)()),
            since_ns: at_ns,
            lasted_ns: now_ns - at_ns,
        };
        found.add(stall, &|| shard.beat.look().0 == at_ns, max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_said_once_and_sleep_is_none() {
        let mut watch = Watch::default();
        assert!(!watch.stalls(100, 1_000, 1_000));
        assert!(watch.stalls(100, 1_100, 1_000));
        assert!(!watch.stalls(100, 5_000, 1_000) && watch.lasts(100), "said already");
        assert!(!watch.stalls(0, 9_000, 1_000) && !watch.lasts(0), "asleep");
        assert!(watch.stalls(8_000, 9_000, 1_000), "another");
    }
}
