//! Any bytes as a module to pack: what is accepted is accepted again, unchanged. `cargo fuzz run pack`;
//! `crates/wasmbed/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/wasmbed/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
