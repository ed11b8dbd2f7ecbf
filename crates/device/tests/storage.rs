//! What the store promises, on every medium.

#![cfg(test)]

use std::fs;

use wasmbed_agent::storage::{Done, Inventory, Operation, StorageError};
use wasmbed_device::storage::{Disk, Medium, Memory, SharedModules, Store};
use wasmbed_protocol::{ApplicationUid, ModuleDigest};

const DIGEST: ModuleDigest = ModuleDigest([0xd1; 32]);
const UID: ApplicationUid = ApplicationUid([0xa2; 16]);
const CAPACITY_BYTES: u64 = 100;

fn append(offset: u32, bytes: &[u8]) -> Operation {
    Operation::Append { digest: DIGEST, offset, bytes: bytes.to_vec() }
}

/// Runs a test on a disk and in memory.
macro_rules! on_every_medium {
    (|$store:ident| $test:block) => {{
        let folder = tempfile::tempdir().unwrap();
        fn test<M: Medium>(mut $store: Store<M>) $test
        test(Store::open(Disk::open(folder.path()).unwrap(), CAPACITY_BYTES).unwrap());
        test(Store::open(Memory::new(SharedModules::default()), CAPACITY_BYTES).unwrap());
    }};
}

#[test]
fn a_staged_module_grows_is_overwritten_and_becomes_a_module() {
    on_every_medium!(|store| {
        assert_eq!(store.perform(&append(1, b"x")), Err(StorageError::Missing));
        assert_eq!(store.perform(&append(0, b"abcdef")), Ok(Done::Written));
        assert_eq!(store.perform(&append(7, b"x")), Err(StorageError::Missing));
        assert_eq!(store.perform(&append(4, b"E")), Ok(Done::Written));
        let read = |offset, length| Operation::ReadStaged { digest: DIGEST, offset, length };
        assert_eq!(store.perform(&read(0, 100)), Ok(Done::Bytes(b"abcdE".to_vec())));
        assert_eq!(store.perform(&read(2, 2)), Ok(Done::Bytes(b"cd".to_vec())));
        assert_eq!(store.module(&DIGEST), Err(StorageError::Missing));
        let inventory = Inventory { staged: vec![(DIGEST, 5)], ..Inventory::default() };
        assert_eq!(store.perform(&Operation::Inventory), Ok(Done::Inventory(inventory)));

        assert_eq!(store.perform(&Operation::CommitModule(DIGEST)), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::CommitModule(DIGEST)), Err(StorageError::Missing));
        assert_eq!(store.module(&DIGEST), Ok(b"abcdE".to_vec()));
        let inventory = Inventory { modules: vec![(DIGEST, 5)], ..Inventory::default() };
        assert_eq!(store.perform(&Operation::Inventory), Ok(Done::Inventory(inventory)));

        assert_eq!(store.perform(&Operation::DeleteModule(DIGEST)), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::DeleteModule(DIGEST)), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::Inventory), Ok(Done::Inventory(Inventory::default())));
    });
}

#[test]
fn records_are_replaced_and_each_application_has_its_own() {
    on_every_medium!(|store| {
        assert_eq!(store.perform(&Operation::ReadState), Ok(Done::Record(None)));
        assert_eq!(store.perform(&Operation::CommitState(b"long state".to_vec())), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::CommitState(b"short".to_vec())), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::ReadState), Ok(Done::Record(Some(b"short".to_vec()))));
        assert_eq!(store.perform(&Operation::ReadIdentity), Ok(Done::Record(None)));
        assert_eq!(store.perform(&Operation::CommitIdentity(b"identity".to_vec())), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::ReadIdentity), Ok(Done::Record(Some(b"identity".to_vec()))));
        assert_eq!(store.perform(&Operation::ReadState), Ok(Done::Record(Some(b"short".to_vec()))));
        let commit = Operation::CommitData { uid: UID, bytes: b"data".to_vec() };
        assert_eq!(store.perform(&commit), Ok(Done::Written));
        let other = ApplicationUid([0; 16]);
        assert_eq!(store.perform(&Operation::ReadData(other)), Ok(Done::Record(None)));
        let inventory = Inventory { data: vec![UID], ..Inventory::default() };
        assert_eq!(store.perform(&Operation::Inventory), Ok(Done::Inventory(inventory)));
        assert_eq!(store.perform(&Operation::DeleteData(UID)), Ok(Done::Written));
        assert_eq!(store.perform(&Operation::ReadData(UID)), Ok(Done::Record(None)));
    });
}

#[test]
fn a_full_store_refuses_and_keeps_what_it_has() {
    on_every_medium!(|store| {
        assert_eq!(store.perform(&Operation::CommitState(vec![1; 60])), Ok(Done::Written));
        assert_eq!(store.perform(&append(0, &[2; 40])), Ok(Done::Written));
        assert_eq!(store.perform(&append(40, &[2; 1])), Err(StorageError::Full));
        assert_eq!(store.perform(&Operation::CommitState(vec![3; 61])), Err(StorageError::Full));
        assert_eq!(store.perform(&Operation::ReadState), Ok(Done::Record(Some(vec![1; 60]))));
        // A record that shrinks makes room.
        assert_eq!(store.perform(&Operation::CommitState(vec![3; 59])), Ok(Done::Written));
        assert_eq!(store.perform(&append(40, &[2; 1])), Ok(Done::Written));
    });
}

#[test]
fn a_store_is_found_again_and_what_was_being_replaced_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(Disk::open(folder.path()).unwrap(), CAPACITY_BYTES).unwrap();
    let mut store = open();
    store.perform(&Operation::CommitState(b"old".to_vec())).unwrap();
    store.perform(&append(0, b"part")).unwrap();
    drop(store);
    fs::write(folder.path().join("state.new"), b"ne").unwrap();
    fs::write(folder.path().join("somebody else's"), b"left alone").unwrap();

    let mut store = open();
    assert_eq!(store.perform(&Operation::ReadState), Ok(Done::Record(Some(b"old".to_vec()))));
    let inventory = Inventory { staged: vec![(DIGEST, 4)], ..Inventory::default() };
    assert_eq!(store.perform(&Operation::Inventory), Ok(Done::Inventory(inventory)));
    assert!(!folder.path().join("state.new").exists() && folder.path().join("somebody else's").exists());
}
