//! What a gateway says of itself to the API: its DeviceGateway and its Lease, as the gateway's process does.

use k8s_openapi::{api::coordination::v1::LeaseSpec, jiff::Timestamp};
use serde_json::{Value, json};
use wasmbed_control::{
    Now,
    election::{ElectionConfig, Hold, LeaseRecord, Tenure},
};

use crate::{
    api::{Api, ApiError, seconds_text, time_text},
    invariants::Witness,
    line::Line,
};

/// As the gateway's process has it.
const LEASE: ElectionConfig = ElectionConfig { duration_ms: 15_000, renew_ms: 5_000 };
/// The DeviceGateway is looked at this often.
const STATUS_MS: u64 = 5_000;
/// One life of one gateway, as others see it.
pub(crate) struct Presence {
    gateway: String,
    tenure: Tenure,
    lease_ms: u64,
    status_ms: u64,
    /// When the Lease was last written, until it is asked for.
    renewed_ms: Option<u64>,
}

impl Presence {
    pub(crate) fn new(gateway: &str, id: &str, now_ms: u64) -> Self {
        Self {
            gateway: gateway.to_owned(),
            tenure: Tenure::new(id, LEASE),
            lease_ms: now_ms,
            status_ms: now_ms,
            renewed_ms: None,
        }
    }

    /// When the Lease was written, if it was since the last time this was asked.
    pub(crate) fn take_renewed(&mut self) -> Option<u64> {
        self.renewed_ms.take()
    }

    pub(crate) fn hold(&self) -> &Hold {
        self.tenure.hold()
    }

    /// One round; answers when the next is wanted.
    pub(crate) fn poll(&mut self, now: Now, api: &mut Api, line: &mut Line, witness: &mut Witness) -> u64 {
        let now_ms = now.ms;
        if now_ms >= self.lease_ms {
            let reached = if line.fails() { Err(ApiError::Unavailable) } else { line.reach_mut(now_ms, api) };
            let claimed = reached.is_ok_and(|api| self.claim(now, api));
            if !claimed {
                self.tenure.handle_failed();
            } else if *self.tenure.hold() == Hold::Held {
                witness.lease_renewed(&self.gateway, now_ms);
            }
            self.lease_ms = now_ms + self.tenure.poll_pause_ms(now_ms, claimed);
        }
        if now_ms >= self.status_ms {
            if *self.tenure.hold() == Hold::Held
                && !line.fails()
                && let Ok(api) = line.reach_mut(now_ms, api)
            {
                self.say(now, api);
            }
            self.status_ms = now_ms + STATUS_MS;
        }
        self.lease_ms.min(self.status_ms)
    }

    /// Takes or renews the Lease; false if the API did not do as it was asked.
    fn claim(&mut self, now: Now, api: &mut Api) -> bool {
        let name = lease_name(&self.gateway);
        let lease = match api.get("leases", &name) {
            Ok(lease) => Some(lease),
            Err(ApiError::NotFound) => None,
            Err(_) => return false,
        };
        let spec: Option<LeaseSpec> =
            lease.as_ref().and_then(|lease| serde_json::from_value(lease["spec"].clone()).ok());
        let record = lease.as_ref().map(|_| LeaseRecord::read(spec.as_ref()));
        let claim = self.tenure.plan_claim(now.ms, record.as_ref());
        let claimed = claim.spec(spec, self.tenure.holder(), LEASE, time(now));
        let Some((term, spec)) = claimed else { return true };
        let spec = json!(spec);
        let written = match lease {
            None => api.create("leases", "Lease", &name, spec),
            Some(lease) => {
                let version = &lease["metadata"]["resourceVersion"];
                let patch = json!({ "metadata": { "resourceVersion": version }, "spec": spec });
                api.patch("leases", &name, false, patch)
            }
        };
        if written.is_ok() {
            self.tenure.handle_written(now.ms, term);
            self.renewed_ms = Some(now.ms);
        }
        written.is_ok()
    }

    /// Makes the DeviceGateway, or puts right what is not as it should be in it.
    fn say(&self, now: Now, api: &mut Api) {
        let spec = json!({ "address": address(&self.gateway) });
        let held = match api.get("devicegateways", &self.gateway) {
            Ok(held) if held["spec"] == spec => Ok(held),
            Ok(_) => api.patch("devicegateways", &self.gateway, false, json!({ "spec": spec })),
            Err(ApiError::NotFound) => api.create("devicegateways", "DeviceGateway", &self.gateway, spec),
            Err(error) => Err(error),
        };
        let Ok(held) = held else { return };
        if ready(&held) != "True" {
            let condition = json!({
                "type": "Ready", "status": "True", "reason": "Serving", "message": "",
                "lastTransitionTime": seconds_text(now),
            });
            let patch = json!({ "status": { "conditions": [condition] } });
            // It is looked at again.
            let _ = api.patch("devicegateways", &self.gateway, true, patch);
        }
    }

    /// A clean stop: nobody has to wait for the Lease to run out.
    pub(crate) fn release(&self, now: Now, api: &mut Api, line: &Line, witness: &mut Witness) {
        let Ok(api) = line.reach_mut(now.ms, api) else { return };
        let name = lease_name(&self.gateway);
        let Ok(lease) = api.get("leases", &name) else { return };
        if lease["spec"]["holderIdentity"] != self.tenure.holder() {
            return;
        }
        let version = &lease["metadata"]["resourceVersion"];
        let patch = json!({
            "metadata": { "resourceVersion": version },
            "spec": { "holderIdentity": "", "renewTime": time_text(now) },
        });
        if api.patch("leases", &name, false, patch).is_ok() {
            witness.lease_released(&self.gateway, now.ms);
        }
    }
}

/// Where a gateway is found.
pub(crate) fn address(gateway: &str) -> String {
    format!("{gateway}:8080")
}

/// Status of the condition Ready of a DeviceGateway.
pub(crate) fn ready(object: &Value) -> &str {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.filter_map(|condition| condition["status"].as_str()).next().unwrap_or_default()
}

pub(crate) fn lease_name(gateway: &str) -> String {
    wasmbed_api::gateway_lease(gateway)
}

fn time(now: Now) -> Timestamp {
    i64::try_from(now.unix_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}
