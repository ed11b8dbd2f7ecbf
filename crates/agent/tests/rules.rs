//! The agent as a receiver, held to the rules of `wasmbed.cddl` that the gateway is held to as well.
#![cfg(test)]

use wasmbed_agent::{
    Agent, BAD_FRAMES_MAX, Config, DeviceFacts, Effect, Restored, SessionState, storage::Done,
};
use wasmbed_protocol::{
    BootId, DeviceMessage, Epoch, ErrorNotice, GatewayMessage, ResetReason, Welcome, decode_device,
    encode_gateway, limits::FRAME_BYTES_MAX,
};

const RULES: &str = include_str!("../../protocol/tests/receivers.txt");

/// An agent whose session stands, with nothing left to say.
fn standing() -> Agent {
    let facts = DeviceFacts {
        board: "test".into(),
        firmware: "0".into(),
        engine: "none".into(),
        memory_bytes: 1,
        flash_bytes: 1,
        load_permille: 1_600,
        module_bytes_max: 100_000,
        applications_max: 1,
        features: 0,
        imports: vec![],
        capabilities: vec![],
    };
    let config = Config {
        facts,
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
        boot_id: BootId([1; 8]),
    };
    let mut agent = Agent::new(config, Restored::default(), 0);
    store(&mut agent);
    agent.handle_connected(0);
    while transmit(&mut agent).is_some() {}
    let welcome = Welcome {
        epoch: Epoch(1),
        unix_ms: 0,
        heartbeat_interval_ms: 60_000,
        heartbeat_timeout_ms: 180_000,
        log_bytes_per_second: 0,
        desired_known: false,
    };
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode_gateway(&GatewayMessage::Welcome(welcome), &mut frame).unwrap();
    agent.handle_frame(1, &frame[2..length]);
    store(&mut agent);
    while transmit(&mut agent).is_some() {}
    assert!(matches!(agent.session(), SessionState::Standing(_)));
    agent
}

fn store(agent: &mut Agent) {
    while let Some(effect) = agent.poll_effect() {
        if matches!(effect, Effect::Storage(_)) {
            agent.handle_storage(1, Ok(Done::Written));
        }
    }
}

fn transmit(agent: &mut Agent) -> Option<Vec<u8>> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let length = agent.poll_transmit(&mut buffer)?;
    Some(buffer[2..length].to_vec())
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
        let mut agent = standing();
        agent.handle_frame(2, &hex(body));
        let stands = matches!(agent.session(), SessionState::Standing(_));
        let outcome = match answer(&mut agent) {
            None if stands => "taken".to_owned(),
            None => "ends".to_owned(),
            Some(answer) if stands => answer,
            Some(answer) => format!("ends, but {answer}"),
        };
        assert_eq!(outcome, expected, "{what}");
        held += 1;
    }
    assert!(held > 30, "{held}");
}

#[test]
fn a_gateway_that_is_newer_in_everything_is_given_up_after_a_while() {
    let mut agent = standing();
    let newer = hex("a1001863");
    for _ in 1..BAD_FRAMES_MAX {
        agent.handle_frame(2, &newer);
        assert_eq!(answer(&mut agent).as_deref(), Some("answered Unexpected 99"));
    }
    agent.handle_frame(2, &newer);
    assert_eq!(agent.session(), SessionState::Closing);
}
