//! Turns that keep a core from all others: the runtime finds them and says whose they are, a look at the thread while
//! they last says where they are.

use std::sync::{Arc, Mutex};

use tailbeam_probes::Unavailable;
use tailbeam_probes::collect::profile::{Glance, glance};
use tailbeam_probes::collect::program::placed;
use tailbeam_runtime::{Runtime, Stall};

use super::controller::Controller;
use crate::evidence::records::Unknown;
use crate::evidence::{StallRecord, StallsRecord};
use crate::load::Workload;

/// Stalls of a window that are written down one by one, the longest first; all are counted.
const KEPT_MAX: usize = 8;
/// Frames of a stack that are kept, the innermost.
const FRAMES_MAX: usize = 48;
/// Looks kept until the window ends: at 25 ms each, more than a window of 10 s has stalls of two cores.
const LOOKS_MAX: usize = 1_024;

/// A look at a turn that lasts.
#[derive(Debug)]
struct Look {
    core: usize,
    since_ns: u64,
    found: Result<Glance, Unavailable>,
}

/// What is known of stalls since the last window.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    looks: Arc<Mutex<Vec<Look>>>,
    limit_ns: u64,
    /// Found before, since the runtime began.
    before: u64,
    /// What began earlier is no part of the run, ns.
    from_ns: u64,
    observed: bool,
    /// Of the last window, taken before our own work at the end of a run.
    last: Option<StallsRecord>,
}

impl Stalls {
    /// A turn of `limit_ns` is one; `observed`: where it is, is looked at.
    pub(super) fn new(limit_ns: u64, observed: bool) -> Self {
        Self { limit_ns, observed, ..Self::default() }
    }

    /// What began before `from_ns` is no part of the run; turns that last are looked at from now on.
    pub(super) fn restart(&mut self, runtime: &Runtime, from_ns: u64) {
        (self.before, self.from_ns) = (runtime.stalls().1, from_ns);
        if self.observed {
            // Every core has run a job by now, and so has said which its thread is.
            let (theirs, threads) = (Arc::clone(&self.looks), threads(runtime));
            runtime.on_stall(move |stall, lasts| look(&theirs, &threads, (stall, lasts)));
        }
    }

    /// The record of a window, with the ids of those who stalled for a number of theirs.
    fn take(&mut self, runtime: &Runtime) -> (StallsRecord, Vec<Stall>) {
        let (mut stalls, count) = runtime.stalls();
        let found = count.saturating_sub(std::mem::replace(&mut self.before, count));
        let all = stalls.len();
        stalls.retain(|stall| stall.since_ns >= self.from_ns);
        let found = found.saturating_sub((all - stalls.len()) as u64);
        let mut looks = std::mem::take(&mut *self.looks.lock().expect("nothing panics there"));
        stalls.sort_by_key(|stall| std::cmp::Reverse(stall.lasted_ns));
        stalls.truncate(KEPT_MAX);
        let mut record = StallsRecord { limit_ns: self.limit_ns, found, ..StallsRecord::default() };
        let mut glances = Vec::new();
        for stall in &stalls {
            let same = |look: &Look| (look.core, look.since_ns) == (stall.core, stall.since_ns);
            let look = looks.iter().position(same).map(|at| looks.swap_remove(at).found);
            let mut one = named(stall);
            match look.unwrap_or_else(|| Err(unseen(self.observed))) {
                Ok(glance) => {
                    one.stack = u32::try_from(glances.len()).ok();
                    glances.push(cut(glance));
                }
                Err(why) => {
                    one.no_stack = Some(Unknown { unknown: why.cause, remedy: why.remedy });
                }
            }
            record.longest.push(one);
        }
        if !glances.is_empty() {
            let (stacks, numbers) = placed(&glances);
            record.stacks = stacks;
            for one in &mut record.longest {
                one.stack = one.stack.and_then(|at| numbers.get(at as usize).copied());
            }
        }
        (record, stalls)
    }
}

/// The kernel's number of each core's thread.
fn threads(runtime: &Runtime) -> Vec<(usize, i32)> {
    let stats = runtime.stats();
    let thread = |shard: &tailbeam_runtime::ShardStats| i32::try_from(shard.thread_id).ok();
    stats.iter().filter_map(|shard| Some((shard.core, thread(shard)?))).collect()
}

/// On the detector's thread.
fn look(
    looks: &Mutex<Vec<Look>>,
    threads: &[(usize, i32)],
    (stall, lasts): (&Stall, &dyn Fn() -> bool),
) {
    let thread = threads.iter().find(|(core, _)| *core == stall.core);
    let thread = thread.map_or(0, |(_, thread)| *thread);
    let found = glance(thread).and_then(|glance| if lasts() { Ok(glance) } else { Err(over()) });
    let (core, since_ns) = (stall.core, stall.since_ns);
    let mut looks = looks.lock().expect("nothing panics under the lock");
    if looks.len() < LOOKS_MAX {
        looks.push(Look { core, since_ns, found });
    }
}

fn cut(mut glance: Glance) -> Glance {
    let room = FRAMES_MAX.saturating_sub(glance.kernel.len());
    glance.cut |= glance.user.len() > room || glance.kernel.len() > FRAMES_MAX;
    glance.kernel.truncate(FRAMES_MAX);
    glance.user.truncate(room);
    glance
}

fn over() -> Unavailable {
    Unavailable {
        source: "perf sample",
        cause: "the turn was over before the look at it was".to_owned(),
        remedy: "none needed: longer ones are seen".to_owned(),
    }
}

fn unseen(observed: bool) -> Unavailable {
    let (cause, remedy) = match observed {
        true => (
            "no look at it was kept: the look ended without an answer, or others had taken the room",
            "see whether the process may open more files, and whether hundreds of turns stall in a window",
        ),
        false => ("the run was not observed", "record it without `--observe off`"),
    };
    Unavailable { source: "perf sample", cause: cause.to_owned(), remedy: remedy.to_owned() }
}

fn named(stall: &Stall) -> StallRecord {
    StallRecord {
        core: stall.core as u64,
        agent: None,
        id: stall.agent.map(|agent| agent.to_string()),
        type_name: stall.type_name.to_owned(),
        message: stall.message_type.to_owned(),
        since_ns: stall.since_ns,
        lasted_ns: stall.lasted_ns,
        stack: None,
        no_stack: None,
    }
}

impl<W: Workload> Controller<'_, W> {
    /// The stalls of the window that ends.
    pub(super) fn take_stalls(&mut self) -> StallsRecord {
        if let Some(last) = self.stalls.last.take() {
            return last;
        }
        let (mut record, stalls) = self.stalls.take(self.runtime);
        let addresses = self.fleet.addresses.get().map_or(&[][..], Vec::as_slice);
        for (one, stall) in record.longest.iter_mut().zip(&stalls) {
            let Some(id) = stall.agent else { continue };
            one.agent = (0..).zip(addresses).find(|(_, a)| a.id() == id).map(|(number, _)| number);
        }
        record
    }

    /// Ends the counting: what comes now is our own work, and no part of the run.
    pub(super) fn end_stalls(&mut self) {
        let record = self.take_stalls();
        self.stalls.last = Some(record);
    }
}
