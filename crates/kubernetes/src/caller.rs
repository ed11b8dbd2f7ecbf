//! Calls with a time limit, in the name of one process.

use std::{fmt::Debug, time::Duration};

use k8s_openapi::{NamespaceResourceScope, api::certificates::v1::CertificateSigningRequest};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tracing::Instrument as _;
use wasmbed_control::ObjectKey;

use crate::CallError;

/// For one call, unless the caller says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A watch is ended by the server before this (`timeoutSeconds`, 290 by default), so that silence for longer means a
/// connection that is gone, whatever was asked over it.
const SILENCE_MAX: Duration = Duration::from_secs(295);

/// The same API, on connections that do not hang for ever.
#[must_use]
pub fn bounded(mut config: kube::Config) -> kube::Config {
    config.read_timeout.get_or_insert(SILENCE_MAX);
    config.reset_reader_on_write = true;
    config
}

/// A namespaced kind that can be read and written.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// One process in its calls; cheap to clone.
#[derive(Clone)]
pub struct Caller {
    client: Client,
    component: &'static str,
    instance: String,
    timeout: Duration,
}

impl Caller {
    /// `component` is the field manager and the reporting component of Events, `instance` the reporting instance.
    #[must_use]
    pub fn new(client: Client, component: &'static str, instance: impl Into<String>) -> Self {
        Self { client, component, instance: instance.into(), timeout: CALL_TIMEOUT }
    }

    /// The same with another time limit for each call.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    pub(crate) fn component(&self) -> &'static str {
        self.component
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Reads an object; `None` if there is none.
    ///
    /// # Errors
    /// The API did not answer with the object or with 404.
    pub async fn get<K: Object>(&self, key: &ObjectKey) -> Result<Option<K>, CallError> {
        self.within(&key.name, self.api(&key.namespace).get_opt(&key.name)).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// It was not created, or that is not known.
    pub async fn create<K: Object>(&self, namespace: &str, object: &K) -> Result<K, CallError> {
        self.within(
            object.meta().name.as_deref().unwrap_or_default(),
            self.api(namespace).create(&self.post_params(), object),
        )
        .await
    }

    /// Replaces an object, provided that its resourceVersion is still that of `object`.
    ///
    /// # Errors
    /// It was not replaced, or that is not known.
    pub async fn replace<K: Object>(&self, key: &ObjectKey, object: &K) -> Result<K, CallError> {
        self.within(&key.name, self.api(&key.namespace).replace(&key.name, &self.post_params(), object)).await
    }

    /// Merges into an object (RFC 7396), its status apart.
    ///
    /// # Errors
    /// It was not changed, or that is not known.
    pub async fn merge<K: Object>(&self, key: &ObjectKey, patch: &serde_json::Value) -> Result<K, CallError> {
        let api = self.api(&key.namespace);
        self.within(&key.name, api.patch(&key.name, &self.patch_params(), &Patch::Merge(patch))).await
    }

    /// Merges into an object's status (RFC 7396).
    ///
    /// # Errors
    /// It was not changed, or that is not known.
    pub async fn merge_status<K: Object>(
        &self,
        key: &ObjectKey,
        patch: &serde_json::Value,
    ) -> Result<K, CallError> {
        let api = self.api(&key.namespace);
        self.within(&key.name, api.patch_status(&key.name, &self.patch_params(), &Patch::Merge(patch))).await
    }

    /// Applies fields of an object's status (server-side apply) in the name of a field manager that writes nothing else, and takes
    /// them over if others have them. `fields` has no apiVersion and no kind.
    ///
    /// # Errors
    /// It was not changed, or that is not known.
    pub async fn apply_status<K: Object>(
        &self,
        key: &ObjectKey,
        manager: &str,
        mut fields: serde_json::Value,
    ) -> Result<K, CallError> {
        fields["apiVersion"] = K::api_version(&()).into();
        fields["kind"] = K::kind(&()).into();
        let params =
            PatchParams { field_manager: Some(manager.to_owned()), force: true, ..PatchParams::default() };
        let api = self.api(&key.namespace);
        self.within(&key.name, api.patch_status(&key.name, &params, &Patch::Apply(&fields))).await
    }

    /// Merges into the approval of a CertificateSigningRequest (RFC 7396): its conditions.
    ///
    /// # Errors
    /// It was not changed, or that is not known.
    pub async fn approve(
        &self,
        name: &str,
        patch: &serde_json::Value,
    ) -> Result<CertificateSigningRequest, CallError> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        self.within(name, requests.patch_approval(name, &self.patch_params(), &Patch::Merge(patch))).await
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn api<K: Object>(&self, namespace: &str) -> Api<K> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub(crate) async fn within<T>(
        &self,
        object: &str,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CallError> {
        let call = call.instrument(tracing::debug_span!("call", object));
        let answer = tokio::time::timeout(self.timeout, call).await;
        Ok(answer.map_err(|_| CallError::Timeout(self.timeout))??)
    }

    fn patch_params(&self) -> PatchParams {
        PatchParams { field_manager: Some(self.component.to_owned()), ..PatchParams::default() }
    }

    fn post_params(&self) -> PostParams {
        PostParams { field_manager: Some(self.component.to_owned()), ..PostParams::default() }
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_api::{Application, CONTROLLER_COMPONENT};

    use super::*;

    /// Accepts connections and never answers.
    async fn silent_api() -> (Client, tokio::task::JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        (Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap(), server)
    }

    #[tokio::test]
    async fn a_call_that_nobody_answers_ends() {
        let (client, server) = silent_api().await;
        let caller = Caller::new(client, CONTROLLER_COMPONENT, "c").with_timeout(Duration::from_millis(50));
        let key = ObjectKey::new("n", "a");
        let patch = serde_json::json!({});
        let written = caller.merge_status::<Application>(&key, &patch).await;
        assert!(matches!(written, Err(CallError::Timeout(_))));
        let read = caller.get::<Application>(&key).await;
        assert!(matches!(read, Err(CallError::Timeout(_))));
        server.abort();
    }
}
