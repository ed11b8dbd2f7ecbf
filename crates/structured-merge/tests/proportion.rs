//! Memory in proportion to the input: the largest inputs that a client can send, and their peak memory.
//!
//! Each input runs in a process of its own, whose peak memory is read from the kernel at its end.
#![cfg(test)]

use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use wasmbed_structured_merge::{
    ApplyError, ManagedFields, ManagerId, Operation, Type, Updater, Version, empty_like,
};

/// Names the input of a child process.
const INPUT: &str = "WASMBED_PROPORTION_INPUT";
/// Peak memory of one input at most: a few times the input as a tree of values.
const PEAK_MIB_MAX: u64 = 64;
const NAME: &str = "example.com/v1";
const NOW: &str = "2026-01-01T00:00:00Z";

/// An input and the beginning of its result.
type Input = (&'static str, fn() -> String, &'static str);

const INPUTS: [Input; 5] = [
    ("many managers", many_managers, "10 managers"),
    ("many items", many_items, "33000 items"),
    ("duplicate items", duplicate_items, ".spec.set: duplicate"),
    ("conflicts below a long name", conflicts_below_a_long_name, "at most 4 MiB of conflicts"),
    ("many items in another order", many_items_in_another_order, "33000 items"),
];

#[test]
fn no_input_costs_more_than_its_size() {
    for (name, _, expected) in INPUTS {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_input", "--nocapture"])
            .env(INPUT, name)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("result: "));
        let line = line.filter(|_| child.status.success());
        let Some(line) = line else {
            panic!("{name}: {:?}\n{text}\n{}", child.status, String::from_utf8_lossy(&child.stderr));
        };
        let (peak_mib, result) = line.split_once('\t').unwrap();
        println!("{name}: {peak_mib} MiB, {result}");
        assert!(peak_mib.parse::<u64>().unwrap() <= PEAK_MIB_MAX, "{name}: {line}");
        assert!(result.starts_with(expected), "{name}: {line}");
    }
}

/// Runs the input that the environment names, if it names one.
#[test]
fn one_input() {
    let Ok(name) = std::env::var(INPUT) else { return };
    let (_, run, _) = INPUTS.iter().find(|(known, ..)| *known == name).unwrap();
    let result: String = run().chars().take(120).collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("result: {}\t{}", peak_kib / 1024, result.escape_debug());
}

fn version() -> Version<()> {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}});
    Version { name: NAME.into(), ty: Arc::new(Type::of_objects(&schema, [])), conversion: () }
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": NAME, "kind": "Thing", "spec": spec})
}

fn id(manager: &str, operation: Operation) -> ManagerId {
    ManagerId::new(manager, operation, NAME, "")
}

/// Applies `spec` to an object with `live` as its specification, which another manager wrote.
fn apply(live: Value, spec: Value) -> Result<Value, ApplyError> {
    let version = version();
    let updater = Updater { version: &version, others: &[], ignored: &[] };
    let live = object(live);
    let other = id("other", Operation::Update);
    let managers = updater.update(&empty_like(&live), &live, ManagedFields::default(), &other, NOW).unwrap();
    let me = id("me", Operation::Apply);
    let outcome = updater.apply(&live, &object(spec), managers, &me, false, NOW)?;
    // As it is stored.
    let _ = outcome.managers.into_json().to_string();
    Ok(outcome.object.unwrap_or(live))
}

fn many_managers() -> String {
    let managers: Value = (0..4_000)
        .map(|number| {
            json!({"manager": format!("m{number}"), "operation": "Update", "fieldsType": "FieldsV1",
                "apiVersion": NAME, "fieldsV1": {format!("f:{number}"): {}}})
        })
        .collect();
    let managers = ManagedFields::from_json(managers, false).unwrap();
    let version = version();
    let updater = Updater { version: &version, others: &[], ignored: &[] };
    let (live, new) = (object(json!({"free": {"a": 1}})), object(json!({"free": {"a": 2}})));
    let managers = updater.update(&live, &new, managers, &id("me", Operation::Update), NOW).unwrap();
    format!("{} managers", managers.iter().count())
}

fn numbers() -> impl DoubleEndedIterator<Item = String> {
    (0..33_000).map(|number| number.to_string())
}

fn items(result: Result<Value, ApplyError>) -> String {
    match result {
        Ok(object) => format!("{} items", object["spec"]["set"].as_array().map_or(0, Vec::len)),
        Err(error) => error.to_string(),
    }
}

fn many_items() -> String {
    items(apply(json!({}), json!({"set": numbers().collect::<Vec<_>>()})))
}

fn many_items_in_another_order() -> String {
    let backwards: Vec<String> = numbers().rev().collect();
    items(apply(json!({"set": numbers().collect::<Vec<_>>()}), json!({"set": backwards})))
}

fn duplicate_items() -> String {
    match apply(json!({}), json!({"set": vec!["x".repeat(40); 40_000]})) {
        Err(ApplyError::Applied(errors)) => errors.first().map_or_else(String::new, ToString::to_string),
        other => format!("{other:?}"),
    }
}

fn conflicts_below_a_long_name() -> String {
    let fields = |value: u32| -> Value {
        let fields: Value = (0..5_000).map(|number| (number.to_string(), json!(value))).collect();
        json!({"free": {"n".repeat(700_000): fields}})
    };
    match apply(fields(1), fields(2)) {
        Err(ApplyError::Conflicts(conflicts)) => {
            let bytes: usize = conflicts
                .iter()
                .flat_map(|conflict| conflict.path.iter().take(conflict.path.len() - 1))
                .map(|element| element.text().len())
                .sum();
            // One path may pass the bound.
            assert!(bytes < (4 << 20) + 1_000_000, "{bytes}");
            "at most 4 MiB of conflicts".into()
        }
        other => format!("{:?}", other.map(|_| ())),
    }
}
