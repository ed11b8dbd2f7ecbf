//! An identity record from storage, whatever it holds, and the device that starts with it. `cargo fuzz run identity`;
//! `crates/agent/tests/corpus.rs` replays the corpus with a stable compiler.

#![no_main]

#[path = "../../crates/agent/tests/accept/mod.rs"]
mod accept;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    accept::accept(bytes);
});
