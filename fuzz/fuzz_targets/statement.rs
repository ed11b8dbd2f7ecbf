//! Bytes that claim to be a signed statement: an order to decommission a device, or its proof. `cargo fuzz run statement`;
//! `crates/statement/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/statement/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    accept::accept(bytes);
});
