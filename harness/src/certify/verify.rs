//! Believes nothing of a certificate but what it finds itself.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::dsse::Verifier;
use super::judge::{Judged, RunDirs, judge};
use super::policy::Policy;
use super::schedule::{Schedule, schedule};
use super::statement::{PREDICATE_TYPE, SCOPE, STATEMENT_TYPE, Statement, Subject, subjects};
use crate::evidence::read_run;
use crate::verdict::Overall;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub check: String,
    /// Whether it holds.
    pub holds: bool,
    /// Whether it could be made. One that could not prevents nothing, and its text says why.
    pub made: bool,
    /// What was found.
    pub text: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// Checks, in order; after one that does not hold, those that need it are not made.
    pub findings: Vec<Finding>,
    /// The statement, once its signature holds.
    pub statement: Option<Statement>,
    /// The judgement as it was recomputed.
    pub recomputed: Option<Judged>,
}

impl Verified {
    /// Whether the certificate is what it says it is.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.recomputed.is_some() && self.findings.iter().all(|finding| finding.holds)
    }

    /// The verdict that may be believed; none when the certificate does not hold.
    #[must_use]
    pub fn verdict(&self) -> Option<Overall> {
        if self.holds() { self.recomputed.as_ref().map(|judged| judged.verdict) } else { None }
    }
}

/// Checks the certificate in `envelope` of the runs in `dirs` against the key that the reader trusts, and, if he says one,
/// against the policy that he wants; under the name of a shipped one it must be that one.
#[must_use]
pub fn verify(
    envelope: &[u8],
    dirs: &RunDirs,
    trusted: &Verifier,
    wanted: Option<&Policy>,
) -> Verified {
    let mut verified = Verified { findings: Vec::new(), statement: None, recomputed: None };
    let Some(statement) = opened(envelope, trusted, &mut verified.findings) else {
        return verified;
    };
    let signed = &statement.predicate.judged.policy;
    note(&mut verified.findings, "policy", policy(signed, wanted));
    // Nothing is computed from files that nobody has signed.
    if files(&statement, dirs, &mut verified.findings) {
        verified.recomputed = recomputed(&statement, dirs, &mut verified.findings);
        schedules(&statement, dirs, &mut verified.findings);
        supervised(&statement, &mut verified.findings);
    }
    verified.statement = Some(statement);
    verified
}

fn note(findings: &mut Vec<Finding>, check: &str, result: Result<String, String>) -> bool {
    let holds = result.is_ok();
    let text = result.unwrap_or_else(|error| error);
    findings.push(Finding { check: check.to_owned(), holds, made: true, text });
    holds
}

/// What cannot be computed again, and is signed and no more.
fn supervised(statement: &Statement, findings: &mut Vec<Finding>) {
    if statement.predicate.judged.series.iter().all(|series| series.id.is_none()) {
        return;
    }
    let text = "that faults bit and were taken back, and what logs, restarts and the host had afterwards, is the supervisor's word in the series' record: recoveries, ends of requests and the runs' own checks are judged anew, integrity, residue and scenarios partly";
    let check = "supervised".to_owned();
    findings.push(Finding { check, holds: true, made: false, text: text.to_owned() });
}

fn opened(envelope: &[u8], trusted: &Verifier, findings: &mut Vec<Finding>) -> Option<Statement> {
    let payload = match trusted.open(envelope) {
        Ok(payload) => payload,
        Err(error) => {
            note(findings, "signature", Err(error.to_string()));
            return None;
        }
    };
    note(findings, "signature", Ok(format!("by key {}", trusted.key_id().unwrap_or_default())));
    let read = serde_json::from_slice::<Statement>(&payload).map_err(|error| error.to_string());
    let statement = read.and_then(|statement| {
        if statement.statement_type != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE
        {
            return Err(format!(
                "a statement of type {} about {}",
                statement.statement_type, statement.predicate_type
            ));
        }
        all_is_read(&payload, &statement)?;
        Ok(statement)
    });
    match statement {
        Ok(statement) => Some(statement),
        Err(cause) => {
            note(findings, "statement", Err(cause));
            None
        }
    }
}

/// Whether everything that was signed is something that is checked: whoever signs may write more beside it, and a reader of
/// the statement would believe it.
fn all_is_read(payload: &[u8], statement: &Statement) -> Result<(), String> {
    let signed: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let read = serde_json::to_value(statement).map_err(|error| error.to_string())?;
    if let Some(path) = surplus(&signed, &read, String::new()) {
        return Err(format!("it says {path}, of which this version knows nothing"));
    }
    let scope = &statement.predicate.scope;
    (scope == SCOPE).then_some(()).ok_or_else(|| {
        format!("its scope is {scope:?}, and what Tailbeam says of its certificates is {SCOPE:?}")
    })
}

/// The first thing that is signed and was not read.
fn surplus(signed: &Value, read: &Value, path: String) -> Option<String> {
    match (signed, read) {
        (Value::Object(signed), Value::Object(read)) => signed.iter().find_map(|(key, value)| {
            let path = format!("{path}/{key}");
            match read.get(key) {
                Some(read) => surplus(value, read, path),
                // What is nothing may be written as null or left out.
                None => (!value.is_null()).then_some(path),
            }
        }),
        (Value::Array(signed), Value::Array(read)) => {
            let mut pairs = signed.iter().zip(read).enumerate();
            pairs.find_map(|(at, (signed, read))| surplus(signed, read, format!("{path}/{at}")))
        }
        _ => None,
    }
}

/// Whether the policy is the one that its reader takes it for: a weaker one may have any name.
fn policy(signed: &Policy, wanted: Option<&Policy>) -> Result<String, String> {
    let of = format!("{} v{}", signed.name, signed.version);
    match (wanted, signed.is_shipped()) {
        (Some(wanted), _) if wanted == signed => Ok(format!("{of}, the one that is asked for")),
        (Some(wanted), _) => Err(format!(
            "{of} is not {} v{}, which is asked for: its needs or gates are others",
            wanted.name, wanted.version
        )),
        (None, Some(true)) => Ok(format!("{of}, as this program ships it")),
        (None, Some(false)) if is_other_version(signed) => Err(format!(
            "{of} is another version of it than this program ships, and may ask for less: verify it with the program that issued it, or --policy FILE says that you want that version"
        )),
        (None, Some(false)) => Err(format!(
            "{of} is not what this program ships under that name: it may ask for less; --policy FILE says which one you want"
        )),
        (None, None) => Ok(format!(
            "{of}, none that comes with the program: what it asks for is in the statement; --policy FILE says which one you want"
        )),
    }
}

/// Whether it is called as a shipped one and says that it is another version.
fn is_other_version(signed: &Policy) -> bool {
    Policy::shipped(&signed.name).is_some_and(|shipped| shipped.version != signed.version)
}

/// Every file is in the statement with its hash, and the statement names no other.
fn files(statement: &Statement, dirs: &RunDirs, findings: &mut Vec<Finding>) -> bool {
    let found = match subjects(&statement.predicate.judged.policy, dirs) {
        Ok(found) => found,
        Err(error) => {
            return note(findings, "files", Err(error.to_string()));
        }
    };
    let by_name = |of: &'_ [Subject]| -> BTreeMap<String, Subject> {
        of.iter().map(|subject| (subject.name.clone(), subject.clone())).collect()
    };
    let (there, signed) = (by_name(&found), by_name(&statement.subject));
    let mut wrong: Vec<String> =
        statement.subject.iter().filter_map(|of| unlike(of, there.get(&of.name))).collect();
    let extra = found.iter().filter(|file| !signed.contains_key(&file.name));
    wrong.extend(extra.map(|file| format!("{} is not in the certificate", file.name)));
    let result = if wrong.is_empty() {
        Ok(format!("{} files have the signed SHA-256", found.len()))
    } else {
        Err(wrong.join("; "))
    };
    note(findings, "files", result)
}

/// What a file has otherwise than was signed.
fn unlike(signed: &Subject, found: Option<&Subject>) -> Option<String> {
    let name = &signed.name;
    let Some(found) = found else { return Some(format!("{name} is missing")) };
    if found.digest != signed.digest {
        let (has, was) = (&found.digest.sha256, &signed.digest.sha256);
        return Some(format!("{name} has SHA-256 {has}, signed was {was}"));
    }
    // Those of an earlier version say no sizes.
    let (has, was) = (found.annotations.as_ref()?, signed.annotations.as_ref()?);
    (has != was).then(|| format!("{name} has {} bytes, signed were {}", has.bytes, was.bytes))
}

/// Judges runs and series anew and compares every figure.
fn recomputed(
    statement: &Statement,
    dirs: &RunDirs,
    findings: &mut Vec<Finding>,
) -> Option<Judged> {
    let signed = &statement.predicate.judged;
    let judged = match judge(&signed.policy, dirs) {
        Ok(judged) => judged,
        Err(error) => {
            note(findings, "figures", Err(error.to_string()));
            return None;
        }
    };
    let text = |judged: &Judged| serde_json::to_value(judged).map_err(|error| error.to_string());
    let result = match (text(signed), as_signed(&judged).and_then(|judged| text(&judged))) {
        (Ok(signed), Ok(anew)) if signed == anew => Ok(format!(
            "{} gates judged anew from frames and slots, all the same",
            judged.gates.len()
        )),
        (Ok(signed), Ok(anew)) => Err(first_difference(&signed, &anew, String::new())),
        (Err(error), _) | (_, Err(error)) => Err(error),
    };
    note(findings, "figures", result);
    Some(judged)
}

/// The requests of each run are those that its seed has due.
fn schedules(statement: &Statement, dirs: &RunDirs, findings: &mut Vec<Finding>) {
    for need in &statement.predicate.judged.policy.runs {
        let Some(dir) = dirs.get(&need.name) else { continue };
        let found = read_run(dir).map_err(|error| error.to_string());
        let found = found.and_then(|run| schedule(&run));
        let (holds, made) = (found.is_ok(), !matches!(found, Ok(Schedule::NotDrawn(_))));
        let text = match found {
            Ok(Schedule::Drawn(text) | Schedule::NotDrawn(text)) | Err(text) => text,
        };
        let text = format!("run {}: {text}", need.name);
        findings.push(Finding { check: "schedule".to_owned(), holds, made, text });
    }
}

/// A judgement as whoever reads it from a statement has it: serde_json may read a number one bit beside the one it wrote.
fn as_signed(judged: &Judged) -> Result<Judged, String> {
    let bytes = serde_json::to_vec(judged).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

/// Where two documents differ first.
fn first_difference(signed: &Value, anew: &Value, path: String) -> String {
    use serde_json::Value::{Array, Object};
    match (signed, anew) {
        (Object(a), Object(b)) => {
            for (key, value) in a {
                match b.get(key) {
                    Some(other) if other == value => {}
                    Some(other) => return first_difference(value, other, format!("{path}/{key}")),
                    None => return format!("{path}/{key} is in the certificate only"),
                }
            }
            format!("{path} has more than the certificate says")
        }
        (Array(a), Array(b)) if a.len() == b.len() => {
            let different = a.iter().zip(b).enumerate().find(|(_, (x, y))| x != y);
            match different {
                Some((at, (x, y))) => first_difference(x, y, format!("{path}/{at}")),
                None => path,
            }
        }
        _ => format!("{path} is {anew}, the certificate says {signed}"),
    }
}
