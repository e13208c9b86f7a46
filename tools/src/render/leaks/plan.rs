//! How long a soak must be to find a leak of a given rate, by mean distance between samples.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use tailbeam_probes::analyse::leak::{LeakConfig, Plan, Soak};

use super::words::{hours, ns, sparkline};
use crate::render::json::document_of;
use crate::render::units::{bytes, count};

/// JSON Schema of the document.
pub const PLAN_SCHEMA: &str = include_str!("../../../schemas/leak-plan.schema.json");

/// Writes the plans as a table.
///
/// # Errors
/// Those of `out`.
pub fn text(plans: &[(Soak, Plan)], config: &LeakConfig, out: &mut dyn Write) -> io::Result<()> {
    let Some((soak, _)) = plans.first() else { return Ok(()) };
    writeln!(
        out,
        "Plan  to call a leak of {}/h at a site with {} of churn that lives {}, among {} sites",
        bytes(soak.rate),
        bytes(soak.churn_bytes),
        ns(nanoseconds(soak.churn_life_s)),
        count(soak.sites)
    )?;
    writeln!(
        out,
        "      floor {}/h, warm-up {}, horizon {}\n",
        bytes(config.floor),
        ns(config.warm_up_ns),
        ns(config.horizon_ns)
    )?;
    let mut table = Table::new();
    let header = ["sampled 1 in", "LEAK with 80 %", "with 95 %", "power over time"];
    table.load_style(presets::NOTHING).set_header(header);
    for (soak, plan) in plans {
        let told = |found: Option<f64>| found.map_or_else(|| "not in 2,000 h".to_owned(), hours);
        let power: Vec<f64> = plan.curve.iter().map(|(_, power)| *power).collect();
        let reach = match (plan.curve.first(), plan.curve.last()) {
            (Some(first), Some(last)) => {
                format!("{} {} to {}", sparkline(&power), hours(first.0), hours(last.0))
            }
            _ => String::new(),
        };
        table.add_row([bytes(soak.mean_bytes), told(plan.hours_80), told(plan.hours_95), reach]);
    }
    for column in table.column_iter_mut().take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    writeln!(out, "\nComputed from the verdict's own clauses, not measured")
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of a lifetime; casts of floats saturate"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Writes the plans as one JSON document.
///
/// # Errors
/// Those of `out`.
pub fn json(plans: &[(Soak, Plan)], config: &LeakConfig, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<Value> = plans
        .iter()
        .map(|(soak, plan)| {
            let curve = plan.curve.iter();
            json!({
                "mean_bytes": soak.mean_bytes,
                "hours_80": plan.hours_80,
                "hours_95": plan.hours_95,
                "power": curve.map(|(hours, power)| json!({"hours": hours, "power": power})).collect::<Vec<_>>(),
            })
        })
        .collect();
    let soak = plans.first().map(|(soak, _)| soak);
    let data = json!({
        "rate_bytes_per_h": soak.map(|soak| soak.rate),
        "churn_bytes": soak.map(|soak| soak.churn_bytes),
        "churn_life_s": soak.map(|soak| soak.churn_life_s),
        "sites": soak.map(|soak| soak.sites),
        "floor_bytes_per_h": config.floor,
        "warm_up_ns": config.warm_up_ns,
        "horizon_ns": config.horizon_ns,
        "plans": rows,
    });
    document_of(("tailbeam.leak-plan", 1), &data, out)
}
