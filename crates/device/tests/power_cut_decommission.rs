//! Power is lost at every single disk operation of a decommissioning, and of what follows a start after it: the device ends at rest,
//! its proof was sent, and nothing that it was to erase is left.

#![cfg(test)]

mod cut;
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod gateway;

use cut::{CAPACITY_BYTES, CutDisk, CutStorage, Power, TestBoard, board};
use gateway::{ScriptedGateway, Wanted};
use wasmbed_device::storage::{Medium, Store};
use wasmbed_protocol::{DeviceUid, KeyHash, Nonce};
use wasmbed_runtime::{Interpreter, RuntimeConfig};
use wasmbed_supervisor::{
    Config, Supervisor,
    memory::{
        FaultyStorage, MemoryBoard,
        identity::{CONTROLLER, DEVICE, order, read_proof},
    },
    platform::{ChainFacts, Ordered, Provisioned},
};

const PATIENCE_MS: u64 = 240_000;
const KEY: KeyHash = KeyHash([3; 32]);
const ORDERED: Ordered = Ordered { device_uid: DeviceUid([7; 16]), nonce: Nonce([9; 16]) };

/// Runs until the device rests, or power is lost. Answers whether it rests, and adds the proof that came.
fn live(disk: &mut CutDisk, wanted: &Wanted, epoch: u64, proofs: &mut Vec<Vec<u8>>) -> bool {
    let power = disk.power.clone();
    let store = match Store::open(disk, CAPACITY_BYTES) {
        Ok(store) => store,
        Err(_) if !power.is_on() => return false,
        Err(error) => panic!("a store that can't be opened: {error}"),
    };
    let mut rest = MemoryBoard::new(FaultyStorage::default(), epoch);
    let facts = ChainFacts { not_before_s: 1_700_000_000, not_after_s: 2_000_000_000 };
    rest.identity.provisioned = Provisioned::Operational { key: KEY, facts };
    let link = rest.link.clone();
    let storage = CutStorage { store, power: power.clone(), outcome: None };
    let config = Config { board: board(), runtime: RuntimeConfig::default() };
    let mut device = Supervisor::<Interpreter, _>::new(config, TestBoard { rest, storage }, 0);
    let order = order(CONTROLLER, DEVICE, ORDERED);
    let mut gateway = ScriptedGateway::new(wanted, 5, epoch);
    gateway.order = Some(&order);
    let mut now_ms = 0;
    while power.is_on() && now_ms < PATIENCE_MS && !device.is_at_rest() {
        device.platform().rest.timer.now_us = now_ms * 1_000;
        let next_ms = device.poll(now_ms);
        if link.accept() {
            gateway = ScriptedGateway::new(wanted, 5, epoch + now_ms);
            gateway.order = Some(&order);
        }
        let sent: Vec<u8> = link.with(|channel| channel.to_gateway.drain(..).collect());
        let answer = gateway.handle(&sent);
        link.with(|channel| channel.to_device.extend(&answer));
        proofs.extend(gateway.proof.take());
        let quiet = sent.is_empty() && answer.is_empty();
        now_ms = if quiet { next_ms.clamp(now_ms, now_ms + 1_000) } else { now_ms };
    }
    let log: Vec<_> = device.platform().rest.log.records.iter().cloned().collect();
    assert!(!power.is_on() || device.is_at_rest(), "it does not rest:\n{}", log.join("\n"));
    device.is_at_rest()
}

fn check(mut disk: &mut CutDisk, proofs: &[Vec<u8>]) {
    let proof = proofs.last().and_then(|proof| read_proof(proof, KEY)).expect("a proof came");
    assert_eq!((proof.nonce, proof.erased.0), (ORDERED.nonce, 7));
    for (name, _) in disk.list().unwrap() {
        assert!(matches!(name.as_str(), "state" | "identity"), "{name} is left");
    }
}

#[test]
fn a_cut_at_every_operation_of_a_decommissioning_is_survived() {
    let module = include_bytes!("../../../guests/prebuilt/counter.wasm").to_vec();
    let wanted = Wanted::new(module, &["key-value"]);
    let (mut disk, mut proofs) = (CutDisk::new(Power::new(u32::MAX), 0), Vec::new());
    assert!(live(&mut disk, &wanted, 1, &mut proofs));
    check(&mut disk, &proofs);
    let operations = u32::MAX - disk.power.left();
    assert!(operations >= 40, "only {operations} operations to cut");
    for cut in 0..operations {
        let mut disk = CutDisk::new(Power::new(cut), u64::from(cut));
        let mut proofs = Vec::new();
        live(&mut disk, &wanted, 1, &mut proofs);
        // And soon after the start.
        let mut disk = disk.after_cut(Power::new(cut % 7));
        live(&mut disk, &wanted, 1_000_000, &mut proofs);
        let mut disk = disk.after_cut(Power::new(u32::MAX));
        assert!(live(&mut disk, &wanted, 2_000_000, &mut proofs), "cut {cut}");
        check(&mut disk, &proofs);
        let mut disk = disk.after_cut(Power::new(u32::MAX));
        let before = proofs.len();
        assert!(
            live(&mut disk, &wanted, 3_000_000, &mut proofs) && proofs.len() == before,
            "it stays at rest"
        );
    }
    println!("power lost at each of {operations} disk operations");
}
