//! A typed, bounded mailbox. The first message lies in it; memory of its own comes with the second.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What an agent takes from its mailbox.
pub(crate) enum Item<M> {
    Message(M, Lane),
    Timer(u64),
}

/// Where a message came from. Each lane has a bound of its own: neighbours count without an atomic, and
/// the word that other cores share is touched by them and, once for many messages, by the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// An agent of the same core.
    Local,
    /// Another core.
    Remote,
}

/// Places of the remote lane that are read before they are given back in one go: a quarter of `max`.
pub(crate) const fn arrears(max: u32) -> u32 {
    if max < 8 { 1 } else { max / 4 }
}

/// Reservations that senders on other cores may hold, so that a mailbox of `max` is never called full
/// while it holds fewer: places in arrears are free already.
pub(crate) const fn reservations(max: u32) -> u32 {
    max + arrears(max) - 1
}

/// The queue; bounded by the reservation that every sender makes first. Whatever is in `first` is older
/// than what is in `rest`. In C's order, so that what every message touches lies in one cache line.
#[repr(C)]
pub(crate) struct Mailbox<M> {
    first: Cell<Option<Item<M>>>,
    /// Items in `rest`, so that a mailbox of one message touches nothing else.
    more: Cell<u32>,
    /// Unread messages of the local lane.
    local: Cell<u32>,
    /// Read messages of the remote lane whose places have not been given back.
    arrears: Cell<u32>,
    rest: RefCell<VecDeque<Item<M>>>,
}

impl<M> Mailbox<M> {
    pub(crate) const fn new() -> Self {
        let rest = RefCell::new(VecDeque::new());
        let (more, local, arrears) = (Cell::new(0), Cell::new(0), Cell::new(0));
        Self { first: Cell::new(None), more, local, arrears, rest }
    }

    /// Adds a message that another core has reserved a place for.
    pub(crate) fn push_remote(&self, message: M) {
        self.push_item(Item::Message(message, Lane::Remote));
    }

    /// Adds a neighbour's message, unless `max` of them are unread.
    pub(crate) fn push_local(&self, message: M, max: u32) -> Result<(), M> {
        if self.local.get() >= max {
            return Err(message);
        }
        self.local.set(self.local.get() + 1);
        self.push_item(Item::Message(message, Lane::Local));
        Ok(())
    }

    /// Notes that a message was read; returns the places of the remote lane to give back now.
    pub(crate) fn read(&self, lane: Lane, max: u32) -> u32 {
        match lane {
            Lane::Local => {
                self.local.set(self.local.get() - 1);
                0
            }
            Lane::Remote if self.arrears.get() + 1 >= arrears(max) => self.arrears.take() + 1,
            Lane::Remote => {
                self.arrears.set(self.arrears.get() + 1);
                0
            }
        }
    }

    fn push_item(&self, item: Item<M>) {
        if self.more.get() == 0 {
            match self.first.take() {
                None => return self.first.set(Some(item)),
                older => self.first.set(older),
            }
        }
        self.more.set(self.more.get() + 1);
        self.rest.borrow_mut().push_back(item);
    }

    pub(crate) fn pop(&self) -> Option<Item<M>> {
        let first = self.first.take();
        if first.is_some() || self.more.get() == 0 {
            return first;
        }
        self.more.set(self.more.get() - 1);
        self.rest.borrow_mut().pop_front()
    }
}

/// A mailbox without its message type.
pub(crate) trait AnyMailbox {
    fn as_any(&self) -> &dyn Any;
    fn push_timer(&self, token: u64);
    /// Empties it; returns the messages thrown away.
    fn clear(&self) -> u64;
}

impl<M: 'static> AnyMailbox for Mailbox<M> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn push_timer(&self, token: u64) {
        self.push_item(Item::Timer(token));
    }

    fn clear(&self) -> u64 {
        // Taken out first: dropping a message may run code that sends.
        self.more.set(0);
        let (first, rest) = (self.first.take(), std::mem::take(&mut *self.rest.borrow_mut()));
        let items = first.iter().chain(&rest);
        let messages = items.filter(|item| matches!(item, Item::Message(..))).count();
        // A message whose drop panics takes no shard down; the standard queue drops the others still.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(first)));
        let _ = catch_unwind(AssertUnwindSafe(move || drop(rest)));
        messages as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_the_order_they_went_in() {
        let mailbox = Mailbox::new();
        let mut expected = VecDeque::new();
        for n in 0..1_000u64 {
            let count = n % 5;
            for k in 0..count {
                match k {
                    3 => mailbox.push_timer(n * 10 + k),
                    2 => mailbox.push_remote(n * 10 + k),
                    _ => assert_eq!(mailbox.push_local(n * 10 + k, 10_000), Ok(())),
                }
                expected.push_back(n * 10 + k);
            }
            for _ in 0..(n % 4) {
                let got = mailbox.pop().map(|item| match item {
                    Item::Message(value, _) | Item::Timer(value) => value,
                });
                assert_eq!(got, expected.pop_front());
            }
        }
        let timers = expected.iter().filter(|&&value| value % 10 == 3).count();
        assert_eq!(mailbox.clear(), (expected.len() - timers) as u64);
        assert!(mailbox.pop().is_none());
    }

    #[test]
    fn each_lane_has_its_bound_and_places_come_back_in_batches() {
        let mailbox = Mailbox::new();
        assert_eq!((mailbox.push_local(1, 2), mailbox.push_local(2, 2)), (Ok(()), Ok(())));
        assert_eq!(mailbox.push_local(3, 2), Err(3));
        assert_eq!(mailbox.read(Lane::Local, 2), 0);
        assert_eq!(mailbox.push_local(3, 2), Ok(()));
        let given_back: Vec<u32> = (0..9).map(|_| mailbox.read(Lane::Remote, 16)).collect();
        assert_eq!(given_back, [0, 0, 0, 4, 0, 0, 0, 4, 0]);
        assert_eq!(mailbox.read(Lane::Remote, 4), 2, "a small one gives back at once");
        for max in [1, 4, 8, 64, 1_000] {
            assert!(reservations(max) >= max && reservations(max) < max + max.div_ceil(4));
        }
    }
}
