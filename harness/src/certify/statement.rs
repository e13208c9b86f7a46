//! The statement that is signed: in-toto Statement v1.

use serde::{Deserialize, Serialize};

use super::files::{FilesError, hash_files};
use super::judge::{Judged, RunDirs};
use super::policy::Policy;

/// in-toto's type of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of our predicate.
pub const PREDICATE_TYPE: &str = "urn:tailbeam:perf-certificate:v1";

/// A statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// Every file of every run and series.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What was found.
    pub predicate: Predicate,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Name of its run or series in the policy, `/`, and its path in that one's directory.
    pub name: String,
    /// Its hash.
    pub digest: Digest,
    /// What else is said of it; nothing in certificates of before there was anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Annotations>,
}

/// in-toto's annotations of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Annotations {
    /// Its size, bytes.
    pub bytes: u64,
}

/// A hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// SHA-256, hex.
    pub sha256: String,
}

/// Our predicate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Predicate {
    /// Tailbeam version that judged.
    pub judged_by: String,
    /// When it was issued, RFC 3339. The one thing that nobody can recompute.
    pub issued: String,
    /// What this does not say.
    pub scope: String,
    /// The judgement.
    #[serde(flatten)]
    pub judged: Judged,
}

/// What no certificate says.
pub(super) const SCOPE: &str = "for the recorded binary, kernel, host, plan and seed; nothing is said of other hosts, loads or durations";

/// The statement about the runs in `dirs`, issued at `issued` (RFC 3339).
///
/// # Errors
/// [`FilesError`].
pub fn statement(judged: Judged, dirs: &RunDirs, issued: &str) -> Result<Statement, FilesError> {
    Ok(Statement {
        statement_type: STATEMENT_TYPE.to_owned(),
        subject: subjects(&judged.policy, dirs)?,
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Predicate {
            judged_by: env!("CARGO_PKG_VERSION").to_owned(),
            issued: issued.to_owned(),
            scope: SCOPE.to_owned(),
            judged,
        },
    })
}

pub(super) fn subjects(policy: &Policy, dirs: &RunDirs) -> Result<Vec<Subject>, FilesError> {
    let mut subjects = Vec::new();
    // One run may have two names.
    let home = policy.home(dirs).and_then(|name| dirs.get(name));
    for (name, dir) in dirs {
        subjects.extend(hash_files(dir, Some(dir) == home)?.into_iter().map(|file| Subject {
            name: format!("{name}/{}", file.path),
            digest: Digest { sha256: file.sha256 },
            annotations: Some(Annotations { bytes: file.bytes }),
        }));
    }
    Ok(subjects)
}
