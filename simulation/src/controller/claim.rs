//! What the election of a controller has under way.

use serde_json::Value;
use wasmbed_control::election::{Claim, ElectionConfig};

/// As the controller's process has them.
pub(super) const ELECTION: ElectionConfig = ElectionConfig { duration_ms: 10_000, renew_ms: 3_000 };

/// A write of the leader's Lease on its way.
pub(super) struct Claiming {
    pub(super) at_ms: u64,
    pub(super) asked_ms: u64,
    pub(super) claim: Claim,
    pub(super) version: String,
}

pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
