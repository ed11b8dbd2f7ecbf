//! What goes into a gateway's decisions and what comes out of them, transport and storage apart.

use std::sync::Arc;

use wasmbed_api::DeviceSpec;
use wasmbed_protocol::{CloseReason, CorrelationId, Epoch, ModuleDigest, Revision};

use super::{certification::JoinOutcome, messages::RestoredMessages};
use crate::{
    ObjectKey,
    gateway_api::{
        DeviceSet, DeviceSettings, PutDecommissionsAnswer, PutSetsAnswer, PutSettingsAnswer, Refusal,
    },
    kubernetes::{Event, Occurrence},
};

/// One connection; numbers are never used again within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One call to the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One `PUT /v1/sets`, `PUT /v1/decommissions` or `PUT /v1/settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One storage operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(pub u64);

/// Who a device's certificate says it is; the handshake proved it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace and name from the SPIFFE id.
    pub device: ObjectKey,
    /// Standard base64 of the DER SubjectPublicKeyInfo.
    pub public_key: String,
}

/// What a transmission wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of whole frames, from the start of the buffer.
    pub written: usize,
    /// Once these bytes are sent, the connection is to be closed.
    pub close: bool,
    /// A heartbeat is answered in these bytes.
    pub heartbeat: bool,
    /// The chain that the client presented in its handshake is wanted, by
    /// [`Gateway::handle_presented`](super::Gateway::handle_presented).
    pub presented: bool,
    /// Nothing is to be read from the connection for so many milliseconds: the device has used its share.
    pub read_in_ms: u64,
}

/// A call to the Kubernetes API.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Creates a Device.
    CreateDevice {
        /// Namespace and name of the Device.
        device: ObjectKey,
        /// Its spec.
        spec: Box<DeviceSpec>,
    },
    /// Merges into a Device's status (RFC 7396); the patch carries the resourceVersion that it was made for.
    PatchStatus {
        /// Namespace and name of the Device.
        device: ObjectKey,
        /// The patch.
        patch: serde_json::Value,
    },
    /// Reads a Device after a conflict.
    GetDevice {
        /// Namespace and name of the Device.
        device: ObjectKey,
    },
    /// Writes an Event about a Device: makes it, or counts it up.
    Event(Box<Event>, Occurrence),
}

/// A call that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// For [`Gateway::handle_write_result`](super::Gateway::handle_write_result).
    pub id: WriteId,
    /// The call.
    pub call: Call,
}

/// What a gateway finds on its disk when it starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Highest leader term seen.
    pub leader_term: u64,
    /// Devices, each with its set if there is one.
    pub devices: Vec<StoredDevice>,
    /// Modules with their sizes in bytes.
    pub modules: Vec<(ModuleDigest, u32)>,
    /// Messages of applications.
    pub messages: RestoredMessages,
}

/// What is kept of a device, so that it is let in and served while Kubernetes is away.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StoredDevice {
    /// Which device.
    pub device: ObjectKey,
    /// `metadata.uid` of the Device, once seen.
    pub uid: Option<String>,
    /// The key with which it was last let in; `None` if it is to be kept out.
    pub admitted_key: Option<String>,
    /// Its desired set.
    pub set: Option<DeviceSet>,
    /// Standard base64 of the order to take it out of service, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// Settings of its applications, if a controller said something of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<DeviceSettings>,
}

/// The gateway's disk did not do its work; for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreFailure(pub String);

impl From<&str> for StoreFailure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// An operation on the gateway's disk. They happen in their order; each is durable before it is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreOperation {
    /// Writes these devices, each as a whole, and the leader term.
    Put {
        /// For [`Gateway::handle_stored`](super::Gateway::handle_stored).
        id: StoreId,
        /// Highest leader term seen.
        leader_term: u64,
        /// The devices.
        devices: Vec<StoredDevice>,
    },
    /// Removes a device.
    Forget {
        /// For [`Gateway::handle_stored`](super::Gateway::handle_stored).
        id: StoreId,
        /// Namespace and name of the Device.
        device: ObjectKey,
    },
    /// Removes a module's file. Not answered.
    DeleteModule {
        /// The module's digest, which names its file.
        digest: ModuleDigest,
    },
    /// Reads a module's file, checks its digest, and answers with
    /// [`Gateway::handle_module_loaded`](super::Gateway::handle_module_loaded).
    LoadModule {
        /// The module's digest, which names its file.
        digest: ModuleDigest,
    },
}

/// Answer to one `PUT /v1/sets`.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which request.
    pub request: RequestId,
    /// What to say.
    pub result: Result<PutSetsAnswer, Refused>,
}

/// Answer to one `PUT /v1/decommissions`.
#[derive(Clone, Debug, PartialEq)]
pub struct OrdersAnswer {
    /// Which request.
    pub request: RequestId,
    /// What to say.
    pub result: Result<PutDecommissionsAnswer, Refused>,
}

/// Answer to one `PUT /v1/settings`.
#[derive(Clone, Debug, PartialEq)]
pub struct SettingsPutAnswer {
    /// Which request.
    pub request: RequestId,
    /// What to say.
    pub result: Result<PutSettingsAnswer, Refused>,
}

/// Why a request of a controller is refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// Its leader term is lower than one seen: 409.
    Fenced(Refusal),
    /// It can't be right: 400.
    Invalid(Refusal),
    /// The disk or the queue before it, the Kubernetes API, or another process that holds the gateway's Lease: 503.
    Unavailable(Refusal),
}

/// What to do with a module that a controller wants to upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadDecision {
    /// It is here.
    Known,
    /// Room is set aside until [`Gateway::handle_module_stored`](super::Gateway::handle_module_stored) or
    /// [`Gateway::handle_upload_ended`](super::Gateway::handle_upload_ended).
    Accept,
    /// Larger than a module may be, or empty.
    BadSize,
    /// The store is full of modules that sets name.
    NoSpace,
}

/// A notice, and whether it is for the log too: whoever causes too many lines is only counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Reportable {
    /// What happened.
    pub notice: Notice,
    /// Whether it is a line of the log.
    pub logged: bool,
}

/// What is left out where there is too much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftOut {
    /// Lines of the process's log.
    Lines,
    /// Kubernetes Events.
    Events,
}

/// Something that happened, for the process's log and metrics.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A session is established.
    SessionEstablished {
        /// Whose.
        device: Arc<ObjectKey>,
        /// Its epoch.
        epoch: Epoch,
        /// Whether the epoch is in Device.status.
        synced: bool,
    },
    /// A session was refused or ended.
    SessionEnded {
        /// Whose.
        device: Arc<ObjectKey>,
        /// Its epoch; 0 if none was given.
        epoch: Epoch,
        /// Why, if the gateway ended it; `None` if the connection broke or the device closed it.
        reason: Option<CloseReason>,
        /// What the device did, or what the connection broke with.
        detail: String,
    },
    /// A set is on disk and goes to its device.
    SetTaken {
        /// Whose.
        device: Arc<ObjectKey>,
        /// Its number.
        revision: Revision,
    },
    /// A device says that it was taken out of service; the controller verifies its proof.
    Decommissioned {
        /// Which device.
        device: Arc<ObjectKey>,
    },
    /// A device was given an assignment.
    Assigned {
        /// Which device.
        device: Arc<ObjectKey>,
        /// `namespace/name` of the application.
        application: Arc<str>,
        /// Of the change.
        correlation_id: CorrelationId,
    },
    /// A device reported another state of an application.
    Reported {
        /// Which device.
        device: Arc<ObjectKey>,
        /// `namespace/name` of the application, or its UID.
        application: Arc<str>,
        /// Its state.
        state: &'static str,
        /// Why.
        reason: &'static str,
        /// Of the change.
        correlation_id: CorrelationId,
    },
    /// A device sent something that could not be used; the session goes on.
    Unusable {
        /// Which device.
        device: Arc<ObjectKey>,
        /// What was wrong.
        detail: String,
    },
    /// A device said an epoch or a revision that it can't have.
    NotBelieved {
        /// Which device.
        device: Arc<ObjectKey>,
        /// What it said.
        detail: String,
    },
    /// A device said that it could not use a message.
    DeviceError {
        /// Which device.
        device: Arc<ObjectKey>,
        /// What it said.
        detail: String,
    },
    /// A call to the Kubernetes API did not succeed; it is tried again unless it can't succeed.
    WriteFailed {
        /// Which device.
        device: Arc<ObjectKey>,
        /// What happened.
        detail: String,
    },
    /// The gateway's disk failed.
    StoreFailed {
        /// What happened.
        detail: String,
    },
    /// More came of a device than its share, and what is beyond that is left out.
    LeftOut {
        /// Which device; `None` for all clients together that are no admitted devices.
        device: Option<Arc<ObjectKey>>,
        /// What is left out.
        what: LeftOut,
        /// How many until now; `None` where it begins.
        count: Option<u32>,
    },
    /// A device's try to get a certificate ended, or brought one.
    JoinEnded {
        /// Who it is, as it is known then; for people.
        client: String,
        /// Which Device it is, if that is known.
        device: Option<Arc<ObjectKey>>,
        /// How.
        outcome: JoinOutcome,
        /// Why.
        detail: String,
    },
    /// A device sends faster than its share and is read no faster than that.
    Slowed {
        /// Which device.
        device: Arc<ObjectKey>,
    },
}

impl Notice {
    /// The device that caused it.
    pub(super) fn cause(&self) -> Option<&Arc<ObjectKey>> {
        match self {
            Self::SessionEstablished { device, .. }
            | Self::SessionEnded { device, .. }
            | Self::Assigned { device, .. }
            | Self::Decommissioned { device }
            | Self::Reported { device, .. }
            | Self::Unusable { device, .. }
            | Self::NotBelieved { device, .. }
            | Self::DeviceError { device, .. }
            | Self::WriteFailed { device, .. } => Some(device),
            Self::JoinEnded { device, .. } => device.as_ref(),
            // Said once, or by a controller.
            Self::SetTaken { .. } | Self::StoreFailed { .. } | Self::LeftOut { .. } | Self::Slowed { .. } => {
                None
            }
        }
    }
}
