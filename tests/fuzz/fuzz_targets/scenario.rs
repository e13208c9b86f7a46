//! Text of a scenario file: flags, or one error with its place, cause and remedy.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    match tailbeam::scenario_flags("file.toml", text) {
        Ok(flags) => assert!(flags.iter().all(|flag| flag.to_string_lossy().starts_with("--"))),
        Err(error) => {
            assert!(error.starts_with("file.toml:"), "{error}");
            assert!(error.contains("\n  cause: ") && error.contains("\n  remedy: "), "{error}");
        }
    }
});
