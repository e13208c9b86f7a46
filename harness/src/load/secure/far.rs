//! Agents that answer in a second process: what they are asked goes there over TCP, and their answers come back.
//!
//! An agent whose responder lives elsewhere is here all the same: it asks as the others do, and takes what it is asked.
//! Then its request goes into this core's table and to the core's connection, and waits for the signed answer. What a
//! connection takes with it when it ends, and what no answer came for by its deadline, is given up: nobody answers it,
//! and the owner's clock ends it. A connection that says nothing for two seconds is held for dead and made anew, as TCP
//! itself would wait for minutes.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::io::Errno;
use tailbeam_runtime::Cx;
use tailbeam_runtime::net::TcpStream;

use super::{Said, Secure};
use crate::chaos::board::Board;
use crate::load::exchange::ReplyTo;
use crate::load::middle::{Counted, Setup};
use crate::protocol::elicitation::{Id, Notice};
use crate::remote::frame::{Frame, Hello, Reader};
use crate::remote::outbox::Outbox;
use crate::remote::within::until;

/// Requests of one core that wait for answers from the second process, at most.
const WAITING_MAX: usize = 1 << 20;
/// Deadlines that are kept without a look whether somebody still waits for them.
const DEADLINES_MIN: usize = 1_024;
/// A connection is looked at this often, ns.
const TICK_NS: u64 = 100_000_000;
/// It is asked whether it is there this often, ns.
const PING_NS: u64 = 500_000_000;
/// It is dead when nothing came for so long, ns.
const DEAD_NS: u64 = 2_000_000_000;
/// Longest wait for a connection, and for its hello, ns.
const CONNECT_NS: u64 = 1_000_000_000;
/// Between two tries, ns.
const AGAIN_NS: u64 = 100_000_000;

/// What the connections of a run have done, for all threads; each core writes its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct FarCounts {
    /// Connections that said hello.
    pub(crate) connected: AtomicU64,
    /// That ended before the run did.
    pub(crate) lost: AtomicU64,
    /// Connections that could not be made because this process may have no more descriptors.
    no_descriptor: AtomicU64,
    /// One is there now.
    pub(crate) up: AtomicU64,
    /// Requests that were given to it.
    pub(crate) carried: AtomicU64,
    /// Answers that came for one that waited.
    pub(crate) answered: AtomicU64,
    /// Requests that were given up: their deadline came, or their connection ended.
    pub(crate) given_up: AtomicU64,
    /// Requests whose asker withdrew them. With those that were answered or given up these are all that were carried.
    ended: AtomicU64,
    /// Requests that nobody could be given, as there was no connection or no room.
    pub(crate) not_carried: AtomicU64,
    /// Answers that came for nobody.
    late: AtomicU64,
    /// Bytes received.
    received: AtomicU64,
    /// Time that carried requests were on their way, there and back, ns: their sum and the longest.
    way_ns: AtomicU64,
    way_max_ns: AtomicU64,
}

/// Only its own core adds to a count.
fn add(of: &AtomicU64, n: u64) {
    of.store(of.load(Relaxed) + n, Relaxed);
}

struct Waiting {
    reply: ReplyTo<Secure>,
    id: Id,
}

struct Slot {
    generation: u32,
    waiting: Option<Waiting>,
}

/// What waits on one core.
struct Far {
    first: u32,
    counts: Arc<[FarCounts]>,
    core: usize,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Key of each that waits.
    keys: HashMap<Id, u64>,
    /// By deadline: requests have one timeout, so they come in its order, give or take how late they were sent. Some of them
    /// wait no more; of these there are at most as many as others, or a thousand.
    deadlines: VecDeque<(u64, u64)>,
    /// Of the connection that there is.
    out: Option<Outbox>,
    board: Option<Arc<Board>>,
    ends: bool,
}

thread_local! {
    static FAR: RefCell<Option<Box<Far>>> = const { RefCell::new(None) };
}

fn with<R>(f: impl FnOnce(&mut Far) -> R) -> Option<R> {
    FAR.with(|cell| cell.borrow_mut().as_deref_mut().map(f))
}

impl Far {
    fn counts(&self) -> &FarCounts {
        &self.counts[self.core]
    }

    fn insert(&mut self, waiting: Waiting) -> Result<u64, Waiting> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < WAITING_MAX => {
                self.slots.push(Slot { generation: 0, waiting: None });
                u32::try_from(self.slots.len() - 1).expect("bounded by WAITING_MAX")
            }
            None => return Err(waiting),
        };
        let slot = &mut self.slots[index as usize];
        let key = u64::from(slot.generation) << 32 | u64::from(index);
        self.keys.insert(waiting.id, key);
        slot.waiting = Some(waiting);
        Ok(key)
    }

    /// When one that waits is over.
    fn note_deadline(&mut self, deadline_ns: u64, key: u64) {
        if self.deadlines.len() >= 2 * self.keys.len().max(DEADLINES_MIN) {
            let slots = &self.slots;
            let waits = |key: u64| {
                let slot =
                    usize::try_from(key & u64::from(u32::MAX)).ok().and_then(|at| slots.get(at));
                slot.is_some_and(|slot| {
                    slot.waiting.is_some() && u64::from(slot.generation) == key >> 32
                })
            };
            self.deadlines.retain(|&(_, key)| waits(key));
        }
        self.deadlines.push_back((deadline_ns, key));
    }

    fn remove(&mut self, key: u64) -> Option<Waiting> {
        let index = u32::try_from(key & u64::from(u32::MAX)).ok()?;
        let slot = self.slots.get_mut(index as usize)?;
        if u64::from(slot.generation) != key >> 32 {
            return None;
        }
        let waiting = slot.waiting.take()?;
        self.keys.remove(&waiting.id);
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiting)
    }

    /// What is over at `now_ns`; dropped by whoever calls, outside of the table.
    fn overdue(&mut self, now_ns: u64) -> Vec<Waiting> {
        let mut gone = Vec::new();
        while let Some(&(deadline_ns, key)) = self.deadlines.front() {
            if deadline_ns > now_ns {
                break;
            }
            self.deadlines.pop_front();
            gone.extend(self.remove(key));
        }
        add(&self.counts().given_up, gone.len() as u64);
        gone
    }

    /// All that waits.
    fn all(&mut self) -> Vec<Waiting> {
        let gone = self.overdue(u64::MAX);
        self.deadlines.clear();
        gone
    }
}

/// Makes what a core has, on that core; nothing for a run whose agents all live here.
pub(super) fn install(setup: &Setup<Secure>) {
    let far = setup.fleet.far.as_ref().map(|counts| {
        Box::new(Far {
            first: setup.fleet.far_from,
            counts: Arc::clone(counts),
            core: setup.shard,
            slots: Vec::new(),
            free: Vec::new(),
            keys: HashMap::new(),
            deadlines: VecDeque::new(),
            out: None,
            board: setup.board.clone(),
            ends: false,
        })
    });
    FAR.with(|cell| *cell.borrow_mut() = far);
}

/// Whether an agent answers in the second process.
pub(super) fn answers(agent: u32) -> bool {
    with(|far| agent >= far.first).unwrap_or(false)
}

/// Gives what an agent is asked to the second process. `reply` is dropped when that cannot be.
pub(super) fn carry(notice: Notice, mut reply: ReplyTo<Secure>) {
    let Notice::Asked { id, .. } = notice else { return };
    let (delay_ns, deadline_ns) = (reply.planned_ns(), reply.deadline_ns());
    reply.leave_uncounted();
    let back = with(|far| {
        let Some(out) = far.out.clone() else {
            add(&far.counts().not_carried, 1);
            return Some(Waiting { reply, id });
        };
        let key = match far.insert(Waiting { reply, id }) {
            Ok(key) => key,
            Err(back) => {
                add(&far.counts().not_carried, 1);
                return Some(back);
            }
        };
        if !out.push(&Frame::Asked { key, delay_ns, notice }) {
            add(&far.counts().not_carried, 1);
            return far.remove(key);
        }
        far.note_deadline(deadline_ns, key);
        add(&far.counts().carried, 1);
        None
    });
    // Its way home is taken away here, where the table is not held.
    drop(back);
}

/// The asker has withdrawn what this agent was asked: the second process is told.
pub(super) fn withdrawn(notice: &Notice) {
    let Notice::Settled { id, .. } = notice else { return };
    let gone = with(|far| {
        let key = *far.keys.get(id)?;
        if let Some(out) = &far.out {
            // Without room it answers, and the answer is refused.
            out.push(&Frame::Ended(notice.clone()));
        }
        add(&far.counts().ended, 1);
        far.remove(key)
    });
    drop(gone);
}

fn answered(
    key: u64,
    held_ns: u64,
    message: crate::protocol::elicitation::Message,
    cx: &mut Cx<'_>,
) {
    let found = with(|far| {
        let found = far.remove(key);
        let counts = far.counts();
        add(if found.is_some() { &counts.answered } else { &counts.late }, 1);
        found
    });
    let Some(waiting) = found.flatten() else { return };
    let way_ns = waiting.reply.send_carried(cx, Said::Respond(message), held_ns);
    with(|far| {
        let counts = far.counts();
        add(&counts.way_ns, way_ns);
        counts.way_max_ns.store(counts.way_max_ns.load(Relaxed).max(way_ns), Relaxed);
    });
}

/// Keeps a connection to the second process until the run ends.
pub(super) async fn keep(cx: &mut Cx<'_>, address: SocketAddr, hello: Hello) {
    let none = Some(Errno::MFILE.raw_os_error());
    loop {
        let until_ns = cx.fresh_ns() + CONNECT_NS;
        let connecting = TcpStream::connect(cx, address);
        match until(cx, until_ns, connecting).await {
            Some(Ok(stream)) => talk(cx, stream, hello).await,
            Some(Err(error)) if error.io().and_then(std::io::Error::raw_os_error) == none => {
                with(|far| {
                    add(&far.counts().no_descriptor, 1);
                    far.board.iter().for_each(|board| board.descriptor_refused());
                });
            }
            // Nobody listens there now, or the way is cut.
            Some(Err(_)) | None => {}
        }
        if with(|far| far.ends).unwrap_or(true) {
            return;
        }
        let again_ns = cx.fresh_ns() + AGAIN_NS;
        // Without room for a timer it tries at once, which the connect makes slow enough.
        let _ = cx.sleep_until(again_ns).await;
    }
}

/// One connection, from hello to its end.
async fn talk(cx: &mut Cx<'_>, stream: TcpStream, hello: Hello) {
    let _ = stream.set_nodelay(true);
    let (stream, out) = (Rc::new(stream), Outbox::default());
    let (sends, waits) = (Rc::clone(&stream), out.clone());
    if cx.spawn_with(async move |_: &mut Cx<'_>| waits.drain(&sends).await).is_err() {
        return;
    }
    out.push(&Frame::Hello(hello));
    let greeted = listen(cx, &stream, &out, hello).await;
    out.close();
    // Its task may wait in a send that the other side does not read.
    let _ = stream.shutdown_send();
    let gone = with(|far| {
        far.out = None;
        let counts = far.counts();
        counts.up.store(0, Relaxed);
        if greeted && !far.ends {
            add(&counts.lost, 1);
        }
        far.all()
    });
    drop(gone);
}

/// Takes what comes until the connection is over, or held for dead; gives whether it said hello.
async fn listen(cx: &mut Cx<'_>, stream: &TcpStream, out: &Outbox, hello: Hello) -> bool {
    let (mut reader, mut greeted) = (Reader::default(), false);
    let mut heard_ns = cx.fresh_ns();
    let (mut pinged_ns, mut looked_ns) = (heard_ns, heard_ns);
    loop {
        let received = until(cx, looked_ns + TICK_NS, stream.recv()).await;
        let now_ns = cx.fresh_ns();
        match received {
            Some(Ok(Some(bytes))) => {
                heard_ns = now_ns;
                with(|far| add(&far.counts().received, bytes.len() as u64));
                reader.add(&bytes);
            }
            Some(Ok(None) | Err(_)) => return greeted,
            None => {}
        }
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(Frame::Answer { key, held_ns, message })) if greeted => {
                    answered(key, held_ns, message, cx);
                }
                Ok(Some(Frame::Hello(said))) if !greeted && said == hello => {
                    greeted = true;
                    let out = out.clone();
                    with(|far| {
                        far.out = Some(out);
                        add(&far.counts().connected, 1);
                        far.counts().up.store(1, Relaxed);
                    });
                }
                Ok(Some(Frame::Pong(_))) if greeted => {}
                Ok(Some(_)) | Err(_) => return greeted,
            }
        }
        if now_ns < looked_ns + TICK_NS {
            continue;
        }
        looked_ns = now_ns;
        let ends = with(|far| (far.ends, far.overdue(now_ns))).is_none_or(|(ends, gone)| {
            drop(gone);
            ends
        });
        let patience_ns = if greeted { DEAD_NS } else { CONNECT_NS };
        if ends || out.is_closed() || now_ns - heard_ns > patience_ns {
            return greeted;
        }
        if now_ns - pinged_ns > PING_NS {
            pinged_ns = now_ns;
            out.push(&Frame::Ping(now_ns));
        }
    }
}

/// The run is over: the connection of this core ends within a tick.
pub(super) fn end() {
    with(|far| far.ends = true);
}

/// What the cores' connections have counted; this core's part.
pub(super) fn counted(all: &mut Vec<Counted>) {
    with(|far| {
        let counts = far.counts();
        let of = |of: &AtomicU64| of.load(Relaxed);
        for (name, count) in [
            ("second process: connections", of(&counts.connected)),
            ("second process: connections lost", of(&counts.lost)),
            ("second process: connections without a descriptor", of(&counts.no_descriptor)),
            ("second process: requests carried", of(&counts.carried)),
            ("second process: answers", of(&counts.answered)),
            ("second process: requests given up", of(&counts.given_up)),
            ("second process: requests withdrawn", of(&counts.ended)),
            ("second process: requests not carried", of(&counts.not_carried)),
            ("second process: answers for nobody", of(&counts.late)),
            ("second process: bytes received", of(&counts.received)),
            ("second process: way there and back, ns", of(&counts.way_ns)),
            ("longest way to the second process and back, ns", of(&counts.way_max_ns)),
        ] {
            all.push((name.to_owned(), count));
        }
    });
}
