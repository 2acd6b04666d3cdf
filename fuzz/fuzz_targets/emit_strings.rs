//! See `tvlmc_fuzz::emit_strings`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::emit_strings(data));
