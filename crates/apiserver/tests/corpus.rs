//! Replays the fuzz target's corpus without a fuzzer.
#![cfg(test)]

mod accept;

use std::{fs, path::Path};

#[test]
fn the_corpus_is_accepted() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/apiserver");
    let mut files = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        accept::accept(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 20, "only {files} files in {}", directory.display());
}
