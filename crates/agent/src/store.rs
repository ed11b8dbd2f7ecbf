//! What storage holds, and the operation on it that is outstanding.

use alloc::vec::Vec;

use wasmbed_protocol::{ApplicationUid, ModuleDigest, Revision};

use crate::storage::Inventory;

/// The operation that is outstanding, with what its success means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    State {
        version: u64,
        revision: Revision,
    },
    ReadIdentity,
    Identity {
        version: u64,
    },
    Append {
        digest: ModuleDigest,
        end: u32,
    },
    ReadBack {
        digest: ModuleDigest,
    },
    CommitModule {
        digest: ModuleDigest,
    },
    Discard {
        digest: ModuleDigest,
    },
    Delete {
        digest: ModuleDigest,
    },
    DeleteData {
        uid: ApplicationUid,
    },
    /// What is there is read anew.
    List,
    Erase,
    /// The same after the proof was acknowledged, or of a provisioned key.
    Ending,
}

impl Busy {
    /// The module of a pull's operation.
    pub(crate) fn pull_digest(&self) -> Option<ModuleDigest> {
        match self {
            Self::Append { digest, .. }
            | Self::ReadBack { digest }
            | Self::CommitModule { digest }
            | Self::Discard { digest } => Some(*digest),
            Self::State { .. }
            | Self::ReadIdentity
            | Self::Identity { .. }
            | Self::Delete { .. }
            | Self::DeleteData { .. }
            | Self::List
            | Self::Erase
            | Self::Ending => None,
        }
    }
}

/// What an operation's success changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nothing that others wait for.
    Nothing,
    /// There is one module more.
    Module(ModuleDigest),
    /// There is more room.
    Room,
}

/// Contract: an operation is begun with [`begin`](Self::begin) only when none [`is_busy`](Self::is_busy); its answer takes
/// it with [`finish`](Self::finish), and [`note_success`](Self::note_success) follows if it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Store {
    inventory: Inventory,
    busy: Option<Busy>,
    /// Modules whose bytes are not what they were, to be removed.
    damaged: Vec<ModuleDigest>,
}

impl Store {
    pub(crate) fn new(inventory: Inventory) -> Self {
        Self { inventory, busy: None, damaged: Vec::new() }
    }

    /// Storage was asked again what it holds.
    pub(crate) fn replace(&mut self, inventory: Inventory) {
        self.inventory = inventory;
        self.damaged.clear();
    }

    pub(crate) fn has_module(&self, digest: &ModuleDigest) -> bool {
        self.inventory.modules.iter().any(|(known, _)| known == digest)
    }

    pub(crate) fn staged_bytes(&self, digest: &ModuleDigest) -> u32 {
        self.inventory.staged.iter().find(|(known, _)| known == digest).map_or(0, |(_, bytes)| *bytes)
    }

    /// Modules, committed and staged.
    pub(crate) fn modules(&self) -> impl Iterator<Item = ModuleDigest> {
        self.inventory.modules.iter().chain(&self.inventory.staged).map(|(digest, _)| *digest)
    }

    /// Applications that have a data record.
    pub(crate) fn data(&self) -> impl Iterator<Item = ApplicationUid> {
        self.inventory.data.iter().copied()
    }

    /// A module that is to be removed because it is damaged.
    pub(crate) fn damaged(&self) -> Option<ModuleDigest> {
        self.damaged.last().copied()
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.is_some()
    }

    /// Whether the outstanding operation is part of a pull.
    pub(crate) fn is_pulling(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.pull_digest().is_some())
    }

    pub(crate) fn begin(&mut self, busy: Busy) {
        debug_assert!(self.busy.is_none(), "one operation at a time");
        self.busy = Some(busy);
    }

    /// The operation that an answer belongs to; none if nothing was asked.
    pub(crate) fn finish(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    pub(crate) fn note_success(&mut self, busy: &Busy) -> Stored {
        match busy {
            Busy::State { .. }
            | Busy::ReadIdentity
            | Busy::Identity { .. }
            | Busy::ReadBack { .. }
            | Busy::List
            | Busy::Erase
            | Busy::Ending => Stored::Nothing,
            Busy::Append { digest, end } => {
                self.inventory.staged.retain(|(known, _)| known != digest);
                self.inventory.staged.push((*digest, *end));
                Stored::Nothing
            }
            Busy::CommitModule { digest } => {
                let length = self.staged_bytes(digest);
                self.inventory.staged.retain(|(known, _)| known != digest);
                self.inventory.modules.push((*digest, length));
                Stored::Module(*digest)
            }
            Busy::Discard { digest } | Busy::Delete { digest } => {
                self.forget(*digest);
                Stored::Room
            }
            Busy::DeleteData { uid } => {
                self.forget_data(*uid);
                Stored::Nothing
            }
        }
    }

    /// It does not count as stored any more, whether it could be removed or not.
    pub(crate) fn forget(&mut self, digest: ModuleDigest) {
        self.inventory.modules.retain(|(known, _)| *known != digest);
        self.inventory.staged.retain(|(known, _)| *known != digest);
        self.damaged.retain(|known| *known != digest);
    }

    /// Its data record does not count any more.
    pub(crate) fn forget_data(&mut self, uid: ApplicationUid) {
        self.inventory.data.retain(|known| *known != uid);
    }

    /// A module's bytes are not what they were: it does not count any more and is to be removed.
    pub(crate) fn note_damage(&mut self, digest: ModuleDigest) {
        self.inventory.modules.retain(|(known, _)| *known != digest);
        if !self.damaged.contains(&digest) {
            self.damaged.push(digest);
        }
    }

    /// An application has a data record now.
    pub(crate) fn note_data(&mut self, uid: ApplicationUid) {
        if !self.inventory.data.contains(&uid) {
            self.inventory.data.push(uid);
        }
    }
}
