//! Work in proportion to the input: the most expensive requests within the bounds of a body, and their peak memory.
//!
//! Each input runs in a process of its own, which must answer instead of aborting, and whose peak memory is read from the
//! kernel.
#![cfg(test)]

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use uuid::Uuid;
use wasmbed_apiserver::kinds::Kinds;
use wasmbed_apiserver::resource::{Author, FieldValidation, Moment, Part, Patch};
use wasmbed_apiserver::schema::decode;
use wasmbed_apiserver::store::{Applied, History, Memory, Operation, Write};

/// Set in the process that runs one input.
const INPUT: &str = "WASMBED_PROPORTION_INPUT";
/// Memory of one input at most: some times the largest body as a tree of values.
const PEAK_MIB_MAX: u64 = 192;

/// An input with the beginning of the answer that it must get.
type Input = (&'static str, fn() -> String, &'static str);

const INPUTS: [Input; 17] = [
    ("copies that double the depth", copies_that_double_the_depth, "422 "),
    ("copies that double the size", copies_that_double_the_size, "422 "),
    ("copies of a large text", copies_of_a_large_text, "422 "),
    ("moves that pile up", moves_that_pile_up, "422 "),
    ("insertions before a long list", insertions_before_a_long_list, "422 "),
    ("merges that grow an object", merges_that_grow_an_object, "413 "),
    ("repeated names below a long name", repeated_names_below_a_long_name, "32 duplicates"),
    ("a long name above many items", a_long_name_above_many_items, "0 duplicates"),
    ("objects without end", objects_without_end, "the body"),
    ("unknown fields below a long name", unknown_fields_below_a_long_name, "400 "),
    ("owners that all control", owners_that_all_control, "422 "),
    ("finalizers while deleting", finalizers_while_deleting, "422 "),
    ("managers without end", managers_without_end, "ok"),
    ("applied items without end", applied_items_without_end, "413 "),
    ("applied items that are alike", applied_items_that_are_alike, "500 "),
    ("conflicts below a long name", conflicts_below_a_long_name, "409 "),
    ("labels that are none", labels_that_are_none, "422 "),
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
        let line = text.lines().find_map(|line| line.strip_prefix("answer: "));
        let output =
            || format!("{name}: {:?}\n{text}\n{}", child.status, String::from_utf8_lossy(&child.stderr));
        let line = line.filter(|_| child.status.success()).unwrap_or_else(|| panic!("{}", output()));
        println!("{name}: {line}");
        let mut parts = line.splitn(3, '\t');
        let peak_mib: u64 = parts.next().unwrap().parse().unwrap();
        assert!(peak_mib <= PEAK_MIB_MAX, "{}", output());
        assert!(parts.nth(1).unwrap().starts_with(expected), "{}", output());
    }
}

/// Runs the input that the environment names, if it names one.
#[test]
fn one_input() {
    let Ok(asked) = std::env::var(INPUT) else { return };
    let (_, run, _) = INPUTS.iter().find(|(name, ..)| *name == asked).unwrap();
    let started = Instant::now();
    let answer: String = run().chars().take(120).collect();
    let took_ms = started.elapsed().as_millis();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("answer: {}\t{took_ms} ms\t{}", peak_kib / 1024, answer.escape_debug());
}

/// A store with one object, `default/a`.
struct Api {
    memory: Memory,
}

impl Api {
    fn new(metadata: Value) -> Api {
        let sample = include_str!("../../../conformance/crds/samples.yaml");
        let kinds = Kinds::new(&[serde_saphyr::from_str(sample).unwrap()]).unwrap();
        let mut api = Api { memory: Memory::new(Arc::new(kinds), History { events: 8, bytes: 1024 }) };
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        api.write(("", "namespaces"), None, "", create(namespace)).unwrap();
        let mut object = sample_named("a");
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        api.sample("", create(object)).unwrap();
        api
    }

    fn write(
        &mut self,
        (group, plural): (&str, &str),
        namespace: Option<&str>,
        name: &str,
        operation: Operation,
    ) -> Result<Applied, String> {
        let write = Write {
            kind: Arc::clone(self.memory.kinds().get(group, "v1", plural).unwrap()),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            operation,
            manager: "hostile".into(),
            author: Arc::new(Author::default()),
            dry_run: false,
            validation: FieldValidation::Strict,
            constraints: Vec::new(),
        };
        let moment = Moment { now: "2026-01-01T00:00:00Z", uid: Uuid::from_u128(7) };
        let answer = self.memory.write(&write, moment);
        answer.map_err(|status| {
            // As it is sent.
            let _ = status.to_json().to_string();
            format!(
                "{} {}",
                status.reason().code(),
                status.details().causes.first().map_or(status.message(), |cause| cause.message())
            )
        })
    }

    fn sample(&mut self, name: &str, operation: Operation) -> Result<Applied, String> {
        self.write(("conformance.wasmbed.github.io", "samples"), Some("default"), name, operation)
    }

    fn patch(&mut self, media_type: &str, patch: Value) -> Result<Applied, String> {
        let decoded = decode::json(patch.to_string().as_bytes()).map_err(|error| error.to_string())?;
        let patch = Patch::parse(media_type, decoded.value)
            .map_err(|status| format!("{} {status}", status.reason().code()))?;
        self.sample("a", Operation::Patch { part: Part::Main, patch })
    }

    fn json_patch(metadata: Value, operations: Vec<Value>) -> String {
        text(Api::new(metadata).patch("application/json-patch+json", Value::Array(operations)))
    }
}

fn create(object: Value) -> Operation {
    Operation::Create { object, duplicates: Vec::new() }
}

fn text(answer: Result<Applied, String>) -> String {
    answer.map_or_else(|refused| refused, |_| "ok".into())
}

fn sample_named(name: &str) -> Value {
    json!({
        "apiVersion": "conformance.wasmbed.github.io/v1", "kind": "Sample",
        "metadata": {"name": name}, "spec": {},
    })
}

fn copies_that_double_the_depth() -> String {
    let mut operations = vec![json!({"op": "add", "path": "/spec", "value": {}})];
    for number in 0..14 {
        let path = format!("/spec{}", "/a".repeat(1 << number));
        operations.push(json!({"op": "copy", "from": "/spec", "path": path}));
    }
    assert!(json!(operations).to_string().len() < 35_000);
    Api::json_patch(json!({}), operations)
}

fn copies_that_double_the_size() -> String {
    let mut operations = vec![
        json!({"op": "add", "path": "/spec/x", "value": ["some text", "and some more", {"a": {"b": 1}}]}),
    ];
    for number in 0..17 {
        operations.push(json!({"op": "copy", "from": "/spec", "path": format!("/spec/b{number}")}));
    }
    Api::json_patch(json!({}), operations)
}

fn copies_of_a_large_text() -> String {
    let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": "x".repeat(2 << 20)})];
    operations.extend((0..2_000).map(|_| json!({"op": "copy", "from": "/spec/x", "path": "/spec/y"})));
    Api::json_patch(json!({}), operations)
}

fn moves_that_pile_up() -> String {
    let chain = |depth: usize| (0..depth).fold(json!({}), |below, _| json!({ "a": below }));
    let chains: Value = (0..100).map(|number| (format!("c{number}"), chain(50))).collect();
    let mut operations = vec![json!({"op": "add", "path": "/spec", "value": chains})];
    operations.extend((1..100).map(|number| {
        let path = format!("/spec/c{number}{}", "/a".repeat(51));
        json!({"op": "move", "from": format!("/spec/c{}", number - 1), "path": path})
    }));
    Api::json_patch(json!({}), operations)
}

fn insertions_before_a_long_list() -> String {
    let mut operations = vec![json!({"op": "add", "path": "/spec/x", "value": vec![0; 30_000]})];
    operations
        .extend((0..8_000).map(|_| json!({"op": "move", "from": "/spec/x/29999", "path": "/spec/x/0"})));
    operations.push(json!({"op": "test", "path": "/spec/x/0", "value": 1}));
    Api::json_patch(json!({}), operations)
}

fn merges_that_grow_an_object() -> String {
    let mut api = Api::new(json!({}));
    for number in 0..40 {
        let patch = json!({"spec": {"free": {number.to_string(): "x".repeat(1 << 20)}}});
        if let Err(refused) = api.patch("application/merge-patch+json", patch) {
            return format!("{refused} after {number}");
        }
    }
    "ok".into()
}

fn read(body: &str) -> String {
    match decode::json(body.as_bytes()) {
        Ok(decoded) => format!("{} duplicates", decoded.duplicates.len()),
        Err(why) => format!("the body is refused: {why}"),
    }
}

fn repeated_names_below_a_long_name() -> String {
    let body = format!("{{\"{}\":{{{}}}}}", "n".repeat(200_000), vec!["\"a\":1"; 40_000].join(","));
    assert!(body.len() < 450_000);
    read(&body)
}

fn a_long_name_above_many_items() -> String {
    read(&format!("{{\"{}\":[{}]}}", "n".repeat(1_400_000), vec!["0"; 20_000].join(",")))
}

fn objects_without_end() -> String {
    read(&format!("[{}]", vec!["{\"\":0}"; 400_000].join(",")))
}

fn unknown_fields_below_a_long_name() -> String {
    let long = "n".repeat(1_000_000);
    let unknown: Value = (0..10_000).map(|number| (number.to_string(), json!(1))).collect();
    let mut object = sample_named("b");
    object["spec"] = json!({"nested": {long: unknown}});
    text(Api::new(json!({})).sample("", create(object)))
}

fn owners_that_all_control() -> String {
    let owner = json!({"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u", "controller": true});
    let mut object = sample_named("b");
    object["metadata"]["ownerReferences"] = vec![owner; 8_000].into();
    text(Api::new(json!({})).sample("", create(object)))
}

fn finalizers_while_deleting() -> String {
    let names = |start: &str| -> Vec<String> {
        (0..8_000).map(|number| format!("example.com/{start}-{number:06}")).collect()
    };
    let mut api = Api::new(json!({"finalizers": names("a")}));
    api.sample("a", Operation::Delete { conditions: Default::default() }).unwrap();
    let mut all = names("a");
    all.extend(names("b"));
    let patch = json!({"metadata": {"finalizers": all}});
    text(api.patch("application/merge-patch+json", patch))
}

fn managers_without_end() -> String {
    let managers: Vec<Value> = (0..4_000)
        .map(|number| {
            json!({"manager": format!("m{number}"), "operation": "Update", "fieldsType": "FieldsV1",
                "apiVersion": "conformance.wasmbed.github.io/v1", "fieldsV1": {format!("f:{number}"): {}}})
        })
        .collect();
    let mut api = Api::new(json!({}));
    text(api.patch(
        "application/merge-patch+json",
        json!({"metadata": {"managedFields": managers}, "spec": {"flag": true}}),
    ))
}

fn apply(api: &mut Api, spec: Value) -> String {
    let mut object = sample_named("a");
    object["spec"] = spec;
    let creation = Ok(Vec::new());
    let operation =
        Operation::Apply { part: Part::Main, object, duplicates: Vec::new(), force: false, creation };
    text(api.sample("a", operation))
}

fn applied_items_without_end() -> String {
    apply(
        &mut Api::new(json!({})),
        json!({"set": (0..33_000).map(|number| number.to_string()).collect::<Vec<_>>()}),
    )
}

fn applied_items_that_are_alike() -> String {
    apply(&mut Api::new(json!({})), json!({"set": vec!["x".repeat(40); 40_000]}))
}

fn conflicts_below_a_long_name() -> String {
    let fields = |value: u32| -> Value {
        let fields: Value = (0..5_000).map(|number| (number.to_string(), json!(value))).collect();
        json!({"free": {"n".repeat(700_000): fields}})
    };
    let mut api = Api::new(json!({}));
    let patch = json!({"spec": fields(1)});
    api.patch("application/merge-patch+json", patch).unwrap();
    apply(&mut api, fields(2))
}

fn labels_that_are_none() -> String {
    let labels: Value =
        (0..30_000).map(|number| (format!("{number} {}", "/".repeat(30)), json!("= ="))).collect();
    let mut object = sample_named("b");
    object["metadata"]["labels"] = labels;
    text(Api::new(json!({})).sample("", create(object)))
}
