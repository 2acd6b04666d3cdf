//! See `tvlmc_fuzz::tokenizer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tvlmc_fuzz::tokenizer(data));
