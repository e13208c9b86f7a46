//! Durability and room: fsync, fdatasync, fallocate.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::{Op, Ops, once};
use crate::error::OpError;

/// Makes a file durable, without its metadata if `data_only`.
pub(crate) async fn sync(ops: &Ops, file: &Rc<OwnedFd>, data_only: bool) -> Result<(), OpError> {
    once::run(ops, Op::Fsync { data_only }, Some(Rc::clone(file))).await.map(drop)
}

/// Reserves `len` bytes of room from byte `at`.
pub(crate) async fn allocate(
    ops: &Ops,
    file: &Rc<OwnedFd>,
    at: u64,
    len: u64,
) -> Result<(), OpError> {
    once::run(ops, Op::Fallocate { at, len }, Some(Rc::clone(file))).await.map(drop)
}
