//! JSON of a client of the Kubernetes API as sets of fields, schemas and objects to merge. `cargo fuzz run merge`;
//! `crates/structured-merge/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/structured-merge/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
