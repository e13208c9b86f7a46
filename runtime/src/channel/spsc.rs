#![expect(unsafe_code, reason = "a ring of uninitialised cells shared by two threads")]
//! Single-producer single-consumer ring. The producer publishes a batch with one store, the consumer
//! gives cells back with one store; each keeps a cached copy of the other's index.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering, UnsafeCell};

/// Cells behind the one that is written whose memory is being fetched from the consumer's core.
#[cfg(not(loom))]
const AHEAD: usize = 8;

/// Keeps the two indices on cache lines of their own (128: the adjacent-line prefetcher pairs lines).
#[repr(align(128))]
#[derive(Debug)]
struct Line(AtomicUsize);

/// What was published together, and when.
#[derive(Debug)]
struct Publication {
    /// The cell behind its last one.
    upto: AtomicUsize,
    at_ns: AtomicU64,
}

#[derive(Debug)]
struct Ring<T> {
    cells: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// As many as cells, or none. Each stands for a cell or more that was not given back, so that a place is used
    /// again when its publication has been read.
    publications: Box<[Publication]>,
    mask: usize,
    /// Next cell to read; written by the consumer.
    head: Line,
    /// Next cell to write; written by the producer.
    tail: Line,
}

// SAFETY: a cell is touched by the producer before `tail` passes it and by the consumer after, never by
// both; the values themselves are Send.
unsafe impl<T: Send> Send for Ring<T> {}
// SAFETY: as above; the indices are atomics.
unsafe impl<T: Send> Sync for Ring<T> {}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    published: usize,
    head_cache: usize,
    /// Publications so far.
    publications: usize,
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    tail_cache: usize,
    /// Publications looked at, and what the last of them has said.
    publications: usize,
    upto: usize,
    at_ns: u64,
}

/// How far a ring reaches, for whoever holds neither end.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Gauge<T>(Arc<Ring<T>>);

#[cfg(not(loom))]
impl<T> Gauge<T> {
    /// Cells published so far.
    pub(crate) fn published(&self) -> usize {
        // Relaxed: a count, by which no cell is touched.
        self.0.tail.0.load(Ordering::Relaxed)
    }
}

/// A ring of `slots` cells, a power of two.
pub(crate) fn channel<T: Send>(slots: usize) -> (Producer<T>, Consumer<T>) {
    make(slots, 0)
}

/// A ring that says when its cells were published.
pub(crate) fn dated<T: Send>(slots: usize) -> (Producer<T>, Consumer<T>) {
    make(slots, slots)
}

fn make<T: Send>(slots: usize, publications: usize) -> (Producer<T>, Consumer<T>) {
    assert!(slots.is_power_of_two(), "indices are masked");
    let cells = (0..slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let line = || Line(AtomicUsize::new(0));
    let publication = |_| Publication { upto: AtomicUsize::new(0), at_ns: AtomicU64::new(0) };
    let publications = (0..publications).map(publication).collect();
    let (head, tail) = (line(), line());
    let ring = Arc::new(Ring { cells, publications, mask: slots - 1, head, tail });
    let shared = Arc::clone(&ring);
    let producer = Producer { ring: shared, tail: 0, published: 0, head_cache: 0, publications: 0 };
    (producer, Consumer { ring, head: 0, tail_cache: 0, publications: 0, upto: 0, at_ns: 0 })
}

impl<T> Producer<T> {
    /// Whether a push would succeed.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head_cache) <= self.ring.mask {
            return true;
        }
        // Pairs with the Release in `Consumer::release`: the cells before head have been read.
        self.head_cache = self.ring.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_cache) <= self.ring.mask
    }

    /// Writes a cell; the consumer sees it after [`Producer::publish`]. Gives it back when full.
    pub(crate) fn push(&mut self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        // SAFETY: the pointer is to a cell without a value, as `push_in_place` says.
        self.push_in_place(|cell| unsafe { cell.write(value) });
        Ok(())
    }

    /// [`Producer::push`] of the value that `write` puts into the cell it is given. The caller has seen
    /// that there is room.
    #[inline]
    pub(crate) fn push_in_place(&mut self, write: impl FnOnce(*mut T)) {
        assert!(self.has_room(), "the caller has looked");
        #[cfg(not(loom))]
        {
            let ahead = &self.ring.cells[self.tail.wrapping_add(AHEAD) & self.ring.mask];
            crate::prefetch::prefetch_write(std::ptr::from_ref(ahead));
        }
        // head_cache shows that the consumer is done with the cell and tail has not passed it, so that
        // nobody else touches it.
        self.ring.cells[self.tail & self.ring.mask].with_mut(|cell| write(cell.cast()));
        self.tail = self.tail.wrapping_add(1);
    }

    /// Whether something was pushed that is not visible yet.
    #[inline]
    pub(crate) const fn has_news(&self) -> bool {
        self.published != self.tail
    }

    /// [`Producer::publish`], dated: whoever sees the cells sees when that was.
    pub(crate) fn publish_at(&mut self, now_ns: u64) -> bool {
        let publication = self.ring.publications.get(self.publications & self.ring.mask);
        if let Some(publication) = publication.filter(|_| self.has_news()) {
            // Relaxed: the store of tail makes them visible, and the load of head has shown that the consumer is done
            // with what was here.
            publication.upto.store(self.tail, Ordering::Relaxed);
            publication.at_ns.store(now_ns, Ordering::Relaxed);
            self.publications = self.publications.wrapping_add(1);
        }
        self.publish()
    }

    /// Makes every pushed cell visible; `false` when there was nothing new.
    pub(crate) fn publish(&mut self) -> bool {
        if !self.has_news() {
            return false;
        }
        // Pairs with the Acquire in `Consumer::pop`.
        self.ring.tail.0.store(self.tail, Ordering::Release);
        self.published = self.tail;
        true
    }
}

impl<T> Consumer<T> {
    /// Whether a published cell waits.
    #[inline]
    pub(crate) fn has_some(&mut self) -> bool {
        if self.head != self.tail_cache {
            return true;
        }
        // Pairs with the Release in `Producer::publish`.
        self.tail_cache = self.ring.tail.0.load(Ordering::Acquire);
        self.head != self.tail_cache
    }

    /// Published cells that wait now.
    pub(crate) fn waiting(&mut self) -> usize {
        // Pairs with the Release in `Producer::publish`.
        self.tail_cache = self.ring.tail.0.load(Ordering::Acquire);
        self.tail_cache.wrapping_sub(self.head)
    }

    /// Published cells that wait, as far as was last seen.
    #[cfg(not(loom))]
    pub(crate) const fn known(&self) -> usize {
        self.tail_cache.wrapping_sub(self.head)
    }

    /// Whether [`Consumer::published_ns`] has more to do for the next cell than to say the same as for the one before.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) const fn is_of_next_publication(&self) -> bool {
        self.head >= self.upto
    }

    /// What [`Consumer::published_ns`] has said last.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) const fn last_published_ns(&self) -> u64 {
        self.at_ns
    }

    /// When the next cell was published, which has been seen; asked for every cell. After cells that were not asked for
    /// those that are on their way may get a later date, no more. 0 when the ring does not say.
    pub(crate) fn published_ns(&mut self) -> u64 {
        // One of as many publications as there are cells is that of the next one.
        for _ in 0..self.ring.publications.len() {
            if self.head < self.upto || self.head == self.tail_cache {
                break;
            }
            let Some(next) = self.ring.publications.get(self.publications & self.ring.mask) else {
                break;
            };
            // Relaxed: the load of tail has shown the cell that they are of.
            self.upto = next.upto.load(Ordering::Relaxed);
            self.at_ns = next.at_ns.load(Ordering::Relaxed);
            self.publications = self.publications.wrapping_add(1);
        }
        self.at_ns
    }

    /// A view on how far the ring reaches.
    #[cfg(not(loom))]
    pub(crate) fn gauge(&self) -> Gauge<T> {
        Gauge(Arc::clone(&self.ring))
    }

    /// Whether every cell holds a published value.
    pub(crate) fn is_full(&mut self) -> bool {
        self.waiting() > self.ring.mask
    }

    /// Takes the next cell; the producer may reuse it after [`Consumer::release`].
    pub(crate) fn pop(&mut self) -> Option<T> {
        if !self.has_some() {
            return None;
        }
        let value = self.ring.cells[self.head & self.ring.mask].with_mut(|cell| {
            // SAFETY: the pointer comes from a live cell, and tail_cache shows that the producer is
            // done with it.
            let value = unsafe { cell.read() };
            // SAFETY: the producer wrote it before it published it, and it is read once: head moves on.
            unsafe { value.assume_init() }
        });
        self.head = self.head.wrapping_add(1);
        Some(value)
    }

    /// [`Consumer::pop`] without a copy: `read` gets the cell and owns the value, which lies there until
    /// [`Consumer::release`].
    #[inline]
    pub(crate) fn pop_in_place(&mut self, read: impl FnOnce(*mut T)) -> bool {
        if !self.has_some() {
            return false;
        }
        let cell = &self.ring.cells[self.head & self.ring.mask];
        self.head = self.head.wrapping_add(1);
        cell.with_mut(|cell| read(cell.cast()));
        true
    }

    /// The published value `ahead` places behind the next, as far as was last seen.
    #[inline]
    pub(crate) fn peek<R>(&self, ahead: usize, look: impl FnOnce(&T) -> R) -> Option<R> {
        if ahead >= self.tail_cache.wrapping_sub(self.head) {
            return None;
        }
        let cell = &self.ring.cells[self.head.wrapping_add(ahead) & self.ring.mask];
        Some(cell.with(|cell| {
            // SAFETY: tail_cache shows that the producer is done with the cell.
            let value = unsafe { &*cell };
            // SAFETY: the producer has written it, and this consumer has not read it yet.
            look(unsafe { value.assume_init_ref() })
        }))
    }

    /// Gives the cells read so far back to the producer.
    pub(crate) fn release(&mut self) {
        // Pairs with the Acquire in `Producer::has_room`.
        self.ring.head.0.store(self.head, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // What was published and not read is dropped here; what was pushed and never published
        // leaks, which a producer avoids by publishing at the end of each pass.
        while self.pop().is_some() {}
        self.release();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// However the two ends take turns, and however often the ring comes round.
    #[test]
    fn each_value_has_the_date_of_its_publication() {
        for slots in [1, 2, 8] {
            let (mut producer, mut consumer) = dated(slots);
            let (mut bits, mut date, mut read) = (1u64, 1, 0);
            for _ in 0..100_000 {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                match bits >> 62 {
                    0 => _ = producer.push(date),
                    1 => date += u64::from(producer.publish_at(date)),
                    2 if consumer.has_some() => {
                        let published_ns = consumer.published_ns();
                        assert_eq!(consumer.pop(), Some(published_ns));
                        read += 1;
                    }
                    _ => consumer.release(),
                }
            }
            assert!(read > 5_000, "{read}");
        }
    }

    #[test]
    fn a_ring_without_dates_says_none() {
        let (mut producer, mut consumer) = channel(2);
        assert_eq!(producer.push(1), Ok(()));
        assert!(producer.publish_at(7) && consumer.has_some());
        assert_eq!((consumer.known(), consumer.gauge().published()), (1, 1));
        assert_eq!((consumer.published_ns(), consumer.pop()), (0, Some(1)));
    }

    #[test]
    fn full_gives_back_and_unpublished_is_unseen() {
        let (mut producer, mut consumer) = channel(2);
        assert_eq!(producer.push(1), Ok(()));
        assert!(consumer.pop().is_none(), "not published");
        assert!(producer.publish() && !producer.publish());
        assert_eq!(producer.push(2), Ok(()));
        assert_eq!(producer.push(3), Err(3));
        assert_eq!(consumer.pop(), Some(1));
        assert_eq!(producer.push(3), Err(3), "read but not released");
        consumer.release();
        assert_eq!(producer.push(3), Ok(()));
        producer.publish();
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(2), Some(3), None));
    }
}

#[cfg(all(test, loom))]
mod tests {
    use loom::thread;

    use super::*;

    /// Boxes, so that a value read twice or lost is a double free or a leak that loom reports.
    #[test]
    fn loom_every_message_arrives_once_and_in_order_over_a_wrap() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let sender = thread::spawn(move || {
                let mut next = 0;
                while next < 3 {
                    match producer.push(Box::new(next)) {
                        Ok(()) => next += 1,
                        Err(_) => {
                            producer.publish();
                            thread::yield_now();
                        }
                    }
                }
                producer.publish();
            });
            let mut expected = 0;
            while expected < 3 {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(*value, expected);
                        expected += 1;
                    }
                    None => {
                        consumer.release();
                        thread::yield_now();
                    }
                }
            }
            sender.join().unwrap();
        });
    }

    /// The same in place, with a look ahead: loom reports a cell that both ends touch at once.
    #[test]
    fn loom_values_are_read_where_they_lie() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let sender = thread::spawn(move || {
                let mut next = 0;
                while next < 3 {
                    match producer.push(Box::new(next)) {
                        Ok(()) => next += 1,
                        Err(_) => thread::yield_now(),
                    }
                    producer.publish();
                }
            });
            let mut expected = 0;
            while expected < 3 {
                let ahead = consumer.peek(1, |value| **value);
                assert!(ahead.is_none_or(|ahead| ahead == expected + 1));
                // SAFETY: the cell holds a value, which is read this once.
                let read = consumer.pop_in_place(|cell| {
                    assert_eq!(*unsafe { cell.read() }, expected);
                    expected += 1;
                });
                if !read {
                    consumer.release();
                    thread::yield_now();
                }
            }
            sender.join().unwrap();
        });
    }

    /// Each value was published in the publication whose number is its own: the date of a later one is not taken for
    /// it, nor that of one whose place it has.
    #[test]
    fn loom_values_have_the_date_of_their_publication() {
        loom::model(|| {
            let (mut producer, mut consumer) = dated(2);
            let sender = thread::spawn(move || {
                let (mut next, mut date) = (0, 1);
                while next < 4 {
                    match producer.push(Box::new(date)) {
                        Ok(()) => next += 1,
                        Err(_) => thread::yield_now(),
                    }
                    // The second and the third come together, if there is room.
                    if next != 2 && producer.publish_at(date) {
                        date += 1;
                    }
                    if next == 2 && !producer.has_room() && producer.publish_at(date) {
                        date += 1;
                    }
                }
            });
            let mut read = 0;
            while read < 4 {
                if consumer.has_some() {
                    let date = consumer.published_ns();
                    assert_eq!(consumer.pop().map(|value| *value), Some(date));
                    read += 1;
                } else {
                    consumer.release();
                    thread::yield_now();
                }
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_what_is_left_is_dropped_once() {
        loom::model(|| {
            let (mut producer, mut consumer) = channel(2);
            let sender = thread::spawn(move || {
                let _ = producer.push(Box::new(1));
                let _ = producer.push(Box::new(2));
                producer.publish();
            });
            drop(consumer.pop());
            sender.join().unwrap();
            drop(consumer);
        });
    }
}
