//! Power is lost at every write and erase of a sequence of operations, and again in what follows the start after it.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};

use wasmbed_agent::{
    IDENTITY_BYTES_MAX, module_digest,
    storage::{Done, Inventory, Operation, Outcome},
};
use wasmbed_flash::{
    FlashStorage, Geometry, Medium as _,
    simulated::{Simulated, Torn},
};
use wasmbed_protocol::ApplicationUid;
use wasmbed_supervisor::platform::Storage as _;

/// A chunk as it comes from a gateway.
const CHUNK_BYTES: usize = 4_000;

#[derive(Clone, Debug)]
enum Action {
    State(Vec<u8>),
    Identity(Vec<u8>),
    Data(u8, Vec<u8>),
    DropData(u8),
    /// Goes on where a download was cut.
    Module(Vec<u8>),
    DropModule(Vec<u8>),
    TimeFloor(u64),
    Seed,
    /// Everything that was removed or replaced.
    Erase,
}

#[derive(Default)]
struct Acknowledged {
    state: Option<Vec<u8>>,
    identity: Option<Vec<u8>>,
    data: BTreeMap<u8, Vec<u8>>,
    modules: BTreeSet<Vec<u8>>,
    floor: Option<u64>,
    seeds: BTreeSet<[u8; 32]>,
}

type Flash<const E: usize, const W: usize> = FlashStorage<Simulated<E, W>>;

fn uid(number: u8) -> ApplicationUid {
    ApplicationUid([number; 16])
}

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|i| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977)) >> 13) as u8)
        .collect()
}

fn perform<const E: usize, const W: usize>(flash: &mut Flash<E, W>, operation: Operation) -> Outcome {
    flash.start(operation);
    for _ in 0..10_000 {
        let erases: u32 = flash.medium().erases.iter().sum();
        let outcome = flash.poll();
        assert!(flash.medium().erases.iter().sum::<u32>() <= erases + 1, "one erase in a poll at most");
        if let Some(outcome) = outcome {
            return outcome;
        }
    }
    panic!("the operation does not end");
}

fn inventory<const E: usize, const W: usize>(flash: &mut Flash<E, W>) -> Inventory {
    match perform(flash, Operation::Inventory) {
        Ok(Done::Inventory(inventory)) => inventory,
        other => panic!("{other:?}"),
    }
}

/// Does an action; `None` if power was lost in it.
fn act<const E: usize, const W: usize>(
    flash: &mut Flash<E, W>,
    action: &Action,
    known: &mut Acknowledged,
) -> Option<()> {
    fn written<const E: usize, const W: usize>(flash: &mut Flash<E, W>, operation: Operation) -> Option<()> {
        let outcome = perform(flash, operation);
        if flash.medium().has_lost_power() {
            return None;
        }
        assert_eq!(outcome, Ok(Done::Written));
        Some(())
    }
    match action {
        Action::State(bytes) => {
            written(flash, Operation::CommitState(bytes.clone()))?;
            known.state = Some(bytes.clone());
        }
        Action::Identity(bytes) => {
            written(flash, Operation::CommitIdentity(bytes.clone()))?;
            known.identity = Some(bytes.clone());
        }
        Action::Data(number, bytes) => {
            written(flash, Operation::CommitData { uid: uid(*number), bytes: bytes.clone() })?;
            known.data.insert(*number, bytes.clone());
        }
        Action::DropData(number) => {
            written(flash, Operation::DeleteData(uid(*number)))?;
            known.data.remove(number);
        }
        Action::Module(module) => {
            let digest = module_digest(module);
            let before = inventory(flash);
            if !before.modules.iter().any(|(held, _)| *held == digest) {
                let staged = before.staged.iter().find(|(held, _)| *held == digest);
                let mut offset = staged.map_or(0, |(_, length)| *length as usize);
                while offset < module.len() {
                    let end = module.len().min(offset + CHUNK_BYTES);
                    let bytes = module[offset..end].to_vec();
                    written(flash, Operation::Append { digest, offset: offset as u32, bytes })?;
                    offset = end;
                }
                written(flash, Operation::CommitModule(digest))?;
            }
            known.modules.insert(module.clone());
        }
        Action::DropModule(module) => {
            written(flash, Operation::DeleteModule(module_digest(module)))?;
            known.modules.remove(module);
        }
        Action::TimeFloor(seconds) => {
            if flash.raise_time_floor(*seconds).is_err() {
                assert!(flash.medium().has_lost_power());
                return None;
            }
            known.floor = Some(*seconds);
        }
        Action::Erase => {
            erase(flash)?;
            assert_nothing_removed(flash, known);
        }
        Action::Seed => match flash.next_random_seed(&[3; 32], &[]) {
            Ok(seed) => assert!(known.seeds.insert(seed), "a seed came twice"),
            Err(_) => {
                assert!(flash.medium().has_lost_power());
                return None;
            }
        },
    }
    assert_eq!(flash.check(), Ok(()));
    Some(())
}

/// Erases what was removed; `None` if power was lost in it.
fn erase<const E: usize, const W: usize>(flash: &mut Flash<E, W>) -> Option<()> {
    loop {
        match perform(flash, Operation::EraseRemoved) {
            _ if flash.medium().has_lost_power() => return None,
            Ok(Done::Erased { left: true }) => {}
            Ok(Done::Erased { left: false }) => return Some(()),
            other => panic!("{other:?}"),
        }
    }
}

/// Every erased byte is blank: nothing but what is live, and the log's own words, is on the medium.
fn assert_nothing_removed<const E: usize, const W: usize>(flash: &mut Flash<E, W>, known: &Acknowledged) {
    let mapped = flash.medium().mapped();
    // Where anything is; whatever is written begins at a write unit.
    let used = || (0..mapped.len()).step_by(64).filter(|at| mapped[*at..at + 64] != [0xFF; 64]);
    let written = used().flat_map(|at| &mapped[at..at + 64]).filter(|byte| **byte != 0xFF).count();
    let records = || [&known.state, &known.identity].into_iter().flatten().chain(known.data.values());
    let live: usize = records().chain(&known.modules).map(Vec::len).sum();
    let entries = 4 + known.data.len() + 2 * known.modules.len() + 2;
    assert!(written <= live + entries * 128 + 96, "{written} bytes are not blank and {live} are live");
    for (what, seed) in [("a record", 1), ("a module", 2)] {
        // Made of the same numbers, and live if any is.
        let removed = bytes(seed, 64);
        let lives = records().chain(&known.modules).any(|object| object.starts_with(&removed));
        let is_there = |at: usize| mapped.get(at..at + 64).is_some_and(|part| part == removed);
        let found = used().any(|at| (at..at + 64).step_by(W).any(is_there));
        assert_eq!(found, lives, "{what} that was removed");
    }
}

/// What is there is what was acknowledged, or what the action under way makes of it.
fn check<const E: usize, const W: usize>(
    flash: &mut Flash<E, W>,
    known: &Acknowledged,
    under_way: Option<&Action>,
    all: &[Action],
) {
    let Ok(Done::Record(state)) = perform(flash, Operation::ReadState) else { panic!() };
    let new = matches!((under_way, &state), (Some(Action::State(new)), Some(state)) if new == state);
    assert!(new || state == known.state, "the state record is neither the old one nor the new one");
    let Ok(Done::Record(identity)) = perform(flash, Operation::ReadIdentity) else { panic!() };
    let new =
        matches!((under_way, &identity), (Some(Action::Identity(new)), Some(identity)) if new == identity);
    assert!(new || identity == known.identity, "the identity record is neither the old one nor the new one");
    for number in 0..4 {
        let Ok(Done::Record(data)) = perform(flash, Operation::ReadData(uid(number))) else { panic!() };
        let new = match under_way {
            Some(Action::Data(n, new)) => *n == number && data.as_ref() == Some(new),
            Some(Action::DropData(n)) => *n == number && data.is_none(),
            _ => false,
        };
        assert!(new || data.as_ref() == known.data.get(&number), "data record {number}");
    }
    let new = matches!(under_way, Some(Action::TimeFloor(new)) if flash.time_floor_s() == Some(*new));
    assert!(new || flash.time_floor_s() == known.floor);
    let held = inventory(flash);
    for action in all {
        let Action::Module(module) = action else { continue };
        let digest = module_digest(module);
        let there = held.modules.iter().any(|(held, _)| *held == digest);
        let free = match under_way {
            Some(Action::Module(m) | Action::DropModule(m)) => m == module,
            _ => false,
        };
        assert!(free || there == known.modules.contains(module), "a module of {} bytes", module.len());
        if there {
            assert_eq!(flash.module(&digest).unwrap().as_ref(), module.as_slice());
        }
        let Some((_, length)) = held.staged.iter().find(|(held, _)| *held == digest) else { continue };
        let mut read = Vec::new();
        while read.len() < *length as usize {
            let offset = read.len() as u32;
            match perform(flash, Operation::ReadStaged { digest, offset, length: 1_000 }) {
                Ok(Done::Bytes(bytes)) if !bytes.is_empty() => read.extend(bytes),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, module[..*length as usize], "what is staged is a beginning of the module");
    }
}

/// All that a start finds.
fn found<const E: usize, const W: usize>(flash: &mut Flash<E, W>) -> (Inventory, Vec<Outcome>, Option<u64>) {
    let records = [Operation::ReadState, Operation::ReadIdentity]
        .into_iter()
        .chain((0..4).map(|n| Operation::ReadData(uid(n))));
    let records = records.map(|operation| perform(flash, operation)).collect();
    (inventory(flash), records, flash.time_floor_s())
}

fn open<const E: usize, const W: usize>(medium: Simulated<E, W>, geometry: Geometry) -> Flash<E, W> {
    FlashStorage::open(medium, geometry).unwrap()
}

/// Runs everything with power lost at operation `cut`, and several times soon after each start. False if the first cut
/// never came.
fn run<const E: usize, const W: usize>(geometry: Geometry, actions: &[Action], cut: u32, seed: u64) -> bool {
    let blocks = geometry.flash_bytes / geometry.erase_bytes;
    let mut medium = Simulated::<E, W>::new(blocks);
    (medium.cut_after, medium.seed) = (Some(cut), seed);
    let mut flash = open(medium, geometry);
    let mut known = Acknowledged::default();
    let (mut next, mut cuts) = (0, 0);
    while let Some(action) = actions.get(next) {
        if act(&mut flash, action, &mut known).is_some() {
            next += 1;
            continue;
        }
        cuts += 1;
        let mut medium = flash.into_medium();
        medium.power_on();
        // Then a few more, close together: within what the start and the resumed download repair.
        medium.cut_after = (cuts <= 3).then_some((cut + cuts) % 5);
        // Flash with error correction faults where a unit was torn: what stands there must not matter.
        let twins = [Torn::Wanted, Torn::Blank, Torn::Random].map(|torn| {
            let mut medium = medium.clone();
            medium.replace_torn(torn);
            open(medium, geometry)
        });
        flash = open(medium, geometry);
        for mut twin in twins {
            assert_eq!(found(&mut flash), found(&mut twin), "a unit was read that can't be");
            if (cuts + cut).is_multiple_of(2) {
                flash = twin;
            }
        }
        check(&mut flash, &known, Some(action), actions);
    }
    let mut medium = flash.into_medium();
    medium.power_on();
    assert_eq!(medium.violations, 0, "NOR's rules");
    let mut flash = open(medium, geometry);
    check(&mut flash, &known, None, actions);
    cuts > 0
}

fn actions(state_bytes: usize, module_bytes: usize) -> Vec<Action> {
    let module = |seed, part: usize| Action::Module(bytes(seed, module_bytes / part + 13));
    let dropped = |seed, part: usize| Action::DropModule(bytes(seed, module_bytes / part + 13));
    vec![
        Action::Seed,
        Action::State(bytes(1, 700)),
        Action::Identity(bytes(9, 150)),
        module(1, 1),
        Action::Data(1, bytes(2, 100)),
        Action::State(bytes(3, state_bytes)),
        Action::TimeFloor(1_800_000_000),
        module(2, 3),
        Action::Data(2, bytes(4, 4_000)),
        dropped(1, 1),
        Action::State(bytes(5, state_bytes / 2)),
        Action::Data(1, bytes(6, 33)),
        module(3, 2),
        Action::State(bytes(7, state_bytes)),
        Action::Identity(bytes(10, 1_100)),
        Action::DropData(2),
        dropped(2, 3),
        Action::TimeFloor(1_800_003_600),
        Action::State(bytes(8, state_bytes - 5)),
        module(4, 1),
        Action::Seed,
    ]
}

fn every_cut<const E: usize, const W: usize>(geometry: Geometry, actions: &[Action]) {
    let mut cut = 0;
    loop {
        let came =
            [0x51, 0xA7, 0xC3].map(|salt| run::<E, W>(geometry, actions, cut, u64::from(cut) * 3 + salt));
        if came == [false; 3] {
            break;
        }
        cut += 1;
    }
    println!("blocks of {E} bytes, units of {W}: power lost at each of {cut} writes and erases");
    assert!(cut > 50);
}

#[test]
fn a_cut_at_any_write_leaves_what_was_acknowledged_in_small_blocks() {
    let geometry = Geometry {
        erase_bytes: 4_096,
        identity_blocks: 1,
        segment_blocks: 8,
        segments: 3,
        module_blocks: 20,
        module_bytes_max: 32_768,
        flash_bytes: 45 * 4_096,
    };
    every_cut::<4_096, 4>(geometry, &actions(12_000, 22_000));
}

#[test]
fn a_cut_at_any_write_leaves_what_was_acknowledged_in_large_blocks() {
    let geometry = Geometry {
        erase_bytes: 131_072,
        identity_blocks: 1,
        segment_blocks: 1,
        segments: 2,
        module_blocks: 5,
        module_bytes_max: 262_144,
        flash_bytes: 8 * 131_072,
    };
    every_cut::<131_072, 32>(geometry, &actions(40_000, 30_000));
}

#[test]
fn a_cut_at_any_write_leaves_what_was_acknowledged_in_the_largest_blocks() {
    let geometry = Geometry {
        erase_bytes: 262_144,
        identity_blocks: 1,
        segment_blocks: 1,
        segments: 2,
        module_blocks: 6,
        module_bytes_max: 524_288,
        flash_bytes: 9 * 262_144,
    };
    every_cut::<262_144, 4>(geometry, &actions(97_984, 20_000));
}

/// What a board writes from its first start to a renewed certificate, with what it stores meanwhile.
fn joining(state_bytes: usize) -> Vec<Action> {
    vec![
        Action::Seed,
        // The operational key, before its first use; then with a chain; then with the next one, until that one is in use.
        Action::Identity(bytes(20, 190)),
        Action::TimeFloor(1_800_000_000),
        Action::Identity(bytes(21, 1_600)),
        Action::State(bytes(22, 700)),
        Action::Data(1, bytes(23, 500)),
        Action::State(bytes(24, state_bytes)),
        Action::Identity(bytes(25, 3_000)),
        Action::TimeFloor(1_800_003_600),
        Action::State(bytes(26, state_bytes)),
        Action::Identity(bytes(27, 1_700)),
        Action::Seed,
        // A restart in the middle of the next renewal, with the largest chains.
        Action::Identity(bytes(28, IDENTITY_BYTES_MAX)),
        Action::State(bytes(29, state_bytes - 9)),
        Action::Identity(bytes(30, 1_700)),
        Action::State(bytes(31, state_bytes)),
    ]
}

/// What a board writes from an order to the end of its key. What was removed is gone each time it is erased.
fn decommissioning(state_bytes: usize, module_bytes: usize) -> Vec<Action> {
    let module = bytes(2, module_bytes);
    vec![
        Action::Seed,
        Action::Identity(bytes(20, 190)),
        Action::State(bytes(1, state_bytes)),
        Action::Module(module.clone()),
        Action::Module(bytes(32, module_bytes / 2)),
        Action::Data(1, bytes(23, 500)),
        Action::Data(2, bytes(24, 700)),
        Action::State(bytes(25, state_bytes / 2)),
        Action::TimeFloor(1_800_000_000),
        Action::Erase,
        // The set is forgotten, then everything goes.
        Action::State(bytes(26, 8)),
        Action::DropData(1),
        Action::DropData(2),
        Action::DropModule(module),
        Action::DropModule(bytes(32, module_bytes / 2)),
        Action::Erase,
        // The proof; then nothing but that there was one.
        Action::Identity(bytes(27, 500)),
        Action::Identity(bytes(28, 20)),
        Action::Erase,
        Action::Identity(bytes(29, 20)),
        // And the board goes on as another one.
        Action::State(bytes(30, state_bytes)),
        Action::Module(bytes(33, module_bytes)),
        Action::Identity(bytes(31, 1_700)),
    ]
}

#[test]
fn a_cut_at_any_write_of_a_decommissioning_leaves_what_was_acknowledged_on_every_board() {
    let mut seen = Vec::new();
    for board in wasmbed_board_data::ALL {
        // A download that was cut moves: it needs a place beside the others.
        let geometry = records_and_modules(&board.geometry, 5);
        if seen.contains(&geometry) {
            continue;
        }
        seen.push(geometry);
        let module_bytes = (geometry.module_bytes_max as usize / 3).min(9_000);
        let actions = decommissioning((geometry.segment_bytes() as usize / 4).min(9_000), module_bytes);
        match board.name {
            "nucleo-h743zi2" => every_cut::<131_072, 32>(geometry, &actions),
            "riscv32-virt" => every_cut::<262_144, 4>(geometry, &actions),
            "mps2-an385" => every_cut::<4_096, 4>(geometry, &actions),
            other => panic!("{other} has a geometry of its own: which write unit?"),
        }
    }
    assert_eq!(seen.len(), 3);
}

/// The identity region holds a provisioned key; power is lost at each erase of it.
fn provisioned_key<const E: usize, const W: usize>(geometry: Geometry) {
    const KEY: [u8; 32] = [0x5A; 32];
    let region = geometry.identity_bytes() as usize;
    let legible = |flash: &Flash<E, W>| flash.identity().windows(KEY.len()).any(|part| part == KEY);
    for cut in 0.. {
        let mut medium = Simulated::<E, W>::new(geometry.flash_bytes / geometry.erase_bytes);
        medium.bytes()[..8].copy_from_slice(b"WBIDENT2");
        // In each block, so that none may be left.
        for block in 0..geometry.identity_blocks as usize {
            medium.bytes()[block * E + 100..][..KEY.len()].copy_from_slice(&KEY);
        }
        let mut flash = open(medium, geometry);
        flash.bind_identity([7; 32]).unwrap();
        // What the agent keeps of a device whose proof was acknowledged.
        let record = [&[0x87, 1, 0x82, 0, 0x58, 32][..], &[9; 32], &[0xf6, 0xf6, 0xf6, 0xf5, 1]].concat();
        assert_eq!(perform(&mut flash, Operation::CommitIdentity(record)), Ok(Done::Written));
        assert!(legible(&flash) && flash.is_decommissioned());
        flash.medium().cut_after = Some(cut);
        flash.medium().seed = u64::from(cut);
        let outcome = perform(&mut flash, Operation::EraseProvisioned);
        let was_cut = flash.medium().has_lost_power();
        let mut medium = flash.into_medium();
        medium.power_on();
        let mut flash = open(medium, geometry);
        if was_cut {
            assert!(flash.is_decommissioned(), "cut {cut}: nobody would go on");
            // The head goes last: before that the board starts as it did, and goes on.
            let starts = flash.identity().starts_with(b"WBIDENT2");
            assert!(starts || cut + 1 >= geometry.identity_blocks, "cut {cut}");
            flash.erase_identity().unwrap();
        } else {
            assert_eq!(outcome, Ok(Done::Written));
        }
        assert!(!legible(&flash));
        assert!(flash.identity()[..region].iter().all(|byte| *byte == 0xFF));
        assert!(flash.is_decommissioned());
        flash.bind_identity([8; 32]).unwrap();
        assert!(!flash.is_decommissioned(), "another identity is another board");
        if !was_cut {
            assert!(cut >= geometry.identity_blocks);
            return;
        }
    }
}

#[test]
fn a_provisioned_key_is_erased_whole_on_every_board() {
    for board in wasmbed_board_data::ALL {
        let geometry = records_of(&board.geometry);
        match geometry.erase_bytes {
            131_072 => provisioned_key::<131_072, 32>(geometry),
            262_144 => provisioned_key::<262_144, 4>(geometry),
            4_096 => provisioned_key::<4_096, 4>(geometry),
            other => panic!("{} has blocks of {other} bytes", board.name),
        }
    }
}

/// A board's records as they are, with few blocks of modules behind them.
fn records_of(geometry: &Geometry) -> Geometry {
    records_and_modules(geometry, 2)
}

fn records_and_modules(geometry: &Geometry, blocks_max: u32) -> Geometry {
    let module_blocks = geometry.module_blocks.min(blocks_max);
    let flash_bytes = (geometry.modules_block() + module_blocks) * geometry.erase_bytes;
    let module_bytes_max = geometry.module_bytes_max.min(module_blocks * geometry.erase_bytes);
    Geometry { module_blocks, flash_bytes, module_bytes_max, ..*geometry }
}

#[test]
fn a_cut_at_any_write_of_joining_and_renewing_leaves_the_old_identity_or_the_new_one_on_every_board() {
    let mut seen = Vec::new();
    for board in wasmbed_board_data::ALL {
        let geometry = records_of(&board.geometry);
        if seen.contains(&geometry) {
            continue;
        }
        seen.push(geometry);
        let actions = joining((geometry.segment_bytes() as usize / 3).min(97_984));
        match board.name {
            "nucleo-h743zi2" => every_cut::<131_072, 32>(geometry, &actions),
            "riscv32-virt" => every_cut::<262_144, 4>(geometry, &actions),
            "mps2-an385" => every_cut::<4_096, 4>(geometry, &actions),
            other => panic!("{other} has a geometry of its own: which write unit?"),
        }
    }
    assert_eq!(seen.len(), 3);
}
