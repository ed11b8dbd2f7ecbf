//! What one device sends costs its own share and nobody else's.

use super::*;

fn log(uid: u64, text: &str) -> DeviceMessage<'_> {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&uid.to_be_bytes());
    let (uid, sequence) = (ApplicationUid(bytes), Sequence(uid));
    DeviceMessage::Log(wasmbed_protocol::Log { uid, sequence, lines_lost: 0, text })
}

#[test]
fn a_new_session_brings_no_new_allowance_for_logs() {
    let mut world = World::synced();
    world.device("a");
    for session in 0..8_u64 {
        let id = world.hello("a", session, 0);
        for line in 0..256 {
            world.send(id, &log(session * 256 + line, ""));
        }
    }
    let taken = 8 * 256 - world.gateway.counters().log_lines_dropped;
    assert_eq!(taken, u64::from(config::LOG_BYTES_BURST) / 64, "lines of 64 bytes and less");
}
