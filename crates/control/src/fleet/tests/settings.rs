//! Settings, as gateways are told of them, in the small world.

use std::collections::BTreeMap;

use wasmbed_api::{ApplicationSettings, SettingOverride, SettingScalar};
use wasmbed_protocol::decode_setting_values;

use super::*;
use crate::gateway_api::{DeviceSettings, PutSettingsAnswer, Refusal, SettingsRefusal};

fn scalars(values: &[(&str, i64)]) -> BTreeMap<String, SettingScalar> {
    values.iter().map(|(name, value)| ((*name).to_owned(), SettingScalar::Integer(*value))).collect()
}

fn with(values: &[(&str, i64)]) -> Option<ApplicationSettings> {
    Some(ApplicationSettings { values: scalars(values), ..ApplicationSettings::default() })
}

/// Devices that run an application whose module declares settings.
fn world(devices: usize, settings: Option<ApplicationSettings>) -> World {
    let mut world = running(devices);
    apply(&mut world, settings);
    world.advance(5_000);
    world
}

fn apply(world: &mut World, settings: Option<ApplicationSettings>) {
    if !world.applications.contains_key("app") {
        world.apply_application("app", DECLARING, all());
    }
    world.change_application("app", |object| object.spec.settings = settings);
}

fn shown(settings: &DeviceSettings) -> (String, Vec<String>) {
    let [application] = settings.applications.as_slice() else { panic!("{settings:?}") };
    let bytes = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, &application.values).unwrap();
    let values = decode_setting_values(&bytes).unwrap();
    let values = values.settings.iter().map(|it| format!("{} {}", it.name, it.value)).collect();
    (settings.device.name.clone(), values)
}

/// What the gateway is told now; it takes it.
fn told(world: &mut World) -> Vec<DeviceSettings> {
    let mut all = Vec::new();
    while let Some(put) = world.fleet.poll_settings(world.now) {
        assert_eq!(world.fleet.poll_settings(world.now), None, "one at a time");
        let outcome = SettingsOutcome::Answered(PutSettingsAnswer { refused: Vec::new() });
        world.fleet.handle_settings_outcome(world.now, &put.gateway, put.id, outcome);
        all.extend(put.body.devices);
    }
    all
}

#[test]
fn a_change_of_a_value_is_told_and_changes_no_set() {
    let mut world = world(2, with(&[("interval", 500)]));
    let first = told(&mut world);
    assert_eq!(first.len(), 2);
    assert_eq!(shown(&first[0]), ("device-000".to_owned(), vec!["interval 500".to_owned()]));
    world.advance(300_000);
    assert_eq!(told(&mut world), [], "once");
    let before = (world.puts, world.gateways["gateway-0"].sets["device-000"].0);
    apply(&mut world, with(&[("interval", 250)]));
    world.advance(5_000);
    let second = told(&mut world);
    assert_eq!(shown(&second[0]).1, ["interval 250"]);
    assert!(second[0].revision > first[0].revision);
    assert_eq!((world.puts, world.gateways["gateway-0"].sets["device-000"].0), before);
    assert_eq!(condition(&world, "app", "Ready").0, "True");
    // That nothing is set any more is said too.
    apply(&mut world, None);
    world.advance(5_000);
    assert_eq!(shown(&told(&mut world)[1]), ("device-001".to_owned(), vec![]));
}

#[test]
fn a_value_that_the_module_does_not_allow_leaves_devices_alone_and_is_in_the_status() {
    let mut world = world(1, with(&[("interval", 500)]));
    told(&mut world);
    apply(&mut world, with(&[("interval", 5_000)]));
    world.advance(5_000);
    assert_eq!(told(&mut world), []);
    assert_eq!(world.runs("device-000"), ["default/app".to_owned()].into());
    let failure = &world.status("app").failures[0];
    assert_eq!(failure.reason, ReasonCode::InvalidSetting);
    assert!(failure.message.contains("int 1..1000"), "{}", failure.message);
    apply(&mut world, with(&[("interval", 600)]));
    world.advance(5_000);
    assert_eq!(shown(&told(&mut world)[0]).1, ["interval 600"]);
    assert_eq!(world.status("app").phase, ApplicationPhase::Running);
}

#[test]
fn labels_of_a_device_decide_and_a_module_without_settings_is_not_spoken_of() {
    let mut settings = with(&[("interval", 500)]).unwrap();
    let labels = BTreeMap::from([("site".to_owned(), "lab".to_owned())]);
    let selector = k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
        match_labels: Some(labels.clone()),
        match_expressions: None,
    };
    settings.overrides.push(SettingOverride {
        selector: Some(selector),
        values: scalars(&[("interval", 10)]),
        ..SettingOverride::default()
    });
    let mut world = world(2, Some(settings));
    told(&mut world);
    world.edit_device("device-001", |device| device.metadata.labels = Some(labels));
    world.advance(5_000);
    let told_now = told(&mut world);
    assert_eq!(told_now.len(), 1);
    assert_eq!(shown(&told_now[0]), ("device-001".to_owned(), vec!["interval 10".to_owned()]));

    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    assert_eq!(told(&mut world), []);
}

#[test]
fn a_new_leader_and_a_gateway_that_begins_anew_are_told_again() {
    let mut world = world(1, with(&[("interval", 500)]));
    let first = told(&mut world)[0].revision;
    world.fleet.handle_leadership(world.now, None);
    world.fleet.handle_leadership(world.now, Some(9));
    world.advance(5_000);
    let second = told(&mut world)[0].revision;
    assert_eq!((first >> 32, second >> 32), (1, 9));
    world.fleet.handle_stream(world.now, "gateway-0", StreamEvent::Snapshot { boot_id: String::new() });
    world.fleet.handle_stream(world.now, "gateway-0", StreamEvent::SnapshotEnd { token: String::new() });
    world.advance(5_000);
    assert_eq!(told(&mut world).first().map(|settings| settings.revision), Some(second));
}

#[test]
fn what_a_gateway_did_not_take_is_tried_again_and_one_that_is_too_old_is_left_alone() {
    let mut world = world(2, with(&[("interval", 500)]));
    let put = world.fleet.poll_settings(world.now).unwrap();
    let refusal = SettingsRefusal { device: key("device-001"), message: "no".to_owned() };
    let outcome = SettingsOutcome::Answered(PutSettingsAnswer { refused: vec![refusal] });
    world.fleet.handle_settings_outcome(world.now, &put.gateway, put.id, outcome);
    assert_eq!(world.fleet.poll_settings(world.now), None, "after a pause");
    world.advance(5_000);
    let again = world.fleet.poll_settings(world.now).unwrap();
    assert_eq!(again.body.devices.len(), 1);
    world.fleet.handle_settings_outcome(world.now, &again.gateway, again.id, SettingsOutcome::TooOld);
    world.advance(5_000);
    assert_eq!(world.fleet.poll_settings(world.now), None);
    world.advance(3_600_000);
    let fenced = world.fleet.poll_settings(world.now).expect("it may have been upgraded");
    let message = String::new();
    let refusal = Refusal { reason: String::new(), message, leader_term: Some(7) };
    let outcome = SettingsOutcome::Fenced(refusal);
    world.fleet.handle_settings_outcome(world.now, &fenced.gateway, fenced.id, outcome);
    assert_eq!(world.fleet.term_wanted(), Some(8));
}
