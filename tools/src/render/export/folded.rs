//! Folded stacks, one line each: `root;caller;function value`. With a base two values, before and after,
//! as flamegraph.pl and inferno-flamegraph read them for a differential graph.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::Export;
use super::pprof::Metric;

/// Writes the live heap, or what was allocated, as folded stacks. Lines of nothing are left out.
///
/// # Errors
/// Those of `out`.
pub fn write(export: &Export<'_>, metric: Metric, out: &mut dyn Write) -> io::Result<()> {
    let profile = export.profile;
    // Before and after: a base's parts are negative.
    let mut lines: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    let mut add = |stack: usize, value: i64| {
        let mut names = profile.names(&profile.stacks[stack]);
        names.reverse();
        let clean: Vec<String> = names.iter().map(|name| name.replace([';', '\n'], ":")).collect();
        let line = lines.entry(clean.join(";")).or_default();
        match value < 0 {
            true => line.0 -= value,
            false => line.1 += value,
        }
    };
    match metric {
        Metric::InuseSpace | Metric::InuseObjects => {
            for holding in &profile.live {
                add(holding.stack, metric.of(holding.amount));
            }
        }
        Metric::AllocSpace | Metric::AllocObjects => {
            for (stack, amount) in profile.allocated.iter().enumerate() {
                add(stack, metric.of(*amount));
            }
        }
    }
    for (stack, (before, after)) in lines.iter().filter(|(_, values)| **values != (0, 0)) {
        match export.base {
            Some(_) => writeln!(out, "{stack} {before} {after}")?,
            None => writeln!(out, "{stack} {after}")?,
        }
    }
    Ok(())
}
