//! Built for `wasm32-wasip1`: one line on standard output, then exit code 7.

use std::collections::BTreeMap;

fn main() {
    // Some work that brings in the allocator, sorting and formatting of floats.
    let mut words: Vec<&str> = "the quick brown fox jumps over the lazy dog".split(' ').collect();
    words.sort_unstable();
    let mut counts = BTreeMap::new();
    for word in &words {
        *counts.entry(*word).or_insert(0u32) += 1;
    }
    println!("hello from rust: {} words, the {} times, {:.3}", counts.len(), counts["the"], 22.0 / 7.0);
    std::process::exit(7);
}
