//! `Application.status`: counts, failures, conditions and phase, from what each target is known to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use wasmbed_api::{
    ApplicationCounts, ApplicationFailure, ApplicationPhase, ApplicationStatus, DeviceApplicationState,
    ReasonCode,
};
use wasmbed_protocol::ModuleDigest;

use super::config::{FAILURE_CHARS_MAX, FAILURES_MAX, NAMES_IN_MESSAGE_MAX};
use super::module::ModuleRefusal;
use super::record::{ReportedApplication, Verdict};
use crate::text;

/// The conditions, in the order in which they stand in a status.
pub(super) const CONDITIONS: [&str; 4] = ["Ready", "Complete", "Reconciling", "Stalled"];

/// What one target does for one generation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Standing {
    /// Reported this generation as running or completed, in a session that stands.
    Running,
    /// Refused before sending, or reported as failed or crash-looping.
    Failed(ModuleRefusal),
    /// Connected, and has not reported this generation as running yet.
    Pending,
    /// No session stands.
    Away,
    /// Kept off it by `unschedulable`.
    Unschedulable,
}

/// Judges one target. `report` is what a connected device says of the Application, `spec_hash` the generation wanted.
pub(super) fn plan_standing(
    verdict: &Verdict,
    connected: bool,
    spec_hash: Option<wasmbed_protocol::SpecHash>,
    report: Option<&ReportedApplication>,
) -> Standing {
    match verdict {
        Verdict::Refused(refusal) => return Standing::Failed(refusal.clone()),
        Verdict::Unschedulable => return Standing::Unschedulable,
        Verdict::Placed | Verdict::FactsUnknown | Verdict::Held => {}
    }
    if !connected {
        return Standing::Away;
    }
    let Some(report) = report.filter(|report| Some(report.spec_hash) == spec_hash) else {
        return Standing::Pending;
    };
    let failed = || {
        let reason = report.reason.unwrap_or_default();
        let message = if report.message.is_empty() { reason.sentence() } else { &report.message };
        Standing::Failed(ModuleRefusal { reason, message: message.to_owned() })
    };
    match report.state {
        DeviceApplicationState::Running => Standing::Running,
        DeviceApplicationState::Completed => match report.reason {
            None | Some(ReasonCode::Exited) => Standing::Running,
            Some(_) => failed(),
        },
        DeviceApplicationState::CrashLoop | DeviceApplicationState::Failed => failed(),
        DeviceApplicationState::Pulling
        | DeviceApplicationState::Starting
        | DeviceApplicationState::Unknown => Standing::Pending,
    }
}

/// What a status is made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    pub(super) generation: i64,
    pub(super) digest: Option<ModuleDigest>,
    pub(super) deleting: bool,
    /// The Application itself is at fault, whatever its targets do.
    pub(super) refusal: Option<&'a ModuleRefusal>,
    /// By device name, ascending.
    pub(super) standings: Vec<(&'a str, Standing)>,
    /// Of all targets: with a session. Refused and unschedulable ones may be connected too.
    pub(super) connected: usize,
    /// Named, but not there.
    pub(super) missing: Vec<&'a str>,
    /// Why a gateway that stands between does not answer, and whether the attempts are used up.
    pub(super) trouble: Option<(String, bool)>,
}

/// The status that says all this; `before` gives the times of conditions that stay.
pub(super) fn plan_status(facts: &Facts<'_>, before: &Published, unix_ms: u64) -> ApplicationStatus {
    let tally = Tally::count(facts);
    let states = conditions(facts, &tally);
    let now_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let conditions =
        CONDITIONS.into_iter().zip(states).enumerate().map(|(index, (type_, state))| Condition {
            type_: type_.to_owned(),
            status: if state.holds { "True" } else { "False" }.to_owned(),
            reason: state.reason.as_str().to_owned(),
            message: state.message,
            observed_generation: Some(facts.generation),
            last_transition_time: time(before.since(index, state.holds).unwrap_or(now_s)),
        });
    let conditions = conditions.chain(before.others.iter().cloned());
    ApplicationStatus {
        phase: phase(facts, &tally),
        observed_generation: Some(facts.generation),
        module_digest: facts.digest.map(text::digest_text),
        counts: ApplicationCounts {
            targets: number(facts.standings.len()),
            connected: number(facts.connected),
            running: number(tally.running),
            pending: number(tally.pending.len() + tally.away.len() + tally.unschedulable.len()),
            failed: number(tally.failed.len()),
            missing: number(facts.missing.len()),
        },
        ready: format!("{}/{}", tally.running, facts.standings.len()),
        failures: tally
            .failed
            .iter()
            .take(FAILURES_MAX)
            .map(|(device, refusal)| ApplicationFailure {
                device: (*device).to_owned(),
                reason: refusal.reason,
                message: refusal.message.chars().take(FAILURE_CHARS_MAX).collect(),
            })
            .collect(),
        conditions: conditions.collect(),
    }
}

#[derive(Default)]
struct Tally<'a> {
    running: usize,
    failed: Vec<(&'a str, &'a ModuleRefusal)>,
    pending: Vec<&'a str>,
    away: Vec<&'a str>,
    unschedulable: Vec<&'a str>,
}

impl<'a> Tally<'a> {
    fn count(facts: &'a Facts<'a>) -> Self {
        let mut tally = Self::default();
        for (device, standing) in &facts.standings {
            match standing {
                Standing::Running => tally.running += 1,
                Standing::Failed(refusal) => tally.failed.push((device, refusal)),
                Standing::Pending => tally.pending.push(device),
                Standing::Away => tally.away.push(device),
                Standing::Unschedulable => tally.unschedulable.push(device),
            }
        }
        tally
    }
}

struct State {
    holds: bool,
    reason: ReasonCode,
    message: String,
}

fn state(holds: bool, reason: ReasonCode, message: impl Into<String>) -> State {
    State { holds, reason, message: message.into() }
}

fn conditions(facts: &Facts<'_>, tally: &Tally<'_>) -> [State; 4] {
    let summary = summary(facts, tally);
    [
        ready(facts, tally, &summary),
        complete(facts, tally, &summary),
        reconciling(facts, tally, &summary),
        stalled(facts, tally),
    ]
}

fn ready(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    let targets = facts.standings.len();
    if facts.deleting {
        return state(false, ReasonCode::Terminating, ReasonCode::Terminating.sentence());
    }
    if let Some(refusal) = facts.refusal {
        return state(false, refusal.reason, &refusal.message);
    }
    let reason = if targets == 0 {
        ReasonCode::NoTargets
    } else if tally.failed.len() == targets {
        ReasonCode::AllFailed
    } else if !tally.failed.is_empty() {
        ReasonCode::SomeFailed
    } else if !tally.pending.is_empty() {
        ReasonCode::WaitingForDevices
    } else if tally.running == targets {
        return state(true, ReasonCode::AllRunning, summary);
    } else if tally.running > 0 {
        return state(true, ReasonCode::ConnectedRunning, summary);
    } else if tally.unschedulable.len() == targets {
        ReasonCode::Unschedulable
    } else {
        ReasonCode::NoneConnected
    };
    state(false, reason, summary)
}

fn complete(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    let targets = facts.standings.len();
    if facts.deleting {
        return state(false, ReasonCode::Terminating, ReasonCode::Terminating.sentence());
    }
    if let Some(refusal) = facts.refusal {
        return state(false, refusal.reason, &refusal.message);
    }
    let reason = if !facts.missing.is_empty() {
        ReasonCode::DeviceNotFound
    } else if targets == 0 {
        ReasonCode::NoTargets
    } else if tally.running == targets {
        return state(true, ReasonCode::AllRunning, summary);
    } else if tally.failed.len() == targets {
        ReasonCode::AllFailed
    } else if !tally.failed.is_empty() {
        ReasonCode::SomeFailed
    } else if !tally.pending.is_empty() {
        ReasonCode::WaitingForDevices
    } else if !tally.away.is_empty() {
        ReasonCode::DevicesAway
    } else {
        ReasonCode::Unschedulable
    };
    state(false, reason, summary)
}

fn reconciling(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    if facts.deleting {
        return state(true, ReasonCode::Terminating, ReasonCode::Terminating.sentence());
    }
    match &facts.trouble {
        Some((message, true)) => return state(false, ReasonCode::RetriesExhausted, message),
        Some((message, false)) => return state(true, ReasonCode::Retrying, message),
        None => {}
    }
    if facts.refusal.is_none() && !tally.pending.is_empty() {
        return state(true, ReasonCode::Deploying, summary);
    }
    state(false, ReasonCode::UpToDate, ReasonCode::UpToDate.sentence())
}

fn stalled(facts: &Facts<'_>, tally: &Tally<'_>) -> State {
    if let Some(refusal) = facts.refusal.filter(|_| !facts.deleting) {
        return state(true, refusal.reason, &refusal.message);
    }
    if let Some((message, true)) = &facts.trouble {
        return state(true, ReasonCode::RetriesExhausted, message);
    }
    match tally.failed.first() {
        Some((device, refusal)) if !facts.deleting && tally.pending.is_empty() => {
            state(true, refusal.reason, format!("{device}: {}", refusal.message))
        }
        Some(_) | None => state(false, ReasonCode::UpToDate, "nothing stands in the way"),
    }
}

/// `2 of 3 targets run it; device-003 is not connected`.
fn summary(facts: &Facts<'_>, tally: &Tally<'_>) -> String {
    let targets = facts.standings.len();
    let mut text = match targets {
        0 => ReasonCode::NoTargets.sentence().trim_end_matches('.').to_owned(),
        1 => format!("{} of 1 target runs it", tally.running),
        _ => format!("{} of {targets} targets run it", tally.running),
    };
    if let Some((device, refusal)) = tally.failed.first() {
        let _ = write!(text, "; {} failed ({device}: {})", tally.failed.len(), refusal.message);
    }
    let _ = match tally.pending.as_slice() {
        [] => Ok(()),
        [one] => write!(text, "; {one} has not reported this generation yet"),
        many => write!(text, "; {} have not reported this generation yet", names(many)),
    };
    let mut clause = |devices: &[&str], one: &str, many: &str| {
        let _ = match devices {
            [] => Ok(()),
            [device] => write!(text, "; {device} {one}"),
            devices => write!(text, "; {} {many}", names(devices)),
        };
    };
    clause(&tally.away, "is not connected", "are not connected");
    clause(&tally.unschedulable, "is unschedulable", "are unschedulable");
    clause(&facts.missing, "does not exist", "do not exist");
    text
}

fn names(devices: &[&str]) -> String {
    let shown = devices.len().min(NAMES_IN_MESSAGE_MAX);
    match (devices.len() - shown, &devices[..shown]) {
        (0, [first @ .., last]) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        (0, shown) => shown.join(", "),
        (more, shown) => format!("{} and {more} more", shown.join(", ")),
    }
}

fn phase(facts: &Facts<'_>, tally: &Tally<'_>) -> ApplicationPhase {
    if facts.deleting {
        ApplicationPhase::Terminating
    } else if facts.refusal.is_some() {
        ApplicationPhase::Failed
    } else if !tally.failed.is_empty() && tally.running > 0 {
        ApplicationPhase::Degraded
    } else if !tally.pending.is_empty() {
        ApplicationPhase::Deploying
    } else if tally.running > 0 {
        ApplicationPhase::Running
    } else if !tally.failed.is_empty() {
        ApplicationPhase::Failed
    } else {
        ApplicationPhase::Pending
    }
}

/// What the resource says now, kept small: enough to see whether a write is needed and what changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Published {
    hash: Option<u64>,
    conditions: [Option<Held>; CONDITIONS.len()],
    /// Conditions of others, which a merge patch has to repeat: it replaces the list as a whole.
    others: Vec<Condition>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Held {
    holds: bool,
    reason_hash: u64,
    since_s: i64,
}

/// One condition that changed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Transition {
    pub(super) warning: bool,
    pub(super) reason: ReasonCode,
    pub(super) message: String,
}

impl Published {
    pub(super) fn of(status: Option<&ApplicationStatus>) -> Self {
        let Some(status) = status else { return Self::default() };
        let held = |type_: &str| {
            let condition = status.conditions.iter().find(|condition| condition.type_ == type_)?;
            Some(Held {
                holds: condition.status == "True",
                reason_hash: hash(&condition.reason),
                since_s: condition.last_transition_time.0.as_second(),
            })
        };
        let other = |condition: &&Condition| !CONDITIONS.contains(&condition.type_.as_str());
        let others = status.conditions.iter().filter(other).cloned().collect();
        Self { hash: Some(status_hash(status)), conditions: CONDITIONS.map(held), others }
    }

    /// Whether the resource says exactly this already.
    pub(super) fn says(&self, status: &ApplicationStatus) -> bool {
        self.hash == Some(status_hash(status))
    }

    fn since(&self, index: usize, holds: bool) -> Option<i64> {
        self.conditions[index].filter(|held| held.holds == holds).map(|held| held.since_s)
    }

    /// What people should be told: `Ready` changed its value or its reason, or `Stalled` began.
    pub(super) fn transitions(&self, status: &ApplicationStatus) -> Vec<Transition> {
        let reasons: BTreeMap<&str, ReasonCode> =
            ReasonCode::ALL.iter().map(|reason| (reason.as_str(), *reason)).collect();
        let changed = |condition: &&Condition| {
            let index = CONDITIONS.iter().position(|type_| *type_ == condition.type_);
            let before = index.and_then(|index| self.conditions[index]);
            let holds = condition.status == "True";
            let same =
                before.is_some_and(|held| held.holds == holds && held.reason_hash == hash(&condition.reason));
            !same && (condition.type_ == "Ready" || (condition.type_ == "Stalled" && holds))
        };
        let ready_reason = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        status
            .conditions
            .iter()
            .filter(changed)
            // A refused Application is neither ready nor able to go on, for one and the same reason: it is told once.
            .filter(|condition| {
                condition.type_ == "Ready"
                    || ready_reason.is_none_or(|ready| ready.reason != condition.reason)
            })
            .map(|condition| Transition {
                warning: condition.type_ == "Stalled" || is_warning(&condition.reason),
                reason: reasons.get(condition.reason.as_str()).copied().unwrap_or_default(),
                message: condition.message.clone(),
            })
            .collect()
    }
}

/// Reasons why an Application is not ready that nobody has to act on.
fn is_warning(reason: &str) -> bool {
    let harmless = [
        ReasonCode::AllRunning,
        ReasonCode::ConnectedRunning,
        ReasonCode::WaitingForDevices,
        ReasonCode::NoneConnected,
        ReasonCode::NoTargets,
        ReasonCode::Unschedulable,
        ReasonCode::Terminating,
    ];
    !harmless.iter().any(|other| other.as_str() == reason)
}

fn status_hash(status: &ApplicationStatus) -> u64 {
    // A status always has a JSON form: its maps have text keys.
    hash(&serde_json::to_string(status).unwrap_or_default())
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Kubernetes' times have whole seconds.
pub(super) fn time(unix_s: i64) -> Time {
    Time(Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
#[path = "tests/status.rs"]
mod tests;
