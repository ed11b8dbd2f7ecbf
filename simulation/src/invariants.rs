//! What must hold at every step, checked by a witness who hears every frame and sees every write.
//!
//! - A status never claims what no device reported.
//! - The newest epoch wins: the epoch in a Device's status never goes back.
//! - Unknown never empties a device: what a device works to is a set that was sent to it, and a revision has one content.
//! - Nothing acknowledged is lost: a device knows, after any cut, the revision that it reported.
//! - The embedded API refuses no write of ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde_json::Value;
use wasmbed_protocol::{ApplicationUid, DeviceMessage, GatewayMessage, decode_device, decode_gateway};

/// A rule that was broken, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// Application, assignment and state, as they stand in a status.
type Claim = (String, String, String);

/// Hears and sees everything.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Whether calls fail.
    pub(crate) faults: bool,
    names: Vec<String>,
    reported: BTreeMap<usize, BTreeSet<Claim>>,
    acknowledged: BTreeMap<usize, u64>,
    /// What each revision of a device's set holds.
    sets: BTreeMap<(usize, u64), BTreeSet<ApplicationUid>>,
    epochs: BTreeMap<String, i64>,
    pub(crate) violation: Option<Violation>,
    pub(crate) frames: u64,
    pub(crate) writes: u64,
}

impl Witness {
    pub(crate) fn new(names: Vec<String>) -> Self {
        Self { names, ..Self::default() }
    }

    fn violated(&mut self, what: String) {
        self.violation.get_or_insert(Violation(what));
    }

    pub(crate) fn device_said(&mut self, device: usize, body: &[u8]) {
        self.frames += 1;
        match decode_device(body) {
            Err(error) => self.violated(format!("a device sent a frame that does not decode: {error}")),
            Ok(DeviceMessage::Reported(reported)) => {
                let acknowledged = self.acknowledged.entry(device).or_default();
                *acknowledged = (*acknowledged).max(reported.revision.0);
                let claims = self.reported.entry(device).or_default();
                claims.extend(reported.applications.iter().map(|report| {
                    let state = report.state.name().to_owned();
                    (hyphenated(report.uid), report.spec_hash.to_string(), state)
                }));
            }
            Ok(_) => {}
        }
    }

    pub(crate) fn gateway_said(&mut self, device: usize, body: &[u8]) {
        self.frames += 1;
        match decode_gateway(body) {
            Err(error) => self.violated(format!("a gateway sent a frame that does not decode: {error}")),
            Ok(GatewayMessage::Desired(desired)) => {
                let set: BTreeSet<ApplicationUid> =
                    desired.applications.iter().map(|member| member.uid).collect();
                let known = self.sets.entry((device, desired.revision.0)).or_insert_with(|| set.clone());
                if *known != set {
                    let text = format!("revision {} of device {device} has two contents", desired.revision);
                    self.violated(text);
                }
            }
            Ok(_) => {}
        }
    }

    pub(crate) fn device_status_written(&mut self, gateway: &str, object: &Value) {
        self.writes += 1;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let epoch = object["status"]["epoch"].as_i64().unwrap_or(0);
        let before = self.epochs.insert(name.clone(), epoch).unwrap_or(0);
        if epoch < before {
            self.violated(format!("{gateway} took the epoch of {name} back from {before} to {epoch}"));
        }
        let Some(device) = self.names.iter().position(|known| *known == name) else { return };
        let claims = object["status"]["applications"].as_array().cloned().unwrap_or_default();
        for claim in claims {
            let field = |field: &str| claim[field].as_str().unwrap_or_default().to_owned();
            let claim = (field("uid"), field("spec_hash"), field("state"));
            if !self.reported.get(&device).is_some_and(|reported| reported.contains(&claim)) {
                self.violated(format!("{gateway} claims of {name} what it never reported: {claim:?}"));
            }
        }
    }

    pub(crate) fn application_status_written(&mut self, object: &Value) {
        self.writes += 1;
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let running = object["status"]["counts"]["running"].as_u64().unwrap_or(0);
        let ever = self
            .reported
            .values()
            .filter(|claims| {
                claims
                    .iter()
                    .any(|claim| claim.0 == uid && matches!(claim.2.as_str(), "Running" | "Completed"))
            })
            .count() as u64;
        if running > ever {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            self.violated(format!("{name} is said to run on {running} devices, {ever} ever reported that"));
        }
    }

    /// A write was refused as invalid.
    pub(crate) fn refused(&mut self, why: &str) {
        self.violated(format!("the API refused a write: {why}"));
    }

    /// What a device works to now.
    pub(crate) fn device_works_to(&mut self, device: usize, revision: u64, set: &BTreeSet<ApplicationUid>) {
        let acknowledged = self.acknowledged.get(&device).copied().unwrap_or(0);
        if revision < acknowledged {
            self.violated(format!(
                "device {device} acknowledged revision {acknowledged} and knows {revision}"
            ));
        }
        match self.sets.get(&(device, revision)) {
            None if set.is_empty() => {}
            None => self.violated(format!("device {device} works to revision {revision}, which nobody sent")),
            Some(sent) if sent == set => {}
            Some(sent) => {
                let text =
                    format!("device {device} at revision {revision} has {set:?}, it was sent {sent:?}");
                self.violated(text);
            }
        }
    }
}

/// As Kubernetes writes a UID.
pub(crate) fn hyphenated(uid: ApplicationUid) -> String {
    uuid::Uuid::from_bytes(uid.0).to_string()
}
