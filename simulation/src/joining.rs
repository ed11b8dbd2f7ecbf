//! What must hold of devices that join.
//!
//! - A certificate is issued only for a request that was approved, and only for a Device that people approved.
//! - Its key is one that the device of its name made.
//! - A token brings one key a certificate, and none of another device.
//! - A device has a session only with a certificate that was issued.
//! - Nobody has a session for long under the name of a Device that pins another key.
//! - What is asked for a Device has few names: requests do not pile up.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use wasmbed_api::request_annotation as annotation;
use wasmbed_control::{
    Now,
    gateway::{
        CertificateRequest, Evidence,
        config::{REQUEST_ATTEMPTS_MAX, REQUEST_PERIOD_MS},
    },
};
use wasmbed_protocol::KeyHash;

use crate::{
    certificates::{Certificate, requested_public_key},
    reference::text,
    traps::Broken,
};

/// Whose key, for which Device, with or without a proof, and on which day by the gateway's clock.
type Cause = (String, Vec<u8>, bool, u64);

/// What is known of all of them.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    /// Keys that devices made, by name.
    made: BTreeMap<String, BTreeSet<KeyHash>>,
    /// UIDs of Devices that people ever approved.
    approved: BTreeSet<String>,
    /// Device, its UID and the key.
    issued: BTreeSet<(String, String, KeyHash)>,
    /// Tokens that were used: of which device, and for which key.
    tokens: BTreeMap<String, (String, KeyHash)>,
    requested: BTreeMap<Cause, BTreeSet<String>>,
    broken: Option<Broken>,
}

impl Joining {
    /// The first rule that was broken since.
    pub(crate) fn take_broken(&mut self) -> Option<Broken> {
        self.broken.take()
    }

    fn violated(&mut self, rule: &'static str, what: String) {
        self.broken.get_or_insert((rule, what));
    }

    /// A device has this public key.
    pub(crate) fn made(&mut self, name: &str, public_key: &[u8]) {
        let key = KeyHash::of(public_key);
        if !self.made.get(name).is_some_and(|made| made.contains(&key)) {
            self.made.entry(name.to_owned()).or_default().insert(key);
        }
    }

    /// People left a Device like this.
    pub(crate) fn left_by_people(&mut self, object: &Value) {
        if object["spec"]["approved"] == true {
            self.approved.insert(text(&object["metadata"]["uid"]));
        }
    }

    /// A gateway made a request.
    pub(crate) fn requested(&mut self, request: &CertificateRequest, now: Now) {
        if matches!(request.evidence, Evidence::Renewal { .. }) {
            return;
        }
        let proven = request.evidence != Evidence::None;
        let day = now.unix_ms / REQUEST_PERIOD_MS;
        let cause = (request.device_uid.to_string(), request.request.to_vec(), proven, day);
        let names = self.requested.entry(cause).or_default();
        names.insert(request.name.clone());
        if names.len() > REQUEST_ATTEMPTS_MAX as usize {
            let count = names.len();
            self.violated("requests do not pile up", format!("{count} requests for {}", request.device));
        }
    }

    /// Whether a gateway asks by this name on the day of that moment: requests of other days were made by clocks that were wrong.
    pub(crate) fn is_asked(&self, name: &str, unix_ms: u64) -> bool {
        let of_day = |cause: &Cause| cause.3 == unix_ms / REQUEST_PERIOD_MS;
        self.requested.iter().any(|(cause, names)| of_day(cause) && names.contains(name))
    }

    /// A controller approved a request.
    pub(crate) fn approved(&mut self, object: &Value) {
        let uid = text(&object["metadata"]["annotations"][annotation::DEVICE_UID]);
        if !self.approved.contains(&uid) {
            let name = text(&object["metadata"]["name"]);
            let what = format!("a controller approved {name}, and nobody approved its Device {uid}");
            self.violated("requests are approved for Devices that people approved", what);
        }
    }

    /// The signer issued a certificate for a request.
    pub(crate) fn issued(&mut self, object: &Value, certificate: &Certificate) {
        let Certificate { name, device_uid, .. } = certificate;
        let (key, uid) = (certificate.key(), device_uid.to_string());
        let annotations = &object["metadata"]["annotations"];
        let has = |condition: &str| {
            let conditions = object["status"]["conditions"].as_array();
            conditions.into_iter().flatten().any(|found| found["type"] == condition)
        };
        if !has("Approved") || has("Denied") || !self.approved.contains(&uid) {
            let what = format!("{name} got a certificate that was not approved: {object}");
            self.violated("certificates are issued for what was approved", what);
        }
        let asked = text(&object["spec"]["request"]);
        let asked = requested_key(&asked);
        let own = self.made.get(name).is_some_and(|made| made.contains(&key));
        if !own || asked != Some(key) {
            let what = format!("{name} is certified with the key {key}, which it did not make or ask for");
            self.violated("certificates are for their devices' keys", what);
        }
        if let Some(token) = annotations[annotation::PAIRING_ID].as_str() {
            let by = (name.clone(), key);
            let first = self.tokens.entry(token.to_owned()).or_insert_with(|| by.clone()).clone();
            if first != by {
                let what = format!("the token {token} certified {first:?}, and then {by:?}");
                self.violated("a token admits one device", what);
            }
        }
        self.issued.insert((name.clone(), uid, key));
    }

    /// Whether this certificate was issued.
    pub(crate) fn has_issued(&self, certificate: &Certificate) -> bool {
        let Certificate { name, device_uid, .. } = certificate;
        self.issued.contains(&(name.clone(), device_uid.to_string(), certificate.key()))
    }

    /// Whether this token brought a certificate.
    pub(crate) fn is_used(&self, token: &str) -> bool {
        self.tokens.contains_key(token)
    }

    /// Certificates that were issued.
    pub(crate) fn count(&self) -> usize {
        self.issued.len()
    }
}

fn requested_key(encoded: &str) -> Option<KeyHash> {
    let pem = BASE64_STANDARD.decode(encoded).ok()?;
    Some(KeyHash::of(&requested_public_key(&pem)?))
}
