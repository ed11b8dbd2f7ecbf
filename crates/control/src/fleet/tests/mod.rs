//! The fleet as a whole, in a small world.

mod approval;
mod brokers;
mod decommission;
mod model;
mod quotas;
mod secrets;
mod settings;
mod truth;
mod world;

use serde_json::json;
use wasmbed_api::{
    ApplicationPhase,
    DeviceApplicationState::{Failed, Running},
    DevicePhase, ReasonCode,
};

use super::*;
use crate::gateway_api::StreamEvent;
use world::{APPLICATION_BYTES, DECLARING, Report, World, all, key, names};

fn condition(world: &World, application: &str, type_: &str) -> (String, String, String) {
    let status = world.status(application);
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
    (condition.status.clone(), condition.reason.clone(), condition.message.clone())
}

fn running(devices: usize) -> World {
    let mut world = World::new(devices, 1);
    for name in world.devices.keys().cloned().collect::<Vec<_>>() {
        world.connect(&name, "gateway-0");
    }
    world.lead();
    world
}

#[test]
fn an_application_travels_to_its_devices_and_its_status_says_so() {
    let mut world = running(3);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    for device in ["device-000", "device-001", "device-002"] {
        assert_eq!(world.runs(device), ["default/app".to_owned()].into());
    }
    let status = world.status("app");
    assert_eq!(status.phase, ApplicationPhase::Running);
    assert_eq!(status.ready, "3/3");
    assert!(status.module_digest.unwrap().starts_with("sha256:0101"));
    assert_eq!(world.gateways["gateway-0"].uploads.len(), 1, "a module is uploaded once");
    assert!(world.applications["app"].0.metadata.finalizers.is_some());
    assert!(world.events.iter().any(|event| event.reason == ReasonCode::AllRunning && !event.warning));
}

#[test]
fn events_beyond_the_bound_of_an_application_are_counted() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let trapped = Report { state: Failed, reason: Some(ReasonCode::Trapped), restarts: 0 };
    for _ in 0..40 {
        world.report("device-000", "app", trapped);
        world.advance(2_000);
        world.report("device-000", "app", Report { state: Running, reason: None, restarts: 0 });
        world.advance(2_000);
    }
    let (written, dropped) = (world.events.len(), world.fleet.gauges().events_dropped);
    assert!(written <= 30 && dropped >= 40, "{written} written, {dropped} dropped");
    let waiting = world.fleet.gauges().events_dropped;
    world.fleet.handle_leadership(world.now, None);
    assert_eq!(world.fleet.gauges().events_dropped, waiting, "none waited");
}

#[test]
fn nothing_is_written_or_sent_once_everything_is_as_it_should_be() {
    let mut world = running(3);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let counts = |world: &World| (world.puts, world.announcements, world.status_writes, world.events.len());
    let before = counts(&world);
    world.advance(300_000);
    assert_eq!(counts(&world), before);
}

#[test]
fn a_device_that_is_away_blocks_complete_and_gets_the_application_when_it_returns() {
    let mut world = running(2);
    world.disconnect("device-001");
    world.apply_application("app", 1, names(&["device-000", "device-001"]));
    world.advance(5_000);
    assert_eq!(condition(&world, "app", "Ready").0, "True");
    let (status, reason, message) = condition(&world, "app", "Complete");
    assert_eq!((status.as_str(), reason.as_str()), ("False", "DevicesAway"));
    assert_eq!(message, "1 of 2 targets runs it; device-001 is not connected".replace("runs", "run"));
    assert!(world.gateways["gateway-0"].sets.contains_key("device-001"), "its set waits at the gateway");
    world.connect("device-001", "gateway-0");
    world.advance(5_000);
    assert_eq!(condition(&world, "app", "Complete").0, "True");
}

#[test]
fn an_update_is_counted_only_when_devices_report_it() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    world.gateway_fails = true;
    world.apply_application("app", 2, all());
    world.advance(1_500);
    assert_eq!(world.status("app").phase, ApplicationPhase::Deploying);
    assert_eq!(world.status("app").counts.running, 0);
    assert_eq!(condition(&world, "app", "Reconciling").1, "Retrying");
    world.advance(20_000);
    assert_eq!(condition(&world, "app", "Stalled").1, "RetriesExhausted");
    let puts = world.puts;
    world.gateway_fails = false;
    world.advance(60_000);
    assert!(world.puts <= puts + 2);
    assert_eq!(world.status("app").phase, ApplicationPhase::Running);
}

#[test]
fn deletion_waits_for_connected_devices_and_not_for_those_away() {
    let mut world = running(2);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    world.disconnect("device-001");
    world.delete_application("app");
    world.advance(2_000);
    assert!(!world.applications.contains_key("app"));
    assert!(world.runs("device-000").is_empty());
    assert!(world.events.iter().any(|event| event.reason == ReasonCode::Undeployed));
    world.connect("device-001", "gateway-0");
    world.advance(1_000);
    assert!(world.runs("device-001").is_empty(), "a device that returns lets go of it");
}

#[test]
fn deletion_lets_go_after_its_bound_with_an_event() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    world.gateway_fails = true;
    world.delete_application("app");
    world.advance(50_000);
    assert_eq!(world.status("app").phase, ApplicationPhase::Terminating);
    world.advance(11_000);
    assert!(!world.applications.contains_key("app"));
    let event = world.events.iter().find(|event| event.reason == ReasonCode::UndeployTimeout).unwrap();
    assert!(event.warning);
    world.gateway_fails = false;
    world.advance(60_000);
    assert!(world.runs("device-000").is_empty());
}

fn has_finalizer(world: &World, device: &str) -> bool {
    world.devices[device].0.metadata.finalizers.iter().flatten().count() == 1
}

#[test]
fn a_deleted_device_goes_once_it_runs_nothing_any_more() {
    let mut world = running(2);
    world.apply_application("app", 1, all());
    world.advance(config::DEVICE_FINALIZER_DELAY_MS - 1_000);
    assert!(!has_finalizer(&world, "device-000"), "a deployment is not slowed down by it");
    world.advance(5_000);
    assert!(has_finalizer(&world, "device-000") && has_finalizer(&world, "device-001"));
    // The gateway does not answer: the Device stays.
    world.gateway_fails = true;
    world.delete_device("device-000");
    world.advance(10_000);
    assert!(world.devices.contains_key("device-000"));
    world.gateway_fails = false;
    world.advance(30_000);
    assert!(!world.devices.contains_key("device-000"), "it went once its device had let go");
    assert!(world.device_events.is_empty());
    assert_eq!(world.status("app").counts.targets, 1);
}

#[test]
fn a_deleted_device_that_is_away_goes_at_once_and_an_event_says_what_may_run() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(10_000);
    world.disconnect("device-000");
    world.delete_device("device-000");
    world.advance(1_000);
    assert!(!world.devices.contains_key("device-000"));
    let [event] = world.device_events.as_slice() else { panic!("{:?}", world.device_events) };
    assert_eq!((event.reason, event.warning), (ReasonCode::RunningUnknown, true));
    assert_eq!(event.message, "the device is not connected and may go on running app");
}

#[test]
fn a_deleted_device_that_does_not_confirm_goes_after_the_bound() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(10_000);
    world.gateway_fails = true;
    world.delete_device("device-000");
    world.advance(59_000);
    assert!(world.devices.contains_key("device-000"));
    world.advance(2_000);
    assert!(!world.devices.contains_key("device-000"));
    assert_eq!(world.device_events[0].message, "the device did not confirm within 60 s that it stopped app");
}

#[test]
fn everything_of_a_namespace_goes_in_any_order() {
    for applications_first in [true, false] {
        let mut world = running(2);
        world.apply_application("app", 1, all());
        world.advance(10_000);
        if applications_first {
            world.delete_application("app");
        }
        world.delete_device("device-000");
        world.delete_device("device-001");
        world.delete_application("app");
        world.advance(5_000);
        assert!(world.devices.is_empty() && world.applications.is_empty(), "{applications_first}");
    }
}

#[test]
fn a_device_without_assignments_is_not_held() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(10_000);
    assert!(has_finalizer(&world, "device-000"));
    world.delete_application("app");
    world.advance(10_000);
    assert!(!has_finalizer(&world, "device-000"));
    let writes = world.device_finalizer_writes;
    world.advance(300_000);
    assert_eq!((writes, world.device_finalizer_writes), (2, 2));
}

#[test]
fn finalizers_of_a_large_fleet_leave_room_for_statuses() {
    let mut world = running(1_000);
    world.apply_application("app", 1, all());
    world.advance(7_000);
    let held = world.devices.keys().filter(|device| has_finalizer(&world, device)).count();
    assert!((50..=150).contains(&held), "{held} after 2 s");
    world.apply_application("other", 2, all());
    world.advance(1_500);
    assert_eq!(world.status("other").ready, "1000/1000");
    world.advance(30_000);
    assert!(world.devices.keys().all(|device| has_finalizer(&world, device)));
}

#[test]
fn a_recreated_device_begins_anew() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(1_000);
    // Neither the deletion nor the creation was seen apart: the watch was away.
    let (object, _) = world.devices.get_mut("device-000").unwrap();
    object.metadata.uid = Some("another".to_owned());
    object.status = None;
    world.send_device("device-000");
    let id = world.fleet.device_ids.values().next().unwrap();
    assert_eq!(world.fleet.devices[id].planned(), None);
}

#[test]
fn a_gateway_with_an_empty_disk_empties_no_device() {
    let mut world = running(2);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let revision = world.devices["device-000"].1.revision;
    world.restart_gateway("gateway-0", true);
    world.connect("device-000", "gateway-0");
    world.connect("device-001", "gateway-0");
    world.advance(5_000);
    assert_eq!(world.runs("device-000"), ["default/app".to_owned()].into());
    assert_eq!(
        world.devices["device-000"].1.revision, revision,
        "the content is the same, so is its revision"
    );
    assert!(world.gateways["gateway-0"].sets.contains_key("device-000"));
}

#[test]
fn a_new_leader_takes_over_without_a_change() {
    let mut world = running(3);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let puts = world.puts;
    world.lead();
    world.advance(10_000);
    assert_eq!(world.puts, puts, "what devices confirm need not be sent again");
    assert_eq!(world.status("app").phase, ApplicationPhase::Running);
}

#[test]
fn nothing_is_sent_before_every_list_is_complete() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let mut fleet = Fleet::new(FleetConfig::default());
    fleet.handle_api(world.now, true);
    fleet.handle_leadership(world.now, Some(9));
    for kind in [Kind::Device, Kind::Gateway, Kind::Module, Kind::Quota, Kind::Application] {
        fleet.handle_list_begin(kind);
    }
    fleet.handle_device(world.now, &world.devices["device-000"].0);
    fleet.handle_gateway(world.now, &device_gateway(&key("gateway-0"), "1"));
    fleet.handle_list_end(world.now, Kind::Device);
    fleet.handle_list_end(world.now, Kind::Gateway);
    fleet.handle_list_end(world.now, Kind::Module);
    fleet.handle_list_end(world.now, Kind::Quota);
    fleet.handle_stream(world.now, "gateway-0", StreamEvent::Snapshot { boot_id: String::new() });
    fleet.handle_stream(world.now, "gateway-0", StreamEvent::SnapshotEnd { token: String::new() });
    assert_eq!(fleet.poll_put(world.now), None, "the Applications are not all known");
    assert_eq!(fleet.poll_status(world.now), None);
    fleet.handle_list_end(world.now, Kind::Application);
    assert!(
        fleet.poll_put(world.now).is_some_and(|put| put.body.sets.len() == 1),
        "now it is known that there are none"
    );
}

#[test]
fn a_gateway_that_was_not_heard_is_sent_nothing_and_holds_back_counts() {
    let mut world = running(1);
    world.fleet = Fleet::new(FleetConfig::default());
    world.list();
    world.renew("gateway-0");
    world.fleet.handle_leadership(world.now, Some(2));
    world.apply_application("app", 1, all());
    world.now.ms += 1_000;
    assert_eq!(world.fleet.poll_put(world.now), None);
    assert_eq!(world.fleet.poll_status(world.now), None);
    world.open_stream("gateway-0");
    world.term = 2;
    world.advance(5_000);
    assert_eq!(world.status("app").phase, ApplicationPhase::Running);
}

#[test]
fn a_follower_does_nothing() {
    let mut world = running(1);
    world.fleet.handle_leadership(world.now, None);
    world.apply_application("app", 1, all());
    world.advance(60_000);
    assert_eq!((world.puts, world.status_writes), (0, 0));
}

#[test]
fn a_dead_gateway_makes_its_devices_unreachable_and_a_living_one_never() {
    let mut world = World::new(2, 2);
    world.connect("device-000", "gateway-0");
    world.connect("device-001", "gateway-1");
    world.lead();
    world.apply_application("app", 1, all());
    world.advance(5_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(20_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected);
    world.advance(10_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
    assert_eq!(phase(&world, "device-001"), DevicePhase::Connected);
    assert_eq!(condition(&world, "app", "Complete").1, "DevicesAway");
    assert_eq!(condition(&world, "app", "Ready").0, "True");
}

#[test]
fn nothing_is_called_unreachable_while_the_api_is_away() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.fleet.handle_api(world.now, false);
    world.advance(600_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected);
    world.fleet.handle_api(world.now, true);
    world.advance(24_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected);
    world.advance(2_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn nothing_is_called_unreachable_while_the_watch_of_leases_is_dumb() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.lease_watch_speaks = false;
    world.advance(600_000);
    assert_eq!(
        phase(&world, "device-000"),
        DevicePhase::Connected,
        "calls are answered, and nothing is seen"
    );
    world.lease_watch_speaks = true;
    world.advance(24_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected, "a lease and a grace from here");
    world.advance(6_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn a_renewal_that_the_watch_of_leases_is_late_to_show_is_waited_for() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(21_000);
    world.lease_watch_speaks = false;
    world.advance(5_500);
    assert_eq!(
        phase(&world, "device-000"),
        DevicePhase::Connected,
        "nothing was shown since the Lease ran out"
    );
    world.gateways.get_mut("gateway-0").unwrap().up = true;
    world.lease_watch_speaks = true;
    world.advance(1_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected, "it had renewed its Lease");
}

#[test]
fn nothing_is_called_unreachable_by_a_watch_of_leases_that_lags_behind() {
    let mut world = running(1);
    world.lease_watch_lag_ms = 20_000;
    world.advance(60_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(300_000);
    assert_eq!(
        phase(&world, "device-000"),
        DevicePhase::Connected,
        "what it shows every second is 20 seconds old"
    );
    world.lease_watch_lag_ms = 0;
    world.advance(30_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn an_outage_of_writes_that_a_late_watch_hides_counts_for_no_gateway() {
    let mut world = running(1);
    world.advance(60_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(15_000);
    // The API takes no writes for 8 seconds. The last renewal before that is shown late, so that the watch seems to show something
    // all the time.
    world.lease_watch_lag_ms = 3_000;
    world.advance(1_000);
    world.api_takes_writes = false;
    (0..8).for_each(|_| world.advance(1_000));
    world.api_takes_writes = true;
    world.lease_watch_lag_ms = 0;
    world.advance(10_000);
    assert_eq!(
        phase(&world, "device-000"),
        DevicePhase::Connected,
        "no Lease could be renewed for 8 seconds"
    );
    world.advance(30_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn what_a_follower_was_shown_of_leases_counts_for_no_gateway_once_it_leads() {
    let mut world = World::new(1, 1);
    world.connect("device-000", "gateway-0");
    world.follow();
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(5_000);
    // The API takes no writes for 20 seconds. The watch is so late, and later and later, that it shows something all the time.
    world.api_takes_writes = false;
    world.advance(20_000);
    world.api_takes_writes = true;
    world.take_over();
    world.advance(20_000);
    assert_eq!(
        phase(&world, "device-000"),
        DevicePhase::Connected,
        "a lease and a grace from its own first renewal"
    );
    world.advance(10_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn a_controller_that_stood_still_counts_from_when_it_moves_again() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(13_000);
    world.now.ms += 12_000;
    world.advance(24_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected, "a lease and a grace from here");
    world.advance(8_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
}

#[test]
fn a_fenced_leader_asks_for_a_higher_term_and_sends_nothing_before_it() {
    let mut world = running(1);
    world.gateways.get_mut("gateway-0").unwrap().term = 40;
    world.apply_application("app", 1, all());
    world.advance(5_000);
    assert_eq!(world.fleet.term_wanted(), Some(41));
    assert!(world.runs("device-000").is_empty());
    world.term = 41;
    world.fleet.handle_leadership(world.now, Some(41));
    world.advance(5_000);
    assert_eq!(world.runs("device-000"), ["default/app".to_owned()].into());
}

#[test]
fn a_new_leader_tells_its_term_to_gateways_that_lack_nothing() {
    let mut world = World::new(1, 2);
    world.connect("device-000", "gateway-0");
    world.lead();
    world.advance(1_000);
    let terms = |world: &World| world.gateways.values().map(|gateway| gateway.term).collect::<Vec<_>>();
    assert_eq!((terms(&world), world.puts), (vec![1, 1], 1), "gateway-1 has no device");
    world.gateway_fails = true;
    world.lead();
    world.advance(1_000);
    assert_eq!(terms(&world), [1, 1]);
    world.gateway_fails = false;
    world.advance(20_000);
    assert_eq!(terms(&world), [2, 2], "told again until they confirm it");
    let announcements = world.announcements;
    world.restart_gateway("gateway-1", true);
    world.gateways.get_mut("gateway-1").unwrap().term = 0;
    world.advance(5_000);
    assert_eq!(terms(&world), [2, 2], "an empty disk has forgotten it");
    assert_eq!(world.announcements, announcements + 1);
}

#[test]
fn a_device_that_came_to_another_gateway_is_not_called_unreachable() {
    let mut world = World::new(1, 2);
    world.connect("device-000", "gateway-0");
    world.lead();
    world.advance(1_000);
    let claimed = world.devices["device-000"].0.status.clone();
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.connect("device-000", "gateway-1");
    // The new gateway's write of the status is late.
    world.devices.get_mut("device-000").unwrap().0.status = claimed;
    world.send_device("device-000");
    world.advance(60_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Connected);
}

#[test]
fn an_epoch_that_a_gone_gateway_told_nobody_else_hides_no_session() {
    let mut world = World::new(1, 2);
    world.connect("device-000", "gateway-0");
    world.lead();
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let written = world.devices["device-000"].0.status.clone();
    world.devices.get_mut("device-000").unwrap().0.status.as_mut().unwrap().epoch = Some(6);
    world.connect("device-000", "gateway-1");
    world.gateways.get_mut("gateway-1").unwrap().up = false;
    world.close_stream("gateway-1");
    // It wrote nothing, and nobody believes the epoch that the device tells.
    world.devices.get_mut("device-000").unwrap().0.status = written;
    world.connect("device-000", "gateway-0");
    world.advance(60_000);
    assert_eq!(condition(&world, "app", "Complete").0, "True");
}

#[test]
fn a_device_revoked_while_its_gateway_is_gone_reads_revoked_and_back() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(60_000);
    assert_eq!(phase(&world, "device-000"), DevicePhase::Unreachable);
    for (revoked, expected) in [(true, DevicePhase::Revoked), (false, DevicePhase::Unreachable)] {
        world.devices.get_mut("device-000").unwrap().0.spec.revoked = revoked;
        world.send_device("device-000");
        world.advance(60_000);
        assert_eq!(phase(&world, "device-000"), expected);
        let conditions = world.devices["device-000"].0.status.clone().unwrap().conditions;
        let enrolled = conditions.iter().find(|condition| condition.type_ == "Enrolled").unwrap();
        let says = if revoked { ("False", "Revoked") } else { ("True", "Approved") };
        assert_eq!((enrolled.status.as_str(), enrolled.reason.as_str()), says);
    }
}

#[test]
fn a_missing_module_is_named_and_running_devices_are_left_alone() {
    let mut world = running(1);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    let (mut object, _) = world.applications["app"].clone();
    object.metadata.generation = Some(9);
    object.metadata.resource_version = Some("later".to_owned());
    object.spec.module = Some("absent".to_owned());
    world.applications.get_mut("app").unwrap().0 = object.clone();
    world.fleet.handle_application(world.now, &object, ModuleSource::Named("absent".to_owned()));
    world.now.ms += 5_000;
    let status = world.fleet.status(world.now, &key("app")).unwrap();
    assert_eq!(status.phase, ApplicationPhase::Degraded, "an earlier generation runs");
    assert_eq!(status.counts.running, 0);
    let ready = status.conditions.iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", "ModuleNotFound"));
    assert!(
        ready.message.contains("'absent'") && ready.message.contains("device-000 still runs an earlier"),
        "{}",
        ready.message
    );
    world.puts = 0;
    let mut fresh = Fleet::new(FleetConfig::default());
    std::mem::swap(&mut fresh, &mut world.fleet);
    assert_eq!(fresh.poll_put(world.now), None);
}

#[test]
fn statuses_keep_to_their_rates() {
    let mut world = running(1);
    for n in 0..100 {
        world.apply_application(&format!("app{n:02}"), 1, all());
    }
    let before = world.status_writes;
    world.advance(100);
    assert!(world.status_writes - before <= 55, "{} writes in 100 ms", world.status_writes - before);
    world.advance(60_000);
    assert_eq!(world.status("app99").counts.targets, 1);
    assert_eq!(world.runs("device-000").len(), 10);
    let refused = (0..100).filter(|n| world.status(&format!("app{n:02}")).counts.failed == 1).count();
    assert_eq!(refused, 90);
    let failure = &world.status("app99").failures[0];
    assert_eq!(failure.reason, ReasonCode::TooManyApplications);
}

#[test]
fn the_newest_waits_for_memory_that_older_ones_hold_and_gets_it_when_they_go() {
    let mut world = World::new(1, 1);
    world.memory_bytes = 4 * APPLICATION_BYTES;
    world.connect("device-000", "gateway-0");
    world.lead();
    for n in 0..5 {
        world.apply_application(&format!("app{n}"), 1, all());
    }
    world.advance(5_000);
    assert_eq!(world.runs("device-000").len(), 4, "the fifth is not even sent");
    let failure = world.status("app4").failures[0].clone();
    assert_eq!(failure.reason, ReasonCode::OutOfMemory);
    assert!(
        failure.message.contains("has 0 of 268544 left beside app0 (67136), app1 (67136)"),
        "{failure:?}"
    );
    world.delete_application("app1");
    world.advance(5_000);
    assert!(world.runs("device-000").contains("default/app4"));
    assert_eq!(world.status("app4").phase, ApplicationPhase::Running);
}

#[test]
fn a_thousand_devices_are_sent_in_bounded_batches() {
    let mut world = running(1_000);
    world.apply_application("app", 1, all());
    world.advance(5_000);
    assert_eq!(world.status("app").ready, "1000/1000");
    assert!(world.puts <= 8, "{} PUTs", world.puts);
}

fn phase(world: &World, device: &str) -> DevicePhase {
    world.devices[device].0.status.as_ref().unwrap().phase
}

fn device_gateway(key: &ObjectKey, version: &str) -> wasmbed_api::DeviceGateway {
    let spec = wasmbed_api::DeviceGatewaySpec { address: format!("{}:8080", key.name) };
    let mut object = wasmbed_api::DeviceGateway::new(&key.name, spec);
    object.metadata.namespace = Some(key.namespace.clone());
    object.metadata.resource_version = Some(version.to_owned());
    let ready = serde_json::json!({
        "type": "Ready", "status": "True", "reason": "Serving", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let status = serde_json::json!({ "boot_id": "0".repeat(32), "conditions": [ready] });
    object.status = serde_json::from_value(status).unwrap();
    object
}

#[test]
fn of_a_gateway_whose_lease_ran_out_nothing_is_known() {
    let mut world = running(1);
    world.advance(1_000);
    world.gateways.get_mut("gateway-0").unwrap().up = false;
    world.close_stream("gateway-0");
    world.advance(24_000);
    assert_eq!(world.marks, [], "a lease and a grace");
    world.gateway_marks_fail = true;
    world.advance(2_000);
    let tried = world.marks.len();
    assert!(tried > 0);
    world.gateway_marks_fail = false;
    world.advance(5_000);
    assert!(world.marks.len() > tried, "it is tried again");
    let write = world.marks.pop().unwrap();
    let conditions = &write.patch["status"]["conditions"];
    assert_eq!(
        (&conditions[0]["status"], &conditions[0]["reason"]),
        (&json!("Unknown"), &json!("LeaseExpired"))
    );
    assert_eq!(write.patch["metadata"]["resourceVersion"], "1");
    assert_eq!(write.patch["status"].as_object().unwrap().len(), 1, "that and nothing else");
    world.marks.clear();
    let mut marked = device_gateway(&write.gateway, "2");
    marked.status.as_mut().unwrap().conditions[0].status = "Unknown".to_owned();
    world.fleet.handle_gateway(world.now, &marked);
    world.advance(120_000);
    assert_eq!(world.marks, [], "once");
    // It was back, and is gone again.
    world.fleet.handle_gateway(world.now, &device_gateway(&write.gateway, "3"));
    world.advance(1_000);
    assert_eq!(world.marks.len(), 1);
}
