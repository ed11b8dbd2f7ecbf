//! What goes into a fleet's decisions and what comes out of them.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use wasmbed_api::Erased;
use wasmbed_protocol::{CorrelationId, DeviceUid, ModuleDigest, Nonce};

use super::{config::LEASE_DEFAULT_MS, secret::SecretValues};
use crate::{
    ObjectKey,
    gateway_api::{
        PutBrokers, PutDecommissionsAnswer, PutSets, PutSetsAnswer, PutSettings, PutSettingsAnswer, Refusal,
    },
};

/// A resource whose complete list the decisions need before they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Applications.
    Application,
    /// Modules.
    Module,
    /// Devices.
    Device,
    /// DeviceGateways.
    Gateway,
    /// ResourceQuotas.
    Quota,
    /// MessageBrokers; nothing but what gateways are told of them waits for these.
    Broker,
}

/// What was seen of a gateway's Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSeen {
    /// Anything that changes with each renewal; only that it changed matters, not when it says it did.
    pub renewal: String,
    /// `leaseDurationSeconds`, in milliseconds.
    pub duration_ms: u64,
    /// Its holder gave it up.
    pub released: bool,
}

impl LeaseSeen {
    /// Reads a Lease.
    #[must_use]
    pub fn read(spec: Option<&LeaseSpec>) -> Self {
        let (renewed, holder) =
            spec.map_or((None, None), |spec| (spec.renew_time.as_ref(), spec.holder_identity.as_deref()));
        let seconds = spec.and_then(|spec| u64::try_from(spec.lease_duration_seconds?).ok());
        Self {
            renewal: format!("{renewed:?} {holder:?}"),
            duration_ms: seconds.map_or(LEASE_DEFAULT_MS, |seconds| seconds.saturating_mul(1_000)),
            released: holder == Some(""),
        }
    }
}

/// A `PUT /v1/sets` that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Put {
    /// For the answer.
    pub id: CallId,
    /// Name of the gateway.
    pub gateway: String,
    /// Its `host:port`.
    pub address: String,
    /// The body.
    pub body: PutSets,
}

/// A module that a gateway is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// For the result.
    pub id: CallId,
    /// Name of the gateway.
    pub gateway: String,
    /// Its `host:port`.
    pub address: String,
    /// Which module.
    pub digest: ModuleDigest,
    /// Where its bytes are: an Application's `wasm_bytes` or a Module's.
    pub source: UploadSource,
    /// The change that it is for.
    pub correlation_id: CorrelationId,
}

/// Where the bytes of a module are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UploadSource {
    /// `wasm_bytes` of that Application.
    Application(ObjectKey),
    /// `wasm_bytes` of that Module.
    Module(ObjectKey),
}

/// A Secret that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRead {
    /// For the answer.
    pub id: CallId,
    /// Which one.
    pub secret: ObjectKey,
}

/// How the read of a Secret ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretOutcome {
    /// It holds this.
    Found(SecretValues),
    /// There is none of that name.
    NotFound,
    /// This controller may not read it; what the API said.
    Forbidden(String),
    /// Another answer, no connection, or no answer in time; the text says which.
    Unavailable(String),
}

/// One call, to a gateway or to the Kubernetes API; numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// How a PUT of sets ended.
#[derive(Clone, Debug, PartialEq)]
pub enum PutOutcome {
    /// 200.
    Answered(PutSetsAnswer),
    /// 409: the gateway has seen a higher leader term.
    Fenced(Refusal),
    /// Another status, no connection, or no answer in time; the text says which.
    Failed(String),
}

/// How an upload ended.
#[derive(Clone, Debug, PartialEq)]
pub enum UploadOutcome {
    /// The gateway has it.
    Held,
    /// The object that holds the bytes is gone or holds other bytes.
    SourceGone,
    /// The gateway refused it, or could not be reached; the text says why.
    Failed(String),
}

/// A merge patch (RFC 7396) of `Application.status`, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusWrite {
    /// For the result.
    pub id: CallId,
    /// Which Application.
    pub application: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
    /// The change that it speaks of.
    pub correlation_id: CorrelationId,
}

/// A merge patch of an Application's finalizers, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct FinalizerWrite {
    /// For the result.
    pub id: CallId,
    /// Which Application.
    pub application: ObjectKey,
    /// Whether ours is added; otherwise it is removed.
    pub add: bool,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of `Device.status` for a device whose gateway is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct UnreachableWrite {
    /// For the result.
    pub id: CallId,
    /// Which Device.
    pub device: ObjectKey,
    /// The gateway that is gone.
    pub gateway: String,
    /// The epoch that it claimed.
    pub epoch: i64,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of `DeviceGateway.status` for a gateway that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayWrite {
    /// For the result.
    pub id: CallId,
    /// Which DeviceGateway.
    pub gateway: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of a Device's finalizers, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFinalizerWrite {
    /// For the result.
    pub id: CallId,
    /// Which Device.
    pub device: ObjectKey,
    /// Whether ours is added; otherwise it is removed.
    pub add: bool,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of `Device.status.finished`, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct FinishedWrite {
    /// For the result.
    pub id: CallId,
    /// Which Device.
    pub device: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of a CertificateSigningRequest's conditions that approves it, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct ApprovalWrite {
    /// For the result.
    pub id: CallId,
    /// Name of the request.
    pub request: String,
    /// The Device that it is for.
    pub device: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of `Device.status.decommission` and its condition, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct DecommissionWrite {
    /// For the result.
    pub id: CallId,
    /// Which Device.
    pub device: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A merge patch of `ResourceQuota.status.used`, of the bytes of modules alone, carrying the resourceVersion that it was made for.
#[derive(Clone, Debug, PartialEq)]
pub struct QuotaWrite {
    /// For the result.
    pub id: CallId,
    /// Which ResourceQuota.
    pub quota: ObjectKey,
    /// The patch.
    pub patch: serde_json::Value,
}

/// A `PUT /v1/decommissions` that is to be made, of orders that are to be signed.
#[derive(Clone, Debug, PartialEq)]
pub struct OrdersPut {
    /// For the answer.
    pub id: CallId,
    /// Name of the gateway.
    pub gateway: String,
    /// Its `host:port`.
    pub address: String,
    /// Of the controller that leads.
    pub leader_term: u64,
    /// What the orders say.
    pub orders: Vec<Order>,
}

/// A `PUT /v1/brokers` that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokersPut {
    /// For the answer.
    pub id: CallId,
    /// Name of the gateway.
    pub gateway: String,
    /// Its `host:port`.
    pub address: String,
    /// The body; it may have secrets.
    pub body: PutBrokers,
}

/// How a PUT of brokers ended.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokersOutcome {
    /// 200.
    Taken,
    /// 409: the gateway has seen a higher leader term.
    Fenced(Refusal),
    /// 404: the gateway does not know the call.
    TooOld,
    /// Another status, no connection, or no answer in time; the text says which.
    Failed(String),
}

/// A `PUT /v1/settings` that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingsPut {
    /// For the answer.
    pub id: CallId,
    /// Name of the gateway.
    pub gateway: String,
    /// Its `host:port`.
    pub address: String,
    /// The body.
    pub body: PutSettings,
}

/// How a PUT of settings ended.
#[derive(Clone, Debug, PartialEq)]
pub enum SettingsOutcome {
    /// 200.
    Answered(PutSettingsAnswer),
    /// 409: the gateway has seen a higher leader term.
    Fenced(Refusal),
    /// 404: the gateway does not know the call.
    TooOld,
    /// Another status, no connection, or no answer in time; the text says which.
    Failed(String),
}

/// What an order to take a device out of service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which device.
    pub device: ObjectKey,
    /// `metadata.uid` of its Device.
    pub device_uid: DeviceUid,
    /// As in the Device's status.
    pub nonce: Nonce,
}

/// How a PUT of orders ended.
#[derive(Clone, Debug, PartialEq)]
pub enum OrdersOutcome {
    /// 200.
    Answered(PutDecommissionsAnswer),
    /// 409: the gateway has seen a higher leader term.
    Fenced(Refusal),
    /// 404: the gateway does not know the call.
    TooOld,
    /// Another status, no connection, no answer in time, or the orders could not be signed; the text says which.
    Failed(String),
}

/// A proof that a device erased what it had, to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofCheck {
    /// The gateway that passed it on.
    pub gateway: String,
    /// Which device.
    pub device: ObjectKey,
    /// The key that it has to be signed by: standard base64 of the DER SubjectPublicKeyInfo.
    pub key: String,
    /// Standard base64.
    pub proof: String,
}

/// What a proof is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofEvidence {
    /// It is signed by that key, and says this.
    Signed {
        /// `metadata.uid` of the Device that the order named.
        device_uid: DeviceUid,
        /// Of the order.
        nonce: Nonce,
        /// What was erased.
        erased: Vec<Erased>,
    },
    /// It is none, or not signed by that key; the text says why.
    Refuted(String),
}
