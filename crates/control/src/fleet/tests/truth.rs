//! A status that says what devices run: ended applications, missing Modules, strangers, places, a least time of health.

use wasmbed_api::{DeviceApplicationState, ReasonCode};

use super::{
    condition, running,
    world::{LARGE, Report, World, all, names},
};

fn phase(world: &World, application: &str) -> String {
    format!("{:?}", world.status(application).phase)
}

/// `True/Reason`, or `absent`.
fn told(world: &World, application: &str, type_: &str) -> String {
    let status = world.status(application);
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    found.map_or("absent".to_owned(), |found| format!("{}/{}", found.status, found.reason))
}

#[test]
fn an_application_that_ended_with_0_everywhere_has_succeeded() {
    let mut world = running(2);
    world.apply_once("job", 1, all());
    world.advance(5_000);
    world.report("device-000", "job", Report::EXITED);
    world.advance(5_000);
    assert_eq!(told(&world, "job", "Complete"), "True/AllRunning");
    assert_eq!(told(&world, "job", "Succeeded"), "False/StillRunning");
    world.report("device-001", "job", Report::EXITED);
    world.advance(5_000);
    assert_eq!(phase(&world, "job"), "Completed");
    assert_eq!(told(&world, "job", "Succeeded"), "True/AllSucceeded");
    assert_eq!(told(&world, "job", "Complete"), "True/AllSucceeded");
    assert_eq!(world.status("job").ready, "2/2");
    world.disconnect("device-001");
    world.advance(5_000);
    assert_eq!(told(&world, "job", "Succeeded"), "True/AllSucceeded", "what it reported stays true");
}

#[test]
fn a_deleted_module_leaves_what_runs_and_says_that_it_is_missing() {
    let mut world = running(2);
    world.set_module("m", Some(1));
    world.apply_application("app", 1, names(&["device-000"]));
    world.change_application("app", |object| object.spec.module = Some("m".to_owned()));
    world.advance(5_000);
    assert_eq!(phase(&world, "app"), "Running");
    world.set_module("m", None);
    world.advance(5_000);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Running", "1/1"));
    assert_eq!(told(&world, "app", "Ready"), "True/AllRunning");
    assert_eq!(told(&world, "app", "Stalled"), "True/ModuleNotFound");
    let (_, _, message) = condition(&world, "app", "Stalled");
    assert!(message.contains("'m'") && message.contains("until it is back"), "{message}");
    world.lead();
    world.advance(5_000);
    assert_eq!(world.status("app").ready, "1/1", "a new leader says the same");
    assert_eq!(told(&world, "app", "Stalled"), "True/ModuleNotFound");
    world.change_application("app", |object| object.spec.target_devices = Some(all()));
    world.set_module("m", Some(1));
    world.advance(5_000);
    assert_eq!(
        (world.status("app").ready.as_str(), told(&world, "app", "Stalled").as_str()),
        ("2/2", "False/UpToDate")
    );
}

#[test]
fn a_new_target_of_an_application_without_its_module_fails_and_says_so() {
    let mut world = running(2);
    world.set_module("m", Some(1));
    world.apply_application("app", 1, names(&["device-000"]));
    world.change_application("app", |object| object.spec.module = Some("m".to_owned()));
    world.advance(5_000);
    world.set_module("m", None);
    world.change_application("app", |object| object.spec.target_devices = Some(all()));
    world.advance(5_000);
    let status = world.status("app");
    assert_eq!((phase(&world, "app").as_str(), status.ready.as_str()), ("Degraded", "1/2"));
    let failure = &status.failures[0];
    assert_eq!((failure.device.as_str(), failure.reason), ("device-001", ReasonCode::ModuleNotFound));
}

#[test]
fn a_device_that_is_not_let_in_is_no_target() {
    let mut world = running(1);
    for (name, approved, revoked) in [("stranger", false, false), ("stolen", true, true)] {
        world.create_device(name);
        let (object, _) = world.devices.get_mut(name).unwrap();
        (object.spec.approved, object.spec.revoked) = (approved, revoked);
        world.send_device(name);
    }
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let status = world.status("app");
    assert_eq!((status.ready.as_str(), status.counts.targets), ("1/1", 1));
    let (status, reason, message) = condition(&world, "app", "Complete");
    assert_eq!((status.as_str(), reason.as_str()), ("True", "AllRunning"));
    assert!(
        message.contains("stolen is revoked") && message.contains("stranger is not approved"),
        "{message}"
    );
}

#[test]
fn ended_applications_leave_their_places_and_are_not_run_again() {
    let mut world = running(1);
    for n in 0..14 {
        let name = format!("job{n:02}");
        world.apply_once(&name, 1, all());
        world.advance(3_000);
        assert_eq!(phase(&world, &name), "Running", "{name} has a place");
        world.report("device-000", &name, Report::EXITED);
        world.advance(3_000);
    }
    for n in 0..14 {
        assert_eq!(phase(&world, &format!("job{n:02}")), "Completed", "job{n:02}");
    }
    let runs = world.runs("device-000");
    assert_eq!(runs.len(), 10);
    world.lead();
    world.advance(60_000);
    assert_eq!(world.runs("device-000"), runs, "a new leader sends nothing again");
    assert_eq!(phase(&world, "job00"), "Completed");
}

#[test]
fn an_application_that_traps_within_min_ready_seconds_was_never_ready() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.change_application("app", |object| {
        object.spec = serde_json::from_value({
            let mut spec = serde_json::to_value(&object.spec).unwrap();
            spec["min_ready_seconds"] = 10.into();
            spec
        })
        .unwrap();
    });
    world.advance(5_000);
    assert_eq!(told(&world, "app", "Ready"), "False/WaitingForDevices");
    let trapped =
        Report { state: DeviceApplicationState::CrashLoop, reason: Some(ReasonCode::Trapped), restarts: 0 };
    world.report("device-000", "app", trapped);
    world.advance(1_000);
    assert_eq!(told(&world, "app", "Stalled"), "True/Trapped");
    let again = Report { state: DeviceApplicationState::Running, reason: None, restarts: 1 };
    world.report("device-000", "app", again);
    world.advance(9_000);
    assert_eq!(told(&world, "app", "Ready"), "False/WaitingForDevices", "its time begins again");
    world.advance(2_000);
    assert_eq!(told(&world, "app", "Ready"), "True/AllRunning");
}

/// One device that runs `app`, whose Module is `m`.
fn running_a_module() -> World {
    let mut world = running(1);
    world.set_module("m", Some(1));
    world.apply_application("app", 1, all());
    world.change_application("app", |object| object.spec.module = Some("m".to_owned()));
    world.advance(5_000);
    assert_eq!(phase(&world, "app"), "Running");
    world
}

#[test]
fn a_gateway_that_lost_a_module_that_nobody_has_any_more_is_named() {
    let mut world = running_a_module();
    world.set_module("m", None);
    world.restart_gateway("gateway-0", true);
    world.connect("device-000", "gateway-0");
    world.advance(5_000);
    assert_eq!(world.status("app").ready, "1/1", "the device goes on");
    let (_, reason, message) = condition(&world, "app", "Reconciling");
    assert_eq!(reason, "Retrying");
    assert_eq!(message, "gateway gateway-0 lacks the module of default/app, and no object holds it");
    world.set_module("m", Some(1));
    world.advance(60_000);
    assert_eq!(told(&world, "app", "Reconciling"), "False/UpToDate");
}

#[test]
fn what_cannot_be_added_beside_a_missing_module_says_why_after_a_change_of_leader() {
    let mut world = running_a_module();
    world.set_module("m", None);
    world.lead();
    world.apply_application("next", 2, all());
    world.advance(5_000);
    let status = world.status("next");
    assert_eq!(
        (phase(&world, "next").as_str(), status.failures[0].reason),
        ("Failed", ReasonCode::ModuleNotFound)
    );
    assert!(status.failures[0].message.contains("default/app, whose Module is missing"), "{status:?}");
    assert_eq!(world.runs("device-000").len(), 1);
    world.set_module("m", Some(1));
    world.advance(5_000);
    assert_eq!(phase(&world, "next"), "Running");
}

#[test]
fn a_module_that_came_back_with_other_bytes_is_a_change_like_any_other() {
    let mut world = running_a_module();
    world.set_module("m", None);
    world.gateway_fails = true;
    world.set_module("m", Some(2));
    world.advance(1_500);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Deploying", "0/1"));
    let (_, _, message) = condition(&world, "app", "Ready");
    assert!(message.contains("device-000 still runs an earlier generation"), "{message}");
    world.gateway_fails = false;
    world.advance(60_000);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Running", "1/1"));
}

#[test]
fn an_invalid_change_leaves_what_runs_and_says_so() {
    let mut world = running(2);
    world.apply_application("app", 1, names(&["device-000"]));
    world.advance(5_000);
    let runs = world.runs("device-000");
    world.spoil("app", "spec.wasm_bytes is no base64");
    world.change_application("app", |object| object.spec.target_devices = Some(all()));
    world.advance(5_000);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Degraded", "0/2"));
    let (_, reason, message) = condition(&world, "app", "Ready");
    assert_eq!(reason, "InvalidBase64");
    assert!(message.contains("device-000 still runs an earlier generation"), "{message}");
    assert_eq!(told(&world, "app", "Stalled"), "True/InvalidBase64");
    assert_eq!(world.status("app").counts.failed, 2);
    assert_eq!(world.runs("device-000"), runs);
    assert!(world.runs("device-001").is_empty());
    // What comes later finds its place beside it.
    world.apply_application("next", 2, all());
    world.advance(5_000);
    assert_eq!(phase(&world, "next"), "Running");
    // A new leader does not know what it was, and leaves it alone.
    world.lead();
    world.advance(60_000);
    assert_eq!(world.runs("device-000").len(), 2);
    world.apply_application("third", 2, names(&["device-000"]));
    world.advance(5_000);
    let status = world.status("third");
    assert_eq!(status.failures[0].reason, ReasonCode::InvalidBase64);
    assert!(status.failures[0].message.contains("an earlier generation of default/app"), "{status:?}");
    world.apply_application("app", 2, names(&["device-000"]));
    world.advance(60_000);
    assert_eq!((phase(&world, "app").as_str(), phase(&world, "third").as_str()), ("Running", "Running"));
}

/// Two devices that run `app`, whose next generation `device-001` can't run.
fn running_on_a_small_one() -> World {
    let mut world = World::new(2, 1);
    world.small.insert("device-001".to_owned());
    for device in ["device-000", "device-001"] {
        world.connect(device, "gateway-0");
    }
    world.lead();
    world.apply_application("app", 1, all());
    world.advance(5_000);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Running", "2/2"));
    world
}

/// The modules that a device runs, by the first byte of their digest.
fn modules(world: &World, device: &str) -> Vec<String> {
    let runs = &world.devices[device].1.runs;
    runs.iter().map(|entry| entry.digest[..2].to_owned()).collect()
}

#[test]
fn a_device_that_cannot_run_a_change_keeps_the_earlier_generation_and_the_status_says_so() {
    let mut world = running_on_a_small_one();
    world.apply_application("app", LARGE, all());
    world.advance(5_000);
    assert_eq!(modules(&world, "device-000"), ["64"]);
    assert_eq!(modules(&world, "device-001"), ["01"], "it goes on with what it can run");
    let status = world.status("app");
    assert_eq!((phase(&world, "app").as_str(), status.ready.as_str()), ("Degraded", "1/2"));
    assert_eq!((status.counts.running, status.counts.failed), (1, 1));
    let failure = &status.failures[0];
    assert_eq!((failure.device.as_str(), failure.reason), ("device-001", ReasonCode::ModuleTooLarge));
    let (_, reason, message) = condition(&world, "app", "Ready");
    assert_eq!(reason, "SomeFailed");
    assert!(message.contains("device-001 still runs an earlier generation"), "{message}");

    // Whatever comes next is judged anew; what it keeps stays the one that it has.
    world.apply_application("app", LARGE + 1, all());
    world.spoil("app", "spec.wasm_bytes is no base64");
    world.advance(5_000);
    assert_eq!(
        (modules(&world, "device-000"), modules(&world, "device-001")),
        (vec!["64".into()], vec!["01".into()])
    );
    world.apply_application("next", 3, all());
    world.advance(5_000);
    assert_eq!(phase(&world, "next"), "Running", "there is room beside it");
    world.apply_application("app", 2, all());
    world.advance(5_000);
    assert_eq!(world.status("app").ready, "2/2");
    assert_eq!(modules(&world, "device-001"), ["02", "03"]);

    // It goes where it is not wanted any more, or was never.
    world.apply_application("app", LARGE, all());
    world.advance(5_000);
    world.change_application("app", |object| object.spec.target_devices = Some(names(&["device-000"])));
    world.advance(5_000);
    assert_eq!(modules(&world, "device-001"), ["03"]);
    world.change_application("app", |object| object.spec.target_devices = Some(all()));
    world.advance(5_000);
    assert_eq!(modules(&world, "device-001"), ["03"]);
}

#[test]
fn what_a_device_keeps_of_an_earlier_generation_survives_a_gateway_with_an_empty_disk() {
    let mut world = running_on_a_small_one();
    world.set_module("first", Some(1));
    world.set_module("second", Some(LARGE));
    world.change_application("app", |object| object.spec.module = Some("first".to_owned()));
    world.advance(5_000);
    world.change_application("app", |object| object.spec.module = Some("second".to_owned()));
    world.advance(5_000);
    world.restart_gateway("gateway-0", true);
    world.connect("device-000", "gateway-0");
    world.connect("device-001", "gateway-0");
    world.advance(60_000);
    assert_eq!(
        (modules(&world, "device-000"), modules(&world, "device-001")),
        (vec!["64".into()], vec!["01".into()])
    );
    assert_eq!(told(&world, "app", "Reconciling"), "False/UpToDate", "the Module of before is still there");
    let held = &world.gateways["gateway-0"].sets["device-001"].1;
    assert!(held[0].digest.starts_with("01"), "the gateway has it again");
}

#[test]
fn a_new_leader_leaves_alone_what_a_device_keeps_of_an_earlier_generation() {
    let mut world = running_on_a_small_one();
    world.apply_application("app", LARGE, all());
    world.advance(5_000);
    world.lead();
    world.advance(60_000);
    assert_eq!(modules(&world, "device-001"), ["01"]);
    assert_eq!((phase(&world, "app").as_str(), world.status("app").ready.as_str()), ("Degraded", "1/2"));
    world.apply_application("next", 2, all());
    world.advance(5_000);
    let failure = &world.status("next").failures[0];
    assert_eq!((failure.device.as_str(), failure.reason), ("device-001", ReasonCode::ModuleTooLarge));
    assert!(failure.message.contains("an earlier generation of default/app"), "{failure:?}");
    world.apply_application("app", 2, all());
    world.advance(60_000);
    assert_eq!((phase(&world, "app").as_str(), phase(&world, "next").as_str()), ("Running", "Running"));
}

#[test]
fn an_application_that_cannot_be_read_goes_on_where_it_runs() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    world.unreadable.insert("app".to_owned());
    world.list();
    world.advance(60_000);
    assert_eq!(modules(&world, "device-000"), ["01"], "a list in which it can't be read");
    world.lead();
    world.advance(60_000);
    assert_eq!(modules(&world, "device-000"), ["01"], "a leader that has never read it");
    world.apply_application("next", 2, all());
    world.advance(5_000);
    let failure = &world.status("next").failures[0];
    assert_eq!(failure.reason, ReasonCode::Unsupported);
    assert!(
        failure.message.contains("default/app, which this version of the controller can't read"),
        "{failure:?}"
    );
    world.unreadable.clear();
    world.send_application("app");
    world.advance(60_000);
    assert_eq!((phase(&world, "app").as_str(), phase(&world, "next").as_str()), ("Running", "Running"));
}
