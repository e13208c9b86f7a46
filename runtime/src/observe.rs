//! What a shard tells about itself while it runs.

/// Hooks of a shard; ids and instants only. They run on the shard: no allocation, no system call.
pub trait Observer: Send + 'static {
    /// A pass over the run queue ended.
    fn turn(&mut self, _now_ns: u64, _polls: u32) {}
    /// The shard slept.
    fn parked(&mut self, _from_ns: u64, _to_ns: u64) {}
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
