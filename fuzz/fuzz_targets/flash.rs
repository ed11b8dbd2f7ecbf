//! Any content of flash: it opens, what it lends is there, and it works afterwards. `cargo fuzz run flash`;
//! `crates/flash/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/flash/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
