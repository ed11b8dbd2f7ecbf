//! The objects that `up` makes in the Kubernetes API, unless they are there.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{Api, Client, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use wasmbed_api::{Application, ApplicationConfig, ApplicationSpec, Device, DeviceSpec, TargetDevices};
use wasmbed_device::DeviceIdentity;
use wasmbed_protocol::KeyHash;

use crate::cluster::explain;

/// Name of the sample Application.
pub(super) const NAME: &str = "hello";
/// `guests/hello`, as `cargo xtask guests` builds it.
const MODULE: &[u8] = include_bytes!("../../../../../guests/prebuilt/hello.wasm");
/// Who makes these objects, in managed fields.
const FIELD_MANAGER: &str = "wasmbed-up";

pub(super) async fn ensure_namespace(client: &Client, name: &str) -> Result<()> {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    create(&Api::all(client.clone()), &Namespace { metadata, ..Namespace::default() }).await
}

/// An approved Device that names the key that this device has, or the factory identity with which it joins.
pub(super) async fn ensure_device(
    client: &Client,
    namespace: &str,
    name: &str,
    device_type: &str,
    identity: &DeviceIdentity,
) -> Result<()> {
    let mut spec = DeviceSpec {
        device_type: device_type.to_owned(),
        capabilities: vec!["wasm".to_owned(), "tls".to_owned()],
        approved: true,
        ..DeviceSpec::default()
    };
    match identity {
        DeviceIdentity::Operational(identity) => spec.public_key = Some(identity.public_key_base64()),
        DeviceIdentity::Factory(identity) => {
            spec.serial = Some(name.to_owned());
            spec.factory_key_hash = Some(KeyHash::of(&identity.facts().public_key).to_string());
        }
        DeviceIdentity::Pairing { token, .. } => spec.pairing_id = Some(token.id().to_string()),
    }
    create(&Api::namespaced(client.clone(), namespace), &Device::new(name, spec)).await
}

/// The sample goes to every device of the namespace.
pub(super) async fn ensure_application(client: &Client, namespace: &str) -> Result<()> {
    let spec = ApplicationSpec {
        name: Some("Hello".to_owned()),
        description: Some("Says hello and counts; made by wasmbed up".to_owned()),
        wasm_bytes: Some(STANDARD.encode(MODULE)),
        module: None,
        target_devices: Some(TargetDevices {
            device_names: Vec::new(),
            selector: Some(LabelSelector::default()),
        }),
        min_ready_seconds: None,
        config: ApplicationConfig::default(),
        settings: None,
    };
    create(&Api::namespaced(client.clone(), namespace), &Application::new(NAME, spec)).await
}

/// Creates an object; one that is there stays as it is, with what a person changed in it.
async fn create<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match api.create(&parameters, object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => {
            let name = object.meta().name.clone().unwrap_or_default();
            Err(explain(&error, "this machine"))
                .with_context(|| format!("can't create the {} {name}", K::kind(&())))
        }
    }
}
