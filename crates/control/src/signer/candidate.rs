//! A Device as the decision sees it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmbed_api::Device;
use wasmbed_protocol::KeyHash;

use super::Candidate;

impl Candidate {
    /// Reads a Device; `None` if it lacks what the API server always sets.
    #[must_use]
    pub fn read(device: &Device) -> Option<Self> {
        let spec = &device.spec;
        // A hash that is none is of no key: then nothing matches, instead of everything.
        let hash = |text: &String| text.parse().unwrap_or(KeyHash::default());
        let pinned = |key: &String| STANDARD.decode(key).map_or(KeyHash::default(), |der| KeyHash::of(&der));
        Some(Self {
            uid: device.metadata.uid.as_deref()?.parse().ok()?,
            name: device.metadata.name.clone()?,
            is_deleting: device.metadata.deletion_timestamp.is_some(),
            is_approved: spec.approved,
            is_revoked: spec.revoked,
            is_decommissioned: spec.decommission,
            serial: spec.serial.clone(),
            factory_key: spec.factory_key_hash.as_ref().map(hash),
            pairing_id: spec.pairing_id.clone(),
            pinned_key: spec.public_key.as_ref().map(pinned),
            confirmed_key: spec.confirmed_key.as_ref().map(hash),
        })
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_api::DeviceSpec;
    use wasmbed_protocol::DeviceUid;

    use super::{
        super::{Decision, Evidence, Refusal, Request, plan_signature},
        *,
    };

    #[test]
    fn decommissioned_devices_are_refused() {
        let uid = DeviceUid([7; 16]);
        let decide = |decommission| {
            let spec = DeviceSpec { approved: true, decommission, ..DeviceSpec::default() };
            let mut device = Device::new("pump", spec);
            device.metadata.uid = Some(uid.to_string());
            let key = KeyHash([1; 32]);
            let evidence = Evidence::Renewal { device_uid: Some(uid), key };
            let request = Request { approved: true, device_uid: uid, key, evidence };
            plan_signature(&request, Candidate::read(&device).as_ref())
        };
        assert_eq!(decide(false), Decision::Issue);
        assert_eq!(decide(true), Decision::Refuse(Refusal::DeviceDecommissioned));
    }
}
