//! Room, wear, any content.
#![cfg(test)]

use proptest::prelude::*;
use wasmbed_agent::{
    module_digest,
    storage::{Done, Inventory, Operation, Outcome, StorageError},
};
use wasmbed_board_data::{NUCLEO_H743ZI2, RISCV32_VIRT};
use wasmbed_flash::{FlashStorage, Geometry, Medium, OpenError, provision, simulated::Simulated};
use wasmbed_protocol::{ApplicationUid, ModuleDigest};
use wasmbed_supervisor::platform::Storage as _;

const SMALL: Geometry = Geometry {
    erase_bytes: 4_096,
    identity_blocks: 1,
    segment_blocks: 4,
    segments: 3,
    module_blocks: 19,
    module_bytes_max: 32_768,
    flash_bytes: 32 * 4_096,
};

type Flash = FlashStorage<Simulated<4_096, 8>>;

fn open(medium: Simulated<4_096, 8>) -> Flash {
    FlashStorage::open(medium, SMALL).unwrap()
}

fn perform<M: Medium>(flash: &mut FlashStorage<M>, operation: Operation) -> Outcome {
    flash.start(operation);
    for _ in 0..10_000 {
        if let Some(outcome) = flash.poll() {
            assert!(!flash.is_busy());
            return outcome;
        }
        assert!(flash.is_busy());
    }
    panic!("the operation does not end");
}

fn inventory<M: Medium>(flash: &mut FlashStorage<M>) -> Inventory {
    match perform(flash, Operation::Inventory) {
        Ok(Done::Inventory(inventory)) => inventory,
        other => panic!("{other:?}"),
    }
}

fn stage<M: Medium>(flash: &mut FlashStorage<M>, module: &[u8]) -> Outcome {
    let digest = module_digest(module);
    for (index, chunk) in module.chunks(4_000).enumerate() {
        let offset = (index * 4_000) as u32;
        perform(flash, Operation::Append { digest, offset, bytes: chunk.to_vec() })?;
    }
    Ok(Done::Written)
}

fn store<M: Medium>(flash: &mut FlashStorage<M>, module: &[u8]) -> Outcome {
    stage(flash, module)?;
    perform(flash, Operation::CommitModule(module_digest(module)))
}

fn module(number: u32, length: usize) -> Vec<u8> {
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

#[test]
fn full_is_answered_with_what_was_there_untouched_and_room_comes_back() {
    let mut flash = open(Simulated::new(32));
    let kept: Vec<_> = (0..4).map(|number| module(number, 16_000)).collect();
    for bytes in &kept {
        assert_eq!(store(&mut flash, bytes), Ok(Done::Written));
    }
    // 16 of 19 blocks are taken.
    let large = module(9, 20_000);
    assert_eq!(store(&mut flash, &large), Err(StorageError::Full));
    for bytes in &kept {
        assert_eq!(flash.module(&module_digest(bytes)).unwrap().as_ref(), bytes.as_slice());
    }
    perform(&mut flash, Operation::DeleteModule(module_digest(&large))).unwrap();
    perform(&mut flash, Operation::DeleteModule(module_digest(&kept[3]))).unwrap();
    assert_eq!(store(&mut flash, &large), Ok(Done::Written));
    let mut flash = open(flash.into_medium());
    assert_eq!(inventory(&mut flash).modules.len(), 4);
    assert_eq!(flash.medium().violations, 0);
}

/// After each number of operations that still work, all of them fail for a while: what a board on QEMU sees whose host has no room.
#[test]
fn a_flash_that_fails_for_a_while_loses_nothing_and_is_written_again_without_a_restart() {
    let uid = ApplicationUid([1; 16]);
    let (kept, next) = (module(1, 9_001), module(2, 12_000));
    let steps = || {
        let digest = module_digest(&next);
        let chunks = next.chunks(4_000).enumerate().map(move |(index, chunk)| Operation::Append {
            digest,
            offset: (index * 4_000) as u32,
            bytes: chunk.to_vec(),
        });
        let records =
            [Operation::CommitState(vec![2; 3_000]), Operation::CommitData { uid, bytes: vec![2; 500] }];
        chunks.chain([Operation::CommitModule(digest)]).chain(records)
    };
    for begin in 0..steps().count() {
        for failures in 1..4 {
            let mut flash = open(Simulated::new(32));
            store(&mut flash, &kept).unwrap();
            perform(&mut flash, Operation::CommitState(vec![1; 3_000])).unwrap();
            perform(&mut flash, Operation::CommitData { uid, bytes: vec![1; 500] }).unwrap();
            let mut done = 0;
            for (index, operation) in steps().enumerate() {
                if index < begin {
                    perform(&mut flash, operation).unwrap();
                    done += 1;
                    continue;
                }
                flash.medium().failing = true;
                for failure in 0..failures {
                    let outcome = perform(&mut flash, operation.clone());
                    let said =
                        matches!(&outcome, Err(StorageError::Failed(why)) if why.contains("no space left"));
                    assert!(said || failure > 0 && outcome == Err(StorageError::Missing), "{outcome:?}");
                }
                break;
            }
            // What was acknowledged is read while nothing can be written.
            assert_eq!(flash.module(&module_digest(&kept)).unwrap().as_ref(), kept.as_slice());
            let committed = |at: usize| if done > at { 2 } else { 1 };
            let (state, data) = (committed(steps().count() - 2), committed(steps().count() - 1));
            let read = Operation::ReadState;
            assert_eq!(perform(&mut flash, read), Ok(Done::Record(Some(vec![state; 3_000]))), "{begin}");
            flash.medium().failing = false;
            // A device that was refused asks what is there and goes on, or begins anew.
            assert!(inventory(&mut flash).modules.iter().any(|stored| stored.0 == module_digest(&kept)));
            if !inventory(&mut flash).modules.iter().any(|stored| stored.0 == module_digest(&next)) {
                perform(&mut flash, Operation::DeleteModule(module_digest(&next))).unwrap();
                store(&mut flash, &next).unwrap();
            }
            perform(&mut flash, Operation::CommitState(vec![3; 3_000])).unwrap();
            let mut flash = open(flash.into_medium());
            for bytes in [&kept, &next] {
                assert_eq!(flash.module(&module_digest(bytes)).unwrap().as_ref(), bytes.as_slice());
            }
            assert_eq!(perform(&mut flash, Operation::ReadState), Ok(Done::Record(Some(vec![3; 3_000]))));
            let read = Operation::ReadData(uid);
            assert_eq!(perform(&mut flash, read), Ok(Done::Record(Some(vec![data; 500]))));
            assert_eq!(flash.medium().violations, 0, "no unit is written twice");
        }
    }
}

#[test]
fn records_that_do_not_fit_are_refused_and_the_old_ones_stay() {
    let mut flash = open(Simulated::new(32));
    assert_eq!(perform(&mut flash, Operation::CommitState(vec![1; 9_000])), Ok(Done::Written));
    assert_eq!(perform(&mut flash, Operation::CommitState(vec![2; 16_000])), Err(StorageError::Full));
    let uid = ApplicationUid([1; 16]);
    let too_much = Operation::CommitData { uid, bytes: vec![3; 6_000] };
    assert_eq!(perform(&mut flash, too_much), Err(StorageError::Full));
    assert_eq!(perform(&mut flash, Operation::ReadState), Ok(Done::Record(Some(vec![1; 9_000]))));
    // The reserve is for what a board needs to connect at all.
    flash.raise_time_floor(5).unwrap();
    flash.set_reset_note(&[b'x'; 600]).unwrap();
    let mut flash = open(flash.into_medium());
    assert_eq!(flash.time_floor_s(), Some(5));
    assert_eq!(flash.take_reset_note().unwrap(), Some(vec![b'x'; 512]));
    assert_eq!(flash.take_reset_note().unwrap(), None);
}

#[test]
fn a_module_larger_than_the_board_takes_is_full_and_an_offset_beyond_the_end_is_missing() {
    let mut flash = open(Simulated::new(32));
    assert_eq!(stage(&mut flash, &module(1, 32_769)), Err(StorageError::Full));
    let digest = ModuleDigest([5; 32]);
    let append = |offset| Operation::Append { digest, offset, bytes: vec![1] };
    assert_eq!(perform(&mut flash, append(1)), Err(StorageError::Missing));
    assert_eq!(perform(&mut flash, Operation::CommitModule(digest)), Err(StorageError::Missing));
    assert_eq!(flash.module(&digest), Err(StorageError::Missing));
    assert_eq!(perform(&mut flash, Operation::DeleteModule(digest)), Ok(Done::Written));
}

#[test]
fn two_modules_grow_side_by_side_on_a_flash_of_few_blocks() {
    let geometry = NUCLEO_H743ZI2.geometry;
    let mut flash = FlashStorage::open(Simulated::<131_072, 32>::new(8), geometry).unwrap();
    let (a, b) = (module(1, 200_000), module(2, 250_000));
    for index in 0..63 {
        for bytes in [&a, &b] {
            if let Some(chunk) = bytes.chunks(4_000).nth(index) {
                let (digest, offset) = (module_digest(bytes), (index * 4_000) as u32);
                let append = Operation::Append { digest, offset, bytes: chunk.to_vec() };
                assert_eq!(perform(&mut flash, append), Ok(Done::Written));
            }
        }
    }
    for bytes in [&a, &b] {
        perform(&mut flash, Operation::CommitModule(module_digest(bytes))).unwrap();
        assert_eq!(flash.module(&module_digest(bytes)).unwrap().as_ref(), bytes.as_slice());
    }
}

fn wear<const E: usize, const W: usize>(geometry: Geometry, deployments: u32, module_bytes: usize) {
    let blocks = geometry.flash_bytes / geometry.erase_bytes;
    let mut flash = FlashStorage::open(Simulated::<E, W>::new(blocks), geometry).unwrap();
    // One application stays for ever, another is replaced again and again.
    store(&mut flash, &module(u32::MAX, module_bytes)).unwrap();
    for number in 0..deployments {
        let new = module(number, module_bytes / 2 + number as usize * 37 % module_bytes / 2);
        store(&mut flash, &new).unwrap();
        perform(&mut flash, Operation::CommitState(module(number, 900))).unwrap();
        if let Some(old) = number.checked_sub(1) {
            let old = module(old, module_bytes / 2 + old as usize * 37 % module_bytes / 2);
            perform(&mut flash, Operation::DeleteModule(module_digest(&old))).unwrap();
        }
        if number % 97 == 0 {
            flash = FlashStorage::open(flash.into_medium(), geometry).unwrap();
        }
    }
    let medium = flash.into_medium();
    assert_eq!(medium.violations, 0);
    let first = (geometry.identity_blocks) as usize;
    let modules = first + (geometry.segment_blocks * geometry.segments) as usize;
    let last = modules + geometry.module_blocks as usize;
    assert!(medium.erases[..first].iter().all(|erases| *erases == 0), "the identity is never touched");
    for (what, range) in [("records", first..modules), ("modules", modules..last)] {
        let erases = &medium.erases[range];
        let (most, least) = (erases.iter().max().unwrap(), erases.iter().min().unwrap());
        println!("{deployments} deployments, blocks of {E}: {what} erased {least} to {most} times a block");
        if what == "records" {
            assert!(most - least <= 1, "segments are used in turn");
        } else {
            // Beside the block of what stays, none is spared and none is worn out.
            let mean = erases.iter().sum::<u32>() / erases.len() as u32;
            assert!(*most <= 2 * mean + 2, "{erases:?}");
            let held = (module_bytes.div_ceil(E) + 2).min(erases.len() - 1);
            assert!(erases.iter().filter(|erases| **erases < mean / 3).count() <= held, "{erases:?}");
        }
    }
}

#[test]
fn deployments_wear_all_blocks_alike() {
    wear::<4_096, 8>(SMALL, 3_000, 9_000);
    wear::<131_072, 32>(NUCLEO_H743ZI2.geometry, 1_000, 40_000);
}

#[test]
fn a_geometry_that_is_not_the_medium_s_is_refused() {
    let refused = FlashStorage::open(Simulated::<4_096, 8>::new(32), RISCV32_VIRT.geometry);
    assert!(matches!(refused, Err(OpenError::Geometry(_))));
    let refused = FlashStorage::open(Simulated::<4_096, 8>::new(31), SMALL);
    assert!(matches!(refused, Err(OpenError::Geometry(_))));
}

#[test]
fn a_seed_is_given_once_and_follows_from_the_provisioned_one() {
    let mut flash = open(Simulated::new(32));
    let mut other = open(Simulated::new(32));
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        assert!(seen.insert(flash.next_random_seed(&[1; 32], &[]).unwrap()));
        assert!(seen.insert(other.next_random_seed(&[2; 32], &[]).unwrap()));
        flash = open(flash.into_medium());
    }
}

/// Whatever is there, it opens, and afterwards it works.
fn works(bytes: Vec<u8>) {
    let mut flash = open(Simulated::with(bytes));
    let held = inventory(&mut flash);
    for (digest, length) in &held.modules {
        assert_eq!(flash.module(digest).unwrap().len(), *length as usize);
    }
    for (digest, _) in held.modules.iter().chain(&held.staged) {
        perform(&mut flash, Operation::DeleteModule(*digest)).unwrap();
    }
    for uid in held.data {
        perform(&mut flash, Operation::DeleteData(uid)).unwrap();
    }
    perform(&mut flash, Operation::CommitState(b"new".to_vec())).unwrap();
    let bytes = module(1, 30_000);
    store(&mut flash, &bytes).unwrap();
    assert_eq!(flash.medium().violations, 0);
    let mut flash = open(flash.into_medium());
    assert_eq!(perform(&mut flash, Operation::ReadState), Ok(Done::Record(Some(b"new".to_vec()))));
    assert_eq!(flash.module(&module_digest(&bytes)).unwrap().as_ref(), bytes.as_slice());
    let _ = provision::decode(flash.identity());
}

fn used() -> Vec<u8> {
    let mut flash = open(Simulated::new(32));
    for number in 0..9 {
        perform(&mut flash, Operation::CommitState(module(number, 2_000))).unwrap();
        let uid = ApplicationUid([number as u8 % 3; 16]);
        perform(&mut flash, Operation::CommitData { uid, bytes: module(number, 500) }).unwrap();
        store(&mut flash, &module(number, 5_000)).unwrap();
        if number > 1 {
            let old = module_digest(&module(number - 2, 5_000));
            perform(&mut flash, Operation::DeleteModule(old)).unwrap();
        }
    }
    stage(&mut flash, &module(77, 9_000)).unwrap();
    flash.into_medium().bytes().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_flash_opens_and_works(seed: u64, manner in 0..3) {
        let mut state = seed;
        let random = (0..32 * 4_096).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        });
        works(match manner {
            0 => random.collect(),
            1 => random.map(|byte| byte & 0x80).collect(),
            _ => random.map(|byte| byte | 0xFE).collect(),
        });
    }

    #[test]
    fn a_damaged_store_opens_and_works(damage in prop::collection::vec((0usize..32 * 4_096, any::<u8>(), 1usize..6_000), 1..8)) {
        let mut bytes = used();
        for (at, value, length) in damage {
            let end = bytes.len().min(at + length);
            bytes[at..end].fill(value);
        }
        works(bytes);
    }

    #[test]
    fn it_does_what_the_memory_of_a_simulation_does(script in prop::collection::vec((0u8..9, 0u8..3, 0usize..6_000), 1..60), reopen: u64) {
        let mut flash = open(Simulated::new(32));
        let mut reference = wasmbed_supervisor::memory::MemoryStorage::default();
        let mut bits = reopen;
        for (kind, which, size) in script {
            let digest = ModuleDigest([which; 32]);
            let uid = ApplicationUid([which; 16]);
            let bytes = module(u32::from(which) + size as u32, size % 3_000);
            let staged = reference.disk.staged.get(&digest).map_or(0, Vec::len);
            let offset = if size % 5 == 0 { staged / 2 } else { staged } as u32;
            let operation = match kind {
                0 => Operation::CommitState(bytes),
                1 => Operation::CommitData { uid, bytes },
                2 => Operation::DeleteData(uid),
                3..=5 => Operation::Append { digest, offset, bytes },
                6 => Operation::CommitModule(digest),
                7 => Operation::DeleteModule(digest),
                _ => Operation::ReadStaged { digest, offset: offset / 2, length: 700 },
            };
            if offset as usize + size % 3_000 > 20_000 {
                continue;
            }
            let outcome = perform(&mut flash, operation.clone());
            if outcome == Err(StorageError::Full) {
                // Runs of three modules that move may need more room than there is; then nothing has changed.
                continue;
            }
            reference.start(operation.clone());
            prop_assert_eq!(Some(outcome), reference.poll(), "{:?}", operation);
            bits = bits.rotate_right(1);
            if bits % 8 == 0 {
                flash = open(flash.into_medium());
                for (digest, length) in inventory(&mut flash).staged {
                    let held = reference.disk.staged.get_mut(&digest).unwrap();
                    prop_assert!(length as usize <= held.len());
                    held.truncate(length as usize);
                }
                let survived: Vec<_> = inventory(&mut flash).staged.into_iter().map(|(digest, _)| digest).collect();
                reference.disk.staged.retain(|digest, _| survived.contains(digest));
            }
            for (digest, bytes) in &reference.disk.modules {
                let held = flash.module(digest).unwrap();
                prop_assert_eq!(held.as_ref(), bytes.as_slice());
            }
            prop_assert_eq!(flash.medium().violations, 0);
        }
    }
}
