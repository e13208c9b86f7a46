//! Agents on tokio: a task each, with a bounded mpsc channel as its mailbox.

use std::sync::{Arc, Barrier};
use std::thread;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::sheet::{Dice, Sheet, TIMED};
use crate::{Args, place};

enum Msg {
    Start,
    Ask(u32),
    Answer,
}

type Mailboxes = Arc<Vec<Sender<Msg>>>;

/// The same agent as on our runtime, message by message.
async fn agent(me: u32, mut inbox: Receiver<Msg>, all: Mailboxes, sheet: &'static Sheet) {
    let (mut dice, mut asked, mut sent_ns) = (Dice::new(me), 0u32, 0);
    let agents = u32::try_from(all.len()).unwrap_or(u32::MAX);
    while let Some(msg) = inbox.recv().await {
        let ask = match msg {
            Msg::Start => true,
            Msg::Ask(from) => {
                if all[from as usize].try_send(Msg::Answer).is_err() {
                    sheet.refused();
                    return;
                }
                false
            }
            Msg::Answer => {
                if asked.is_multiple_of(TIMED) {
                    sheet.answered(sent_ns);
                }
                asked += 1;
                sheet.completed(me, asked);
                sheet.is_open()
            }
        };
        if ask {
            if asked.is_multiple_of(TIMED) {
                sent_ns = sheet.now_ns();
            }
            let to = dice.other(me, agents);
            if all[to as usize].try_send(Msg::Ask(me)).is_err() {
                sheet.refused();
                return;
            }
        }
    }
}

fn mailboxes(agents: u32) -> (Mailboxes, Vec<Option<Receiver<Msg>>>) {
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..agents).map(|_| channel(64)).unzip();
    (Arc::new(senders), inboxes.into_iter().map(Some).collect())
}

/// One current_thread runtime per core; agent `i` lives on core `i % 2`.
pub(crate) fn current_thread(
    args: &Args,
    cores: [usize; 2],
    sheet: &'static Sheet,
) -> Result<(), String> {
    let (all, mut inboxes) = mailboxes(args.agents);
    let ready = Arc::new(Barrier::new(3));
    for (which, core) in cores.into_iter().enumerate() {
        let mine: Vec<(u32, Receiver<Msg>)> = (0u32..)
            .zip(&mut inboxes)
            .filter(|(me, _)| *me as usize % 2 == which)
            .filter_map(|(me, inbox)| Some((me, inbox.take()?)))
            .collect();
        let (all, ready) = (Arc::clone(&all), Arc::clone(&ready));
        thread::spawn(move || {
            place::pin(core);
            let runtime = Builder::new_current_thread().build().expect("a runtime");
            let starts: Vec<u32> = mine.iter().map(|(me, _)| *me).collect();
            for (me, inbox) in mine {
                runtime.spawn(agent(me, inbox, Arc::clone(&all), sheet));
            }
            ready.wait();
            for me in starts {
                let _ = all[me as usize].try_send(Msg::Start);
            }
            runtime.block_on(std::future::pending::<()>());
        });
    }
    ready.wait();
    Ok(())
}

/// The work-stealing runtime with two pinned workers.
pub(crate) fn multi_thread(
    args: &Args,
    cores: [usize; 2],
    sheet: &'static Sheet,
) -> Result<(), String> {
    let (all, inboxes) = mailboxes(args.agents);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            let which = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            place::pin(cores[which % 2]);
        })
        .build()
        .map_err(|error| error.to_string())?;
    for (me, inbox) in (0u32..).zip(inboxes) {
        let inbox = inbox.ok_or("each inbox is taken once")?;
        runtime.spawn(agent(me, inbox, Arc::clone(&all), sheet));
    }
    for mailbox in all.iter() {
        let _ = mailbox.try_send(Msg::Start);
    }
    std::mem::forget(runtime);
    Ok(())
}
