//! The Kubernetes API as the client commands use it: any kind of object, errors in the API server's own words.

pub(crate) mod kubeconfig;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use serde_json::Value;

use crate::output::harmless;

/// How a command reaches the Kubernetes API.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ClusterArgs {
    /// The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod's service account].
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The namespace [default: that of the kubeconfig's context].
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
}

/// A reachable Kubernetes API.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The client.
    pub(crate) client: Client,
    /// The namespace that a command works in.
    pub(crate) namespace: String,
    /// Its URL, for messages.
    server: String,
    /// What its certificate is checked against, DER, if the kubeconfig says.
    authorities: Vec<Vec<u8>>,
}

impl ClusterArgs {
    /// A client for the API; nothing is sent yet.
    ///
    /// # Errors
    /// No kubeconfig is found, or it can't be used.
    pub(crate) async fn connect(&self) -> Result<Cluster> {
        self.connect_as(|_| {}).await
    }

    /// The same where a call that is turned away for now fails: the client makes it again 15 times otherwise, for more than an hour,
    /// and says nothing.
    ///
    /// # Errors
    /// As [`ClusterArgs::connect`].
    pub(crate) async fn connect_without_retries(&self) -> Result<Cluster> {
        self.connect_as(|config| config.default_retry = false).await
    }

    async fn connect_as(&self, adapt: impl FnOnce(&mut kube::Config)) -> Result<Cluster> {
        let mut config = kubeconfig::client_config(self.kubeconfig.as_ref()).await?;
        adapt(&mut config);
        let given = self.namespace.clone().filter(|namespace| !namespace.is_empty());
        let namespace = given.unwrap_or_else(|| config.default_namespace.clone());
        ensure!(
            is_label(&namespace),
            "{namespace:?} is no namespace: up to 63 lower-case letters, digits and dashes, no dash at either end"
        );
        let server = config.cluster_url.to_string();
        let authorities = config.root_cert.clone().unwrap_or_default();
        let client = Client::try_from(config).context("can't make a Kubernetes client of the kubeconfig")?;
        Ok(Cluster { client, namespace, server, authorities })
    }

    /// The context and the user in it, if the API is reached by a file.
    ///
    /// # Errors
    /// The file can't be used.
    pub(crate) fn context(&self) -> Result<Option<(String, String)>> {
        kubeconfig::context_in_use(self.kubeconfig.as_deref())
    }
}

/// One kind of resource, as the API server describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resource {
    /// `GROUP/VERSION`, or `v1`.
    pub(crate) api_version: String,
    /// As in manifests.
    pub(crate) kind: String,
    /// As in paths.
    pub(crate) plural: String,
    /// As in messages.
    pub(crate) singular: String,
    /// Other names that people type.
    pub(crate) short_names: Vec<String>,
    /// Whether its objects live in namespaces.
    pub(crate) namespaced: bool,
}

impl Resource {
    /// One of ours.
    #[must_use]
    pub(crate) fn ours(kind: &str, plural: &str) -> Self {
        Self {
            api_version: format!("{}/{}", wasmbed_api::GROUP, wasmbed_api::VERSION),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            namespaced: true,
        }
    }

    fn new(api_version: &str, resource: APIResource) -> Self {
        let singular = match resource.singular_name {
            name if name.is_empty() => resource.kind.to_lowercase(),
            name => name,
        };
        Self {
            api_version: api_version.to_owned(),
            kind: resource.kind,
            plural: resource.name,
            singular,
            short_names: resource.short_names.unwrap_or_default(),
            namespaced: resource.namespaced,
        }
    }

    /// Whether a person who types `name` means this.
    #[must_use]
    pub(crate) fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        let (plain, group) =
            name.split_once('.').map_or((name.as_str(), None), |(plain, group)| (plain, Some(group)));
        let called =
            [&self.plural, &self.singular].into_iter().chain(&self.short_names).any(|known| known == plain);
        let own_group = self.api_version.split_once('/').map(|(group, _)| group);
        called && (group.is_none() || group == own_group)
    }

    /// `SINGULAR.GROUP/NAME`, as kubectl names objects.
    #[must_use]
    pub(crate) fn object_name(&self, name: &str) -> String {
        match self.api_version.split_once('/') {
            Some((group, _)) => format!("{}.{group}/{name}", self.singular),
            None => format!("{}/{name}", self.singular),
        }
    }

    /// Path of its collection; all namespaces if `namespace` is none.
    #[must_use]
    pub(crate) fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let Self { api_version, plural, .. } = self;
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => {
                let namespace = encode_query(namespace);
                format!("{root}/{api_version}/namespaces/{namespace}/{plural}")
            }
            None => format!("{root}/{api_version}/{plural}"),
        }
    }

    /// Path of one object.
    ///
    /// # Errors
    /// The name can be no object's, and would make another path.
    pub(crate) fn object(&self, namespace: Option<&str>, name: &str) -> Result<String> {
        let whole = !name.is_empty() && !matches!(name, "." | "..") && !name.contains(['/', '%']);
        ensure!(whole, "{name:?} can't be the name of an object: a name has no / and no %, and is not empty");
        Ok(format!("{}/{}", self.collection(namespace), encode_query(name)))
    }
}

impl Cluster {
    /// Its URL.
    #[must_use]
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// What its certificate is checked against, DER, if the kubeconfig says.
    #[must_use]
    pub(crate) fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// What [`explain`] says.
    #[must_use]
    pub(crate) fn explain(&self, error: kube::Error) -> anyhow::Error {
        explain(&error, &self.server)
    }

    /// The resources of `GROUP/VERSION` or `v1`, subresources not among them.
    ///
    /// # Errors
    /// The server does not know them, or can't be reached.
    pub(crate) async fn resources(&self, api_version: &str) -> Result<Vec<Resource>> {
        let list: APIResourceList = match api_version.contains('/') {
            true => self.client.list_api_group_resources(api_version).await,
            false => self.client.list_core_api_resources(api_version).await,
        }
        .map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 404 => {
                let known = api_version.starts_with(wasmbed_api::GROUP);
                let hint = if known { "; install it with: wasmbed crds | kubectl apply -f -" } else { "" };
                match api_version {
                    "v1" => not_kubernetes(&self.server),
                    _ => anyhow!("the cluster does not know {api_version}{hint}"),
                }
            }
            _ => self.explain(error),
        })?;
        let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
        Ok(whole.map(|resource| Resource::new(api_version, resource)).collect())
    }

    /// The resource of a manifest.
    ///
    /// # Errors
    /// The server does not know it, or can't be reached.
    pub(crate) async fn resource_of_kind(&self, api_version: &str, kind: &str) -> Result<Resource> {
        let all = self.resources(api_version).await?;
        let known = all.iter().map(|resource| resource.kind.as_str()).collect::<Vec<_>>().join(", ");
        all.iter()
            .find(|resource| resource.kind == kind)
            .cloned()
            .with_context(|| format!("{api_version} has no kind {kind:?}; it has {known}"))
    }

    /// The resource that a person calls `name`: ours first, then the core's.
    ///
    /// # Errors
    /// There is none, or the server can't be reached.
    pub(crate) async fn resource_called(&self, name: &str) -> Result<Resource> {
        let ours = self.resources(&format!("{}/{}", wasmbed_api::GROUP, wasmbed_api::VERSION)).await;
        let core = self.resources("v1").await?;
        if let Some(found) = ours.iter().flatten().chain(&core).find(|resource| resource.is_called(name)) {
            return Ok(found.clone());
        }
        let known = ours?.into_iter().flat_map(|resource| resource.short_names).collect::<Vec<_>>();
        bail!("there is no resource called {name:?}; try one of {}", known.join(", "))
    }

    /// Sends a request with a JSON body; the answer as JSON.
    ///
    /// # Errors
    /// What the server says, or why it can't be reached.
    pub(crate) async fn send(
        &self,
        method: http::Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Value> {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::CONTENT_TYPE, content_type)
            .header(http::header::ACCEPT, "application/json")
            .body(serde_json::to_vec(body)?)
            .context("can't make a request")?;
        self.client.request(request).await.map_err(|error| self.explain(error))
    }

    /// Reads an object; none if there is none.
    ///
    /// # Errors
    /// What the server says, or why it can't be reached.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Value>> {
        let request = http::Request::get(path).body(Vec::new()).context("can't make a request")?;
        match self.client.request(request).await {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The Devices that there are of those with these names, and with these labels; an empty selector is all of them.
    ///
    /// # Errors
    /// The API does not answer, or a name is none.
    pub(crate) async fn devices(&self, names: &[String], selector: Option<&str>) -> Result<Vec<Value>> {
        /// Devices of one answer.
        const PAGE: usize = 500;
        let resource = Resource::ours("Device", "devices");
        let mut devices = Vec::new();
        for name in names {
            devices.extend(self.read(&resource.object(Some(&self.namespace), name)?).await?);
        }
        let Some(selector) = selector else { return Ok(devices) };
        let collection = resource.collection(Some(&self.namespace));
        let selector = encode_query(selector);
        let mut next = String::new();
        loop {
            let path = format!("{collection}?labelSelector={selector}&limit={PAGE}&continue={next}");
            let mut page = self.read(&path).await?.unwrap_or_default();
            if let Some(items) = page["items"].as_array_mut() {
                devices.append(items);
            }
            match page["metadata"]["continue"].as_str() {
                Some(token) if !token.is_empty() => next = encode_query(token),
                _ => return Ok(devices),
            }
        }
    }
}

/// An error of the Kubernetes client in words for a person: the server's own where it answered.
#[must_use]
pub(crate) fn explain(error: &kube::Error, server: &str) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => anyhow!("{}", harmless(&status.message)),
        kube::Error::Api(status) => anyhow!("the Kubernetes API at {server} answered {}", status.code),
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => not_kubernetes(server),
        error => {
            // The layers between say no more than that something could not be reached.
            let mut cause: &dyn std::error::Error = error;
            while let Some(below) = cause.source() {
                cause = below;
            }
            anyhow!(
                "the Kubernetes API at {server} could not be reached: {cause}; is it running, and is KUBECONFIG the right one?"
            )
        }
    }
}

fn not_kubernetes(server: &str) -> anyhow::Error {
    anyhow!("what answers at {server} is not the Kubernetes API; is KUBECONFIG the right one?")
}

/// A label of DNS, RFC 1123.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Percent-encodes what stands in a query (RFC 3986, section 2.3: all but unreserved characters).
#[must_use]
pub(crate) fn encode_query(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Resource {
        Resource {
            api_version: "wasmbed.github.io/v1alpha1".to_owned(),
            kind: "Device".to_owned(),
            plural: "devices".to_owned(),
            singular: "device".to_owned(),
            short_names: vec!["wdev".to_owned()],
            namespaced: true,
        }
    }

    #[test]
    fn a_resource_answers_to_all_its_names() {
        for name in ["devices", "device", "Device", "wdev", "devices.wasmbed.github.io"] {
            assert!(devices().is_called(name), "{name}");
        }
        for name in ["dev", "devices.apps", "applications"] {
            assert!(!devices().is_called(name), "{name}");
        }
    }

    #[test]
    fn paths_are_those_of_the_kubernetes_api() {
        let lab = devices().collection(Some("lab"));
        assert_eq!(lab, "/apis/wasmbed.github.io/v1alpha1/namespaces/lab/devices");
        assert_eq!(devices().collection(None), "/apis/wasmbed.github.io/v1alpha1/devices");
        let namespaces = Resource {
            api_version: "v1".to_owned(),
            namespaced: false,
            plural: "namespaces".to_owned(),
            ..devices()
        };
        assert_eq!(namespaces.collection(Some("lab")), "/api/v1/namespaces");
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode_query("a in (b,c)=d"), "a%20in%20%28b%2Cc%29%3Dd");
    }
}
