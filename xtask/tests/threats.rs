//! The threat model names tests that exist.

#![cfg(test)]

use std::{collections::BTreeSet, fs, path::Path, process::Command};

fn top() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Names of all functions in the sources.
fn functions() -> BTreeSet<String> {
    let listed = Command::new("git").current_dir(top()).args(["ls-files", "*.rs"]).output().unwrap();
    let files = String::from_utf8(listed.stdout).unwrap();
    let mut names = BTreeSet::new();
    for file in files.lines() {
        let Ok(text) = fs::read_to_string(top().join(file)) else { continue };
        for rest in text.split("fn ").skip(1) {
            names.insert(rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let text = fs::read_to_string(top().join("docs/threat-model.md")).unwrap();
    let functions = functions();
    let mut named = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let last = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        // Names of tests have underscores; those of programs, crates and mutations don't.
        for name in last.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() > 1) {
            assert!(functions.contains(name), "docs/threat-model.md names the test {name}, which is none");
            named += 1;
        }
    }
    assert!(named > 20, "{named} tests are named: the table is read wrongly");
}

#[test]
fn each_test_that_a_defence_names_exists() {
    let functions = functions();
    for entry in fs::read_dir(top().join("xtask/defences")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let tests: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("Test: ")).collect();
        assert!(!tests.is_empty(), "{}", path.display());
        for test in tests {
            let name = test.rsplit([' ', ':']).next().unwrap_or_default();
            assert!(functions.contains(name), "{} names the test {name}, which is none", path.display());
        }
    }
}
