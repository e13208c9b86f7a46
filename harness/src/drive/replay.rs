//! The event logs of a run after it: what a run keeps of them on the way, and what they say when they are
//! read again.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::middles::Logs;
use crate::evidence::records::CountRecord;
use crate::log::{Recovered, format, recover_dir};
use crate::protocol::elicitation::wire::Bounds;
use crate::protocol::elicitation::{Event, Id, record};

/// Segments are kept for this long and the longest timeout: no elicitation, nonce or remembered end is older
/// (`OwnerConfig::closed_keep_ns` is the longest of them).
pub(super) const KEEP_NS: u64 = 60_000_000_000;
/// At most this much is read again at the end.
pub(super) const REPLAY_MAX: u64 = 4 << 30;

/// What was read again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Replayed {
    records: u64,
    began: u64,
    ended: u64,
    /// Ended twice, or began before what is kept.
    unmatched: u64,
    unreadable: u64,
    damaged: u64,
    pending: HashSet<Id>,
}

impl Replayed {
    fn take(&mut self, kind: u16, payload: &[u8]) {
        self.records += 1;
        if !matches!(kind, record::REQUESTED | record::CLOSED | record::VIOLATION) {
            return;
        }
        match record::decode(kind, payload, &Bounds::default()) {
            Ok(Event::Requested { id, .. }) => {
                self.began += 1;
                self.unmatched += u64::from(!self.pending.insert(id));
            }
            Ok(Event::Closed { id, .. }) => {
                self.ended += 1;
                self.unmatched += u64::from(!self.pending.remove(&id));
            }
            Ok(_) => {}
            Err(_) => self.unreadable += 1,
        }
    }
}

fn segments(dir: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter(|entry| {
            entry.file_name().to_str().is_some_and(|name| format::number_of(name).is_some())
        })
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Bytes of a log's segments.
pub(super) fn bytes(dir: &Path) -> u64 {
    segments(dir).iter().map(|(_, data)| data.len()).sum()
}

impl Logs {
    /// Takes segments away that hold nothing a restart would need. Not on a core with agents.
    pub(super) fn tidy(&mut self, timeout_ns: u64) {
        if self.keep {
            return;
        }
        let keep = Duration::from_nanos(KEEP_NS + timeout_ns);
        for dir in &self.dirs {
            let found = segments(dir);
            let Some(newest) = found.iter().filter_map(|(_, data)| data.modified().ok()).max()
            else {
                continue;
            };
            // The last write of a segment is that of its newest record. The last two are in use: the one that
            // is written, and the next one.
            let done = &found[..found.len().saturating_sub(2)];
            let old = done.iter().filter(|(_, data)| {
                let age = data.modified().ok().and_then(|at| newest.duration_since(at).ok());
                age.is_some_and(|age| age > keep)
            });
            for (path, data) in old {
                if fs::remove_file(path).is_ok() {
                    self.tidied += data.len();
                }
            }
        }
    }

    /// Reads the logs again, once nobody writes them any more.
    pub(super) fn replay(&self) -> Vec<CountRecord> {
        let bytes: u64 = self.dirs.iter().map(|dir| bytes(dir)).sum();
        let mut counts = Vec::new();
        let mut add = |name: &str, count: u64| {
            counts.push(CountRecord { name: name.to_owned(), count });
        };
        let Some(key) = self.key.filter(|_| !self.dirs.is_empty()) else { return counts };
        add("log: bytes at the end", bytes);
        add("log: bytes taken away on the way", self.tidied);
        if bytes > REPLAY_MAX {
            add("log: bytes not read again, as too many", bytes);
            return counts;
        }
        let mut all = Replayed::default();
        let mut numbers = 0;
        for dir in &self.dirs {
            match recover_dir(dir, key, None, |found| {
                all.take(found.record.kind, found.record.payload);
            }) {
                Ok(Recovered { damage, .. }) => all.damaged += damage.len() as u64,
                Err(_) => numbers += 1,
            }
        }
        add("read again: records", all.records);
        add("read again: began", all.began);
        add("read again: ended", all.ended);
        add("read again: ended without having begun", all.unmatched);
        add("read again: still pending", all.pending.len() as u64);
        add("read again: unreadable events", all.unreadable);
        add("read again: damaged places", all.damaged);
        add("read again: logs that cannot be read", numbers);
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::elicitation::State;

    #[test]
    fn an_end_without_a_beginning_and_a_second_end_are_seen() {
        let mut all = Replayed::default();
        let mut take = |event: &Event| {
            let mut payload = Vec::new();
            let kind = record::encode(event, &mut payload);
            all.take(kind, &payload);
        };
        let id = Id::new(0, 1, 2);
        let ended = Event::Closed { at_ns: 2, id, state: State::Declined, tag: None, data: None };
        let began = Event::Requested {
            at_ns: 1,
            id,
            from: 1,
            to: 2,
            expires_ns: 9,
            digest: crate::protocol::elicitation::Digest([0; 32]),
            message: b"m"[..].into(),
            schema: b"true"[..].into(),
        };
        take(&ended);
        take(&began);
        take(&ended);
        take(&ended);
        all.take(record::CLOSED, b"nothing");
        assert_eq!((all.began, all.ended, all.unmatched, all.unreadable), (1, 3, 2, 1));
        assert_eq!((all.records, all.pending.len()), (5, 0));
    }
}
