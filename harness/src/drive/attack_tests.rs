//! The suite against the live runtime: it finds nothing, and each planted hole by the attacks that are about
//! it.

use std::sync::{Mutex, PoisonError};

use super::*;
use crate::plan::Span;
use crate::protocol::elicitation::Hole;
use crate::report;

/// One run at a time: the hole is the process's.
static ALONE: Mutex<()> = Mutex::new(());

fn plan(seconds: u64) -> Plan {
    let mut plan = Plan::soak("elicitation");
    plan.agents = 100;
    plan.duration_ns = seconds * 1_000_000_000;
    plan.think = Span::ms(100, 300);
    plan.delay = Span::ms(5, 20);
    plan.timeout_ns = 2_000_000_000;
    plan.heap.sample_bytes = 0;
    plan.protocol.fresh_ns = 500_000_000;
    plan.gates.clear();
    plan
}

/// The findings with this hole; none on a host without io_uring.
fn found(hole: Option<Hole>, attacks: &[&str]) -> Option<Attacked> {
    if !crate::rings::has_rings() {
        return None;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    *secure::HOLE.lock().unwrap() = hole;
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let wanted = |name: &'static str| attacks.is_empty() || attacks.contains(&name);
    let seconds = if attacks.is_empty() { 4 } else { 1 };
    let attacked = attack(&plan(seconds), &store, &Control::default(), &wanted, &mut |_| {});
    *secure::HOLE.lock().unwrap() = None;
    let attacked = attacked.unwrap();
    let report = report::build(&attacked.dir, None).unwrap();
    let outcomes = report.load.outcomes.known().unwrap();
    assert_eq!(outcomes.sum(), outcomes.attempts, "{outcomes:?}");
    assert!(outcomes.ok > 0, "the load went on: {outcomes:?}");
    Some(attacked)
}

#[test]
fn nothing_is_found_in_the_live_runtime() {
    let Some(attacked) = found(None, &[]) else { return };
    assert_eq!(attacked.findings.len(), attack::names().count());
    for finding in &attacked.findings {
        assert!(matches!(finding.verdict, Verdict::Held { .. }), "{finding:?}");
    }
    assert_eq!((attacked.broken(), attacked.not_run()), (0, 0));
}

#[test]
fn every_planted_hole_is_found_in_the_live_runtime() {
    let holes: [(Hole, &[&str]); 10] = [
        (
            Hole::Signature,
            &["stolen-session", "forged-signature", "truncated-signature", "transplanted-answer"],
        ),
        (Hole::SignatureHalf, &["forged-signature", "truncated-signature"]),
        (Hole::NonceReuse, &["replayed-request"]),
        (Hole::CancelByAnyone, &["third-party-cancel"]),
        (Hole::RespondByAnyone, &["third-party-answer"]),
        (Hole::ExpiryIgnored, &["expiry-race"]),
        (Hole::SecondEnding, &["replayed-answer", "second-ending"]),
        (Hole::SchemaUnchecked, &["unfit-answer"]),
        (Hole::Impersonation, &["impersonation", "relay"]),
        (Hole::Limits, &["request-flood", "answer-flood"]),
    ];
    for (hole, attacks) in holes {
        let Some(attacked) = found(Some(hole), attacks) else { return };
        assert_eq!(attacked.findings.len(), attacks.len());
        for finding in &attacked.findings {
            assert!(matches!(finding.verdict, Verdict::Broken { .. }), "{hole:?}: {finding:?}");
        }
    }
}
