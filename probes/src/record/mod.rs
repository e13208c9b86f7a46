//! Checksummed append-only segments: the truth that every report is computed from.

mod format;
pub mod heap;
pub mod heap_file;
pub(crate) mod heap_layout;
pub mod latency;
pub mod program;
mod reader;
mod tail;
mod writer;

pub use format::{FRAME_MAX, Frame, HEADER_LEN, KIND_SEAL, KIND_SEGMENT};
pub use reader::{Damage, DamageKind, ReadError, read_bytes, read_dir};
pub use tail::{Tail, TailError, close_tail};
pub use writer::{LogFile, SegmentWriter, WriteError};
