//! MessageBrokers, as gateways are told of them, in the small world.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use wasmbed_api::{
    BrokerCredentials, BrokerFormat, BrokerReceive, BrokerType, MessageBroker, MessageBrokerSpec,
};

use super::*;
use crate::{
    Hidden,
    gateway::config::BROKERS_OF_NAMESPACE_MAX,
    gateway_api::{BrokerEntry, Refusal},
};

fn broker(name: &str, number: u8, spec: MessageBrokerSpec) -> MessageBroker {
    let mut object = MessageBroker::new(name, spec);
    let metadata = &mut object.metadata;
    metadata.namespace = Some(key(name).namespace);
    metadata.uid = Some(format!("6ba7b810-9dad-41d1-80b4-00c04fd430{number:02x}"));
    metadata.generation = Some(1);
    let created = k8s_openapi::jiff::Timestamp::from_second(i64::from(number)).unwrap();
    metadata.creation_timestamp = Some(Time(created));
    object
}

fn spec() -> MessageBrokerSpec {
    MessageBrokerSpec { url: "mqtts://broker".to_owned(), ..MessageBrokerSpec::default() }
}

fn webhook() -> MessageBrokerSpec {
    let url = "https://ingest.example/in".to_owned();
    MessageBrokerSpec {
        broker: BrokerType::Webhook,
        url,
        format: BrokerFormat::Cbor,
        ..MessageBrokerSpec::default()
    }
}

fn with_credentials() -> MessageBrokerSpec {
    MessageBrokerSpec { credentials: Some(BrokerCredentials { secret: "s".to_owned() }), ..spec() }
}

fn selecting() -> MessageBrokerSpec {
    let labels = [("line".to_owned(), "7".to_owned())].into();
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    MessageBrokerSpec { selector: Some(selector), ..spec() }
}

fn values(data: &[(&str, &[u8])]) -> SecretOutcome {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), Hidden::new(value.to_vec())));
    SecretOutcome::Found(SecretValues::read(data))
}

/// One gateway, and the list of these brokers.
fn world(brokers: &[MessageBroker]) -> World {
    let mut world = running(1);
    list(&mut world, brokers);
    world
}

fn list(world: &mut World, brokers: &[MessageBroker]) {
    world.fleet.handle_list_begin(Kind::Broker);
    brokers.iter().for_each(|broker| world.fleet.handle_broker(world.now, broker));
    world.fleet.handle_list_end(world.now, Kind::Broker);
    world.settle();
}

/// What the gateway is told now, if it is told anything; it takes it.
fn told(world: &mut World) -> Option<Vec<BrokerEntry>> {
    let put = world.fleet.poll_brokers(world.now)?;
    assert_eq!(
        (put.gateway.as_str(), world.fleet.poll_brokers(world.now)),
        ("gateway-0", None),
        "one at a time"
    );
    world.fleet.handle_brokers_outcome(world.now, &put.gateway, put.id, BrokersOutcome::Taken);
    Some(put.body.brokers)
}

#[test]
fn gateways_are_told_of_all_brokers_once_and_of_what_changes() {
    let mut world = running(1);
    world.advance(5_000);
    assert_eq!(told(&mut world), None, "nothing before the list is known");
    list(&mut world, &[broker("a", 1, spec())]);
    let entries = told(&mut world).unwrap();
    assert_eq!(
        (entries[0].url.as_str(), entries[0].kind.as_str(), &entries[0].trouble),
        ("mqtts://broker", "Mqtt", &None)
    );
    assert_eq!((entries[0].created_unix_s, &entries[0].applications), (1, &None));
    assert_eq!(told(&mut world), None);
    // What gateways say in its status is no change.
    world.fleet.handle_broker(world.now, &broker("a", 1, spec()));
    assert_eq!(told(&mut world), None);
    let mut changed = broker("a", 1, MessageBrokerSpec { topics: vec!["t".to_owned()], ..spec() });
    changed.metadata.generation = Some(2);
    world.fleet.handle_broker(world.now, &changed);
    assert_eq!(told(&mut world).unwrap()[0].topics, ["t"]);
    let receive = BrokerReceive { topics: vec!["light".to_owned()], applications: Vec::new() };
    let mut changed = broker("a", 1, MessageBrokerSpec { receive: Some(receive.clone()), ..spec() });
    changed.metadata.generation = Some(3);
    world.fleet.handle_broker(world.now, &changed);
    assert_eq!(told(&mut world).unwrap()[0].receive, Some(receive));
    // A gateway that starts anew has none of it.
    world.restart_gateway("gateway-0", false);
    world.advance(1_000);
    assert_eq!(told(&mut world).unwrap().len(), 1);
    world.take_over();
    world.advance(1_000);
    assert_eq!(told(&mut world).unwrap().len(), 1, "and who leads anew does not know what it has");
    world.fleet.handle_broker_deleted(&key("a"));
    assert_eq!(told(&mut world), Some(Vec::new()));
}

#[test]
fn a_call_that_fails_is_made_again_after_a_pause() {
    let mut world = world(&[broker("a", 1, spec())]);
    for outcome in [
        BrokersOutcome::Failed("no connection".to_owned()),
        BrokersOutcome::Fenced(Refusal {
            reason: "Fenced".to_owned(),
            message: String::new(),
            leader_term: None,
        }),
    ] {
        let put = world.fleet.poll_brokers(world.now).unwrap();
        world.fleet.handle_brokers_outcome(world.now, &put.gateway, put.id, outcome);
        assert_eq!(world.fleet.poll_brokers(world.now), None, "not at once");
        world.advance(10_000);
    }
    let put = world.fleet.poll_brokers(world.now).unwrap();
    world.fleet.handle_brokers_outcome(world.now, &put.gateway, put.id, BrokersOutcome::TooOld);
    assert_eq!(world.fleet.poll_brokers(world.now), None);
}

#[test]
fn a_selector_names_the_applications_with_its_labels() {
    let mut world = world(&[broker("a", 1, selecting())]);
    assert_eq!(told(&mut world).unwrap()[0].applications, Some(Vec::new()));
    for name in ["one", "two"] {
        world.apply_application(name, 1, all());
    }
    world.advance(1_000);
    assert_eq!(told(&mut world), None);
    world.change_application("one", |object| {
        object.metadata.labels = Some([("line".to_owned(), "7".to_owned())].into());
    });
    world.advance(1_000);
    let uid = world.applications["one"].0.metadata.uid.clone().unwrap();
    assert_eq!(told(&mut world).unwrap()[0].applications, Some(vec![uid]));
    world.change_application("one", |object| object.metadata.labels = None);
    world.advance(1_000);
    assert_eq!(told(&mut world).unwrap()[0].applications, Some(Vec::new()));
}

#[test]
fn credentials_are_read_before_anything_is_told_and_shown_nowhere() {
    let mut world = running(1);
    world.secrets.insert("s".to_owned(), values(&[("username", b"u"), ("password", b"s3cret")]));
    world.fleet.handle_list_begin(Kind::Broker);
    world.fleet.handle_broker(world.now, &broker("a", 1, with_credentials()));
    world.fleet.handle_list_end(world.now, Kind::Broker);
    assert_eq!(world.fleet.poll_brokers(world.now), None, "the Secret is not known yet");
    world.settle();
    let entries = told(&mut world).unwrap();
    assert_eq!(entries[0].password.as_deref().map(String::as_str), Some("s3cret"));
    for shown in [format!("{entries:?}"), format!("{:?}", world.fleet)] {
        assert!(!shown.contains("s3cret"), "it is shown");
    }
    // Changed values are told within the interval, and long ones of a certificate as well.
    let pem = "x".repeat(3_000);
    world.secrets.insert("s".to_owned(), values(&[("tls.crt", pem.as_bytes()), ("tls.key", b"key")]));
    world.advance(61_000);
    let entries = told(&mut world).unwrap();
    assert_eq!(entries[0].certificate.as_deref().map(String::len), Some(3_000));
    assert_eq!((&entries[0].password, entries[0].trouble.is_none()), (&None, true));
}

#[test]
fn a_webhook_is_told_with_its_format_and_its_token() {
    let mut world = running(1);
    world.secrets.insert("s".to_owned(), values(&[("token", b"s3cret")]));
    let spec = MessageBrokerSpec { credentials: with_credentials().credentials, ..webhook() };
    list(&mut world, &[broker("a", 1, spec)]);
    let entries = told(&mut world).unwrap();
    assert_eq!((entries[0].kind.as_str(), entries[0].format.as_deref()), ("Webhook", Some("Cbor")));
    assert_eq!(entries[0].token.as_deref().map(String::as_str), Some("s3cret"));
    assert!(entries[0].trouble.is_none() && !format!("{entries:?}").contains("s3cret"));
}

#[test]
fn what_cannot_be_used_is_told_with_its_reason() {
    let mut world = world(&[]);
    told(&mut world);
    let unknown = MessageBrokerSpec { broker: BrokerType::Unknown, ..spec() };
    let raw = MessageBrokerSpec { format: BrokerFormat::Raw, ..webhook() };
    let json = MessageBrokerSpec { format: BrokerFormat::Json, ..spec() };
    let inward = MessageBrokerSpec { receive: Some(BrokerReceive::default()), ..webhook() };
    let cases = [
        (with_credentials(), SecretOutcome::NotFound, ReasonCode::SecretNotFound),
        (with_credentials(), SecretOutcome::Forbidden("no".to_owned()), ReasonCode::SecretForbidden),
        (with_credentials(), SecretOutcome::Unavailable("away".to_owned()), ReasonCode::SecretUnavailable),
        (with_credentials(), values(&[("other", b"x")]), ReasonCode::BrokerInvalid),
        (unknown, SecretOutcome::NotFound, ReasonCode::BrokerInvalid),
        (raw, SecretOutcome::NotFound, ReasonCode::BrokerInvalid),
        (json, SecretOutcome::NotFound, ReasonCode::BrokerInvalid),
        (inward, SecretOutcome::NotFound, ReasonCode::BrokerInvalid),
        // A broker of MQTT has no use for a token.
        (with_credentials(), values(&[("token", b"t")]), ReasonCode::BrokerInvalid),
    ];
    for (number, (spec, secret, reason)) in (1..).zip(cases) {
        world.secrets.insert("s".to_owned(), secret);
        world.fleet.handle_broker_deleted(&key("a"));
        world.fleet.handle_broker(world.now, &broker("a", number, spec));
        world.advance(1_000);
        let trouble = told(&mut world).unwrap()[0].trouble.clone().unwrap();
        assert_eq!(trouble.reason, reason, "{trouble:?}");
    }
    // One that can't be read is there all the same: a gateway would forget how far it is.
    world.fleet.handle_unreadable(world.now, Kind::Broker, &key("b"), Some("uid"));
    let entries = told(&mut world).unwrap();
    assert_eq!(entries.iter().map(|entry| entry.uid.as_str()).filter(|uid| *uid == "uid").count(), 1);
}

#[test]
fn the_oldest_brokers_of_a_namespace_are_served() {
    let count = u8::try_from(BROKERS_OF_NAMESPACE_MAX).unwrap() + 2;
    let brokers: Vec<_> =
        (1..=count).rev().map(|number| broker(&format!("b{number}"), number, spec())).collect();
    let mut world = world(&brokers);
    let entries = told(&mut world).unwrap();
    let troubled: BTreeSet<u64> =
        entries.iter().filter(|entry| entry.trouble.is_some()).map(|entry| entry.created_unix_s).collect();
    assert_eq!(troubled, [9, 10].into());
    assert!(
        entries
            .iter()
            .filter_map(|entry| entry.trouble.as_ref())
            .all(|it| it.reason == ReasonCode::TooManyBrokers)
    );
}
