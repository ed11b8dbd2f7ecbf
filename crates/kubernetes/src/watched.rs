//! Objects as watches bring them. One that can't be read costs itself, never the watch: another version of Wasmbed may have stored it.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;
use wasmbed_control::ObjectKey;

/// An object that a watch brought. Fields that `K` does not know are ignored, as Kubernetes' own clients do.
#[derive(Clone, Debug)]
pub enum Watched<K> {
    /// As it is.
    Read(K),
    /// A field of it has another type than `K` knows: its name is all there is.
    Unreadable {
        /// As far as it can be read.
        metadata: Box<ObjectMeta>,
        /// Which field, and what is there.
        error: String,
    },
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Watched<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(match serde_path_to_error::deserialize(&value) {
            Ok(object) => Self::Read(object),
            Err(error) => {
                let error = error.to_string();
                Self::Unreadable { metadata: Box::new(metadata(&value)), error }
            }
        })
    }
}

/// What can be read of an object's metadata: all of it, or what names it and its version.
fn metadata(object: &Value) -> ObjectMeta {
    let metadata = &object["metadata"];
    let text = |name: &str| metadata[name].as_str().map(str::to_owned);
    ObjectMeta::deserialize(metadata).unwrap_or_else(|_| ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        ..ObjectMeta::default()
    })
}

impl<K: Resource> Resource for Watched<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(of: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(of)
    }

    fn group(of: &Self::DynamicType) -> Cow<'_, str> {
        K::group(of)
    }

    fn version(of: &Self::DynamicType) -> Cow<'_, str> {
        K::version(of)
    }

    fn plural(of: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(of)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Read(object) => object.meta(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Read(object) => object.meta_mut(),
            Self::Unreadable { metadata, .. } => metadata,
        }
    }
}

/// The objects of one watch that could not be read, so that each is logged once for each reason; as many as there are objects.
#[derive(Debug, Default)]
pub struct Unreadable {
    errors: BTreeMap<ObjectKey, String>,
}

impl Unreadable {
    /// Takes an object out; what can't be read is logged, and leaves its name.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read<K: Resource<DynamicType = ()>>(&mut self, object: Watched<K>) -> Result<K, Box<ObjectMeta>> {
        match object {
            Watched::Read(object) => {
                self.forget(object.meta());
                Ok(object)
            }
            Watched::Unreadable { metadata, error } => {
                let key = ObjectKey::of(&metadata);
                let name = key.as_ref().map_or_else(String::new, ToString::to_string);
                let said = key.and_then(|key| self.errors.insert(key, error.clone()));
                if said.as_ref() != Some(&error) {
                    tracing::warn!(
                        reason = "ObjectUnreadable",
                        kind = %K::kind(&()),
                        object = name,
                        error,
                        "an object of the Kubernetes API can't be read, a later version may have written it; what was known of it stays"
                    );
                }
                Err(metadata)
            }
        }
    }

    /// An object is gone, or can be read.
    pub fn forget(&mut self, metadata: &ObjectMeta) {
        if self.errors.is_empty() {
            return;
        }
        if let Some(key) = ObjectKey::of(metadata) {
            self.errors.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::core::{ObjectList, WatchEvent};
    use serde_json::json;
    use wasmbed_api::{Application, Device, DeviceGateway, Module};

    use super::*;

    /// An object of kind `K` with that spec and status, in a watch event and in a list.
    fn watched<K>(spec: &Value, status: &Value) -> [Watched<K>; 2]
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone,
    {
        let kind = K::kind(&());
        let object = json!({
            "apiVersion": K::api_version(&()),
            "kind": kind,
            "metadata": { "namespace": "default", "name": "a", "uid": "u", "resourceVersion": "7", "later": [1] },
            "spec": spec,
            "status": status,
            "later": { "field": 1 },
        });
        let event = json!({ "type": "MODIFIED", "object": object }).to_string();
        let event: WatchEvent<Watched<K>> = serde_json::from_str(&event).unwrap();
        let WatchEvent::Modified(event) = event else { panic!("{event:?}") };
        let metadata = json!({ "resourceVersion": "9" });
        let list = json!({ "apiVersion": "v1", "kind": format!("{kind}List"), "metadata": metadata, "items": [object] });
        let list: ObjectList<Watched<K>> = serde_json::from_str(&list.to_string()).unwrap();
        [event, list.items.into_iter().next().unwrap()]
    }

    fn reads<K>(spec: Value, status: Value, wrong: &str)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone,
    {
        for object in watched::<K>(&spec, &status) {
            assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
            match object {
                Watched::Read(_) => assert_eq!(wrong, ""),
                Watched::Unreadable { metadata, error } => {
                    assert!(!wrong.is_empty() && error.starts_with(wrong), "{error}");
                    assert_eq!(ObjectKey::of(&metadata), Some(ObjectKey::new("default", "a")));
                    assert_eq!(metadata.uid.as_deref(), Some("u"));
                }
            }
        }
    }

    #[test]
    fn an_unknown_field_is_ignored_and_another_type_costs_the_object_alone() {
        let later = json!({ "later": { "a": [1] } });
        reads::<Application>(later.clone(), later.clone(), "");
        reads::<Application>(
            json!({ "config": { "memory_limit": "64Ki" } }),
            later.clone(),
            "spec.config.memory_limit",
        );
        reads::<Application>(later.clone(), json!({ "counts": [] }), "status.counts");
        reads::<Device>(later.clone(), later.clone(), "");
        reads::<Device>(json!({ "capabilities": "gpio" }), later.clone(), "spec.capabilities");
        reads::<Device>(
            later.clone(),
            json!({ "applications": [{ "uid": 7 }] }),
            "status.applications[0].uid",
        );
        reads::<Module>(json!({ "wasm_bytes": "AA==", "later": 1 }), later.clone(), "");
        reads::<Module>(json!({ "wasm_bytes": ["AA=="] }), later.clone(), "spec.wasm_bytes");
        reads::<DeviceGateway>(json!({ "address": "a:1", "later": 1 }), later.clone(), "");
        reads::<DeviceGateway>(json!({ "address": "a:1" }), json!({ "modules": "3" }), "status.modules");
        reads::<Lease>(later.clone(), later.clone(), "");
        reads::<Lease>(json!({ "renewTime": 1 }), later, "spec.renewTime");
    }

    #[test]
    fn metadata_of_another_type_leaves_the_name() {
        let object = json!({ "metadata": { "namespace": "default", "name": "a", "resourceVersion": "7", "labels": 3 }, "spec": {} });
        let object: Watched<Device> = serde_json::from_value(object).unwrap();
        assert_eq!(ObjectKey::of(object.meta()), Some(ObjectKey::new("default", "a")));
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
        assert!(Unreadable::default().read(object).is_err());
    }
}
