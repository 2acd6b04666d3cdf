//! See `tvlmc_fuzz::saved`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::saved(data));
