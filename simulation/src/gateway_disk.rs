//! A gateway's disk: what is on it, and whether it takes more.

use std::{collections::BTreeMap, sync::Arc};

use wasmbed_control::{
    ObjectKey,
    gateway::{
        BrokerCursor, BrokerPage, OutboxFailure, OutboxWrite, Restored, RestoredMessages, StoreFailure,
        StoredDevice,
    },
};
use wasmbed_protocol::ModuleDigest;

#[derive(Clone, Default)]
pub(crate) struct GatewayDisk {
    /// It takes nothing more until then.
    pub(crate) full_until_ms: u64,
    leader_term: u64,
    devices: BTreeMap<ObjectKey, StoredDevice>,
    modules: BTreeMap<ModuleDigest, Vec<u8>>,
    outbox: Outbox,
}

/// Messages of applications, and how far they were taken.
#[derive(Clone, Default)]
struct Outbox {
    records: BTreeMap<u64, Arc<[u8]>>,
    places: BTreeMap<String, Vec<u8>>,
    placed_before: u64,
    positions: BTreeMap<String, u64>,
}

impl GatewayDisk {
    fn take(&self, now_ms: u64) -> Result<(), StoreFailure> {
        if now_ms < self.full_until_ms { Err("no space left on device".into()) } else { Ok(()) }
    }

    pub(crate) fn put(
        &mut self,
        now_ms: u64,
        leader_term: u64,
        devices: Vec<StoredDevice>,
    ) -> Result<(), StoreFailure> {
        self.take(now_ms)?;
        self.leader_term = leader_term;
        self.devices.extend(devices.into_iter().map(|device| (device.device.clone(), device)));
        Ok(())
    }

    pub(crate) fn forget(&mut self, now_ms: u64, device: &ObjectKey) -> Result<(), StoreFailure> {
        self.take(now_ms)?;
        self.devices.remove(device);
        Ok(())
    }

    pub(crate) fn put_module(
        &mut self,
        now_ms: u64,
        digest: ModuleDigest,
        bytes: &[u8],
    ) -> Result<(), StoreFailure> {
        self.take(now_ms)?;
        self.modules.insert(digest, bytes.to_vec());
        Ok(())
    }

    pub(crate) fn load_module(&self, digest: &ModuleDigest) -> Result<Arc<[u8]>, StoreFailure> {
        self.modules.get(digest).map(|bytes| Arc::from(bytes.as_slice())).ok_or_else(|| "no such file".into())
    }

    pub(crate) fn delete_module(&mut self, digest: &ModuleDigest) {
        self.modules.remove(digest);
    }

    /// Messages: a full disk still lets go of what it has.
    pub(crate) fn write_outbox(
        &mut self,
        now_ms: u64,
        write: OutboxWrite,
    ) -> Result<Vec<Vec<u8>>, OutboxFailure> {
        let adds = !write.append.is_empty() || !write.places.is_empty();
        self.take(now_ms)
            .or_else(|error| if adds { Err(error) } else { Ok(()) })
            .map_err(|error| OutboxFailure { full: true, detail: error.to_string() })?;
        let outbox = &mut self.outbox;
        let remove = write.remove.iter();
        let removed = remove
            .map(|number| outbox.records.remove(number).map_or_else(Vec::new, |record| record.to_vec()));
        let removed = removed.collect();
        outbox.records.extend(write.append);
        write.forget.iter().for_each(|device| drop(outbox.places.remove(device)));
        if !write.places.is_empty() {
            outbox.places.extend(write.places);
            outbox.placed_before = write.placed_before;
        }
        outbox.positions.retain(|uid, _| !write.released.contains(uid));
        outbox.positions.extend(write.positions);
        Ok(removed)
    }

    /// The next messages for a broker.
    pub(crate) fn broker_page(&self, cursor: &BrokerCursor) -> BrokerPage {
        let mut page = cursor.page();
        for (number, record) in self.outbox.records.range(cursor.record()..) {
            if !cursor.read_record(&mut page, *number, record) {
                return page;
            }
        }
        page.finish(cursor);
        page
    }

    fn restore_messages(&self) -> RestoredMessages {
        let mut restored = RestoredMessages::default();
        restored.placed_before(self.outbox.placed_before);
        self.outbox.places.iter().for_each(|(device, places)| restored.place(device, places));
        self.outbox.positions.iter().for_each(|(uid, position)| restored.position(uid, *position));
        self.outbox.records.iter().for_each(|(number, record)| restored.record(*number, record));
        restored
    }

    /// The highest term of a leader that it has.
    pub(crate) fn leader_term(&self) -> u64 {
        self.leader_term
    }

    /// What a gateway finds when it starts.
    pub(crate) fn restore(&self) -> Restored {
        Restored {
            leader_term: self.leader_term,
            devices: self.devices.values().cloned().collect(),
            // A module is at most a megabyte.
            modules: self.modules.iter().map(|(digest, bytes)| (*digest, bytes.len() as u32)).collect(),
            messages: self.restore_messages(),
        }
    }
}
