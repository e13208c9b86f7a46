//! The live heap as a tree of calls from the outermost function inwards, with the bytes below each.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tailbeam_probes::analyse::profile::Amount;

use super::words::percent;
use super::{Leaks, Page, places};
use crate::render::units::bytes;

#[derive(Default)]
struct Node {
    below: Amount,
    line: String,
    children: BTreeMap<String, Node>,
}

/// Branches with less than this share of the heap are counted, not drawn.
const SHARE_MIN: f64 = 0.01;

/// Writes the tree.
///
/// # Errors
/// Those of `out`.
pub fn tree(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let mut root = Node::default();
    for holding in &leaks.profile.live {
        root.below = root.below.plus(holding.amount);
        let mut node = &mut root;
        let stack = &leaks.profile.stacks[holding.stack];
        for place in places(leaks.profile, stack).into_iter().rev() {
            node = node.children.entry(place.name).or_default();
            // Several lines of one function make one branch, which then has none.
            match node.below == Amount::default() {
                true => node.line = place.line,
                false if node.line != place.line => node.line.clear(),
                false => {}
            }
            node.below = node.below.plus(holding.amount);
        }
    }
    writeln!(out, "Live heap by call tree  run {}  {}\n", leaks.run, leaks.sampling())?;
    let total = root.below.bytes;
    writeln!(out, "{:>10} 100 %  all", bytes(total as f64))?;
    let mut hidden = 0u64;
    children(&root, (total, ""), page, (&mut hidden, out))?;
    if hidden > 0 {
        writeln!(
            out,
            "\n{hidden} branches below {} of the heap are not drawn",
            percent(SHARE_MIN)
        )?;
    }
    Ok(())
}

fn children(
    node: &Node,
    (total, indent): (i64, &str),
    page: Page,
    (hidden, out): (&mut u64, &mut dyn Write),
) -> io::Result<()> {
    let mut list: Vec<(&String, &Node)> = node.children.iter().collect();
    list.sort_by(|a, b| b.1.below.bytes.cmp(&a.1.below.bytes).then_with(|| a.0.cmp(b.0)));
    let all = list.len();
    list.retain(|(_, child)| child.below.bytes as f64 >= SHARE_MIN * total as f64);
    *hidden += (all - list.len()) as u64;
    // A chain of single calls goes straight down, so that depth means choice.
    let fork = list.len() > 1;
    for (index, (name, child)) in list.iter().enumerate() {
        let last = index + 1 == list.len();
        let (arm, bar) = match (fork, last) {
            (false, _) => ("└ ", ""),
            (true, false) => ("├ ", "│ "),
            (true, true) => ("└ ", "  "),
        };
        let share = percent(child.below.bytes as f64 / total as f64);
        let size = bytes(child.below.bytes.max(0) as f64);
        let text = format!("{size:>10} {share:>5}  {indent}{arm}{name}  {}", child.line);
        writeln!(out, "{}", page.fit(text.trim_end()))?;
        children(child, (total, &format!("{indent}{bar}")), page, (&mut *hidden, &mut *out))?;
    }
    Ok(())
}
