//! What crosses cores: one ring per ordered pair of shards, the word that says who sleeps, and how all end.

pub(crate) mod ending;
#[cfg(not(loom))]
pub(crate) mod envelope;
pub(crate) mod outbox;
#[cfg(not(loom))]
pub(crate) mod queue;
pub(crate) mod spsc;
pub(crate) mod wake;
