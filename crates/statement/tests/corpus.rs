//! Replays the fuzz target's corpus without a fuzzer.

#![cfg(test)]
#![allow(unreachable_pub, reason = "the module is the fuzz target's too")]

mod accept;

use std::{fs, path::Path};

use accept::Taken;

#[test]
fn every_statement_of_the_corpus_is_read_without_harm() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/statement");
    let mut taken = Vec::new();
    for entry in fs::read_dir(&directory).unwrap() {
        taken.push(accept::accept(&fs::read(entry.unwrap().path()).unwrap()));
    }
    let count = |what| taken.iter().filter(|taken| **taken == what).count();
    // The fuzzer begins behind what is no statement at all.
    assert!(count(Taken::Order) >= 3 && count(Taken::Proof) >= 2 && count(Taken::Nothing) >= 4, "{taken:?}");
}
