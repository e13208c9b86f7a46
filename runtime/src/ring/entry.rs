//! Operations as submission entries: the one place that knows both.

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{opcode, squeue};

use super::buffers::GROUP;
use crate::op::{Abilities, Body, Op};

/// A send goes on until all is sent, and a broken pipe is an error and no signal.
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// The entry of an operation. It holds addresses of what the body owns: the descriptor, the path, the
/// address and the payload's bytes, none of which lies in the body itself.
pub(super) fn entry(body: &mut Body, abilities: Abilities) -> squeue::Entry {
    let fd = Fd(descriptor(body.file.as_deref()));
    match &mut body.op {
        Op::Accept { multi: true } => {
            opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
        }
        Op::Accept { multi: false } => {
            let (nobody, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
            opcode::Accept::new(fd, nobody, no_length).flags(libc::SOCK_CLOEXEC).build()
        }
        Op::Connect { address } => {
            opcode::Connect::new(fd, address.as_ptr(), address.len()).build()
        }
        Op::Recv { multi: true } => opcode::RecvMulti::new(fd, GROUP).build(),
        Op::Recv { multi: false } => {
            let bytes = body.payload.bytes_mut();
            opcode::Recv::new(fd, bytes.as_mut_ptr(), length(bytes.len())).build()
        }
        Op::Send { from, len, zero_copy } => {
            let bytes = body.payload.bytes()[*from..].as_ptr();
            if *zero_copy && abilities.send_zc {
                opcode::SendZc::new(fd, bytes, *len).flags(SEND_FLAGS).build()
            } else {
                opcode::Send::new(fd, bytes, *len).flags(SEND_FLAGS).build()
            }
        }
        Op::Read { at, from, len } => {
            let bytes = body.payload.bytes_mut()[*from..].as_mut_ptr();
            opcode::Read::new(fd, bytes, *len).offset(*at).build()
        }
        Op::Write { at, from, len } => {
            let bytes = body.payload.bytes()[*from..].as_ptr();
            opcode::Write::new(fd, bytes, *len).offset(*at).build()
        }
        Op::Fsync { data_only } => {
            let flags = if *data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(fd).flags(flags).build()
        }
        Op::Fallocate { at, len } => opcode::Fallocate::new(fd, *len).offset(*at).build(),
        Op::OpenAt { path, flags, mode } => {
            let here = Fd(libc::AT_FDCWD);
            opcode::OpenAt::new(here, path.as_ptr()).flags(*flags).mode(*mode).build()
        }
        Op::Close { file } => opcode::Close::new(Fd(file.as_raw_fd())).build(),
    }
}

/// The entry that asks for the end of the operation whose entry has this user data.
pub(super) fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(user_data).build().flags(squeue::Flags::SKIP_SUCCESS)
}

fn descriptor(file: Option<&OwnedFd>) -> RawFd {
    file.map_or(-1, |file| file.as_raw_fd())
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a receive buffer has at most 2^20 bytes")
}
