//! Any content of flash: it opens, what it lends is there, and it works afterwards.

use wasmbed_agent::{
    module_digest,
    storage::{Done, Operation, Outcome},
};
use wasmbed_flash::{FlashStorage, Geometry, provision, simulated::Simulated};
use wasmbed_supervisor::platform::Storage as _;

const GEOMETRY: Geometry = Geometry {
    erase_bytes: 1_024,
    identity_blocks: 1,
    segment_blocks: 4,
    segments: 2,
    module_blocks: 7,
    module_bytes_max: 4_096,
    flash_bytes: 16 * 1_024,
};

type Flash = FlashStorage<Simulated<1_024, 8>>;

fn perform(flash: &mut Flash, operation: Operation) -> Outcome {
    flash.start(operation);
    for _ in 0..1_000 {
        if let Some(outcome) = flash.poll() {
            assert_eq!(flash.check(), Ok(()));
            return outcome;
        }
    }
    panic!("the operation does not end");
}

/// Panics if any of that does not hold.
pub(crate) fn accept(bytes: &[u8]) {
    let mut content = vec![0xFF; GEOMETRY.flash_bytes as usize];
    let length = bytes.len().min(content.len());
    content[..length].copy_from_slice(&bytes[..length]);
    let _ = provision::decode(bytes);
    let mut flash = FlashStorage::open(Simulated::with(content), GEOMETRY).unwrap();
    let Ok(Done::Inventory(held)) = perform(&mut flash, Operation::Inventory) else { panic!() };
    for (digest, length) in &held.modules {
        assert_eq!(flash.module(digest).unwrap().len(), *length as usize);
    }
    for (digest, _) in held.modules.iter().chain(&held.staged) {
        let _ = perform(&mut flash, Operation::DeleteModule(*digest));
    }
    let state = perform(&mut flash, Operation::CommitState(vec![1, 2, 3]));
    let module = vec![7; 3_000];
    let digest = module_digest(&module);
    let staged = perform(&mut flash, Operation::Append { digest, offset: 0, bytes: module.clone() });
    let committed = staged.and_then(|_| perform(&mut flash, Operation::CommitModule(digest)));
    let medium = flash.into_medium();
    assert_eq!(medium.violations, 0);
    let mut flash = FlashStorage::open(medium, GEOMETRY).unwrap();
    if state.is_ok() {
        assert_eq!(perform(&mut flash, Operation::ReadState), Ok(Done::Record(Some(vec![1, 2, 3]))));
    }
    if committed.is_ok() {
        assert_eq!(flash.module(&digest).unwrap().as_ref(), module.as_slice());
    }
}
