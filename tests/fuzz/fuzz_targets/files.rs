//! See `isect_tests::fuzz`; the target's name is this file's.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| isect_tests::fuzz::run("files", data));
