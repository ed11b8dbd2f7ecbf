//! The files generated from the types are the ones that are committed. `UPDATE_GENERATED=1` writes them.

#![cfg(test)]

use std::{fs, path::PathBuf};

fn same_as_committed(path: &str, generated: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, generated).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == generated,
        "{path} differs from the types; run UPDATE_GENERATED=1 cargo test -p wasmbed-api --test generated"
    );
}

#[test]
fn the_definitions_in_deploy_are_those_of_the_types() {
    for crd in wasmbed_api::crds() {
        let path = format!("deploy/crds/{}.yaml", crd.spec.names.plural);
        same_as_committed(&path, &wasmbed_api::crd_yaml(&crd).unwrap());
    }
}

#[test]
fn the_reasons_in_docs_are_those_of_the_code() {
    same_as_committed("docs/reasons.md", &wasmbed_api::reasons_markdown());
}
