//! What Device.status should say, and the patch that makes it so.

use serde_json::{Map, Value, json};
use wasmbed_api::{DevicePhase, ReasonCode, condition as condition_type};

use super::{
    config::{Config, Enrollment, HEARTBEAT_WRITE_INTERVAL_MS},
    device::{Application, DeviceEntry, LastWritten, ObservedCondition, ObservedDevice, SessionView},
    writer::Priority,
};
use crate::{
    Now, UnixTime,
    kubernetes::{Event, Regarding},
};

/// A time in a status that is so far ahead of the gateway's clock was written by a clock that has been set back since.
const CLOCK_AHEAD_MS: u64 = 2_000;

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
    let own = object.base.gateway.as_deref() == Some(gateway);
    if own && object.base.epoch == live.epoch().0 {
        Ownership::Own
    } else if object.base.epoch < live.epoch().0 {
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
    live: Option<&'a SessionView>,
}

/// A condition by its type, as it is shown and as it should be.
type Compared<'a> = (&'static str, Option<&'a ObservedCondition>, Option<(bool, ReasonCode)>);

impl Wanted<'_> {
    /// Conditions by type, each as it is shown and as it should be.
    fn conditions<'b>(&self, base: &'b LastWritten) -> [Compared<'b>; 5] {
        [
            (condition_type::CONNECTED, base.connected.as_ref(), self.connected),
            (condition_type::ENROLLED, base.enrolled.as_ref(), self.enrolled),
            (condition_type::CLONE_SUSPECTED, base.clone.as_ref(), self.clone),
            (condition_type::KEY_MISMATCH, base.mismatch.as_ref(), self.mismatch),
            (condition_type::COUNTERS, base.counters.as_ref(), self.counters),
        ]
    }
}

/// A condition that holds, or that is to be taken back if it is shown as holding.
fn trouble(holds: bool, reason: ReasonCode, shown: Option<&ObservedCondition>) -> Option<(bool, ReasonCode)> {
    if holds {
        return Some((true, reason));
    }
    shown.is_some_and(|shown| shown.status).then_some((false, ReasonCode::QuietAgain))
}

fn wanted<'a>(record: &'a DeviceEntry, object: &ObservedDevice, writing: Writing<'_>) -> Option<Wanted<'a>> {
    let base = &object.base;
    let seen = record.trouble();
    let suspected = seen.is_some_and(super::trouble::Trouble::suspects_clone);
    let clone = trouble(suspected, ReasonCode::CloneSuspected, base.clone.as_ref());
    let differing = seen.is_some_and(super::trouble::Trouble::has_mismatch);
    let mismatch = trouble(differing, ReasonCode::KeyMismatch, base.mismatch.as_ref());
    let session = session_wanted(record, object, writing).or_else(|| {
        let own = base.gateway.as_deref().is_none_or(|gateway| gateway == writing.gateway);
        let said = differs(base.clone.as_ref(), clone) || differs(base.mismatch.as_ref(), mismatch);
        let lost = ownership(object, record.live(), writing.gateway) == Ownership::Lost;
        let nothing = Wanted {
            phase: base.phase,
            connected: None,
            enrolled: None,
            clone: None,
            mismatch: None,
            counters: None,
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
        ReasonCode::Revoked => !object.revoked,
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
    let enrolled = if object.revoked {
        (false, ReasonCode::Revoked)
    } else if object.approved || !writing.asks_approval {
        (true, ReasonCode::Approved)
    } else {
        (false, ReasonCode::PendingApproval)
    };
    let ownership = ownership(object, live, writing.gateway);
    match (ownership, live) {
        (Ownership::Own | Ownership::Claimable, Some(live)) => {
            let phase = match enrolled.1 {
                ReasonCode::Revoked => DevicePhase::Revoked,
                ReasonCode::PendingApproval => DevicePhase::Pending,
                _ if live.is_connected() => DevicePhase::Connected,
                _ => DevicePhase::Disconnected,
            };
            let connected = match live.ended() {
                None => (true, ReasonCode::SessionEstablished),
                Some(reason) => (false, away(writing.now, reason, object, record, enrolled.0)),
            };
            let counters = match (live.complaint(), &object.base.counters) {
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
                live: Some(live),
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
    let base = &object.base;
    if base.gateway.as_deref().is_some_and(|gateway| gateway != writing.gateway) {
        return None;
    }
    let connected_before = matches!(base.phase, DevicePhase::Connected);
    let lost = (connected_before && writing.now.ms >= writing.orphans_from_ms)
        .then_some((false, ReasonCode::SessionEnded));
    let wanted = |phase, connected, enrolled| {
        Some(Wanted { phase, connected, enrolled, clone: None, mismatch: None, counters: None, live: None })
    };
    let shown = base.connected.as_ref().filter(|shown| !shown.status);
    let returning = shown.and_then(|shown| {
        let told = [ReasonCode::Revoked, ReasonCode::AwaitingReconnect];
        let reason = told.into_iter().find(|reason| reason.as_str() == shown.reason)?;
        Some((false, away(writing.now, reason, object, record, enrolled.0)))
    });
    if object.revoked {
        let connected = connected_before.then_some((false, ReasonCode::Revoked));
        return wanted(DevicePhase::Revoked, connected, Some(enrolled));
    }
    if enrolled.1 == ReasonCode::PendingApproval {
        let tried = record.rejected().is_some() || connected_before || base.gateway.is_some();
        return tried.then_some(()).and_then(|()| wanted(DevicePhase::Pending, lost, Some(enrolled)));
    }
    if connected_before {
        return lost.and_then(|_| wanted(DevicePhase::Disconnected, lost, Some(enrolled)));
    }
    if record.rejected() == Some(ReasonCode::KeyMismatch) {
        return wanted(DevicePhase::Rejected, None, Some((false, ReasonCode::KeyMismatch)));
    }
    let kept_out = base.enrolled.as_ref().is_some_and(|shown| !shown.status);
    let mismatch =
        base.enrolled.as_ref().is_some_and(|shown| shown.reason == ReasonCode::KeyMismatch.as_str());
    if kept_out && !mismatch {
        // A person approved it, or took the revocation back.
        return wanted(DevicePhase::Enrolled, returning, Some(enrolled));
    }
    differs(shown, returning).then_some(()).and_then(|()| wanted(base.phase, returning, None))
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
    let urgency = wanted.as_ref().and_then(|wanted| urgency(object, wanted, writing));
    if let Some(urgency) = urgency {
        let wanted = wanted.map(|wanted| (object, wanted));
        return Some(StatusDiff { urgency, record, writing, wanted });
    }
    // That a device comes back is not said for longer than it may take.
    let shown = object.base.connected.as_ref()?;
    let by = record.returns_by().filter(|_| shown.reason == ReasonCode::AwaitingReconnect.as_str())?;
    if now_ms <= by.ms { waits(Priority::Facts, by.ms + 1) } else { None }
}

/// Whether a device that an earlier life of this gateway left as Connected may still come back.
fn awaits_return(record: &DeviceEntry, object: &ObservedDevice, writing: Writing<'_>) -> bool {
    record.live().is_none()
        && object.base.phase == DevicePhase::Connected
        && object.base.gateway.as_deref() == Some(writing.gateway)
        && writing.now.ms < writing.orphans_from_ms
        && !object.revoked
        && (object.approved || !writing.asks_approval)
}

/// How urgent a write is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Urgency {
    pub priority: Priority,
    /// Earliest time of the write, milliseconds of the monotonic clock.
    pub due_ms: u64,
    /// The write ends what the status says of a session, so that it may wait for the device to return.
    pub ends_session: bool,
}

fn urgency(object: &ObservedDevice, wanted: &Wanted<'_>, writing: Writing<'_>) -> Option<Urgency> {
    let base = &object.base;
    let now = |priority| Some(Urgency { priority, due_ms: writing.now.ms, ends_session: false });
    if wanted.phase != base.phase {
        let edge = matches!(wanted.phase, DevicePhase::Connected | DevicePhase::Disconnected);
        let priority = if edge { Priority::Edge } else { Priority::Enrollment };
        let ends_session = wanted.phase == DevicePhase::Disconnected;
        return Some(Urgency { priority, due_ms: writing.now.ms, ends_session });
    }
    if differs(base.enrolled.as_ref(), wanted.enrolled) {
        return now(Priority::Enrollment);
    }
    if differs(base.connected.as_ref(), wanted.connected) {
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
    if base.epoch != live.epoch().0 {
        return now(Priority::Edge);
    }
    if let Some(applications) = live.applications()
        && live.runs_other_than(base.applications_hash)
    {
        let failed = applications.iter().any(Application::failed);
        return now(if failed { Priority::Failure } else { Priority::Result });
    }
    if live.revision().is_some_and(|revision| Some(revision) != as_u64(base.revision)) {
        return now(Priority::Result);
    }
    if live.facts_other_than(base.facts_hash).is_some() || object.generation != base.observed_generation {
        return now(Priority::Facts);
    }
    if is_ahead(writing.now, base) {
        return now(Priority::Heartbeat);
    }
    let heard = heard_unix_ms(writing.now, live);
    if live.is_connected() && heard > base.last_heartbeat_unix_ms {
        let age = heard - base.last_heartbeat_unix_ms;
        let due_ms = writing.now.ms + HEARTBEAT_WRITE_INTERVAL_MS.saturating_sub(age);
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
        let base = &object.base;
        let mut status = Map::new();
        let mut set = |name: &str, value: Value| drop(status.insert(name.to_owned(), value));
        if wanted.phase != base.phase {
            set("phase", json!(wanted.phase));
        }
        if object.generation != base.observed_generation {
            set("observedGeneration", json!(object.generation));
        }
        let conditions = wanted.conditions(base);
        if conditions.into_iter().any(|(_, shown, wanted)| differs(shown, wanted)) {
            let own = conditions.into_iter().filter_map(|(name, shown, wanted)| {
                condition(writing.now, name, shown, wanted, record, object)
            });
            let others = base.other_conditions.iter().map(|condition| json!(condition));
            set("conditions", own.chain(others).collect());
        }
        if let Some(live) = wanted.live {
            if base.gateway.as_deref() != Some(writing.gateway) {
                set("gateway", json!(writing.gateway));
            }
            let ahead = is_ahead(writing.now, base);
            if base.epoch != live.epoch().0 || base.connected_since_unix_ms.is_none() || ahead {
                set("epoch", json!(live.epoch().0));
                let since = UnixTime::from_ms(unix_ms_of(writing.now, live.since()));
                set("connected_since", json!(since.to_string()));
            }
            let heard = heard_unix_ms(writing.now, live);
            if heard > base.last_heartbeat_unix_ms || ahead {
                set("last_heartbeat", json!(UnixTime::from_ms(heard).to_seconds_text()));
            }
            if let Some(revision) = live.revision()
                && Some(revision) != as_u64(base.revision)
            {
                set("revision", json!(revision));
            }
            if let Some(facts) = live.facts_other_than(base.facts_hash) {
                set("facts", whole(json!(facts)));
            }
            if let Some(applications) = live.applications() {
                let changed = live.runs_other_than(base.applications_hash);
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
            && (wanted.phase != base.phase || differs(base.enrolled.as_ref(), wanted.enrolled));
        let event = transition.then(|| event(writing.now, record, object, wanted));
        let patch = json!({ "metadata": { "resourceVersion": object.resource_version }, "status": status });
        Some((patch, event))
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
        DevicePhase::Pending | DevicePhase::Unknown => (false, ReasonCode::PendingApproval),
        DevicePhase::Disconnected | DevicePhase::Unreachable => {
            let reason = wanted.connected.map_or(ReasonCode::SessionEnded, |(_, reason)| reason);
            (reason == ReasonCode::HeartbeatTimeout, reason)
        }
        DevicePhase::Rejected => (true, ReasonCode::KeyMismatch),
        DevicePhase::Revoked => (true, ReasonCode::Revoked),
    };
    Event {
        regarding: Regarding::device((**record.key()).clone(), &object.uid),
        warning,
        reason,
        message: sentence(reason, record),
        unix_ms: now.unix_ms,
    }
}

fn sentence(reason: ReasonCode, record: &DeviceEntry) -> String {
    let complaint = record.live().and_then(SessionView::complaint);
    match (reason, record.returns_by()) {
        (ReasonCode::CounterOutOfRange, _) => complaint.unwrap_or(reason.sentence()).to_owned(),
        (ReasonCode::AwaitingReconnect, Some(by)) => {
            let by = UnixTime::from_ms(by.unix_ms).to_seconds_text();
            format!("the device was told to stay away and comes back at {by} at the latest")
        }
        _ => reason.sentence().to_owned(),
    }
}

fn differs(shown: Option<&ObservedCondition>, wanted: Option<(bool, ReasonCode)>) -> bool {
    wanted.is_some_and(|(status, reason)| {
        shown.is_none_or(|shown| shown.status != status || shown.reason != reason.as_str())
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
            let reason = ReasonCode::ALL.iter().find(|reason| reason.as_str() == shown.reason);
            let message = reason.map(|reason| sentence(*reason, record)).unwrap_or_default();
            (shown.status, shown.reason.clone(), message)
        }
        (None, None) => return None,
    };
    let now = UnixTime::from_ms(now.unix_ms);
    let since = match shown {
        Some(shown) if shown.status == status => shown.since.min(now),
        _ => now,
    };
    Some(json!({
        "type": name,
        "status": if status { "True" } else { "False" },
        "reason": reason,
        "message": message,
        "lastTransitionTime": since.to_seconds_text(),
        "observedGeneration": object.generation,
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

/// Whether the status has a time that has not come yet.
fn is_ahead(now: Now, base: &LastWritten) -> bool {
    let latest = base.connected_since_unix_ms.unwrap_or(0).max(base.last_heartbeat_unix_ms);
    latest > now.unix_ms.saturating_add(CLOCK_AHEAD_MS)
}

fn as_u64(value: Option<i64>) -> Option<u64> {
    value.and_then(|value| u64::try_from(value).ok())
}
