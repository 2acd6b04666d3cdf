//! See `tvlmc_fuzz::image`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::image(data));
