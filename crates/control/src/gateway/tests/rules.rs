//! The gateway as a receiver, held to the rules of `wasmbed.cddl` that the agent is held to as well.

use super::*;

const RULES: &str = include_str!("../../../../protocol/tests/receivers.txt");

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.replace(' ', "")).unwrap()
}

#[test]
fn every_rule_holds_for_the_gateway() {
    let mut held = 0;
    for line in RULES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [receiver, body, expected, what] = fields[..] else { panic!("not a rule: {line}") };
        if receiver == "device" {
            continue;
        }
        let mut world = World::synced();
        world.device("a");
        let id = world.hello("a", 0, 0);
        world.raw.clear();
        world.gateway.handle_frame(world.now, id, &hex(body));
        world.settle();
        let mut outcome = "taken".to_owned();
        for sent in world.raw.remove(&id).unwrap_or_default() {
            match decode_gateway(&sent).unwrap() {
                GatewayMessage::Error(error) => {
                    let tag = error.tag.map_or("-".to_owned(), |tag| tag.to_string());
                    outcome = format!("answered {} {tag}", error.code.name());
                }
                GatewayMessage::Goodbye(closing) if closing.reason == CloseReason::ProtocolError => {
                    outcome = "ends".to_owned();
                }
                GatewayMessage::HeartbeatAck(_) => {}
                other => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!(outcome, expected, "{what}");
        held += 1;
    }
    assert!(held > 30, "{held}");
}

#[test]
fn a_second_hello_is_answered_and_changes_nothing() {
    let mut world = World::synced();
    world.device("a");
    let id = world.hello("a", 0, 0);
    world.raw.clear();
    world.send(id, &DeviceMessage::Hello(hello(77, 0)));
    let sent = world.raw.remove(&id).unwrap();
    let [body] = &sent[..] else { panic!("{sent:?}") };
    match decode_gateway(body).unwrap() {
        GatewayMessage::Error(error) => assert_eq!((error.code, error.tag), (ErrorCode::Unexpected, Some(1))),
        other => panic!("{other:?}"),
    }
}
