//! Requests for devices' certificates that nobody has decided about: by name, by Device, and which of them are to be looked at.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};
use wasmbed_protocol::KeyHash;

use crate::ObjectKey;

/// Conditions of a request about which nothing has to be decided any more.
const DECIDED: [&str; 3] = ["Approved", "Denied", "Failed"];

/// A request that nobody has decided about, as the watch shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestSeen {
    /// Its name; requests are in no namespace.
    pub name: String,
    /// Its `metadata.resourceVersion`.
    pub resource_version: String,
    /// The Device that it names.
    pub device: ObjectKey,
    /// UID of the Device that it names.
    pub device_uid: String,
    /// What it says speaks for it.
    pub claim: Claim,
    /// The conditions that it has.
    pub conditions: Vec<CertificateSigningRequestCondition>,
}

impl RequestSeen {
    /// Reads a request that waits for a decision; `None` if it waits for none, or can't be understood: the signer says so then.
    /// `key_of` reads the key in `spec.request`.
    pub fn read(
        object: CertificateSigningRequest,
        key_of: impl FnOnce(&[u8]) -> Option<KeyHash>,
    ) -> Option<Self> {
        if object.spec.signer_name != DEVICE_SIGNER {
            return None;
        }
        let status = object.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let decided = conditions.iter().any(|condition| DECIDED.contains(&condition.type_.as_str()));
        if decided || status.certificate.is_some() {
            return None;
        }
        let annotations = object.metadata.annotations.unwrap_or_default();
        let (namespace, name) = annotations.get(annotation::DEVICE)?.split_once('/')?;
        let claim = if annotations.contains_key(annotation::JOIN_PROOF) {
            Claim::JoinProof
        } else if annotations.contains_key(annotation::RENEWS) {
            Claim::Renewal
        } else {
            Claim::Key(key_of(&object.spec.request.0)?)
        };
        Some(Self {
            name: object.metadata.name?,
            resource_version: object.metadata.resource_version?,
            device: ObjectKey::new(namespace, name),
            device_uid: annotations.get(annotation::DEVICE_UID)?.clone(),
            claim,
            conditions,
        })
    }
}

/// What a request says speaks for it. Nobody has verified it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A factory key's or a pairing token's word.
    JoinProof,
    /// The certificate that it renews.
    Renewal,
    /// Nothing but a person who confirms this key.
    Key(KeyHash),
}

impl Claim {
    /// Why it is approved, for people.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::JoinProof => "the Device is approved, and a join proof came with the request",
            Self::Renewal => "the Device is approved, and its certificate is renewed",
            Self::Key(_) => "the Device is approved, and its spec.confirmed_key is the request's key",
        }
    }
}

/// Requests that nobody has decided about, by name and by the Device that they name.
#[derive(Debug, Default)]
pub(super) struct Requests {
    open: BTreeMap<String, RequestSeen>,
    by_device: BTreeMap<ObjectKey, BTreeSet<String>>,
    /// To be looked at: they or their Devices changed.
    due: BTreeSet<String>,
    /// Approvals on their way, with the resourceVersion that each was made for.
    writing: BTreeMap<String, String>,
    /// What a list has named so far, while it is read.
    listing: Option<BTreeSet<String>>,
}

impl Requests {
    /// A list begins: what it does not name until its end is gone.
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    pub(super) fn end_list(&mut self) {
        let listed = present!(self.listing.take(), "a list begins before it ends");
        let gone: Vec<String> = self.open.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// It is open, or changed while open.
    pub(super) fn insert(&mut self, request: RequestSeen) {
        if let Some(listed) = &mut self.listing {
            listed.insert(request.name.clone());
        }
        self.remove(&request.name);
        self.due.insert(request.name.clone());
        self.by_device.entry(request.device.clone()).or_default().insert(request.name.clone());
        self.open.insert(request.name.clone(), request);
    }

    /// It is gone, or someone has decided about it.
    pub(super) fn remove(&mut self, name: &str) {
        self.due.remove(name);
        let Some(request) = self.open.remove(name) else { return };
        let names =
            present!(self.by_device.get_mut(&request.device), "an open request is indexed by its Device");
        names.remove(name);
        if names.is_empty() {
            self.by_device.remove(&request.device);
        }
    }

    /// A Device changed: what names it is looked at.
    pub(super) fn device_changed(&mut self, device: &ObjectKey) {
        self.due.extend(self.by_device.get(device).into_iter().flatten().cloned());
    }

    /// Everything is looked at.
    pub(super) fn resync(&mut self) {
        self.due.extend(self.open.keys().cloned());
    }

    /// The next one to be looked at. One that is being approved waits for the answer.
    pub(super) fn pop_due(&mut self) -> Option<&RequestSeen> {
        let name = loop {
            let name = self.due.pop_first()?;
            if !self.writing.contains_key(&name) {
                break name;
            }
        };
        let request = self.open.get(&name);
        debug_assert!(request.is_some(), "what is due is open");
        request
    }

    /// It is being approved.
    pub(super) fn begin_write(&mut self, name: String, resource_version: String) {
        self.writing.insert(name, resource_version);
    }

    /// That was answered. What failed for a passing reason, or changed meanwhile, is looked at again.
    pub(super) fn end_write(&mut self, name: &str, failed_for_now: bool) {
        let version = self.writing.remove(name);
        let open = self.open.get(name);
        if open.is_some_and(|request| failed_for_now || Some(&request.resource_version) != version.as_ref()) {
            self.due.insert(name.to_owned());
        }
    }

    /// Whether something waits to be looked at.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }
}
