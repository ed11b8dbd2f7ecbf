//! Which devices an Application goes to.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use wasmbed_api::TargetDevices;

/// Whether a device is a target: its name is listed or its labels are selected. Absent targets mean none.
#[must_use]
pub fn plan_target(targets: Option<&TargetDevices>, name: &str, labels: &BTreeMap<String, String>) -> bool {
    targets.is_some_and(|targets| {
        targets.device_names.iter().any(|listed| listed == name)
            || targets.selector.as_ref().is_some_and(|selector| selects(selector, labels))
    })
}

/// Whether a selector matches, with the meaning that Kubernetes gives it: all parts must hold, an empty one matches all.
#[must_use]
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector
        .match_labels
        .as_ref()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    equal && expressions.iter().all(|requirement| holds(requirement, labels))
}

/// An operator that Kubernetes does not have selects nothing: to widen a selection by mistake would be worse.
fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn absent_targets_mean_none_and_an_empty_selector_all() {
        let none = TargetDevices::default();
        assert!(!plan_target(None, "a", &labels(&[])));
        assert!(!plan_target(Some(&none), "a", &labels(&[])));
        let all = TargetDevices { selector: Some(LabelSelector::default()), ..none };
        assert!(plan_target(Some(&all), "a", &labels(&[])));
    }

    #[test]
    fn names_and_selector_make_a_union() {
        let targets = TargetDevices {
            device_names: vec!["a".to_owned()],
            selector: Some(LabelSelector {
                match_labels: Some(labels(&[("site", "x")])),
                ..LabelSelector::default()
            }),
        };
        assert!(plan_target(Some(&targets), "a", &labels(&[])));
        assert!(plan_target(Some(&targets), "b", &labels(&[("site", "x")])));
        assert!(!plan_target(Some(&targets), "b", &labels(&[("site", "y")])));
    }

    #[test]
    fn expressions_mean_what_they_mean_in_kubernetes() {
        let here = labels(&[("site", "x")]);
        assert!(selects(&expression("site", "In", &["x", "y"]), &here));
        assert!(!selects(&expression("site", "NotIn", &["x"]), &here));
        assert!(selects(&expression("zone", "NotIn", &["x"]), &here));
        assert!(selects(&expression("site", "Exists", &[]), &here));
        assert!(selects(&expression("zone", "DoesNotExist", &[]), &here));
        assert!(!selects(&expression("site", "Near", &["x"]), &here));
    }
}
