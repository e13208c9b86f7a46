//! Protocols as pure state machines: time is an argument, nothing is sent, nothing is stored.

pub mod attack;
pub mod elicitation;
pub mod wait_for_messages;
