//! Devices that have no certificate of the fleet yet: from their connection to the certificate.
//!
//! ```text
//! AwaitJoin ─ Join ─┬─ AwaitDevice (it is created) ─┐
//!                   └───────────────────────────────┴─ ProofNeeded: AwaitProof ─ Join, proof ─ Pending: Requested ─ Certificate: Delivering
//! (any state) ── Refused, or out of time ── Closing
//! ```
//!
//! Nothing that such a device says is believed. A gateway passes on what speaks for it, and the signer decides; a session begins
//! only over a certificate that was issued. So a joining device has no [`super::connections::Session`], takes none of a session's
//! places, and is none in Device.status.

mod asking;
mod awaited;
mod claims;
mod joiners;
mod names;
mod places;
mod refusals;
mod renewal;
mod requests;
mod shares;
mod signing;
mod turns;

use std::{collections::BTreeMap, sync::Arc};

use wasmbed_api::Device;
use wasmbed_protocol::KeyHash;

use super::{
    config::{JOIN_REFUSALS_MAX, JOINERS_MAX, RENEWAL_SPACING_MS, RETRY_SOON_MS},
    input::SessionId,
};
use crate::ObjectKey;

use joiners::Joiners;
use names::Names;
use refusals::Refusals;
use requests::Requests;
use turns::Turns;

/// All that is known of devices that join or renew.
#[derive(Debug, Default)]
pub(super) struct Joining {
    joiners: Joiners,
    names: Names,
    requests: Requests,
    refusals: Refusals,
    turns: Turns,
    /// Sessions whose chain is asked for, with what they want.
    presenting: BTreeMap<SessionId, Renewing>,
    /// What sessions were given since they began: that is what they renew next. At most [`CHAIN_BYTES_MAX`](wasmbed_protocol::limits::CHAIN_BYTES_MAX) bytes for each.
    given: BTreeMap<SessionId, Arc<[Vec<u8>]>>,
    /// When each device last asked for its renewal.
    renewed: BTreeMap<Arc<ObjectKey>, u64>,
}

/// What a session wants whose chain is asked for.
#[derive(Clone, Debug)]
struct Renewing {
    request: Arc<[u8]>,
    /// Of the request.
    key: KeyHash,
}

impl Joining {
    pub(super) fn len(&self) -> usize {
        self.joiners.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joiners.is_empty()
    }

    pub(super) fn contains(&self, id: SessionId) -> bool {
        self.joiners.contains(id)
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.joiners.ids()
    }

    pub(super) fn pop_wake(&mut self) -> Option<SessionId> {
        self.joiners.pop_wake()
    }

    /// When something is due, calls about requests apart.
    pub(super) fn timeout_ms(&self) -> Option<u64> {
        self.joiners.timeout_ms()
    }

    /// When a call about a request is due.
    pub(super) fn calls_timeout_ms(&self) -> Option<u64> {
        self.requests.timeout()
    }

    /// A Device is as this object shows it.
    pub(super) fn observe(&mut self, key: &Arc<ObjectKey>, device: &Device) {
        self.names.observe(key, device);
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.refusals.sweep(now_ms);
        self.requests.sweep(now_ms);
        self.renewed.retain(|_, asked_ms| now_ms.saturating_sub(*asked_ms) < RENEWAL_SPACING_MS);
    }

    /// The first broken invariant, if any.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.joiners.len() > JOINERS_MAX {
            return Err("more devices join than have a place");
        }
        if self.refusals.len() > JOIN_REFUSALS_MAX {
            return Err("more refused certificates are remembered than may be");
        }
        self.joiners.check()?;
        self.requests.check()
    }
}

/// Why a joining device is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JoinRefusal {
    detail: String,
    retry_after_ms: u32,
    /// The device is at fault, or a person decided: its certificate waits ever longer.
    is_held_against: bool,
    /// It is told as a session of the device would be: what it runs ends.
    is_revoked: bool,
}

impl JoinRefusal {
    /// For what may be over in a moment, whoever it is.
    fn passing(detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            retry_after_ms: RETRY_SOON_MS,
            is_held_against: false,
            is_revoked: false,
        }
    }

    /// For what stays as it is until somebody changes it.
    fn standing(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), retry_after_ms: 0, is_held_against: true, is_revoked: false }
    }
}
