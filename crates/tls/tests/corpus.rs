//! Replays the fuzz target's corpus without a fuzzer.

#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "the module is the fuzz target's too"
)]

mod accept;
#[path = "accept/chain.rs"]
mod chain;

use std::{fs, path::Path};

use wasmbed_tls::SessionState;

#[test]
fn every_file_of_the_corpus_is_read_without_harm() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/tls");
    let (mut files, mut up) = (0, 0);
    for entry in fs::read_dir(&directory).unwrap() {
        let state = accept::accept(&fs::read(entry.unwrap().path()).unwrap());
        up += usize::from(state == SessionState::Up);
        files += 1;
    }
    assert!(files >= 5, "only {files} files in {}", directory.display());
    // The recorded gateway is still a gateway to the recorded device: the fuzzer begins behind the handshake.
    assert!(up >= 1, "no session came up");
}

#[test]
fn every_chain_of_the_corpus_is_read_without_harm_also_with_bytes_flipped() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/chain");
    let (mut files, mut taken) = (0, 0);
    for entry in fs::read_dir(&directory).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        taken += usize::from(chain::accept(&bytes).is_ok());
        for index in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << (index % 8);
            let _ = chain::accept(&damaged);
        }
        files += 1;
    }
    assert!(files >= 3, "only {files} files in {}", directory.display());
    // The fuzzer begins with a chain that is good.
    assert!(taken >= 1, "no chain is the device's");
}
