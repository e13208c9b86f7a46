//! Reading and writing at a place of a file.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::once::Once;
use super::payload::{SendBuf, pack, unpack};
use super::send::interrupted;
use super::{Body, Op, Ops, Payload};
use crate::error::OpError;

/// Most bytes of one operation, whose result has 31 bits.
const PIECE_MAX: usize = 1 << 30;

/// Reads into `buffer` from byte `at` until it is full or the file ends; how many bytes were read.
pub(crate) async fn read_at(
    ops: &Ops,
    file: &Rc<OwnedFd>,
    buffer: Vec<u8>,
    at: u64,
) -> (Result<usize, OpError>, Vec<u8>) {
    let op = |at, from, len| Op::Read { at, from, len };
    let (result, payload) = transfer(ops, file, Payload::Vec(buffer), at, op).await;
    (result, unpack(payload))
}

/// Writes all of `buffer` from byte `at` on.
pub(crate) async fn write_at<B: SendBuf>(
    ops: &Ops,
    file: &Rc<OwnedFd>,
    buffer: B,
    at: u64,
) -> (Result<usize, OpError>, B) {
    let payload = pack(buffer);
    let total = payload.bytes().len();
    let op = |at, from, len| Op::Write { at, from, len };
    let (result, payload) = transfer(ops, file, payload, at, op).await;
    let result = match result {
        Ok(written) if written < total => Err(OpError::Io(std::io::ErrorKind::WriteZero.into())),
        result => result,
    };
    (result, unpack(payload))
}

/// Repeats an operation over a payload until all is done or the kernel moves no byte.
async fn transfer(
    ops: &Ops,
    file: &Rc<OwnedFd>,
    mut payload: Payload,
    at: u64,
    op: impl Fn(u64, usize, u32) -> Op,
) -> (Result<usize, OpError>, Payload) {
    let (mut moved, total) = (0, payload.bytes().len());
    while moved < total {
        let len = u32::try_from((total - moved).min(PIECE_MAX)).expect("at most 2^30");
        let op = op(at + moved as u64, moved, len);
        let body = Body { op, file: Some(Rc::clone(file)), payload };
        let finished = match Once::start(ops, body) {
            Ok(once) => once.await,
            Err((error, payload)) => return (Err(error), payload),
        };
        payload = finished.body.payload;
        match finished.result {
            0 => break,
            1.. => moved += finished.result.unsigned_abs() as usize,
            result if interrupted(result) => {}
            result => return (OpError::check(result), payload),
        }
    }
    (Ok(moved), payload)
}
