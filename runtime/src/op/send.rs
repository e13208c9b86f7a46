//! Sending: all of a buffer, in as many operations as the kernel needs.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::once::Once;
use super::payload::{SendBuf, pack, unpack};
use super::{Body, Op, Ops};
use crate::error::OpError;

/// From this length on a send asks the kernel not to copy, bytes: below, pinning pages and the second
/// completion cost more than a copy.
const ZERO_COPY_MIN: usize = 8 * 1024;
/// Most bytes of one operation, whose result has 31 bits.
const SEND_MAX: usize = 1 << 30;

/// Sends all of `buffer`; how much of it the kernel has taken when it fails is in the error's count.
pub(crate) async fn send_all<B: SendBuf>(
    ops: &Ops,
    file: &Rc<OwnedFd>,
    buffer: B,
    mut zero_copy: bool,
) -> (Result<usize, OpError>, B) {
    let mut payload = pack(buffer);
    let (mut sent, total) = (0, payload.bytes().len());
    while sent < total {
        let left = (total - sent).min(SEND_MAX);
        let zero_copy_now = zero_copy && left > ZERO_COPY_MIN;
        let len = u32::try_from(left).expect("at most 2^30");
        let op = Op::Send { from: sent, len, zero_copy: zero_copy_now };
        let body = Body { op, file: Some(Rc::clone(file)), payload };
        let finished = match Once::start(ops, body) {
            Ok(once) => once.await,
            Err((error, payload)) => return (Err(error), unpack(payload)),
        };
        payload = finished.body.payload;
        match finished.result {
            1.. => sent += finished.result.unsigned_abs() as usize,
            result if zero_copy_now && refuses_zero_copy(result) => zero_copy = false,
            result if interrupted(result) => {}
            0 => return (Err(OpError::Io(std::io::ErrorKind::WriteZero.into())), unpack(payload)),
            result => return (OpError::check(result), unpack(payload)),
        }
    }
    (Ok(sent), unpack(payload))
}

/// Whether the socket, or the memory limit of pinned pages, forbids a send without a copy.
fn refuses_zero_copy(result: i32) -> bool {
    matches!(-result, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM)
}

/// Whether the same operation may be asked again.
pub(super) fn interrupted(result: i32) -> bool {
    matches!(-result, libc::EINTR | libc::EAGAIN)
}
