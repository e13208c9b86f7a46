//! Stub until the lead's is on main.
pub mod board;
