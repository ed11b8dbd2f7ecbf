//! A module, or one drawn from any bytes, on the engine at once and in slices, and on wasmi. `cargo fuzz run engine`;
//! `crates/engine/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/engine/tests/compare/mod.rs"]
mod compare;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| compare::accept(bytes));
