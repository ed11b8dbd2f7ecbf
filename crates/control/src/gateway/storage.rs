//! The gateway's disk, as its decisions see it: operations in their order, what awaits their end, and what the disk does
//! not hold since a write failed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use wasmbed_protocol::ModuleDigest;

use super::{
    input::{RequestId, StoreId, StoreOperation, StoredDevice},
    sets::Set,
};
use crate::{
    ObjectKey,
    gateway_api::{DecommissionRefusal, SetRefusal, SettingsRefusal},
};

/// A set that is taken, and the device that it is for.
pub(super) type CheckedSet = (Arc<ObjectKey>, Arc<Set>);

/// What happens once an operation is on the disk.
#[derive(Debug)]
pub(super) enum Storing {
    /// Sets take effect and a controller is answered.
    Sets { request: RequestId, leader_term: u64, sets: Vec<CheckedSet>, refused: Vec<SetRefusal> },
    /// A controller is answered.
    Orders {
        request: RequestId,
        leader_term: u64,
        devices: Vec<Arc<ObjectKey>>,
        refused: Vec<DecommissionRefusal>,
    },
    /// A controller is answered.
    Settings {
        request: RequestId,
        leader_term: u64,
        devices: Vec<Arc<ObjectKey>>,
        refused: Vec<SettingsRefusal>,
    },
    /// Nothing; where it fails, what is known of the device by then is written as soon as the disk works again.
    Device(Arc<ObjectKey>),
}

/// Operations on the disk.
#[derive(Debug, Default)]
pub(super) struct Storage {
    queue: VecDeque<StoreOperation>,
    /// Operations whose end is awaited.
    awaiting: BTreeMap<StoreId, Storing>,
    next_id: u64,
    /// Devices of which the disk does not hold what is known, since their last write failed.
    failed: BTreeSet<Arc<ObjectKey>>,
}

impl Storage {
    /// Writes sets, orders or settings with their devices, and the term that they came with.
    pub(super) fn put_sets(&mut self, leader_term: u64, devices: Vec<StoredDevice>, then: Storing) {
        let id = self.await_end(then);
        self.queue.push_back(StoreOperation::Put { id, leader_term, devices });
    }

    /// Writes what is known of a device.
    pub(super) fn put_device(&mut self, leader_term: u64, key: Arc<ObjectKey>, device: StoredDevice) {
        let id = self.await_end(Storing::Device(key));
        self.queue.push_back(StoreOperation::Put { id, leader_term, devices: vec![device] });
    }

    /// Takes a device off the disk.
    pub(super) fn forget(&mut self, key: &Arc<ObjectKey>) {
        let id = self.await_end(Storing::Device(Arc::clone(key)));
        self.queue.push_back(StoreOperation::Forget { id, device: (**key).clone() });
    }

    pub(super) fn load_module(&mut self, digest: ModuleDigest) {
        self.queue.push_back(StoreOperation::LoadModule { digest });
    }

    pub(super) fn delete_module(&mut self, digest: ModuleDigest) {
        self.queue.push_back(StoreOperation::DeleteModule { digest });
    }

    fn await_end(&mut self, then: Storing) -> StoreId {
        let id = StoreId(self.next_id);
        self.next_id += 1;
        self.awaiting.insert(id, then);
        id
    }

    pub(super) fn poll(&mut self) -> Option<StoreOperation> {
        self.queue.pop_front()
    }

    pub(super) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// An operation ended; what was to happen then.
    pub(super) fn handle_end(&mut self, id: StoreId) -> Option<Storing> {
        self.awaiting.remove(&id)
    }

    /// What is known of this device could not be written.
    pub(super) fn note_failed(&mut self, device: Arc<ObjectKey>) {
        self.failed.insert(device);
    }

    /// Devices whose last write failed; they are to be written again.
    pub(super) fn take_failed(&mut self) -> BTreeSet<Arc<ObjectKey>> {
        std::mem::take(&mut self.failed)
    }

    /// Operations whose end is awaited.
    pub(super) fn awaiting(&self) -> usize {
        self.awaiting.len()
    }

    /// Operations that wait or are under way.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.awaiting.len()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.awaiting.is_empty()
    }

    /// Sets on their way to the disk.
    pub(super) fn staged(&self) -> impl Iterator<Item = &CheckedSet> {
        self.awaiting.values().flat_map(|storing| match storing {
            Storing::Sets { sets, .. } => sets.as_slice(),
            Storing::Orders { .. } | Storing::Settings { .. } | Storing::Device(_) => &[],
        })
    }
}
