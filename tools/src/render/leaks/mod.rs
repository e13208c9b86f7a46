//! A leak report as people and programs read it: the report's plain values, the profile with its names,
//! and what could not be known, drawn as a list, a table, a tree, objects, a difference or JSON.

pub mod json;
mod list;
mod objects;
pub mod plan;
mod rows;
mod table;
mod tree;
mod waits;
mod words;

use tailbeam_harness::evidence::Waits;
use tailbeam_probes::Unavailable;
use tailbeam_probes::analyse::leak::{LeakReport, Verdict};
use tailbeam_probes::analyse::profile::{HeapProfile, Stack};
use tailbeam_probes::analyse::role::{Role, role};
use tailbeam_probes::analyse::symbols::{Function, Resolved, Symbols};
use tailbeam_probes::record::heap::HeapSnapshot;

pub use list::list;
pub use objects::objects;
pub use rows::{By, Row, rows};
pub use table::{diff, table};
pub use tree::tree;

use super::export::Verdicts;
use super::units::{bytes, count};

/// Everything that a view is drawn from.
#[derive(Debug)]
pub struct Leaks<'a> {
    /// Run.
    pub run: &'a str,
    /// The snapshot that was judged.
    pub snapshot: &'a HeapSnapshot,
    /// Names of its frames.
    pub symbols: &'a Symbols,
    /// The snapshot as a profile.
    pub profile: &'a HeapProfile,
    /// The verdict.
    pub report: &'a LeakReport,
    /// Other processes of the run, by file.
    pub others: &'a [String],
    /// Handlers that wait and wakers that are out, from the runtime's registry; or why that is not known.
    pub waits: Result<&'a Waits, &'a Unavailable>,
    /// An earlier state to compare with, and what it is called.
    pub base: Option<(&'a str, &'a HeapProfile)>,
    /// Memory that this host could still give, bytes; `None` when it is not known.
    pub available_bytes: Option<u64>,
}

/// How wide and how long a text may be.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Columns of the terminal; `None` when there is none, and nothing is cut.
    pub width: Option<usize>,
    /// Rows of a table.
    pub top: usize,
    /// Calls of a stack below a leak.
    pub calls: usize,
}

impl Page {
    /// A line cut to the page, with a mark.
    fn fit(self, line: &str) -> String {
        match self.width {
            Some(width) if line.chars().count() > width => {
                let kept: String = line.chars().take(width.saturating_sub(1)).collect();
                format!("{}…", kept.trim_end())
            }
            _ => line.to_owned(),
        }
    }
}

/// Word of a verdict.
#[must_use]
pub const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "LEAK",
        Verdict::Suspect => "SUSPECT",
        Verdict::Clean => "CLEAN",
        Verdict::Inconclusive => "INCONCLUSIVE",
    }
}

/// The verdicts of a report, by site and owner.
#[derive(Debug)]
pub struct ByReport<'a>(pub &'a LeakReport);

impl Verdicts for ByReport<'_> {
    fn word(&self, site: u32, owner: u32) -> Option<&'static str> {
        let report = self.0.site(site)?;
        // One agent may leak where the site as a whole cannot be judged; its part is then called by its
        // own verdict. The other way round a part belongs to what its site is called.
        let own = report.owners.iter().find(|of| of.owner == owner && owner != 0);
        let own = own.map_or(report.finding.verdict, |own| own.finding.verdict);
        Some(word(own.min(report.finding.verdict)))
    }
}

/// Where a stack asked for memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) line: String,
}

/// The calls of a stack, innermost first: function where it is known, and the name to show.
pub(crate) fn places(profile: &HeapProfile, stack: &Stack) -> Vec<Place> {
    let mut places = Vec::new();
    for frame in &stack.frames {
        if frame.functions.is_empty() {
            places.push(Place { name: profile.address_name(frame), line: String::new() });
        }
        places.extend(
            frame.functions.iter().map(|f| Place { name: f.name.clone(), line: file_line(f) }),
        );
    }
    if places.is_empty() {
        places.push(Place { name: "(stack unknown)".to_owned(), line: String::new() });
    }
    places
}

/// Directory, file and line: enough to find it, short enough for a line.
pub(crate) fn file_line(function: &Function) -> String {
    let Some(file) = &function.file else { return String::new() };
    let short: Vec<&str> = file.rsplit('/').take(2).collect();
    let short = short.into_iter().rev().collect::<Vec<_>>().join("/");
    match function.line {
        Some(line) => format!("{short}:{line}"),
        None => short,
    }
}

impl Leaks<'_> {
    /// Place in the profile of a site's stack.
    pub(crate) fn stack_of(&self, site: u32) -> Option<usize> {
        self.profile.stacks.iter().position(|stack| stack.site == site)
    }

    /// How it was sampled, in a few words.
    pub(crate) fn sampling(&self) -> String {
        let facts = &self.snapshot.sampler;
        let how = match facts.exact {
            true => "exact: every object".to_owned(),
            false => format!("sampled 1/{} (Poisson)", bytes(facts.mean_bytes as f64)),
        };
        let lost: u64 = facts.lost.iter().map(|(_, lost)| lost).sum();
        format!("{how}, {} samples, {} lost", count(facts.taken), count(lost))
    }

    /// What a reader must know before the figures: losses, missing symbols, thinning.
    #[must_use]
    pub fn caveats(&self) -> Vec<String> {
        let facts = &self.snapshot.sampler;
        let mut caveats = Vec::new();
        for (reason, lost) in facts.lost.iter().filter(|(_, lost)| *lost > 0) {
            caveats.push(format!(
                "{} samples were lost ({reason}): estimates are too low by their share",
                count(*lost)
            ));
        }
        if !facts.exact && facts.kept > 0.0 && facts.kept < 1.0 {
            caveats.push(format!(
                "the table was full: one sample in {:.1} is kept, weights are scaled, intervals are wider",
                1.0 / facts.kept
            ));
        }
        if !self.others.is_empty() {
            caveats.push(format!(
                "this is one process of {}; the others: {} (--pid, or the file itself)",
                self.others.len() + 1,
                self.others.join(", ")
            ));
        }
        if facts.truncated_stacks > 0 {
            caveats.push(format!(
                "{} stacks end early, in code without frame pointers and tables",
                count(facts.truncated_stacks)
            ));
        }
        let modules = self.snapshot.modules.iter().zip(&self.symbols.modules).enumerate();
        for (index, (module, resolved)) in modules {
            if let Some(why) = resolved.missing().filter(|_| self.is_shown(index)) {
                caveats.push(format!("{}; remedy: {}", why.cause, why.remedy));
            }
            if self.symbols.unproven.contains(&index) {
                let path = &module.path;
                caveats.push(format!(
                    "{path} has no build-id: nothing proves that its names are of the build that ran; \
                     remedy: link with -Wl,--build-id"
                ));
            }
        }
        caveats
    }

    /// Whether what a module's frames are called matters: system libraries without lines do not.
    fn is_shown(&self, module: usize) -> bool {
        let path = &self.snapshot.modules[module].path;
        let unnamed = matches!(self.symbols.modules.get(module), Some(Resolved::Unknown(_)));
        unnamed || role("", path) == Role::Program
    }
}
