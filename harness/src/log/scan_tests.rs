use proptest::prelude::*;

use super::super::format::{RECORD_LEN, Record, record_len};
use super::super::twin::read;
use super::*;

const KEY: LogKey = LogKey([7; 16]);

/// A segment of records with these payload lengths, and zeros behind.
fn segment(number: u32, first_seq: u64, lens: &[usize]) -> Vec<u8> {
    let header = Header { segment: number, first_seq, mono_ns: 5, real_ns: 6 };
    let mut bytes = header.encode(KEY).to_vec();
    for (seq, &len) in (first_seq..).zip(lens) {
        let payload: Vec<u8> = (0..len).map(|i| (i * 7 + len).to_le_bytes()[0]).collect();
        let record =
            Record { seq, durable: seq.saturating_sub(1), kind: 2, version: 1, payload: &payload };
        record.encode(KEY.salt(number), &mut bytes);
    }
    bytes.resize(bytes.len() + 128, 0);
    bytes
}

const LENS: [usize; 6] = [0, 1, 17, 100, 8, 33];

/// Where each record begins, and where the last one ends.
fn places() -> Vec<usize> {
    let mut at = HEADER_LEN;
    let mut places = vec![at];
    for len in LENS {
        at += record_len(len);
        places.push(at);
    }
    places
}

fn seqs(bytes: &[u8]) -> (Vec<u64>, Recovered) {
    let (records, found) = read(KEY, &[(0, bytes)]);
    (records.into_iter().map(|(seq, _)| seq).collect(), found)
}

#[test]
fn torn_at_each_byte_everything_before_is_read_and_the_rest_is_cut() {
    let whole = segment(0, 0, &LENS);
    let places = places();
    let end = places[LENS.len()];
    for cut in HEADER_LEN..=end {
        let mut zeroed = whole.clone();
        zeroed[cut..].fill(0);
        let mut wild = whole.clone();
        wild[cut..end].fill(0xA5);
        for (what, bytes) in
            [("truncated", &whole[..cut]), ("zeroed", &zeroed[..]), ("wild", &wild[..])]
        {
            // What a cut changes depends on the bytes: a record may end in zeros.
            let same = |end: &&usize| bytes.get(..**end) == Some(&whole[..**end]);
            let kept = places[1..].iter().filter(same).count();
            let tail = places[kept];
            let blank = bytes[tail..].iter().all(|&byte| byte == 0);
            let (read, found) = seqs(bytes);
            assert_eq!(read, (0..kept as u64).collect::<Vec<_>>(), "{what} at {cut}");
            assert_eq!(found.tail, Some((0, tail as u64)), "{what} at {cut}");
            assert_eq!(found.next_seq, kept as u64);
            let kinds: Vec<_> = found.damage.iter().map(|d| (d.offset, d.kind)).collect();
            let torn = (tail as u64, DamageKind::TornTail);
            assert_eq!(kinds, if blank { vec![] } else { vec![torn] }, "{what} at {cut}");
        }
    }
}

#[test]
fn a_flipped_bit_in_each_byte_is_noticed_at_its_place_and_costs_one_record() {
    let whole = segment(0, 0, &LENS);
    let places = places();
    for at in 0..whole.len() {
        for bit in [0, 3, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let (read, found) = seqs(&bytes);
            let hit = places.iter().rposition(|&place| place <= at);
            let [damage] = &found.damage[..] else { panic!("byte {at}: {:?}", found.damage) };
            assert!(
                damage.offset <= at as u64 && (at as u64) < damage.offset + damage.bytes,
                "byte {at}: {damage}"
            );
            let lost = hit.filter(|&hit| hit < LENS.len());
            let expected: Vec<u64> =
                (0..6).filter(|&seq| lost.is_none_or(|lost| lost as u64 != seq)).collect();
            assert_eq!(read, expected, "byte {at}");
            match lost {
                None if at < HEADER_LEN => assert_eq!(damage.kind, DamageKind::Header),
                None | Some(5) => {
                    assert_eq!((damage.kind, damage.missing), (DamageKind::TornTail, None))
                }
                Some(hit) => {
                    let seq = hit as u64;
                    assert_eq!(
                        (damage.kind, damage.missing),
                        (DamageKind::BadRecord, Some((seq, seq + 1)))
                    );
                    assert_eq!(damage.offset, places[hit] as u64);
                    assert_eq!(
                        damage.acknowledged,
                        seq < 4,
                        "the last record names 0..4 as durable"
                    );
                }
            }
        }
    }
}

#[test]
fn a_duplicate_a_lost_page_and_a_lost_segment_are_named() {
    let places = places();
    let mut twice = segment(0, 0, &LENS);
    let copy = twice[places[2]..places[3]].to_vec();
    let end = places[LENS.len()];
    twice.truncate(end);
    twice.extend_from_slice(&copy);
    twice.resize(twice.len() + 64, 0);
    let (read_seqs, found) = seqs(&twice);
    assert_eq!(read_seqs, [0, 1, 2, 3, 4, 5], "given once");
    assert_eq!((found.damage[0].kind, found.damage[0].offset), (DamageKind::Duplicate, end as u64));

    let mut page = segment(0, 0, &[100; 80]);
    page[4096..8192].fill(0);
    let (read_seqs, found) = seqs(&page);
    let [damage] = &found.damage[..] else { panic!("{found:?}") };
    let (from, to) = damage.missing.unwrap();
    assert_eq!(read_seqs, (0..from).chain(to..80).collect::<Vec<_>>());
    assert!(damage.acknowledged && damage.offset <= 4096 && damage.offset + damage.bytes >= 8192);

    let (first, last) = (segment(0, 0, &[8; 3]), segment(2, 6, &[8; 3]));
    let (records, found) = read(KEY, &[(0, &first), (2, &last)]);
    assert_eq!(records.len(), 6);
    let damage = found.damage[0];
    assert_eq!((damage.kind, damage.segment, damage.missing), (DamageKind::Gap, 2, Some((3, 6))));
    assert!(
        damage.acknowledged
            && damage.to_string().contains("events 3..6 are missing (acknowledged)")
    );

    let swapped = read(KEY, &[(0, &last), (2, &first)]);
    assert_eq!(swapped.0, [], "a segment in another's place says nothing");
    let other = read(LogKey([8; 16]), &[(0, &first)]);
    assert_eq!((other.0.len(), other.1.damage[0].kind), (0, DamageKind::Header));
    let prepared = vec![0; 4096];
    let (records, found) = read(KEY, &[(0, &first), (1, &prepared)]);
    assert_eq!(
        (records.len(), found.damage, found.next_segment),
        (3, vec![], 2),
        "prepared, not begun"
    );
}

#[test]
fn a_write_that_was_cut_off_is_no_damage_that_anybody_was_told_of() {
    // Half of a fourth record, which the next segment has from its begin.
    let end = HEADER_LEN + 3 * record_len(8);
    let mut cut = segment(0, 0, &[8; 4]);
    cut[end + record_len(8) / 2..].fill(0);
    for (log, cut_off) in [
        (vec![(0, &cut[..])], true),
        (vec![(0, &cut[..]), (1, &segment(1, 3, &[8; 3])[..])], true),
        // The next one does not have it.
        (vec![(0, &cut[..]), (1, &segment(1, 4, &[8; 3])[..])], false),
    ] {
        let (_, found) = read(KEY, &log);
        assert!(!found.damage.is_empty());
        assert_eq!(found.damage.iter().all(Damage::is_cut_off), cut_off, "{:?}", found.damage);
    }
}

#[test]
fn a_segment_that_was_made_ahead_is_taken_away_and_no_other_one() {
    use super::super::format::file_name;
    let root = tempfile::tempdir().unwrap();
    let put = |number, bytes: &[u8]| fs::write(root.path().join(file_name(number)), bytes).unwrap();
    let there = || (0..4).filter(|&n| root.path().join(file_name(n)).exists()).collect::<Vec<_>>();
    remove_prepared(root.path()).unwrap();
    put(0, &[0; 8_192]);
    put(1, &segment(1, 0, &[8; 3]));
    put(3, &vec![0; 3 << 20]);
    fs::write(root.path().join("notes"), b"").unwrap();
    remove_prepared(root.path()).unwrap();
    assert_eq!(there(), [0, 1], "neither the first, which may have lost all that it had");
    remove_prepared(root.path()).unwrap();
    assert_eq!(there(), [0, 1]);
    let mut last = vec![0; 3 << 20];
    last[(3 << 20) - 1] = 1;
    put(2, &last);
    remove_prepared(root.path()).unwrap();
    assert_eq!(there(), [0, 1, 2], "one bit in it is something to be told of");
    put(3, &[]);
    remove_prepared(root.path()).unwrap();
    assert_eq!(there(), [0, 1, 2], "nothing at all was in it");
}

#[test]
fn a_lost_end_shows_in_the_header_of_the_next_segment() {
    let mut first = segment(0, 0, &[8; 3]);
    let last_two = HEADER_LEN + record_len(8);
    first[last_two..].fill(0);
    let next = segment(1, 3, &[]);
    let (records, found) = read(KEY, &[(0, &first), (1, &next)]);
    assert_eq!(records.len(), 1);
    assert_eq!((found.damage[0].kind, found.damage[0].missing), (DamageKind::Gap, Some((1, 3))));
    assert_eq!(found.next_seq, 3, "numbers are not used again");
}

/// A payload that holds a record's bytes must not become one when the record around it is damaged.
#[test]
fn a_record_inside_a_payload_never_surfaces() {
    let forge = |key: LogKey| {
        let mut inner = Vec::new();
        let record = Record { seq: 1, durable: 0, kind: 2, version: 1, payload: b"forged!!" };
        record.encode(key.salt(0), &mut inner);
        let header = Header { segment: 0, first_seq: 0, mono_ns: 0, real_ns: 0 };
        let mut bytes = header.encode(KEY).to_vec();
        let outer = Record { seq: 0, durable: 0, kind: 2, version: 1, payload: &inner };
        outer.encode(KEY.salt(0), &mut bytes);
        bytes[HEADER_LEN + RECORD_LEN - 1] ^= 1;
        read(KEY, &[(0, &bytes)]).0.len()
    };
    assert_eq!(forge(KEY), 1, "with the key it would: that is why there is one");
    assert_eq!(forge(LogKey([9; 16])), 0);
}

proptest! {
    #[test]
    fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_scan(&bytes);
    }

    #[test]
    fn any_damage_is_accounted_for(
        lens in prop::collection::vec(0usize..80, 1..20),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = segment(0, 0, &lens);
        let whole = bytes.clone();
        for (from, len, fill) in hits {
            let from = from.index(bytes.len());
            let to = from + len.index((bytes.len() - from).min(200) + 1);
            bytes[from..to].fill(fill);
        }
        check_scan(&bytes);
        let (read_again, found) = seqs(&bytes);
        prop_assert_eq!(bytes == whole, found.damage.is_empty() && read_again.len() == lens.len());
        let named: u64 = found.damage.iter().filter_map(|d| d.missing).map(|(from, to)| to - from).sum();
        prop_assert_eq!(named + read_again.len() as u64, found.next_seq);
    }
}

#[test]
fn what_a_snapshot_holds_is_passed_over_and_what_it_should_join_is_missed() {
    let bytes = segment(4, 10, &[8; 6]);
    let run = |from| {
        let (mut scanner, mut seqs) = (Scanner::new(KEY, Some(from)), Vec::new());
        let segment = Segment { number: 4, bytes: &bytes, next_first: None, last: true };
        scanner.segment(segment, |found| seqs.push(found.record.seq));
        (seqs, scanner.finish().damage)
    };
    assert_eq!(run(13), (vec![13, 14, 15], vec![]));
    let (seqs, damage) = run(8);
    assert_eq!(
        (seqs.len(), damage[0].kind, damage[0].missing),
        (6, DamageKind::Gap, Some((8, 10)))
    );
}
