//! A second process that hosts half of the responders of a run, and the TCP connections to it.
//!
//! ```text
//! owner -- asked --> agent here (load/secure/far.rs) -- frame --> [TCP] -- frame --> agent there (home.rs), which signs
//! owner <-- answer, verified there ------------------ <-- frame -- [TCP] <-- frame --'
//! ```
//!
//! Each core of the run has a connection, each core of the second process a listener. The second process has the secret
//! of the run, so its agents sign with their own keys; nothing that comes over the connection is believed without its
//! signature. Frames are in `frame.rs`. What waits to be sent is bounded; what finds no room or no connection is not
//! carried, and its request expires: that is counted.

pub(crate) mod frame;
mod home;
mod launch;
pub(crate) mod outbox;
pub(crate) mod within;

#[doc(hidden)]
pub use frame::Hello;
pub(crate) use home::first_of;
pub use home::{Home, HomeConfig, HomeError, HomeReport};
pub(crate) use launch::Launched;
pub use launch::{Launch, Lines, begin};

use std::net::SocketAddr;

/// Where the second process of a run is.
#[derive(Debug, Clone)]
pub enum Second {
    /// The run starts it, and ends it.
    Launch(Launch),
    /// Somebody else has started it: it listens there, a core each.
    At(Vec<SocketAddr>),
}
