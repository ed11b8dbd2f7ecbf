//! Connections: who is let in, what devices say, and how sessions end.

use std::sync::Arc;

use wasmbed_api::{DeviceSpec, ReasonCode};
use wasmbed_protocol::{
    AssignmentGet, CloseReason, DeviceMessage, Epoch, ErrorCode, Heartbeat, Hello, Log, ModuleGet, Reported,
    decode_device,
    limits::{DETAIL_BYTES_MAX, LOG_TEXT_BYTES_MAX},
    tag,
};

use super::{
    Gateway,
    admission::{self, Admission, Known, Refusal, plan_admission},
    allowance::frame_cost,
    config::{
        BOOT_COUNTER_MAX, CLAIM_WAIT_MS, CONNECTIONS_EXTRA, CONNECTIONS_PER_DEVICE,
        CONNECTIONS_PER_DEVICE_MAX, COUNTER_SLACK, CREATIONS_MAX, HELLO_TIMEOUT_MS, RETRY_SHUTDOWN_SPREAD_MS,
        RETRY_SOON_MS, RETRY_SPREAD_MAX_MS, STRANGERS_FRAMES, STRANGERS_MAX, UNUSABLE_MESSAGES_MAX,
    },
    counters::{Counted, Known as KnownCounters, plan_counters},
    device::{Application, Live, Object, Record, applications_hash, facts_to_resource, reason_code, shared},
    events::{About, Noted, QueuedEvent},
    input::{Identity, LeftOut, Notice, SessionId, StoreOperation},
    logs::{Line, Origin, Places},
    session::{Boot, Closing, Greeting, Owed, Range, Session, State},
};
use crate::{
    Now, ObjectKey, harmless,
    intern::hash_of,
    kubernetes::{Event, Occurrence, Regarding},
};

impl Gateway {
    /// A device's handshake is done. False if there is no room: the connection is to be closed.
    #[must_use]
    pub fn handle_accepted(&mut self, now: Now, id: SessionId, identity: &Identity) -> bool {
        self.clock_ms = self.clock_ms.max(now.ms);
        let record = self.devices.get(&identity.device).map(AsRef::as_ref);
        let plan = plan_admission(self.config.enrollment, self.known(record), &identity.public_key);
        let stranger = plan != Admission::Admit;
        let (open, max, own) = if stranger {
            (self.strangers_open, STRANGERS_MAX, self.strangers.get(&identity.device))
        } else {
            let open = self.sessions.len().saturating_sub(self.strangers_open);
            let own = record.map(|record| &record.allowance.connections);
            (open, self.config.sessions_max + CONNECTIONS_EXTRA, own)
        };
        let own = own.map_or(&[][..], Vec::as_slice);
        if open >= max || own.len() >= CONNECTIONS_PER_DEVICE_MAX || self.sessions.contains_key(&id) {
            return false;
        }
        let standing = record.and_then(|record| record.session);
        let gives_way = own.iter().copied().filter(|_| own.len() >= CONNECTIONS_PER_DEVICE).find(|own| {
            Some(*own) != standing && self.sessions.get(own).is_some_and(|own| own.state != State::Closing)
        });
        if let Some(oldest) = gives_way {
            self.end(now, oldest, SUPERSEDED);
        }
        let (device, public_key) = match self.devices.get(&identity.device) {
            Some(record) => {
                let object = record.object.as_ref();
                let held =
                    [object.and_then(|object| object.public_key.as_ref()), record.admitted_key.as_ref()];
                (Arc::clone(&record.key), shared(&identity.public_key, held))
            }
            None => (Arc::new(identity.device.clone()), identity.public_key.as_str().into()),
        };
        let mut session = Session::new(now, Arc::clone(&device), public_key);
        session.stranger = stranger;
        self.sessions.insert(id, Box::new(session));
        self.take_place(id, &device, stranger);
        self.set_deadline(id, now.ms + HELLO_TIMEOUT_MS);
        if self.shutting_down {
            self.end(now, id, admission::SHUTTING_DOWN);
        } else if self.kept_from.is_some() {
            self.end(now, id, admission::NOT_HOLDER);
        }
        true
    }

    /// The body of a frame arrived.
    pub fn handle_frame(&mut self, now: Now, id: SessionId, body: &[u8]) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.state == State::Closing {
            return;
        }
        session.heard_ms = now.ms;
        self.clock_ms = self.clock_ms.max(now.ms);
        if let Some(live) = self.devices.get_mut(&session.device).and_then(|record| {
            let own = record.session == Some(id);
            record.live.as_deref_mut().filter(|_| own)
        }) {
            live.last_heard = now;
        }
        self.count_frame(now, id, body.len());
        match decode_device(body) {
            Ok(message) => self.handle_message(now, id, message),
            Err(error) if error.is_newer_version() => {
                if error.tag != Some(tag::ERROR) {
                    self.unusable(now, id, error.code(), error.tag, error.to_string());
                }
            }
            Err(error) => self.end_with(now, id, PROTOCOL_ERROR, error.to_string()),
        }
    }

    /// What arrived can't be split into frames.
    pub fn handle_broken_frame(&mut self, now: Now, id: SessionId, detail: &str) {
        self.end_with(now, id, PROTOCOL_ERROR, detail.to_owned());
    }

    /// The connection is gone.
    pub fn handle_closed(&mut self, now: Now, id: SessionId, detail: &str) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.clock_ms = self.clock_ms.max(now.ms);
        self.give_place(id, &session.device, session.stranger);
        self.timers.remove(&(session.deadline_ms, id));
        self.wakes.remove(&id);
        if session.state != State::Closing {
            let epoch = self.detach(now, &session.device, id, ReasonCode::SessionEnded);
            let device = session.device;
            let ended = Notice::Ended { device, epoch, reason: None, detail: detail.to_owned() };
            self.notice_of(session.stranger, ended);
        }
    }

    fn take_place(&mut self, id: SessionId, device: &Arc<ObjectKey>, stranger: bool) {
        if stranger {
            self.strangers.entry(Arc::clone(device)).or_default().push(id);
            self.strangers_open += 1;
        } else if let Some(record) = self.devices.get_mut(device) {
            record.allowance.connections.push(id);
        }
    }

    fn give_place(&mut self, id: SessionId, device: &Arc<ObjectKey>, stranger: bool) {
        if !stranger {
            if let Some(record) = self.devices.get_mut(device) {
                record.allowance.connections.retain(|open| *open != id);
            }
        } else if let Some(open) = self.strangers.get_mut(device) {
            open.retain(|open| *open != id);
            if open.is_empty() {
                self.strangers.remove(device);
            }
            self.strangers_open = self.strangers_open.saturating_sub(1);
        }
    }

    /// Counts a frame against the share of whoever sent it.
    fn count_frame(&mut self, now: Now, id: SessionId, bytes: usize) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.stranger {
            session.frames.refill(now.ms, STRANGERS_FRAMES);
            session.frames.spend(frame_cost(bytes));
        } else if let Some(record) = self.devices.get_mut(&session.device)
            && record.allowance.heard_frame(now, bytes)
        {
            self.counters.devices_slowed += 1;
            let device = Arc::clone(&session.device);
            self.notice(Notice::Slowed { device });
        }
    }

    /// For how long nothing is to be read from a session.
    pub(super) fn read_in_ms(&self, now: Now, session: &Session) -> u64 {
        let at = if session.stranger {
            session.frames.available_at_ms(STRANGERS_FRAMES, 1)
        } else {
            self.devices.get(&session.device).map_or(0, |record| record.allowance.read_at_ms())
        };
        at.saturating_sub(now.ms)
    }

    fn handle_message(&mut self, now: Now, id: SessionId, message: DeviceMessage<'_>) {
        let Some(session) = self.sessions.get(&id) else { return };
        let device = Arc::clone(&session.device);
        let (standing, stranger) = (session.state == State::Standing, session.stranger);
        match message {
            DeviceMessage::Hello(hello) if session.state == State::AwaitHello => {
                self.handle_hello(now, id, &hello)
            }
            DeviceMessage::Hello(_) => {
                self.unusable(now, id, ErrorCode::Unexpected, Some(tag::HELLO), "a second Hello".to_owned());
            }
            DeviceMessage::Error(error) => {
                let said = harmless(error.detail, DETAIL_BYTES_MAX);
                let detail = format!("{} {:?}: {said}", error.code.name(), error.tag);
                self.notice_of(stranger, Notice::DeviceError { device, detail });
            }
            _ if session.state == State::AwaitHello => {
                self.end_with(now, id, PROTOCOL_ERROR, "the first message is not Hello".to_owned());
            }
            _ if !standing => {
                self.unusable(now, id, ErrorCode::Unexpected, None, "a message before Welcome".to_owned());
            }
            DeviceMessage::Heartbeat(heartbeat) => self.handle_heartbeat(now, id, &device, heartbeat),
            DeviceMessage::Reported(reported) => self.handle_reported(now, &device, &reported),
            DeviceMessage::AssignmentGet(AssignmentGet { spec_hash }) => {
                if self.sessions.get_mut(&id).is_some_and(|session| session.owe_assignment(spec_hash)) {
                    self.wakes.insert(id);
                } else {
                    let detail = "too many AssignmentGets at once".to_owned();
                    self.unusable(now, id, ErrorCode::TooLarge, Some(tag::ASSIGNMENT_GET), detail);
                }
            }
            DeviceMessage::ModuleGet(get) => self.handle_module_get(now, id, &device, get),
            DeviceMessage::Log(log) => self.handle_log(now, &device, &log),
        }
    }

    fn handle_hello(&mut self, now: Now, id: SessionId, hello: &Hello<'_>) {
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
        let Some(session) = self.sessions.get(&id) else { return };
        let key = Arc::clone(&session.device);
        let known = self.known(self.devices.get(&key).map(AsRef::as_ref));
        if known == Known::Missing && greeting.revision > 0 {
            // What it holds was a Device's that is gone: it lets go of that before it may begin anew. While the API fails the
            // watch may lag behind a Device that was created since.
            let refusal = if self.writer.failing() { admission::UNAVAILABLE } else { admission::DELETED };
            self.turn_away(now, id, &key, refusal);
            return;
        }
        match plan_admission(self.config.enrollment, known, &session.public_key) {
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
                if self.admitted >= self.config.sessions_max && !replaces {
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
            let unused = |object: &Object| object.base.gateway.is_none() && object.base.epoch == 0;
            record.object.as_ref().is_some_and(unused)
                && record.live.is_none()
                && record.admitted_key.is_none()
        })
    }

    fn turn_away(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, refusal: Refusal) {
        self.turn_away_with(now, id, key, refusal, refusal);
    }

    /// Turns a device away that is told another reason than its Device shows.
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
        self.schedule(now, key);
    }

    fn enroll(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, waits: bool, greeting: Greeting) {
        let waiting = self.devices.get(key).is_some_and(|record| record.write.create.is_some());
        if !waiting && self.creating >= CREATIONS_MAX {
            self.turn_away(now, id, key, admission::OVERLOADED);
            return;
        }
        let public_key = self.sessions.get(&id).map(|session| session.public_key.to_string());
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
            if let Some(session) = self.sessions.get_mut(&id) {
                session.state = State::AwaitDevice(Box::new(greeting));
            }
            self.set_deadline(id, now.ms + HELLO_TIMEOUT_MS);
        } else {
            self.end(now, id, admission::PENDING);
        }
        self.schedule(now, key);
    }

    fn begin(&mut self, now: Now, id: SessionId, key: &Arc<ObjectKey>, greeting: &Greeting) {
        if let Some(older) = self.devices.get(key).and_then(|record| record.session) {
            self.end(now, older, SUPERSEDED);
        }
        let api_away = !self.synced || self.writer.failing();
        let (Some(record), Some(session)) = (self.devices.get_mut(key), self.sessions.get_mut(&id)) else {
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
        record.live = Some(Box::new(Live {
            boot: greeting.boot,
            start,
            logs: Places::default(),
            epoch: Epoch(epoch),
            epoch_told: Epoch(told),
            revision_limit: record.revision_seen.saturating_add(COUNTER_SLACK),
            complaint: complaint.as_deref().map(Box::from),
            connected: true,
            standing: false,
            ended: None,
            since: now,
            last_heard: now,
            facts_hash: hash_of(&*greeting.facts),
            facts: Some(Arc::clone(&greeting.facts)),
            revision_reported: None,
            applications: None,
            applications_hash: 0,
        }));
        session.state = State::AwaitClaim;
        let stranger = std::mem::replace(&mut session.stranger, false);
        self.admitted += 1;
        let admitted = record.admitted_key.as_deref() == Some(&*session.public_key);
        let same_object =
            record.object.as_ref().is_none_or(|object| Some(&object.uid) == record.stored_uid.as_ref());
        if stranger {
            record.allowance.connections.push(id);
        }
        if !admitted || !same_object {
            record.admitted_key = Some(Arc::clone(&session.public_key));
            self.store_device(key);
        }
        if stranger {
            self.give_place(id, key, true);
        }
        if let Some(detail) = complaint {
            self.notice(Notice::NotBelieved { device: Arc::clone(key), detail });
        }
        if api_away {
            self.welcome(now, id, false);
        } else {
            self.set_deadline(id, now.ms + CLAIM_WAIT_MS);
        }
        self.schedule(now, key);
    }

    /// Lets a session stand whose epoch is in Device.status, or could not be brought there in time.
    pub(super) fn welcome(&mut self, now: Now, id: SessionId, synced: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.state != State::AwaitClaim {
            return;
        }
        let Some(record) = self.devices.get_mut(&session.device) else { return };
        let Some(live) = record.live.as_deref_mut() else { return };
        session.state = State::Standing;
        live.standing = true;
        let epoch = live.epoch;
        session.owed.welcome = true;
        session.owed.desired = record.desired_known();
        let (device, heard_ms) = (Arc::clone(&session.device), session.heard_ms);
        self.set_deadline(id, heard_ms.max(now.ms) + u64::from(self.config.heartbeat_timeout_ms));
        self.wakes.insert(id);
        self.counters.sessions_begun += 1;
        self.publish(now, &device);
        self.notice(Notice::Began { device, epoch, synced });
    }

    fn handle_heartbeat(&mut self, now: Now, id: SessionId, device: &Arc<ObjectKey>, heartbeat: Heartbeat) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.owed.heartbeat_ack = Some(heartbeat.sequence);
            self.wakes.insert(id);
            self.counters.heartbeats += 1;
            self.schedule(now, device);
        }
    }

    fn handle_reported(&mut self, now: Now, device: &Arc<ObjectKey>, reported: &Reported<'_>) {
        let Some(record) = self.devices.get_mut(device) else { return };
        let Some(live) = record.live.as_deref_mut() else { return };
        let limit = live.revision_limit.max(record.revision_seen);
        let counted = reported.revision.0.checked_sub(record.revision_base);
        let counted = counted.filter(|revision| *revision <= limit);
        let mut told = Vec::new();
        let mut events = Vec::new();
        let mut applications: Vec<Application> = Vec::with_capacity(reported.applications.len());
        for report in reported.applications.iter() {
            let earlier = live.applications.iter().flatten().find(|earlier| earlier.uid == report.uid);
            let name = record.set.as_ref().and_then(|set| set.application(&report.uid).cloned());
            let name = name.or_else(|| earlier.and_then(|earlier| earlier.name.clone()));
            let mut application = Application::new(&report, name);
            let same = earlier.filter(|earlier| earlier.spec_hash == report.spec_hash);
            application.failure_told = same.and_then(|earlier| earlier.failure_told);
            if same.is_none_or(|same| (same.state, same.reason) != (report.state, report.reason)) {
                told.push(Notice::Reported {
                    device: Arc::clone(device),
                    application: display_name(&application),
                    state: report.state.name(),
                    reason: report.reason.name(),
                    correlation_id: report.correlation_id,
                });
            }
            if application.failed() && application.failure_told != Some(report.reason) {
                application.failure_told = Some(report.reason);
                let named = application.name.is_some().then_some(report.uid);
                events.extend(
                    record
                        .object
                        .as_ref()
                        .map(|object| (named, failure(now, &application, device, &object.uid))),
                );
            }
            applications.push(application);
        }
        let hash = applications_hash(applications.iter().map(Application::to_resource));
        record.revision_seen = record.revision_seen.max(counted.unwrap_or(0));
        let revision = counted.or(Some(0));
        let changed = live.applications.is_none()
            || live.applications_hash != hash
            || live.revision_reported != revision;
        live.applications = Some(applications);
        live.applications_hash = hash;
        live.revision_reported = revision;
        if counted.is_none() && live.complaint.is_none() {
            let detail = format!(
                "the device reports revision {}, the last one here is {}",
                reported.revision.0,
                record.revision_base.saturating_add(record.revision_seen)
            );
            live.complaint = Some(detail.as_str().into());
            told.push(Notice::NotBelieved { device: Arc::clone(device), detail });
        }
        if changed {
            self.publish(now, device);
        }
        told.into_iter().for_each(|notice| self.notice(notice));
        for (named, event) in events {
            self.push_event_about(Box::new(event), About::Application(named));
        }
        self.schedule(now, device);
    }

    fn handle_module_get(&mut self, now: Now, id: SessionId, device: &Arc<ObjectKey>, get: ModuleGet) {
        let set = self.devices.get(device).and_then(|record| record.set.as_ref());
        // A device gets the modules of its own set only.
        let bytes =
            set.and_then(|set| set.module(&get.digest)).map(|assignment| assignment.body.module_bytes);
        let Some(bytes) = bytes.filter(|_| self.modules.contains(&get.digest)) else {
            self.refuse_module(id, get.digest);
            return;
        };
        if get.offset >= bytes {
            let detail = format!("offset {} is not within the module's {bytes} bytes", get.offset);
            self.unusable(now, id, ErrorCode::Unexpected, Some(tag::MODULE_GET), detail);
            return;
        }
        let end = get.offset.saturating_add(u32::from(get.length)).min(bytes);
        if let Some(session) = self.sessions.get_mut(&id) {
            // One range is outstanding: a device that asks again has given up on the one before.
            session.owed.range = Some(Box::new(Range { digest: get.digest, next: get.offset, end }));
            self.modules.touch(now.ms, &get.digest);
            if self.modules.want(&get.digest, id) {
                self.store.push_back(StoreOperation::LoadModule { digest: get.digest });
            }
            self.wakes.insert(id);
        }
    }

    pub(super) fn refuse_module(&mut self, id: SessionId, digest: wasmbed_protocol::ModuleDigest) {
        if let Some(session) = self.sessions.get_mut(&id).filter(|session| session.state == State::Standing) {
            session.owed.range = None;
            session.owed.module_gone = Some(Box::new(digest));
            self.wakes.insert(id);
        }
    }

    fn handle_log(&mut self, now: Now, device: &Arc<ObjectKey>, log: &Log<'_>) {
        let Some(record) = self.devices.get_mut(device) else { return };
        let Some(live) = record.live.as_deref_mut() else { return };
        if !record.allowance.allow_log(now, log.text.len()) {
            live.logs.skip(log.uid, log.sequence.0, log.lines_lost);
            self.counters.log_lines_dropped += 1;
            return;
        }
        let name = record.set.as_ref().and_then(|set| set.application(&log.uid).cloned()).or_else(|| {
            let applications = live.applications.as_ref()?;
            applications.iter().find(|application| application.uid == log.uid)?.name.clone()
        });
        let origin = name.map_or(Origin::Unknown(log.uid), Origin::Application);
        let line = Line {
            boot: live.start,
            epoch: live.epoch.0,
            sequence: log.sequence.0,
            lines_lost: live.logs.take(log.uid, log.sequence.0, log.lines_lost),
            // Some programs end their lines with both characters.
            text: &harmless(log.text.trim_end_matches('\r'), LOG_TEXT_BYTES_MAX),
        };
        self.logs.push(now, origin, device, line);
    }

    /// A message that could not be used. The session goes on unless there are many.
    fn unusable(&mut self, now: Now, id: SessionId, code: ErrorCode, tag: Option<u32>, detail: String) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.unusable += 1;
        if session.unusable > UNUSABLE_MESSAGES_MAX {
            self.end_with(now, id, PROTOCOL_ERROR, format!("too many messages that can't be used; {detail}"));
            return;
        }
        let (device, stranger) = (Arc::clone(&session.device), session.stranger);
        session.owed.error = Some(Box::new((code, tag, shorten(detail.clone()))));
        self.wakes.insert(id);
        self.notice_of(stranger, Notice::Unusable { device, detail });
    }

    /// Ends a session with its reason, as soon as the device has taken what it is told.
    pub(super) fn end(&mut self, now: Now, id: SessionId, refusal: Refusal) {
        self.end_with(now, id, refusal, refusal.detail.to_owned());
    }

    fn end_with(&mut self, now: Now, id: SessionId, refusal: Refusal, detail: String) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.state == State::Closing {
            return;
        }
        let reject = session.state != State::Standing || session.owed.welcome;
        let spread = match refusal.reason {
            // A multiplier that scatters neighbouring numbers (Knuth, The Art of Computer Programming, 6.4).
            CloseReason::ShuttingDown => {
                (id.0.wrapping_mul(2_654_435_761) % u64::from(RETRY_SHUTDOWN_SPREAD_MS)) as u32
            }
            _ => refusal.retry_after_ms,
        };
        session.owed = Owed {
            closing: Some(Box::new(Closing {
                reject,
                reason: refusal.reason,
                retry_after_ms: spread,
                detail: shorten(detail.clone()),
            })),
            ..Owed::default()
        };
        session.state = State::Closing;
        self.timers.remove(&(session.deadline_ms, id));
        self.wakes.insert(id);
        let (device, stranger) = (Arc::clone(&session.device), session.stranger);
        let key = Arc::clone(&session.public_key);
        // What somebody with another key was told says nothing of when the device comes back.
        let own = |record: &Record| {
            let pinned = record.object.as_ref().and_then(|object| object.public_key.as_ref());
            pinned.is_none_or(|pinned| *pinned == key)
        };
        if let Some(record) = self.devices.get_mut(&device)
            && matches!(refusal.reason, CloseReason::Revoked | CloseReason::PendingApproval)
            && own(record)
        {
            let away_ms = u64::from(spread) + RETRY_SPREAD_MAX_MS;
            record.returns_by = Some(Now { ms: now.ms + away_ms, unix_ms: now.unix_ms + away_ms });
        }
        let epoch = self.detach(now, &device, id, ended(refusal.reason));
        let ended = Notice::Ended { device, epoch, reason: Some(refusal.reason), detail };
        self.notice_of(stranger, ended);
    }

    /// Takes a session from its device, if it is the device's: a stale one must not end its successor.
    fn detach(&mut self, now: Now, key: &Arc<ObjectKey>, id: SessionId, reason: ReasonCode) -> Epoch {
        let Some(record) = self.devices.get_mut(key) else {
            // The Device was deleted, and its session with it.
            self.admitted = self.sessions.values().filter(|session| admitted(session)).count();
            return Epoch(0);
        };
        if record.awaiting == Some(id) {
            record.awaiting = None;
        }
        if record.session != Some(id) {
            return Epoch(0);
        }
        record.session = None;
        self.admitted = self.admitted.saturating_sub(1);
        let Some(live) = record.live.as_deref_mut() else { return Epoch(0) };
        live.connected = false;
        live.standing = false;
        live.ended = Some(reason);
        let epoch = live.epoch;
        self.publish(now, key);
        self.schedule(now, key);
        epoch
    }

    pub(super) fn session_timeout(&mut self, now: Now, id: SessionId, due_ms: u64) {
        let timeout = u64::from(self.config.heartbeat_timeout_ms);
        let Some(session) = self.sessions.get(&id).filter(|session| session.deadline_ms == due_ms) else {
            return;
        };
        match session.state {
            State::AwaitHello => self.end_with(now, id, HEARTBEAT_TIMEOUT, "no Hello in time".to_owned()),
            State::AwaitDevice(_) => self.end(now, id, admission::UNAVAILABLE),
            State::AwaitClaim => self.welcome(now, id, false),
            State::Standing if now.ms >= session.heard_ms + timeout => self.end(now, id, HEARTBEAT_TIMEOUT),
            State::Standing => self.set_deadline(id, session.heard_ms + timeout),
            State::Closing => {}
        }
    }

    /// A set changed: the device is told if its session stands.
    pub(super) fn offer_desired(&mut self, key: &Arc<ObjectKey>) {
        let Some(record) = self.devices.get(key) else { return };
        if let Some(id) = record.session
            && record.desired_known()
            && let Some(session) = self.sessions.get_mut(&id)
            && session.state == State::Standing
        {
            session.owed.desired = true;
            self.wakes.insert(id);
        }
    }

    fn set_deadline(&mut self, id: SessionId, at: u64) {
        if let Some(session) = self.sessions.get_mut(&id) {
            self.timers.remove(&(session.deadline_ms, id));
            session.deadline_ms = at;
            self.timers.insert((at, id));
        }
    }

    pub(super) fn push_event(&mut self, event: Box<Event>) {
        self.push_event_about(event, About::Device);
    }

    pub(super) fn push_event_about(&mut self, event: Box<Event>, about: About) {
        let number = self.next_event;
        self.next_event += 1;
        let Some(record) = self.devices.get_mut(&event.regarding.key) else {
            // Its Device is gone, and with it whoever could cause more of them.
            let occurrence = Occurrence { number, count: 1, first_unix_ms: event.unix_ms };
            self.queue_event(QueuedEvent { event, occurrence });
            return;
        };
        let ledger = record.allowance.events.get_or_insert_default();
        let left_out = match ledger.note(self.clock_ms, event, about, number) {
            Noted::Counted => None,
            Noted::Write(queued, left_out) => {
                let device = Arc::clone(&record.key);
                self.queue_event(queued);
                (left_out > 0).then_some((device, Some(left_out)))
            }
            Noted::LeftOut { first } => {
                self.counters.events_dropped += 1;
                first.then(|| (Arc::clone(&record.key), None))
            }
        };
        if let Some((device, count)) = left_out {
            self.notice(Notice::LeftOut { device: Some(device), what: LeftOut::Events, count });
        }
    }

    pub(super) fn queue_event(&mut self, event: QueuedEvent) {
        if !self.writer.push_event(event) {
            self.counters.events_dropped += 1;
        }
    }
}

fn admitted(session: &Session) -> bool {
    matches!(session.state, State::AwaitClaim | State::Standing)
}

fn display_name(application: &Application) -> Arc<str> {
    application.name.clone().unwrap_or_else(|| application.uid.to_string().into())
}

fn failure(now: Now, application: &Application, device: &ObjectKey, uid: &str) -> Event {
    let reason = reason_code(application.reason).unwrap_or_default();
    let mut message = format!("application {}: {}", display_name(application), reason.sentence());
    if !application.message.is_empty() {
        message.push_str(" (");
        message.push_str(&application.message);
        message.push(')');
    }
    Event {
        regarding: Regarding::device(device.clone(), uid),
        warning: true,
        reason,
        message,
        unix_ms: now.unix_ms,
    }
}

/// How the end of a session shows in the Device's conditions.
fn ended(reason: CloseReason) -> ReasonCode {
    match reason {
        CloseReason::PendingApproval => ReasonCode::PendingApproval,
        CloseReason::Revoked => ReasonCode::Revoked,
        CloseReason::KeyMismatch => ReasonCode::KeyMismatch,
        CloseReason::ShuttingDown => ReasonCode::GatewayShutdown,
        CloseReason::Superseded => ReasonCode::Superseded,
        CloseReason::ProtocolError => ReasonCode::ProtocolError,
        CloseReason::HeartbeatTimeout => ReasonCode::HeartbeatTimeout,
        CloseReason::NotEnrolled
        | CloseReason::Overloaded
        | CloseReason::Deleted
        | CloseReason::Unavailable
        | CloseReason::CloneSuspected
        | CloseReason::Unknown(_) => ReasonCode::SessionEnded,
    }
}

/// At most what the protocol carries as detail.
fn shorten(mut detail: String) -> String {
    if detail.len() > DETAIL_BYTES_MAX {
        let end = (0..=DETAIL_BYTES_MAX).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or(0);
        detail.truncate(end);
    }
    detail
}

const PROTOCOL_ERROR: Refusal = Refusal {
    reason: CloseReason::ProtocolError,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "the device broke the protocol",
};
const HEARTBEAT_TIMEOUT: Refusal = Refusal {
    reason: CloseReason::HeartbeatTimeout,
    shown: None,
    retry_after_ms: 0,
    detail: "nothing was heard for the heartbeat timeout",
};
pub(super) const SUPERSEDED: Refusal = Refusal {
    reason: CloseReason::Superseded,
    shown: None,
    retry_after_ms: RETRY_SOON_MS,
    detail: "a newer session of this device exists",
};
