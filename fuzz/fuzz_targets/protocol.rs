//! Bytes from a peer, read in every way that they are read. `cargo fuzz run protocol`; `crates/protocol/tests/corpus.rs`
//! replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/protocol/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
