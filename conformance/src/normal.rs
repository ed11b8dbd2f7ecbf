//! Replaces values that must differ between two servers: uids by order of appearance, versions by rank.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::client::Answer;

/// Times this close to now come from the server's clock.
const NOW_SECONDS: i64 = 600;
/// Headers that clients act on.
const HEADERS: [&str; 6] =
    ["content-type", "warning", "retry-after", "allow", "location", "www-authenticate"];
/// Characters of the random suffix of a generated name.
const SUFFIX: usize = 5;
/// What the id of a client certificate begins with; its hash follows.
const CREDENTIAL: &str = "X509SHA256=";
/// Characters of a uid.
const UID: usize = 36;

/// State over the answers of one case from one server.
#[derive(Debug, Default)]
pub struct Normaliser {
    uids: Vec<String>,
    versions: BTreeSet<u64>,
    /// Generated names and their replacements.
    names: BTreeMap<String, String>,
}

impl Normaliser {
    /// The answers of a case in the form that is compared.
    pub fn normalise(mut self, answers: &[Answer]) -> Vec<Value> {
        for answer in answers {
            self.learn(&answer.body);
        }
        answers.iter().map(|answer| self.answer(answer)).collect()
    }

    /// Collects versions, uids and generated names.
    fn learn(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                let metadata = &value["metadata"];
                if !is_list(value)
                    && let Some(version) = metadata["resourceVersion"].as_str().and_then(|v| v.parse().ok())
                {
                    self.versions.insert(version);
                }
                if let (Some(start), Some(name)) =
                    (metadata["generateName"].as_str(), metadata["name"].as_str())
                    && name.len() == start.len() + SUFFIX
                    && name.starts_with(start)
                {
                    let count = self.names.len();
                    self.names.entry(name.to_owned()).or_insert(format!("{start}<random {count}>"));
                }
                fields.values().for_each(|value| self.learn(value));
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn(item)),
            Value::String(text) => {
                for uid in uids(text) {
                    if !self.uids.iter().any(|known| known == uid) {
                        self.uids.push(uid.to_owned());
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn answer(&self, answer: &Answer) -> Value {
        let mut headers = serde_json::Map::new();
        for name in HEADERS {
            let mut values: Vec<String> = answer
                .headers
                .get_all(name)
                .iter()
                .map(|value| self.text(&String::from_utf8_lossy(value.as_bytes())))
                .collect();
            // Their order has no meaning.
            values.sort();
            if !values.is_empty() {
                headers.insert(name.to_owned(), json!(values));
            }
        }
        let mut body = answer.body.clone();
        self.value(&mut body);
        managers(&mut body);
        causes(&mut body);
        json!({"code": answer.code, "headers": headers, "body": body})
    }

    fn value(&self, value: &mut Value) {
        let list = is_list(value);
        match value {
            Value::Object(fields) => {
                if fields.get("type").is_some_and(|ty| ty == "BOOKMARK") {
                    bookmark(fields);
                }
                if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                    self.metadata(metadata, list);
                }
                if fields.keys().any(|name| uids(name).next().is_some()) {
                    *fields = std::mem::take(fields)
                        .into_iter()
                        .map(|(name, value)| (self.text(&name), value))
                        .collect();
                }
                for (name, value) in fields {
                    if name == "cells" {
                        value.as_array_mut().into_iter().flatten().for_each(age);
                    }
                    self.value(value);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::String(text) => *text = self.text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn metadata(&self, metadata: &mut serde_json::Map<String, Value>, list: bool) {
        if let Some(Value::String(version)) = metadata.get_mut("resourceVersion")
            && let Ok(number) = version.parse::<u64>()
        {
            *version = if list {
                "<version of the list>".into()
            } else {
                let rank = self.versions.iter().position(|known| *known == number);
                rank.map_or_else(|| "<unknown version>".into(), |rank| format!("<version {rank}>"))
            };
        }
        if let Some(Value::String(token)) = metadata.get_mut("continue").filter(|token| *token != "") {
            *token = "<token>".into();
        }
    }

    fn text(&self, text: &str) -> String {
        if let Ok(time) = text.parse::<Timestamp>()
            && (time.as_second() - Timestamp::now().as_second()).abs() < NOW_SECONDS
        {
            return format!("<now, {} characters>", text.len());
        }
        let mut text = text.to_owned();
        for (index, uid) in self.uids.iter().enumerate() {
            text = text.replace(uid, &format!("<uid {index}>"));
        }
        if let Some(hash) = text.strip_prefix(CREDENTIAL) {
            text = format!("{CREDENTIAL}<{} characters>", hash.len());
        }
        for (name, shown) in &self.names {
            text = text.replace(name, shown);
        }
        let lower = text.to_lowercase();
        if lower.contains("resource version") || lower.contains("resourceversion") {
            text = without_numbers(&text);
        }
        text
    }
}

/// Lists and Tables have a version of the store, which other writers change.
fn is_list(value: &Value) -> bool {
    value.get("items").is_some_and(Value::is_array) || value["kind"] == "Table"
}

/// Causes are in no particular order, and some are repeated. A message of several causes is the list of them and nothing
/// else, so that it is replaced by what precedes them.
fn causes(status: &mut Value) {
    let Some(causes) = status.pointer_mut("/details/causes").and_then(Value::as_array_mut) else { return };
    causes.sort_by_key(Value::to_string);
    causes.dedup();
    let told: Vec<String> = causes
        .iter()
        .map(|cause| {
            let text = |name: &str| cause[name].as_str().unwrap_or_default();
            format!("{}: {}", text("field"), text("message"))
        })
        .collect();
    let Some(message) = status["message"].as_str() else { return };
    let Some((before, list)) = message.split_once("is invalid: ") else { return };
    if told.iter().all(|cause| list.contains(cause.as_str())) {
        status["message"] = json!(format!("{before}is invalid: <the causes>"));
    }
}

/// Managers are in the order of their times, whose seconds differ from server to server.
fn managers(value: &mut Value) {
    if let Some(entries) = value.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut) {
        entries.sort_by_key(Value::to_string);
    }
    match value {
        Value::Object(fields) => fields.values_mut().for_each(managers),
        Value::Array(items) => items.iter_mut().for_each(managers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn bookmark(event: &mut serde_json::Map<String, Value>) {
    if let Some(version) =
        event.get_mut("object").and_then(|object| object.pointer_mut("/metadata/resourceVersion"))
    {
        *version = json!("<version of the bookmark>");
    }
}

/// The age of a new object.
fn age(cell: &mut Value) {
    let is_seconds = |text: &str| {
        text.strip_suffix('s')
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
    };
    if cell.as_str().is_some_and(is_seconds) {
        *cell = json!("<age>");
    }
}

/// All uids in a text.
fn uids(text: &str) -> impl Iterator<Item = &str> {
    (0..text.len()).filter_map(|start| text.get(start..start + UID)).filter(|candidate| is_uid(candidate))
}

fn is_uid(text: &str) -> bool {
    text.bytes().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    })
}

fn without_numbers(text: &str) -> String {
    let mut shown = String::new();
    let mut digits = false;
    for c in text.chars() {
        if c.is_ascii_digit() {
            if !digits {
                shown.push_str("<number>");
            }
        } else {
            shown.push(c);
        }
        digits = c.is_ascii_digit();
    }
    shown
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Value, json};

    use super::Normaliser;
    use crate::client::Answer;

    fn normal(body: Value) -> Value {
        let answer = Answer { code: 200, headers: HeaderMap::new(), body };
        Normaliser::default().normalise(&[answer])[0]["body"].clone()
    }

    #[test]
    fn what_must_differ_is_replaced_and_its_order_kept() {
        let one = normal(json!({"items": [
            {"metadata": {"uid": "6f2e9b5a-0000-4000-8000-000000000001", "resourceVersion": "90"}},
            {"metadata": {"uid": "6f2e9b5a-0000-4000-8000-000000000002", "resourceVersion": "17",
                "generateName": "a-", "name": "a-x2x2x"}},
        ], "metadata": {"resourceVersion": "100"}}));
        assert_eq!(one["items"][0]["metadata"], json!({"uid": "<uid 0>", "resourceVersion": "<version 1>"}));
        assert_eq!(
            one["items"][1]["metadata"],
            json!({"uid": "<uid 1>", "resourceVersion": "<version 0>", "generateName": "a-", "name": "a-<random 0>"})
        );
        assert_eq!(one["metadata"]["resourceVersion"], "<version of the list>");
    }

    #[test]
    fn what_need_not_differ_stays() {
        let body = json!({"spec": {"renewTime": "2020-01-01T00:00:00Z", "n": 5, "cells": ["a5s"]}, "message": "at most 63"});
        assert_eq!(normal(body.clone()), body);
        assert_eq!(
            normal(json!("too old resource version: 5 (9)")),
            "too old resource version: <number> (<number>)"
        );
    }
}
