//! Damage in a copy of an event log, and whether reading it finds that damage, all of it, where it is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::checks::IS_NAMED;
use super::record::Check;
use super::scenario::Damage;
use crate::load::link::MARK;
use crate::log::format::{Header, Record, file_name, number_of};
use crate::log::scan::{Scanner, Segment};
use crate::log::{DamageKind, LogKey, Recovered};
use crate::protocol::elicitation::wire::Bounds;
use crate::protocol::elicitation::{Event, State, record};

/// Bytes of a page.
const PAGE: usize = 4_096;

/// Segments of a log in memory.
pub type Segments = BTreeMap<u32, Vec<u8>>;

/// What was done to a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Segment.
    pub segment: u32,
    /// Where the first damaged record begins.
    pub offset: u64,
    /// Numbers of the records that are damaged.
    pub seqs: Range<u64>,
}

/// A record's place.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u32,
    from: usize,
    to: usize,
    seq: u64,
    kind: u16,
}

/// Reads the segments of a log. The log may be written meanwhile: what comes later is not in it.
///
/// # Errors
/// The directory or a file of it cannot be read.
pub fn copied(dir: &Path) -> io::Result<Segments> {
    let mut found = Segments::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some(number) = name.to_str().and_then(number_of) {
            found.insert(number, fs::read(dir.join(file_name(number)))?);
        }
    }
    Ok(found)
}

fn scan(log: &Segments, key: LogKey, take: impl FnMut(Place, &[u8])) -> Recovered {
    scan_by(Scanner::new(key, None), log, key, take)
}

fn scan_by(
    mut scanner: Scanner,
    log: &Segments,
    key: LogKey,
    mut take: impl FnMut(Place, &[u8]),
) -> Recovered {
    let numbers: Vec<u32> = log.keys().copied().collect();
    for (index, number) in numbers.iter().enumerate() {
        let follower = numbers.get(index + 1);
        let head = follower.and_then(|n| Header::decode(&log[n], *n, key));
        let next_first = head.map(|header| header.first_seq);
        let segment =
            Segment { number: *number, bytes: &log[number], next_first, last: follower.is_none() };
        scanner.segment(segment, |found| {
            let from = usize::try_from(found.offset).unwrap_or(usize::MAX);
            let len = crate::log::format::record_len(found.record.payload.len());
            let place = Place {
                segment: *number,
                from,
                to: from + len,
                seq: found.record.seq,
                kind: found.record.kind,
            };
            take(place, found.record.payload);
        });
    }
    scanner.finish()
}

/// Records of which one is where a tail is cut off: the last that were promised.
const TAIL: usize = 4_096;

/// Damages a copy, of which everything below `durable` was promised, at a place that `draw` chooses; `None` when it has too
/// few records for that.
pub fn plant(
    log: &mut Segments,
    (key, durable): (LogKey, u64),
    damage: Damage,
    draw: u64,
) -> Option<Planted> {
    let mut places = Vec::new();
    scan(log, key, |place, _| places.push(place));
    // Not the first and none of the last: they have a damage of their own kind.
    let pick = |n: usize| usize::try_from(draw % n as u64).unwrap_or(0);
    let inner = places.get(1..places.len().checked_sub(64)?)?;
    let at = *inner.get(pick(inner.len().max(1)))?;
    let of = |places: &[Place]| {
        let (first, last) = (places.first()?, places.last()?);
        let seqs = first.seq..last.seq + 1;
        Some(Planted { segment: first.segment, offset: first.from as u64, seqs })
    };
    match damage {
        Damage::BitFlip => {
            let bytes = log.get_mut(&at.segment)?;
            let bit = pick((at.to - at.from) * 8);
            bytes[at.from + bit / 8] ^= 1 << (bit % 8);
            of(&[at])
        }
        Damage::ZeroedPage => {
            let bytes = log.get_mut(&at.segment)?;
            let page = at.from / PAGE * PAGE;
            let page = page.max(PAGE)..(page.max(PAGE) + PAGE).min(bytes.len());
            let hit: Vec<Place> = places
                .iter()
                .filter(|p| p.segment == at.segment && p.from < page.end && p.to > page.start)
                .copied()
                .collect();
            bytes[page].fill(0);
            of(&hit)
        }
        Damage::TruncatedTail => {
            // One that was promised, so that it is missed, and all that follow it.
            let promised = places.partition_point(|place| place.seq < durable);
            let first = promised.saturating_sub(TAIL);
            let gone = &places[first + pick((promised - first).max(1))..];
            let cut = gone.first().filter(|_| promised > 0)?;
            log.retain(|number, _| *number <= cut.segment);
            log.get_mut(&cut.segment)?.truncate(cut.from + (cut.to - cut.from) / 2);
            let (segment, offset) = (cut.segment, cut.from as u64);
            Some(Planted { segment, offset, seqs: cut.seq..gone.last()?.seq + 1 })
        }
        Damage::DuplicatedRecord => {
            let last = *places.last()?;
            log.retain(|number, _| *number <= last.segment);
            // Of the same segment: those of another have other sums.
            let again =
                places.iter().rev().nth(pick(32).max(1)).filter(|p| p.segment == last.segment);
            let again = *again.unwrap_or(&last);
            let bytes = log.get_mut(&last.segment)?;
            let copy = bytes[again.from..again.to].to_vec();
            bytes.truncate(last.to);
            bytes.extend_from_slice(&copy);
            let (segment, offset) = (last.segment, last.to as u64);
            Some(Planted { segment, offset, seqs: again.seq..again.seq })
        }
    }
}

/// One bit to flip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// What is damaged by that.
    pub planted: Planted,
    /// Byte of the segment.
    pub at: usize,
    /// Bit of that byte.
    pub bit: u8,
}

/// A bit of an event that `draw` chooses among those that end an elicitation; `None` when there are too few. Without such
/// an event its elicitation is pending again, and everything else of the log still follows: what a service makes of the log
/// can be said to the event.
#[must_use]
pub fn flip(log: &Segments, key: LogKey, draw: u64) -> Option<Flip> {
    let mut places = Vec::new();
    scan(log, key, |place, _| places.push(place));
    let inner = places.get(1..places.len().checked_sub(64)?)?;
    let ends: Vec<&Place> = inner.iter().filter(|of| of.kind == record::CLOSED).collect();
    let pick = |n: usize| usize::try_from(draw % n.max(1) as u64).unwrap_or(0);
    let at = ends.get(pick(ends.len()))?;
    let bit = pick((at.to - at.from) * 8);
    let planted = Planted { segment: at.segment, offset: at.from as u64, seqs: at.seq..at.seq + 1 };
    Some(Flip { planted, at: at.from + bit / 8, bit: u8::try_from(bit % 8).unwrap_or(0) })
}

/// Flips it in the log's directory, on the disk.
///
/// # Errors
/// What the kernel says.
pub fn flip_on_disk(dir: &Path, flip: &Flip) -> io::Result<()> {
    let path = dir.join(file_name(flip.planted.segment));
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, flip.at as u64)?;
    file.write_all_at(&[byte[0] ^ 1 << flip.bit], flip.at as u64)?;
    file.sync_data()
}

/// Whether reading the damaged copy names the damage, and gives everything else. `blind`: by a reader without checksums,
/// which is to be found out.
#[must_use]
pub fn examine(
    (before, after): (&Segments, &Segments),
    key: LogKey,
    planted: &Planted,
    blind: bool,
) -> Vec<Check> {
    let read = |log: &Segments, blind: bool| {
        let mut records = BTreeMap::new();
        let scanner = Scanner::new(key, None);
        let scanner = if blind { scanner.blind() } else { scanner };
        let found = scan_by(scanner, log, key, |place, payload| {
            records.insert(place.seq, crc32c::crc32c(payload));
        });
        (records, found)
    };
    let ((whole, _), (rest, found)) = (read(before, false), read(after, blind));
    let named = found
        .damage
        .iter()
        .find(|damage| damage.segment == planted.segment && damage.offset == planted.offset);
    let lost: Vec<u64> = whole.keys().filter(|seq| !rest.contains_key(seq)).copied().collect();
    let others: Vec<u64> = lost.iter().filter(|seq| !planted.seqs.contains(seq)).copied().collect();
    let changed = rest.iter().filter(|(seq, sum)| whole.get(seq) != Some(sum)).count();
    // Nothing in a log says how many records its tail had, and a duplicate is nothing that is missing.
    let tells =
        named.is_none_or(|of| !matches!(of.kind, DamageKind::TornTail | DamageKind::Duplicate));
    let told = named.is_some_and(|of| of.missing == Some((planted.seqs.start, planted.seqs.end)));
    let place = format!("segment {} at byte {}", planted.segment, planted.offset);
    let text = named.map_or_else(|| format!("nothing is said of {place}"), ToString::to_string);
    let mut checks = vec![Check::seen(IS_NAMED, named.is_some(), text.clone())];
    if tells {
        checks.push(Check::seen("and with what is missing", told, text));
    }
    checks.push(Check::seen(
        "every other record is read, as it was written",
        others.is_empty() && changed == 0,
        format!("{} read, {} others lost, {changed} changed", rest.len(), others.len()),
    ));
    checks
}

/// What a log holds of what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Numbers below the promised one that it does not give.
    pub lost: u64,
    /// Numbers below the told one that it does not give.
    pub lost_told: u64,
    /// Records that it gives.
    pub records: u64,
    /// Of those, events of elicitations: the others are marks of a beginning.
    pub events: u64,
    /// Of those, ends by an answer: accepted, or declined.
    pub answers: u64,
    /// What else there is to say of it.
    pub scanned: Recovered,
}

/// Reads a log of which everything below `promised` was said to be durable, and of which what is below `told` was told.
#[must_use]
pub fn promised(log: &Segments, key: LogKey, promised: u64, told: u64) -> Kept {
    let (mut below, mut told_kept, mut records, mut events, mut answers) = (0, 0, 0, 0, 0);
    let scanned = scan(log, key, |place, payload| {
        records += 1;
        answers += u64::from(place.kind == record::CLOSED && is_answer(payload));
        events += u64::from(place.kind != MARK);
        below += u64::from(place.seq < promised);
        told_kept += u64::from(place.seq < told);
    });
    let (lost, lost_told) = (promised.saturating_sub(below), told.saturating_sub(told_kept));
    Kept { lost, lost_told, records, events, answers, scanned }
}

/// How many of the records that were damaged on purpose say that an elicitation was answered.
#[must_use]
pub fn answers_of(log: &Segments, key: LogKey, planted: &Planted) -> u64 {
    let mut answers = 0;
    scan(log, key, |place, payload| {
        let ours = planted.seqs.contains(&place.seq) && place.kind == record::CLOSED;
        answers += u64::from(ours && is_answer(payload));
    });
    answers
}

/// Whether an event that ends an elicitation says that it was answered.
fn is_answer(payload: &[u8]) -> bool {
    let event = record::decode(record::CLOSED, payload, &Bounds::default());
    matches!(event, Ok(Event::Closed { state: State::Accepted | State::Declined, .. }))
}

/// Whether a log whose tail was cut off in the middle of promised records is found to lack exactly those that are gone:
/// nothing in it says how many it had, what was said to be durable does.
#[must_use]
pub fn missed(cut: &Segments, key: LogKey, durable: u64, planted: &Planted) -> Check {
    let (gone, lost) =
        (durable.saturating_sub(planted.seqs.start), promised(cut, key, durable, 0).lost);
    let text = format!("{lost} of {durable} that were said to be durable, {gone} were cut off");
    let name = "what was promised and is cut off is missed";
    if gone == 0 {
        return Check::unknown(name, format!("none of it had been promised: {text}"));
    }
    Check::seen(name, lost == gone, text)
}

/// A log of so many records, for tests.
#[doc(hidden)]
#[must_use]
pub fn made(key: LogKey, records: u64) -> Segments {
    let mut log = Segments::new();
    let mut seq = 0;
    for segment in 0..2 {
        let mut bytes =
            Header { segment, first_seq: seq, mono_ns: 1, real_ns: 1 }.encode(key).to_vec();
        for _ in 0..records / 2 {
            let len = usize::try_from(40 + seq % 7 * 30).unwrap_or(40);
            let payload = vec![seq.to_le_bytes()[0]; len];
            let kind = if seq % 3 == 0 { record::CLOSED } else { 1 };
            let record = Record { seq, durable: seq, kind, version: 1, payload: &payload };
            record.encode(key.salt(segment), &mut bytes);
            seq += 1;
        }
        bytes.resize(bytes.len() + 8_192, 0);
        log.insert(segment, bytes);
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LogKey = LogKey([3; 16]);
    const ALL: [Damage; 4] =
        [Damage::BitFlip, Damage::TruncatedTail, Damage::ZeroedPage, Damage::DuplicatedRecord];

    #[test]
    fn every_damage_is_found_where_it_is() {
        let whole = made(KEY, 2_000);
        for damage in ALL {
            for draw in 0..200 {
                let mut log = whole.clone();
                let planted = plant(&mut log, (KEY, 2_000), damage, draw * 7_919).unwrap();
                assert_ne!(log, whole);
                for check in examine((&whole, &log), KEY, &planted, false) {
                    assert_eq!(check.holds, Some(true), "{damage:?} {draw}: {check:?} {planted:?}");
                }
            }
        }
    }

    #[test]
    fn a_tail_that_is_cut_off_is_missed_by_what_was_promised() {
        let whole = made(KEY, 2_000);
        let mut lengths = std::collections::BTreeSet::new();
        for draw in 0..200 {
            let mut log = whole.clone();
            let planted =
                plant(&mut log, (KEY, 2_000), Damage::TruncatedTail, draw * 7_919).unwrap();
            lengths.insert(planted.seqs.end - planted.seqs.start);
            let holds = |durable| missed(&log, KEY, durable, &planted).holds;
            assert_eq!(holds(2_000), Some(true), "{planted:?}");
            assert_eq!(holds(planted.seqs.start), None, "nothing was promised of it");
            let mut young = whole.clone();
            let of = plant(&mut young, (KEY, 500), Damage::TruncatedTail, draw * 7_919).unwrap();
            assert!(of.seqs.start < 500, "cut off behind what was promised: {of:?}");
            let Some(before) = planted.seqs.start.checked_sub(1) else { continue };
            let others = Planted { seqs: before..planted.seqs.end, ..planted.clone() };
            assert_eq!(missed(&log, KEY, 2_000, &others).holds, Some(false), "one more is there");
        }
        assert!(lengths.len() > 50, "always the same tail: {lengths:?}");
    }

    #[test]
    fn a_reader_that_is_told_the_wrong_place_or_loses_more_fails() {
        let whole = made(KEY, 2_000);
        let mut log = whole.clone();
        let planted = plant(&mut log, (KEY, 2_000), Damage::BitFlip, 99).unwrap();
        let failed = |log: &Segments, planted: &Planted| {
            examine((&whole, log), KEY, planted, false)
                .iter()
                .any(|check| check.holds == Some(false))
        };
        assert!(failed(&log, &Planted { offset: planted.offset + 8, ..planted.clone() }));
        let narrow = planted.seqs.start..planted.seqs.start;
        assert!(failed(&log, &Planted { seqs: narrow, ..planted.clone() }));
        let mut more = log.clone();
        plant(&mut more, (KEY, 2_000), Damage::BitFlip, 12_345).unwrap();
        assert!(failed(&more, &planted), "another record is lost");
        assert!(failed(&whole, &planted), "nothing is found");
    }

    #[test]
    fn a_reader_without_checksums_is_found_out() {
        let whole = made(KEY, 2_000);
        // A bit of a record's form is seen without them too; most bits are of its contents.
        let found_out = (0..200).filter(|draw| {
            let mut log = whole.clone();
            let planted = plant(&mut log, (KEY, 2_000), Damage::BitFlip, draw * 7_919).unwrap();
            let checks = examine((&whole, &log), KEY, &planted, true);
            checks.iter().any(|check| check.holds == Some(false))
        });
        assert!(found_out.count() > 150);
    }

    #[test]
    fn a_bit_on_the_disk_damages_the_event_that_was_chosen_and_no_other() {
        let whole = made(KEY, 2_000);
        let dir = tempfile::tempdir().unwrap();
        for (number, bytes) in &whole {
            fs::write(dir.path().join(file_name(*number)), bytes).unwrap();
        }
        for draw in 0..40 {
            let chosen = flip(&whole, KEY, draw * 7_919).unwrap();
            flip_on_disk(dir.path(), &chosen).unwrap();
            let damaged = copied(dir.path()).unwrap();
            for check in examine((&whole, &damaged), KEY, &chosen.planted, false) {
                assert_eq!(check.holds, Some(true), "{draw}: {check:?} {chosen:?}");
            }
            flip_on_disk(dir.path(), &chosen).unwrap();
        }
        assert_eq!(copied(dir.path()).unwrap(), whole);
        assert!(flip(&made(KEY, 20), KEY, 5).is_none(), "too few");
    }

    #[test]
    fn what_was_promised_and_is_not_there_is_counted() {
        let mut log = made(KEY, 2_000);
        let kept = |log: &Segments, told| {
            let kept = promised(log, KEY, 2_000, told);
            (kept.lost, kept.lost_told)
        };
        assert_eq!(
            (kept(&log, 2_000), kept(&log, 2_003)),
            ((0, 0), (0, 3)),
            "told of more than is there"
        );
        plant(&mut log, (KEY, 2_000), Damage::BitFlip, 5).unwrap();
        assert_eq!(kept(&log, 2_000), (1, 1));
        log.remove(&1);
        assert_eq!((kept(&log, 2_000), kept(&log, 0)), ((1_001, 1_001), (1_001, 0)));
        assert!(plant(&mut made(KEY, 20), (KEY, 20), Damage::BitFlip, 5).is_none());
    }
}
