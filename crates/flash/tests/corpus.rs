//! The fuzz target's corpus with a stable compiler, and what damage makes of it.
#![cfg(test)]

mod accept;

use std::path::Path;

#[test]
fn the_corpus_opens_and_works_also_with_bytes_flipped() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/flash");
    let mut files = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        accept::accept(&bytes);
        for index in (0..bytes.len()).step_by(bytes.len() / 97 + 1) {
            let mut damaged = bytes.clone();
            damaged[index] ^= 0x55;
            accept::accept(&damaged);
            accept::accept(&bytes[..index]);
        }
        files += 1;
    }
    assert!(files >= 3);
}
