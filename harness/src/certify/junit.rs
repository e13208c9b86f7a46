//! JUnit XML: a test case per gate. INCONCLUSIVE is an error and not a skip, so that no CI turns green on it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::judge::Judged;
use crate::verdict::{GateResult, GateVerdict};

/// The judgement as JUnit XML.
///
/// # Errors
/// In words: a name of the policy holds what XML cannot.
pub fn junit(judged: &Judged) -> Result<String, String> {
    let mut suite = TestSuite::new(format!("{} v{}", judged.policy.name, judged.policy.version));
    for gate in &judged.gates {
        let kind = match gate.result.verdict {
            GateVerdict::Pass => None,
            GateVerdict::Fail => Some(NonSuccessKind::Failure),
            GateVerdict::Inconclusive => Some(NonSuccessKind::Error),
        };
        let status = kind.map_or_else(TestCaseStatus::success, |kind| {
            let mut status = TestCaseStatus::non_success(kind);
            let result = &gate.result;
            status.set_message(format!(
                "{}, measured {}: {}",
                result.requirement, result.measured, result.reason
            ));
            status
        });
        let mut case = TestCase::new(gate.id.clone(), status);
        case.set_classname(format!("{}.{}", judged.policy.name, gate.run));
        let GateResult { requirement, measured, n, reason, .. } = &gate.result;
        case.set_system_out(format!("{requirement}; measured {measured}, n {n}; {reason}"));
        suite.add_test_case(case);
    }
    let mut report = Report::new("tailbeam certify");
    report.add_test_suite(suite);
    report.to_string().map_err(|error| error.to_string())
}
