//! A device that is taken out of service: the order for it, and what it answered.
//!
//! ```text
//! take (a controller's order) ──> offered at each session's start and when it is another one ──> proof or refusal ──> controllers
//! forget, once the Device says that the proof was verified
//! ```
//!
//! The gateway reads neither the order nor the proof: they are between the controller and the device.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::gateway_api::DecommissionView;

/// The order of one device, as the disk has it, and its answer, which the device repeats.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Decommission {
    order: Option<Arc<[u8]>>,
    proof: Option<Box<[u8]>>,
    refused: Option<Box<str>>,
}

impl Decommission {
    /// With the order that the disk holds.
    pub(super) fn restored(order: Option<Arc<[u8]>>) -> Self {
        Self { order, ..Self::default() }
    }

    pub(in crate::gateway) fn order(&self) -> Option<&Arc<[u8]>> {
        self.order.as_ref()
    }

    /// The order is this one now, or there is none; false if that is so already. Another order is answered anew.
    pub(in crate::gateway) fn take(&mut self, order: Option<Arc<[u8]>>) -> bool {
        if self.order == order {
            return false;
        }
        self.order = order;
        self.refused = None;
        true
    }

    /// The device sent a proof; false if that is the one known.
    pub(in crate::gateway) fn note_proof(&mut self, proof: &[u8]) -> bool {
        let known = self.proof.as_deref() == Some(proof);
        self.proof = Some(proof.into());
        !known
    }

    /// The device refused the order, in these words; false if that is known, or there is none.
    pub(in crate::gateway) fn note_refusal(&mut self, words: &str) -> bool {
        let known = self.order.is_none() || self.refused.as_deref() == Some(words);
        if !known {
            self.refused = Some(words.into());
        }
        !known
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_none() && self.proof.is_none()
    }

    /// As controllers read it; `unsupported` if the device, which has a session, knows no orders.
    pub(super) fn view(&self, unsupported: bool) -> Option<DecommissionView> {
        let view = DecommissionView {
            proof: self.proof.as_deref().map(|proof| STANDARD.encode(proof)),
            refused: self.refused.as_deref().map(str::to_owned),
            unsupported: unsupported && self.order.is_some(),
        };
        (view != DecommissionView::default()).then_some(view)
    }
}
