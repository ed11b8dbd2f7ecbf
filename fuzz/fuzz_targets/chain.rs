//! The chain of a certificate that a device asked for. `cargo fuzz run chain`; `crates/tls/tests/corpus.rs` replays the corpus with
//! a stable compiler.

#![no_main]

#[path = "../../crates/tls/tests/accept/chain.rs"]
mod chain;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = chain::accept(bytes);
});
