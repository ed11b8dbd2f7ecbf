//! Random sequences of writes of one object by several managers, as cases: applies, updates and patches of a kind with
//! every type of list and map. Every answer has the `managedFields` after the write.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use crate::corpus::{Case, Step, User};

/// Writes in one case.
const WRITES: usize = 12;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut dice = Dice { random: StdRng::seed_from_u64(seed), nulls: false };
    let mut steps = vec![dice.first()];
    dice.nulls = true;
    for _ in 0..WRITES {
        let write = dice.write();
        if write.send.starts_with("PUT ") {
            let mut get = step("GET {samples}/a".into(), None, None);
            get.save.insert("rv".into(), "/metadata/resourceVersion".into());
            steps.push(get);
        }
        steps.push(write);
    }
    Case { name: format!("random writes, seed {seed}"), steps }
}

fn step(send: String, media_type: Option<&str>, body: Option<Value>) -> Step {
    let headers = media_type.map(|media_type| ("content-type".to_owned(), media_type.to_owned()));
    Step {
        send,
        user: User::Admin,
        headers: headers.into_iter().collect(),
        body,
        text: None,
        watch: None,
        save: BTreeMap::new(),
        until: None,
        times: None,
        allow: BTreeMap::new(),
    }
}

struct Dice {
    random: StdRng,
    /// Values may be null, which may be refused.
    nulls: bool,
}

impl Dice {
    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.random).copied().unwrap_or_default()
    }

    fn first(&mut self) -> Step {
        let manager = self.of(&MANAGERS);
        if self.one_in(2) {
            let body = self.object(json!({"name": "a"}));
            return step(format!("POST {{samples}}?fieldManager={manager}"), None, Some(body));
        }
        let mut step = self.apply("", manager);
        step.send = step.send.replace("&dryRun=All", "");
        step
    }

    fn write(&mut self) -> Step {
        let manager = self.of(&MANAGERS);
        match self.random.random_range(0..20) {
            0..10 => self.apply("", manager),
            10..12 => self.apply("/status", manager),
            12..14 => {
                let mut metadata = json!({"name": "a", "resourceVersion": "{rv}"});
                if self.one_in(3) {
                    metadata["labels"] = self.marks();
                }
                let body = self.object(metadata);
                step(format!("PUT {{samples}}/a?fieldManager={manager}"), None, Some(body))
            }
            14..17 => {
                let body = json!({"spec": self.patch()});
                step(format!("PATCH {{samples}}/a?fieldManager={manager}"), Some(MERGE), Some(body))
            }
            17 => {
                let body = json!({"status": self.status()});
                step(format!("PATCH {{samples}}/a/status?fieldManager={manager}"), Some(MERGE), Some(body))
            }
            18 => {
                let (field, value) = self.field();
                let body = json!([{"op": "add", "path": format!("/spec/{field}"), "value": value}]);
                step(format!("PATCH {{samples}}/a?fieldManager={manager}"), Some(JSON), Some(body))
            }
            _ => {
                let body = json!({"metadata": {"managedFields": [{}]}});
                match self.one_in(4) {
                    true => step("PATCH {samples}/a".into(), Some(MERGE), Some(body)),
                    false => step("GET {samples}/a".into(), None, None),
                }
            }
        }
    }

    fn apply(&mut self, subresource: &str, manager: &str) -> Step {
        let force = if self.one_in(3) { "&force=true" } else { "" };
        let dry = if self.one_in(8) { "&dryRun=All" } else { "" };
        let mut metadata = json!({"name": "a"});
        if self.one_in(3) {
            metadata["labels"] = self.marks();
        }
        if self.one_in(5) {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "v1", "kind": "X", "name": self.of(&NAMES), "uid": self.of(&NAMES),
            }]);
        }
        if self.one_in(8) {
            metadata["annotations"] = self.marks();
        }
        let mut body = self.object(metadata);
        if subresource == "/status" {
            body["status"] = self.status();
        }
        step(
            format!("PATCH {{samples}}/a{subresource}?fieldManager={manager}{force}{dry}"),
            Some(APPLY),
            Some(body),
        )
    }

    fn object(&mut self, metadata: Value) -> Value {
        json!({
            "apiVersion": "conformance.wasmbed.github.io/v1", "kind": "Sample", "metadata": metadata, "spec": self.spec(),
        })
    }

    fn spec(&mut self) -> Value {
        let count = self.random.random_range(0..5);
        Value::Object((0..count).map(|_| self.field()).collect())
    }

    /// A merge patch of a specification: values and removals.
    fn patch(&mut self) -> Value {
        let count = self.random.random_range(1..3);
        let fields = (0..count).map(|_| {
            let (name, value) = self.field();
            (name, if self.one_in(3) { Value::Null } else { value })
        });
        Value::Object(fields.collect::<Map<String, Value>>())
    }

    fn status(&mut self) -> Value {
        match self.random.random_range(0..4) {
            0 => json!({"phase": "New"}),
            1 => json!({"count": self.number()}),
            2 => json!({"phase": "Old", "count": self.number()}),
            _ => json!({"conditions": [{"type": self.of(&NAMES), "status": self.of(&NAMES)}]}),
        }
    }

    fn number(&mut self) -> i64 {
        self.random.random_range(0..4)
    }

    /// Some of the names, in any order.
    fn names(&mut self, least: usize) -> Vec<&'static str> {
        let count = self.random.random_range(least..4);
        NAMES.choose_multiple(&mut self.random, count).copied().collect()
    }

    fn texts(&mut self) -> Value {
        self.names(0).into_iter().map(|name| (name.to_owned(), json!(self.of(&NAMES)))).collect()
    }

    /// Labels or annotations. Never none: kube-apiserver stores an applied `labels: {}`, shows nothing of it and drops it
    /// with the next write, which then has a version of its own.
    fn marks(&mut self) -> Value {
        self.names(1).into_iter().map(|name| (name.to_owned(), json!(self.of(&NAMES)))).collect()
    }

    fn field(&mut self) -> (String, Value) {
        let (name, value) = match self.random.random_range(0..17) {
            0 => ("text", json!(format!("{0}{0}", self.of(&NAMES)))),
            1 => ("count", json!(self.number())),
            2 => ("flag", json!(self.one_in(2))),
            3 => ("port", if self.one_in(2) { json!(self.number()) } else { json!(self.of(&NAMES)) }),
            4 => ("atomic", json!(self.names(0))),
            5 | 6 => ("set", json!(self.names(1))),
            7 => ("numbers", json!(if self.one_in(2) { vec![1, 2] } else { vec![2, 3] })),
            8 | 9 => ("map", self.items()),
            10 => ("ports", self.ports()),
            11 => ("labels", self.texts()),
            12 => ("nested", self.nested()),
            13 => ("whole", json!({"p": self.of(&NAMES)})),
            14 => ("free", self.free()),
            15 => ("defaulted", if self.one_in(2) { json!({}) } else { json!({"b": self.number()}) }),
            _ => ("optional", if self.one_in(2) { json!({}) } else { json!({"e": self.of(&NAMES)}) }),
        };
        let null = self.one_in(40) && self.nulls;
        (name.to_owned(), if null { Value::Null } else { value })
    }

    fn items(&mut self) -> Value {
        let item = |dice: &mut Dice, name: &str| {
            let mut item = json!({"name": name});
            if dice.one_in(2) {
                item["value"] = json!(dice.of(&NAMES));
            }
            if dice.one_in(3) {
                item["inner"] = json!(dice.names(0));
            }
            if dice.one_in(3) {
                item["more"] = json!({"p": dice.of(&NAMES)});
            }
            item
        };
        self.names(0).into_iter().map(|name| item(self, name)).collect()
    }

    fn ports(&mut self) -> Value {
        let mut ports = Vec::new();
        for port in 0..self.random.random_range(0..3) {
            let mut item = json!({"port": port});
            if self.one_in(2) {
                item["protocol"] = json!("UDP");
            }
            if self.one_in(2) {
                item["name"] = json!(self.of(&NAMES));
            }
            ports.push(item);
        }
        Value::Array(ports)
    }

    fn nested(&mut self) -> Value {
        let below = |dice: &mut Dice| match dice.random.random_range(0..3) {
            0 => json!({"p": dice.of(&NAMES)}),
            1 => json!({"q": dice.number()}),
            _ => json!({}),
        };
        self.names(0).into_iter().map(|name| (name.to_owned(), below(self))).collect()
    }

    fn free(&mut self) -> Value {
        let below = |dice: &mut Dice| match dice.random.random_range(0..4) {
            0 => json!(dice.number()),
            1 => json!([dice.of(&NAMES), {"x": 1}]),
            2 => dice.texts(),
            _ => json!({"deep": dice.texts()}),
        };
        self.names(0).into_iter().map(|name| (name.to_owned(), below(self))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::case;

    #[test]
    fn a_seed_is_a_case() {
        let told = |seed: u64| -> Vec<String> {
            let steps = case(seed).steps.into_iter();
            steps.map(|step| format!("{} {:?}", step.send, step.body)).collect()
        };
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
        assert!(told(7).len() > super::WRITES);
    }
}
