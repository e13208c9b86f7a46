//! JUnit XML: a test case per gate. INCONCLUSIVE is an error and not a skip, so that no CI turns green on it.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::judge::Judged;
use crate::verdict::{GateResult, GateVerdict, Validity};

/// The judgement as JUnit XML.
///
/// # Errors
/// In words: a name of the policy holds what XML cannot.
pub fn junit(judged: &Judged) -> Result<String, String> {
    let mut suite = TestSuite::new(format!("{} v{}", judged.policy.name, judged.policy.version));
    for gate in &judged.gates {
        let class = format!("{}.{}", judged.policy.name, gate.run);
        suite.add_test_case(case(&gate.id, class, &gate.result));
    }
    whole("tailbeam certify", suite)
}

/// The gates of a run, and whether it is valid at all, as JUnit XML.
///
/// # Errors
/// In words: its id or a gate holds what XML cannot.
pub fn junit_of_run(
    run: &str,
    gates: &[GateResult],
    validity: &[Validity],
) -> Result<String, String> {
    let mut suite = TestSuite::new(format!("run {run}"));
    for gate in gates {
        suite.add_test_case(case(&gate.gate, format!("{run}.gates"), gate));
    }
    for check in validity {
        let status = match check.holds {
            true => TestCaseStatus::success(),
            false => {
                let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
                status.set_message(check.text.clone());
                status
            }
        };
        let mut case = TestCase::new(check.name.clone(), status);
        case.set_classname(format!("{run}.validity"));
        suite.add_test_case(case);
    }
    whole("tailbeam report", suite)
}

fn case(id: &str, class: String, result: &GateResult) -> TestCase {
    let GateResult { requirement, measured, n, reason, verdict, .. } = result;
    let kind = match verdict {
        GateVerdict::Pass => None,
        GateVerdict::Fail => Some(NonSuccessKind::Failure),
        GateVerdict::Inconclusive => Some(NonSuccessKind::Error),
    };
    let status = kind.map_or_else(TestCaseStatus::success, |kind| {
        let mut status = TestCaseStatus::non_success(kind);
        status.set_message(format!("{requirement}, measured {measured}: {reason}"));
        status
    });
    let mut case = TestCase::new(id.to_owned(), status);
    case.set_classname(class);
    case.set_system_out(format!("{requirement}; measured {measured}, n {n}; {reason}"));
    case
}

fn whole(name: &str, suite: TestSuite) -> Result<String, String> {
    let mut report = Report::new(name);
    report.add_test_suite(suite);
    report.to_string().map_err(|error| error.to_string())
}
