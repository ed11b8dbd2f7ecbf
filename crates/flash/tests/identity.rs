//! The identity record: it belongs to the provisioned identity that it was made of, and always has room.
#![cfg(test)]

use wasmbed_agent::{
    IDENTITY_BYTES_MAX,
    storage::{Done, Operation, Outcome, StorageError},
};
use wasmbed_flash::{FlashStorage, Geometry, simulated::Simulated};
use wasmbed_protocol::ApplicationUid;
use wasmbed_supervisor::platform::Storage as _;

type Flash<const E: usize, const W: usize> = FlashStorage<Simulated<E, W>>;

const ONE: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];

fn open<const E: usize, const W: usize>(medium: Simulated<E, W>, geometry: Geometry) -> Flash<E, W> {
    FlashStorage::open(medium, geometry).unwrap()
}

fn perform<const E: usize, const W: usize>(flash: &mut Flash<E, W>, operation: Operation) -> Outcome {
    flash.start(operation);
    for _ in 0..1_000 {
        if let Some(outcome) = flash.poll() {
            return outcome;
        }
    }
    panic!("the operation does not end");
}

fn record<const E: usize, const W: usize>(flash: &mut Flash<E, W>) -> Option<Vec<u8>> {
    match perform(flash, Operation::ReadIdentity) {
        Ok(Done::Record(record)) => record,
        other => panic!("{other:?}"),
    }
}

fn small() -> Geometry {
    Geometry {
        erase_bytes: 4_096,
        identity_blocks: 1,
        segment_blocks: 2,
        segments: 2,
        module_blocks: 2,
        module_bytes_max: 4_096,
        flash_bytes: 7 * 4_096,
    }
}

/// A board with a record of its identity, and a log about to move to the other segment.
fn joined() -> Simulated<4_096, 4> {
    let mut flash = open(Simulated::new(7), small());
    flash.bind_identity(ONE).unwrap();
    assert_eq!(record(&mut flash), None);
    assert_eq!(perform(&mut flash, Operation::CommitIdentity(vec![7; 900])), Ok(Done::Written));
    for round in 0..2 {
        assert_eq!(perform(&mut flash, Operation::CommitState(vec![round; 3_456])), Ok(Done::Written));
    }
    flash.into_medium()
}

#[test]
fn a_record_counts_for_the_identity_that_it_was_made_of() {
    let mut flash = open(joined(), small());
    flash.bind_identity(ONE).unwrap();
    assert_eq!(record(&mut flash), Some(vec![7; 900]));
    flash.bind_identity(OTHER).unwrap();
    assert_eq!(record(&mut flash), None);
    assert_eq!(perform(&mut flash, Operation::CommitIdentity(vec![8; 900])), Ok(Done::Written));
    // The one before is gone for good, also if that identity comes back.
    let mut flash = open(flash.into_medium(), small());
    flash.bind_identity(ONE).unwrap();
    assert_eq!(record(&mut flash), None);
    assert_eq!(
        perform(&mut flash, Operation::ReadState),
        Ok(Done::Record(Some(vec![1; 3_456]))),
        "what does not belong to an identity stays"
    );
}

#[test]
fn a_cut_while_the_former_record_goes_never_shows_it_to_the_new_identity() {
    let (mut cut, mut went) = (0, true);
    while went {
        for seed in 0..5 {
            let mut medium = joined();
            (medium.cut_after, medium.seed) = (Some(cut), seed);
            let mut flash = open(medium, small());
            went = flash.bind_identity(OTHER).is_err();
            assert_eq!(record(&mut flash), None);
            let mut medium = flash.into_medium();
            medium.power_on();
            let mut flash = open(medium, small());
            flash.bind_identity(OTHER).unwrap();
            assert_eq!(record(&mut flash), None);
            assert_eq!(perform(&mut flash, Operation::CommitIdentity(vec![8; 900])), Ok(Done::Written));
            let mut flash = open(flash.into_medium(), small());
            flash.bind_identity(OTHER).unwrap();
            assert_eq!(record(&mut flash), Some(vec![8; 900]));
            assert_eq!(flash.into_medium().violations, 0);
        }
        cut += 1;
    }
    println!("power lost at each of {} writes and erases", cut - 1);
    assert!(cut > 3);
}

/// Fills the records with what applications keep, then renews.
fn fill<const E: usize, const W: usize>(geometry: Geometry) -> usize {
    let mut flash = open(Simulated::<E, W>::new(geometry.flash_bytes / geometry.erase_bytes), geometry);
    flash.bind_identity(ONE).unwrap();
    let largest = IDENTITY_BYTES_MAX.min(geometry.segment_bytes() as usize / 8 - 64 - W);
    let mut kept = 0;
    for length in [8_000, 1_000, 50] {
        for number in 0..=u8::MAX {
            let mut uid = [number; 16];
            uid[0] = (length % 251) as u8;
            let data = Operation::CommitData { uid: ApplicationUid(uid), bytes: vec![number; length] };
            match perform(&mut flash, data) {
                Ok(Done::Written) => kept += length,
                Err(StorageError::Full) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    for length in [190, 1_700, largest, 3_000, largest] {
        let identity = vec![length as u8; length];
        assert_eq!(perform(&mut flash, Operation::CommitIdentity(identity.clone())), Ok(Done::Written));
        assert_eq!(record(&mut flash), Some(identity));
        assert_eq!(flash.check(), Ok(()));
    }
    kept
}

#[test]
fn a_certificate_finds_room_when_applications_have_filled_the_rest() {
    for board in wasmbed_board_data::ALL {
        let module_blocks = 1;
        let flash_bytes = (board.geometry.modules_block() + module_blocks) * board.geometry.erase_bytes;
        let geometry = Geometry { module_blocks, flash_bytes, ..board.geometry };
        let kept = match geometry.erase_bytes {
            131_072 => fill::<131_072, 32>(geometry),
            262_144 => fill::<262_144, 4>(geometry),
            4_096 => fill::<4_096, 4>(geometry),
            other => panic!("{} has blocks of {other} bytes", board.name),
        };
        println!("{}: {kept} of {} bytes with applications' data", board.name, geometry.segment_bytes());
        assert!(kept > geometry.segment_bytes() as usize * 3 / 4);
    }
}
