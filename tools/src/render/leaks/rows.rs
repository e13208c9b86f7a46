//! The live heap summed by site, agent, core or size class. The same whole numbers as in the exports.

use std::collections::BTreeMap;

use tailbeam_probes::analyse::profile::{Amount, Holding};

use super::{Leaks, places, word};
use crate::render::export::owner_name;

/// What a table is summed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Stack that allocated.
    Site,
    /// Owner tagged at birth.
    Agent,
    /// Core of birth.
    Core,
    /// Size class of the request.
    Size,
}

impl By {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Agent => "agent",
            Self::Core => "core",
            Self::Size => "size",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Site, agent, core, or the largest request of the class.
    pub key: u64,
    /// What it is called: function, agent, core, class.
    pub name: String,
    /// File and line, for a site.
    pub line: String,
    /// What lives.
    pub live: Amount,
    /// What was allocated since the start, for a site.
    pub allocated: Option<Amount>,
    /// Exact live bytes and objects of the class, where the allocator counts them.
    pub exact: Option<(u64, u64)>,
    /// Sites that hold something, for all but a site.
    pub sites: u64,
    /// Verdict on the site, or the worst of an agent's part of any.
    pub verdict: Option<&'static str>,
}

/// The rows, most bytes first.
#[must_use]
pub fn rows(leaks: &Leaks<'_>, by: By) -> Vec<Row> {
    let key = |holding: &Holding| match by {
        By::Site => holding.stack as u64,
        By::Agent => u64::from(holding.owner),
        By::Core => u64::from(holding.core),
        By::Size => holding.class,
    };
    let mut sums: BTreeMap<u64, (Amount, Vec<usize>)> = BTreeMap::new();
    for holding in &leaks.profile.live {
        let (sum, stacks) = sums.entry(key(holding)).or_default();
        *sum = sum.plus(holding.amount);
        stacks.push(holding.stack);
    }
    if by == By::Site {
        // A site that holds nothing now may have allocated the most.
        for (stack, amount) in leaks.profile.allocated.iter().enumerate() {
            if *amount != Amount::default() {
                sums.entry(stack as u64).or_default();
            }
        }
    }
    if by == By::Size {
        for class in leaks.snapshot.classes.iter().filter(|class| class.live_objects > 0) {
            sums.entry(class.up_to).or_default();
        }
    }
    let mut rows: Vec<Row> = sums
        .into_iter()
        .map(|(key, (live, mut stacks))| {
            stacks.sort_unstable();
            stacks.dedup();
            row(leaks, by, key, (live, stacks.len() as u64))
        })
        .collect();
    rows.sort_by(|a, b| b.live.bytes.cmp(&a.live.bytes).then_with(|| a.key.cmp(&b.key)));
    rows
}

fn row(leaks: &Leaks<'_>, by: By, key: u64, (live, sites): (Amount, u64)) -> Row {
    let mut row = Row {
        key,
        name: key.to_string(),
        line: String::new(),
        live,
        allocated: None,
        exact: None,
        sites,
        verdict: None,
    };
    match by {
        By::Site => {
            let index = usize::try_from(key).unwrap_or(usize::MAX);
            if let Some(stack) = leaks.profile.stacks.get(index) {
                let place = places(leaks.profile, stack).swap_remove(0);
                (row.name, row.line, row.key) = (place.name, place.line, u64::from(stack.site));
                row.allocated = leaks.profile.allocated.get(index).copied();
                row.verdict = leaks.report.site(stack.site).map(|site| word(site.finding.verdict));
            }
        }
        By::Agent => {
            let owner = u32::try_from(key).unwrap_or(u32::MAX);
            row.name = owner_name(leaks.snapshot, owner);
            let own = leaks.report.sites.iter().flat_map(|site| &site.owners);
            let own = own.filter(|of| of.owner == owner && owner != 0);
            row.verdict = own.map(|of| of.finding.verdict).min().map(word);
        }
        By::Core => {}
        By::Size => {
            let exact = leaks.snapshot.classes.iter().find(|class| class.up_to == key);
            row.exact = exact.map(|class| (class.live_bytes, class.live_objects));
        }
    }
    row
}
