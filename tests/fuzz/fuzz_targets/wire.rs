//! Bytes from an agent: no message, or exactly one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tailbeam_harness::protocol::elicitation::wire::check_wire(bytes);
});
