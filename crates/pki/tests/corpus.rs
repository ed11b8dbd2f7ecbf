//! Replays the fuzz target's corpus without a fuzzer.

#![cfg(test)]
#![allow(
    unreachable_pub,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "the module is the fuzz target's too"
)]

mod accept;

use std::{fs, path::Path};

#[test]
fn what_clients_show_and_ask_for_is_taken_whole_and_for_its_own_key() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/client");
    let mut files = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let key = accept::accept(&bytes).unwrap_or_else(|| panic!("{} is refused", path.display()));
        for index in 1..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << (index % 8);
            // Of a request some bits outside what is signed are read past.
            let harmless = |taken: &Vec<u8>| bytes[0] == accept::REQUEST && *taken == key;
            let taken = accept::accept(&damaged);
            assert!(taken.as_ref().is_none_or(harmless), "{} with byte {index} changed", path.display());
        }
        for length in 0..bytes.len() {
            let cut = accept::accept(&bytes[..length]);
            assert!(cut.is_none(), "{length} bytes of {}", path.display());
        }
        files += 1;
    }
    assert_eq!(files, 4, "in {}", directory.display());
}
