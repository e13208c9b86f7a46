//! The workload `wait_for_messages`: the polling baseline on the same runtime, mailboxes, log and index.
//!
//! ```text
//! asker -- message --> [box of the addressee's core: log, index] <-- looks every interval -- addressee
//! asker -- looks every interval --> [box of the asker's core: log, index] <-- answer, when it is due --'
//! ```
//!
//! A request is a message that waits in the addressee's box until its next look, and so does the answer in
//! the asker's: with interval `T` each waits U(0, T). `request_path` and `reply_path` of the report are those
//! waits. The looks of an agent are timers of its core's box (`office.rs`), without a message: the cheapest
//! way there is. Nothing is signed or limited here.

mod office;

use std::cell::RefCell;
use std::sync::Arc;

use tailbeam_runtime::{Addr, Cx};

use super::draw::Stream;
use super::exchange::ReplyTo;
use super::middle::{Middle, MiddleAgent, MiddleMsg, Setup};
use super::workload::{AgentInfo, Asking, Outgoing, Settled, Workload};
use crate::plan::Span;

/// Timer token of the first call.
const FIRST: u64 = 1 << 61;

/// An agent that sends, looks and answers.
#[derive(Debug)]
pub struct Poll {
    info: AgentInfo,
    text: Arc<[u8]>,
    answer: Arc<[u8]>,
    /// The messages up to this one are taken.
    cursor: Option<u64>,
    pending: Vec<Option<ReplyTo<Self>>>,
    free: Vec<u32>,
}

/// What all agents of a core share.
struct Core {
    /// One text for all, when its length is given.
    text: Option<Arc<[u8]>>,
    shards: u32,
    interval_ns: u64,
    office: Option<Addr<MiddleAgent<Poll>>>,
    full: u64,
    fleet: Arc<super::host::Fleet<Poll>>,
    shard: u16,
}

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
}

fn with<R>(f: impl FnOnce(&mut Core) -> R) -> R {
    CORE.with(|cell| f(cell.borrow_mut().as_mut().expect("installed before any agent is made")))
}

/// Answers that were not given because the addressee held as many as it may.
fn full() -> u64 {
    with(|core| core.full)
}

impl Poll {
    /// Calls wait_for_messages at its own core's box.
    fn wait(&self, cx: &mut Cx<'_>) {
        let office = with(|core| {
            let find = || core.fleet.middle(core.shard);
            core.office = core.office.or_else(find);
            core.office
        });
        let (receiver, cursor) = (self.info.index, self.cursor);
        if let Some(office) = office {
            // One call per agent is under way, and its box has room for more calls than that.
            drop(office.try_send(cx, MiddleMsg::Wait { receiver, cursor }));
        }
    }

    fn core_of(agent: u32, shards: u32) -> u16 {
        u16::try_from(agent % shards).expect("at most 255 cores")
    }
}

impl Workload for Poll {
    const NAME: &'static str = "wait_for_messages";
    const ABOUT: &'static str =
        "the same requests by polling: sleep-poll, or long-poll with --long-poll";
    const DELAY: Span = Span::ms(100, 500);
    const MIDDLE: bool = true;
    type Request = Arc<[u8]>;
    type Reply = Arc<[u8]>;

    fn new(info: AgentInfo) -> Self {
        let text = with(|core| core.text.clone())
            .unwrap_or_else(|| format!("Request from agent_{}", info.index).into_bytes().into());
        let answer = format!("{{\"response\":\"From agent_{}\"}}", info.index).into_bytes().into();
        Self { info, text, answer, cursor: None, pending: Vec::new(), free: Vec::new() }
    }

    fn request(&mut self, _: u64) -> Arc<[u8]> {
        Arc::clone(&self.text)
    }

    fn middle(setup: &Setup<Self>) -> Option<Box<dyn Middle<Self>>> {
        let plan = setup.plan();
        let bytes = plan.protocol.message_bytes as usize;
        let core = Core {
            text: (bytes > 0).then(|| vec![b'x'; bytes].into()),
            shards: u32::try_from(setup.shards).expect("at most 255 cores"),
            interval_ns: plan.protocol.poll.interval_ns,
            office: None,
            full: 0,
            fleet: Arc::clone(&setup.fleet),
            shard: u16::try_from(setup.shard).expect("at most 255 cores"),
        };
        CORE.with(|cell| *cell.borrow_mut() = Some(core));
        Some(Box::new(office::Office::new(setup)))
    }

    fn ask(&mut self, asking: Asking, _: &mut Cx<'_>) -> Result<Outgoing<Arc<[u8]>>, Settled> {
        let shards = with(|core| core.shards);
        Ok(Outgoing {
            request: Arc::clone(&self.text),
            out: Some(Self::core_of(asking.to, shards)),
            back: Some(Self::core_of(self.info.index, shards)),
        })
    }

    fn begin(&mut self, start_ns: u64, cx: &mut Cx<'_>) {
        // The looks of a fleet that has run for long know nothing of each other.
        let interval = with(|core| core.interval_ns);
        let phase = self.info.draw.below(u64::MAX, Stream::Content, interval);
        if cx.notify_at(start_ns + phase, FIRST).is_err() {
            self.wait(cx);
        }
    }

    async fn serve(&mut self, _: Arc<[u8]>, reply: ReplyTo<Self>, cx: &mut Cx<'_>) {
        let held = self.pending.len() - self.free.len();
        if held >= self.info.pending_max as usize {
            with(|core| core.full += 1);
            return;
        }
        let due = reply.due_ns();
        if due <= cx.fresh_ns() {
            return reply.send(cx, Arc::clone(&self.answer));
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            u32::try_from(self.pending.len() - 1).expect("bounded by pending_max, a u32")
        });
        self.pending[index as usize] = Some(reply);
        if cx.notify_at(due, u64::from(index)).is_err() {
            with(|core| core.full += 1);
            self.free.push(index);
            self.pending[index as usize] = None;
        }
    }

    fn on_timer(&mut self, token: u64, cx: &mut Cx<'_>) {
        if token == FIRST {
            return self.wait(cx);
        }
        let Ok(index) = u32::try_from(token) else { return };
        let Some(reply) = self.pending.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        reply.send(cx, Arc::clone(&self.answer));
    }

    fn idle(&self) -> bool {
        self.pending.iter().all(Option::is_none)
    }

    fn settle(&mut self, answer: Arc<[u8]>) -> Settled {
        match answer.is_empty() {
            // The box was full.
            true => Settled::Refused,
            false => Settled::Ok,
        }
    }

    fn batch_taken(&mut self, cursor: Option<u64>, cx: &mut Cx<'_>) {
        self.cursor = cursor.or(self.cursor);
        self.wait(cx);
    }
}
