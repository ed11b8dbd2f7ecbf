//! What the parts of the process tell its one decider.

use std::sync::Arc;
use std::time::Instant;

use wasmbed_api::{Application, Device, DeviceGateway, MessageBroker};
use wasmbed_control::{
    ObjectKey,
    fleet::{Kind, LeaseSeen, ModuleFacts, ModuleSource, QuotaSeen, RequestSeen},
    gateway_api::StreamEvent,
};

/// One message to the decider.
pub(crate) enum Input {
    ListBegin(Kind),
    ListEnd(Kind),
    Application(Box<Application>, ModuleSource),
    ApplicationDeleted(ObjectKey),
    Module(ObjectKey, Arc<ModuleFacts>),
    ModuleDeleted(ObjectKey),
    Device(Box<Device>),
    DeviceDeleted(ObjectKey),
    Gateway(Box<DeviceGateway>),
    /// An object is there and can't be read; its UID.
    Unreadable(Kind, ObjectKey, Option<String>),
    GatewayDeleted(String),
    /// A ResourceQuota; what it says of the bytes of modules, if it bounds them.
    Quota(ObjectKey, Option<QuotaSeen>),
    QuotaDeleted(ObjectKey),
    Broker(Box<MessageBroker>),
    BrokerDeleted(ObjectKey),
    RequestsBegin,
    RequestsEnd,
    /// A request for a device's certificate that nobody has decided about.
    Request(Box<RequestSeen>),
    /// The request of this name is decided or gone.
    RequestClosed(String),
    Lease(String, Option<LeaseSeen>),
    Stream(String, Box<StreamEvent>),
    StreamDown(String, String),
    /// Whether the Kubernetes API answered a call.
    Api(bool),
    /// This controller is about to write the leader's Lease: what tells the renewal from others, and the moment.
    Renewing(String, Instant),
    /// The watch of Leases showed the leader's: what tells the renewal from others.
    LeaderLease(String),
    /// Whether the watch of gateways' Leases works.
    LeaseWatch(bool),
}

/// Inputs that wait for the decider: enough to keep it busy, few enough that a snapshot's reader waits for it.
pub(crate) const INPUTS_MAX: usize = 1_024;
