//! Trouble with one identity: two boards that use it, and certificates with another key than the one pinned.
//!
//! A takeover is a Hello of another board while the session of this one is established. That it is another is known by what only the
//! board itself can know: a board that reported in a session has stored that session's epoch before, so a Hello with a lower
//! one, of another start, is not from it. Starts that were replaced by others and come back are another board's as well, since
//! a board never returns to an earlier start. Whoever only lost its connection, or starts again, takes over without a count.
//!
//! ```text
//! quiet ── 3 takeovers within 60 s ──> suspected: the established session stays, others are rejected, 15 s doubling to 1 h
//!   ^                                      |
//!   └── 2 h without takeover or refusal ───┘
//! ```

use wasmbed_api::ReasonCode;

use super::{
    Gateway,
    admission::Refusal,
    connections::Greeting,
    device::{ObservedDevice, SessionView},
    events::About,
    trouble::Trouble,
};
use crate::{
    Now, ObjectKey,
    kubernetes::{Event, Regarding},
};

/// Whether a Hello comes from another board than the session that it would replace.
fn is_other_board(live: &SessionView, greeting: &Greeting, trouble: Option<&Trouble>) -> bool {
    let (held, new) = (live.boot().id(), greeting.boot().id());
    if held.is_some() && held == new {
        return false;
    }
    let returns = new.is_some_and(|new| trouble.is_some_and(|trouble| trouble.has_superseded(new)));
    returns || (live.applications().is_some() && greeting.last_epoch() < live.epoch().0)
}

/// Whether a Hello comes from the board whose session here was replaced by one at another gateway, which that board does not
/// know of.
fn returns_from_another_gateway(
    object: &ObservedDevice,
    live: &SessionView,
    greeting: &Greeting,
    gateway: &str,
) -> bool {
    let shown = object.status();
    let elsewhere = shown.phase() == wasmbed_api::DevicePhase::Connected
        && shown.is_by_another(gateway)
        && shown.epoch() > live.epoch().0;
    let same = match (live.boot().id(), greeting.boot().id()) {
        (Some(held), Some(new)) => held == new,
        (None, None) => greeting.last_epoch() == live.epoch().0,
        (Some(_), None) | (None, Some(_)) => false,
    };
    elsewhere
        && live.ended() == Some(ReasonCode::Superseded)
        && same
        && live.applications().is_some()
        && greeting.last_epoch() < shown.epoch()
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
        let live = record.live()?;
        let established = live.is_established();
        let other = if established {
            is_other_board(live, greeting, record.trouble())
        } else {
            let object = record.object()?;
            returns_from_another_gateway(object, live, greeting, &self.config.name)
        };
        let replaced = live
            .boot()
            .id()
            .filter(|held| established && greeting.boot().id().is_some_and(|new| new != *held));
        if !other {
            if let Some(boot) = replaced {
                record.note_trouble().note_superseded(boot);
            }
            return None;
        }
        let trouble = record.note_trouble();
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

    /// Notes a certificate with another key than the Device's; the first one in a while makes an Event.
    pub(super) fn note_mismatch(&mut self, now: Now, key: &ObjectKey) {
        let record = present!(self.devices.get_mut(key), "a key is compared with that of a known Device");
        if record.note_trouble().note_mismatch(now.ms) {
            self.tell(now, key, ReasonCode::KeyMismatch, About::Stranger);
        }
    }

    fn tell(&mut self, now: Now, key: &ObjectKey, reason: ReasonCode, about: About) {
        // An Event is about an object, and none was seen while the Kubernetes API is away.
        let Some(object) = self.devices.get(key).and_then(|record| record.object()) else { return };
        let event = Event {
            regarding: Regarding::device(key.clone(), object.uid()),
            warning: true,
            reason,
            message: reason.sentence().to_owned(),
            unix_ms: now.unix_ms,
        };
        self.push_event_about(Box::new(event), about);
    }

    /// Forgets what was quiet for long enough.
    pub(super) fn sweep_trouble(&mut self, now: Now) {
        let troubled: Vec<_> = self
            .devices
            .values_mut()
            .filter_map(|record| record.expire_trouble(now).then(|| std::sync::Arc::clone(record.key())))
            .collect();
        self.changed.extend(troubled);
    }
}
