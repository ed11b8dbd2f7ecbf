//! What the agent asks of storage and what storage answers: operations are effects, results are inputs.

use alloc::{string::String, vec::Vec};
use core::fmt;

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

/// One operation. At most one is outstanding; each is answered by exactly one [`Outcome`].
///
/// Storage holds four kinds of object: modules by digest, which are staged first and become visible when they are
/// committed; one state record; one identity record, which holds a private key; and one data record for each application.
/// Records are replaced as a whole: after a cut at any moment the old bytes are there or the new ones, never a mixture. What an operation answered with success
/// survives a cut, with one exception: a staged module may come back shorter than it was.
#[derive(Clone, PartialEq, Eq)]
pub enum Operation {
    /// Lists what is there: [`Done::Inventory`].
    Inventory,
    /// Reads the state record: [`Done::Record`].
    ReadState,
    /// Replaces the state record: [`Done::Written`].
    CommitState(Vec<u8>),
    /// Reads the identity record: [`Done::Record`].
    ReadIdentity,
    /// Replaces the identity record, at most [`IDENTITY_BYTES_MAX`](crate::IDENTITY_BYTES_MAX): [`Done::Written`].
    CommitIdentity(Vec<u8>),
    /// Writes to a staged module, which is created by the first write at offset 0 and is exactly `offset + bytes` long
    /// afterwards: [`Done::Written`]. An offset beyond its end is [`StorageError::Missing`].
    Append {
        /// Of the staged module.
        digest: ModuleDigest,
        /// Where the bytes go.
        offset: u32,
        /// What to write.
        bytes: Vec<u8>,
    },
    /// Reads back from a staged module: [`Done::Bytes`], shorter than asked only at its end.
    ReadStaged {
        /// Of the staged module.
        digest: ModuleDigest,
        /// First byte.
        offset: u32,
        /// How many.
        length: u16,
    },
    /// Makes a staged module a module, its bytes durable before its name: [`Done::Written`].
    CommitModule(ModuleDigest),
    /// Removes a module, staged or committed; succeeds if there is none: [`Done::Written`].
    DeleteModule(ModuleDigest),
    /// Reads an application's data record: [`Done::Record`].
    ReadData(ApplicationUid),
    /// Replaces an application's data record: [`Done::Written`].
    CommitData {
        /// Whose record.
        uid: ApplicationUid,
        /// Its new content.
        bytes: Vec<u8>,
    },
    /// Removes an application's data record; succeeds if there is none: [`Done::Written`].
    DeleteData(ApplicationUid),
    /// Erases the bytes of what was removed or replaced, as far as the medium can: [`Done::Erased`]. It is asked for again until
    /// nothing is left, in as many parts as the medium likes; after a cut from the beginning.
    EraseRemoved,
    /// Erases the private key that the device was provisioned with: [`Done::Written`]. Succeeds if it is gone already. A device
    /// that starts without it is for storage's owner to tell from one that was never provisioned.
    EraseProvisioned,
}

/// How long the bytes of records are, not what they are: a record may hold a private key, an assignment the secrets of its
/// environment.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inventory => f.write_str("Inventory"),
            Self::ReadState => f.write_str("ReadState"),
            Self::CommitState(bytes) => write!(f, "CommitState({} bytes)", bytes.len()),
            Self::ReadIdentity => f.write_str("ReadIdentity"),
            Self::CommitIdentity(bytes) => write!(f, "CommitIdentity({} bytes)", bytes.len()),
            Self::Append { digest, offset, bytes } => {
                write!(f, "Append({digest}, {offset}, {} bytes)", bytes.len())
            }
            Self::ReadStaged { digest, offset, length } => {
                write!(f, "ReadStaged({digest}, {offset}, {length} bytes)")
            }
            Self::CommitModule(digest) => write!(f, "CommitModule({digest})"),
            Self::DeleteModule(digest) => write!(f, "DeleteModule({digest})"),
            Self::ReadData(uid) => write!(f, "ReadData({uid})"),
            Self::CommitData { uid, bytes } => write!(f, "CommitData({uid}, {} bytes)", bytes.len()),
            Self::DeleteData(uid) => write!(f, "DeleteData({uid})"),
            Self::EraseRemoved => f.write_str("EraseRemoved"),
            Self::EraseProvisioned => f.write_str("EraseProvisioned"),
        }
    }
}

/// The answer to one [`Operation`].
pub type Outcome = Result<Done, StorageError>;

/// What a successful operation gives back.
#[derive(Clone, PartialEq, Eq)]
pub enum Done {
    /// Of a write or a removal.
    Written,
    /// Of [`Operation::ReadStaged`].
    Bytes(Vec<u8>),
    /// Of [`Operation::ReadState`], [`Operation::ReadIdentity`] and [`Operation::ReadData`]; `None` if there was never one.
    Record(Option<Vec<u8>>),
    /// Of [`Operation::Inventory`].
    Inventory(Inventory),
    /// Of [`Operation::EraseRemoved`].
    Erased {
        /// Whether there is more to erase.
        left: bool,
    },
}

/// As of [`Operation`].
impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written => f.write_str("Written"),
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Record(None) => f.write_str("Record(None)"),
            Self::Record(Some(bytes)) => write!(f, "Record({} bytes)", bytes.len()),
            Self::Inventory(inventory) => f.debug_tuple("Inventory").field(inventory).finish(),
            Self::Erased { left } => write!(f, "Erased(left: {left})"),
        }
    }
}

/// What storage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Committed modules with their length in bytes.
    pub modules: Vec<(ModuleDigest, u32)>,
    /// Staged modules with the length that survived.
    pub staged: Vec<(ModuleDigest, u32)>,
    /// Applications that have a data record.
    pub data: Vec<ApplicationUid>,
}

/// Why storage refused an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// No room. What was there is untouched.
    Full,
    /// No such object, or an offset beyond its end.
    Missing,
    /// The medium failed; the text is for people.
    Failed(String),
}

impl StorageError {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Full => "storage is full".into(),
            Self::Missing => "storage lost what it had".into(),
            Self::Failed(message) => message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use super::*;

    /// A byte that stands in no number of these lines.
    const SECRET: u8 = 251;

    #[test]
    fn neither_an_operation_nor_an_answer_shows_what_a_record_holds() {
        let bytes = || vec![SECRET; 7];
        let (uid, digest) = (ApplicationUid([1; 16]), ModuleDigest([1; 32]));
        for operation in [
            Operation::CommitState(bytes()),
            Operation::CommitIdentity(bytes()),
            Operation::Append { digest, offset: 0, bytes: bytes() },
            Operation::CommitData { uid, bytes: bytes() },
        ] {
            let shown = format!("{operation:?}");
            assert!(!shown.contains("251") && shown.contains("7 bytes"), "{shown}");
        }
        for done in [Done::Record(Some(bytes())), Done::Bytes(bytes())] {
            let shown = format!("{:?}", Outcome::Ok(done));
            assert!(!shown.contains("251") && shown.contains("7 bytes"), "{shown}");
        }
    }
}
