#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cloakroom_fuzz::express_record::run(input));
