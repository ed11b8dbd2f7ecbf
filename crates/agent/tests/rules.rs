//! The agent as a receiver, held to the rules of `wasmbed.cddl` that the gateway is held to as well.
#![cfg(test)]

mod support;

use support::{config, transmit, welcome};
use wasmbed_agent::{Agent, BAD_FRAMES_MAX, Effect, Restored, SessionState, storage::Done};
use wasmbed_protocol::{DeviceMessage, ErrorNotice, decode_device};

const RULES: &str = include_str!("../../protocol/tests/receivers.txt");

/// An agent with an established session and nothing left to send.
fn established() -> Agent {
    let mut agent = Agent::new(config(1, 1), Restored::default(), 0);
    store(&mut agent);
    agent.handle_connected(0);
    while transmit(&mut agent).is_some() {}
    agent.handle_frame(1, &welcome(1, false));
    store(&mut agent);
    while transmit(&mut agent).is_some() {}
    assert!(matches!(agent.session(), SessionState::Established(_)));
    agent
}

fn store(agent: &mut Agent) {
    while let Some(effect) = agent.poll_effect() {
        if matches!(effect, Effect::Storage(_)) {
            agent.handle_storage(1, Ok(Done::Written));
        }
    }
}

fn answer(agent: &mut Agent) -> Option<String> {
    let body = transmit(agent)?;
    match decode_device(&body) {
        Ok(DeviceMessage::Error(ErrorNotice { code, tag, .. })) => {
            let tag = tag.map_or("-".to_owned(), |tag| tag.to_string());
            Some(format!("answered {} {tag}", code.name()))
        }
        other => Some(format!("{other:?}")),
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_rule_holds_for_the_device() {
    let mut held = 0;
    for line in RULES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [receiver, body, expected, what] = fields[..] else { panic!("not a rule: {line}") };
        if receiver == "gateway" {
            continue;
        }
        let mut agent = established();
        agent.handle_frame(2, &hex(body));
        let is_established = matches!(agent.session(), SessionState::Established(_));
        let outcome = match answer(&mut agent) {
            None if is_established => "taken".to_owned(),
            None => "ends".to_owned(),
            Some(answer) if is_established => answer,
            Some(answer) => format!("ends, but {answer}"),
        };
        assert_eq!(outcome, expected, "{what}");
        held += 1;
    }
    assert!(held > 30, "{held}");
}

#[test]
fn a_gateway_that_is_newer_in_everything_is_given_up_after_a_while() {
    let mut agent = established();
    let newer = hex("a1001863");
    for _ in 1..BAD_FRAMES_MAX {
        agent.handle_frame(2, &newer);
        assert_eq!(answer(&mut agent).as_deref(), Some("answered Unexpected 99"));
    }
    agent.handle_frame(2, &newer);
    assert_eq!(agent.session(), SessionState::Closing);
}
