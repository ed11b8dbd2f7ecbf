//! The fuzz target's corpus with a stable compiler. `UPDATE_GENERATED=1` writes what the target begins with.

#![cfg(test)]

mod compare;

use std::fs;
use std::path::PathBuf;

use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Beginnings of the corpus: bytes from which modules of both kinds are drawn.
const DRAWN: [u8; 8] = [0, 1, 3, 5, 8, 9, 15, 255];

fn beginnings() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = DRAWN
        .iter()
        .map(|kind| {
            let mut bytes = vec![0; 1_024];
            StdRng::seed_from_u64(u64::from(*kind)).fill_bytes(&mut bytes);
            bytes[0] = *kind;
            (format!("drawn-{kind}"), bytes)
        })
        .collect();
    let text = r#"(module (memory 1) (table 4 8 funcref) (elem (i32.const 1) $f) (data "0123") (global (mut i64) (i64.const 3))
        (type $t (func (param i32) (result i32 i64)))
        (func $f (export "f") (type $t) (block (result i32) (i32.const 1) (br_table 0 0 (local.get 0))) (global.get 0))
        (func (export "g") (param i32) (result i32 i64)
            (memory.fill (i32.const 0) (local.get 0) (i32.const 500))
            (return_call_indirect (type $t) (local.get 0) (i32.const 1))))"#;
    all.push(("module".into(), wat::parse_str(text).unwrap()));
    all
}

#[test]
fn corpus() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/engine");
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in beginnings() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let mut inputs = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        compare::accept(&fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs >= beginnings().len(), "{inputs} inputs: UPDATE_GENERATED=1 writes them");
}
