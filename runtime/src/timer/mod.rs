//! Timers: a pure wheel; the shard gives it the time.

mod wheel;

pub use wheel::TimerId;
pub(crate) use wheel::{Fired, Wheel};
