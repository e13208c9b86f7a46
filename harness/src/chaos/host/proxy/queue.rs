//! What came in one way of a connection and is not passed on yet. Pure: time is an argument.

use std::collections::VecDeque;

/// Bytes that wait at most: then no more is read, and the sender waits.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Pieces that wait at most, however small they are.
pub(super) const PIECES_MAX: usize = 4_096;

/// An instant, and how much later than it came in a piece is passed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now_ns: u64,
    pub(super) latency_ns: u64,
}

impl Moment {
    const fn is_due(self, came_ns: u64) -> bool {
        came_ns.saturating_add(self.latency_ns) <= self.now_ns
    }
}

/// What was read at once.
#[derive(Debug)]
struct Piece {
    left: usize,
    came_ns: u64,
}

/// What waits, in the order in which it came. A latency that changes is that of all that waits: 0 lets all of it go.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: VecDeque<u8>,
    pieces: VecDeque<Piece>,
    /// When the sender said that nothing follows.
    ended_ns: Option<u64>,
}

impl Queue {
    /// Bytes that may be read.
    pub(super) fn room(&self) -> usize {
        if self.ended_ns.is_some() || self.pieces.len() >= PIECES_MAX {
            return 0;
        }
        BYTES_MAX - self.bytes.len()
    }

    /// This came in; no more than there was room for.
    pub(super) fn push(&mut self, piece: &[u8], now_ns: u64) {
        debug_assert!(!piece.is_empty() && piece.len() <= self.room(), "read what fits");
        self.bytes.extend(piece);
        self.pieces.push_back(Piece { left: piece.len(), came_ns: now_ns });
    }

    /// Nothing follows.
    pub(super) fn end(&mut self, now_ns: u64) {
        self.ended_ns.get_or_insert(now_ns);
    }

    /// What is to be passed on now, or the first part of it.
    pub(super) fn due(&self, at: Moment) -> &[u8] {
        let front = self.bytes.as_slices().0;
        let mut due = 0;
        for piece in self.pieces.iter().take_while(|piece| at.is_due(piece.came_ns)) {
            due += piece.left;
            if due >= front.len() {
                return front;
            }
        }
        &front[..due]
    }

    /// The first `count` bytes are passed on.
    pub(super) fn passed(&mut self, mut count: usize) {
        self.bytes.drain(..count);
        while let Some(piece) = self.pieces.front_mut().filter(|_| count > 0) {
            let part = count.min(piece.left);
            (piece.left, count) = (piece.left - part, count - part);
            if piece.left == 0 {
                self.pieces.pop_front();
            }
        }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// All is passed on, and that nothing follows may be said.
    pub(super) fn is_over(&self, at: Moment) -> bool {
        self.is_empty() && self.ended_ns.is_some_and(|ended_ns| at.is_due(ended_ns))
    }

    /// Time until the first that waits is due, ns. None: nothing waits for its time.
    pub(super) fn due_in_ns(&self, at: Moment) -> Option<u64> {
        let came_ns = self.pieces.front().map(|piece| piece.came_ns).or(self.ended_ns)?;
        let due_ns = came_ns.saturating_add(at.latency_ns);
        due_ns.checked_sub(at.now_ns).filter(|ns| *ns > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(now_ns: u64, latency_ns: u64) -> Moment {
        Moment { now_ns, latency_ns }
    }

    /// All that is due, as its receiver gets it, five bytes at a time.
    fn taken(queue: &mut Queue, at: Moment) -> Vec<u8> {
        let mut taken = Vec::new();
        loop {
            let due = queue.due(at);
            let part = due[..due.len().min(5)].to_vec();
            if part.is_empty() {
                return taken;
            }
            queue.passed(part.len());
            taken.extend(part);
        }
    }

    #[test]
    fn a_piece_is_due_its_latency_after_it_came_and_none_before_those_before_it() {
        let mut queue = Queue::default();
        queue.push(b"first ", 100);
        queue.push(b"second", 130);
        queue.end(140);
        assert_eq!(
            (taken(&mut queue, at(149, 50)), queue.due_in_ns(at(149, 50))),
            (vec![], Some(1))
        );
        assert_eq!(taken(&mut queue, at(150, 50)), b"first ");
        assert_eq!(queue.due_in_ns(at(150, 50)), Some(30));
        assert_eq!(taken(&mut queue, at(180, 50)), b"second");
        assert!(queue.is_empty() && !queue.is_over(at(189, 50)) && queue.is_over(at(190, 50)));
        assert_eq!((queue.due_in_ns(at(180, 50)), queue.due_in_ns(at(190, 50))), (Some(10), None));
    }

    #[test]
    fn a_latency_that_changes_is_that_of_all_that_waits() {
        let mut queue = Queue::default();
        queue.push(b"ab", 100);
        queue.push(b"cd", 110);
        assert_eq!(taken(&mut queue, at(111, 1_000)), b"");
        assert_eq!(taken(&mut queue, at(111, 11)), b"ab");
        assert_eq!(taken(&mut queue, at(111, u64::MAX)), b"");
        assert_eq!(taken(&mut queue, at(111, 0)), b"cd");
        assert_eq!(queue.due_in_ns(at(111, 0)), None);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_pieces() {
        let mut queue = Queue::default();
        queue.push(&vec![1; BYTES_MAX - 1], 0);
        assert_eq!(queue.room(), 1);
        queue.push(&[2], 0);
        assert_eq!(queue.room(), 0);
        queue.passed(10);
        assert_eq!(queue.room(), 10);
        let mut queue = Queue::default();
        (0..PIECES_MAX).for_each(|_| queue.push(&[1], 0));
        assert_eq!(queue.room(), 0);
        queue.passed(1);
        assert!(queue.room() > 0);
        queue.end(0);
        assert_eq!(queue.room(), 0, "nothing follows");
    }

    /// The storage goes round: due bytes come in two parts then, and none is lost or moved.
    #[test]
    fn bytes_keep_their_order_over_the_end_of_their_storage() {
        let (mut queue, mut sent, mut got) = (Queue::default(), Vec::new(), Vec::new());
        for round in 0..2_000_u64 {
            let piece: Vec<u8> =
                (0..1 + round % 97).map(|k| (round + k).to_le_bytes()[0]).collect();
            queue.push(&piece, round);
            sent.extend(piece);
            got.extend(taken(&mut queue, at(round, 1 + round % 3)));
        }
        assert!(!queue.is_empty());
        got.extend(taken(&mut queue, at(2_000, 0)));
        assert!(queue.is_empty() && got == sent);
    }
}
