//! Replays the corpus of the fuzz target without a fuzzer, and tries what a generator comes up with.
#![cfg(test)]

mod accept;

use std::{fs, path::Path};

use proptest::prelude::*;
use serde_json::Value;

#[test]
fn the_corpus_is_accepted() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/merge");
    let mut files = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        accept::accept(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 10, "only {files} files in {}", directory.display());
}

/// JSON with names that schemas, sets and objects of the test have.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        prop::sample::select(vec!["object", "array", "string", "set", "map", "atomic"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop_oneof![
            "(apiVersion|kind|metadata|spec|status)",
            "(set|map|atomic|whole|free|size|name|value)",
            "(f:spec|f:set|v:\"a\"|k:\\{\"name\":\"a\"\\}|i:0|\\.)",
            "(type|properties|items|additionalProperties|x-kubernetes-list-type|x-kubernetes-map-type)",
            "[a-c]{0,2}",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..5).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_accepted(value in json()) {
        accept::accept(value.to_string().as_bytes());
    }
}
