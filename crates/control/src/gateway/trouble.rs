//! What was seen of one identity, and for how long it counts.

use std::collections::VecDeque;

use wasmbed_protocol::{BootId, CloseReason};

use super::{
    admission::Refusal,
    config::{
        CLONE_QUIET_MS, CLONE_RETRY, KEY_MISMATCH_QUIET_MS, SUPERSEDED_BOOTS_MAX, TAKEOVER_WINDOW_MS,
        TAKEOVERS_MAX,
    },
};

/// What was seen of one identity that should not be; most devices have none of it.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// When boards replaced each other lately, monotonic milliseconds.
    takeovers: VecDeque<u64>,
    /// Starts whose sessions were replaced by those of other starts, the latest last.
    superseded: VecDeque<BootId>,
    /// When a takeover or a refused one was last seen, while there is a suspicion.
    clone_ms: Option<u64>,
    /// Boards that were turned away since the suspicion began.
    refusals: u32,
    /// When a certificate with another key was last seen.
    mismatch_ms: Option<u64>,
}

impl Trouble {
    pub(super) fn suspects_clone(&self) -> bool {
        self.clone_ms.is_some()
    }

    pub(super) fn has_mismatch(&self) -> bool {
        self.mismatch_ms.is_some()
    }

    /// Whether there is nothing left to remember; what was quiet for long enough is forgotten.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        let quiet = |seen: &u64, span: u64| now_ms.saturating_sub(*seen) >= span;
        self.takeovers.retain(|seen| !quiet(seen, TAKEOVER_WINDOW_MS));
        if self.clone_ms.take_if(|seen| quiet(seen, CLONE_QUIET_MS)).is_some() {
            self.refusals = 0;
        }
        self.mismatch_ms.take_if(|seen| quiet(seen, KEY_MISMATCH_QUIET_MS));
        if self.takeovers.is_empty() && self.clone_ms.is_none() {
            self.superseded.clear();
        }
        self.takeovers.is_empty() && self.clone_ms.is_none() && self.mismatch_ms.is_none()
    }

    pub(super) fn takes_over(&mut self, now_ms: u64) {
        self.takeovers.push_back(now_ms);
        self.takeovers.retain(|seen| now_ms.saturating_sub(*seen) < TAKEOVER_WINDOW_MS);
        if self.takeovers.len() >= TAKEOVERS_MAX {
            self.takeovers.clear();
            self.clone_ms = Some(now_ms);
        }
    }

    pub(super) fn note_superseded(&mut self, boot: BootId) {
        self.superseded.retain(|known| *known != boot);
        self.superseded.push_back(boot);
        if self.superseded.len() > SUPERSEDED_BOOTS_MAX {
            self.superseded.pop_front();
        }
    }

    pub(super) fn refuse(&mut self, now_ms: u64) -> Refusal {
        let retry_after_ms = u32::try_from(CLONE_RETRY.pause_ms(self.refusals)).unwrap_or(u32::MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.clone_ms = Some(now_ms);
        Refusal::new(
            CloseReason::CloneSuspected,
            retry_after_ms,
            "another board with this identity is connected; give each board an identity of its own",
        )
    }

    /// What the status of an earlier life of this gateway shows, as if it were seen now.
    pub(super) fn adopted(now_ms: u64, clone: bool, mismatch: bool) -> Self {
        let seen = |shown: bool| shown.then_some(now_ms);
        Self { clone_ms: seen(clone), mismatch_ms: seen(mismatch), ..Self::default() }
    }

    /// Notes a certificate with another key; whether it is the first in a while.
    pub(super) fn note_mismatch(&mut self, now_ms: u64) -> bool {
        self.mismatch_ms.replace(now_ms).is_none()
    }

    /// The Device has another key now: what was seen says nothing about it.
    pub(super) fn forget_mismatch(&mut self) {
        self.mismatch_ms = None;
    }

    /// Whether a start was replaced by another one.
    pub(super) fn has_superseded(&self, boot: BootId) -> bool {
        self.superseded.contains(&boot)
    }
}
