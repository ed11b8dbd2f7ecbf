//! The page about the API says what the conformance run allows.
#![cfg(test)]

use wasmbed_conformance::{allowed, docs};

/// Set to write the page instead of comparing it.
const UPDATE: &str = "UPDATE_GENERATED";

#[test]
fn the_table_of_differences_is_up_to_date() {
    let page = std::fs::read_to_string(docs::path()).unwrap();
    let table = allowed::table(&allowed::load().unwrap());
    let wanted = docs::with_table(&page, &table).expect("the page has its marks");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(docs::path(), &wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "run {UPDATE}=1 cargo test -p wasmbed-conformance --test docs");
    }
}
