use std::path::Path;

use serde_json::{Value, json};

use super::{Kind, Kinds};

/// The definitions of this project have no unsupported keyword, rule or column.
#[test]
fn the_shipped_definitions_are_served() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/crds");
    let definitions: Vec<Value> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            serde_saphyr::from_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap()
        })
        .collect();
    assert_eq!(definitions.len(), 5);
    let kinds = Kinds::new(&definitions).unwrap();
    for plural in ["applications", "devicegateways", "devices", "messagebrokers", "modules"] {
        assert!(kinds.get("wasmbed.github.io", "v1alpha1", plural).is_some(), "{plural}");
    }
    assert!(Kinds::new(&[definitions[0].clone(), definitions[0].clone()]).is_err());
}

#[test]
fn a_definition_that_cannot_be_served_is_refused() {
    let definition = |change: &dyn Fn(&mut Value)| {
        let mut definition = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Cluster", "names": {"kind": "Widget", "plural": "widgets"},
                "versions": [{"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        change(&mut definition);
        Kind::from_definition(&definition).map(|kind| kind.list_kind).map_err(|error| error.to_string())
    };
    assert_eq!(definition(&|_| {}), Ok("WidgetList".into()));
    let error = definition(&|it| it["spec"]["scope"] = json!("Galaxy")).unwrap_err();
    assert_eq!(error, "definition widgets.example.com: spec.scope must be Namespaced or Cluster");
    assert!(definition(&|it| it["spec"]["versions"] = json!([])).is_err());
    let column = json!([{"name": "A", "type": "string", "jsonPath": ".a[?("}]);
    assert!(
        definition(&|it| it["spec"]["versions"][0]["additionalPrinterColumns"] = column.clone()).is_err()
    );
    let schema = json!({"type": "object", "$ref": "elsewhere"});
    assert!(
        definition(&|it| it["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema.clone()).is_err()
    );
}
