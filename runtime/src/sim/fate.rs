//! What a simulated kernel does with one try of an operation, and what it answers.

use super::calls::Kind;
use super::{Faults, Rng};
use crate::op::Op;

/// What goes wrong with one try.
pub(super) enum Fate {
    Nothing,
    /// It moves that many thousandths of what it was asked to.
    Short(usize),
    /// It fails with this errno, after so many thousandths if others see them.
    Fails(i32, Option<usize>),
}

impl Fate {
    pub(super) fn draw(rng: &mut Rng, faults: &Faults, op: &Op) -> Self {
        let kind = Kind::of(op);
        if rng.happens(faults.ops_failed_ppm) {
            let pins = matches!(op, Op::Send { zero_copy: true, .. });
            // Pages that may not be pinned: nothing was sent, and a copy is as good.
            if pins && rng.below(3) == 0 {
                return Self::Fails(libc::ENOMEM, None);
            }
            let errno = rng.one_of(failures(kind));
            // One that may be asked again has done nothing.
            let marks = kind.leaves_marks() && !matches!(errno, libc::EINTR | libc::EAGAIN);
            let part = (marks && rng.below(2) == 0).then(|| rng.index(1_000));
            return Self::Fails(errno, part);
        }
        if kind.moves_bytes() && rng.happens(faults.ops_short_ppm) {
            return Self::Short(rng.index(1_000));
        }
        Self::Nothing
    }
}

/// What a kernel may answer besides what it does.
const fn failures(kind: Kind) -> &'static [i32] {
    match kind {
        Kind::Accept => &[libc::EMFILE, libc::ECONNABORTED, libc::EINTR, libc::EAGAIN],
        Kind::Connect => &[libc::ECONNREFUSED, libc::ETIMEDOUT, libc::EINTR],
        Kind::Recv => &[libc::ECONNRESET, libc::EINTR, libc::EAGAIN, libc::ECANCELED],
        Kind::Send => &[libc::ECONNRESET, libc::EPIPE, libc::EINTR, libc::EAGAIN],
        Kind::Read => &[libc::EIO, libc::EINTR, libc::EAGAIN],
        Kind::Write => &[libc::EIO, libc::ENOSPC, libc::EINTR, libc::EAGAIN],
        Kind::Fsync => &[libc::EIO, libc::EINTR],
        Kind::Fallocate => &[libc::ENOSPC, libc::EOPNOTSUPP, libc::EINTR],
        Kind::Open => &[libc::EMFILE, libc::EIO, libc::EINTR],
        Kind::Close => &[libc::EIO, libc::EINTR],
    }
}
