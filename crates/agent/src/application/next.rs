//! The assignment that is being fetched.
//!
//! ```text
//!   spec missing -> module missing -> both held and durable ----> becomes current
//!          \______________/
//!         stuck (retried, or for good)
//! ```

use wasmbed_protocol::{ApplicationState, ApplicationUid, ReportReason, SpecHash};

use crate::{
    assignment::{Held, has_hash},
    backoff::{Backoff, PULL, ROOM},
    record::StoredNext,
    why::Why,
};

/// An assignment that is being fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Next {
    spec_hash: SpecHash,
    held: Option<Held>,
    why: Why,
    wait: Wait,
    /// Attempts in a row that failed.
    attempts: u32,
}

/// Whether a fetch goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It does.
    No,
    /// Not before this time.
    Until {
        at_ms: u64,
        /// Whether people are to see it as failed meanwhile.
        failed: bool,
    },
    /// Not for this assignment.
    ForGood,
}

impl Next {
    pub(super) fn new(spec_hash: SpecHash) -> Self {
        Self { spec_hash, held: None, why: Why::NONE, wait: Wait::No, attempts: 0 }
    }

    /// One whose spec is here.
    pub(super) fn with(held: Held) -> Self {
        Self { spec_hash: held.spec_hash(), held: Some(held), why: Why::NONE, wait: Wait::No, attempts: 0 }
    }

    /// From the state record. A spec that does not have its hash is pulled again.
    pub(super) fn restore(uid: ApplicationUid, stored: StoredNext) -> Self {
        let held = stored.spec.filter(|(spec, _)| has_hash(spec, stored.spec_hash)).and_then(
            |(spec, correlation_id)| Held::check(uid, stored.spec_hash, &spec, correlation_id).ok(),
        );
        Self { held, ..Self::new(stored.spec_hash) }
    }

    pub(super) fn store(&self) -> StoredNext {
        StoredNext {
            spec_hash: self.spec_hash,
            spec: self.held.as_ref().map(|held| (held.spec().to_vec(), held.correlation_id())),
        }
    }

    pub(super) fn spec_hash(&self) -> SpecHash {
        self.spec_hash
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    pub(super) fn why(&self) -> &Why {
        &self.why
    }

    /// Whether nothing holds it up.
    pub(super) fn is_going_on(&self) -> bool {
        self.wait == Wait::No
    }

    /// Whether its spec is still to come: it is not here, and was not refused.
    pub(super) fn awaits_spec(&self) -> bool {
        self.held.is_none() && self.wait != Wait::ForGood
    }

    /// Whether its module found no room on storage.
    pub(super) fn lacks_flash(&self) -> bool {
        self.wait != Wait::ForGood && self.why.reason() == ReportReason::OutOfFlash
    }

    /// Its spec came; the attempts before it count no more.
    pub(super) fn take_spec(&mut self, held: Held) {
        debug_assert!(self.awaits_spec() && held.spec_hash() == self.spec_hash, "the spec that it waits for");
        *self = Self::with(held);
    }

    /// Its spec came and is not for this firmware.
    pub(super) fn refuse(&mut self, why: Why) {
        self.why = why;
        self.wait = Wait::ForGood;
    }

    /// Its spec is not to be had now.
    pub(super) fn put_off_spec(&mut self, now_ms: u64) {
        self.put_off(PULL, false, now_ms);
    }

    /// Its module is not to be had now: true if that is news. `failed` says whether people are to see it as failed.
    pub(super) fn put_off_module(&mut self, why: &Why, failed: bool, now_ms: u64) -> bool {
        self.put_off(if why.reason() == ReportReason::OutOfFlash { ROOM } else { PULL }, failed, now_ms);
        let news = self.why != *why;
        self.why = why.clone();
        news
    }

    fn put_off(&mut self, pause: Backoff, failed: bool, now_ms: u64) {
        self.attempts = self.attempts.saturating_add(1);
        self.wait = Wait::Until { at_ms: now_ms.saturating_add(pause.delay_ms(self.attempts)), failed };
    }

    /// Others let go of storage: one that found no room goes on.
    pub(super) fn handle_room(&mut self) {
        if self.why.reason() == ReportReason::OutOfFlash && matches!(self.wait, Wait::Until { .. }) {
            self.wait = Wait::No;
        }
    }

    pub(super) fn timeout(&self) -> Option<u64> {
        match self.wait {
            Wait::Until { at_ms, .. } => Some(at_ms),
            Wait::No | Wait::ForGood => None,
        }
    }

    pub(super) fn wants_assignment(&self) -> bool {
        self.wait == Wait::No && self.held.is_none()
    }

    pub(super) fn wants_module(&self) -> Option<&Held> {
        self.held.as_ref().filter(|_| self.wait == Wait::No)
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) -> bool {
        match self.wait {
            Wait::Until { at_ms, failed } if at_ms <= now_ms => {
                self.wait = Wait::No;
                failed
            }
            Wait::Until { .. } | Wait::No | Wait::ForGood => false,
        }
    }

    pub(super) fn state(&self) -> ApplicationState {
        match self.wait {
            Wait::No | Wait::Until { failed: false, .. } => ApplicationState::Pulling,
            Wait::Until { failed: true, .. } | Wait::ForGood => ApplicationState::Failed,
        }
    }
}
