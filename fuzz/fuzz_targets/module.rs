//! Any bytes as a module: scan, both engines, a run in the sandbox. `cargo fuzz run module`;
//! `crates/runtime/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/runtime/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
