//! Trouble with one identity: two boards that use it, and certificates with another key than the one pinned.
//!
//! A takeover is a Hello of another board while the session of this one stands. That it is another is known by what only the
//! board itself can know: a board that reported in a session has stored that session's epoch before, so a Hello with a lower
//! one, of another start, is not from it. Starts that were replaced by others and come back are another board's as well, since
//! a board never returns to an earlier start. Whoever only lost its connection, or starts again, takes over without a count.
//!
//! ```text
//! quiet ── 3 takeovers within 60 s ──> suspected: the session that stands stays, others are turned away, 15 s doubling to 1 h
//!   ^                                      |
//!   └── 2 h without takeover or refusal ───┘
//! ```

use std::collections::VecDeque;

use wasmbed_api::ReasonCode;
use wasmbed_protocol::{BootId, CloseReason};

use super::{
    Gateway,
    admission::Refusal,
    config::{
        CLONE_QUIET_MS, CLONE_RETRY, KEY_MISMATCH_QUIET_MS, SUPERSEDED_BOOTS_MAX, TAKEOVER_WINDOW_MS,
        TAKEOVERS_MAX,
    },
    connections::Greeting,
    device::{Live, Object, Record},
    events::About,
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, Regarding},
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
    fn expire(&mut self, now_ms: u64) -> bool {
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

    fn takes_over(&mut self, now_ms: u64) {
        self.takeovers.push_back(now_ms);
        self.takeovers.retain(|seen| now_ms.saturating_sub(*seen) < TAKEOVER_WINDOW_MS);
        if self.takeovers.len() >= TAKEOVERS_MAX {
            self.takeovers.clear();
            self.clone_ms = Some(now_ms);
        }
    }

    fn note_superseded(&mut self, boot: BootId) {
        self.superseded.retain(|known| *known != boot);
        self.superseded.push_back(boot);
        if self.superseded.len() > SUPERSEDED_BOOTS_MAX {
            self.superseded.pop_front();
        }
    }

    fn refuse(&mut self, now_ms: u64) -> Refusal {
        let retry_after_ms = u32::try_from(CLONE_RETRY.pause_ms(self.refusals)).unwrap_or(u32::MAX);
        self.refusals = self.refusals.saturating_add(1);
        self.clone_ms = Some(now_ms);
        Refusal {
            reason: CloseReason::CloneSuspected,
            shown: None,
            retry_after_ms,
            detail: "another board with this identity is connected; give each board an identity of its own",
        }
    }
}

/// Whether a Hello comes from another board than the session that it would replace.
fn is_other_board(live: &Live, greeting: &Greeting, trouble: Option<&Trouble>) -> bool {
    let (held, new) = (live.boot.id, greeting.boot.id);
    if held.is_some() && held == new {
        return false;
    }
    let returns = new.is_some_and(|new| trouble.is_some_and(|trouble| trouble.superseded.contains(&new)));
    returns || (live.applications.is_some() && greeting.last_epoch < live.epoch.0)
}

/// Whether a Hello comes from the board whose session here was replaced by one at another gateway, which that board does not
/// know of.
fn returns_from_another_gateway(object: &Object, live: &Live, greeting: &Greeting, gateway: &str) -> bool {
    let base = &object.base;
    let elsewhere = base.phase == wasmbed_api::DevicePhase::Connected
        && base.gateway.as_deref().is_some_and(|name| name != gateway)
        && base.epoch > live.epoch.0;
    let same = match (live.boot.id, greeting.boot.id) {
        (Some(held), Some(new)) => held == new,
        (None, None) => greeting.last_epoch == live.epoch.0,
        (Some(_), None) | (None, Some(_)) => false,
    };
    elsewhere
        && live.ended == Some(ReasonCode::Superseded)
        && same
        && live.applications.is_some()
        && greeting.last_epoch < base.epoch
}

impl Gateway {
    /// Decides about a Hello that would replace a session: refused once two boards are suspected behind one identity.
    pub(super) fn plan_takeover(
        &mut self,
        now: Now,
        key: &ObjectKey,
        greeting: &Greeting,
    ) -> Option<Refusal> {
        let record = self.devices.get_mut(key)?;
        let live = record.live.as_deref()?;
        let established = record.session.is_some() && live.connected && live.established;
        let other = if established {
            is_other_board(live, greeting, record.trouble.as_deref())
        } else {
            let object = record.object.as_ref()?;
            returns_from_another_gateway(object, live, greeting, &self.config.name)
        };
        let replaced =
            live.boot.id.filter(|held| established && greeting.boot.id.is_some_and(|new| new != *held));
        if !other {
            if let Some(boot) = replaced {
                record.trouble.get_or_insert_default().note_superseded(boot);
            }
            return None;
        }
        let trouble = record.trouble.get_or_insert_default();
        if trouble.suspects_clone() {
            return Some(trouble.refuse(now.ms));
        }
        if let Some(boot) = replaced {
            trouble.note_superseded(boot);
        }
        trouble.takes_over(now.ms);
        if trouble.suspects_clone() {
            self.tell(now, key, ReasonCode::CloneSuspected, About::Device);
        }
        None
    }

    /// Notes a certificate with another key than the Device's; the first one in a while is told of.
    pub(super) fn note_mismatch(&mut self, now: Now, key: &ObjectKey) {
        let Some(record) = self.devices.get_mut(key) else { return };
        let before = record.trouble.get_or_insert_default().mismatch_ms.replace(now.ms);
        if before.is_none() {
            self.tell(now, key, ReasonCode::KeyMismatch, About::Stranger);
        }
    }

    fn tell(&mut self, now: Now, key: &ObjectKey, reason: ReasonCode, about: About) {
        let Some(object) = self.devices.get(key).and_then(|record| record.object.as_ref()) else { return };
        let event = Event {
            regarding: Regarding::device(key.clone(), &object.uid),
            warning: true,
            reason,
            message: reason.sentence().to_owned(),
            unix_ms: now.unix_ms,
        };
        self.push_event_about(Box::new(event), about);
    }

    /// What an earlier life of this gateway wrote is taken over, so that it is cleared in its time, and another key makes the
    /// question of the old one void.
    pub(super) fn adopt_trouble(now: Now, record: &mut Record, before: Option<Option<&str>>, gateway: &str) {
        let Some(object) = record.object.as_ref() else { return };
        let own = object.base.gateway.as_deref().is_none_or(|name| name == gateway);
        let shown = |shown: Option<&super::device::Shown>| shown.is_some_and(|shown| shown.status) && own;
        let (clone, mismatch) = (shown(object.base.clone.as_ref()), shown(object.base.mismatch.as_ref()));
        let another_key = before.is_some_and(|before| before != object.public_key.as_deref());
        if (clone || mismatch) && record.trouble.is_none() && !another_key {
            let seen = |shown: bool| shown.then_some(now.ms);
            let trouble =
                Trouble { clone_ms: seen(clone), mismatch_ms: seen(mismatch), ..Trouble::default() };
            record.trouble = Some(Box::new(trouble));
        }
        if let Some(trouble) = record.trouble.as_deref_mut().filter(|_| another_key) {
            trouble.mismatch_ms = None;
        }
    }

    /// Forgets what was quiet for long enough.
    pub(super) fn sweep_trouble(&mut self, now: Now) {
        let troubled: Vec<_> = self
            .devices
            .values_mut()
            .filter_map(|record| {
                let quiet = record.trouble.as_deref_mut()?.expire(now.ms);
                if quiet {
                    record.trouble = None;
                }
                Some(std::sync::Arc::clone(&record.key))
            })
            .collect();
        self.changed.extend(troubled);
    }
}
