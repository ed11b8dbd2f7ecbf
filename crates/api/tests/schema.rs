//! The schemas as the API server needs them: structural, bounded everywhere, and refusing what must be refused.

#![cfg(test)]

use serde_json::{Value, json};
use wasmbed_api::{
    Application, ApplicationPhase, Device, DeviceApplicationState, DevicePhase, ReasonCode, RestartPolicy,
    crds,
};

/// Every node below the root schema of every resource, with its path.
fn nodes() -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for crd in crds() {
        let crd = serde_json::to_value(&crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        collect(crd["spec"]["names"]["kind"].as_str().unwrap(), schema, &mut all);
    }
    assert!(all.len() > 100, "the walk found {} nodes", all.len());
    all
}

fn collect(path: &str, node: &Value, all: &mut Vec<(String, Value)>) {
    all.push((path.to_owned(), node.clone()));
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        collect(&format!("{path}.{name}"), child, all);
    }
    for (key, name) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(child) = node.get(key) {
            collect(&format!("{path}{name}"), child, all);
        }
    }
}

fn node(path: &str) -> Value {
    nodes().into_iter().find(|(found, _)| found == path).unwrap_or_else(|| panic!("no {path}")).1
}

#[test]
fn every_string_list_and_map_is_bounded() {
    for (path, node) in nodes() {
        let bound = match node["type"].as_str() {
            Some("string") if node.get("enum").is_some() => continue,
            Some("string") => "maxLength",
            Some("array") => "maxItems",
            Some("object") if node.get("additionalProperties").is_some() => "maxProperties",
            Some("integer") => {
                assert!(node["minimum"].is_number(), "{path} has no minimum");
                continue;
            }
            _ => continue,
        };
        assert!(node[bound].is_u64(), "{path} has no {bound}: {node}");
    }
}

/// Rules for structural schemas:
/// <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.
#[test]
fn every_node_is_structural() {
    for (path, node) in nodes() {
        // Of one that is a number or a text Kubernetes wants no type.
        let either = node["x-kubernetes-int-or-string"] == true;
        assert!(node["type"].is_string() != either, "{path} has no type, or two: {node}");
        for forbidden in
            ["$ref", "definitions", "$defs", "nullable", "oneOf", "anyOf", "allOf", "not", "const"]
        {
            assert!(node.get(forbidden).is_none(), "{path} has {forbidden}");
        }
        assert!(
            node.get("properties").is_none() || node.get("additionalProperties").is_none(),
            "{path} has both properties and additionalProperties"
        );
        if node["type"] == "array" {
            assert!(node["items"].is_object(), "{path} has no items");
            assert!(node["x-kubernetes-list-type"].is_string(), "{path} has no list type");
        }
        for key in node["x-kubernetes-list-map-keys"].as_array().into_iter().flatten() {
            let required = node["items"]["required"].as_array().unwrap();
            assert!(required.contains(key), "{path}: the key {key} is not required");
        }
    }
}

#[test]
fn every_default_has_the_type_of_its_field() {
    for (path, node) in nodes() {
        let Some(default) = node.get("default") else { continue };
        let fits = match node["type"].as_str().unwrap() {
            "string" => default.is_string(),
            "boolean" => default.is_boolean(),
            "integer" => default.is_i64(),
            "object" => default
                .as_object()
                .is_some_and(|fields| fields.keys().all(|name| node["properties"].get(name).is_some())),
            other => panic!("{path} has a default of type {other}"),
        };
        assert!(fits, "{path}: {default}");
    }
    assert_eq!(node("Device.spec.approved")["default"], json!(true));
    assert_eq!(node("Application.spec.config")["default"]["memory_limit"], json!(65_536));
}

#[test]
fn every_field_is_described() {
    for (path, node) in nodes() {
        let item = path.ends_with("[]") || path.ends_with("{}") || !path.contains('.');
        assert!(item || node["description"].is_string(), "{path} has no description");
    }
}

#[test]
fn placeholders_are_refused_and_real_base64_is_not() {
    for (path, placeholder) in [
        ("Device.spec.public_key", "base64_encoded_public_key"),
        ("Application.spec.wasm_bytes", "base64_encoded_wasm_binary"),
        ("Module.spec.wasm_bytes", "base64_encoded_wasm_binary"),
    ] {
        let pattern = regex::Regex::new(node(path)["pattern"].as_str().unwrap()).unwrap();
        for wrong in [
            placeholder,
            "",
            "AGFzbQEAAAA",
            "AGFz bQEAAAA=",
            "AGFzbQEAAAA=\n",
            "AGFzbQEA-_A=",
            "A===",
            "AGFz=",
        ] {
            assert!(!pattern.is_match(wrong), "{path} takes {wrong:?}");
        }
        for right in ["AGFzbQEAAAA=", "AGFzbQEAAAAA", "AGFzbQEAAA=="] {
            assert!(pattern.is_match(right), "{path} does not take {right:?}");
        }
    }
}

#[test]
fn bounds_of_modules_are_those_of_their_bytes() {
    let base64_length = |bytes: u64| bytes.div_ceil(3) * 4;
    assert_eq!(node("Application.spec.wasm_bytes")["maxLength"], json!(base64_length(128 * 1024)));
    assert_eq!(node("Module.spec.wasm_bytes")["maxLength"], json!(base64_length(1024 * 1024)));
}

#[test]
fn the_overviews_manifests_are_resources_of_ours() {
    let device: Device = serde_saphyr::from_str(
        r#"
apiVersion: wasmbed.github.io/v1alpha1
kind: Device
metadata:
  name: device-001
spec:
  device_type: "hifive1"
  capabilities: ["wasm", "tls"]
  public_key: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE"
status:
  phase: "Connected"
  last_heartbeat: "2024-09-01T22:00:00Z"
"#,
    )
    .unwrap();
    assert!(device.spec.approved && !device.spec.revoked);
    assert_eq!(device.status.unwrap().last_heartbeat.as_deref(), Some("2024-09-01T22:00:00Z"));

    let application: Application = serde_saphyr::from_str(
        r#"
apiVersion: wasmbed.github.io/v1alpha1
kind: Application
metadata:
  name: my-wasm-app
spec:
  name: "My WASM Application"
  wasm_bytes: "AGFzbQEAAAA="
  target_devices:
    device_names: ["device-001"]
  config:
    memory_limit: 1048576
    cpu_time_limit: 1000
"#,
    )
    .unwrap();
    assert_eq!(application.spec.config.memory_limit, 1_048_576);
    assert_eq!(application.spec.target_devices.unwrap().device_names, ["device-001"]);
}

#[test]
fn the_definitions_offer_what_people_type() {
    let names: Vec<_> = crds()
        .into_iter()
        .map(|crd| {
            let names = crd.spec.names;
            assert_eq!(names.categories, Some(vec!["wasmbed".to_owned()]));
            (names.plural, names.short_names.unwrap().join(","))
        })
        .collect();
    let expected = [
        ("applications", "wapp"),
        ("devices", "wdev"),
        ("devicegateways", "wgw"),
        ("messagebrokers", "wmb"),
        ("modules", "wmod"),
    ];
    assert_eq!(names, expected.map(|(plural, short)| (plural.to_owned(), short.to_owned())));
    for crd in crds() {
        let version = &crd.spec.versions[0];
        for field in version.selectable_fields.iter().flatten() {
            let path = format!("{}{}", crd.spec.names.kind, field.json_path);
            assert!(matches!(node(&path)["type"].as_str(), Some("string" | "boolean")), "{path}");
        }
        let status = version.subresources.as_ref().is_some_and(|all| all.status.is_some());
        assert_eq!(status, crd.spec.names.kind != "Module");
    }
}

#[test]
fn a_reason_of_a_later_version_is_read_as_unknown() {
    assert_eq!(serde_json::from_value::<ReasonCode>(json!("Trapped")).unwrap(), ReasonCode::Trapped);
    assert_eq!(serde_json::from_value::<ReasonCode>(json!("InventedLater")).unwrap(), ReasonCode::Unknown);
    let pattern =
        regex::Regex::new(node("Application.status.failures[].reason")["pattern"].as_str().unwrap()).unwrap();
    for reason in ReasonCode::ALL {
        assert!(pattern.is_match(reason.as_str()) && reason.sentence().ends_with('.'), "{reason:?}");
        assert_eq!(serde_json::to_value(reason).unwrap(), json!(reason.as_str()));
    }
}

/// What a later version wrote stops no watch of this one, and its names do not stand in this version's definitions.
#[test]
fn a_value_of_a_later_version_is_read_as_unknown() {
    let application: Application = serde_json::from_value(json!({
        "metadata": {"name": "a"},
        "spec": {"config": {"restart_policy": "Sometimes"}},
        "status": {"phase": "Hibernating"},
    }))
    .unwrap();
    assert_eq!(application.spec.config.restart_policy, RestartPolicy::Unknown);
    assert_eq!(application.status.unwrap().phase, ApplicationPhase::Unknown);
    let running = json!({"uid": "u", "state": "Migrating", "spec_hash": "", "digest": "", "restarts": 0, "memory_bytes": 0});
    let device: Device = serde_json::from_value(json!({
        "metadata": {"name": "d"}, "spec": {}, "status": {"phase": "Hibernating", "applications": [running]},
    }))
    .unwrap();
    let status = device.status.unwrap();
    assert_eq!(status.phase, DevicePhase::Unknown);
    assert_eq!(status.applications[0].state, DeviceApplicationState::Unknown);
    for path in ["Application.spec.config.restart_policy", "Application.status.phase", "Device.status.phase"]
    {
        let values = node(path)["enum"].as_array().cloned().unwrap_or_default();
        assert!(!values.is_empty() && !values.contains(&json!("Unknown")), "{path}: {values:?}");
    }
}
