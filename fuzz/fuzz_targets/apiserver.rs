//! Bytes from a client of the Kubernetes API, read in every way that they are read. `cargo fuzz run apiserver`;
//! `crates/apiserver/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/apiserver/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| accept::accept(bytes));
