//! Names that more than one process has to agree on.

/// What gateways call themselves wherever Kubernetes asks who wrote something: as field manager, and as source and
/// reporting component of Events.
pub const GATEWAY_COMPONENT: &str = "wasmbed-gateway";
/// The same of controllers.
pub const CONTROLLER_COMPONENT: &str = "wasmbed-controller";
/// The Lease of the controller that leads; its `leaseTransitions` are the leader term.
pub const LEADER_LEASE: &str = "wasmbed-controller";
/// A gateway's Lease has this and the gateway's name.
pub const GATEWAY_LEASE_PREFIX: &str = "gateway-";

/// Name of a gateway's Lease.
#[must_use]
pub fn gateway_lease(gateway: &str) -> String {
    format!("{GATEWAY_LEASE_PREFIX}{gateway}")
}
