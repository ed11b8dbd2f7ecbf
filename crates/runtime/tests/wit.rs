//! `docs/wasmbed.wit` and the table of host functions say the same, by the rules that stand at the head of that file.

#![cfg(test)]

use std::collections::BTreeMap;

use wasmbed_runtime::{ValueType, host_functions};
use wit_parser::{Function, Resolve, Type, TypeDefKind};

const TEXT: &str = include_str!("../../../docs/wasmbed.wit");

/// What a value takes as a parameter.
fn flat(resolve: &Resolve, value: Type) -> Vec<ValueType> {
    match value {
        Type::String => vec![ValueType::I32; 2],
        Type::U32 | Type::S32 | Type::Bool => vec![ValueType::I32],
        Type::Id(id) if matches!(resolve.types[id].kind, TypeDefKind::List(_)) => {
            vec![ValueType::I32; 2]
        }
        other => panic!("no rule says how {other:?} is passed"),
    }
}

/// What an answer adds to the parameters, and what is answered.
fn answered(resolve: &Resolve, value: Option<Type>) -> (Vec<ValueType>, Vec<ValueType>) {
    match value {
        None => (vec![], vec![]),
        Some(Type::S64) => (vec![], vec![ValueType::I64]),
        Some(Type::Id(id)) => {
            let TypeDefKind::Result(result) = &resolve.types[id].kind else {
                panic!("an answer that is neither a result nor a number")
            };
            let more = match result.ok {
                None | Some(Type::U32 | Type::Bool) => vec![],
                Some(Type::S32) => vec![ValueType::I32],
                Some(other) => flat(resolve, other),
            };
            (more, vec![ValueType::I32])
        }
        Some(other) => panic!("no rule says how {other:?} is answered"),
    }
}

fn imported(resolve: &Resolve, function: &Function) -> (Vec<ValueType>, Vec<ValueType>) {
    let (more, results) = answered(resolve, function.result);
    let params = function.params.iter().flat_map(|param| flat(resolve, param.ty));
    (params.chain(more).collect(), results)
}

#[test]
fn the_wit_text_maps_to_the_host_functions() {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("wasmbed.wit", TEXT).unwrap();
    let mut described = BTreeMap::new();
    for (interface, id) in &resolve.packages[package].interfaces {
        for (name, function) in &resolve.interfaces[*id].functions {
            let capability = if interface == "base" { "" } else { interface };
            let (params, results) = imported(&resolve, function);
            let before = described.insert(name.replace('-', "_"), (capability, params, results));
            assert_eq!(before, None, "{name} stands there twice");
        }
    }
    let ours = host_functions().iter().filter(|function| function.module() == "wasmbed").map(|function| {
        let capability = function.capability().map_or("", |capability| capability.name());
        (function.name().to_owned(), (capability, function.params().to_vec(), function.results().to_vec()))
    });
    assert_eq!(described, ours.collect());

    let (_, world) = resolve.packages[package].worlds.first().unwrap();
    let used = resolve.packages[package].interfaces.keys().filter(|name| *name != "errors").count();
    let imports = resolve.worlds[*world].imports.values();
    let direct = imports.filter(|item| matches!(item, wit_parser::WorldItem::Interface { .. })).count();
    assert_eq!(direct, used + 1, "an application can import all of them, and the errors with them");
}
