//! Bytes of a log segment: records in order, once, and the rest accounted for.
#![no_main]

use tailbeam_harness::log::{format, scan};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    scan::check_scan(bytes);
    // A fuzzer does not guess checksums: the same bytes as payloads, then damaged by them.
    let key = format::LogKey([7; 16]);
    let header = format::Header { segment: 0, first_seq: 0, mono_ns: 0, real_ns: 0 };
    let mut segment = header.encode(key).to_vec();
    for (seq, payload) in (0..).zip(bytes.chunks(24)) {
        let record = format::Record { seq, durable: 0, kind: 1, version: 1, payload };
        record.encode(key.salt(0), &mut segment);
    }
    scan::check_scan(&segment);
    for hit in bytes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([hit[0], hit[1]])) % segment.len();
        segment[at] ^= hit[2];
    }
    scan::check_scan(&segment);
});
