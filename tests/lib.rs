//! Tests live in the integration binaries.
