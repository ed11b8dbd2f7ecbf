//! Certificates and requests of clients of a device port that nobody knows yet. `cargo fuzz run client`;
//! `crates/pki/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/pki/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = accept::accept(bytes);
});
