//! A device that is taken out of service, on storage that loses power at any write.
#![cfg(test)]

mod support;

use std::collections::BTreeSet;

use support::{Gateway, Wanted, World, uid};
use wasmbed_agent::{ORDER_PAUSE_MS, storage::StorageError};
use wasmbed_protocol::{
    CloseReason, Closing, DeviceUid, GatewayMessage, KeyHash, Nonce, limits::DETAIL_BYTES_MAX,
};
use wasmbed_statement::{Erased, Proof};
use wasmbed_supervisor::{
    memory::{
        Cut, FaultyStorage, MemoryBoard,
        identity::{CONTROLLER, DEVICE, order, read_proof},
    },
    platform::{ChainFacts, Ordered, Provisioned},
};

const UID: DeviceUid = DeviceUid([7; 16]);
const KEY: KeyHash = KeyHash([3; 32]);
const ORDERED: Ordered = Ordered { device_uid: UID, nonce: Nonce([9; 16]) };

/// Writes its argument into key-value storage, and stays.
const KEEPER: &str = r#"(module
    (import "wasmbed" "wait" (func $wait (param i32)))
    (import "wasmbed" "key_value_put" (func $put (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "n")
    (data (i32.const 8) "what the application keeps")
    (func (export "run")
        (if (call $put (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 26)) (then unreachable))
        (loop (call $wait (i32.const 60000)) (br 0))))"#;

fn operational() -> Provisioned {
    let facts = ChainFacts { not_before_s: 1_700_000_000, not_after_s: 2_000_000_000 };
    Provisioned::Operational { key: KEY, facts }
}

/// A device in a session with two applications, one of which keeps something.
fn running() -> World {
    let gateway = Gateway { identity: Some((operational(), Some(UID))), ..Gateway::default() };
    let mut world = World::with(MemoryBoard::new(FaultyStorage::default(), 1), gateway, 0);
    let keeper = Wanted { args: vec!["secret argument".into()], ..Wanted::wat(KEEPER) };
    world.gateway.set(1, keeper.clone().capabilities(&["key-value"]));
    world.gateway.set(2, keeper.padded(9_000).capabilities(&["key-value"]));
    world.until_running(&[1, 2]);
    world.until("it keeps something", 5_000, |world| world.disk(|disk| disk.data.len()) == 2);
    world.run_for(100);
    world
}

trait Looks {
    fn disk<R>(&mut self, look: impl FnOnce(&wasmbed_supervisor::memory::Disk) -> R) -> R;
    fn order(&mut self, order: Vec<u8>);
    fn legible(&mut self, bytes: &[u8]) -> bool;
    fn logged(&mut self, part: &str) -> usize;
    fn proof(&self) -> Option<Proof>;
}

impl Looks for World {
    fn disk<R>(&mut self, look: impl FnOnce(&wasmbed_supervisor::memory::Disk) -> R) -> R {
        look(self.device.platform().storage.disk())
    }

    fn order(&mut self, order: Vec<u8>) {
        self.gateway.order = Some(order);
        let link = self.link.clone();
        self.gateway.send_order(&link);
    }

    /// Whether these bytes stand anywhere on the disk, removed or not.
    fn legible(&mut self, bytes: &[u8]) -> bool {
        self.disk(|disk| {
            let objects = disk.modules.values().chain(disk.staged.values()).chain(disk.data.values());
            let mut all = objects.chain(&disk.state).chain(&disk.identity).chain(&disk.remains);
            all.any(|object| object.windows(bytes.len()).any(|part| part == bytes))
        })
    }

    fn logged(&mut self, part: &str) -> usize {
        self.device.platform().log.records.iter().filter(|line| line.contains(part)).count()
    }

    fn proof(&self) -> Option<Proof> {
        self.gateway.proofs.last().map(|(_, proof)| read_proof(proof, KEY).unwrap())
    }
}

fn good() -> Vec<u8> {
    order(CONTROLLER, DEVICE, ORDERED)
}

fn expected() -> Proof {
    Proof { device_uid: UID, nonce: ORDERED.nonce, erased: Erased::ALL }
}

#[test]
fn a_device_stops_erases_proves_and_rests() {
    let mut world = running();
    for secret in [&b"what the application keeps"[..], b"secret argument"] {
        assert!(world.legible(secret));
    }
    world.order(good());
    world.until("it proves", 20_000, |world| !world.gateway.proofs.is_empty());
    assert_eq!(world.proof(), Some(expected()));
    assert_eq!((world.device.loaded(), world.device.applications().count()), (0, 0));
    for secret in [&b"what the application keeps"[..], b"secret argument", b"key_value_put"] {
        assert!(!world.legible(secret), "{}", String::from_utf8_lossy(secret));
    }
    assert!(world.disk(|disk| disk.modules.is_empty() && disk.staged.is_empty() && disk.data.is_empty()));
    assert!(world.gateway.reports.is_empty(), "the gateway hears that nothing runs");

    // A set that comes now is not for this device any more.
    world.gateway.revision += 1;
    let link = world.link.clone();
    world.gateway.send_desired(&link);
    world.run_for(100_000);
    assert_eq!((world.device.loaded(), world.disk(|disk| disk.modules.len())), (0, 0));

    world.gateway.confirms = true;
    world.until("the proof is acknowledged", 40_000, |world| world.gateway.is_confirmed);
    world.until("it rests", 20_000, |world| world.device.is_at_rest());
    assert!(world.disk(|disk| disk.is_blank), "the provisioned key is erased");
    assert!(world.device.platform().identity.has_forgotten);
    let attempts = world.link.with(|channel| channel.attempts);
    world.run_for(10_000_000);
    assert_eq!(world.link.with(|channel| channel.attempts), attempts, "it stays quiet");
    for (line, count) in [
        ("decommissioned as Device 07070707-", 1),
        ("the proof is stored", 1),
        ("the proof arrived", 1),
        ("its key is erased, and it does nothing any more", 1),
    ] {
        assert_eq!(world.logged(line), count, "{line}: {:#?}", world.device.platform().log.records);
    }
    let mut world = world.reboot();
    world.until("it rests at once", 100_000, |world| world.device.is_at_rest());
    world.run_for(10_000_000);
    assert_eq!(world.link.with(|channel| channel.attempts), 0);
}

#[test]
fn a_proof_is_sent_at_each_sessions_start_and_every_half_minute() {
    let mut world = running();
    world.order(good());
    world.until("it proves", 20_000, |world| !world.gateway.proofs.is_empty());
    world.run_for(300_000);
    let times: Vec<u64> = world.gateway.proofs.iter().map(|(at_ms, _)| *at_ms).collect();
    assert!((10..=11).contains(&times.len()), "{times:?}");
    assert!(times.windows(2).all(|pair| (30_000..30_100).contains(&(pair[1] - pair[0]))), "{times:?}");
    let first = world.gateway.proofs[0].1.clone();
    for _ in 0..3 {
        world = world.reboot();
        let (before, sent) = (world.now_ms, world.gateway.proofs.len());
        world.until("it is sent again", 20_000, |world| world.gateway.proofs.len() > sent);
        assert!(world.now_ms - before < 2_000);
        world.run_for(1_000);
    }
    assert!(world.gateway.proofs.iter().all(|(_, proof)| *proof == first), "the same proof each time");
    assert_eq!(world.device.platform().identity.orders_judged, 1, "the order came again with the session");
}

#[test]
fn only_a_controllers_order_for_this_very_device_is_followed() {
    let mut spoilt = good();
    *spoilt.last_mut().unwrap() ^= 1;
    let other_uid = Ordered { device_uid: DeviceUid([8; 16]), ..ORDERED };
    for (bad, why) in [
        (b"no order".to_vec(), "COSE_Sign1"),
        (vec![], "COSE_Sign1"),
        (spoilt, "signature"),
        (order(b"gateway", DEVICE, ORDERED), "not a controller's"),
        (order(CONTROLLER, "spiffe://memory/ns/default/device/other", ORDERED), "another device"),
        (order(CONTROLLER, DEVICE, other_uid), "another device"),
    ] {
        let mut world = running();
        world.order(bad.clone());
        world.until("it is refused", 5_000, |world| !world.gateway.refusals.is_empty());
        assert!(world.gateway.refusals[0].contains(why), "{:?}", world.gateway.refusals);
        // It may come as often as it likes: it is judged once in a session.
        for _ in 0..50 {
            world.order(bad.clone());
            world.run_for(10);
        }
        world.run_for(20_000);
        assert_eq!(world.device.platform().identity.orders_judged, 1);
        assert!(world.gateway.refusals.iter().all(|refusal| refusal.len() <= DETAIL_BYTES_MAX));
        assert!(world.gateway.refusals.len() > 40, "each is answered: {}", world.gateway.refusals.len());
        assert!(world.runs_wanted(1) && world.runs_wanted(2) && world.gateway.proofs.is_empty());
        world.order(good());
        world.until("a good one is followed", 20_000, |world| !world.gateway.proofs.is_empty());
    }
}

#[test]
fn orders_that_differ_are_judged_one_in_ten_seconds() {
    let mut world = running();
    for number in 0..10_000_u32 {
        let now_ms = world.now_ms;
        world.order(number.to_le_bytes().to_vec());
        world.step();
        world.now_ms = now_ms + 10;
    }
    let most = 100_000 / ORDER_PAUSE_MS + 1;
    let judged = u64::from(world.device.platform().identity.orders_judged);
    assert!((most - 3..=most).contains(&judged), "{judged} in 100 s");
    assert!(world.runs_wanted(1));
    world.order(good());
    world.until("the last one is the one that counts", 20_000, |world| world.proof() == Some(expected()));
}

#[test]
fn another_order_gets_another_proof_and_the_same_one_the_same() {
    let mut world = running();
    world.order(good());
    world.until("it proves", 20_000, |world| !world.gateway.proofs.is_empty());
    let writes = |world: &mut World| world.disk(|disk| disk.identity.clone());
    let before = writes(&mut world);
    world.order(good());
    world.run_for(1_000);
    assert_eq!((world.gateway.proofs.len(), writes(&mut world)), (2, before), "sent again, not made again");
    let later = Ordered { nonce: Nonce([10; 16]), ..ORDERED };
    world.order(order(CONTROLLER, DEVICE, later));
    world.until("it proves that one", 60_000, |world| {
        world.proof().is_some_and(|proof| proof.nonce == later.nonce)
    });
}

#[test]
fn an_older_gateway_gets_no_proof_and_the_next_one_does() {
    let mut world = running();
    world.order(good());
    world.until("it proves", 20_000, |world| !world.gateway.proofs.is_empty());
    world.gateway.is_older = true;
    let mut world = world.reboot();
    world.run_for(200_000);
    assert!(world.gateway.hellos.len() >= 2 && world.gateway.proofs.len() == 1);
    world.gateway.is_older = false;
    world.gateway.confirms = true;
    world.link.cut();
    world.until("it rests", 20_000, |world| world.device.is_at_rest());
}

#[test]
fn without_a_proof_the_close_is_taken_as_a_revocation() {
    for reject in [false, true] {
        let mut world = running();
        if reject {
            world.gateway.is_confirmed = true;
            world.link.cut();
        } else {
            let link = world.link.clone();
            let closing = Closing { reason: CloseReason::Decommissioned, retry_after_ms: 5_000, detail: "" };
            world.gateway.send(&link, &GatewayMessage::Goodbye(closing));
        }
        world.until("everything is stopped", 20_000, |world| world.device.loaded() == 0);
        world.run_for(1_000);
        assert!(!world.device.is_at_rest() && !world.disk(|disk| disk.is_blank));
        world.gateway.is_confirmed = false;
        world.until_running(&[1, 2]);
    }
}

#[test]
fn a_device_whose_identity_is_fixed_says_that_it_can_not() {
    let mut world = World::new();
    world.gateway.set(1, Wanted::wat(KEEPER).capabilities(&["key-value"]));
    world.until_running(&[1]);
    world.order(good());
    world.until("it says so", 5_000, |world| !world.gateway.refusals.is_empty());
    assert!(world.gateway.refusals[0].contains("nowhere to keep a proof"), "{:?}", world.gateway.refusals);
    assert!(world.runs_wanted(1));
}

/// From the order on: whether the device rests. Its gateway confirms what comes.
fn ends(world: &mut World) -> bool {
    world.device.is_at_rest()
}

#[test]
fn a_cut_at_every_write_ends_in_the_same_rest() {
    let mut cuts = 0;
    for writes in 0.. {
        let mut cut = false;
        for permille in [0, 499, 500, 1_000] {
            let mut world = running();
            world.gateway.confirms = true;
            world.device.platform().storage.faults.cut = Some(Cut { writes, permille });
            world.order(good());
            world.until("it rests, or loses power", 100_000, |world| !world.has_power() || ends(world));
            if world.has_power() {
                continue;
            }
            (cut, cuts) = (true, cuts + 1);
            let had_proven = !world.gateway.proofs.is_empty();
            let mut world = world.reboot();
            if had_proven {
                world.run_for(5_000);
                assert_eq!(world.device.loaded(), 0, "write {writes}: nothing runs after the proof");
            }
            // Until the proof is stored, the order has to come again: it does with the session.
            world.until(&format!("it rests after a cut at write {writes}"), 400_000, ends);
            assert_eq!(world.proof(), Some(expected()));
            for secret in [&b"what the application keeps"[..], b"secret argument", b"key_value_put"] {
                assert!(!world.legible(secret), "write {writes}");
            }
            assert!(world.disk(|disk| disk.is_blank && disk.data.is_empty() && disk.modules.is_empty()));
            let mut world = world.reboot();
            world.until("it goes on resting", 100_000, ends);
        }
        if !cut {
            break;
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 40, "only {cuts} cuts");
}

#[test]
fn what_storage_does_not_erase_is_not_claimed() {
    let mut found = BTreeSet::new();
    for (failing, after) in
        [1, 3, 5, 12, 40].into_iter().flat_map(|count| (0..20).map(move |after| (count, after)))
    {
        let mut world = running();
        world.order(good());
        let faults = &mut world.device.platform().storage.faults;
        faults.failures = (0..failing).map(|_| StorageError::Failed("bad block".into())).collect();
        faults.spared = after;
        world.until("it proves", 4_000_000, |world| !world.gateway.proofs.is_empty());
        let (_, sent) = world.gateway.proofs[0].clone();
        assert!(
            world.legible(&sent),
            "{failing} failures after {after} operations: sent before it was stored"
        );
        world.gateway.confirms = true;
        world.until("it rests in the end", 4_000_000, ends);
        let proof = world.proof().unwrap();
        assert_eq!((proof.device_uid, proof.nonce), (UID, ORDERED.nonce));
        found.insert(proof.erased.0);
        let is_whole = proof.erased == Erased::ALL;
        assert_eq!(!is_whole, world.logged("storage did not erase all that it should") > 0);
        let left = world.legible(b"what the application keeps") || world.legible(b"secret argument");
        assert!(!is_whole || !left, "{failing} failures after {after} operations");
    }
    println!("erased: {found:?}");
    assert!(found.contains(&7) && found.contains(&0) && found.len() >= 3, "{found:?}");
}

#[test]
fn while_it_erases_what_comes_from_the_gateway_changes_nothing() {
    let mut world = running();
    world.order(good());
    let link = world.link.clone();
    for _ in 0..200 {
        world.gateway.revision += 1;
        world.gateway.send_desired(&link);
        world.step();
        assert_eq!(world.device.agent().unwrap().check(), Ok(()));
    }
    world.until("it proves", 20_000, |world| !world.gateway.proofs.is_empty());
    assert_eq!(world.device.agent().unwrap().applications().next(), None);
    assert_eq!(world.state(1), None);
    let _ = uid(1);
}
