//! Names that more than one process has to agree on.

/// What gateways call themselves wherever Kubernetes asks who wrote something: as field manager, and as source and
/// reporting component of Events.
pub const GATEWAY_COMPONENT: &str = "wasmbed-gateway";
/// The same of controllers.
pub const CONTROLLER_COMPONENT: &str = "wasmbed-controller";
/// The same of signers.
pub const SIGNER_COMPONENT: &str = "wasmbed-signer";
/// `spec.signerName` of CertificateSigningRequests for devices.
pub const DEVICE_SIGNER: &str = "wasmbed.github.io/device";
/// The same for people who use gateways.
pub const OPERATOR_SIGNER: &str = "wasmbed.github.io/operator";
/// The Lease of the controller that leads; its `leaseTransitions` are the leader term.
pub const LEADER_LEASE: &str = "wasmbed-controller";
/// A gateway's Lease has this and the gateway's name.
pub const GATEWAY_LEASE_PREFIX: &str = "gateway-";

/// Name of a gateway's Lease.
#[must_use]
pub fn gateway_lease(gateway: &str) -> String {
    format!("{GATEWAY_LEASE_PREFIX}{gateway}")
}

/// Namespace of the Secrets with the keys of pairing tokens. Nothing else lies there: signers may read and delete every Secret in it.
pub const PAIRING_NAMESPACE: &str = "wasmbed-pairing";
/// The entry of such a Secret: the 32 bytes of the pairing key, as secret as the token.
pub const PAIRING_SECRET_KEY: &str = "key";
/// Its annotation with the RFC 3339 time after which the token counts no more.
pub const PAIRING_EXPIRES: &str = "wasmbed.github.io/expires";

/// Name of the Secret with the key of the token of this id.
#[must_use]
pub fn pairing_secret(id: &str) -> String {
    format!("wasmbed-pairing-{id}")
}

/// Types of conditions.
pub mod condition {
    /// Of a Device: a gateway holds its session.
    pub const CONNECTED: &str = "Connected";
    /// Of a Device: it is approved, not revoked and not decommissioned.
    pub const ENROLLED: &str = "Enrolled";
    /// Of a Device: two boards use its identity.
    pub const CLONE_SUSPECTED: &str = "CloneSuspected";
    /// Of a Device: certificates with another key were presented for it.
    pub const KEY_MISMATCH: &str = "KeyMismatch";
    /// Of a Device: its epoch and revision are ones that it was given.
    pub const COUNTERS: &str = "Counters";
    /// Of a Device: it was taken out of service and signed that it erased what it had.
    pub const DECOMMISSIONED: &str = "Decommissioned";
    /// Of an Application: every connected target runs it. Of a DeviceGateway: it accepts devices.
    pub const READY: &str = "Ready";
    /// Of an Application: every target runs this generation, or ran it to its end.
    pub const COMPLETE: &str = "Complete";
    /// Of an Application: every target ran this generation to its end with exit code 0.
    pub const SUCCEEDED: &str = "Succeeded";
    /// Of an Application: it is being brought to its targets.
    pub const RECONCILING: &str = "Reconciling";
    /// Of an Application: it cannot make progress.
    pub const STALLED: &str = "Stalled";
}

/// Kinds of the API group, as Events and owner references name them.
pub mod kind {
    /// See [`Application`](crate::Application).
    pub const APPLICATION: &str = "Application";
    /// See [`Device`](crate::Device).
    pub const DEVICE: &str = "Device";
    /// See [`DeviceGateway`](crate::DeviceGateway).
    pub const DEVICE_GATEWAY: &str = "DeviceGateway";
}

/// Annotations of a CertificateSigningRequest for a device: what speaks for it. None of them is believed; the signer verifies.
pub mod request_annotation {
    /// The Device, as `namespace/name`.
    pub const DEVICE: &str = "wasmbed.github.io/device";
    /// The Device's `metadata.uid`.
    pub const DEVICE_UID: &str = "wasmbed.github.io/device-uid";
    /// Standard base64 of the join proof; see `wasmbed.cddl`.
    pub const JOIN_PROOF: &str = "wasmbed.github.io/join-proof";
    /// PEM of the factory certificate, then of the authorities between it and the factory root.
    pub const FACTORY_CHAIN: &str = "wasmbed.github.io/factory-chain";
    /// Id of the pairing token that the proof is by.
    pub const PAIRING_ID: &str = "wasmbed.github.io/pairing-id";
    /// PEM of the certificate that is to be renewed, then of its authority.
    pub const RENEWS: &str = "wasmbed.github.io/renews";
}

/// Key of `spec.hard` of a ResourceQuota: bytes of the modules that the Applications of its namespace may use.
pub const MODULE_BYTES: &str = "wasmbed.github.io/module-bytes";
