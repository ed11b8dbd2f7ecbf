use wasmbed_api::DeviceApplication;
use wasmbed_protocol::{ApplicationUid, SpecHash};

use super::*;

const HASH: SpecHash = SpecHash([1; 32]);

fn facts<'a>(target_states: &[(&'a str, TargetState)]) -> Facts<'a> {
    let connected = target_states
        .iter()
        .filter(|(_, standing)| *standing != TargetState::Away && *standing != TargetState::Succeeded)
        .count();
    Facts { generation: 3, target_states: target_states.to_vec(), connected, ..Facts::default() }
}

fn failed(reason: ReasonCode) -> TargetState {
    TargetState::Failed(ModuleRefusal { reason, message: "it went wrong".to_owned() })
}

fn status(facts: &Facts<'_>) -> ApplicationStatus {
    plan_status(facts, &Published::default(), 10_000)
}

fn condition<'a>(status: &'a ApplicationStatus, type_: &str) -> &'a Condition {
    status.conditions.iter().find(|condition| condition.type_ == type_).unwrap()
}

/// `type=True/Reason` of each condition.
fn conditions_text(status: &ApplicationStatus) -> Vec<String> {
    status.conditions.iter().map(|c| format!("{}={}/{}", c.type_, c.status, c.reason)).collect()
}

#[test]
fn all_targets_run_it() {
    let status = status(&facts(&[("a", TargetState::Running), ("b", TargetState::Running)]));
    assert_eq!(status.phase, ApplicationPhase::Running);
    assert_eq!(
        conditions_text(&status),
        [
            "Ready=True/AllRunning",
            "Complete=True/AllRunning",
            "Reconciling=False/UpToDate",
            "Stalled=False/UpToDate"
        ]
    );
    assert_eq!(status.ready, "2/2");
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn conditions_of_others_stay() {
    let facts = facts(&[("a", TargetState::Running)]);
    let mut before = status(&facts);
    let other = Condition { type_: "Inspected".to_owned(), ..before.conditions[0].clone() };
    before.conditions.insert(0, other.clone());
    let published = Published::of(Some(&before));
    let after = plan_status(&facts, &published, 20_000);
    assert_eq!(after.conditions.last(), Some(&other));
    assert!(Published::of(Some(&after)).says(&plan_status(&facts, &Published::of(Some(&after)), 30_000)));
}

#[test]
fn a_device_in_a_drawer_blocks_complete_and_not_ready() {
    let target_states = [
        ("device-001", TargetState::Running),
        ("device-002", TargetState::Running),
        ("device-003", TargetState::Away),
    ];
    let status = status(&facts(&target_states));
    assert_eq!(status.phase, ApplicationPhase::Running);
    assert_eq!(
        conditions_text(&status),
        [
            "Ready=True/ConnectedRunning",
            "Complete=False/DevicesAway",
            "Reconciling=False/UpToDate",
            "Stalled=False/UpToDate"
        ]
    );
    assert_eq!(condition(&status, "Complete").message, "2 of 3 targets run it; device-003 is not connected");
    assert_eq!((status.counts.connected, status.counts.running, status.counts.pending), (2, 2, 1));
}

#[test]
fn a_connected_target_on_its_way_blocks_ready() {
    let status = status(&facts(&[("a", TargetState::Running), ("b", TargetState::Pending)]));
    assert_eq!(status.phase, ApplicationPhase::Deploying);
    assert_eq!(
        conditions_text(&status),
        [
            "Ready=False/WaitingForDevices",
            "Complete=False/WaitingForDevices",
            "Reconciling=True/Deploying",
            "Stalled=False/UpToDate"
        ]
    );
}

#[test]
fn some_failed() {
    let status = status(&facts(&[("a", TargetState::Running), ("b", failed(ReasonCode::Trapped))]));
    assert_eq!(status.phase, ApplicationPhase::Degraded);
    assert_eq!(
        conditions_text(&status),
        [
            "Ready=False/SomeFailed",
            "Complete=False/SomeFailed",
            "Reconciling=False/UpToDate",
            "Stalled=True/Trapped"
        ]
    );
    assert_eq!(status.failures.len(), 1);
    assert_eq!(status.failures[0].reason, ReasonCode::Trapped);
}

#[test]
fn all_failed() {
    let status = status(&facts(&[("a", failed(ReasonCode::OutOfMemory))]));
    assert_eq!(status.phase, ApplicationPhase::Failed);
    assert_eq!(condition(&status, "Ready").reason, "AllFailed");
    assert!(condition(&status, "Ready").message.contains("it went wrong"));
}

#[test]
fn none_connected_is_pending_and_nobody_failed() {
    let status = status(&facts(&[("a", TargetState::Away)]));
    assert_eq!(status.phase, ApplicationPhase::Pending);
    assert_eq!(condition(&status, "Ready").reason, "NoneConnected");
    assert_eq!(condition(&status, "Ready").message, "0 of 1 target runs it; a is not connected");
}

#[test]
fn no_targets_and_missing_ones() {
    assert_eq!(condition(&status(&facts(&[])), "Ready").reason, "NoTargets");
    let mut some = facts(&[("a", TargetState::Running)]);
    some.missing = vec!["x", "y"];
    let status = status(&some);
    assert_eq!(condition(&status, "Ready").reason, "AllRunning");
    assert_eq!(condition(&status, "Complete").reason, "DeviceNotFound");
    assert_eq!(condition(&status, "Complete").message, "1 of 1 target runs it; x and y do not exist");
    assert_eq!(status.counts.missing, 2);
}

#[test]
fn unschedulable_targets_do_not_fail() {
    let status = status(&facts(&[("a", TargetState::Unschedulable)]));
    assert_eq!(status.phase, ApplicationPhase::Pending);
    assert_eq!(condition(&status, "Ready").reason, "Unschedulable");
    assert_eq!(condition(&status, "Complete").reason, "Unschedulable");
}

#[test]
fn a_refused_application_says_why_in_every_condition() {
    let refusal =
        ModuleRefusal { reason: ReasonCode::InvalidBase64, message: "spec.wasm_bytes: bad".to_owned() };
    let mut some = facts(&[("a", TargetState::Failed(refusal.clone()))]);
    some.refusal = Some(&refusal);
    let status = status(&some);
    assert_eq!(status.phase, ApplicationPhase::Failed);
    assert_eq!(
        conditions_text(&status),
        [
            "Ready=False/InvalidBase64",
            "Complete=False/InvalidBase64",
            "Reconciling=False/UpToDate",
            "Stalled=True/InvalidBase64"
        ]
    );
}

#[test]
fn a_gateway_that_does_not_answer_shows() {
    let mut some = facts(&[("a", TargetState::Pending)]);
    some.trouble = Some(("gateway g: no connection".to_owned(), false));
    assert_eq!(condition(&status(&some), "Reconciling").reason, "Retrying");
    some.trouble = Some(("gateway g: no connection".to_owned(), true));
    let given_up = status(&some);
    assert_eq!(condition(&given_up, "Reconciling").status, "False");
    assert_eq!(condition(&given_up, "Stalled").reason, "RetriesExhausted");
    assert_eq!(condition(&given_up, "Stalled").status, "True");
}

#[test]
fn deletion_shows_in_phase_and_conditions() {
    let mut some = facts(&[("a", TargetState::Running)]);
    some.deleting = true;
    let status = status(&some);
    assert_eq!(status.phase, ApplicationPhase::Terminating);
    assert_eq!(condition(&status, "Reconciling").reason, "Terminating");
}

#[test]
fn failures_are_listed_up_to_a_bound_and_counted_beyond_it() {
    let names: Vec<String> = (0..200).map(|n| format!("device-{n:03}")).collect();
    let target_states: Vec<_> =
        names.iter().map(|name| (name.as_str(), failed(ReasonCode::Trapped))).collect();
    let status = status(&facts(&target_states));
    assert_eq!(status.failures.len(), FAILURES_MAX);
    assert_eq!(status.counts.failed, 200);
    assert_eq!(status.failures[0].device, "device-000");
}

#[test]
fn many_names_are_counted() {
    assert_eq!(names(&["a", "b"]), "a and b");
    assert_eq!(names(&["a", "b", "c"]), "a, b and c");
    assert_eq!(names(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
}

#[test]
fn a_condition_keeps_its_time_while_its_value_stays() {
    let first = plan_status(&facts(&[("a", TargetState::Running)]), &Published::default(), 10_000);
    let published = Published::of(Some(&first));
    assert!(published.says(&first));
    let second = plan_status(&facts(&[("a", TargetState::Pending)]), &published, 20_000);
    assert_eq!(condition(&second, "Ready").last_transition_time, time(20));
    assert_eq!(condition(&second, "Stalled").last_transition_time, time(10));
    assert!(!published.says(&second));
}

#[test]
fn events_are_for_transitions_only() {
    let running = status(&facts(&[("a", TargetState::Running)]));
    let first = Published::default().transitions(&running);
    assert_eq!(
        first.iter().map(|t| (t.reason, t.warning)).collect::<Vec<_>>(),
        [(ReasonCode::AllRunning, false)]
    );
    assert_eq!(Published::of(Some(&running)).transitions(&running), []);
    let failed = status(&facts(&[("a", failed(ReasonCode::Trapped))]));
    let second = Published::of(Some(&running)).transitions(&failed);
    let told: Vec<_> = second.iter().map(|t| (t.reason, t.warning)).collect();
    assert_eq!(told, [(ReasonCode::AllFailed, true), (ReasonCode::Trapped, true)]);
}

fn report(state: DeviceApplicationState, reason: Option<ReasonCode>) -> ReportedApplication {
    report_of(HASH, state, reason)
}

fn report_of(
    spec_hash: SpecHash,
    state: DeviceApplicationState,
    reason: Option<ReasonCode>,
) -> ReportedApplication {
    let entry = DeviceApplication {
        uid: ApplicationUid([1; 16]).to_string(),
        spec_hash: spec_hash.to_string(),
        state,
        reason,
        ..DeviceApplication::default()
    };
    ReportedApplication::read_one(&entry).unwrap()
}

#[test]
fn only_a_report_of_this_generation_by_a_connected_device_counts() {
    use DeviceApplicationState as S;
    let judge = |connected, report: Option<&ReportedApplication>| {
        plan_target_state(&Placement::Placed, connected, RestartPolicy::Never, Some(HASH), report)
    };
    assert_eq!(judge(true, Some(&report(S::Running, None))), TargetState::Running);
    assert_eq!(judge(false, Some(&report(S::Running, None))), TargetState::Away);
    assert_eq!(judge(true, None), TargetState::Pending);
    let other = report_of(SpecHash([2; 32]), S::Running, None);
    assert_eq!(judge(true, Some(&other)), TargetState::Pending);
    assert_eq!(judge(true, Some(&report(S::Starting, None))), TargetState::Pending);
    assert_eq!(judge(true, Some(&report(S::Unknown, None))), TargetState::Pending);
    assert_eq!(judge(true, Some(&report(S::Completed, Some(ReasonCode::Exited)))), TargetState::Succeeded);
    assert_eq!(judge(false, Some(&report(S::Completed, Some(ReasonCode::Exited)))), TargetState::Succeeded);
    assert!(matches!(
        judge(false, Some(&report(S::Failed, Some(ReasonCode::Trapped)))),
        TargetState::Failed(_)
    ));
    assert_eq!(judge(false, Some(&report(S::Failed, Some(ReasonCode::OutOfMemory)))), TargetState::Away);
    assert!(matches!(
        judge(true, Some(&report(S::Completed, Some(ReasonCode::Trapped)))),
        TargetState::Failed(_)
    ));
    let TargetState::Failed(refusal) = judge(true, Some(&report(S::CrashLoop, Some(ReasonCode::CpuLimit))))
    else {
        panic!()
    };
    assert_eq!(refusal.message, ReasonCode::CpuLimit.sentence());
}
