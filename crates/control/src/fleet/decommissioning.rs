//! How far a Device is with being taken out of service.
//!
//! ```text
//! spec.decommission ──> nonce in the status ──> order to its gateways ──> proof verified ──> confirmed in the status
//!                        (the leader draws it once; another goes on with it)
//! ```

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Map, Value, json};
use wasmbed_api::{Decommission, Device as Resource, DevicePhase, Erased, ReasonCode, condition};

use wasmbed_protocol::Nonce;

use super::status::time;
use crate::{Now, UnixTime};

/// Characters of the condition's message at most.
const MESSAGE_CHARS_MAX: usize = 1_024;

/// What is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Says {
    pub holds: bool,
    pub reason: ReasonCode,
    pub message: String,
}

impl Says {
    /// It is waited for this.
    pub(super) fn waiting(message: impl Into<String>) -> Self {
        Self { holds: false, reason: ReasonCode::Waiting, message: message.into() }
    }

    /// No proof of it could be verified.
    pub(super) fn key_unknown() -> Self {
        let message = ReasonCode::KeyUnknown.sentence().to_owned();
        Self { holds: false, reason: ReasonCode::KeyUnknown, message }
    }

    fn confirmed(erased: &[Erased]) -> Self {
        let message = format!(
            "the device signed that it erased {}; that its key is erased is not proven",
            list(erased)
        );
        Self { holds: true, reason: ReasonCode::Confirmed, message }
    }
}

fn list(erased: &[Erased]) -> String {
    let mut text = String::new();
    let names = erased.iter().filter_map(|erased| match erased {
        Erased::Assignments => Some("its assignments"),
        Erased::Modules => Some("its modules"),
        Erased::KeyValueData => Some("its key-value data"),
        Erased::Unknown => None,
    });
    for (index, name) in names.enumerate() {
        let _ = write!(text, "{}{name}", if index == 0 { "" } else { ", " });
    }
    if text.is_empty() { "nothing".to_owned() } else { text }
}

/// A Device with `spec.decommission`.
#[derive(Debug)]
pub(super) struct Decommissioning {
    /// `spec.public_key`, or the key that the signer certified last.
    key: Option<Box<str>>,
    status: Option<Decommission>,
    /// All that its status has: a merge patch replaces the list as a whole.
    conditions: Vec<Condition>,
    /// What a verified proof of this nonce says, until the status says it.
    verified: Option<Vec<Erased>>,
    /// When its condition was last written.
    said_ms: Option<u64>,
    /// Its status is another by now, which the watch has not brought yet.
    outdated: bool,
}

impl Decommissioning {
    /// What the object says, and what was known before; `None` if it is not to be taken out of service.
    pub(super) fn read(resource: &Resource, before: Option<Box<Self>>) -> Option<Box<Self>> {
        if !resource.spec.decommission {
            return None;
        }
        let status = resource.status.as_ref();
        let issued = || status.and_then(|status| status.public_key.as_deref());
        let mut read = Self {
            key: resource.spec.public_key.as_deref().or_else(issued).map(Box::from),
            status: status.and_then(|status| status.decommission.clone()),
            conditions: status.map(|status| status.conditions.clone()).unwrap_or_default(),
            verified: None,
            said_ms: None,
            outdated: false,
        };
        if let Some(before) = before {
            let same_order = read.nonce() == before.nonce();
            read.said_ms = before.said_ms;
            read.verified = before.verified.filter(|_| same_order);
        }
        Some(Box::new(read))
    }

    /// The key that its device has to have, standard base64.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The nonce of its order, once the status has one.
    pub(super) fn nonce(&self) -> Option<Nonce> {
        self.status.as_ref()?.nonce.parse().ok()
    }

    /// Whether its status says that the device's proof was verified.
    pub(super) fn is_confirmed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.confirmed_at.is_some())
    }

    /// Whether a proof was verified, whatever the status says.
    pub(super) fn is_verified(&self) -> bool {
        self.is_confirmed() || self.verified.is_some()
    }

    /// A proof with its nonce was verified.
    pub(super) fn verify(&mut self, erased: Vec<Erased>) {
        self.verified = Some(erased);
    }

    fn shown(&self) -> Option<&Condition> {
        self.conditions.iter().find(|shown| shown.type_ == condition::DECOMMISSIONED)
    }

    /// When it may be said for its message alone.
    pub(super) fn may_say_ms(&self, pause_ms: u64) -> u64 {
        self.said_ms.map_or(0, |at_ms| at_ms.saturating_add(pause_ms))
    }

    /// The fields of the status that are to be written, with what the condition says; `waiting` is what it says while no proof was
    /// verified, `drawn` the nonce to use if the status has none.
    pub(super) fn plan(&self, now: Now, waiting: Says, drawn: impl FnOnce() -> Nonce) -> Option<Planned> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        let at = UnixTime::from_ms(now.unix_ms).to_seconds_text();
        let confirmed = self.status.as_ref().filter(|status| status.confirmed_at.is_some());
        let begins = self.nonce().is_none() && confirmed.is_none();
        let says = if let Some(status) = confirmed {
            Says::confirmed(&status.erased)
        } else if let Some(erased) = &self.verified {
            set("decommission", json!({ "confirmed_at": at, "erased": erased }));
            set("phase", json!(DevicePhase::Decommissioned));
            if erased.contains(&Erased::Assignments) {
                set("applications", Value::Null);
            }
            Says::confirmed(erased)
        } else {
            if begins {
                set("decommission", json!({ "nonce": drawn().to_string(), "requested_at": at }));
            }
            waiting
        };
        let differs = self.shown().is_none_or(|shown| {
            (shown.status == "True") != says.holds || shown.reason != says.reason.as_str()
        });
        let reworded = self.shown().is_some_and(|shown| shown.message != says.message);
        if !differs && !reworded && fields.is_empty() {
            return None;
        }
        let urgent = differs || !fields.is_empty();
        fields.insert("conditions".to_owned(), json!(self.conditions_with(now, &says)));
        let event = (urgent && says.holds).then(|| says.clone());
        Some(Planned { fields, urgent, event })
    }

    fn conditions_with(&self, now: Now, says: &Says) -> Vec<Condition> {
        let status = if says.holds { "True" } else { "False" };
        let since = match self.shown() {
            Some(shown) if shown.status == status => shown.last_transition_time.clone(),
            _ => time(i64::try_from(now.unix_ms / 1_000).unwrap_or(i64::MAX)),
        };
        let own = Condition {
            type_: condition::DECOMMISSIONED.to_owned(),
            status: status.to_owned(),
            reason: says.reason.as_str().to_owned(),
            message: says.message.chars().take(MESSAGE_CHARS_MAX).collect(),
            observed_generation: None,
            last_transition_time: since,
        };
        let others = self.conditions.iter().filter(|shown| shown.type_ != condition::DECOMMISSIONED);
        others.cloned().chain([own]).collect()
    }

    /// Its condition is written.
    pub(super) fn said(&mut self, now: Now) {
        self.said_ms = Some(now.ms);
    }

    /// A write of what is known here was answered, and something else stands there now.
    pub(super) fn note_outdated(&mut self) {
        self.outdated = true;
    }

    /// The interval has passed: what is known here is taken for what stands there.
    pub(super) fn resync(&mut self) {
        self.outdated = false;
    }

    /// Whether nothing is to be written before the watch brings what stands there.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Planned {
    /// Fields of the status.
    pub fields: Map<String, Value>,
    /// It says something else than before, not only in other words.
    pub urgent: bool,
    /// What people are to see as an Event.
    pub event: Option<Says>,
}
