//! Connecting a socket.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::{Op, Ops, once};
use crate::error::OpError;
use crate::net::address::Address;

/// Connects `socket`.
pub(crate) async fn connect(
    ops: &Ops,
    socket: &Rc<OwnedFd>,
    address: Address,
) -> Result<(), OpError> {
    let op = Op::Connect { address: Box::new(address) };
    once::run(ops, op, Some(Rc::clone(socket))).await.map(drop)
}
