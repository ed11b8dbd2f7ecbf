//! Replays the fuzz target's corpus without a fuzzer.

#![cfg(test)]
#![allow(unreachable_pub, reason = "the module is the fuzz target's too")]

mod accept;

use std::{fs, path::Path};

use accept::Taken;

#[test]
fn every_identity_record_of_the_corpus_is_read_without_harm() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/identity");
    let (mut files, mut keys, mut chains) = (0, 0, 0);
    for entry in fs::read_dir(&directory).unwrap() {
        let Taken { key, chain } = accept::accept(&fs::read(entry.unwrap().path()).unwrap());
        (files, keys, chains) = (files + 1, keys + usize::from(key), chains + usize::from(chain));
    }
    assert!(files >= 8, "only {files} files in {}", directory.display());
    // The fuzzer begins behind what is no record at all.
    assert!(keys >= 3 && chains >= 3, "{keys} keys and {chains} chains are taken");
}
