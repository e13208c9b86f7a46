//! Certificates: what a policy asks for, judged on recorded runs, signed, and recomputed by anyone.
//!
//! A certificate is an [in-toto](https://in-toto.io) statement v1 in a DSSE envelope, signed with Ed25519. Its
//! subjects are all files of its runs and of its series of faults by SHA-256; its predicate is what [`judge`] made of them under a policy.
//! [`verify()`] believes nothing of it: it checks the signature against a key that it is given, every file
//! against its hash, judges the runs anew, and draws the schedule of their agents again from the seed. A figure in the predicate is never read by anything but the
//! comparison.
//!
//! GO: every gate of the policy passes. A gate that was not measured, on a run that is missing or too short, is
//! INCONCLUSIVE and so is the certificate; it is issued all the same, as NO-GO ones are.

mod dsse;
mod files;
mod judge;
mod junit;
mod policy;
mod schedule;
mod series;
mod statement;
mod verify;

pub use dsse::{Envelope, EnvelopeError, PAYLOAD_TYPE, SignError, Signed, Signer, Verifier};
pub use files::{FileHash, FilesError, hash_files};
pub use judge::{CertGate, CertRun, CertifyError, Judged, RunDirs, judge};
pub use junit::{junit, junit_of_run};
pub use policy::{Builds, Continuity, Need, Policy, PolicyError, PolicyGate, SHIPPED};
pub use schedule::{Schedule, schedule};
pub use series::{CertScenario, CertSeries, SeriesGate, SeriesNeed};
pub use statement::{
    Annotations, Digest, PREDICATE_TYPE, Predicate, STATEMENT_TYPE, Statement, Subject, statement,
};
pub use verify::{Finding, Verified, verify};

/// The certificate's name in the directory of its first run, or of its first series where it has no run.
pub const CERTIFICATE: &str = "certificate.dsse.json";
