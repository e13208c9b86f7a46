//! Bytes from a transport to an agent in another process: no notice, or exactly one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tailbeam_harness::protocol::elicitation::carry::check_notice(bytes);
});
