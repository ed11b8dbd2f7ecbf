//! What Device.status should say, and the patch that makes it so.

use serde_json::{Map, Value, json};
use wasmbed_api::{DevicePhase, ReasonCode, condition as condition_type};

use super::{
    config::{Config, EDGE_DEBOUNCE_MS, Enrollment, HEARTBEAT_WRITE_INTERVAL_MS, RESULT_DEBOUNCE_MS},
    device::{
        Application, DeviceEntry, JoinView, LastWritten, ObservedCondition, ObservedDevice, SessionView,
    },
    writer::Priority,
};
use crate::{
    Now, UnixTime,
    kubernetes::{Event, Regarding},
};

/// What a status lacks, worked out once for its priority, its patch and its Event.
#[derive(Debug)]
pub(super) struct StatusDiff<'a> {
    urgency: Urgency,
    record: &'a DeviceEntry,
    writing: Writing<'a>,
    /// `None` while only time is waited for.
    wanted: Option<(&'a ObservedDevice, Wanted<'a>)>,
}

/// Who writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing<'a> {
    /// Name of this gateway.
    gateway: &'a str,
    /// Whether a device must be approved.
    asks_approval: bool,
    /// From here on, devices that an earlier life of this gateway left as Connected are known not to have come back.
    orphans_from_ms: u64,
    now: Now,
}

impl<'a> Writing<'a> {
    pub(super) fn new(now: Now, config: &'a Config, orphans_from_ms: Option<u64>) -> Self {
        Self {
            gateway: &config.name,
            asks_approval: config.enrollment != Enrollment::Open,
            orphans_from_ms: orphans_from_ms.unwrap_or(u64::MAX),
            now,
        }
    }
}

/// Whose session the status describes, as this gateway sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Gateway and epoch are its own.
    Own,
    /// An older session is in it: a newer one of this gateway may take it over.
    Claimable,
    /// A newer session is in it.
    Lost,
    /// There is no session here.
    None,
}

/// Whose the status of a device is.
pub(super) fn ownership(object: &ObservedDevice, live: Option<&SessionView>, gateway: &str) -> Ownership {
    let Some(live) = live else { return Ownership::None };
    let shown = object.status();
    if shown.is_by(gateway) && shown.epoch() == live.epoch().0 {
        Ownership::Own
    } else if shown.epoch() < live.epoch().0 {
        Ownership::Claimable
    } else {
        Ownership::Lost
    }
}

/// What the status should say; fields that are `None` stay as they are.
#[derive(Debug)]
struct Wanted<'a> {
    phase: DevicePhase,
    connected: Option<(bool, ReasonCode)>,
    enrolled: Option<(bool, ReasonCode)>,
    clone: Option<(bool, ReasonCode)>,
    mismatch: Option<(bool, ReasonCode)>,
    /// Whether the device's own numbers are believed; nothing is said of one whose numbers always were.
    counters: Option<(bool, ReasonCode)>,
    /// The session by which this gateway may write: the status is to name its gateway and epoch.
    claim: Option<&'a SessionView>,
    /// The session whose reports the status is to show.
    live: Option<&'a SessionView>,
}

/// A condition by its type, as it is shown and as it should be.
type Compared<'a> = (&'static str, Option<&'a ObservedCondition>, Option<(bool, ReasonCode)>);

impl Wanted<'_> {
    /// Conditions by type, each as it is shown and as it should be.
    fn conditions<'b>(&self, base: &'b LastWritten) -> [Compared<'b>; 5] {
        [
            (condition_type::CONNECTED, self.connected),
            (condition_type::ENROLLED, self.enrolled),
            (condition_type::CLONE_SUSPECTED, self.clone),
            (condition_type::KEY_MISMATCH, self.mismatch),
            (condition_type::COUNTERS, self.counters),
        ]
        .map(|(name, wanted)| (name, base.condition(name), wanted))
    }
}

/// A condition that holds, or that is to be taken back if it is shown as holding.
fn trouble(holds: bool, reason: ReasonCode, shown: Option<&ObservedCondition>) -> Option<(bool, ReasonCode)> {
    if holds {
        return Some((true, reason));
    }
    shown.is_some_and(ObservedCondition::holds).then_some((false, ReasonCode::QuietAgain))
}

fn wanted<'a>(record: &'a DeviceEntry, object: &ObservedDevice, writing: Writing<'_>) -> Option<Wanted<'a>> {
    let base = object.status();
    let shown_clone = base.condition(condition_type::CLONE_SUSPECTED);
    let shown_mismatch = base.condition(condition_type::KEY_MISMATCH);
    let seen = record.trouble();
    let suspected = seen.is_some_and(super::trouble::Trouble::suspects_clone);
    let clone = trouble(suspected, ReasonCode::CloneSuspected, shown_clone);
    let differing = seen.is_some_and(super::trouble::Trouble::has_mismatch);
    let mismatch = trouble(differing, ReasonCode::KeyMismatch, shown_mismatch);
    let session = session_wanted(record, object, writing).or_else(|| {
        let own = !base.is_by_another(writing.gateway);
        let said = differs(shown_clone, clone) || differs(shown_mismatch, mismatch);
        let lost = ownership(object, record.live(), writing.gateway) == Ownership::Lost;
        let nothing = Wanted {
            phase: base.phase(),
            connected: None,
            enrolled: None,
            clone: None,
            mismatch: None,
            counters: None,
            claim: None,
            live: None,
        };
        (own && said && !lost).then_some(nothing)
    })?;
    Some(Wanted { clone, mismatch, ..session })
}

/// Why a device without a session is away. One that was kept out and is welcome again comes back when it was told to.
fn away(
    now: Now,
    reason: ReasonCode,
    object: &ObservedDevice,
    record: &DeviceEntry,
    welcome: bool,
) -> ReasonCode {
    let over = match reason {
        ReasonCode::Revoked => !object.is_revoked(),
        ReasonCode::PendingApproval => welcome,
        ReasonCode::AwaitingReconnect => true,
        _ => false,
    };
    match record.returns_by() {
        _ if !over => reason,
        Some(by) if now.ms <= by.ms => ReasonCode::AwaitingReconnect,
        Some(_) | None => ReasonCode::SessionEnded,
    }
}

fn session_wanted<'a>(
    record: &'a DeviceEntry,
    object: &ObservedDevice,
    writing: Writing<'_>,
) -> Option<Wanted<'a>> {
    let live = record.live();
    let enrolled = if object.is_decommissioned() {
        (false, ReasonCode::Decommissioned)
    } else if object.is_revoked() {
        (false, ReasonCode::Revoked)
    } else if object.is_let_in(writing.asks_approval) {
        (true, ReasonCode::Approved)
    } else {
        (false, ReasonCode::PendingApproval)
    };
    let ownership = ownership(object, live, writing.gateway);
    match (ownership, live) {
        (Ownership::Own | Ownership::Claimable, Some(live)) => {
            let phase = match enrolled.1 {
                ReasonCode::Decommissioned => DevicePhase::Decommissioned,
                ReasonCode::Revoked => DevicePhase::Revoked,
                ReasonCode::PendingApproval => DevicePhase::Pending,
                _ if live.is_connected() => DevicePhase::Connected,
                _ => DevicePhase::Disconnected,
            };
            let connected = match live.ended() {
                None => (true, ReasonCode::SessionEstablished),
                Some(reason) => (false, away(writing.now, reason, object, record, enrolled.0)),
            };
            let counters = match (live.complaint(), object.status().condition(condition_type::COUNTERS)) {
                (Some(_), _) => Some((false, ReasonCode::CounterOutOfRange)),
                (None, Some(_)) => Some((true, ReasonCode::CountersBelieved)),
                (None, None) => None,
            };
            Some(Wanted {
                phase,
                connected: Some(connected),
                enrolled: Some(enrolled),
                clone: None,
                mismatch: None,
                counters,
                claim: Some(live),
                // What a session showed before it was taken out of service says nothing of the device any more.
                live: Some(live).filter(|_| !object.is_decommissioned()),
            })
        }
        (Ownership::Lost, _) => None,
        (Ownership::None | Ownership::Own | Ownership::Claimable, _) => {
            idle(record, object, enrolled, writing)
        }
    }
}

/// What is to be said of a device without a session here: only what this gateway may know.
fn idle<'a>(
    record: &DeviceEntry,
    object: &ObservedDevice,
    enrolled: (bool, ReasonCode),
    writing: Writing<'_>,
) -> Option<Wanted<'a>> {
    let base = object.status();
    if base.is_by_another(writing.gateway) {
        return None;
    }
    let connected_before = matches!(base.phase(), DevicePhase::Connected);
    let lost = (connected_before && writing.now.ms >= writing.orphans_from_ms)
        .then_some((false, ReasonCode::SessionEnded));
    let wanted = |phase, connected, enrolled| {
        Some(Wanted {
            phase,
            connected,
            enrolled,
            clone: None,
            mismatch: None,
            counters: None,
            claim: None,
            live: None,
        })
    };
    let returning =
        base.told_to_stay_away().map(|reason| (false, away(writing.now, reason, object, record, enrolled.0)));
    if object.is_decommissioned() {
        let connected = connected_before.then_some((false, ReasonCode::Decommissioned));
        return wanted(DevicePhase::Decommissioned, connected, Some(enrolled));
    }
    if object.is_revoked() {
        let connected = connected_before.then_some((false, ReasonCode::Revoked));
        return wanted(DevicePhase::Revoked, connected, Some(enrolled));
    }
    if let Some(join) = record.join().filter(|_| !connected_before) {
        let phase = match join.reason() {
            ReasonCode::Approved => DevicePhase::Enrolled,
            ReasonCode::RequestRefused => DevicePhase::Rejected,
            _ => DevicePhase::Pending,
        };
        return wanted(phase, None, Some((join.reason() == ReasonCode::Approved, join.reason())));
    }
    if enrolled.1 == ReasonCode::PendingApproval {
        let tried = record.rejected().is_some() || connected_before || base.names_gateway();
        return tried.then_some(()).and_then(|()| wanted(DevicePhase::Pending, lost, Some(enrolled)));
    }
    if connected_before {
        return lost.and_then(|_| wanted(DevicePhase::Disconnected, lost, Some(enrolled)));
    }
    if record.rejected() == Some(ReasonCode::KeyMismatch) {
        return wanted(DevicePhase::Rejected, None, Some((false, ReasonCode::KeyMismatch)));
    }
    let kept_out = base.condition(condition_type::ENROLLED).filter(|shown| !shown.holds());
    // Of these the gateway knows that the device came to, until somebody did something about it.
    let stays = |shown: &ObservedCondition| {
        shown.is_for(ReasonCode::KeyMismatch)
            || (shown.is_for(ReasonCode::KeyNotConfirmed) && object.confirmed_key().is_none())
            || (shown.is_for(ReasonCode::RequestRefused) && !object.is_respecified())
    };
    if kept_out.is_some_and(|shown| !stays(shown)) {
        // A person approved it, or took the revocation back.
        return wanted(DevicePhase::Enrolled, returning, Some(enrolled));
    }
    let shown = base.condition(condition_type::CONNECTED);
    differs(shown, returning).then_some(()).and_then(|()| wanted(base.phase(), returning, None))
}

/// How the status of a device differs from what it should be; `None` if it does not.
pub(super) fn diff<'a>(record: &'a DeviceEntry, writing: Writing<'a>) -> Option<StatusDiff<'a>> {
    let object = record.object()?;
    let now_ms = writing.now.ms;
    let waits = |priority, due_ms| {
        let urgency = Urgency { priority, due_ms, ends_session: false };
        Some(StatusDiff { urgency, record, writing, wanted: None })
    };
    if awaits_return(record, object, writing) {
        return waits(Priority::Edge, writing.orphans_from_ms);
    }
    let wanted = wanted(record, object, writing);
    let urgency = wanted.as_ref().and_then(|wanted| urgency(record, object, wanted, writing));
    if let Some(urgency) = urgency {
        let wanted = wanted.map(|wanted| (object, wanted));
        return Some(StatusDiff { urgency, record, writing, wanted });
    }
    // That a device comes back is not said for longer than it may take.
    let shown = object.status().condition(condition_type::CONNECTED)?;
    let by = record.returns_by().filter(|_| shown.is_for(ReasonCode::AwaitingReconnect))?;
    if now_ms <= by.ms { waits(Priority::Facts, by.ms + 1) } else { None }
}

/// Whether a device that an earlier life of this gateway left as Connected may still come back.
fn awaits_return(record: &DeviceEntry, object: &ObservedDevice, writing: Writing<'_>) -> bool {
    record.live().is_none()
        && object.status().phase() == DevicePhase::Connected
        && object.status().is_by(writing.gateway)
        && writing.now.ms < writing.orphans_from_ms
        && object.is_let_in(writing.asks_approval)
}

/// How urgent a write is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgency {
    priority: Priority,
    due_ms: u64,
    /// The write ends what the status says of a session, so that it may wait for the device to return.
    ends_session: bool,
}

impl Urgency {
    pub(super) fn priority(self) -> Priority {
        self.priority
    }

    /// Earliest time of the write, milliseconds of the monotonic clock.
    pub(super) fn due_ms(self) -> u64 {
        self.due_ms
    }

    /// The same for a write that is only now asked for: what often changes back, or changes more within a moment, waits for
    /// that, but not at the end of a gateway.
    pub(super) fn debounced_ms(self, shutting_down: bool) -> u64 {
        let pause_ms = match self.priority {
            Priority::Edge if self.ends_session && !shutting_down => EDGE_DEBOUNCE_MS,
            Priority::Result | Priority::Facts => RESULT_DEBOUNCE_MS,
            Priority::Enrollment
            | Priority::Failure
            | Priority::Edge
            | Priority::Event
            | Priority::Heartbeat => 0,
        };
        self.due_ms.saturating_add(pause_ms)
    }
}

fn urgency(
    record: &DeviceEntry,
    object: &ObservedDevice,
    wanted: &Wanted<'_>,
    writing: Writing<'_>,
) -> Option<Urgency> {
    let base = object.status();
    let now = |priority| Some(Urgency { priority, due_ms: writing.now.ms, ends_session: false });
    if wanted.phase != base.phase() {
        let edge = matches!(wanted.phase, DevicePhase::Connected | DevicePhase::Disconnected);
        let priority = if edge { Priority::Edge } else { Priority::Enrollment };
        let ends_session = wanted.phase == DevicePhase::Disconnected;
        return Some(Urgency { priority, due_ms: writing.now.ms, ends_session });
    }
    if enrolled_differs(record, base, wanted) {
        return now(Priority::Enrollment);
    }
    if differs(base.condition(condition_type::CONNECTED), wanted.connected) {
        return now(Priority::Edge);
    }
    let mut changed =
        wanted.conditions(base).into_iter().filter(|(_, shown, wanted)| differs(*shown, *wanted));
    if let Some((name, ..)) = changed.next() {
        // Others are seen with another key; what else there is the device itself brings about, as often as it likes.
        let others = name == condition_type::KEY_MISMATCH;
        return now(if others { Priority::Enrollment } else { Priority::Edge });
    }
    let live = wanted.live?;
    if base.epoch() != live.epoch().0 {
        return now(Priority::Edge);
    }
    if let Some(applications) = live.applications()
        && live.runs_other_than(base.applications_hash())
    {
        let failed = applications.iter().any(Application::failed);
        return now(if failed { Priority::Failure } else { Priority::Result });
    }
    if live.revision().is_some_and(|revision| base.lacks_revision(revision)) {
        return now(Priority::Result);
    }
    if live.facts_other_than(base.facts_hash()).is_some() || object.is_respecified() {
        return now(Priority::Facts);
    }
    if base.is_ahead(writing.now) {
        return now(Priority::Heartbeat);
    }
    let age_ms = base.heartbeat_age_ms(heard_unix_ms(writing.now, live));
    if live.is_connected() && age_ms > 0 {
        let due_ms = writing.now.ms + HEARTBEAT_WRITE_INTERVAL_MS.saturating_sub(age_ms);
        return Some(Urgency { priority: Priority::Heartbeat, due_ms, ends_session: false });
    }
    None
}

impl StatusDiff<'_> {
    pub(super) fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// The merge patch (RFC 7396), and the Event that tells of the transition in it.
    pub(super) fn patch(&self) -> Option<(Value, Option<Event>)> {
        let Self { record, writing, .. } = self;
        let (object, wanted) = self.wanted.as_ref()?;
        let base = object.status();
        let mut status = Map::new();
        let mut set = |name: &str, value: Value| drop(status.insert(name.to_owned(), value));
        if wanted.phase != base.phase() {
            set("phase", json!(wanted.phase));
        }
        if object.is_respecified() {
            set("observedGeneration", json!(object.generation()));
        }
        let conditions = wanted.conditions(base);
        if conditions.into_iter().any(|(_, shown, wanted)| differs(shown, wanted))
            || enrolled_differs(record, base, wanted)
        {
            let own = conditions.into_iter().filter_map(|(name, shown, wanted)| {
                condition(writing.now, name, shown, wanted, record, object)
            });
            let others = base.other_conditions().iter().map(|condition| json!(condition));
            set("conditions", own.chain(others).collect());
        }
        if let Some(live) = wanted.claim {
            if !base.is_by(writing.gateway) {
                set("gateway", json!(writing.gateway));
            }
            let ahead = base.is_ahead(writing.now);
            if !base.tells_start_of(live.epoch().0) || ahead {
                set("epoch", json!(live.epoch().0));
                let since = UnixTime::from_ms(unix_ms_of(writing.now, live.since()));
                set("connected_since", json!(since.to_string()));
            }
            let heard = heard_unix_ms(writing.now, live);
            if base.heartbeat_age_ms(heard) > 0 || ahead {
                set("last_heartbeat", json!(UnixTime::from_ms(heard).to_seconds_text()));
            }
        }
        if let Some(live) = wanted.live {
            if let Some(revision) = live.revision()
                && base.lacks_revision(revision)
            {
                set("revision", json!(revision));
            }
            if let Some(facts) = live.facts_other_than(base.facts_hash()) {
                set("facts", whole(json!(facts)));
            }
            if let Some(applications) = live.applications() {
                let changed = live.runs_other_than(base.applications_hash());
                if changed || self.urgency.priority == Priority::Heartbeat {
                    let resources: Vec<_> = applications.iter().map(Application::to_resource).collect();
                    set("applications", json!(resources));
                }
            }
        }
        if status.is_empty() {
            return None;
        }
        // What led to Rejected made its Event when it was seen.
        let transition = wanted.phase != DevicePhase::Rejected
            && (wanted.phase != base.phase() || enrolled_differs(record, base, wanted));
        let event = transition.then(|| event(writing.now, record, object, wanted));
        Some((object.status_patch(status), event))
    }
}

/// A merge patch keeps what it does not name: what the device no longer says is named with null.
fn whole(mut facts: Value) -> Value {
    if let Value::Object(fields) = &mut facts {
        for name in ["features", "host_functions", "capabilities", "reset_reason"] {
            fields.entry(name).or_insert(Value::Null);
        }
    }
    facts
}

fn event(now: Now, record: &DeviceEntry, object: &ObservedDevice, wanted: &Wanted<'_>) -> Event {
    let (warning, reason) = match wanted.phase {
        DevicePhase::Connected => (false, ReasonCode::SessionEstablished),
        DevicePhase::Enrolled => {
            let reason = wanted.connected.map_or(ReasonCode::Approved, |(_, reason)| reason);
            let returns = reason == ReasonCode::AwaitingReconnect;
            (false, if returns { reason } else { ReasonCode::Approved })
        }
        DevicePhase::Pending | DevicePhase::Unknown => {
            let reason = wanted.enrolled.map_or(ReasonCode::PendingApproval, |(_, reason)| reason);
            (false, reason)
        }
        DevicePhase::Disconnected | DevicePhase::Unreachable => {
            let reason = wanted.connected.map_or(ReasonCode::SessionEnded, |(_, reason)| reason);
            (reason == ReasonCode::HeartbeatTimeout, reason)
        }
        DevicePhase::Rejected => (true, ReasonCode::KeyMismatch),
        DevicePhase::Revoked => (true, ReasonCode::Revoked),
        DevicePhase::Decommissioned => (false, ReasonCode::Decommissioned),
    };
    Event {
        regarding: Regarding::device((**record.key()).clone(), object.uid()),
        warning,
        reason,
        message: sentence(reason, record),
        unix_ms: now.unix_ms,
    }
}

fn sentence(reason: ReasonCode, record: &DeviceEntry) -> String {
    let complaint = record.live().and_then(SessionView::complaint);
    let join = record.join().filter(|join| join.reason() == reason && !join.message().is_empty());
    match (reason, record.returns_by()) {
        (ReasonCode::KeyNotConfirmed | ReasonCode::RequestRefused, _) => {
            join.map_or(reason.sentence(), JoinView::message).to_owned()
        }
        (ReasonCode::CounterOutOfRange, _) => complaint.unwrap_or(reason.sentence()).to_owned(),
        (ReasonCode::AwaitingReconnect, Some(by)) => {
            let by = UnixTime::from_ms(by.unix_ms).to_seconds_text();
            format!("the device was told to stay away and comes back at {by} at the latest")
        }
        _ => reason.sentence().to_owned(),
    }
}

/// Whether the condition that says who is let in says something else: with some reasons the message is what matters.
fn enrolled_differs(record: &DeviceEntry, base: &LastWritten, wanted: &Wanted<'_>) -> bool {
    let shown = base.condition(condition_type::ENROLLED);
    let told = wanted
        .enrolled
        .map(|(_, reason)| reason)
        .filter(|reason| matches!(reason, ReasonCode::KeyNotConfirmed | ReasonCode::RequestRefused));
    let says_other =
        |reason| shown.is_some_and(|shown: &ObservedCondition| !shown.says(&sentence(reason, record)));
    differs(shown, wanted.enrolled) || told.is_some_and(says_other)
}

fn differs(shown: Option<&ObservedCondition>, wanted: Option<(bool, ReasonCode)>) -> bool {
    wanted.is_some_and(|(status, reason)| {
        shown.is_none_or(|shown| shown.holds() != status || !shown.is_for(reason))
    })
}

fn condition(
    now: Now,
    name: &str,
    shown: Option<&ObservedCondition>,
    wanted: Option<(bool, ReasonCode)>,
    record: &DeviceEntry,
    object: &ObservedDevice,
) -> Option<Value> {
    let (status, reason, message) = match (wanted, shown) {
        (Some((status, reason)), _) => (status, reason.as_str().to_owned(), sentence(reason, record)),
        (None, Some(shown)) => {
            let reason = ReasonCode::ALL.iter().find(|reason| shown.is_for(**reason));
            let message = reason.map(|reason| sentence(*reason, record)).unwrap_or_default();
            (shown.holds(), shown.reason().to_owned(), message)
        }
        (None, None) => return None,
    };
    let now = UnixTime::from_ms(now.unix_ms);
    let since = match shown {
        Some(shown) if shown.holds() == status => shown.since().min(now),
        _ => now,
    };
    Some(json!({
        "type": name,
        "status": if status { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": since.to_seconds_text(),
        "observedGeneration": object.generation(),
    }))
}

/// When something happened, by the wall clock as it is now: one that was ahead then and has been set back since does not
/// put it into the future.
fn unix_ms_of(now: Now, then: Now) -> u64 {
    if then.unix_ms <= now.unix_ms {
        return then.unix_ms;
    }
    now.unix_ms.saturating_sub(now.ms.saturating_sub(then.ms))
}

/// When the device was last heard, to the second that a status shows.
fn heard_unix_ms(now: Now, live: &SessionView) -> u64 {
    unix_ms_of(now, live.last_heard()) / 1_000 * 1_000
}
