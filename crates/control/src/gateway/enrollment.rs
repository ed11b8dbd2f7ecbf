//! Who is let in: from a device's Hello to its Welcome.

use std::sync::Arc;

use wasmbed_api::{DeviceSpec, ReasonCode};
use wasmbed_protocol::{CloseReason, Epoch, Hello};

use super::{
    Gateway,
    admission::{self, Admission, Known, Refusal, plan_admission},
    config::{BOOT_COUNTER_MAX, CLAIM_WAIT_MS, COUNTER_SLACK, CREATIONS_MAX, HELLO_TIMEOUT_MS},
    connections::{Boot, Greeting, State},
    counters::{Counted, Known as KnownCounters, plan_counters},
    device::{DeviceEntry, ObservedDevice, SessionView, facts_to_resource},
    input::{Notice, SessionId},
    logs::Places,
    sessions::{PROTOCOL_ERROR, SUPERSEDED},
};
use crate::{Now, ObjectKey, intern::hash_of};

impl Gateway {
    pub(super) fn handle_hello(&mut self, now: Now, id: SessionId, hello: &Hello<'_>) {
        let boot = hello.boot_counter.map_or(0, |counter| counter.0);
        if boot > BOOT_COUNTER_MAX {
            self.end_with(now, id, PROTOCOL_ERROR, "boot counter is beyond 2^53".to_owned());
            return;
        }
        let greeting = Greeting {
            facts: self.facts.intern(facts_to_resource(hello)),
            last_epoch: hello.last_epoch.0,
            revision: hello.revision.0,
            boot: Boot { counter: hello.boot_counter, id: hello.boot_id },
        };
        self.admit(now, id, greeting);
    }

    /// Lets a device in that has said Hello, or turns it away.
    pub(super) fn admit(&mut self, now: Now, id: SessionId, greeting: Greeting) {
        let session = present!(self.connections.get(id), "who said Hello is a connection");
        let key = Arc::clone(session.device());
        let known = self.known(self.devices.get(&key).map(AsRef::as_ref));
        if known == Known::Missing && greeting.revision > 0 {
            // What it holds was a Device's that is gone: it lets go of that before it may begin anew. While the API fails the
            // watch may lag behind a Device that was created since.
            let refusal = if self.writer.failing() { admission::UNAVAILABLE } else { admission::DELETED };
            self.turn_away(now, id, &key, refusal);
            return;
        }
        match plan_admission(self.config.enrollment, known, session.public_key()) {
            Admission::Refuse(refusal) => {
                // The Device was created anew since: what this one holds was that of another, which is gone. Who is told of a
                // revocation stops as well.
                let inherits = greeting.revision > 0
                    && refusal.reason != CloseReason::Revoked
                    && !self.writer.failing()
                    && self.is_unused(&key);
                let told = if inherits { admission::DELETED } else { refusal };
                self.turn_away_with(now, id, &key, refusal, told);
            }
            Admission::Enroll { waits } => self.enroll(now, id, &key, waits, greeting),
            Admission::Admit => {
                let replaces = self.devices.get(&key).is_some_and(|record| record.session.is_some());
                if self.connections.admitted() >= self.config.sessions_max && !replaces {
                    self.turn_away(now, id, &key, admission::OVERLOADED);
                } else if let Some(refusal) = self.plan_takeover(now, &key, &greeting) {
                    self.turn_away(now, id, &key, refusal);
                } else {
                    self.begin(now, id, &key, &greeting);
                }
            }
        }
    }

    /// Whether no session of this Device was ever seen.
    fn is_unused(&self, key: &ObjectKey) -> bool {
        self.devices.get(key).is_some_and(|record| {
            let unused = |object: &ObservedDevice| object.base.gateway.is_none() && object.base.epoch == 0;
            record.object.as_ref().is_some_and(unused)
                && record.live.is_none()
                && record.admitted_key.is_none()
        })
    }

    fn turn_away(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, refusal: Refusal) {
        self.turn_away_with(now, id, key, refusal, refusal);
    }

    /// Rejects a device with another reason than its Device shows.
    fn turn_away_with(
        &mut self,
        now: Now,
        id: SessionId,
        key: &Arc<ObjectKey>,
        refusal: Refusal,
        told: Refusal,
    ) {
        if let Some(record) = self.devices.get_mut(key)
            && refusal.shown.is_some()
        {
            record.rejected = refusal.shown;
        }
        if refusal.reason == CloseReason::KeyMismatch {
            self.note_mismatch(now, key);
        }
        self.end(now, id, told);
        self.changed.insert(Arc::clone(key));
    }

    fn enroll(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, waits: bool, greeting: Greeting) {
        let waiting = self.devices.get(key).is_some_and(|record| record.write.create.is_some());
        if !waiting && self.creating >= CREATIONS_MAX {
            self.turn_away(now, id, key, admission::OVERLOADED);
            return;
        }
        let public_key = self.connections.get(id).map(|session| session.public_key().to_string());
        let record = self.record(now, key);
        let earlier = if waits { record.awaiting.replace(id) } else { None };
        if !waiting && record.write.in_flight.is_none() {
            record.rejected = (!waits).then_some(ReasonCode::PendingApproval);
            record.write.create = Some(Box::new(DeviceSpec {
                device_type: greeting.facts.board.clone(),
                public_key,
                approved: false,
                ..DeviceSpec::default()
            }));
            self.creating += 1;
        }
        if let Some(earlier) = earlier.filter(|earlier| *earlier != id) {
            self.end(now, earlier, SUPERSEDED);
        }
        if waits {
            self.connections.set_state(id, State::AwaitDevice(Box::new(greeting)));
            self.connections.set_deadline(id, now.ms + HELLO_TIMEOUT_MS);
        } else {
            self.end(now, id, admission::PENDING);
        }
        self.changed.insert(Arc::clone(key));
    }

    fn begin(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, greeting: &Greeting) {
        if let Some(older) = self.devices.get(key).and_then(|record| record.session) {
            self.end(now, older, SUPERSEDED);
        }
        let api_away = !self.synced || self.writer.failing();
        let (Some(record), Some(session)) = (self.devices.get_mut(key), self.connections.get(id)) else {
            debug_assert!(false, "{key} was admitted without a record or a connection");
            return;
        };
        let written = record.object.as_ref().map_or((0, 0), |object| object.base.counters());
        let earlier = record.live.as_ref().map_or(0, |live| live.epoch.0);
        // A start without a number, or with one that begins anew, belongs behind the starts before it: epochs order those.
        let start = record.live.as_ref().and_then(|live| live.start);
        let start = start.max(greeting.boot.counter.map(|counter| counter.0));
        let known = KnownCounters {
            epoch: written.0.max(earlier),
            revision: written.1.max(record.revision_seen),
            base: record.revision_base,
        };
        let Counted { epoch, told, base, revision, complaint } =
            plan_counters(known, greeting.last_epoch, greeting.revision);
        record.awaiting = None;
        record.session = Some(id);
        record.rejected = None;
        record.returns_by = None;
        record.revision_base = base;
        // A device that was let go of forgets its revision: an older set may not take its place.
        record.revision_seen = record.revision_seen.max(revision).max(written.1);
        record.live = Some(Box::new(SessionView {
            boot: greeting.boot,
            start,
            logs: Places::default(),
            epoch: Epoch(epoch),
            acknowledged_epoch: Epoch(told),
            revision_limit: record.revision_seen.saturating_add(COUNTER_SLACK),
            complaint: complaint.as_deref().map(Box::from),
            connected: true,
            established: false,
            ended: None,
            since: now,
            last_heard: now,
            facts_hash: hash_of(&*greeting.facts),
            facts: Some(Arc::clone(&greeting.facts)),
            revision_reported: None,
            applications: None,
            applications_hash: 0,
        }));
        let admitted = record.admitted_key.as_deref() == Some(&**session.public_key());
        let same_object =
            record.object.as_ref().is_none_or(|object| Some(&object.uid) == record.stored_uid.as_ref());
        let store = !admitted || !same_object;
        if store {
            record.admitted_key = Some(Arc::clone(session.public_key()));
        }
        if self.connections.admit(id) {
            record.allowance.connections.push(id);
        }
        if store {
            self.store_device(key);
        }
        if let Some(detail) = complaint {
            self.notice(Notice::NotBelieved { device: Arc::clone(key), detail });
        }
        if api_away {
            self.welcome(now, id, false);
        } else {
            self.connections.set_deadline(id, now.ms + CLAIM_WAIT_MS);
        }
        self.changed.insert(Arc::clone(key));
    }

    /// Establishes a session whose epoch is in Device.status, or could not be written there in time.
    pub(super) fn welcome(&mut self, now: Now, id: SessionId, synced: bool) {
        let session = present!(self.connections.get_mut(id), "a device's session is a connection");
        if *session.state() != State::AwaitClaim {
            return;
        }
        let Some(record) = self.devices.get_mut(session.device()) else {
            debug_assert!(false, "{} awaits its claim without a record", session.device());
            return;
        };
        let desired_known = record.desired_known();
        let Some(live) = record.live.as_deref_mut() else {
            debug_assert!(false, "{} awaits its claim without an epoch", session.device());
            return;
        };
        live.established = true;
        let epoch = live.epoch;
        session.pending.welcome(desired_known);
        let (device, heard_ms) = (Arc::clone(session.device()), session.heard_ms);
        self.connections.set_state(id, State::Established);
        let deadline_ms = heard_ms.max(now.ms) + u64::from(self.config.heartbeat_timeout_ms);
        self.connections.set_deadline(id, deadline_ms);
        self.connections.wake(id);
        self.counters.sessions_begun += 1;
        self.publish(now, &device);
        self.notice(Notice::SessionEstablished { device, epoch, synced });
    }

    /// How a device is known, for admission.
    pub(super) fn known<'a>(&self, record: Option<&'a DeviceEntry>) -> Known<'a> {
        match record {
            Some(DeviceEntry { object: Some(object), .. }) => Known::Object {
                approved: object.approved,
                revoked: object.revoked,
                public_key: object.public_key.as_deref(),
            },
            _ if self.synced => Known::Missing,
            Some(record) if record.stored_uid.is_some() => {
                Known::Stored { admitted_key: record.admitted_key.as_deref() }
            }
            _ => Known::Unsynced,
        }
    }

    /// A session whose Device was being created: the Device is here, or another one is.
    pub(super) fn readmit(&mut self, now: Now, id: super::SessionId) {
        if let Some(State::AwaitDevice(greeting)) = self.connections.set_state(id, State::AwaitHello) {
            self.admit(now, id, *greeting);
        }
    }
}
