#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farrier::fuzz::hook_answers(data));
