//! Payloads of the event log: no event, or exactly one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, payload)) = bytes.split_first() {
        tailbeam_harness::protocol::elicitation::record::check_record(u16::from(*kind), payload);
    }
});
