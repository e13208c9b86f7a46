//! A typed, bounded mailbox. The first message lies in it; memory of its own comes with the second.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What an agent takes from its mailbox.
pub(crate) enum Item<M> {
    Message(M),
    Timer(u64),
}

/// The queue; bounded by the reservation that every sender makes first. Whatever is in `first` is older
/// than what is in `rest`.
pub(crate) struct Mailbox<M> {
    first: Cell<Option<Item<M>>>,
    /// Items in `rest`, so that a mailbox of one message touches nothing else.
    more: Cell<u32>,
    rest: RefCell<VecDeque<Item<M>>>,
}

impl<M> Mailbox<M> {
    pub(crate) const fn new() -> Self {
        let rest = RefCell::new(VecDeque::new());
        Self { first: Cell::new(None), more: Cell::new(0), rest }
    }

    pub(crate) fn push(&self, message: M) {
        self.push_item(Item::Message(message));
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
        let messages = items.filter(|item| matches!(item, Item::Message(_))).count();
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
                if k == 3 {
                    mailbox.push_timer(n * 10 + k)
                } else {
                    mailbox.push(n * 10 + k)
                }
                expected.push_back(n * 10 + k);
            }
            for _ in 0..(n % 4) {
                let got = mailbox.pop().map(|item| match item {
                    Item::Message(value) | Item::Timer(value) => value,
                });
                assert_eq!(got, expected.pop_front());
            }
        }
        let timers = expected.iter().filter(|&&value| value % 10 == 3).count();
        assert_eq!(mailbox.clear(), (expected.len() - timers) as u64);
        assert!(mailbox.pop().is_none());
    }
}
