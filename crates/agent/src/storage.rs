//! What the agent asks of storage and what storage answers: operations are effects, results are inputs.

use alloc::{string::String, vec::Vec};

use wasmbed_protocol::{ApplicationUid, ModuleDigest};

/// One operation. At most one is outstanding; each is answered by exactly one [`Outcome`].
///
/// Storage holds four kinds of object: modules by digest, which are staged first and become visible when they are
/// committed; one state record; one identity record, which holds a private key; and one data record for each application.
/// Records are replaced as a whole: after a cut at any moment the old bytes are there or the new ones, never a mixture. What an operation answered with success
/// survives a cut, with one exception: a staged module may come back shorter than it was.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// The answer to one [`Operation`].
pub type Outcome = Result<Done, StorageError>;

/// What a successful operation gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of a write or a removal.
    Written,
    /// Of [`Operation::ReadStaged`].
    Bytes(Vec<u8>),
    /// Of [`Operation::ReadState`], [`Operation::ReadIdentity`] and [`Operation::ReadData`]; `None` if there was never one.
    Record(Option<Vec<u8>>),
    /// Of [`Operation::Inventory`].
    Inventory(Inventory),
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
