//! Label selectors as people type them.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Parses kubectl's syntax: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, with commas between.
///
/// # Errors
/// The part that is none of these.
pub(super) fn parse(text: &str) -> Result<LabelSelector> {
    let mut labels = BTreeMap::new();
    let mut expressions = Vec::new();
    for part in split(text) {
        let part = part.trim();
        let requirement = |key: &str, operator: &str, values: Option<Vec<String>>| {
            ensure!(
                !key.is_empty() && !key.contains(char::is_whitespace),
                "{part:?} is no label requirement: use a=b, a!=b, a in (b,c), a notin (b,c), a or !a"
            );
            Ok(LabelSelectorRequirement { key: key.to_owned(), operator: operator.to_owned(), values })
        };
        if let Some((key, values)) = set(part, " in ")? {
            expressions.push(requirement(key, "In", Some(values))?);
        } else if let Some((key, values)) = set(part, " notin ")? {
            expressions.push(requirement(key, "NotIn", Some(values))?);
        } else if let Some((key, value)) = part.split_once("!=") {
            expressions.push(requirement(key.trim(), "NotIn", Some(vec![value.trim().to_owned()]))?);
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            let key = requirement(key.trim(), "In", None)?.key;
            labels.insert(key, value.trim().to_owned());
        } else if let Some(key) = part.strip_prefix('!') {
            expressions.push(requirement(key.trim(), "DoesNotExist", None)?);
        } else {
            expressions.push(requirement(part, "Exists", None)?);
        }
    }
    Ok(LabelSelector {
        match_labels: (!labels.is_empty()).then_some(labels),
        match_expressions: (!expressions.is_empty()).then_some(expressions),
    })
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
        for text in ["", "a,", "=b", "a in b", "a b", "a notin (b"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
