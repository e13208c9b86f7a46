//! Free numbers, as a lock-free stack: no hook may wait, in a signal handler least of all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::record::heap_layout::low;

/// Numbers 0..bound, each out or in. Numbers never given out need no link, so a new stack is empty
/// memory: it counts up until the bound, and reuses what came back first.
pub(super) struct Numbers {
    /// High half: a tag that changes with every pop, against ABA. Low half: top + 1, or 0.
    head: AtomicU64,
    fresh: AtomicU32,
    bound: u32,
}

impl Numbers {
    pub(super) const fn new(bound: u32) -> Numbers {
        Numbers { head: AtomicU64::new(0), fresh: AtomicU32::new(0), bound }
    }

    /// A number that came back, or a fresh one, lock-free. `link` gives a word per number, which belongs
    /// to this stack while the number is in.
    pub(super) fn take<'a>(&self, link: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
        self.again(link).or_else(|| self.fresh())
    }

    /// A number that came back.
    pub(super) fn again<'a>(&self, link: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
        // Acquire: pairs with the Release in give, so that the link is seen.
        let mut head = self.head.load(Ordering::Acquire);
        while low(head) != 0 {
            let top = low(head) - 1;
            let next = link(top).load(Ordering::Relaxed);
            let changed = ((head >> 32).wrapping_add(1) << 32) | u64::from(next);
            let swap =
                self.head.compare_exchange(head, changed, Ordering::Acquire, Ordering::Acquire);
            match swap {
                Ok(_) => return Some(top),
                Err(now) => head = now,
            }
        }
        None
    }

    /// A number that was never out.
    pub(super) fn fresh(&self) -> Option<u32> {
        let fresh = &self.fresh;
        let more = |used| (used < self.bound).then_some(used + 1);
        fresh.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
    }

    /// Puts a number back.
    pub(super) fn give<'a>(&self, number: u32, link: impl Fn(u32) -> &'a AtomicU32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link(number).store(low(head), Ordering::Relaxed);
            let changed = (head >> 32 << 32) | u64::from(number + 1);
            // Release: pairs with the Acquire in take.
            let swap =
                self.head.compare_exchange(head, changed, Ordering::Release, Ordering::Relaxed);
            match swap {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Numbers are below this.
    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    /// Calls `each` with every number that came back and was not taken again. Nobody else may use the
    /// stack meanwhile.
    pub(super) fn each_back<'a>(
        &self,
        link: impl Fn(u32) -> &'a AtomicU32,
        mut each: impl FnMut(u32),
    ) {
        let mut top = low(self.head.load(Ordering::Relaxed));
        for _ in 0..self.bound {
            let Some(number) = top.checked_sub(1) else { return };
            each(number);
            top = link(number).load(Ordering::Relaxed);
        }
    }

    /// Numbers that were ever out: none at or above has been used.
    pub(super) fn used(&self) -> u32 {
        self.fresh.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_out_twice() {
        const BOUND: u32 = 64;
        let links: Vec<AtomicU32> = (0..BOUND).map(|_| AtomicU32::new(0)).collect();
        let out: Vec<AtomicU32> = (0..BOUND).map(|_| AtomicU32::new(0)).collect();
        let numbers = Numbers::new(BOUND);
        let link = |n: u32| &links[n as usize];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut held: Vec<u32> = Vec::new();
                    let back = |number: u32| {
                        out[number as usize].fetch_sub(1, Ordering::Relaxed);
                        numbers.give(number, link);
                    };
                    for turn in 0..20_000 {
                        if let Some(number) = numbers.take(link) {
                            assert_eq!(out[number as usize].fetch_add(1, Ordering::Relaxed), 0);
                            held.push(number);
                        }
                        if held.len() > 20 || turn % 3 == 0 {
                            held.drain(..).for_each(back);
                        }
                    }
                    held.drain(..).for_each(back);
                });
            }
        });
        let all = std::iter::from_fn(|| numbers.take(link)).count();
        assert_eq!(all, BOUND as usize, "each number is in again, once");
    }
}
