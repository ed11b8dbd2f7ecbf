//! Sessions with a gateway as `wasmbed-pki` configures it, over rustls and ring.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use rustls::ServerConfig;
use support::*;
use wasmbed_pki::{
    Authorities, Identity,
    tls::{Profile, authenticate_client, roots, server_config},
};
use wasmbed_tls::{Misbehavior, OwnId, PLAIN_BYTES_MAX, RECORD_BYTES_MAX, SessionState, Time, TlsError};

#[test]
fn a_device_and_a_gateway_of_one_trust_domain_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let authorities = Authorities::create_or_open(folder.path(), "example.org").unwrap();
    let gateway = authorities.issue_gateway("wasmbed", "one", &["127.0.0.1".to_owned()]).unwrap();
    let device = authorities.issue_device("lab", "board-1").unwrap();
    let client = client(&device, vec![authorities.services_root().clone()]).unwrap();
    assert_eq!(client.id(), Some(&OwnId::Device(DEVICE.parse().unwrap())));
    assert_eq!(client.trust_domain(), "example.org");
    let server =
        server_config(Profile::Device, &gateway, roots([authorities.devices_root().clone()]).unwrap())
            .unwrap();
    let mut pair = Pair::up(&client, server);
    let peer = pair.session.peer().unwrap();
    assert_eq!(peer.id, GATEWAY);
    assert_eq!(peer.not_before as i64, gateway.facts().not_before);
    assert_eq!(peer.not_after as i64, gateway.facts().not_after);
    assert_eq!(peer.anchor, 0);
    let seen = authenticate_client(Profile::Device, &pair.server, "example.org").unwrap();
    assert_eq!(seen.id.to_string(), DEVICE);
    pair.server_writes(b"to the board");
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.read, b"to the board");
    pair.device_writes(b"to the gateway");
    assert_eq!(pair.server_reads(), b"to the gateway");
}

#[test]
fn the_second_root_counts_like_the_first() {
    let (old, new) = (Fleet::new(), Fleet::new());
    let client = old.client_trusting(&[&old.services_root, &new.services_root]);
    let pair = Pair::up(&client, old.server(&old.gateway()));
    assert_eq!(pair.session.peer().unwrap().anchor, 0);
    let pair = Pair::up(&client, old.server(&new.gateway()));
    assert_eq!(pair.session.peer().unwrap().anchor, 1);
}

#[test]
fn bytes_may_come_in_pieces_of_any_size() {
    let fleet = Fleet::new();
    let (client, server) = (fleet.client(), fleet.server(&fleet.gateway()));
    for piece in [1, 2, 5, 17, 1_000] {
        let mut pair = Pair::new(&client, Arc::clone(&server), &Time::new(0));
        pair.run(piece).unwrap();
        assert_eq!(pair.session.state(), SessionState::Up);
        let data: Vec<u8> = (0..9_000u32).map(|index| index as u8).collect();
        pair.server_writes(&data);
        pair.run(piece).unwrap();
        assert_eq!(pair.read, data);
        pair.device_writes(&data);
        assert_eq!(pair.server_reads(), data);
    }
}

#[test]
fn handshake_messages_may_be_split_over_records() {
    let fleet = Fleet::new();
    let mut config = ServerConfig::clone(&fleet.server(&fleet.gateway()));
    config.max_fragment_size = Some(32);
    for piece in [1, 7, usize::MAX] {
        let mut pair = Pair::new(&fleet.client(), Arc::new(config.clone()), &Time::new(0));
        pair.run(piece).unwrap();
        assert_eq!(pair.session.state(), SessionState::Up);
    }
}

fn with_chain_of(fleet: &Fleet, certificates: usize) -> Arc<ServerConfig> {
    let gateway = fleet.gateway();
    let chain_pem = gateway.chain_pem.clone() + &fleet.services.pem().repeat(certificates);
    fleet.server(&Identity::from_pem(&chain_pem, &gateway.key_pem).unwrap())
}

#[test]
fn a_chain_may_be_longer_than_a_record_and_not_longer_than_the_buffer() {
    let fleet = Fleet::new();
    let mut pair = Pair::new(&fleet.client(), with_chain_of(&fleet, 12), &Time::new(0));
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.session.state(), SessionState::Up);
    let error = refusal(&fleet.client(), with_chain_of(&fleet, 60), &Time::new(0));
    assert_eq!(error, Misbehavior::TooLarge { bytes_max: 16_645 }.into());
}

#[test]
fn keys_may_be_renewed_by_the_gateway_at_any_time() {
    let fleet = Fleet::new();
    let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
    for round in 0..5u8 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.server_writes(&[round; 100]);
        pair.run(usize::from(round) * 7 + 1).unwrap();
        assert_eq!(std::mem::take(&mut pair.read), [round; 100]);
        pair.device_writes(&[round; 200]);
        assert_eq!(pair.server_reads(), [round; 200]);
    }
}

#[test]
fn records_of_the_largest_size_pass_both_ways() {
    let fleet = Fleet::new();
    let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
    let data = vec![0x5a; 3 * PLAIN_BYTES_MAX];
    pair.server_writes(&data);
    let mut records = Vec::new();
    while pair.server.wants_write() {
        pair.server.write_tls(&mut records).unwrap();
    }
    assert_eq!(records.len(), 3 * RECORD_BYTES_MAX);
    pair.to_session = records;
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.read, data);
    assert_eq!(pair.session.send(&data), PLAIN_BYTES_MAX);
    let mut length = 0;
    pair.session.transmit(&mut |bytes| {
        length += bytes.len();
        pair.to_server.extend_from_slice(bytes);
        bytes.len()
    });
    assert_eq!(length, RECORD_BYTES_MAX);
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.server_reads(), data[..PLAIN_BYTES_MAX]);
}

#[test]
fn a_larger_record_ends_the_session() {
    let fleet = Fleet::new();
    let mut config = ServerConfig::clone(&fleet.server(&fleet.gateway()));
    config.max_fragment_size = None;
    for length in [PLAIN_BYTES_MAX + 1, 16_384] {
        let mut pair = Pair::up(&fleet.client(), Arc::new(config.clone()));
        pair.server_writes(&vec![1; length]);
        let error = pair.run(1_460).unwrap_err();
        assert!(matches!(error, TlsError::PeerMisbehaved(Misbehavior::TooLarge { .. })));
        assert_eq!(
            error.to_string(),
            format!("a record from the gateway is larger than {RECORD_BYTES_MAX} bytes")
        );
        assert_eq!(pair.read, b"");
    }
}

#[test]
fn no_more_is_read_than_the_application_takes() {
    let fleet = Fleet::new();
    let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
    let data = vec![9; 20 * PLAIN_BYTES_MAX];
    pair.server_writes(&data);
    let mut records = Vec::new();
    while pair.server.wants_write() {
        pair.server.write_tls(&mut records).unwrap();
    }
    let mut offered = records.as_slice();
    // Offered again and again, with bytes written in between: at most a record read and a record unread.
    for _ in 0..10 {
        offered = &offered[pair.session.receive(offered).unwrap()..];
        pair.session.send(b"x");
        pair.move_to_server(usize::MAX);
    }
    assert!(records.len() - offered.len() <= 2 * RECORD_BYTES_MAX);
    let mut read = Vec::new();
    loop {
        let mut buffer = [0; 100];
        let count = pair.session.recv(&mut buffer);
        read.extend_from_slice(&buffer[..count]);
        let taken = pair.session.receive(offered).unwrap();
        offered = &offered[taken..];
        if count == 0 && taken == 0 {
            break;
        }
    }
    assert_eq!(read, data);
    assert_eq!(pair.server_reads(), b"xxxxxxxxxx");
}

#[test]
fn a_record_that_was_changed_ends_the_session() {
    let fleet = Fleet::new();
    for at in [5, 40, 116] {
        let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
        pair.server_writes(&[7; 100]);
        pair.server.write_tls(&mut pair.to_session).unwrap();
        pair.to_session[at] ^= 1;
        let error = pair.run(usize::MAX).unwrap_err();
        assert_eq!(error.to_string(), "a record from the gateway is not authentic");
        assert_eq!(pair.read, b"");
        // The gateway was told.
        assert!(pair.server_reads().is_empty());
        let told = pair.server.process_new_packets().unwrap_err();
        assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
    }
}

#[test]
fn a_handshake_that_was_changed_comes_to_nothing() {
    let fleet = Fleet::new();
    let server = fleet.server(&fleet.gateway());
    let client = fleet.client();
    for at in (0..).step_by(13) {
        let mut pair = Pair::new(&client, Arc::clone(&server), &Time::new(0));
        pair.move_to_server(usize::MAX);
        while pair.server.wants_write() {
            pair.server.write_tls(&mut pair.to_session).unwrap();
        }
        // Signatures differ in length, and so do flights.
        let Some(byte) = pair.to_session.get_mut(at) else { break };
        *byte ^= 0x10;
        let flight = pair.to_session.clone();
        let _ = pair.session.receive(&flight);
        // A changed length may leave it waiting, and versions of records are not authenticated before the keys are.
        let version = matches!(at, 1 | 2);
        assert!(version || pair.session.state() != SessionState::Up, "byte {at}");
    }
}

#[test]
fn both_sides_close_in_order() {
    let fleet = Fleet::new();
    let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
    pair.session.send(b"last");
    pair.session.close();
    assert_eq!(pair.session.state(), SessionState::Closed);
    pair.move_to_server(usize::MAX);
    let state = pair.server.process_new_packets().unwrap();
    assert!(state.peer_has_closed());
    assert_eq!(pair.server_reads(), b"last");
    assert_eq!(pair.session.failure(), None);

    let mut pair = Pair::up(&fleet.client(), fleet.server(&fleet.gateway()));
    pair.server_writes(b"last");
    pair.server.send_close_notify();
    pair.run(3).unwrap();
    assert_eq!(pair.read, b"last");
    assert_eq!(pair.session.state(), SessionState::Closed);
    assert_eq!(pair.session.failure(), None);
    assert!(pair.server.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn nobody_on_the_way_can_close_a_handshake_in_order() {
    let fleet = Fleet::new();
    let mut pair = Pair::new(&fleet.client(), fleet.server(&fleet.gateway()), &Time::new(0));
    // close_notify in plain text: anyone can write it.
    assert_eq!(pair.session.receive(&[0x15, 3, 3, 0, 2, 1, 0]), Ok(7));
    assert_eq!(pair.session.state(), SessionState::Handshaking);
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.session.state(), SessionState::Up);
}
