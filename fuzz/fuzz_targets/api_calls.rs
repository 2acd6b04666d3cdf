//! See `tvlmc_fuzz::api_calls`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::api_calls(data));
