//! The table without a kernel: a ring that notes what it is given, and completions by hand.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::*;
use crate::config::Config;
use crate::ring::{Calls, Doorbells};
use crate::stats::ShardStats;

/// Takes operations while it has room, and does nothing.
struct Scripted {
    abilities: Abilities,
    room: usize,
    taken: Vec<(Key, String)>,
    cancelled: Vec<Key>,
    told: VecDeque<Completion>,
    lent: Option<Rc<Pool>>,
}

impl Scripted {
    fn new(abilities: Abilities) -> Self {
        let (taken, cancelled, told) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { abilities, room: usize::MAX, taken, cancelled, told, lent: None }
    }

    fn able() -> Self {
        Self::new(Abilities { multishot_accept: true, multishot_recv: true, send_zc: true })
    }

    /// The operations taken since the last look.
    fn ops(&mut self) -> Vec<String> {
        self.taken.drain(..).map(|(_, op)| op).collect()
    }
}

impl Doorbells for Scripted {
    fn fd(&self) -> RawFd {
        -1
    }
    fn ring_bell(&mut self, _: RawFd, _: usize) -> bool {
        true
    }
    fn submit(&mut self) -> bool {
        true
    }
    fn wait(&mut self, _: Option<u64>) {}
    fn unreached(&mut self) -> Option<usize> {
        None
    }
    fn calls(&self) -> Calls {
        Calls::default()
    }
    fn abilities(&self) -> Abilities {
        self.abilities
    }
    fn submit_op(&mut self, mut op: Flight<'_>) -> bool {
        if self.taken.len() == self.room {
            return false;
        }
        let text = format!("{:?}", op.body().op);
        self.taken.push((op.key(), text));
        true
    }
    fn cancel_op(&mut self, key: Key, _: &Op) -> bool {
        self.cancelled.push(key);
        true
    }
    fn lend(&mut self, pool: &Rc<Pool>) -> bool {
        pool.lend();
        pool.hand_over(|_| ());
        self.lent = Some(Rc::clone(pool));
        true
    }
    fn return_buffers(&mut self, _: &Pool, _: &[u16]) {}
    fn wants_enter(&mut self) -> bool {
        false
    }
    fn has_completions(&mut self) -> bool {
        self.has_completed()
    }

    fn has_completed(&self) -> bool {
        !self.told.is_empty()
    }
    fn completions(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.told.drain(..));
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicU32);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A table, its ring, and one waiting task.
struct Bench {
    ops: Rc<Ops>,
    ring: Scripted,
    woken: Arc<Woken>,
    waker: Waker,
}

impl Bench {
    fn new(config: Config, ring: Scripted) -> Self {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        Self { ops: Ops::new(&config), ring, woken, waker }
    }

    fn small(ring: Scripted) -> Self {
        let config = Config { ops_max: 4, buffers: 2, accepted_max: 2, ..Config::default() };
        Self::new(config, ring)
    }

    fn start(&self, op: Op) -> Result<Key, Payload> {
        let payload = Payload::Vec(vec![1, 2, 3]);
        let body = Body { op, file: None, payload };
        self.ops.start(body).map_err(|(_, body)| body.payload)
    }

    fn flush(&mut self) -> bool {
        self.ops.flush(&mut self.ring, false, 0)
    }

    /// Ends the table as a shard does; how many operations are leaked.
    fn end(&mut self) -> u64 {
        self.ops.close();
        let mut waits = 0;
        loop {
            if let Some(leaked) = self.ops.end(&mut self.ring, &mut waits) {
                return leaked;
            }
        }
    }

    fn tell(&mut self, key: Key, result: i32, more: bool, buffer: Option<u16>) {
        let notification = false;
        self.ring.told.push_back(Completion {
            key,
            result,
            more,
            notification,
            buffer,
            made: None,
        });
        self.ops.complete(&mut self.ring);
    }

    fn woken(&self) -> u32 {
        self.woken.0.swap(0, Ordering::Relaxed)
    }

    fn live(&self) -> (u64, u64) {
        let mut stats = ShardStats::default();
        self.ops.count(&mut stats);
        (stats.ops_live, stats.buffers_in_use)
    }

    fn recv(&self, key: Key) -> Poll<Result<Vec<u8>, i32>> {
        let polled = self.ops.poll_recv(key, &Context::from_waker(&self.waker));
        polled.map(|received| received.map(|lease| lease.to_vec()))
    }

    fn once(&self, key: Key) -> Option<i32> {
        match self.ops.poll_once(key, &Context::from_waker(&self.waker)) {
            Poll::Ready(finished) => Some(finished.expect("live").result),
            Poll::Pending => None,
        }
    }

    fn open_recv(&self) -> Key {
        let (op, payload) = (Op::Recv { multi: false }, Payload::None);
        self.ops.open_recv(Body { op, file: None, payload }).expect("room")
    }
}

const SEND: Op = Op::Send { from: 0, len: 3, zero_copy: true };

#[test]
fn a_full_table_gives_the_buffer_back_and_has_room_again() {
    let mut bench = Bench::small(Scripted::able());
    let keys: Vec<Key> = (0..4).map(|_| bench.start(SEND).expect("room")).collect();
    let Err(Payload::Vec(bytes)) = bench.start(SEND) else { panic!("there is no room") };
    assert_eq!(bytes, [1, 2, 3]);
    bench.flush();
    assert_eq!(bench.ring.ops().len(), 4);
    assert_eq!(bench.once(keys[0]), None);
    bench.tell(keys[0], 3, false, None);
    assert_eq!((bench.woken(), bench.once(keys[0])), (1, Some(3)));
    let again = bench.start(SEND).expect("one slot is vacant");
    assert_ne!(again, keys[0], "a key is not used twice");
    bench.tell(keys[0], 9, false, None);
    assert_eq!(bench.once(again), None, "a late word about the last user is ignored");
}

#[test]
fn a_send_without_a_copy_ends_with_its_notification() {
    let mut bench = Bench::small(Scripted::able());
    let key = bench.start(SEND).expect("room");
    bench.flush();
    assert_eq!(bench.once(key), None);
    bench.tell(key, 3, true, None);
    assert_eq!((bench.woken(), bench.once(key)), (0, None), "the kernel still reads the buffer");
    bench.ring.told.push_back(Completion {
        key,
        result: 0,
        more: false,
        notification: true,
        buffer: None,
        made: None,
    });
    bench.ops.complete(&mut bench.ring);
    assert_eq!((bench.woken(), bench.once(key)), (1, Some(3)));
    assert_eq!(bench.live(), (0, 0));
}

#[test]
fn an_orphan_keeps_its_slot_until_the_last_word() {
    let mut bench = Bench::small(Scripted::able());
    let waits = bench.start(SEND).expect("room");
    bench.ops.orphan(waits);
    bench.flush();
    assert!(bench.ring.ops().is_empty(), "what was not submitted is not submitted any more");
    assert_eq!(bench.live(), (0, 0));
    let flies = bench.start(SEND).expect("room");
    bench.flush();
    bench.ops.orphan(flies);
    bench.flush();
    bench.flush();
    assert_eq!(bench.ring.cancelled, [flies], "asked once");
    bench.tell(flies, 3, true, None);
    assert_eq!(bench.live(), (1, 0), "a notification is to come");
    bench.tell(flies, 0, false, None);
    assert_eq!(bench.live(), (0, 0));
}

#[test]
fn a_stream_receives_in_order_until_it_is_orphaned_and_loses_no_buffer() {
    let mut bench = Bench::small(Scripted::able());
    let key = bench.open_recv();
    assert_eq!(bench.recv(key), Poll::Pending);
    bench.flush();
    assert_eq!(bench.ring.ops(), ["Recv { multi: true }"]);
    bench.tell(key, 3, true, Some(1));
    bench.tell(key, 2, true, Some(0));
    assert_eq!((bench.woken(), bench.live()), (1, (1, 2)));
    assert_eq!(bench.recv(key), Poll::Ready(Ok(vec![0; 3])));
    assert_eq!(bench.live(), (1, 1), "the first went back");
    bench.ops.orphan(key);
    bench.flush();
    assert_eq!(bench.ring.cancelled, [key]);
    bench.tell(key, 1, true, Some(1));
    bench.tell(key, -libc::ECANCELED, false, None);
    assert_eq!(bench.live(), (0, 0));
}

#[test]
fn a_stream_ends_after_what_was_received() {
    for (result, end) in [(0, 0), (-libc::ECONNRESET, -libc::ECONNRESET)] {
        let mut bench = Bench::small(Scripted::able());
        let key = bench.open_recv();
        assert_eq!(bench.recv(key), Poll::Pending);
        bench.flush();
        bench.tell(key, 4, true, Some(0));
        bench.tell(key, result, false, None);
        assert_eq!(bench.recv(key), Poll::Ready(Ok(vec![0; 4])));
        assert_eq!(bench.recv(key), Poll::Ready(Err(end)));
        assert_eq!(bench.recv(key), Poll::Ready(Err(end)), "it stays at its end");
        bench.ops.orphan(key);
        assert_eq!(bench.live(), (0, 0));
    }
}

#[test]
fn a_receive_that_ends_for_no_reason_of_its_own_is_asked_again() {
    for errno in [libc::ECANCELED, libc::EINTR, libc::EAGAIN] {
        let mut bench = Bench::small(Scripted::able());
        let key = bench.open_recv();
        assert_eq!(bench.recv(key), Poll::Pending);
        bench.flush();
        bench.tell(key, -errno, false, None);
        assert_eq!((bench.woken(), bench.recv(key)), (1, Poll::Pending));
        bench.flush();
        assert_eq!(bench.ring.ops().len(), 2);
    }
}

#[test]
fn a_receive_without_a_buffer_waits_for_one() {
    let mut bench = Bench::small(Scripted::able());
    let (one, two) = (bench.open_recv(), bench.open_recv());
    assert_eq!((bench.recv(one), bench.recv(two)), (Poll::Pending, Poll::Pending));
    bench.flush();
    bench.tell(one, 5, true, Some(0));
    bench.tell(one, 5, true, Some(1));
    bench.tell(two, -libc::ENOBUFS, false, None);
    assert_eq!(bench.ring.ops().len(), 2);
    assert!(!bench.flush(), "nothing to be done before a buffer is free");
    assert_eq!((bench.ring.ops().len(), bench.recv(two)), (0, Poll::Pending));
    assert!(bench.recv(one).is_ready());
    bench.flush();
    assert_eq!(bench.ring.ops().len(), 1, "the buffer that was read is free again");
    bench.tell(two, 5, true, Some(0));
    assert!(bench.recv(two).is_ready());
}

#[test]
fn an_orphan_that_waits_for_a_buffer_is_freed() {
    let mut bench = Bench::small(Scripted::able());
    let (one, two) = (bench.open_recv(), bench.open_recv());
    assert_eq!((bench.recv(one), bench.recv(two)), (Poll::Pending, Poll::Pending));
    bench.flush();
    bench.tell(two, -libc::ENOBUFS, false, None);
    bench.ops.orphan(two);
    bench.flush();
    assert_eq!(bench.live(), (1, 0));
}

/// An orphan that waited for a buffer once kept those that it had not read, which were all there were.
#[test]
fn an_orphan_that_waits_for_a_buffer_keeps_none() {
    let mut bench = Bench::small(Scripted::able());
    let (one, two) = (bench.open_recv(), bench.open_recv());
    assert_eq!((bench.recv(one), bench.recv(two)), (Poll::Pending, Poll::Pending));
    bench.flush();
    bench.tell(one, 5, true, Some(0));
    bench.tell(one, 5, true, Some(1));
    bench.tell(one, -libc::ENOBUFS, false, None);
    bench.tell(two, -libc::ENOBUFS, false, None);
    bench.ring.ops();
    bench.ops.orphan(one);
    bench.flush();
    assert_eq!((bench.ring.ops().len(), bench.live()), (1, (1, 0)), "the other goes on");
}

#[test]
fn a_stream_that_nobody_reads_pauses() {
    let config = Config { ops_max: 4, buffers: 64, ..Config::default() };
    let mut bench = Bench::new(config, Scripted::able());
    let key = bench.open_recv();
    assert_eq!(bench.recv(key), Poll::Pending);
    bench.flush();
    (0..20).for_each(|buffer| bench.tell(key, 1, true, Some(buffer)));
    bench.flush();
    assert_eq!(bench.ring.cancelled, [key]);
    bench.tell(key, -libc::ECANCELED, false, None);
    for _ in 0..20 {
        assert_eq!(bench.recv(key), Poll::Ready(Ok(vec![0])));
    }
    bench.flush();
    assert_eq!(bench.ring.ops().len(), 1);
    assert_eq!(bench.recv(key), Poll::Pending);
    bench.flush();
    assert_eq!((bench.ring.ops().len(), bench.live()), (1, (1, 0)), "it goes on when it was read");
}

#[test]
fn without_multishot_each_receive_takes_a_buffer_itself() {
    let mut bench = Bench::small(Scripted::new(Abilities::default()));
    let keys = [bench.open_recv(), bench.open_recv(), bench.open_recv()];
    keys.iter().for_each(|&key| assert_eq!(bench.recv(key), Poll::Pending));
    bench.flush();
    assert_eq!(bench.ring.ops(), ["Recv { multi: false }"; 2], "two buffers, two receives");
    bench.tell(keys[0], 7, false, None);
    assert_eq!((bench.recv(keys[0]), bench.live()), (Poll::Ready(Ok(vec![0; 7])), (3, 1)));
    bench.flush();
    assert_eq!(bench.ring.ops().len(), 1, "the third has the buffer of the first");
    bench.tell(keys[1], 0, false, None);
    assert_eq!((bench.recv(keys[1]), bench.live()), (Poll::Ready(Err(0)), (3, 1)));
}

#[test]
fn accepted_connections_are_bounded_and_closed_with_their_listener() {
    let mut bench = Bench::small(Scripted::able());
    let body = Body { op: Op::Accept { multi: false }, file: None, payload: Payload::None };
    let key = bench.ops.open_accept(body).expect("room");
    let waker = bench.waker.clone();
    let cx = Context::from_waker(&waker);
    assert!(bench.ops.poll_accept(key, &cx).is_pending());
    bench.flush();
    assert_eq!(bench.ring.ops(), ["Accept { multi: true }"]);
    let (file, mut peer) = std::io::pipe().expect("descriptors");
    let mut files = [file.try_clone().expect("descriptors"), file].map(Some);
    for file in &mut files {
        let made = file.take().map(OwnedFd::from);
        let (result, more) = (9, true);
        let completion = Completion { key, result, more, notification: false, buffer: None, made };
        bench.ring.told.push_back(completion);
    }
    bench.ops.complete(&mut bench.ring);
    bench.flush();
    assert_eq!(bench.ring.cancelled, [key], "two are held at most");
    bench.tell(key, -libc::ECANCELED, false, None);
    assert!(matches!(bench.ops.poll_accept(key, &cx), Poll::Ready(Ok(_))));
    bench.ops.orphan(key);
    assert_eq!(bench.live(), (0, 0));
    let broken = std::io::Write::write(&mut peer, b"x").expect_err("both ends were dropped");
    assert_eq!(broken.kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn a_failed_accept_is_told_once() {
    let mut bench = Bench::small(Scripted::able());
    let body = Body { op: Op::Accept { multi: false }, file: None, payload: Payload::None };
    let key = bench.ops.open_accept(body).expect("room");
    let waker = bench.waker.clone();
    let cx = Context::from_waker(&waker);
    assert!(bench.ops.poll_accept(key, &cx).is_pending());
    bench.flush();
    bench.tell(key, -libc::EMFILE, false, None);
    assert!(
        matches!(bench.ops.poll_accept(key, &cx), Poll::Ready(Err(errno)) if errno == -libc::EMFILE)
    );
    assert!(bench.ops.poll_accept(key, &cx).is_pending());
    bench.flush();
    assert_eq!(bench.ring.ops().len(), 2, "the next call asks again");
}

#[test]
fn what_a_ring_has_no_room_for_waits_in_order() {
    let mut bench = Bench::small(Scripted::able());
    let keys: Vec<Key> = (0..4).map(|_| bench.start(SEND).expect("room")).collect();
    bench.ring.room = 3;
    assert!(bench.flush(), "the shard must come back");
    bench.ring.room = 4;
    assert!(!bench.flush());
    assert_eq!(bench.ring.taken.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
}

#[test]
fn a_closed_descriptor_is_not_closed_again() {
    let mut bench = Bench::small(Scripted::able());
    for (result, closed_by_us) in [(0, false), (-libc::ECANCELED, true)] {
        let (file, mut peer) = std::io::pipe().expect("descriptors");
        let key = bench.start(Op::Close { file: file.into() }).expect("room");
        bench.flush();
        bench.tell(key, result, false, None);
        assert_eq!(bench.once(key), Some(result));
        // Nobody has closed the first one here: this ring does nothing.
        let written = std::io::Write::write(&mut peer, b"x");
        assert_eq!(written.is_err(), closed_by_us);
    }
}

#[test]
fn an_end_waits_for_the_kernel_and_leaks_what_it_keeps() {
    let mut bench = Bench::small(Scripted::able());
    let key = bench.start(SEND).expect("room");
    bench.flush();
    assert_eq!(bench.end(), 1);
    assert_eq!(bench.ring.cancelled, [key]);
    assert!(bench.start(SEND).is_err(), "closed");
    let mut bench = Bench::small(Scripted::able());
    bench.start(SEND).expect("room");
    assert_eq!(bench.end(), 0, "it had not been submitted");
}

/// The clone and the drop of a waker are anybody's code, which may come back to the table.
#[test]
fn a_waker_may_use_the_table_while_it_is_cloned_and_dropped() {
    use crate::shard::waker::foreign;

    let bench = Bench::small(Scripted::able());
    let (once, stream) = (bench.start(SEND).expect("room"), bench.open_recv());
    let body = Body { op: Op::Accept { multi: false }, file: None, payload: Payload::None };
    let listener = bench.ops.open_accept(body).expect("room");
    let seen = Rc::new(std::cell::Cell::new(0));
    let (ops, counts) = (Rc::clone(&bench.ops), Rc::clone(&seen));
    foreign::set_hook(move || {
        counts.set(counts.get() + 1);
        ops.count(&mut ShardStats::default());
        let (op, payload) = (Op::Recv { multi: false }, Payload::None);
        let key = ops.open_recv(Body { op, file: None, payload }).expect("room");
        ops.orphan(key);
    });
    let (theirs, own) = (foreign::waker(), bench.waker.clone());
    for waker in [&theirs, &own, &theirs] {
        let cx = Context::from_waker(waker);
        assert!(bench.ops.poll_once(once, &cx).is_pending());
        assert!(bench.ops.poll_recv(stream, &cx).is_pending());
        assert!(bench.ops.poll_accept(listener, &cx).is_pending());
    }
    assert_eq!(seen.get(), 9, "two clones and a drop of each");
    for key in [once, stream, listener] {
        bench.ops.orphan(key);
    }
    assert_eq!(seen.get(), 12, "and another drop");
}
