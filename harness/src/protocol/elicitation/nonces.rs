//! Nonces that were used, for as long as a message that holds one would still be fresh. Bounded: full is
//! an outcome, because forgetting one early would let its message in again.

use std::collections::{HashSet, VecDeque};

use super::auth::Digest;
use super::refusal::Refusal;

/// The table. Entries leave in the order of their use: all are kept for the same time.
#[derive(Debug)]
pub struct Nonces {
    max: usize,
    keep_ns: u64,
    used: HashSet<Digest>,
    order: VecDeque<(u64, Digest)>,
}

impl Nonces {
    /// A table of at most `max`, each kept for `keep_ns` from its use.
    #[must_use]
    pub fn new(max: usize, keep_ns: u64) -> Self {
        Self { max, keep_ns, used: HashSet::new(), order: VecDeque::new() }
    }

    /// Whether it could be used now; drops what is past its time.
    ///
    /// # Errors
    /// [`Refusal::Replay`], [`Refusal::NoncesFull`].
    pub fn usable(&mut self, now_ns: u64, nonce: &Digest) -> Result<(), Refusal> {
        self.drop_old(now_ns);
        if self.used.contains(nonce) {
            return Err(Refusal::Replay);
        }
        if self.used.len() >= self.max { Err(Refusal::NoncesFull) } else { Ok(()) }
    }

    fn drop_old(&mut self, now_ns: u64) {
        while let Some((until_ns, oldest)) = self.order.front()
            && *until_ns < now_ns
        {
            self.used.remove(oldest);
            self.order.pop_front();
        }
    }

    /// Notes a use at `at_ns`; `false` when one is noted that was not past its time then. A log that is
    /// replayed notes the uses as they were, a snapshot those of old elicitations last.
    pub fn note(&mut self, at_ns: u64, nonce: Digest) -> bool {
        self.drop_old(at_ns);
        let new = self.used.insert(nonce);
        if new {
            let until_ns = at_ns.saturating_add(self.keep_ns);
            let place = self.order.partition_point(|(until, _)| *until <= until_ns);
            self.order.insert(place, (until_ns, nonce));
        }
        new
    }

    /// When each was used, and which it was, oldest first.
    pub fn uses(&self) -> impl Iterator<Item = (u64, Digest)> {
        let keep_ns = self.keep_ns;
        self.order.iter().map(move |(until_ns, nonce)| (until_ns.saturating_sub(keep_ns), *nonce))
    }

    /// Nonces held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_once_until_its_time_and_never_above_the_bound() {
        let mut nonces = Nonces::new(2, 100);
        let digest = |n| Digest([n; 32]);
        for (now, n) in [(10, 1), (20, 2)] {
            assert_eq!(nonces.usable(now, &digest(n)), Ok(()));
            assert!(nonces.note(now, digest(n)) && !nonces.note(now, digest(n)));
        }
        assert_eq!(nonces.usable(20, &digest(1)), Err(Refusal::Replay));
        assert_eq!(nonces.usable(110, &digest(3)), Err(Refusal::NoncesFull), "kept to the last ns");
        assert_eq!(nonces.usable(111, &digest(3)), Ok(()));
        assert_eq!(nonces.usable(120, &digest(2)), Err(Refusal::Replay));
        assert_eq!(nonces.len(), 1);
    }
}
