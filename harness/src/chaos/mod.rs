//! Faults under load: what is done to a running subject, what it counted meanwhile, and how that is judged.
//!
//! A supervisor starts the subject (a soak) as a process of its own and shares a [`board`] with it: knobs that it turns,
//! and a count of every request by the instant at which it was due. The board is memory, so it outlives the subject,
//! however that ends, and nobody has to ask the subject for anything. What is done from outside, and undone whoever
//! dies, is in [`host`]. [`recovery`], [`checks`] and [`record`] judge what was seen, and are pure; [`series`] reads it
//! from the disk.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive and bounded just before; Rust casts of floats saturate"
)]

pub mod attribution;
pub mod board;
pub mod checks;
pub mod corrupt;
pub mod held;
pub mod host;
pub mod record;
pub mod recovery;
pub mod scenario;
pub mod series;
pub mod slots;
