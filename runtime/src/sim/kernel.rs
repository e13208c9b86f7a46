//! The kernel behind one simulated ring. It does what the ring is asked for on the real descriptors, at an instant that
//! is drawn, and says so when the shard looks at its completions. What would wait is tried again when its descriptor
//! is ready; it keeps nobody from coming to rest.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;

use super::Faults;
use super::calls::{self, Done, Kind};
use super::fate::Fate;
use super::ring::Air;
use super::trace::What;
use crate::op::{Abilities, Body, Completion, Key, Op, Pool, Table};

/// What lies in a buffer that a ring may fill: who still reads one that it has given back sees nothing else, and who
/// writes there is found.
const POISON: u8 = 0xa5;

/// What a table has broken, in words.
pub(super) type Broken = &'static str;

/// Whether an operation is to be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    No,
    Yes,
    /// It was about to be tried: once more, and then it is cancelled.
    Late,
}

/// An operation that has not ended.
struct Pending {
    key: Key,
    kind: Kind,
    /// As the kernel keeps it.
    file: Option<Rc<OwnedFd>>,
    /// When it is tried; `None` while its descriptor is not ready.
    due_ns: Option<u64>,
    cancel: Cancel,
    /// Bytes that a send has moved so far.
    moved: usize,
    /// All is done but to say that the buffer is not read any more.
    only_notifies: bool,
}

/// Who has a buffer, and what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The shard has it.
    Away,
    Fresh,
    Poisoned,
}

/// What a try came to.
enum Tried {
    Waits,
    Ends(Ended),
}

/// The end of a try.
struct Ended {
    /// A count or a negated errno.
    result: i32,
    /// The descriptor that was made.
    made: Option<OwnedFd>,
    /// The buffer that was filled.
    buffer: Option<u16>,
}

impl Tried {
    const fn result(result: i32) -> Self {
        Self::Ends(Ended { result, made: None, buffer: None })
    }

    const fn moved(bytes: usize) -> Self {
        Self::result(count(bytes))
    }
}

/// The kernel.
pub(super) struct Kernel {
    abilities: Abilities,
    pending: Vec<Pending>,
    pool: Option<Rc<Pool>>,
    lent: Vec<u16>,
    /// By buffer.
    marks: Vec<Mark>,
    /// Completions that the shard has not looked at, and those that it has and did not take.
    said: VecDeque<Completion>,
    seen: Vec<Completion>,
    broken: Option<Broken>,
}

impl Kernel {
    pub(super) fn new(faults: &Faults) -> Self {
        let abilities = Abilities {
            multishot_accept: !faults.no_multishot_accept,
            multishot_recv: !faults.no_multishot_recv,
            send_zc: !faults.no_send_zc,
        };
        let (pending, lent, marks) = (Vec::new(), Vec::new(), Vec::new());
        let (said, seen) = (VecDeque::new(), Vec::new());
        Self { abilities, pending, pool: None, lent, marks, said, seen, broken: None }
    }

    pub(super) const fn abilities(&self) -> Abilities {
        self.abilities
    }

    pub(super) const fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether there are completions that the shard has not looked at.
    pub(super) fn has_said(&self) -> bool {
        !self.said.is_empty()
    }

    /// Whether there are completions that it has looked at and not taken.
    pub(super) const fn has_seen(&self) -> bool {
        !self.seen.is_empty()
    }

    /// The shard looks at its completions: all of them, or the first.
    pub(super) fn reap(&mut self, air: &mut Air) {
        if !self.said.is_empty() {
            let count = if air.rng.below(4) > 0 { self.said.len() } else { 1 };
            self.seen.extend(self.said.drain(..count));
        }
    }

    pub(super) fn take(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.seen);
    }

    /// When the next operation is tried; `None` when all wait.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.pending.iter().filter_map(|pending| pending.due_ns).min()
    }

    /// An operation has come.
    pub(super) fn begin(
        &mut self,
        key: Key,
        kind: Kind,
        file: Option<Rc<OwnedFd>>,
        air: &mut Air,
    ) -> What {
        air.exact &= file.as_deref().is_none_or(|file| calls::repeats(file, kind));
        let delay_ns = air.op_delay_ns();
        let due_ns = Some(air.now_ns + delay_ns);
        let (cancel, moved, only_notifies) = (Cancel::No, 0, false);
        self.pending.push(Pending { key, kind, file, due_ns, cancel, moved, only_notifies });
        What::Begun(kind, delay_ns)
    }

    /// A cancellation has come. One that finds nothing says nothing.
    pub(super) fn cancel(&mut self, key: Key, air: &mut Air) -> Option<What> {
        let late = air.rng.happens(air.faults.cancels_late_ppm);
        let delay_ns = air.op_delay_ns();
        let found = |pending: &&mut Pending| pending.key == key && !pending.only_notifies;
        let pending = self.pending.iter_mut().find(found)?;
        pending.cancel = if late { Cancel::Late } else { Cancel::Yes };
        pending.due_ns = Some(air.now_ns + delay_ns);
        Some(What::Cancels(pending.kind, delay_ns))
    }

    /// Looks which of the operations that wait are ready, at rest or after a move; whether any is. Of a socket that is
    /// not connected nobody knows, so that its connect is tried after each move, and not at rest.
    pub(super) fn look(&mut self, shard: usize, at_rest: bool, air: &mut Air) -> bool {
        // What has no file is done when it is due, and never waits.
        let waits = move |pending: &Pending| {
            let skipped = at_rest && pending.kind == Kind::Connect;
            pending.due_ns.is_none() && pending.file.is_some() && !skipped
        };
        let files = self.pending.iter().filter(|pending| waits(pending));
        let files =
            files.filter_map(|pending| Some((pending.file.as_ref()?.as_fd(), pending.kind)));
        let ready: Vec<bool> = calls::ready(files).collect();
        let waiting = self.pending.iter_mut().filter(|pending| waits(pending));
        let mut found = false;
        for (pending, _) in waiting.zip(ready).filter(|(_, ready)| *ready) {
            let delay_ns = air.op_delay_ns();
            pending.due_ns = Some(air.now_ns + delay_ns);
            air.noted.push((shard, What::Ready(pending.kind, delay_ns)));
            found = true;
        }
        found
    }

    /// Tries the operation that is due next.
    pub(super) fn serve(
        &mut self,
        table: &mut Table,
        air: &mut Air,
    ) -> Result<Option<What>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let due = self.pending.iter().enumerate().filter_map(|(at, p)| Some((p.due_ns?, at))).min();
        let Some((_, at)) = due.filter(|(due_ns, _)| *due_ns <= air.now_ns) else {
            return Ok(None);
        };
        let Pending { key, kind, only_notifies, .. } = self.pending[at];
        let Some(body) = table.flying(key) else {
            return Err("an operation was given up before its last completion");
        };
        if only_notifies {
            self.pending.remove(at);
            self.say(key, 0, Word { notification: true, ..Word::LAST }, air);
            return Ok(Some(What::Freed(kind)));
        }
        match self.attempt(at, body, air)? {
            Tried::Waits => {
                let pending = &mut self.pending[at];
                pending.due_ns = None;
                Ok(Some(What::Blocks(kind)))
            }
            Tried::Ends(ended) => {
                let result = ended.result;
                self.end(at, &body.op, ended, air);
                Ok(Some(What::Done(kind, result)))
            }
        }
    }
}

/// What a completion says beside its result.
#[derive(Default)]
struct Word {
    more: bool,
    notification: bool,
    buffer: Option<u16>,
    made: Option<OwnedFd>,
}

impl Word {
    const LAST: Self = Self { more: false, notification: false, buffer: None, made: None };
}

impl Kernel {
    fn say(&mut self, key: Key, result: i32, word: Word, air: &mut Air) {
        let Word { more, notification, buffer, made } = word;
        if !more && air.rng.happens(air.faults.completions_lost_ppm) {
            return;
        }
        self.said.push_back(Completion { key, result, more, notification, buffer, made });
    }

    /// Tries an operation: does it, in part or not at all.
    fn attempt(&mut self, at: usize, body: &mut Body, air: &mut Air) -> Result<Tried, Broken> {
        let Pending { kind, cancel, moved, .. } = self.pending[at];
        if cancel == Cancel::Yes {
            return Ok(cancelled(moved));
        }
        let left = wanted(body, self.pool.as_deref()) - moved;
        let part = |thousandths: usize| (left * thousandths / 1_000).max(1);
        let fate = Fate::draw(&mut air.rng, &air.faults, &body.op);
        let most = match fate {
            Fate::Nothing => left,
            Fate::Short(thousandths) => part(thousandths),
            // What is known to have been done is said, and not the error.
            Fate::Fails(..) if moved > 0 => return Ok(Tried::moved(moved)),
            Fate::Fails(errno, thousandths) => {
                if let Some(thousandths) = thousandths {
                    _ = self.perform(at, body, part(thousandths), air)?;
                } else if kind == Kind::Close {
                    _ = self.perform(at, body, 0, air)?;
                }
                return Ok(Tried::result(-errno));
            }
        };
        let tried = self.perform(at, body, most, air)?;
        let short = most < left && kind.leaves_marks();
        Ok(match tried {
            Tried::Waits if cancel == Cancel::Late => cancelled(self.pending[at].moved),
            Tried::Ends(Ended { result: 1.., .. })
                if short && air.rng.happens(air.faults.counts_overstated_ppm) =>
            {
                Tried::moved(moved + left)
            }
            tried => tried,
        })
    }

    /// Does it, `most` bytes of it at most.
    fn perform(
        &mut self,
        at: usize,
        body: &mut Body,
        most: usize,
        air: &mut Air,
    ) -> Result<Tried, Broken> {
        if matches!(body.op, Op::Recv { multi: true }) {
            return self.receive(body, most, air);
        }
        let pending = &mut self.pending[at];
        let sends = pending.kind == Kind::Send;
        let end = pending.moved + most;
        loop {
            let done = calls::perform(body, pending.moved, end - pending.moved);
            return Ok(match done {
                // A send goes on until all is sent.
                Ok(Done { count, .. }) if sends && count > 0 && pending.moved + count < end => {
                    pending.moved += count;
                    continue;
                }
                Ok(Done { count: more, made }) => {
                    let moved = if sends { pending.moved + more } else { more };
                    Tried::Ends(Ended { result: count(moved), made, buffer: None })
                }
                Err(Errno::AGAIN) => Tried::Waits,
                Err(_) if pending.moved > 0 => Tried::moved(pending.moved),
                Err(errno) => Tried::result(-errno.raw_os_error()),
            });
        }
    }

    /// Receives into one of the buffers that are lent.
    fn receive(&mut self, body: &Body, most: usize, air: &mut Air) -> Result<Tried, Broken> {
        let (Some(pool), Some(file)) = (&self.pool, body.file.as_deref()) else {
            return Err("a receive into lent buffers has none, or no descriptor");
        };
        if self.lent.is_empty() {
            return Ok(Tried::result(-libc::ENOBUFS));
        }
        let place = air.rng.index(self.lent.len());
        let buffer = self.lent[place];
        let mut lease = pool.lease(buffer, pool.size());
        let poisoned = self.marks[usize::from(buffer)] == Mark::Poisoned;
        let touched = poisoned && lease.iter().any(|&byte| byte != POISON);
        let received = calls::recv(file, &mut lease, most);
        lease.into_buffer();
        if touched {
            return Err("a buffer was written while it was the ring's");
        }
        Ok(match received {
            Ok(Done { count: 0, .. }) => Tried::result(0),
            Ok(Done { count: received, .. }) => {
                self.lent.swap_remove(place);
                self.marks[usize::from(buffer)] = Mark::Away;
                Tried::Ends(Ended { result: count(received), made: None, buffer: Some(buffer) })
            }
            Err(Errno::AGAIN) => Tried::Waits,
            Err(errno) => Tried::result(-errno.raw_os_error()),
        })
    }

    /// Says what a try came to, and whether more is to come.
    fn end(&mut self, at: usize, op: &Op, tried: Ended, air: &mut Air) {
        let Ended { result, made, buffer } = tried;
        let pending = &mut self.pending[at];
        let key = pending.key;
        let goes_on = match op {
            Op::Accept { multi } => *multi && made.is_some(),
            Op::Recv { multi } => *multi && result > 0,
            _ => false,
        };
        let goes_on = goes_on && !air.rng.happens(air.faults.streams_ended_ppm);
        let lends = matches!(op, Op::Send { zero_copy: true, .. }) && self.abilities.send_zc;
        let notifies = lends && (result > 0 || air.rng.below(2) == 0);
        let more = goes_on || notifies;
        if more {
            pending.due_ns = Some(air.now_ns + air.op_delay_ns());
            pending.only_notifies = notifies;
            if pending.cancel == Cancel::Late {
                pending.cancel = Cancel::Yes;
            }
        } else {
            self.pending.remove(at);
        }
        self.say(key, result, Word { more, notification: false, buffer, made }, air);
    }

    /// Is given buffers to fill.
    pub(super) fn lend(&mut self, pool: &Rc<Pool>, air: &mut Air) -> bool {
        if self.pool.is_some() {
            return true;
        }
        if air.rng.happens(air.faults.lends_refused_ppm) {
            self.abilities.multishot_recv = false;
            return false;
        }
        pool.lend();
        self.marks = vec![Mark::Fresh; usize::from(pool.count())];
        pool.hand_over(|idle| self.lent.extend(idle));
        self.pool = Some(Rc::clone(pool));
        true
    }

    /// Has buffers back that it had filled.
    pub(super) fn give(&mut self, buffers: &[u16]) {
        let Some(pool) = &self.pool else { return };
        for &buffer in buffers {
            let mark = &mut self.marks[usize::from(buffer)];
            if std::mem::replace(mark, Mark::Poisoned) != Mark::Away {
                self.broken = Some("a buffer was given to the ring twice");
                return;
            }
            let mut lease = pool.lease(buffer, pool.size());
            lease.fill(POISON);
            self.lent.push(lease.into_buffer());
        }
    }
}

const fn cancelled(moved: usize) -> Tried {
    match moved {
        0 => Tried::result(-libc::ECANCELED),
        moved => Tried::moved(moved),
    }
}

/// Bytes that an operation is to move, all in all.
fn wanted(body: &Body, pool: Option<&Pool>) -> usize {
    match &body.op {
        Op::Recv { multi: true } => pool.map_or(0, |pool| pool.size() as usize),
        Op::Recv { multi: false } => body.payload.bytes().len(),
        Op::Send { len, .. } | Op::Read { len, .. } | Op::Write { len, .. } => *len as usize,
        _ => 0,
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 2^30")]
const fn count(bytes: usize) -> i32 {
    bytes as i32
}
