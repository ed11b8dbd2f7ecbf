//! A process that acts under a gateway's name.

/// A process with the name of a gateway and another data directory, of an older version: it asks nobody.
pub(crate) struct Namesake {
    pub(crate) gateway: String,
    pub(crate) until_ms: u64,
    pub(crate) due_ms: u64,
}
