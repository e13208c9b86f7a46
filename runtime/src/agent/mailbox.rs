//! A typed, bounded mailbox. An empty one that never held a message owns no memory.

use std::any::Any;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What an agent takes from its mailbox.
pub(crate) enum Item<M> {
    Message(M),
    Timer(u64),
}

/// The queue; bounded by the reservation that every sender makes first.
pub(crate) struct Mailbox<M>(RefCell<VecDeque<Item<M>>>);

impl<M> Mailbox<M> {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(VecDeque::new()))
    }

    pub(crate) fn push(&self, message: M) {
        self.0.borrow_mut().push_back(Item::Message(message));
    }

    pub(crate) fn pop(&self) -> Option<Item<M>> {
        self.0.borrow_mut().pop_front()
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
        self.0.borrow_mut().push_back(Item::Timer(token));
    }

    fn clear(&self) -> u64 {
        // Taken out first: dropping a message may run code that sends.
        let items = std::mem::take(&mut *self.0.borrow_mut());
        let messages = items.iter().filter(|item| matches!(item, Item::Message(_))).count();
        // A message whose drop panics takes no shard down; the standard queue drops the others still.
        let _ = catch_unwind(AssertUnwindSafe(move || drop(items)));
        messages as u64
    }
}
