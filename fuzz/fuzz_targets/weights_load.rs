//! See `tvlmc_fuzz::weights_load`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::weights_load(data));
