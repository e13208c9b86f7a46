//! Turns that kept a core from all others: how many, and the longest of them.

use serde::{Deserialize, Serialize};
use tailbeam_probes::record::program::{KERNEL, ModuleRow, NOWHERE, ProgramStacks, StackRow};

use super::Measured;
use crate::evidence::{RunFrames, StallRecord};

/// Stalls that are shown one by one.
const SHOWN_MAX: usize = 10;

/// Stalls of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StallsSection {
    /// A turn of this length was one, ns; it was looked for four times in that.
    pub limit_ns: u64,
    /// Found.
    pub found: u64,
    /// Windows in which nobody looked: of an older program, or without cores.
    pub windows_unseen: u64,
    /// The longest, longest first.
    pub longest: Vec<StallRow>,
}

/// A stall.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StallRow {
    /// After the first request was due, s.
    pub at_s: f64,
    /// CPU.
    pub core: u64,
    /// Number of the agent in the plan, where it is one of them.
    pub agent: Option<u64>,
    /// Who it was, in words.
    pub owner: String,
    /// It lasted so long at least, ns.
    pub at_least_ns: u64,
    /// Functions at one instant of it, innermost first; unknown until [`StallsSection::name`] has found them.
    pub stack: Measured<Vec<String>>,
    /// What is to be named.
    #[serde(skip)]
    raw: Option<(u32, ProgramStacks)>,
}

impl StallsSection {
    /// Names what the stacks hold: `names` makes functions of each of the stacks that it is given, in their order. It is
    /// asked once, and not at all without stacks.
    pub fn name(&mut self, names: impl FnOnce(&ProgramStacks) -> Vec<Vec<String>>) {
        let (mut all, mut rows) = (ProgramStacks::default(), Vec::new());
        for row in &mut self.longest {
            let Some((number, stacks)) = row.raw.take() else { continue };
            if let Some(stack) = stacks.stacks.get(number as usize) {
                let frame = |&(module, at): &(u32, u64)| {
                    // The kernel, and code that lies in no file, have numbers that are no module's.
                    match stacks.modules.get(module as usize) {
                        Some(known) => (moved(&mut all.modules, known), at),
                        None if module == KERNEL => (KERNEL, at),
                        None => (NOWHERE, at),
                    }
                };
                let frames = stack.frames.iter().map(frame).collect();
                all.stacks.push(StackRow { frames, cut: stack.cut });
                all.kernel.extend(stacks.kernel.iter().cloned());
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return;
        }
        for (row, named) in rows.into_iter().zip(names(&all)) {
            row.stack = Measured::Known(named);
        }
    }
}

/// The number of a module among `all`, to which it is added if it is new.
fn moved(all: &mut Vec<ModuleRow>, module: &ModuleRow) -> u32 {
    let at = all.iter().position(|known| known == module).unwrap_or_else(|| {
        all.push(module.clone());
        all.len() - 1
    });
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Of runs and reports without.
pub(super) fn not_recorded() -> Measured<StallsSection> {
    Measured::unknown(
        "no window says whether a turn kept its core: there is none, no core ran, or it was recorded before this was looked for",
        "record a new run, of a window at least",
    )
}

/// Of the windows that there are.
pub(super) fn section(run: &RunFrames) -> Measured<StallsSection> {
    let records: Vec<_> = run.windows.iter().filter_map(|window| window.stalls.as_ref()).collect();
    let Some(limit_ns) = records.iter().map(|record| record.limit_ns).max() else {
        return not_recorded();
    };
    let mut all: Vec<_> = records
        .iter()
        .flat_map(|record| record.longest.iter().map(|stall| (stall, &record.stacks)))
        .collect();
    all.sort_by_key(|(stall, _)| (std::cmp::Reverse(stall.lasted_ns), stall.since_ns));
    all.truncate(SHOWN_MAX);
    let start_ns = run.manifest.start_ns;
    let longest = all.into_iter().map(|(stall, stacks)| row(stall, stacks, start_ns)).collect();
    let found = records.iter().map(|record| record.found).sum();
    let windows_unseen = (run.windows.len() - records.len()) as u64;
    Measured::Known(StallsSection { limit_ns, found, windows_unseen, longest })
}

fn row(stall: &StallRecord, stacks: &ProgramStacks, start_ns: u64) -> StallRow {
    let stack = match &stall.no_stack {
        Some(why) => Measured::unknown(why.unknown.clone(), why.remedy.clone()),
        None => Measured::unknown(
            "the functions of its stack were not looked up, or the stack is not in the record",
            "`tailbeam report` looks them up",
        ),
    };
    StallRow {
        at_s: stall.since_ns.saturating_sub(start_ns) as f64 / 1e9,
        core: stall.core,
        agent: stall.agent,
        owner: stall.owner(),
        at_least_ns: stall.lasted_ns,
        stack,
        raw: stall.stack.map(|number| (number, stacks.clone())),
    }
}
