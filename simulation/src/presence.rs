//! What a gateway says of itself to the API: its DeviceGateway and its Lease, as the gateway's process does.

use serde_json::json;

use crate::{
    api::{Api, ApiError, rfc3339},
    invariants::Witness,
    random::Random,
};

/// The Lease is renewed this often.
const RENEW_MS: u64 = 5_000;
/// After a call that failed.
const RETRY_MS: u64 = 1_000;
/// `leaseDurationSeconds`.
pub(crate) const LEASE_SECONDS: u64 = 15;

/// One life of one gateway, as others see it.
pub(crate) struct Presence {
    gateway: String,
    boot_id: String,
    announced: bool,
    due_ms: u64,
}

impl Presence {
    pub(crate) fn new(gateway: &str, boot_id: String, now_ms: u64) -> Self {
        Self { gateway: gateway.to_owned(), boot_id, announced: false, due_ms: now_ms }
    }

    /// One round; answers when the next is wanted.
    pub(crate) fn poll(
        &mut self,
        now_ms: u64,
        api: &mut Api,
        random: &mut Random,
        witness: &mut Witness,
    ) -> u64 {
        if now_ms >= self.due_ms {
            let failed = witness.faults && random.once_in(20);
            let said = !failed && self.announce(api) && self.renew(now_ms, api);
            if said {
                witness.lease_renewed(&self.gateway, now_ms);
            }
            self.due_ms = now_ms + if said { RENEW_MS } else { RETRY_MS };
        }
        self.due_ms
    }

    fn announce(&mut self, api: &mut Api) -> bool {
        if !self.announced {
            let spec = json!({ "address": format!("{}:8080", self.gateway) });
            let created = api.create("devicegateways", "DeviceGateway", &self.gateway, spec);
            self.announced = matches!(created, Ok(_) | Err(ApiError::Conflict));
        }
        self.announced
    }

    fn renew(&mut self, now_ms: u64, api: &mut Api) -> bool {
        let name = lease_name(&self.gateway);
        let spec = json!({
            "holderIdentity": self.boot_id,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": rfc3339(now_ms, 6),
        });
        match api.patch("leases", &name, false, json!({ "spec": spec })) {
            Err(ApiError::NotFound) => api.create("leases", "Lease", &name, spec).is_ok(),
            result => result.is_ok(),
        }
    }

    /// A clean stop: nobody has to wait for the Lease to run out.
    pub(crate) fn release(&self, now_ms: u64, api: &mut Api, witness: &mut Witness) {
        let patch = json!({ "spec": { "holderIdentity": "" } });
        if api.patch("leases", &lease_name(&self.gateway), false, patch).is_ok() {
            witness.lease_released(&self.gateway, now_ms);
        }
    }
}

pub(crate) fn lease_name(gateway: &str) -> String {
    format!("gateway-{gateway}")
}
