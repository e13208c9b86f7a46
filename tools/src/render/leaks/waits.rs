//! Handlers that wait and wakers that are out, from the runtime's registry: what can never run again, what is kept
//! for agents that have ended, and how much of it.

use std::io::{self, Write};

use serde_json::{Value, json};
use tailbeam_harness::evidence::{LateRecord, WaitKind, WaitRecord, Waits};

use super::json::unknown;
use super::list::unavailable;
use super::words::{ns, plural};
use super::{Leaks, Page};
use crate::render::units::{bytes, count};

/// The part of the list.
pub(super) fn waits(leaks: &Leaks<'_>, page: Page, out: &mut dyn Write) -> io::Result<()> {
    let waits = match leaks.waits {
        Ok(waits) => waits,
        Err(why) => {
            return writeln!(out, "\nForgotten    handlers and wakers: {}", unavailable(why));
        }
    };
    writeln!(out, "\n{}", page.fit(&format!("Forgotten    {}", head(waits))))?;
    for of in waits.forgotten().take(page.top) {
        writeln!(out, "{}", page.fit(&format!("   {}", forgotten(of))))?;
    }
    for of in waits.late.iter().take(page.top) {
        writeln!(out, "{}", page.fit(&format!("   {}", late(of))))?;
    }
    let more = waits.forgotten().count().saturating_sub(page.top)
        + waits.late.len().saturating_sub(page.top);
    if more > 0 {
        writeln!(out, "   {} more (--top)", plural(more as u64, "type"))?;
    }
    writeln!(out, "{}", page.fit(&format!("   {}", rest(waits))))
}

/// The sums.
fn head(waits: &Waits) -> String {
    let handlers: u64 = waits.forgotten().map(|of| of.handlers).sum();
    let futures: u64 = waits.forgotten().map(|of| of.bytes).sum();
    let wakers: u64 = waits.late.iter().map(|of| of.wakers).sum::<u64>() + waits.late_unlisted;
    let held = match handlers {
        0 => "no handler waits for nothing".to_owned(),
        n => format!(
            "{} that nothing can wake, {} in futures without what these hold",
            plural(n, "handler"),
            bytes(futures as f64)
        ),
    };
    let kept = match wakers {
        0 => "no waker of an ended agent is kept".to_owned(),
        n => format!("{} of ended agents kept by somebody", plural(n, "waker")),
    };
    format!("at the end of the run: {held}; {kept}")
}

/// Whom a type is of, and of what messages.
fn who(type_name: &str, message: Option<&String>) -> String {
    match message {
        Some(message) => format!("{type_name} (message {message})"),
        None => format!("future {type_name}"),
    }
}

fn forgotten(of: &WaitRecord) -> String {
    let agent = of.agent.map_or_else(|| of.oldest.clone(), |index| format!("agent {index}"));
    let behind = match of.messages {
        0 => String::new(),
        n => format!(", {} behind", plural(n, "message")),
    };
    format!(
        "{} x {}: no waker, timer or ask; oldest {agent}, suspended {}{behind}",
        count(of.handlers),
        who(&of.type_name, of.message.as_ref()),
        ns(of.suspended_ns)
    )
}

fn late(of: &LateRecord) -> String {
    format!(
        "{} of {} ended {}; the first, {}, ended {} ago",
        plural(of.wakers, "waker"),
        count(of.agents),
        who(&of.type_name, of.message.as_ref()),
        of.first,
        ns(of.ended_ns)
    )
}

/// What waits for something, and the wakers that nobody waits with.
fn rest(waits: &Waits) -> String {
    let kinds = [
        (WaitKind::Waker, "for a waker"),
        (WaitKind::Timer, "for a timer"),
        (WaitKind::Answer, "for an answer"),
        (WaitKind::Turn, "for a turn"),
        (WaitKind::Other, "for something else"),
    ];
    let mut parts: Vec<String> = Vec::new();
    for (kind, name) in kinds {
        let all = || waits.waiting.iter().filter(|of| of.wait_for == kind);
        let handlers: u64 = all().map(|of| of.handlers).sum();
        let longest = all().map(|of| of.suspended_ns).max().unwrap_or(0);
        if handlers > 0 {
            let wakers: u64 = all().map(|of| of.wakers).sum();
            let wakers =
                if wakers > 0 { format!(", {}", plural(wakers, "waker")) } else { String::new() };
            parts.push(format!("{} {name} (longest {}{wakers})", count(handlers), ns(longest)));
        }
    }
    if parts.is_empty() {
        parts.push("none".to_owned());
    }
    let idle = match waits.idle_wakers {
        0 => String::new(),
        n => format!("; {} of agents that do not wait", plural(n, "waker")),
    };
    format!("other waits: {}{idle}", parts.join(", "))
}

/// The same for programs.
pub(super) fn document(leaks: &Leaks<'_>) -> Value {
    let waits = match leaks.waits {
        Ok(waits) => waits,
        Err(why) => return unknown(&why.cause, &why.remedy),
    };
    json!({
        "waiting": waits.waiting.iter().map(waiting_document).collect::<Vec<_>>(),
        "late": waits.late.iter().map(late_document).collect::<Vec<_>>(),
        "late_unlisted_wakers": waits.late_unlisted,
        "idle_wakers": waits.idle_wakers,
    })
}

fn waiting_document(of: &WaitRecord) -> Value {
    json!({
        "type": of.type_name, "message": of.message, "wait_for": of.wait_for,
        "forgotten": of.wait_for == WaitKind::Nothing,
        "handlers": of.handlers, "future_bytes": of.bytes, "messages": of.messages,
        "wakers": of.wakers, "oldest": of.oldest, "agent": of.agent,
        "suspended_ns": of.suspended_ns, "since_poll_ns": of.polled_ns,
    })
}

fn late_document(of: &LateRecord) -> Value {
    json!({
        "type": of.type_name, "message": of.message, "agents": of.agents, "wakers": of.wakers,
        "first": of.first, "ended_ns": of.ended_ns,
    })
}
