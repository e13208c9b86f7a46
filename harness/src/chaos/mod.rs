//! Faults that are injected for real, and what proves that they bit and that they healed.

pub mod host;
