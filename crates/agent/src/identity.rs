//! The identity that a device made for itself, as its identity record holds it.

use wasmbed_protocol::limits::CHAIN_BYTES_MAX;

/// The identity record at most: the key, the chain in use, the next one, and some words about them.
pub const IDENTITY_BYTES_MAX: usize = 2 * CHAIN_BYTES_MAX as usize + 512;

/// What a device's certificate says about its time, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFacts {
    /// Its `notBefore`.
    pub not_before_s: u64,
    /// Its `notAfter`.
    pub not_after_s: u64,
}
