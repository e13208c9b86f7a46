//! Workers as agents.

use std::sync::OnceLock;

use tailbeam_runtime::{Addr, Agent, Cx, Runtime, Stop};

use super::run_on;
use crate::peers::Job;
use crate::peers::actors::Book;
use crate::worker::{MAILBOX, Msg, Worker};

struct Asker(Worker, Book<Addr<Self>>);

impl Asker {
    fn handle(&mut self, msg: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let out = self.0.on(msg);
        self.wind(msg, cx)?;
        let Some((to, msg)) = out else { return Ok(()) };
        let book = self.1.get().ok_or(Stop)?;
        if book[to as usize].try_send(cx, msg).is_err() {
            self.0.refused();
        }
        Ok(())
    }

    fn wind(&self, last: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        let Some(due_ns) = self.0.due_after(last) else { return Ok(()) };
        cx.notify_at(due_ns, 0).map(|_| ()).map_err(|_| Stop)
    }
}

impl Agent for Asker {
    type Msg = Msg;
    const MAILBOX: u32 = MAILBOX as u32;

    async fn on(&mut self, msg: Msg, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.handle(msg, cx)
    }

    fn on_timer(&mut self, _: u64, cx: &mut Cx<'_>) -> Result<(), Stop> {
        self.handle(Msg::Due, cx)
    }
}

/// Agents that ask again as soon as they have their answers.
pub(super) fn closed(runtime: &Runtime, job: Job) -> Result<(), String> {
    let make = move |me| Worker::closed(job.sheet, me, job.agents);
    let book = spawn(runtime, job.agents, 2, make)?;
    (0..2).try_for_each(|shard| kick(runtime, shard, book, move |me| me % 2 == shard))
}

/// Agents that ask at given instants.
pub(super) fn thinking(runtime: &Runtime, job: Job) -> Result<(), String> {
    let make = move |me| Worker::thinking(job.sheet, me, job.agents);
    let book = spawn(runtime, job.agents, 2, make)?;
    job.sheet.start();
    (0..2).try_for_each(|shard| kick(runtime, shard, book, move |me| me % 2 == shard))
}

/// Two agents on one core, one of which asks.
pub(super) fn pair(runtime: &Runtime, job: Job) -> Result<(), String> {
    let book = spawn(runtime, 2, 1, move |me| Worker::closed(job.sheet, me, 2))?;
    kick(runtime, 0, book, |me| me == 0)
}

/// Spawns agent `i` on shard `i % shards`; returns their addresses.
fn spawn(
    runtime: &Runtime,
    agents: u32,
    shards: usize,
    make: impl Fn(u32) -> Worker + Copy + Send + 'static,
) -> Result<Book<Addr<Asker>>, String> {
    let book: Book<Addr<Asker>> = Box::leak(Box::new(OnceLock::new()));
    let mut lists = Vec::new();
    for shard in 0..shards {
        let list = run_on(runtime, shard, move |cx| {
            let mine = (0..agents).filter(|me| *me as usize % shards == shard);
            mine.map_while(|me| cx.spawn(Asker(make(me), book)).ok()).collect::<Vec<_>>()
        })?;
        lists.push(list.into_iter());
    }
    let all = (0..agents as usize).map(|me| lists[me % shards].next());
    let all: Option<Vec<_>> = all.collect();
    let _ = book.set(all.ok_or("not all agents could be spawned")?);
    Ok(book)
}

/// Starts those of a shard's agents that `who` picks.
fn kick(
    runtime: &Runtime,
    shard: usize,
    book: Book<Addr<Asker>>,
    who: impl Fn(usize) -> bool + Send + 'static,
) -> Result<(), String> {
    let refused = run_on(runtime, shard, move |cx| {
        let book = book.get().map_or(&[][..], Vec::as_slice);
        let mine = book.iter().enumerate().filter(|(me, _)| who(*me));
        mine.filter(|(_, agent)| agent.try_send(cx, Msg::Start).is_err()).count()
    })?;
    if refused > 0 { Err(format!("{refused} agents could not start")) } else { Ok(()) }
}
