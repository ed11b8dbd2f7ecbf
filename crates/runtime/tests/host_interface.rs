//! `docs/host-interface.md` and the code say the same.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fmt::Write;

use wasmbed_runtime::{Features, ScanLimits, host_functions};

const DOCUMENT: &str = include_str!("../../../docs/host-interface.md");

/// The cells of every table row below a heading that contains `heading`, up to the next heading of that level.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = DOCUMENT.split("\n## ").find(|section| section.starts_with(heading)).unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("|---"));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect())
        .collect()
}

#[test]
fn every_function_stands_in_both() {
    let mut documented = BTreeMap::new();
    for row in rows("Module `wasmbed`").into_iter().filter(|row| row[0] != "function") {
        documented.insert(format!("wasmbed.{}", row[0]), (row[1].clone(), row[3].clone()));
        assert!(!row[4].is_empty() && !row[5].is_empty(), "{} is explained", row[0]);
    }
    for row in rows("Module `wasi_snapshot_preview1`").into_iter().filter(|row| row[0] != "function") {
        let before =
            documented.insert(format!("wasi_snapshot_preview1.{}", row[0]), (row[1].clone(), "–".into()));
        assert_eq!(before, None, "{} stands there twice", row[0]);
    }
    let mut coded = BTreeMap::new();
    for function in host_functions() {
        let text = function.to_string();
        let (name, signature) = text.split_once(' ').unwrap();
        let capability = function.capability().map_or("–", |capability| capability.name());
        coded.insert(name.to_owned(), (signature.to_owned(), capability.to_owned()));
    }
    assert_eq!(documented, coded);
}

#[test]
fn the_stubs_are_the_ones_listed_as_such() {
    let section = DOCUMENT.split("answer 52 (NOSYS):").nth(1).unwrap();
    let listed: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let stubs: Vec<&str> =
        host_functions().iter().filter(|function| function.is_stub()).map(|f| f.name()).collect();
    assert_eq!(listed, stubs);
}

#[test]
fn feature_bits_stand_in_both() {
    let documented: Vec<(u64, String)> = rows("Feature bits")
        .into_iter()
        .filter(|row| row[0] != "bit")
        .map(|row| (1 << row[0].parse::<u64>().unwrap(), row[1].clone()))
        .collect();
    let coded: Vec<(u64, String)> =
        Features::NAMES.iter().map(|(feature, name)| (feature.bits(), (*name).to_owned())).collect();
    assert_eq!(documented, coded);
}

#[test]
fn bounds_stand_in_both() {
    let limits = ScanLimits::default();
    let coded = [
        limits.types,
        limits.parameters,
        limits.imports,
        limits.functions,
        limits.globals,
        limits.exports,
        limits.export_name_bytes,
        limits.name_bytes,
        limits.tables,
        limits.table_elements,
        wasmbed_runtime::scan::TABLE_GROWTH,
        limits.element_segments,
        limits.segment_elements,
        limits.data_segments,
        limits.constant_operators,
        limits.constant_operands,
        limits.branch_targets,
        limits.carried_per_byte,
        limits.local_groups,
        limits.locals,
        limits.control_depth,
        limits.operand_depth,
    ];
    let documented: Vec<String> = rows("What a module must be")
        .into_iter()
        .filter(|row| row[0] != "what")
        .map(|row| row[1].clone())
        .collect();
    let mut expected: Vec<String> = coded.iter().map(|bound| with_commas(*bound)).collect();
    let (board, host) = (wasmbed_runtime::RuntimeConfig::default(), wasmbed_runtime::RuntimeConfig::hosted());
    assert_eq!(board.stack_words, host.stack_words);
    expected.push(with_commas(board.stack_words as u32));
    assert_eq!(documented, expected);
}

fn with_commas(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        write!(text, "{digit}").unwrap();
    }
    text
}
