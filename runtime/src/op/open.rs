//! Opening and closing files.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use super::{Op, Ops, once};
use crate::error::OpError;

/// Opens `path`; flags and mode as open(2) has them, close-on-exec always.
pub(crate) async fn open(
    ops: &Ops,
    path: CString,
    flags: i32,
    mode: u32,
) -> Result<OwnedFd, OpError> {
    let flags = flags | libc::O_CLOEXEC;
    once::make(ops, Op::OpenAt { path, flags, mode }, None).await
}

/// Closes `file` and says what the kernel says about it.
pub(crate) async fn close(ops: &Ops, file: OwnedFd) -> Result<(), OpError> {
    once::run(ops, Op::Close { file }, None).await.map(drop)
}
