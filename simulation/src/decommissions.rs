//! What must hold of devices that are taken out of service.
//!
//! - A device erases itself only for a Device that people want taken out of service.
//! - A Device is said to be taken out of service only once its device has signed that it erased what it had.
//! - What the device signed to have erased stays erased, and nothing runs there any more.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wasmbed_protocol::KeyHash;
use wasmbed_supervisor::memory::identity::read_proof;

use crate::{
    device::Device,
    identities::key_of,
    reference::{name_of, text},
    traps::Broken,
};

/// What is known of all of them.
#[derive(Debug, Default)]
pub(crate) struct Decommissions {
    /// Of devices that joined, the last one that each had.
    keys: BTreeMap<usize, KeyHash>,
    /// UIDs of Devices that people want taken out of service.
    wanted: BTreeSet<String>,
    /// Devices that signed to have erased what they had, and for which Device.
    proven: BTreeSet<(usize, String)>,
    /// Devices whose Device says so, and what they signed to have erased.
    confirmed: BTreeMap<usize, BTreeSet<String>>,
}

impl Decommissions {
    /// People want a Device taken out of service.
    pub(crate) fn wanted(&mut self, object: &Value) {
        self.wanted.insert(text(&object["metadata"]["uid"]));
    }

    /// A device sent a proof.
    pub(crate) fn proved(&mut self, device: usize, name: &str, proof: &[u8]) -> Option<Broken> {
        let Some(said) = read_proof(proof, self.key(device, name)) else {
            return Some(("proofs are their device's", format!("{name} sent a proof that it did not sign")));
        };
        let uid = said.device_uid.to_string();
        let wanted = self.wanted.contains(&uid);
        self.proven.insert((device, uid));
        (!wanted).then(|| {
            let what =
                format!("{name} erased itself for the Device {}, which nobody wants gone", said.device_uid);
            ("devices erase themselves for whom they are to", what)
        })
    }

    /// A device that joins made this key.
    pub(crate) fn made(&mut self, device: usize, public_key: &[u8]) {
        let key = KeyHash::of(public_key);
        if self.keys.get(&device) != Some(&key) {
            self.keys.insert(device, key);
        }
    }

    fn key(&self, device: usize, name: &str) -> KeyHash {
        self.keys.get(&device).copied().unwrap_or_else(|| key_of(name))
    }

    /// A controller wrote how far it is.
    pub(crate) fn written(&mut self, device: usize, object: &Value) -> Option<Broken> {
        let status = &object["status"]["decommission"];
        if !status["confirmed_at"].is_string() {
            return None;
        }
        let uid = text(&object["metadata"]["uid"]);
        if !self.has_proven(device, &uid) {
            let name = name_of(object);
            let what = format!("{name} is said to be taken out of service, and its device never said so");
            return Some(("what is confirmed was proven", what));
        }
        let erased = status["erased"].as_array().into_iter().flatten().map(text);
        self.confirmed.entry(device).or_default().extend(erased);
        None
    }

    /// Whether the device has sent a proof for this Device.
    pub(crate) fn has_proven(&self, device: usize, uid: &str) -> bool {
        self.proven.contains(&(device, uid.to_owned()))
    }

    /// Whether what a device has erased is still gone.
    pub(crate) fn still_erased(&self, index: usize, device: &mut Device) -> Option<Broken> {
        let erased = self.confirmed.get(&index)?;
        let loaded = device.supervisor.loaded();
        let disk = device.disk();
        let modules = disk.modules.len() + disk.staged.len();
        let left = [("Modules", modules), ("KeyValueData", disk.data.len()), ("Assignments", loaded)];
        let (kind, count) = left.into_iter().find(|(kind, count)| *count > 0 && erased.contains(*kind))?;
        let what = format!("{} has {count} of what it signed to have erased: {kind}", device.name);
        Some(("what is erased stays erased", what))
    }

    /// Devices that were taken out of service.
    pub(crate) fn confirmed(&self) -> usize {
        self.confirmed.len()
    }
}
