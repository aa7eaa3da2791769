//! The target `bundle_key`, for cargo-fuzz.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pacharc_fuzz::run("bundle_key", bytes));
