//! What is read from the Kubernetes API when it is needed: the bytes of modules, and Secrets.

use bytes::Bytes;
use wasmbed_api::{Application, Module};
use wasmbed_control::{
    ObjectKey,
    fleet::{SecretOutcome, SecretValues, UploadSource, decode_module},
};
use wasmbed_kubernetes::{CallError, Caller};
use wasmbed_protocol::ModuleDigest;

/// The bytes of a module: none if the object is gone or holds other bytes by now.
pub(crate) async fn module_bytes(
    caller: &Caller,
    source: &UploadSource,
    digest: ModuleDigest,
) -> Result<Option<Bytes>, CallError> {
    let text = match source {
        UploadSource::Application(key) => {
            caller.get::<Application>(key).await?.and_then(|object| object.spec.wasm_bytes)
        }
        UploadSource::Module(key) => caller.get::<Module>(key).await?.map(|object| object.spec.wasm_bytes),
    };
    let bytes = text.and_then(|text| decode_module(&text).ok());
    Ok(bytes.filter(|bytes| ModuleDigest::of(bytes) == digest).map(Bytes::from))
}

/// A Secret's values, or why there are none.
pub(crate) async fn secret_values(caller: &Caller, secret: &ObjectKey) -> SecretOutcome {
    match caller.secret(secret).await {
        Ok(Some(data)) => SecretOutcome::Found(SecretValues::read(data)),
        Ok(None) => SecretOutcome::NotFound,
        Err(error) if error.status() == Some(403) => SecretOutcome::Forbidden(error.to_string()),
        Err(error) => SecretOutcome::Unavailable(error.to_string()),
    }
}
