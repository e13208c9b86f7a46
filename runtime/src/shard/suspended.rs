#![expect(unsafe_code, reason = "futures of any type in blocks that are used again")]
//! Handlers while they run and while they wait. A handler's future lies in a block of scratch memory; most
//! end in their first poll and leave the block to the next. One that suspends keeps it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use super::Shard;
use super::path::Arrival;
use crate::agent::{Cx, Stop};
use crate::channel::envelope::Envelope;
use crate::panics::contain;

/// Blocks are multiples of this, bytes, and so aligned.
const UNIT: usize = 64;
/// Sizes that are kept for reuse, in units; larger blocks are made and freed each time.
const UNITS_MAX: usize = 64;
/// Free blocks kept of each size.
const KEPT: usize = 256;
/// Boxes of waiting agents that are kept for reuse.
const BOXES_KEPT: usize = 1_024;

type Poller = unsafe fn(NonNull<u8>, &mut Context<'_>) -> Poll<Result<(), Stop>>;

/// A suspended handler, or a spawned future.
pub(crate) struct Suspended {
    block: NonNull<u8>,
    layout: Layout,
    poll: Poller,
    drop: unsafe fn(NonNull<u8>),
}

impl Suspended {
    /// Bytes of its block.
    pub(crate) const fn bytes(&self) -> usize {
        self.layout.size()
    }
}

/// How a first poll ended.
pub(crate) enum Outcome {
    Done(Result<(), Stop>),
    Panicked,
    Waits(Suspended),
}

/// How a later one ended.
pub(crate) enum Again {
    Done(Result<(), Stop>),
    Panicked,
    Waits,
}

/// What an agent that waits holds besides its state.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) suspended: Option<Suspended>,
    /// When it suspended and when it was last polled, ns as the shard saw the clock; of `suspended`.
    pub(crate) since_ns: u64,
    pub(crate) polled_ns: u64,
    pub(crate) items: VecDeque<Envelope>,
    /// How each item came here.
    pub(crate) arrivals: VecDeque<Arrival>,
}

impl Pending {
    /// Drops timers and notices: they are of a life that is over.
    pub(crate) fn keep_messages(&mut self) {
        let waiting = self.items.drain(..).zip(self.arrivals.drain(..));
        let messages = waiting.filter(|(item, _)| item.is_message());
        let (items, arrivals) = messages.unzip();
        (self.items, self.arrivals) = (items, arrivals);
    }

    /// Keeps a handler that has suspended now.
    pub(crate) fn suspend(&mut self, suspended: Suspended, now_ns: u64) {
        self.suspended = Some(suspended);
        (self.since_ns, self.polled_ns) = (now_ns, now_ns);
    }

    /// Takes what a handler left when it suspended in the middle of catching up, and what was put back.
    pub(crate) fn put_before(&mut self, newer: Self) {
        if newer.suspended.is_some() {
            self.suspended = newer.suspended;
            (self.since_ns, self.polled_ns) = (newer.since_ns, newer.polled_ns);
        }
        for (item, arrival) in newer.items.into_iter().zip(newer.arrivals).rev() {
            self.items.push_front(item);
            self.arrivals.push_front(arrival);
        }
    }
}

/// What lies in a block: the context that the future borrows, and the future.
#[repr(C)]
struct Running<'a, F> {
    cx: MaybeUninit<Cx<'a>>,
    future: MaybeUninit<F>,
}

/// # Safety
/// `block` holds a `Running<F>` whose future is initialised and not moved.
unsafe fn future<'b, F>(block: NonNull<u8>) -> Pin<&'b mut F> {
    let running = block.cast::<Running<'_, F>>().as_ptr();
    // SAFETY: the caller's duty.
    let future = unsafe { &mut (*running).future };
    // SAFETY: as above.
    let future = unsafe { future.assume_init_mut() };
    // SAFETY: it stays in its block until it is dropped there.
    unsafe { Pin::new_unchecked(future) }
}

/// # Safety
/// As [`future`].
unsafe fn poll<F: Future<Output = Result<(), Stop>>>(
    block: NonNull<u8>,
    context: &mut Context<'_>,
) -> Poll<Result<(), Stop>> {
    // SAFETY: the caller's duty.
    unsafe { future::<F>(block) }.poll(context)
}

/// # Safety
/// As [`future`], which nobody uses afterwards.
unsafe fn drop_future<F>(block: NonNull<u8>) {
    let running = block.cast::<Running<'_, F>>().as_ptr();
    // SAFETY: the caller's duty.
    let future = unsafe { &mut (*running).future };
    // SAFETY: as above.
    unsafe { future.assume_init_drop() };
}

/// Blocks for futures, and boxes for those who wait.
pub(crate) struct Scratch {
    /// One free block of each size before `free`: a handler that ends in its first poll takes it and puts it
    /// back, a load and a store each.
    top: [Cell<Option<NonNull<u8>>>; UNITS_MAX],
    free: [RefCell<Vec<NonNull<u8>>>; UNITS_MAX],
    #[expect(clippy::vec_box, reason = "a header holds the box: it is what is kept for reuse")]
    boxes: RefCell<Vec<Box<Pending>>>,
    /// Bytes of the blocks of futures that are suspended.
    held: Cell<usize>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let free = [const { RefCell::new(Vec::new()) }; UNITS_MAX];
        let top = [const { Cell::new(None) }; UNITS_MAX];
        Self { top, free, boxes: RefCell::default(), held: Cell::new(0) }
    }

    /// Bytes of the futures that are suspended.
    pub(crate) const fn held(&self) -> usize {
        self.held.get()
    }

    fn layout<F>() -> Layout {
        let layout = Layout::new::<Running<'_, F>>().align_to(UNIT).expect("a future's alignment");
        layout.pad_to_align()
    }

    /// The number of a size that is kept for reuse.
    #[inline]
    fn size_of(layout: Layout) -> Option<usize> {
        let size = layout.size() / UNIT - 1;
        (size < UNITS_MAX && layout.align() == UNIT).then_some(size)
    }

    #[inline]
    fn take(&self, layout: Layout) -> NonNull<u8> {
        let top = Self::size_of(layout).and_then(|size| self.top[size].take());
        top.unwrap_or_else(|| self.take_more(layout))
    }

    #[inline(never)]
    fn take_more(&self, layout: Layout) -> NonNull<u8> {
        let kept = Self::size_of(layout).and_then(|size| self.free[size].borrow_mut().pop());
        kept.unwrap_or_else(|| {
            // SAFETY: the layout has a size: it holds a context.
            let block = unsafe { alloc(layout) };
            NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
        })
    }

    #[inline]
    fn give(&self, block: NonNull<u8>, layout: Layout) {
        match Self::size_of(layout).map(|size| &self.top[size]) {
            Some(top) if top.get().is_none() => top.set(Some(block)),
            _ => self.give_more(block, layout),
        }
    }

    #[inline(never)]
    fn give_more(&self, block: NonNull<u8>, layout: Layout) {
        if let Some(size) = Self::size_of(layout) {
            let mut free = self.free[size].borrow_mut();
            if free.len() < KEPT {
                return free.push(block);
            }
        }
        // SAFETY: the block was made by `take` with this layout.
        unsafe { dealloc(block.as_ptr(), layout) };
    }

    /// Counts a future that stays in its block.
    fn hold(&self, layout: Layout) {
        self.held.set(self.held.get() + layout.size());
    }

    /// Makes a handler's future in a block and polls it once.
    ///
    /// # Safety
    /// What the future borrows for `'a` outlives it: the shard, and the state of the agent `me`, which
    /// nobody else touches until the future is gone.
    #[inline]
    pub(crate) unsafe fn start<'a, F: Future<Output = Result<(), Stop>> + 'a>(
        &self,
        (shard, me): (&'a Shard, u64),
        context: &mut Context<'_>,
        make: impl FnOnce(&'a mut Cx<'a>) -> F,
    ) -> Outcome {
        let layout = Self::layout::<F>();
        let block = self.take(layout);
        let running = block.cast::<Running<'a, F>>().as_ptr();
        // SAFETY: the block has the size and the alignment of a Running, and nobody else uses it.
        let cx: &'a mut Cx<'a> = unsafe { (*running).cx.write(Cx::new(shard, me)) };
        let made = Cell::new(false);
        let first = contain(|| {
            // SAFETY: as above; the context beside it stays where it is.
            unsafe { (*running).future.write(make(cx)) };
            made.set(true);
            // SAFETY: just initialised, in its place.
            unsafe { poll::<F>(block, context) }
        });
        let (poll, drop) = (poll::<F>, drop_future::<F>);
        match first {
            Some(Poll::Pending) => {
                self.hold(layout);
                Outcome::Waits(Suspended { block, layout, poll, drop })
            }
            Some(Poll::Ready(result)) => {
                // SAFETY: the future is live and nobody uses it after this.
                let dropped = contain(|| unsafe { drop_future::<F>(block) }).is_some();
                self.give(block, layout);
                if dropped { Outcome::Done(result) } else { Outcome::Panicked }
            }
            None if made.get() => {
                self.hold(layout);
                self.finish(Suspended { block, layout, poll, drop });
                Outcome::Panicked
            }
            None => {
                self.give(block, layout);
                Outcome::Panicked
            }
        }
    }

    /// Keeps a future that has not been polled.
    pub(crate) fn keep<F: Future<Output = Result<(), Stop>> + 'static>(
        &self,
        future: F,
    ) -> Suspended {
        let layout = Self::layout::<F>();
        let block = self.take(layout);
        let running = block.cast::<Running<'_, F>>().as_ptr();
        // SAFETY: the block has the size and the alignment of a Running, and nobody else uses it.
        unsafe { (*running).future.write(future) };
        self.hold(layout);
        Suspended { block, layout, poll: poll::<F>, drop: drop_future::<F> }
    }

    /// Polls once more, where it lies: most wait again.
    pub(crate) fn resume(&self, place: &mut Option<Suspended>, context: &mut Context<'_>) -> Again {
        let Some(Suspended { block, poll, .. }) = place else { return Again::Done(Ok(())) };
        let again = contain(|| {
            // SAFETY: a Suspended holds a live future of the type that `poll` is for.
            unsafe { poll(*block, context) }
        });
        if let Some(Poll::Pending) = again {
            return Again::Waits;
        }
        let dropped = place.take().is_none_or(|suspended| self.finish(suspended));
        match again {
            Some(Poll::Ready(result)) if dropped => Again::Done(result),
            _ => Again::Panicked,
        }
    }

    /// Drops a future and takes its block back; `false` when the drop panicked.
    #[inline]
    pub(crate) fn finish(&self, suspended: Suspended) -> bool {
        let Suspended { block, layout, drop, .. } = suspended;
        // SAFETY: the future is live and nobody uses it after this.
        let dropped = contain(|| unsafe { drop(block) });
        self.held.set(self.held.get() - layout.size());
        self.give(block, layout);
        dropped.is_some()
    }

    /// An empty box.
    pub(crate) fn pending(&self) -> Box<Pending> {
        self.boxes.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes an empty box back.
    pub(crate) fn recycle(&self, pending: Box<Pending>) {
        let mut boxes = self.boxes.borrow_mut();
        // A queue that has grown is not kept: its memory goes back.
        if boxes.len() < BOXES_KEPT && pending.items.capacity() <= 64 {
            boxes.push(pending);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for (units, (free, top)) in (1..).zip(self.free.iter_mut().zip(&self.top)) {
            let layout = Layout::from_size_align(units * UNIT, UNIT).expect("small");
            for block in free.get_mut().drain(..).chain(top.take()) {
                // SAFETY: free blocks were made with this layout and nobody uses them.
                unsafe { dealloc(block.as_ptr(), layout) };
            }
        }
    }
}
