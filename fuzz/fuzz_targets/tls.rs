//! Bytes from a gateway, taken by a board's TLS session in every way. `cargo fuzz run tls`; `crates/tls/tests/corpus.rs`
//! replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/tls/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    accept::accept(bytes);
});
