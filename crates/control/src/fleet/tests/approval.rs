//! Which requests for devices' certificates the controller approves, and when.

use serde_json::Value;
use wasmbed_api::{Device, DeviceSpec};
use wasmbed_protocol::KeyHash;

use super::*;
use crate::kubernetes::WriteOutcome;

const KEY: KeyHash = KeyHash([7; 32]);
const NOW: Now = Now { ms: 1_000, unix_ms: 1_700_000_000_000 };

fn leading() -> Fleet {
    let mut fleet = Fleet::new(FleetConfig::default());
    fleet.handle_leadership(NOW, Some(1));
    fleet
}

fn device(fleet: &mut Fleet, change: impl FnOnce(&mut Device)) {
    let mut device = Device::new("pump", DeviceSpec { approved: true, ..DeviceSpec::default() });
    device.metadata.namespace = Some("default".to_owned());
    device.metadata.uid = Some("uid-1".to_owned());
    change(&mut device);
    fleet.handle_device(NOW, &device);
}

fn request(claim: Claim) -> RequestSeen {
    RequestSeen {
        name: "device-1".to_owned(),
        resource_version: "5".to_owned(),
        device: ObjectKey::new("default", "pump"),
        device_uid: "uid-1".to_owned(),
        claim,
        conditions: Vec::new(),
    }
}

/// The name of the request that is approved.
fn approved(fleet: &mut Fleet) -> Option<ApprovalWrite> {
    let write = fleet.poll_approval(NOW);
    assert_eq!(fleet.poll_approval(NOW), None, "one at most");
    write
}

fn first<'a>(patch: &'a Value, field: &str) -> &'a str {
    patch["status"]["conditions"][0][field].as_str().unwrap()
}

#[test]
fn a_request_with_a_proof_is_approved_once_its_device_is() {
    for claim in [Claim::JoinProof, Claim::Renewal] {
        let mut fleet = leading();
        fleet.handle_request(request(claim));
        assert_eq!(approved(&mut fleet), None, "there is no Device yet");
        device(&mut fleet, |device| device.spec.approved = false);
        assert_eq!(approved(&mut fleet), None);
        device(&mut fleet, |_| {});
        let write = approved(&mut fleet).unwrap();
        assert_eq!((write.request.as_str(), write.device.name.as_str()), ("device-1", "pump"));
        assert_eq!(first(&write.patch, "type"), "Approved");
        assert_eq!(write.patch["metadata"]["resourceVersion"], "5");
        // Answered, and seen to be decided.
        fleet.handle_write_outcome(NOW, write.id, WriteOutcome::Done("6".to_owned()));
        fleet.handle_request_closed("device-1");
        device(&mut fleet, |_| {});
        assert_eq!(approved(&mut fleet), None);
    }
}

#[test]
fn a_request_without_a_proof_needs_the_key_that_a_person_confirmed() {
    let mut fleet = leading();
    fleet.handle_request(request(Claim::Key(KEY)));
    device(&mut fleet, |_| {});
    assert_eq!(approved(&mut fleet), None, "approved: true alone confirms no key");
    device(&mut fleet, |device| device.spec.confirmed_key = Some(KeyHash([8; 32]).to_string()));
    assert_eq!(approved(&mut fleet), None);
    device(&mut fleet, |device| device.spec.confirmed_key = Some("no hash".to_owned()));
    assert_eq!(approved(&mut fleet), None);
    device(&mut fleet, |device| device.spec.confirmed_key = Some(KEY.to_string()));
    assert!(approved(&mut fleet).is_some());
}

#[test]
fn a_device_that_is_out_gets_no_approval() {
    let outs: [fn(&mut Device); 3] = [
        |device| device.spec.revoked = true,
        |device| device.metadata.uid = Some("uid-2".to_owned()),
        |device| {
            device.metadata.deletion_timestamp = Some(status::time(0));
        },
    ];
    for out in outs {
        let mut fleet = leading();
        device(&mut fleet, out);
        fleet.handle_request(request(Claim::JoinProof));
        assert_eq!(approved(&mut fleet), None);
    }
}

#[test]
fn who_does_not_lead_approves_nothing_and_who_comes_to_lead_looks_at_all() {
    let mut fleet = Fleet::new(FleetConfig::default());
    device(&mut fleet, |_| {});
    fleet.handle_request(request(Claim::JoinProof));
    assert_eq!(approved(&mut fleet), None);
    fleet.handle_leadership(NOW, Some(1));
    assert!(approved(&mut fleet).is_some());
}

#[test]
fn an_approval_that_did_not_arrive_is_made_again() {
    let mut fleet = leading();
    device(&mut fleet, |_| {});
    fleet.handle_request(request(Claim::JoinProof));
    let write = approved(&mut fleet).unwrap();
    // Another write changed the request meanwhile: looked at again once this one is answered.
    fleet.handle_request(RequestSeen { resource_version: "6".to_owned(), ..request(Claim::JoinProof) });
    assert_eq!(approved(&mut fleet), None, "one write of a request at a time");
    fleet.handle_write_outcome(NOW, write.id, WriteOutcome::Conflict);
    let write = approved(&mut fleet).unwrap();
    assert_eq!(write.patch["metadata"]["resourceVersion"], "6");
    fleet.handle_write_outcome(NOW, write.id, WriteOutcome::Unavailable("away".to_owned()));
    let later = Now { ms: NOW.ms + 60_000, ..NOW };
    assert!(fleet.poll_timeout(NOW) < later.ms, "it is due by itself");
    let write = fleet.poll_approval(later).unwrap();
    // A refused one waits for the next change or interval.
    fleet.handle_write_outcome(later, write.id, WriteOutcome::Rejected("forbidden".to_owned()));
    assert_eq!(fleet.poll_approval(later), None);
}

#[test]
fn what_a_list_no_longer_names_is_forgotten() {
    let mut fleet = leading();
    fleet.handle_request(request(Claim::JoinProof));
    fleet.handle_requests_begin();
    fleet.handle_requests_end();
    device(&mut fleet, |_| {});
    assert_eq!(approved(&mut fleet), None);
}
