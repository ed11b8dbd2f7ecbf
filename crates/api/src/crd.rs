//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde::ser::Error as _;
use serde_saphyr::SerializeError;

use crate::{Application, Device, DeviceGateway, MessageBroker, Module, ReasonCode};

/// All CustomResourceDefinitions, ready to be applied.
#[must_use]
pub fn crds() -> Vec<CustomResourceDefinition> {
    [Application::crd(), Device::crd(), DeviceGateway::crd(), MessageBroker::crd(), Module::crd()]
        .map(finish)
        .into()
}

/// One definition as YAML, as it stands in `deploy/crds`.
///
/// # Errors
/// Only if the definition can't be represented as YAML, which would be a bug.
pub fn crd_yaml(crd: &CustomResourceDefinition) -> Result<String, SerializeError> {
    // By way of a JSON value, whose keys are sorted: the text stays the same from build to build.
    let value = serde_json::to_value(crd).map_err(SerializeError::custom)?;
    serde_saphyr::to_string(&value)
}

fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            refuse_null(schema);
            // The generator's own sentence says nothing.
            if let Some(text) =
                schema.properties.as_ref().and_then(|all| all.get("spec")?.description.clone())
            {
                schema.description = Some(text);
            }
        }
    }
    crd
}

/// An optional field is absent, never null: so that `has()` in a rule means that there is a value.
fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(|all| all.values_mut()).for_each(refuse_null);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => refuse_null(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(refuse_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        refuse_null(values);
    }
}

/// The table of all reasons, as it stands in `docs/reasons.md`.
#[must_use]
pub fn reasons_markdown() -> String {
    let mut text = String::from(
        "# Reasons\n\nWhat conditions, failures and Events give as their reason. Generated from the code.\n\n\
         | reason | meaning |\n|---|---|\n",
    );
    for reason in ReasonCode::ALL {
        text.push_str(&format!("| `{}` | {} |\n", reason.as_str(), reason.sentence()));
    }
    text.push_str(include_str!("traps.md"));
    text
}
