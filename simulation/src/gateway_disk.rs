//! A gateway's disk: what is on it, and whether it takes more.

use std::{collections::BTreeMap, sync::Arc};

use wasmbed_control::{
    ObjectKey,
    gateway::{Restored, StoreFailure, StoredDevice},
};
use wasmbed_protocol::ModuleDigest;

#[derive(Clone, Default)]
pub(crate) struct GatewayDisk {
    /// It takes nothing more until then.
    pub(crate) full_until_ms: u64,
    leader_term: u64,
    devices: BTreeMap<ObjectKey, StoredDevice>,
    modules: BTreeMap<ModuleDigest, Vec<u8>>,
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
        }
    }
}
