//! The Devices that a command is about, and their open requests for certificates.

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use serde::Deserialize;
use serde_json::Value;
use wasmbed_api::{DEVICE_SIGNER, kind, request_annotation as annotation};
use wasmbed_pki::CertificationRequest;
use wasmbed_protocol::KeyHash;

use crate::cluster::{Cluster, ClusterArgs, Resource, encode_query};

/// Our name among the managers of an object.
const FIELD_MANAGER: &str = "kubectl-wasmbed";
/// Objects in one answer of the API.
const PAGE: u32 = 500;
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// Which Devices.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Chosen {
    /// Names of Devices.
    #[arg(value_name = "NAME", required_unless_present = "selector")]
    names: Vec<String>,
    /// Devices with these labels, for example site=lab.
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "names")]
    selector: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// A cluster and its Devices' resource.
pub(super) struct Place {
    pub(super) cluster: Cluster,
    resource: Resource,
}

/// One Device.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Device {
    metadata: Metadata,
    pub(super) spec: Spec,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    #[serde(rename = "resourceVersion")]
    version: String,
}

/// What a person decides about it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Spec {
    #[serde(default)]
    pub(super) approved: bool,
    #[serde(default)]
    pub(super) revoked: bool,
    pub(super) serial: Option<String>,
    pub(super) confirmed_key: Option<String>,
}

impl Device {
    /// `namespace/name`.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }
}

/// An open request for a Device's certificate.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) name: String,
    /// Fingerprint of its key, as the device shows it.
    pub(super) fingerprint: String,
    pub(super) proof: Proof,
    device: String,
    uid: String,
    object: Value,
}

/// What a request says that speaks for it. The signer verifies it; a gateway wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    None,
    Factory,
    Token,
    Renewal,
}

impl Proof {
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::None => "no proof",
            Self::Factory => "proof of a factory key",
            Self::Token => "proof of a pairing token",
            Self::Renewal => "renewal",
        }
    }
}

impl Chosen {
    /// The Devices, in the order in which they were named.
    pub(super) async fn find(&self) -> Result<(Place, Vec<Device>)> {
        let cluster = self.cluster.connect().await?;
        let place = Place { cluster, resource: Resource::ours(kind::DEVICE, "devices") };
        let devices = match &self.selector {
            Some(selector) => place.selected(selector).await?,
            None => place.named(&self.names).await?,
        };
        Ok((place, devices))
    }
}

impl Place {
    async fn named(&self, names: &[String]) -> Result<Vec<Device>> {
        let mut devices = Vec::new();
        for name in names {
            let path = self.resource.object(Some(&self.cluster.namespace), name)?;
            let found = self.cluster.read(&path).await?;
            let Some(found) = found else {
                bail!("there is no Device {name} in namespace {}", self.cluster.namespace)
            };
            devices.push(serde_json::from_value(found).context("the API's Device can't be read")?);
        }
        Ok(devices)
    }

    async fn selected(&self, selector: &str) -> Result<Vec<Device>> {
        let path = self.resource.collection(Some(&self.cluster.namespace));
        let selector_query = format!("labelSelector={}", encode_query(selector));
        let found = self.list(&path, &selector_query).await?;
        ensure!(
            !found.is_empty(),
            "no Device in namespace {} has the labels {selector:?}",
            self.cluster.namespace
        );
        found.into_iter().map(|item| serde_json::from_value(item).context("a Device can't be read")).collect()
    }

    /// All open requests, of any Device.
    pub(super) async fn open_requests(&self) -> Result<Vec<Request>> {
        let query = format!("fieldSelector={}", encode_query(&format!("spec.signerName={DEVICE_SIGNER}")));
        let all = self.list(REQUESTS, &query).await?;
        Ok(all.into_iter().filter_map(Request::read).collect())
    }

    async fn list(&self, path: &str, query: &str) -> Result<Vec<Value>> {
        let (mut items, mut token) = (Vec::new(), String::new());
        loop {
            let next = format!("{path}?limit={PAGE}&{query}{token}");
            let request = http::Request::get(next).body(Vec::new()).context("can't make a request")?;
            let mut page: Value =
                self.cluster.client.request(request).await.map_err(|error| self.cluster.explain(error))?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page["metadata"]["continue"].as_str() {
                Some(more) if !more.is_empty() => token = format!("&continue={}", encode_query(more)),
                _ => return Ok(items),
            }
        }
    }

    /// Changes a Device as it was read, and no other version of it.
    pub(super) async fn change(&self, device: &Device, mut patch: Value) -> Result<()> {
        patch["metadata"]["resourceVersion"] = device.metadata.version.clone().into();
        let path = self.resource.object(Some(&device.metadata.namespace), &device.metadata.name)?;
        self.merge(&path, &patch).await.with_context(|| format!("can't change the Device {}", device.key()))
    }

    /// Changes a Device's spec whatever else has changed.
    pub(super) async fn specify(&self, device: &Device, spec: &Value) -> Result<()> {
        let path = self.resource.object(Some(&device.metadata.namespace), &device.metadata.name)?;
        let patch = serde_json::json!({ "metadata": { "uid": device.metadata.uid }, "spec": spec });
        self.merge(&path, &patch).await.with_context(|| format!("can't change the Device {}", device.key()))
    }

    /// Sets labels whatever else has changed.
    pub(super) async fn set_labels(&self, device: &Device, labels: &Value) -> Result<()> {
        let path = self.resource.object(Some(&device.metadata.namespace), &device.metadata.name)?;
        let patch = serde_json::json!({ "metadata": { "uid": device.metadata.uid, "labels": labels } });
        self.merge(&path, &patch).await.with_context(|| format!("can't label the Device {}", device.key()))
    }

    /// Denies a request as it was read.
    pub(super) async fn deny(&self, request: &Request, now: &str) -> Result<()> {
        let mut conditions = request.object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.push(serde_json::json!({
            "type": "Denied",
            "status": "True",
            "reason": "DeniedByPerson",
            "message": "denied with kubectl wasmbed deny",
            "lastUpdateTime": now,
            "lastTransitionTime": now,
        }));
        let patch = serde_json::json!({
            "metadata": { "resourceVersion": request.object["metadata"]["resourceVersion"] },
            "status": { "conditions": conditions },
        });
        let path = format!("{REQUESTS}/{}/approval", encode_query(&request.name));
        self.merge(&path, &patch).await.with_context(|| format!("can't deny the request {}", request.name))
    }

    async fn merge(&self, path: &str, patch: &Value) -> Result<()> {
        let path = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
        self.cluster.send(Method::PATCH, &path, "application/merge-patch+json", patch).await.map(drop)
    }
}

impl Request {
    /// Whether it is for this Device, and not for one of its name before.
    pub(super) fn is_for(&self, device: &Device) -> bool {
        self.device == device.key() && self.uid == device.metadata.uid
    }

    /// An open request for a device's key; none if it is decided, or no such request.
    fn read(object: Value) -> Option<Self> {
        let status = &object["status"];
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        let is_end = |condition: &Value| {
            condition["type"].as_str().is_some_and(|ty| matches!(ty, "Denied" | "Failed"))
        };
        if !status["certificate"].is_null() || conditions.any(is_end) {
            return None;
        }
        let text = |name: &str| object["metadata"]["annotations"][name].as_str();
        let proof =
            match (text(annotation::RENEWS), text(annotation::JOIN_PROOF), text(annotation::PAIRING_ID)) {
                (Some(_), _, _) => Proof::Renewal,
                (None, Some(_), Some(_)) => Proof::Token,
                (None, Some(_), None) => Proof::Factory,
                (None, None, _) => Proof::None,
            };
        let pem = STANDARD.decode(object["spec"]["request"].as_str()?).ok()?;
        let der = CertificateSigningRequestDer::from_pem_slice(&pem).ok()?;
        let key = CertificationRequest::parse(&der).ok()?;
        Some(Self {
            name: object["metadata"]["name"].as_str()?.to_owned(),
            fingerprint: KeyHash::of(key.public_key_info()).to_string(),
            proof,
            device: text(annotation::DEVICE)?.to_owned(),
            uid: text(annotation::DEVICE_UID)?.to_owned(),
            object,
        })
    }
}
