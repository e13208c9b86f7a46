//! What each receiver has not let go yet: messages in the order of the log, by receiver.

use std::collections::{HashMap, VecDeque};

/// A message in the index: where it stands in the log and who sent it. Its content stays with the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item<T> {
    /// Sequence number of the log; grows.
    pub seq: u64,
    /// When it was sent, monotonic ns.
    pub sent_ns: u64,
    /// What the caller needs to find or give the content.
    pub content: T,
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexConfig {
    /// Messages held for one receiver; one more is refused.
    pub per_receiver_max: usize,
    /// Messages held for all; one more is refused.
    pub total_max: usize,
    /// How long a message may wait, ns; none: until the cursor has passed it.
    pub ttl_ns: Option<u64>,
}

impl Default for IndexConfig {
    /// 1,000 each, a million in all, no time to live.
    fn default() -> Self {
        Self { per_receiver_max: 1_000, total_max: 1_000_000, ttl_ns: None }
    }
}

/// What was counted. `appended` = `released` + `expired` + held, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexCounts {
    /// Taken in.
    pub appended: u64,
    /// Not taken in: a bound was met.
    pub refused: u64,
    /// Passed by their receiver's cursor.
    pub released: u64,
    /// Waited longer than they may.
    pub expired: u64,
}

/// What a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// Oldest first, none at or before the cursor.
    pub items: Vec<Item<T>>,
    /// Whether more wait behind them.
    pub more: bool,
}

/// Messages by receiver.
#[derive(Debug)]
pub struct Index<T> {
    config: IndexConfig,
    boxes: HashMap<u32, VecDeque<Item<T>>>,
    held: usize,
    last_seq: Option<u64>,
    counts: IndexCounts,
}

impl<T: Clone> Index<T> {
    /// An empty index.
    #[must_use]
    pub fn new(config: IndexConfig) -> Self {
        let (boxes, counts) = (HashMap::new(), IndexCounts::default());
        Self { config, boxes, held: 0, last_seq: None, counts }
    }

    /// Adds a message for `to`.
    ///
    /// # Errors
    /// Gives it back when a bound is met.
    ///
    /// # Panics
    /// When its sequence number does not grow: the log gives them in order.
    pub fn append(&mut self, to: u32, item: Item<T>) -> Result<(), Item<T>> {
        assert!(self.last_seq.is_none_or(|last| last < item.seq), "the log's order");
        let waiting = self.boxes.get(&to).map_or(0, VecDeque::len);
        if waiting >= self.config.per_receiver_max || self.held >= self.config.total_max {
            self.counts.refused += 1;
            return Err(item);
        }
        self.last_seq = Some(item.seq);
        self.boxes.entry(to).or_default().push_back(item);
        self.held += 1;
        self.counts.appended += 1;
        Ok(())
    }

    /// What `receiver` has after its `cursor`, `batch` at most. Everything up to the cursor is let go: a
    /// cursor acknowledges. Costs what it returns and what it lets go, not what the log holds.
    pub fn after(
        &mut self,
        now_ns: u64,
        receiver: u32,
        cursor: Option<u64>,
        batch: usize,
    ) -> Page<T> {
        let Some(waiting) = self.boxes.get_mut(&receiver) else {
            return Page { items: Vec::new(), more: false };
        };
        while waiting.front().is_some_and(|item| cursor.is_some_and(|c| item.seq <= c)) {
            waiting.pop_front();
            self.held -= 1;
            self.counts.released += 1;
        }
        let ttl_ns = self.config.ttl_ns;
        let old = |item: &Item<T>| {
            ttl_ns.is_some_and(|ttl_ns| now_ns.saturating_sub(item.sent_ns) > ttl_ns)
        };
        while waiting.front().is_some_and(old) {
            waiting.pop_front();
            self.held -= 1;
            self.counts.expired += 1;
        }
        let items: Vec<Item<T>> = waiting.iter().take(batch).cloned().collect();
        let more = waiting.len() > items.len();
        if waiting.is_empty() {
            // A receiver that was seen once leaves nothing behind.
            self.boxes.remove(&receiver);
        }
        Page { items, more }
    }

    /// Whether a look would find something; lets nothing go.
    #[must_use]
    pub fn has_after(&self, receiver: u32, cursor: Option<u64>) -> bool {
        let last = self.boxes.get(&receiver).and_then(VecDeque::back);
        last.is_some_and(|item| cursor.is_none_or(|cursor| item.seq > cursor))
    }

    /// What was counted.
    #[must_use]
    pub const fn counts(&self) -> &IndexCounts {
        &self.counts
    }

    /// Messages and receivers held.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.held, self.boxes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(seq: u64, sent_ns: u64) -> Item<u64> {
        Item { seq, sent_ns, content: seq * 10 }
    }

    #[test]
    fn a_look_again_gives_the_same_until_the_cursor_moves() {
        let mut index = Index::new(IndexConfig { per_receiver_max: 3, ..IndexConfig::default() });
        for seq in 0..3 {
            index.append(7, item(seq, 0)).unwrap();
        }
        assert_eq!(index.append(7, item(3, 0)), Err(item(3, 0)), "given back");
        index.append(8, item(3, 0)).unwrap();
        let first = index.after(0, 7, None, 2);
        assert_eq!((first.items.len(), first.more), (2, true));
        assert_eq!(index.after(0, 7, None, 2), first, "at least once");
        let rest = index.after(0, 7, Some(1), 2);
        assert_eq!(rest, Page { items: vec![item(2, 0)], more: false });
        assert!(!index.has_after(7, Some(2)) && index.has_after(8, Some(2)));
        assert_eq!(index.after(0, 7, Some(2), 2).items, []);
        assert_eq!(index.held(), (1, 1), "nothing stays of a receiver that took everything");
    }

    proptest! {
        /// Against the shipped query made right: filter the whole log on each look.
        #[test]
        fn it_is_a_filter_of_the_whole_log(
            steps in prop::collection::vec((0u32..4, 0u64..30, prop::option::of(0u64..60), 0usize..5, any::<bool>()), 1..80)
        ) {
            let config = IndexConfig { per_receiver_max: 8, total_max: 20, ttl_ns: Some(50) };
            let mut index = Index::new(config);
            let mut log: Vec<(u32, Item<u64>, bool)> = Vec::new();
            let (mut now, mut seq) = (0, 0);
            for (who, step, cursor, batch, send) in steps {
                now += step;
                if send {
                    let taken = index.append(who, item(seq, now)).is_ok();
                    let held = |to: Option<u32>| log.iter().filter(|(of, _, gone)| !gone && to.is_none_or(|to| to == *of)).count();
                    prop_assert_eq!(taken, held(Some(who)) < 8 && held(None) < 20);
                    if taken { log.push((who, item(seq, now), false)); seq += 1; }
                } else {
                    let mut mine: Vec<&mut (u32, Item<u64>, bool)> = log.iter_mut().filter(|(to, _, gone)| *to == who && !gone).collect();
                    for entry in &mut mine {
                        entry.2 = cursor.is_some_and(|c| entry.1.seq <= c) || now - entry.1.sent_ns > 50;
                    }
                    let left: Vec<_> = mine.iter().filter(|e| !e.2).map(|e| e.1).collect();
                    let page = index.after(now, who, cursor, batch);
                    prop_assert_eq!(page.more, left.len() > batch);
                    prop_assert_eq!(&page.items[..], &left[..left.len().min(batch)]);
                }
                let counts = index.counts();
                prop_assert_eq!(counts.appended, counts.released + counts.expired + index.held().0 as u64);
            }
        }
    }
}
