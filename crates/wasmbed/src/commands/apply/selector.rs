//! Label selectors on the command line.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use wasmbed_apiserver::selector::{LabelRequirement, parse_labels};

/// Parses kubectl's syntax: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, separated by commas.
///
/// # Errors
/// The selector isn't of this syntax, or no device can fulfil all of its requirements.
pub(super) fn parse(text: &str) -> Result<LabelSelector> {
    ensure!(
        !text.trim().is_empty(),
        "the selector is empty: use a=b, a!=b, a in (b,c), a notin (b,c), a or !a"
    );
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let mut expressions = Vec::new();
    let mut demands: BTreeMap<String, Demand> = BTreeMap::new();
    for requirement in parse_labels(text).with_context(|| format!("invalid selector {text:?}"))? {
        let (key, operator, values) = match requirement {
            LabelRequirement::Equals(key, value) => {
                demands.entry(key.clone()).or_default().add("In", std::slice::from_ref(&value));
                labels.insert(key, value);
                continue;
            }
            LabelRequirement::NotEquals(key, value) => (key, "NotIn", Some(vec![value])),
            LabelRequirement::In(key, values) => (key, "In", Some(values.into_iter().collect())),
            LabelRequirement::NotIn(key, values) => (key, "NotIn", Some(values.into_iter().collect())),
            LabelRequirement::Exists(key) => (key, "Exists", None),
            LabelRequirement::DoesNotExist(key) => (key, "DoesNotExist", None),
            LabelRequirement::GreaterThan(key, _) | LabelRequirement::LessThan(key, _) => {
                bail!(
                    "invalid selector {text:?}: label {key:?} can't be compared: devices are selected by equality"
                )
            }
        };
        expressions.push(LabelSelectorRequirement { key, operator: operator.to_owned(), values });
    }
    for expression in &expressions {
        let values = expression.values.as_deref().unwrap_or_default();
        demands.entry(expression.key.clone()).or_default().add(&expression.operator, values);
    }
    if let Some((key, demand)) = demands.iter().find(|(_, demand)| !demand.can_be_met()) {
        bail!("no device can be selected: {text:?} asks for {} of label {key:?}", demand.describe());
    }
    Ok(LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    })
}

/// All requirements on one label.
#[derive(Default)]
struct Demand {
    /// Values that all of `In` and `=` allow; `None` without such a requirement.
    allowed: Option<BTreeSet<String>>,
    denied: BTreeSet<String>,
    present: bool,
    absent: bool,
    texts: Vec<String>,
}

impl Demand {
    fn add(&mut self, operator: &str, values: &[String]) {
        let values: BTreeSet<String> = values.iter().cloned().collect();
        let list = values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(" or ");
        match operator {
            "In" => {
                self.texts.push(format!("value {list}"));
                self.allowed = Some(match self.allowed.take() {
                    Some(allowed) => allowed.intersection(&values).cloned().collect(),
                    None => values,
                });
            }
            "NotIn" => {
                self.texts.push(format!("no value {list}"));
                self.denied.extend(values);
            }
            "Exists" => {
                self.texts.push("any value".to_owned());
                self.present = true;
            }
            _ => {
                self.texts.push("absence".to_owned());
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

    fn describe(&self) -> String {
        self.texts.join(" and ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_kubectl_is_parsed() {
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
    fn selectors_that_no_device_can_fulfil_are_refused() {
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
