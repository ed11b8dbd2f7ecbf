//! The fuzz target's corpus and the sample applications, with a stable compiler. `UPDATE_GENERATED=1` writes the corpus.

#![cfg(test)]

mod accept;

use std::fs;
use std::path::PathBuf;

/// The beginnings of the corpus: every section, the traps of `hostile.rs`, host calls.
const SEEDS: &[(&str, &str)] = &[
    ("loop", r#"(module (func (export "_start") (loop (br 0))))"#),
    ("recursion", r#"(module (func $f (export "_start") (call $f)))"#),
    (
        "grow",
        r#"(module (memory (export "memory") 1 4) (func (export "run")
            (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable))"#,
    ),
    (
        "tables",
        r#"(module (type $t (func (param i32) (result i32))) (table 4 8 funcref) (elem (i32.const 1) $f $g)
            (func $f (type $t) (i32.add (local.get 0) (i32.const 1)))
            (func $g (type $t) (call_indirect (type $t) (local.get 0) (i32.const 1)))
            (func (export "_start") (drop (call_indirect (type $t) (i32.const 5) (i32.const 2)))))"#,
    ),
    (
        "everything",
        r#"(module (import "wasmbed" "log" (func $log (param i32 i32))) (import "wasmbed" "wait" (func $wait (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasmbed" "key_value_get" (func $get (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1) (global $g (mut i64) (i64.const -5)) (global f64 (f64.const 1.5))
            (data (i32.const 0) "\10\00\00\00\05\00\00\00") (data (i32.const 16) "hello\n")
            (func (export "_start") (local i32 i64 f32 f64)
                (call $log (i32.const 16) (i32.const 5)) (call $wait (i32.const 3))
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 32)))
                (drop (call $get (i32.const 16) (i32.const 3) (i32.const 64) (i32.const 8)))
                (block (block (block (br_table 0 1 2 (i32.load8_u (i32.const 16))))))
                (if (i64.lt_s (global.get $g) (i64.const 0)) (then (global.set $g (i64.const 1))) (else (nop)))
                (local.set 3 (f64.sqrt (f64.convert_i64_s (global.get $g))))
                (i32.store (i32.const 40) (i32.trunc_f64_s (local.get 3)))))"#,
    ),
    (
        "bytes-as-pages",
        r#"(module (memory (export "memory") 100 5000 (pagesize 1)) (func (export "run")
            (drop (memory.grow (i32.const 900))) (i64.store (i32.const 992) (i64.const 1)) (i32.store8 (i32.const 1000) (i32.const 1))))"#,
    ),
];

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/module")
}

#[test]
fn the_corpus_begins_with_these() {
    for (name, text) in SEEDS {
        let file = corpus().join(name);
        let module = wat::parse_str(text).unwrap();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            fs::create_dir_all(corpus()).unwrap();
            fs::write(&file, &module).unwrap();
        }
        assert!(fs::read(&file).unwrap() == module, "{name} differs: UPDATE_GENERATED=1 writes it");
        let info = wasmbed_runtime::scan(&module, &wasmbed_runtime::ScanLimits::default());
        assert!(info.is_ok(), "{name}: {info:?}");
    }
}

#[test]
fn replay() {
    let mut replayed = 0;
    for entry in fs::read_dir(corpus()).unwrap() {
        let module = fs::read(entry.unwrap().path()).unwrap();
        accept::accept(&module);
        // Cut anywhere, and with each byte changed.
        for length in 0..module.len() {
            accept::accept(&module[..length]);
        }
        for at in 0..module.len() {
            let mut module = module.clone();
            module[at] = module[at].wrapping_add(1);
            accept::accept(&module);
        }
        replayed += 1;
    }
    assert!(replayed >= SEEDS.len());
}
