//! See `tvlmc_fuzz::st_header`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::st_header(data));
