//! `Application.status`: counts, failures, conditions and phase, from what each target is known to do.

use std::fmt::Write as _;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use wasmbed_api::{
    ApplicationCounts, ApplicationFailure, ApplicationPhase, ApplicationStatus, DeviceApplicationState,
    ReasonCode, RestartPolicy,
};
use wasmbed_protocol::ModuleDigest;

use super::{
    application_entry::Application,
    config::{FAILURE_CHARS_MAX, FAILURES_MAX, NAMES_IN_MESSAGE_MAX},
    module::ModuleRefusal,
    published::{CONDITIONS, Published},
    record::{Placement, Prepared, ReportedApplication},
    secret::is_of_secrets,
};

/// What one target does for one generation.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TargetState {
    /// Reported this generation as running, in an established session.
    Running,
    /// The same, but for less than `min_ready_seconds`.
    Young,
    /// Reported this generation as ended with exit code 0 and not to be started again; also if it is away since.
    Succeeded,
    /// Refused before sending, or reported as failed or crash-looping.
    Failed(ModuleRefusal),
    /// Connected, and has not reported this generation as running yet.
    Pending,
    /// No session is established.
    Away,
    /// No target: kept off it by `unschedulable`.
    Unschedulable,
    /// No target: a stranger that waits for approval.
    NotApproved,
    /// No target: revoked.
    Revoked,
    /// No target: taken out of service.
    Decommissioned,
}

/// Judges one target. `report` is what the device last said of the Application, `spec_hash` the generation wanted.
pub(super) fn plan_target_state(
    placement: &Placement,
    connected: bool,
    policy: RestartPolicy,
    spec_hash: Option<wasmbed_protocol::SpecHash>,
    report: Option<&ReportedApplication>,
) -> TargetState {
    let report = report.filter(|report| Some(report.spec_hash()) == spec_hash);
    let failed = |report: &ReportedApplication| TargetState::Failed(report.failure());
    // What is over stays so, whether the device is there or not.
    if let Some(report) = report.filter(|report| report.is_over(policy)) {
        return if report.has_succeeded() { TargetState::Succeeded } else { failed(report) };
    }
    match placement {
        Placement::Refused(refusal) => return TargetState::Failed(refusal.clone()),
        Placement::Unschedulable => return TargetState::Unschedulable,
        Placement::Placed
        | Placement::FactsUnknown
        | Placement::Retained
        | Placement::Waiting
        | Placement::Finished => {}
    }
    if !connected {
        return TargetState::Away;
    }
    let Some(report) = report else { return TargetState::Pending };
    match report.state() {
        DeviceApplicationState::Running => TargetState::Running,
        DeviceApplicationState::CrashLoop | DeviceApplicationState::Failed => failed(report),
        DeviceApplicationState::Pulling
        | DeviceApplicationState::Starting
        | DeviceApplicationState::Completed
        | DeviceApplicationState::Unknown => TargetState::Pending,
    }
}

/// What a status is made from.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts<'a> {
    generation: i64,
    digest: Option<ModuleDigest>,
    spec_hash: Option<wasmbed_protocol::SpecHash>,
    deleting: bool,
    /// It is not always started again, so that it can succeed.
    one_shot: bool,
    min_ready_s: u32,
    /// The Application itself is at fault, whatever its targets do.
    refusal: Option<&'a ModuleRefusal>,
    /// Its Module, or what it has from Secrets, is not there: what devices have they keep, and no other gets it.
    source_missing: Option<&'a ModuleRefusal>,
    /// By device name, ascending.
    target_states: Vec<(&'a str, TargetState)>,
    /// Of all targets: with a session.
    connected: usize,
    /// Connected, and still running what an earlier generation said.
    earlier: Vec<&'a str>,
    /// Named, but not there.
    missing: Vec<&'a str>,
    /// Why the gateway of a target does not answer, and whether the attempts are used up.
    trouble: Option<(String, bool)>,
}

impl<'a> Facts<'a> {
    /// What the Application says; `module` is the one that it names, if that is there. Its targets follow, then
    /// [`Facts::complete`].
    pub(super) fn new(application: &'a Application, module: Option<ModuleDigest>) -> Self {
        let (refusal, source_missing, digest) = match application.prepared() {
            Prepared::Refused { refusal, .. } => (Some(refusal), None, module),
            Prepared::Ready(assigned) => (None, None, Some(assigned.digest)),
            Prepared::SourceMissing { kept, current, refusal } => {
                let kept = kept.as_ref().filter(|_| *current).map(|assigned| assigned.digest);
                (None, Some(refusal), kept.or(application.known_digest()))
            }
        };
        Self {
            generation: application.spec().generation,
            digest,
            spec_hash: application.wanted_hash(),
            deleting: application.is_deleting(),
            one_shot: application.is_one_shot(),
            min_ready_s: application.spec().min_ready_s,
            refusal,
            source_missing,
            ..Self::default()
        }
    }

    /// A device that is selected and that it does not go to.
    pub(super) fn leave_out(&mut self, name: &'a str, state: TargetState) {
        self.target_states.push((name, state));
    }

    /// A target; whether it is connected, and whether it runs what an earlier generation said.
    pub(super) fn add_target(
        &mut self,
        name: &'a str,
        state: TargetState,
        connected: bool,
        runs_earlier: bool,
    ) {
        if connected && runs_earlier {
            self.earlier.push(name);
        }
        self.connected += usize::from(connected && state != TargetState::Unschedulable);
        self.target_states.push((name, state));
    }

    /// Why the gateway of a target does not answer, and whether the attempts are used up; asked for until that is so of one.
    pub(super) fn note_trouble(&mut self, trouble: impl FnOnce() -> Option<(String, bool)>) {
        if self.trouble.as_ref().is_none_or(|(_, given_up)| !given_up) {
            self.trouble = trouble().or(self.trouble.take());
        }
    }

    /// There are no more targets; these are named and are not there.
    pub(super) fn complete(mut self, missing: Vec<&'a str>) -> Self {
        self.target_states.sort_unstable_by_key(|(name, _)| *name);
        self.earlier.sort_unstable();
        self.missing = missing;
        self
    }
}

/// The status that says all this; `before` gives the times of conditions that stay.
pub(super) fn plan_status(facts: &Facts<'_>, before: &Published, unix_ms: u64) -> ApplicationStatus {
    let tally = Tally::count(facts);
    let states = conditions(facts, &tally);
    let phase = phase(&states, &tally, facts);
    let now_s = i64::try_from(unix_ms / 1_000).unwrap_or(i64::MAX);
    let conditions = CONDITIONS.into_iter().zip(states).enumerate();
    let conditions = conditions.filter_map(|(index, (type_, state))| Some((index, type_, state?)));
    let conditions = conditions.map(|(index, type_, state)| Condition {
        type_: type_.to_owned(),
        status: if state.holds { "True" } else { "False" }.to_owned(),
        reason: state.reason.as_str().to_owned(),
        message: state.message,
        observed_generation: Some(facts.generation),
        last_transition_time: time(before.since(index, state.holds).unwrap_or(now_s)),
    });
    let conditions = conditions.chain(before.others().iter().cloned());
    ApplicationStatus {
        phase,
        observed_generation: Some(facts.generation),
        module_digest: facts.digest.map(|digest| digest.prefixed().to_string()),
        spec_hash: facts.spec_hash.map(|hash| hash.to_string()),
        counts: ApplicationCounts {
            targets: number(tally.targets()),
            connected: number(facts.connected),
            running: number(tally.running),
            succeeded: number(tally.succeeded),
            pending: number(tally.pending.len() + tally.young.len() + tally.away.len()),
            failed: number(tally.failed.len()),
            missing: number(facts.missing.len()),
            left_out: number(facts.target_states.len() - tally.targets()),
        },
        ready: format!("{}/{}", tally.done(), tally.targets()),
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
    succeeded: usize,
    failed: Vec<(&'a str, &'a ModuleRefusal)>,
    pending: Vec<&'a str>,
    young: Vec<&'a str>,
    away: Vec<&'a str>,
    unschedulable: Vec<&'a str>,
    not_approved: Vec<&'a str>,
    revoked: Vec<&'a str>,
    decommissioned: Vec<&'a str>,
}

impl<'a> Tally<'a> {
    fn count(facts: &'a Facts<'a>) -> Self {
        let mut tally = Self::default();
        for (device, standing) in &facts.target_states {
            match standing {
                TargetState::Running => tally.running += 1,
                TargetState::Young => tally.young.push(device),
                TargetState::Succeeded => tally.succeeded += 1,
                TargetState::Failed(refusal) => tally.failed.push((device, refusal)),
                TargetState::Pending => tally.pending.push(device),
                TargetState::Away => tally.away.push(device),
                TargetState::Unschedulable => tally.unschedulable.push(device),
                TargetState::NotApproved => tally.not_approved.push(device),
                TargetState::Revoked => tally.revoked.push(device),
                TargetState::Decommissioned => tally.decommissioned.push(device),
            }
        }
        tally
    }

    /// Devices that run it, or ran it to its end.
    fn done(&self) -> usize {
        self.running + self.succeeded
    }

    fn waiting(&self) -> bool {
        !self.pending.is_empty() || !self.young.is_empty()
    }

    fn targets(&self) -> usize {
        self.done() + self.failed.len() + self.pending.len() + self.young.len() + self.away.len()
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

fn conditions(facts: &Facts<'_>, tally: &Tally<'_>) -> [Option<State>; CONDITIONS.len()] {
    let summary = summary(facts, tally);
    [
        Some(ready(facts, tally, &summary)),
        Some(complete(facts, tally, &summary)),
        facts.one_shot.then(|| succeeded(facts, tally, &summary)),
        Some(reconciling(facts, tally, &summary)),
        Some(stalled(facts, tally)),
    ]
}

/// Why the Application can't go on whatever its targets do. A missing Module or Secret is no such reason while anything runs.
fn refusal(facts: &Facts<'_>, tally: &Tally<'_>) -> Option<State> {
    if facts.deleting {
        return Some(state(false, ReasonCode::Terminating, ReasonCode::Terminating.sentence()));
    }
    let refusal = facts.refusal.or(facts.source_missing.filter(|_| tally.done() == 0))?;
    Some(state(false, refusal.reason, with_earlier(facts, refusal.message.clone())))
}

/// Why there is no target, if there is none.
fn no_targets(tally: &Tally<'_>) -> Option<ReasonCode> {
    let reason =
        if tally.unschedulable.is_empty() { ReasonCode::NoTargets } else { ReasonCode::Unschedulable };
    (tally.targets() == 0).then_some(reason)
}

fn ready(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    if let Some(refused) = refusal(facts, tally) {
        return refused;
    }
    let reason = if let Some(reason) = no_targets(tally) {
        reason
    } else if tally.failed.len() == tally.targets() {
        ReasonCode::AllFailed
    } else if !tally.failed.is_empty() {
        ReasonCode::SomeFailed
    } else if tally.waiting() {
        ReasonCode::WaitingForDevices
    } else if tally.done() == tally.targets() {
        return state(true, all_done(tally), summary);
    } else if tally.done() > 0 {
        return state(true, ReasonCode::ConnectedRunning, summary);
    } else {
        ReasonCode::NoneConnected
    };
    state(false, reason, summary)
}

fn all_done(tally: &Tally<'_>) -> ReasonCode {
    if tally.running == 0 { ReasonCode::AllSucceeded } else { ReasonCode::AllRunning }
}

fn complete(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    if let Some(refused) = refusal(facts, tally) {
        return refused;
    }
    match unfinished(facts, tally) {
        Some(reason) => state(false, reason, summary),
        None => state(true, all_done(tally), summary),
    }
}

/// What keeps some target from running this generation, or having run it.
fn unfinished(facts: &Facts<'_>, tally: &Tally<'_>) -> Option<ReasonCode> {
    if !facts.missing.is_empty() {
        Some(ReasonCode::DeviceNotFound)
    } else if let Some(reason) = no_targets(tally) {
        Some(reason)
    } else if tally.failed.len() == tally.targets() {
        Some(ReasonCode::AllFailed)
    } else if !tally.failed.is_empty() {
        Some(ReasonCode::SomeFailed)
    } else if tally.waiting() {
        Some(ReasonCode::WaitingForDevices)
    } else {
        (!tally.away.is_empty()).then_some(ReasonCode::DevicesAway)
    }
}

fn succeeded(facts: &Facts<'_>, tally: &Tally<'_>, summary: &str) -> State {
    if let Some(refused) = refusal(facts, tally) {
        return refused;
    }
    match unfinished(facts, tally) {
        Some(reason) => state(false, reason, summary),
        None if tally.running > 0 => state(false, ReasonCode::StillRunning, summary),
        None => state(true, ReasonCode::AllSucceeded, summary),
    }
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
    if facts.refusal.is_none() && facts.source_missing.is_none() && tally.waiting() {
        return state(true, ReasonCode::Deploying, summary);
    }
    state(false, ReasonCode::UpToDate, ReasonCode::UpToDate.sentence())
}

fn stalled(facts: &Facts<'_>, tally: &Tally<'_>) -> State {
    if let Some(refusal) = facts.refusal.filter(|_| !facts.deleting) {
        return state(true, refusal.reason, with_earlier(facts, refusal.message.clone()));
    }
    if let Some(refusal) = facts.source_missing.filter(|_| !facts.deleting) {
        let until = if is_of_secrets(refusal.reason) { "that is put right" } else { "it is back" };
        let message = format!(
            "{}; what devices run goes on, and nothing new can be deployed until {until}",
            refusal.message
        );
        return state(true, refusal.reason, with_earlier(facts, message));
    }
    if let Some((message, true)) = &facts.trouble {
        return state(true, ReasonCode::RetriesExhausted, message);
    }
    match tally.failed.first() {
        Some((device, refusal)) if !facts.deleting && !tally.waiting() => {
            state(true, refusal.reason, format!("{device}: {}", refusal.message))
        }
        Some(_) | None => state(false, ReasonCode::UpToDate, "nothing keeps the devices from what is wanted"),
    }
}

/// `2 of 3 targets run it; device-003 is not connected`.
fn summary(facts: &Facts<'_>, tally: &Tally<'_>) -> String {
    let targets = tally.targets();
    let of = if targets == 1 { "1 target".to_owned() } else { format!("{targets} targets") };
    let ended = tally.succeeded;
    let mut text = match (targets, tally.running) {
        (0, _) => "target_devices selects no Device that is let in and schedulable".to_owned(),
        (_, 0) if ended > 0 => format!("{ended} of {of} ran it to its end"),
        (1, running) => format!("{running} of {of} runs it"),
        (_, running) => format!("{running} of {of} run it"),
    };
    if ended > 0 && tally.running > 0 {
        let _ = write!(text, ", {ended} ran it to its end");
    }
    if let Some((device, refusal)) = tally.failed.first() {
        let _ = write!(text, "; {} failed ({device}: {})", tally.failed.len(), refusal.message);
    }
    let mut clause = |devices: &[&str], one: &str, many: &str| {
        let _ = match devices {
            [] => Ok(()),
            [device] => write!(text, "; {device} {one}"),
            devices => write!(text, "; {} {many}", names(devices)),
        };
    };
    let waiting = "not reported this generation yet";
    clause(&tally.pending, &format!("has {waiting}"), &format!("have {waiting}"));
    let young = format!("for less than {} s", facts.min_ready_s);
    clause(&tally.young, &format!("runs it {young}"), &format!("run it {young}"));
    clause(&facts.earlier, STILL_EARLIER.0, STILL_EARLIER.1);
    clause(&tally.away, "is not connected", "are not connected");
    clause(&facts.missing, "does not exist", "do not exist");
    clause(&tally.unschedulable, "is unschedulable and left out", "are unschedulable and left out");
    clause(&tally.not_approved, "is not approved and left out", "are not approved and left out");
    clause(&tally.revoked, "is revoked and left out", "are revoked and left out");
    let decommissioned = "taken out of service (spec.decommission) and left out";
    clause(&tally.decommissioned, &format!("is {decommissioned}"), &format!("are {decommissioned}"));
    text
}

const STILL_EARLIER: (&str, &str) = ("still runs an earlier generation", "still run an earlier generation");

fn with_earlier(facts: &Facts<'_>, message: String) -> String {
    match facts.earlier.as_slice() {
        [] => message,
        [device] => format!("{message}; {device} {}", STILL_EARLIER.0),
        devices => format!("{message}; {} {}", names(devices), STILL_EARLIER.1),
    }
}

fn names(devices: &[&str]) -> String {
    let shown = devices.len().min(NAMES_IN_MESSAGE_MAX);
    match (devices.len() - shown, &devices[..shown]) {
        (0, [first @ .., last]) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        (0, shown) => shown.join(", "),
        (more, shown) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// From the conditions; the counts tell only how much of a failed Application runs.
fn phase(
    [ready, _, succeeded, ..]: &[Option<State>; CONDITIONS.len()],
    tally: &Tally<'_>,
    facts: &Facts<'_>,
) -> ApplicationPhase {
    let Some(ready) = ready else { return ApplicationPhase::Pending };
    let something_runs = tally.done() + tally.young.len() + facts.earlier.len() > 0;
    if ready.reason == ReasonCode::Terminating {
        return ApplicationPhase::Terminating;
    }
    if succeeded.as_ref().is_some_and(|succeeded| succeeded.holds) {
        return ApplicationPhase::Completed;
    }
    match ready.reason {
        ReasonCode::ConnectedRunning if tally.running == 0 => ApplicationPhase::Deploying,
        ReasonCode::WaitingForDevices => ApplicationPhase::Deploying,
        ReasonCode::NoTargets | ReasonCode::Unschedulable | ReasonCode::NoneConnected => {
            ApplicationPhase::Pending
        }
        ReasonCode::SomeFailed if tally.done() == 0 && tally.waiting() => ApplicationPhase::Deploying,
        _ if ready.holds => ApplicationPhase::Running,
        _ if something_runs => ApplicationPhase::Degraded,
        _ => ApplicationPhase::Failed,
    }
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
