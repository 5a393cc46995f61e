#![no_main]

use cloakroom_fuzz::smuggle::Proxy;

thread_local! {
    /// libFuzzer runs all inputs in one thread.
    static PROXY: Proxy = Proxy::start();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| PROXY.with(|proxy| proxy.run(input)));
