use super::super::elicitation::{Hole, RunSecret};
use super::*;

fn scene(profile: Profile) -> Scene {
    Scene {
        keys: KeyRing::new(&RunSecret::new([5; 32]), 1),
        first_agent: 10,
        agents: 10 + AGENTS,
        profile,
        bounds: wire::Bounds { message_max: 4_096, schema_max: 1_024, data_max: 8_192 },
        fresh_ns: 10_000_000_000,
    }
}

/// Attacks that a machine with this hole does not hold against.
fn found(profile: Profile, hole: Option<Hole>) -> Vec<&'static str> {
    let scene = scene(profile);
    let mut bench = Bench::new(&scene, 3_600_000_000_000, 1_000);
    if let Some(hole) = hole {
        bench.plant(hole);
    }
    let findings = run(&mut bench, &scene);
    assert_eq!(findings.len(), ALL.len());
    let not_held = |finding: &Finding| match &finding.verdict {
        Verdict::Held { tries } => {
            assert!(*tries > 0);
            None
        }
        Verdict::Broken { .. } => Some(finding.attack),
        Verdict::NotRun { cause } => {
            assert!(hole.is_some(), "{} was not run: {cause}", finding.attack);
            None
        }
    };
    findings.iter().filter_map(not_held).collect()
}

fn load() -> Profile {
    Profile::load(3_300_000_000, 33_000_000)
}

#[test]
fn nothing_is_found_in_the_whole_machine() {
    for profile in [Profile::STOCK, load()] {
        assert_eq!(found(profile, None), [""; 0]);
    }
}

#[test]
fn every_planted_hole_is_found_by_the_attacks_that_are_about_it() {
    let expected: [(Hole, &[&str]); 10] = [
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
    assert_eq!(expected.map(|(hole, _)| hole), Hole::ALL);
    for (hole, attacks) in expected {
        let found = found(load(), Some(hole));
        for attack in attacks {
            assert!(
                found.contains(attack),
                "{hole:?} was not found by {attack}, only by {found:?}"
            );
        }
    }
}

/// A target that refuses everybody has not held against anything.
#[test]
fn a_dead_target_is_not_a_safe_one() {
    struct Dead;
    impl Target for Dead {
        fn now_ns(&mut self) -> u64 {
            1 << 60
        }
        fn wait_until(&mut self, _: u64) {}
        fn send(&mut self, _: u32, _: &[u8]) -> Outcome {
            Outcome::Refused(Refusal::Full)
        }
        fn notices(&mut self, _: u32) -> Vec<Notice> {
            Vec::new()
        }
    }
    for finding in run(&mut Dead, &scene(Profile::STOCK)) {
        assert!(!matches!(finding.verdict, Verdict::Held { .. }), "{finding:?}");
    }
}
