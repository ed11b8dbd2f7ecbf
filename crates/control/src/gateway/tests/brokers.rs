//! Brokers of a gateway, as a controller defines them.

use wasmbed_api::ReasonCode;

use super::*;
use crate::{
    gateway::config::{BROKERS_MAX, BROKERS_OF_NAMESPACE_MAX},
    gateway_api::{BrokerEntry, PutBrokers},
};

fn entry(namespace: &str, number: usize) -> BrokerEntry {
    BrokerEntry {
        broker: ObjectKey::new(namespace, format!("b{number}")),
        uid: format!("{namespace}-{number}"),
        generation: 1,
        kind: "Mqtt".to_owned(),
        url: "mqtts://broker".to_owned(),
        ..BrokerEntry::default()
    }
}

fn world() -> World {
    let mut world =
        World::with(Config { messages: Some(MessageLimits::default()), ..Config::new("gw", "boot") });
    world.gateway.handle_leader_lease(2);
    world
}

fn started(world: &mut World) -> Vec<String> {
    let now = world.now;
    let starts = std::iter::from_fn(|| world.gateway.poll_broker(now));
    let mut uids: Vec<String> = starts.filter_map(|start| start.link.map(|link| link.uid)).collect();
    uids.sort();
    uids
}

#[test]
fn a_controller_defines_brokers_and_an_earlier_leader_does_not() {
    let mut world = world();
    let now = world.now;
    let put = |leader_term, brokers| PutBrokers { leader_term, brokers };
    assert!(world.gateway.handle_put_brokers(now, put(2, vec![entry("lab", 1)])).is_ok());
    let refused = world.gateway.handle_put_brokers(now, put(1, Vec::new()));
    assert!(matches!(refused, Err(Refused::Fenced(_))), "{refused:?}");
    assert_eq!(started(&mut world), ["lab-1"]);
    assert_eq!(world.gateway.broker_levels()["Mqtt"].brokers, 1);
    let many = (0..=BROKERS_MAX).map(|number| entry("lab", number)).collect();
    let refused = world.gateway.handle_put_brokers(now, put(2, many));
    assert!(
        matches!(&refused, Err(Refused::Invalid(refusal)) if refusal.reason == "TooManyBrokers"),
        "{refused:?}"
    );
    assert_eq!(world.gateway.broker_levels()["Mqtt"].brokers, 1);
}

#[test]
fn one_namespace_has_a_share_of_the_brokers() {
    let mut world = world();
    let now = world.now;
    let mut brokers: Vec<_> =
        (0..BROKERS_OF_NAMESPACE_MAX + 3).map(|number| entry("greedy", number)).collect();
    brokers.push(entry("lab", 1));
    world.gateway.handle_put_brokers(now, PutBrokers { leader_term: 1, brokers }).unwrap();
    let started = started(&mut world);
    assert_eq!(started.len(), BROKERS_OF_NAMESPACE_MAX + 1);
    assert!(started.contains(&"lab-1".to_owned()));
    let mut reasons = Vec::new();
    while let Some(write) = world.gateway.poll_broker_status(now) {
        reasons.extend(write.entry.last_error.as_ref().map(|error| error.reason));
        world.gateway.handle_broker_status(now, write, true);
    }
    assert_eq!(reasons, [ReasonCode::TooManyBrokers; 3]);
}
