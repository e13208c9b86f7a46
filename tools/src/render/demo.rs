//! What the demo says: what was planted, what was found, and what to do next.

use std::io::{self, Write};

use serde_json::Value;

use super::page::Unit;
use super::units::{bytes, count, time};

/// What was found in a demo's run.
#[derive(Debug)]
pub struct Demo<'a> {
    /// The run's whole report.
    pub document: &'a Value,
    /// The planted leak and what was found of it; none when nothing was planted.
    pub leak: Option<&'a Value>,
    /// The planted slow agent and what was found of it.
    pub slow: Option<&'a Value>,
    /// Commands to go on with.
    pub next: &'a [String; 3],
}

/// Writes it.
///
/// # Errors
/// Those of `out`.
pub fn text(demo: &Demo<'_>, out: &mut dyn Write) -> io::Result<()> {
    let data = &demo.document["data"];
    let word = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    writeln!(out, "Demo      run {}  {}", word(&data["run"]["id"]), word(&data["run"]["host"]))?;
    let (agents, served) = (&data["agents"]["asked"], &data["load"]["served_per_s"]);
    writeln!(
        out,
        "          {} agents, {} served",
        whole(agents),
        served.as_f64().map_or_else(|| "unknown".to_owned(), |rate| Unit::PerSecond.write(rate))
    )?;
    let row = &data["latency"][0];
    let ns = |key: &str| row[key].as_f64().map_or_else(|| "unknown".to_owned(), time);
    writeln!(
        out,
        "Latency   p50 {}  p99 {}  p99.9 {}  max {}  of {} requests",
        ns("p50_ns"),
        ns("p99_ns"),
        ns("p999_ns"),
        ns("max_ns"),
        whole(&row["count"])
    )?;
    leak(demo.leak, out)?;
    slow(demo.slow, out)?;
    writeln!(out, "\nVerdict   {}  (as it must be: a leak was planted)", word(&data["verdict"]))?;
    for gate in
        data["gates"].as_array().into_iter().flatten().filter(|gate| gate["verdict"] == "FAIL")
    {
        writeln!(
            out,
            "          {}: {}, measured {}",
            word(&gate["gate"]),
            word(&gate["requirement"]),
            word(&gate["measured"])
        )?;
    }
    writeln!(out, "\nNext:")?;
    demo.next.iter().try_for_each(|command| writeln!(out, "  {command}"))
}

fn found(of: &Value) -> &'static str {
    if of["found"] == true { "FOUND" } else { "NOT FOUND" }
}

fn leak(of: Option<&Value>, out: &mut dyn Write) -> io::Result<()> {
    let Some(of) = of else { return writeln!(out, "\nLeak      none was planted") };
    let planted = &of["planted"];
    writeln!(
        out,
        "\nLeak      {}\n  planted {} in agents {}: {}, {} objects, {}",
        found(of),
        planted["kind"].as_str().unwrap_or("?"),
        agents(&planted["agents"]),
        rate(&planted["rate_bytes_per_h"]),
        whole(&planted["objects"]),
        planted["bytes"].as_f64().map_or_else(unknown, bytes)
    )?;
    if let Some(why) = of["unknown"].as_str() {
        return writeln!(out, "  found   nothing: {why}");
    }
    let site = &of["site"];
    if site.is_null() {
        return writeln!(out, "  found   no LEAK");
    }
    let growth = &site["finding"]["rate_bytes_per_h"];
    let growth = match growth["estimate"].is_number() {
        true => format!(
            "{} [{}, {}]",
            rate(&growth["estimate"]),
            rate(&growth["low"]),
            rate(&growth["high"])
        ),
        false => "rate unknown".to_owned(),
    };
    let theirs = of["their_share"].as_f64().map_or_else(unknown, |share| Unit::Share.write(share));
    let owners: Vec<Value> =
        site["agents"].as_array().into_iter().flatten().map(|of| of["agent"].clone()).collect();
    writeln!(out, "  found   LEAK in agents {}: {growth}", agents(&Value::Array(owners)))?;
    writeln!(out, "  theirs  {} of what stays there", theirs)?;
    writeln!(
        out,
        "  where   {}  {}",
        site["function"].as_str().unwrap_or("?"),
        site["line"].as_str().unwrap_or("")
    )?;
    let p = site["finding"]["evidence"]["p"].as_f64();
    writeln!(
        out,
        "  sure    chance of a mistake {}",
        p.map_or_else(
            || "unknown".to_owned(),
            |p| if p > 0.0 { format!("{p:.0e}") } else { "below 1e-300".to_owned() }
        )
    )
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn whole(value: &Value) -> String {
    value.as_u64().map_or_else(unknown, count)
}

/// Names of agents; of many the first and the last.
fn agents(list: &Value) -> String {
    let mut names: Vec<&str> =
        list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    names.sort_by_key(|name| (name.len(), *name));
    match names.as_slice() {
        [] => "(none)".to_owned(),
        [first, .., last] if names.len() > 3 => {
            format!("{first} to {last} ({} of them)", names.len())
        }
        few => few.join(", "),
    }
}

fn rate(value: &Value) -> String {
    value.as_f64().map_or_else(|| "unknown".to_owned(), |rate| Unit::BytesPerHour.write(rate))
}

fn slow(of: Option<&Value>, out: &mut dyn Write) -> io::Result<()> {
    let Some(of) = of else { return writeln!(out, "\nSlow      none was planted") };
    let planted = &of["planted"];
    let ns = |value: &Value| value.as_f64().map_or_else(|| "unknown".to_owned(), time);
    writeln!(
        out,
        "\nSlow      {}\n  planted {} of {} in agent {}: {} times, together {}",
        found(of),
        planted["kind"].as_str().unwrap_or("?"),
        ns(&planted["ns"]),
        planted["agent"],
        planted["times"],
        ns(&planted["together_ns"])
    )?;
    if let Some(why) = of["unknown"].as_str() {
        return writeln!(out, "  found   nothing: {why}");
    }
    let first = &of["first"];
    if first.is_null() {
        return writeln!(out, "  found   no agent weighed anything");
    }
    writeln!(
        out,
        "  found   agent {} on core {}: at least {} in its service",
        first["agent"],
        first["core"],
        ns(&first["at_least_ns"])
    )?;
    let second = &of["second"];
    if second.is_null() {
        return Ok(());
    }
    writeln!(out, "  beside  agent {}: at most {}", second["agent"], ns(&second["at_most_ns"]))
}
