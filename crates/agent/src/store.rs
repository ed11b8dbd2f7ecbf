//! The storage operation that is outstanding.

use wasmbed_protocol::{ApplicationUid, ModuleDigest, Revision};

/// The operation that is outstanding, with what its success means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    State { version: u64, revision: Revision },
    Append { digest: ModuleDigest, end: u32 },
    ReadBack { digest: ModuleDigest },
    CommitModule { digest: ModuleDigest },
    Discard { digest: ModuleDigest },
    Delete { digest: ModuleDigest },
    DeleteData { uid: ApplicationUid },
}

impl Busy {
    pub(crate) fn is_pull(&self) -> bool {
        match self {
            Self::Append { .. }
            | Self::ReadBack { .. }
            | Self::CommitModule { .. }
            | Self::Discard { .. } => true,
            Self::State { .. } | Self::Delete { .. } | Self::DeleteData { .. } => false,
        }
    }

    pub(crate) fn pull_digest(&self) -> Option<ModuleDigest> {
        match self {
            Self::Append { digest, .. }
            | Self::ReadBack { digest }
            | Self::CommitModule { digest }
            | Self::Discard { digest } => Some(*digest),
            Self::State { .. } | Self::Delete { .. } | Self::DeleteData { .. } => None,
        }
    }
}
