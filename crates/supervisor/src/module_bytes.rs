//! A module that is needed over several rounds.

use alloc::{borrow::Cow, vec::Vec};

use wasmbed_agent::storage::StorageError;
use wasmbed_protocol::ModuleDigest;

use crate::platform::Storage;

/// Work of one step of going through a module: some 100 operators, about 70,000 instructions of a board.
pub(crate) const WORK: u32 = 100;

/// The module's bytes: where they lie, or a copy that is kept as long as they are needed.
#[derive(Default)]
pub(crate) struct ModuleBytes(Option<Vec<u8>>);

impl ModuleBytes {
    pub(crate) fn get<'a>(
        &'a mut self,
        storage: &'a mut impl Storage,
        digest: &ModuleDigest,
    ) -> Result<&'a [u8], StorageError> {
        if self.0.is_none() {
            match storage.module(digest)? {
                Cow::Borrowed(mapped) => return Ok(mapped),
                Cow::Owned(bytes) => self.0 = Some(bytes),
            }
        }
        Ok(self.0.as_deref().unwrap_or_default())
    }
}
