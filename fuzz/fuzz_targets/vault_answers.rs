#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farrier::fuzz::vault_answers(data));
