//! Who is let in: from a device's Hello to its Welcome.

use std::sync::Arc;

use wasmbed_api::DeviceSpec;
use wasmbed_protocol::{CloseReason, Hello};

use super::{
    Gateway,
    admission::{self, Admission, Known, Refusal, plan_admission},
    config::{BOOT_COUNTER_MAX, CLAIM_WAIT_MS, CREATIONS_MAX, HELLO_TIMEOUT_MS},
    connections::{Greeting, State},
    device::{Begun, DeviceEntry, facts_to_resource},
    input::{Notice, SessionId},
    sessions::{PROTOCOL_ERROR, SUPERSEDED},
};
use crate::{Now, ObjectKey};

impl Gateway {
    pub(super) fn handle_hello(&mut self, now: Now, id: SessionId, hello: &Hello<'_>) {
        let boot = hello.boot_counter.map_or(0, |counter| counter.0);
        if boot > BOOT_COUNTER_MAX {
            self.end_with(now, id, PROTOCOL_ERROR, "boot counter is beyond 2^53".to_owned());
            return;
        }
        let facts = self.facts.intern(facts_to_resource(hello));
        self.admit(now, id, Greeting::new(hello, facts));
    }

    /// Lets a device in that has said Hello, or turns it away.
    pub(super) fn admit(&mut self, now: Now, id: SessionId, greeting: Greeting) {
        let session = present!(self.connections.get(id), "who said Hello is a connection");
        let key = Arc::clone(session.device());
        let known = self.known(self.devices.get(&key).map(AsRef::as_ref));
        if known == Known::Missing && greeting.revision() > 0 {
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
                let inherits = greeting.revision() > 0
                    && !matches!(refusal.reason(), CloseReason::Revoked | CloseReason::Decommissioned)
                    && !self.writer.failing()
                    && self.is_unused(&key);
                let told = if inherits { admission::DELETED } else { refusal };
                self.turn_away_with(now, id, &key, refusal, told);
            }
            Admission::Enroll { waits } => self.enroll(now, id, &key, waits, greeting),
            Admission::Admit => {
                let replaces = self.devices.get(&key).is_some_and(|record| record.session().is_some());
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
        self.devices.get(key).is_some_and(|record| record.is_unused())
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
        if let (Some(record), Some(shown)) = (self.devices.get_mut(key), refusal.shown()) {
            record.turned_away(shown);
        }
        if refusal.reason() == CloseReason::KeyMismatch {
            self.note_mismatch(now, key);
        }
        self.end(now, id, told);
        self.changed.insert(Arc::clone(key));
    }

    fn enroll(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, waits: bool, greeting: Greeting) {
        let waiting = self.devices.get(key).is_some_and(|record| record.writes().is_creating());
        if !waiting && self.writer.creating() >= CREATIONS_MAX {
            self.turn_away(now, id, key, admission::OVERLOADED);
            return;
        }
        let public_key = self.connections.get(id).map(|session| session.public_key().to_string());
        self.record(now, key);
        let record = present!(self.devices.get_mut(key), "the record was just made");
        let earlier = if waits { record.await_device(id) } else { None };
        if record.writes().is_quiet() {
            record.enrolls(waits);
            let spec = DeviceSpec {
                device_type: greeting.facts().board.clone(),
                public_key,
                approved: false,
                ..DeviceSpec::default()
            };
            self.writer.create(record.writes_mut(), spec);
        }
        if let Some(earlier) = earlier {
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
        if let Some(older) = self.devices.get(key).and_then(|record| record.session()) {
            self.end(now, older, SUPERSEDED);
        }
        let api_away = !self.synced || self.writer.failing();
        let (Some(record), Some(session)) = (self.devices.get_mut(key), self.connections.get(id)) else {
            debug_assert!(false, "{key} was admitted without a record or a connection");
            return;
        };
        let Begun { complaint, to_disk } = record.begin(now, id, greeting, session.public_key());
        if self.connections.admit(id) {
            record.open(id);
        }
        if to_disk {
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
        let epoch = present!(record.establish(), "who awaits a claim has an epoch");
        session.pending_mut().welcome(record.delivery().is_known());
        if record.takes_order() {
            session.pending_mut().offer_order();
        }
        let (device, heard_ms) = (Arc::clone(session.device()), session.heard_ms());
        self.connections.set_state(id, State::Established);
        let deadline_ms = heard_ms.max(now.ms) + u64::from(self.config.heartbeat_timeout_ms);
        self.connections.set_deadline(id, deadline_ms);
        self.connections.wake(id);
        self.counters.sessions_begun += 1;
        self.offer_settings(&device, &[]);
        self.publish(now, &device);
        self.notice(Notice::SessionEstablished { device, epoch, synced });
    }

    /// How a device is known, for admission.
    pub(super) fn known<'a>(&self, record: Option<&'a DeviceEntry>) -> Known<'a> {
        match record {
            Some(record) => record.known(self.synced),
            None if self.synced => Known::Missing,
            None => Known::Unsynced,
        }
    }

    /// A session whose Device was being created: the Device is here, or another one is.
    pub(super) fn readmit(&mut self, now: Now, id: super::SessionId) {
        if let Some(State::AwaitDevice(greeting)) = self.connections.set_state(id, State::AwaitHello) {
            self.admit(now, id, *greeting);
        }
    }
}
