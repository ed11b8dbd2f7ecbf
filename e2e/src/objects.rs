//! Objects that tests apply.

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};
use wasmbed_api::{Application, ApplicationSpec, Device, DeviceSpec, Module, ModuleSpec, TargetDevices};

/// An Application with its module inline, for the named devices.
#[must_use]
pub fn application(name: &str, wasm: &[u8], devices: &[&str]) -> Application {
    let spec = ApplicationSpec {
        wasm_bytes: Some(STANDARD.encode(wasm)),
        target_devices: Some(TargetDevices {
            device_names: devices.iter().map(|&name| name.to_owned()).collect(),
            selector: None,
        }),
        ..ApplicationSpec::default()
    };
    Application::new(name, spec)
}

/// A Module.
#[must_use]
pub fn module(name: &str, wasm: &[u8]) -> Module {
    Module::new(name, ModuleSpec { wasm_bytes: STANDARD.encode(wasm), ..ModuleSpec::default() })
}

/// An approved Device whose key is pinned.
#[must_use]
pub fn device(name: &str, public_key: &str) -> Device {
    let spec =
        DeviceSpec { public_key: Some(public_key.to_owned()), approved: true, ..DeviceSpec::default() };
    Device::new(name, spec)
}

/// A module's digest as it stands in statuses.
#[must_use]
pub fn digest(wasm: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(wasm)))
}
