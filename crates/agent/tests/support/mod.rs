//! A device for tests of the agent, and the messages that its gateway sends.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use wasmbed_agent::{Agent, Config, DeviceFacts, Provisioned};
use wasmbed_protocol::{
    BootId, Epoch, GatewayMessage, ResetReason, Welcome, encode_gateway, limits::FRAME_BYTES_MAX,
};

/// A device that runs so many applications; `boot_id` tells its starts apart.
pub(crate) fn config(applications_max: u8, boot_id: u8) -> Config {
    Config {
        facts: DeviceFacts {
            board: "test".into(),
            firmware: "0".into(),
            engine: "none".into(),
            memory_bytes: 1,
            flash_bytes: 1,
            load_permille: 1_600,
            module_bytes_max: 100_000,
            applications_max,
            features: 0,
            imports: vec![("wasmbed".into(), vec!["log".into()])],
            capabilities: vec![],
            peripherals: Vec::new(),
        },
        reset_reason: ResetReason::PowerOn,
        reset_detail: String::new(),
        boot_id: BootId([boot_id; 8]),
        provisioned: Provisioned::Fixed,
        unix_s: None,
    }
}

/// The body of a gateway's message.
pub(crate) fn frame(message: &GatewayMessage<'_>) -> Vec<u8> {
    let mut out = vec![0; FRAME_BYTES_MAX];
    let length = encode_gateway(message, &mut out).unwrap();
    out[2..length].to_vec()
}

/// A Welcome with heartbeats every ten seconds.
pub(crate) fn welcome(epoch: u64, desired_known: bool) -> Vec<u8> {
    frame(&GatewayMessage::Welcome(Welcome {
        epoch: Epoch(epoch),
        unix_ms: 1,
        heartbeat_interval_ms: 10_000,
        heartbeat_timeout_ms: 30_000,
        log_bytes_per_second: 1_000,
        desired_known,
        groups: None,
    }))
}

/// The body of the next message that the agent sends, if it has one.
pub(crate) fn transmit(agent: &mut Agent) -> Option<Vec<u8>> {
    let mut buffer = [0; FRAME_BYTES_MAX];
    let length = agent.poll_transmit(&mut buffer)?;
    Some(buffer[2..length].to_vec())
}
