//! JSON documents; their schemas are published beside them.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use tailbeam_harness::evidence::RunSummary;
use tailbeam_harness::report::SCHEMA_VERSION;

/// JSON Schema of the report document.
pub const REPORT_SCHEMA: &str = include_str!("../../schemas/report.schema.json");

#[derive(Serialize)]
struct Document<'a, T> {
    schema: &'static str,
    schema_version: u32,
    data: &'a T,
}

/// Writes any document of ours of the report's version.
pub(crate) fn document<T: Serialize>(
    schema: &'static str,
    data: &T,
    out: &mut dyn Write,
) -> io::Result<()> {
    document_of((schema, SCHEMA_VERSION), data, out)
}

/// Writes any document of ours.
pub(crate) fn document_of<T: Serialize>(
    (schema, schema_version): (&'static str, u32),
    data: &T,
    out: &mut dyn Write,
) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Document { schema, schema_version, data })?;
    writeln!(out)
}

/// Any document of ours, as a value.
///
/// # Errors
/// It is no JSON.
pub(crate) fn value_of<T: Serialize>(
    (schema, schema_version): (&'static str, u32),
    data: &T,
) -> io::Result<Value> {
    serde_json::to_value(Document { schema, schema_version, data }).map_err(io::Error::from)
}

/// The list of runs as one document.
///
/// # Errors
/// Those of `out`.
pub fn runs(runs: &[RunSummary], out: &mut dyn Write) -> io::Result<()> {
    document("tailbeam.runs", &runs, out)
}
