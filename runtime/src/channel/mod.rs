//! What crosses cores: one ring per ordered pair of shards, and the word that says who sleeps.

#[cfg(not(loom))]
pub(crate) mod envelope;
pub(crate) mod spsc;
pub(crate) mod wake;
