//! The log as an agent: takes events, answers when they are as durable as was asked for.
//!
//! Its core is its own: nothing here waits in a system call (io_uring's kernel threads sync), but its turns
//! and those threads take time that agents elsewhere do not miss. While a write or a sync is under way the
//! agent takes further messages: they are the next batch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tailbeam_runtime::fs::File;
use tailbeam_runtime::{Addr, Agent, Cx, OpError, Reply, Stop};

use super::core::{Action, Core, CoreCounts, Entry, LogConfig};
use super::disk::Disk;
use super::format::Header;
use super::wall::Wall;
use crate::chaos::board::Board;

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// It has this number and is as durable as the log's configuration says.
    Kept(u64),
    /// The queue was full, or it is too large, or the log is dead: here it is again.
    Back(Box<Entry>),
    /// The log died with it: whether it is on the disk is not known.
    Lost,
}

/// How the log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What was counted.
    pub counts: CoreCounts,
    /// Events that wait or are under way.
    pub held: usize,
    /// Whether it has given up.
    pub dead: bool,
    /// The last write or sync has failed: it tries again with a new segment, and acknowledges nothing until that
    /// has worked.
    pub degraded: bool,
    /// What the kernel said last when something failed.
    pub last_error: Option<String>,
}

/// How far a log is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every event below this number is as durable as the log's configuration says.
    pub done: u64,
    /// It has given up: nothing further will be.
    pub dead: bool,
}

type Tell = dyn FnMut(&mut Cx<'_>, Progress) -> bool + Send;

/// Who is told of it; `false` when there was no room to tell.
pub struct Watch(Box<Tell>);

impl Watch {
    /// Calls `tell` on the log's core with each progress. What it could not tell it is told again later,
    /// with what came since.
    pub fn new(tell: impl FnMut(&mut Cx<'_>, Progress) -> bool + Send + 'static) -> Self {
        Self(Box::new(tell))
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watch")
    }
}

/// Between two tries to tell, ns.
const TELL_NS: u64 = 1_000_000;

/// What the log takes.
#[derive(Debug)]
pub enum LogMsg {
    /// An event, and who waits for its receipt; nobody with [`None`].
    Append(Box<Entry>, Option<Reply<Receipt>>),
    /// How it is.
    Health(Reply<Box<Health>>),
    /// Somebody who sends many events, in order and alone, and is told how far they are.
    Watch(Watch),
    /// The writer has nothing to do until this instant, ns.
    #[doc(hidden)]
    Due(u64),
}

/// The agent. Spawn it on a core that hosts no others.
pub struct LogAgent {
    shared: Rc<Shared>,
    timer: Option<u64>,
}

struct Shared {
    config: LogConfig,
    disk: Disk,
    wall: Wall,
    state: RefCell<State>,
}

struct State {
    core: Core,
    receipts: VecDeque<(u64, Reply<Receipt>)>,
    /// A writer is under way.
    busy: bool,
    file: Option<Rc<File>>,
    /// The next segment, made ahead.
    ready: Option<(u32, Rc<File>)>,
    /// It is being made: nobody else may touch its file, whose zeros are still being written.
    making: bool,
    /// The writer, when it waits for that.
    waits: Option<Waker>,
    last_error: Option<OpError>,
    watch: Option<Watch>,
    told: Progress,
    /// When a supervisor had the next segment begun last, ns.
    renewed_ns: u64,
    /// How often it had, since it began to: each waits twice as long as the one before, as each is 16 MiB of log.
    renewals: u32,
}

impl std::fmt::Debug for LogAgent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogAgent").field("dir", &self.shared.disk.dir()).finish_non_exhaustive()
    }
}

impl LogAgent {
    /// A log in `dir` that goes on at `next_seq` in segment `next_segment` (what [`super::recover_dir`]
    /// found). `wall_ns`: wall clock minus monotonic clock, ns. Make it where it is spawned.
    #[must_use]
    pub fn new(config: LogConfig, dir: PathBuf, next: (u64, u32), wall_ns: i64) -> Self {
        let core = Core::new(config, next.0, next.1);
        let receipts = VecDeque::new();
        let state = State {
            core,
            receipts,
            busy: false,
            file: None,
            ready: None,
            making: false,
            waits: None,
            last_error: None,
            watch: None,
            told: Progress::default(),
            renewed_ns: 0,
            renewals: 0,
        };
        let state = RefCell::new(state);
        let wall = Wall::ahead(wall_ns);
        let shared = Shared { config, disk: Disk::new(dir), wall, state };
        Self { shared: Rc::new(shared), timer: None }
    }

    /// Takes the wall clock of the run instead. Before it is spawned.
    ///
    /// # Panics
    /// When it works already.
    #[must_use]
    pub fn with_wall(mut self, wall: Wall) -> Self {
        Rc::get_mut(&mut self.shared).expect("a log that nobody works for yet").wall = wall;
        self
    }

    /// Lets a board plant faults in its disk. Before it is spawned.
    ///
    /// # Panics
    /// When it works already.
    #[must_use]
    pub fn planted(mut self, board: Option<Arc<Board>>) -> Self {
        let shared = Rc::get_mut(&mut self.shared).expect("a log that nobody works for yet");
        shared.disk.plant(board);
        self
    }

    fn health(&self) -> Health {
        let state = self.shared.state.borrow();
        Health {
            counts: *state.core.counts(),
            held: state.core.held(),
            dead: state.core.is_dead(),
            degraded: state.core.is_degraded(),
            last_error: state.last_error.as_ref().map(ToString::to_string),
        }
    }

    fn append(&self, entry: Entry, reply: Option<Reply<Receipt>>, cx: &mut Cx<'_>) {
        let mut state = self.shared.state.borrow_mut();
        match (state.core.offer(cx.now_ns(), entry), reply) {
            (Ok(seq), Some(reply)) => state.receipts.push_back((seq, reply)),
            (Err(entry), Some(reply)) => drop(reply.send(cx, Receipt::Back(Box::new(entry)))),
            // Nobody asked to be told; the core counts what it refuses.
            (Ok(_) | Err(_), None) => {}
        }
        state.receive(cx);
    }

    /// Begins the next segment if a supervisor wants that by now. What is not made ahead is made then, as when a segment is
    /// full: a disk without room is met where the log cannot go on.
    fn renew(&self, cx: &Cx<'_>) {
        let mut state = self.shared.state.borrow_mut();
        let Some(every_ns) = self.shared.disk.renews_every() else {
            (state.renewed_ns, state.renewals) = (0, 0);
            return;
        };
        let now_ns = cx.now_ns();
        let wait_ns = every_ns << state.renewals.saturating_sub(1).min(10);
        let early = now_ns < state.renewed_ns.saturating_add(wait_ns);
        if early || state.making || state.file.is_none() {
            return;
        }
        state.renewed_ns = now_ns;
        state.renewals += 1;
        state.core.renew();
        self.shared.disk.renewed();
    }

    /// Starts the writer if there is something to write now, or sees to it that it starts when there is.
    async fn work(&mut self, cx: &mut Cx<'_>) {
        let now_ns = cx.now_ns();
        let due = {
            let state = self.shared.state.borrow();
            if state.busy { Err(None) } else { state.core.due_at(now_ns) }
        };
        match due {
            Ok(()) => self.start(cx).await,
            Err(Some(at_ns)) if self.timer.is_none_or(|set_ns| set_ns > at_ns) => {
                self.timer = cx.notify_at(at_ns, at_ns).ok().map(|_| at_ns);
                // No room for a timer: the batch goes at once rather than never.
                if self.timer.is_none() {
                    self.start(cx).await;
                }
            }
            Err(_) => {}
        }
    }

    /// What could not be told is tried again.
    fn tell_later(&mut self, cx: &mut Cx<'_>) {
        let told = self.shared.state.borrow_mut().tell(cx);
        if !told {
            let at_ns = cx.now_ns() + TELL_NS;
            // Without room for a timer the next event tells.
            let _ = cx.notify_at(at_ns, at_ns);
        }
    }

    async fn start(&self, cx: &mut Cx<'_>) {
        self.shared.state.borrow_mut().busy = true;
        let (shared, me) = (Rc::clone(&self.shared), cx.me::<Self>());
        let spawned =
            cx.spawn_with(async move |cx: &mut Cx<'_>| write(&shared, Some(me), cx).await);
        if spawned.is_err() {
            // No room for a task: the agent writes itself and takes no message meanwhile.
            write(&self.shared, None, cx).await;
        }
    }
}

impl State {
    /// Answers whoever waits for what is acknowledged.
    fn receive(&mut self, cx: &mut Cx<'_>) {
        let (acked, dead) = (self.core.acked(), self.core.is_dead());
        while let Some((seq, _)) = self.receipts.front()
            && (dead || *seq < acked)
            && let Some((seq, reply)) = self.receipts.pop_front()
        {
            let receipt = if seq < acked { Receipt::Kept(seq) } else { Receipt::Lost };
            // An asker that has given up is no loss: the event is where it is.
            drop(reply.send(cx, receipt));
        }
        self.tell(cx);
    }

    /// Tells whoever watches, if there is something new; whether that is told.
    fn tell(&mut self, cx: &mut Cx<'_>) -> bool {
        let done = self.core.next_seq() - self.core.held() as u64;
        let now = Progress { done, dead: self.core.is_dead() };
        match &mut self.watch {
            Some(watch) if now != self.told => {
                let told = (watch.0)(cx, now);
                if told {
                    self.told = now;
                }
                told
            }
            _ => true,
        }
    }
}

/// Does what the core says until it has nothing to do.
async fn write(shared: &Rc<Shared>, me: Option<Addr<LogAgent>>, cx: &mut Cx<'_>) {
    loop {
        let action = shared.state.borrow_mut().core.next(cx.fresh_ns());
        match action {
            Action::Rotate { segment, first_seq } => {
                let begun = rotate(shared, segment, first_seq, cx).await;
                if begun.is_err() {
                    // Each try has a number of its own: what they leave would fill a disk.
                    shared.disk.remove(segment);
                }
                let mut state = shared.state.borrow_mut();
                state.core.rotated(begun.is_ok());
                state.note(begun);
            }
            Action::Write { at, bytes } => {
                let file = shared.state.borrow().file.clone();
                let file = file.expect("the core writes to a segment that was begun");
                let (written, bytes) = shared.disk.write(&file, bytes, at).await;
                let mut state = shared.state.borrow_mut();
                state.core.wrote(written.is_ok(), bytes);
                state.note(written);
            }
            Action::Sync => {
                let file = shared.state.borrow().file.clone();
                let file = file.expect("the core syncs what it wrote");
                let synced = shared.disk.sync(cx, &file).await;
                let mut state = shared.state.borrow_mut();
                state.core.synced(synced.is_ok());
                state.note(synced);
            }
            Action::Wait(until_ns) => {
                let told = {
                    let mut state = shared.state.borrow_mut();
                    state.busy = false;
                    state.tell(cx)
                };
                // What could not be told is tried again by a turn of the agent.
                let until_ns = if told { until_ns } else { until_ns.or(Some(0)) };
                if let (Some(at_ns), Some(me)) = (until_ns, me) {
                    // A full mailbox holds messages that start the writer as well.
                    drop(me.try_send(cx, LogMsg::Due(at_ns)));
                }
                return;
            }
            Action::Dead => {
                let mut state = shared.state.borrow_mut();
                state.busy = false;
                state.receive(cx);
                return;
            }
        }
        shared.state.borrow_mut().receive(cx);
    }
}

impl State {
    fn note(&mut self, result: Result<(), OpError>) {
        if let Err(error) = result {
            self.last_error = Some(error);
        }
    }
}

async fn rotate(
    shared: &Rc<Shared>,
    segment: u32,
    first_seq: u64,
    cx: &mut Cx<'_>,
) -> Result<(), OpError> {
    let ready = made(shared).await;
    let file = match ready {
        Some((number, file)) if number == segment => file,
        _ => {
            let made = shared.disk.prepare(cx, segment, shared.config.segment_bytes).await;
            shared.disk.came_to(&made);
            made?
        }
    };
    let mono_ns = cx.fresh_ns();
    let real_ns = shared.wall.real_ns(mono_ns);
    let header = Header { segment, first_seq, mono_ns, real_ns };
    shared.disk.begin(&file, header, shared.config.key).await?;
    shared.disk.told_the_time(shared.wall.skewed_ns());
    let old = shared.state.borrow_mut().file.replace(file);
    if let Some(old) = old.and_then(|old| Rc::try_unwrap(old).ok()) {
        // What was acknowledged in it was synced; that it closes badly says nothing of the new one.
        let closed = old.close().await;
        shared.state.borrow_mut().note(closed);
    }
    make_ahead(shared, segment + 1, cx);
    Ok(())
}

/// The segment that was made ahead, once nobody writes zeros to it any more.
async fn made(shared: &Shared) -> Option<(u32, Rc<File>)> {
    std::future::poll_fn(|context| {
        let mut state = shared.state.borrow_mut();
        if state.making {
            state.waits = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(state.ready.take())
    })
    .await
}

fn make_ahead(shared: &Rc<Shared>, next: u32, cx: &mut Cx<'_>) {
    shared.state.borrow_mut().making = true;
    let maker = Rc::clone(shared);
    let spawned = cx.spawn_with(async move |cx: &mut Cx<'_>| {
        let made = maker.disk.prepare(cx, next, maker.config.segment_bytes).await;
        let mut state = maker.state.borrow_mut();
        state.making = false;
        // One that failed is made again when it is needed; then the core counts the error.
        state.ready = made.ok().map(|file| (next, file));
        if let Some(writer) = state.waits.take() {
            writer.wake();
        }
    });
    if spawned.is_err() {
        // No room for a task: it is made when it is needed.
        shared.state.borrow_mut().making = false;
    }
}

impl Agent for LogAgent {
    type Msg = LogMsg;
    const MAILBOX: u32 = 16_384;

    async fn on(&mut self, msg: LogMsg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        match msg {
            LogMsg::Append(entry, reply) => {
                self.append(*entry, reply, cx);
                self.renew(cx);
                self.work(cx).await;
            }
            LogMsg::Health(reply) => drop(reply.send(cx, Box::new(self.health()))),
            LogMsg::Watch(watch) => {
                let mut state = self.shared.state.borrow_mut();
                state.watch = Some(watch);
                state.tell(cx);
            }
            LogMsg::Due(_) => self.work(cx).await,
        }
        self.tell_later(cx);
        Ok(())
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.timer = None;
        let me = cx.me::<Self>();
        // A full mailbox holds messages that start the writer as well.
        drop(me.try_send(cx, LogMsg::Due(0)));
        Ok(())
    }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
