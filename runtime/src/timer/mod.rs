//! Timers: a pure wheel; the shard gives it the time.

mod bits;
mod table;
mod wheel;

pub use wheel::TimerId;
pub(crate) use wheel::{Fired, TICK_NS, Wheel};
