//! How old the values of a queue are, without a stamp in each: every pass notes how far the queue reached and
//! when, so that a value is known to be at least as old as the first mark behind it. One comparison per value;
//! the resolution is a pass, about 20 us.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Marks that are kept; with more values in the queue the later ones look younger than they are.
const MARKS_MAX: usize = 4_096;
/// The instant of a value that no mark covers: it has come since the last one.
pub(crate) const FRESH: u64 = u64::MAX;

/// The marks of one queue with one reader.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Values read so far.
    read: Cell<u64>,
    /// The first values up to this number were there at `since_ns`.
    upto: Cell<u64>,
    since_ns: Cell<u64>,
    later: RefCell<VecDeque<(u64, u64)>>,
    noted: Cell<u64>,
}

impl Marks {
    pub(crate) const fn new() -> Self {
        Self {
            read: Cell::new(0),
            upto: Cell::new(0),
            since_ns: Cell::new(FRESH),
            later: RefCell::new(VecDeque::new()),
            noted: Cell::new(0),
        }
    }

    /// Notes that `waiting` values are in the queue at `now_ns`.
    pub(crate) fn note(&self, waiting: usize, now_ns: u64) {
        let reach = self.read.get() + waiting as u64;
        let mut later = self.later.borrow_mut();
        if reach > self.noted.get() && later.len() < MARKS_MAX {
            later.push_back((reach, now_ns));
            self.noted.set(reach);
        }
    }

    /// Counts a value as read; whether it has waited for another time than the one before. A comparison, for most.
    #[inline]
    pub(crate) fn read(&self) -> bool {
        let read = self.read.get() + 1;
        self.read.set(read);
        let moves = read > self.upto.get();
        if moves {
            self.move_on(read);
        }
        moves
    }

    /// Whether all that was noted is read.
    #[inline]
    pub(crate) const fn is_read_out(&self) -> bool {
        self.read.get() >= self.noted.get()
    }

    /// How many values are behind those that were read, of `all` so far.
    pub(crate) const fn behind(&self, all: usize) -> u64 {
        (all as u64).saturating_sub(self.read.get())
    }

    /// Since when the value read last has been seen to wait, ns.
    #[inline]
    pub(crate) const fn since_ns(&self) -> u64 {
        self.since_ns.get()
    }

    #[inline(never)]
    fn move_on(&self, read: u64) {
        let mut later = self.later.borrow_mut();
        while let Some((upto, since_ns)) = later.pop_front() {
            if upto >= read {
                self.upto.set(upto);
                self.since_ns.set(since_ns);
                return;
            }
        }
        self.since_ns.set(FRESH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(marks: &Marks) -> u64 {
        marks.read();
        marks.since_ns()
    }

    #[test]
    fn a_value_is_as_old_as_the_first_mark_behind_it() {
        let marks = Marks::new();
        assert_eq!(next(&marks), FRESH, "nothing was noted");
        marks.note(2, 100);
        marks.note(2, 150);
        marks.note(3, 200);
        assert_eq!([(); 3].map(|()| next(&marks)), [100, 100, 200]);
        assert_eq!(next(&marks), FRESH, "it has come since");
        marks.note(1, 300);
        assert_eq!(next(&marks), 300);
    }

    #[test]
    fn more_values_than_marks_look_younger_and_none_older() {
        let marks = Marks::new();
        for waiting in 1..=MARKS_MAX + 10 {
            marks.note(waiting, waiting as u64);
        }
        marks.note(MARKS_MAX + 10, 9_999);
        for at in 1..=MARKS_MAX + 10 {
            assert_eq!(next(&marks), if at <= MARKS_MAX { at as u64 } else { FRESH });
        }
    }
}
