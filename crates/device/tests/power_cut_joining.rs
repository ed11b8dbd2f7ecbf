//! Power is lost at every single disk operation of a join, and of what follows a start after it: the device has one key, loses no
//! chain and joins.

#![cfg(test)]

mod cut;

use std::collections::BTreeSet;

use cut::{CAPACITY_BYTES, CutDisk, CutStorage, Power, TestBoard, board};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use wasmbed_device::storage::Store;
use wasmbed_protocol::{
    Certificate, DeviceMessage, DeviceUid, Epoch, Frames, GatewayMessage, JoinAnswer, JoinState, KeyHash,
    Welcome, decode_device, encode_gateway, limits,
};
use wasmbed_runtime::{Interpreter, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{
        FaultyStorage, MemoryBoard, MemoryLink,
        identity::{chain, proof, requested_key},
    },
    platform::{ChainFacts, Provisioned},
};

const UID: DeviceUid = DeviceUid([7; 16]);
const PATIENCE_MS: u64 = 120_000;
const CHAIN_BYTES: usize = 5_000;

fn provisioned() -> Provisioned {
    Provisioned::Pairing { id: "0a1b2c3d".into() }
}

/// A gateway and signer over all lives of a device.
#[derive(Default)]
struct Gateway {
    received: Vec<u8>,
    epoch: u64,
    keys: BTreeSet<KeyHash>,
    /// Once: the token is used up.
    issued: Option<Vec<u8>>,
    /// There was a session with the chain.
    proven: bool,
}

impl Gateway {
    fn poll(&mut self, link: &MemoryLink) -> bool {
        let presented = link.with(|channel| channel.presented.clone());
        if link.accept() {
            self.received.clear();
            assert!(presented.is_none() || presented == self.issued, "a chain that nobody issued");
            assert!(presented.is_some() || !self.proven, "a chain that had a session is lost");
        }
        let came: Vec<u8> = link.with(|channel| channel.to_gateway.drain(..).collect());
        self.received.extend(&came);
        let received = std::mem::take(&mut self.received);
        let mut frames = Frames::new(&received);
        for body in frames.by_ref() {
            self.handle(link, decode_device(body.unwrap()).unwrap());
        }
        self.received = received[frames.consumed()..].to_vec();
        !came.is_empty()
    }

    fn send(link: &MemoryLink, message: &GatewayMessage<'_>) {
        let mut frame = [0; limits::FRAME_BYTES_MAX];
        let length = encode_gateway(message, &mut frame).unwrap();
        link.with(|channel| channel.to_device.extend(&frame[..length]));
    }

    fn handle(&mut self, link: &MemoryLink, message: DeviceMessage<'_>) {
        match message {
            DeviceMessage::Join(join) => {
                let key = requested_key(join.request).unwrap();
                self.keys.insert(key);
                let Some(given) = join.proof else {
                    let (state, device_uid) = (JoinState::ProofNeeded, Some(UID));
                    let (namespace, name, retry_after_ms, detail) = ("default", "joined", 0, "");
                    let answer = JoinAnswer { state, device_uid, namespace, name, retry_after_ms, detail };
                    return Self::send(link, &GatewayMessage::JoinAnswer(answer));
                };
                assert_eq!(Some(given.to_vec()), proof(&provisioned(), key, "default", "joined", UID));
                let facts = ChainFacts { not_before_s: 1_700_000_000, not_after_s: 1_900_000_000 };
                let issued = self.issued.get_or_insert_with(|| chain(key, facts, CHAIN_BYTES));
                for (index, bytes) in issued.chunks(limits::CHUNK_BYTES_MAX).enumerate() {
                    let offset = (index * limits::CHUNK_BYTES_MAX) as u32;
                    let chain_bytes = CHAIN_BYTES as u32;
                    Self::send(
                        link,
                        &GatewayMessage::Certificate(Certificate { chain_bytes, offset, bytes }),
                    );
                }
            }
            DeviceMessage::Hello(hello) => {
                self.proven = true;
                self.epoch = self.epoch.max(hello.last_epoch.0) + 1;
                let welcome = Welcome {
                    epoch: Epoch(self.epoch),
                    unix_ms: 1_780_000_000_000,
                    heartbeat_interval_ms: 10_000,
                    heartbeat_timeout_ms: 30_000,
                    log_bytes_per_second: 0,
                    desired_known: false,
                    groups: None,
                };
                Self::send(link, &GatewayMessage::Welcome(welcome));
            }
            DeviceMessage::Error(error) => panic!("the device complains: {error:?}"),
            _ => {}
        }
    }
}

/// Runs until the device has had a session for a while, or power is lost. Answers whether it had one.
fn live(disk: &mut CutDisk, gateway: &mut Gateway, seed: u64) -> bool {
    let power = disk.power.clone();
    let store = match Store::open(disk, CAPACITY_BYTES) {
        Ok(store) => store,
        Err(_) if !power.is_on() => return false,
        Err(error) => panic!("a store that can't be opened: {error}"),
    };
    let mut rest = MemoryBoard::new(FaultyStorage::default(), seed);
    rest.identity.provisioned = provisioned();
    let link = rest.link.clone();
    let storage = CutStorage { store, power: power.clone(), outcome: None };
    let config = Config { board: board(), runtime: RuntimeConfig::default() };
    let mut device = Supervisor::<Interpreter, _>::new(config, TestBoard { rest, storage }, 0);
    let (mut now_ms, mut since_ms) = (0, None);
    while power.is_on() && now_ms < PATIENCE_MS {
        device.platform().rest.timer.now_us = now_ms * 1_000;
        let next_ms = device.poll(now_ms);
        let busy = gateway.poll(&link);
        if device.session().is_some() && now_ms >= *since_ms.get_or_insert(now_ms) + 5_000 {
            break;
        }
        now_ms = if busy { now_ms } else { next_ms.clamp(now_ms + 1, now_ms + 1_000) };
    }
    let log: Vec<_> = device.platform().rest.log.records.iter().cloned().collect();
    let log = log.join("\n");
    assert!(!log.contains("not readable"), "a record is whole: {log}");
    assert!(!power.is_on() || since_ms.is_some(), "the device did not come up:\n{log}");
    since_ms.is_some()
}

#[test]
fn a_cut_at_every_operation_of_a_join_is_survived() {
    let (mut disk, mut gateway) = (CutDisk::new(Power::new(u32::MAX), 0), Gateway::default());
    assert!(live(&mut disk, &mut gateway, 1));
    let operations = u32::MAX - disk.power.left();
    assert!(operations >= 16, "only {operations} operations to cut");
    for cut in 0..operations {
        for seed in 0..4 {
            let mut disk = CutDisk::new(Power::new(cut), u64::from(cut) * 4 + seed);
            let mut gateway = Gateway::default();
            live(&mut disk, &mut gateway, 1);
            let mut disk = disk.after_cut(Power::new(u32::MAX));
            assert!(live(&mut disk, &mut gateway, 2));
            assert_eq!(gateway.keys.len(), 1, "cut {cut}: a key was used before it was kept");
        }
    }
    println!("power lost at each of {operations} disk operations");
}

#[test]
fn cut_after_cut_is_survived() {
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut gateway = Gateway::default();
        let mut disk = CutDisk::new(Power::new(u32::MAX), seed ^ 0xff);
        for start in 0..6 {
            disk = disk.after_cut(Power::new(random.random_range(0..20)));
            live(&mut disk, &mut gateway, start);
        }
        disk = disk.after_cut(Power::new(u32::MAX));
        assert!(live(&mut disk, &mut gateway, 9));
        assert_eq!(gateway.keys.len(), 1, "seed {seed}");
    }
}
