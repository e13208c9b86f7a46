//! The physical limit: `rtrb`'s ring between two pinned threads that spin. No agents, no mailboxes, no sleep.

use std::hint::spin_loop;
use std::thread;

use rtrb::{Consumer, Producer, RingBuffer};

use super::tasks::STREAM;
use super::{Begun, Job, Work};
use crate::place;
use crate::sheet::{Sheet, Tally};

/// A cell as ours: 48 bytes of message and 16 of header.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Cell([u64; 8]);

/// Starts `work`; a stream is published `batch` messages at once.
pub(crate) fn begin(work: Work, job: Job, batch: usize) -> Result<Begun, String> {
    match work {
        Work::Cross if batch == 1 => ping_pong(job),
        Work::Cross => return Ok(Begun::NotRun("one ask at a time is no batch".to_owned())),
        Work::Oneway => stream(job, batch),
        _ => return Ok(Begun::NotRun("a ring between two threads holds no agents".to_owned())),
    }
    Ok(Begun::Works)
}

fn ping_pong(job: Job) {
    let (there, mut questions) = RingBuffer::<u64>::new(64);
    let (mut back, answers) = RingBuffer::<u64>::new(64);
    let sheet = job.sheet;
    thread::spawn(move || {
        place::pin(job.cores[1]);
        while let Some(n) = take(&mut questions, sheet) {
            // There is one question at a time.
            let _ = back.push(n + 1);
        }
    });
    thread::spawn(move || {
        place::pin(job.cores[0]);
        ask(there, answers, Tally::new(sheet, 0, 1));
    });
}

fn ask(mut there: Producer<u64>, mut answers: Consumer<u64>, mut tally: Tally) {
    let mut n = 0;
    loop {
        tally.ask();
        let _ = there.push(n);
        match take(&mut answers, tally.sheet()) {
            Some(answer) => n = answer,
            None => return,
        }
        if !tally.answered() {
            return;
        }
    }
}

/// The next message; none when the sheet has closed.
fn take(from: &mut Consumer<u64>, sheet: &Sheet) -> Option<u64> {
    loop {
        match from.pop() {
            Ok(n) => return Some(n),
            Err(_) if sheet.is_open() => spin_loop(),
            Err(_) => return None,
        }
    }
}

fn stream(job: Job, batch: usize) {
    let (to, from) = RingBuffer::<Cell>::new(STREAM);
    let sheet = job.sheet;
    thread::spawn(move || {
        place::pin(job.cores[1]);
        receive(from, sheet);
    });
    thread::spawn(move || {
        place::pin(job.cores[0]);
        send(to, batch, sheet);
    });
}

fn send(mut to: Producer<Cell>, batch: usize, sheet: &Sheet) {
    while sheet.is_open() {
        match to.write_chunk_uninit(batch) {
            Ok(chunk) => drop(chunk.fill_from_iter((0..batch).map(|_| Cell([1; 8])))),
            Err(_) => spin_loop(),
        }
    }
}

/// Takes what is there, at most 256 at once, and gives the room back together.
fn receive(mut from: Consumer<Cell>, sheet: &Sheet) {
    let mut count = 0;
    while sheet.is_open() {
        match from.read_chunk(from.slots().min(256)) {
            Ok(chunk) if !chunk.is_empty() => {
                chunk.into_iter().for_each(|cell| count += std::hint::black_box(cell.0[0]));
                sheet.received(count);
            }
            _ => spin_loop(),
        }
    }
}
