//! Label selectors as people type them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Parses kubectl's syntax: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, with commas between.
///
/// # Errors
/// The part that is none of these, and parts of which no device can fulfil all.
pub(super) fn parse(text: &str) -> Result<LabelSelector> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut expressions = Vec::new();
    let mut demands: BTreeMap<String, Demand> = BTreeMap::new();
    for part in split(text) {
        let part = part.trim();
        let requirement = |key: &str, operator: &str, values: Option<Vec<String>>| {
            ensure!(
                is_key(key),
                "{part:?} is no label requirement: use a=b, a!=b, a in (b,c), a notin (b,c), a or !a"
            );
            let wrong = values.iter().flatten().find(|value| !is_value(value));
            if let Some(value) = wrong {
                bail!(
                    "{part:?}: {value:?} is no label value: at most 63 letters, digits, '-', '_' and '.', the first and the last a letter or digit"
                );
            }
            Ok(LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values })
        };
        if let Some((key, values)) = set(part, " in ")? {
            expressions.push(requirement(key, "In", Some(values))?);
        } else if let Some((key, values)) = set(part, " notin ")? {
            expressions.push(requirement(key, "NotIn", Some(values))?);
        } else if let Some((key, value)) = part.split_once("!=") {
            expressions.push(requirement(key.trim(), "NotIn", Some(vec![value.trim().to_owned()]))?);
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            let value = value.trim();
            let key = requirement(key.trim(), "In", Some(vec![value.to_owned()]))?.key;
            demands.entry(key.clone()).or_default().add("In", &[value.to_owned()]);
            labels.insert(key, value.to_owned());
        } else if let Some(key) = part.strip_prefix('!') {
            expressions.push(requirement(key.trim(), "DoesNotExist", None)?);
        } else {
            expressions.push(requirement(part, "Exists", None)?);
        }
    }
    for expression in &expressions {
        let values = expression.values.as_deref().unwrap_or_default();
        demands.entry(expression.key.clone()).or_default().add(&expression.operator, values);
    }
    if let Some((key, demand)) = demands.iter().find(|(_, demand)| !demand.can_be_met()) {
        bail!("no device can be selected: {text:?} asks for {} of label {key:?}", demand.words());
    }
    Ok(LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    })
}

/// What all requirements together ask of one label.
#[derive(Default)]
struct Demand {
    /// Values that every one of `In` and `=` allows; none if there is no such requirement.
    allowed: Option<BTreeSet<String>>,
    denied: BTreeSet<String>,
    present: bool,
    absent: bool,
    said: Vec<String>,
}

impl Demand {
    fn add(&mut self, operator: &str, values: &[String]) {
        let values: BTreeSet<String> = values.iter().cloned().collect();
        let list = values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" or ");
        match operator {
            "In" => {
                self.said.push(format!("value {list}"));
                self.allowed = Some(match self.allowed.take() {
                    Some(allowed) => allowed.intersection(&values).cloned().collect(),
                    None => values,
                });
            }
            "NotIn" => {
                self.said.push(format!("no value {list}"));
                self.denied.extend(values);
            }
            "Exists" => {
                self.said.push("any value".to_owned());
                self.present = true;
            }
            _ => {
                self.said.push("absence".to_owned());
                self.absent = true;
            }
        }
    }

    fn can_be_met(&self) -> bool {
        match &self.allowed {
            Some(allowed) => !self.absent && allowed.difference(&self.denied).next().is_some(),
            None => !(self.absent && self.present),
        }
    }

    fn words(&self) -> String {
        self.said.join(" and ")
    }
}

/// `name` or `prefix/name`, as Kubernetes takes them.
fn is_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let prefix = prefix.is_none_or(|prefix| {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
        !prefix.is_empty() && prefix.len() <= 253 && prefix.bytes().all(allowed)
    });
    prefix && !name.is_empty() && is_value(name)
}

fn is_value(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = value.bytes().next().into_iter().chain(value.bytes().last());
    value.len() <= 63 && value.bytes().all(inner) && { ends }.all(|byte| byte.is_ascii_alphanumeric())
}

/// Splits at commas outside of parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn set<'a>(part: &'a str, word: &str) -> Result<Option<(&'a str, Vec<String>)>> {
    let Some((key, values)) = part.split_once(word) else { return Ok(None) };
    let Some(values) = values.trim().strip_prefix('(').and_then(|values| values.strip_suffix(')')) else {
        bail!("{part:?}: the values stand in parentheses, for example{word}(a,b)");
    };
    Ok(Some((key.trim(), values.split(',').map(|value| value.trim().to_owned()).collect())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_that_kubectl_takes_is_read() {
        let selector = parse("a=b, site == lab,c!=d,e in (f, g),h notin (i),j,!k").unwrap();
        assert_eq!(
            serde_json::to_value(selector).unwrap(),
            json!({
                "matchLabels": {"a": "b", "site": "lab"},
                "matchExpressions": [
                    {"key": "c", "operator": "NotIn", "values": ["d"]},
                    {"key": "e", "operator": "In", "values": ["f", "g"]},
                    {"key": "h", "operator": "NotIn", "values": ["i"]},
                    {"key": "j", "operator": "Exists"},
                    {"key": "k", "operator": "DoesNotExist"},
                ],
            })
        );
    }

    #[test]
    fn anything_else_is_refused() {
        let texts = [
            "",
            "a,",
            "=b",
            "a in b",
            "a b",
            "a notin (b",
            "a),b=c",
            "a=b c",
            "a=-",
            "a in (b c)",
            "a=b=c",
            "/a",
        ];
        for text in texts {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_no_device_can_fulfil_is_refused_and_named() {
        let error = parse("a=1,a=2").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"no device can be selected: "a=1,a=2" asks for value "1" and value "2" of label "a""#
        );
        for text in
            ["a=1,a!=1", "a=1,!a", "a,!a", "a in (b,c),a notin (b,c)", "a in (b),a in (c)", "a in (b,c),a=d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in
            ["a=1,a=1", "a!=1,!a", "a,a=1", "a in (b,c),a notin (b)", "a in (b,c),a=b", "x/a=1,a=2", "a="]
        {
            assert!(parse(text).is_ok(), "{text}: {:?}", parse(text));
        }
    }
}
