//! What is known of the other side once it was verified.

use alloc::string::String;

/// A gateway that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its SPIFFE id.
    pub id: String,
    /// Of its certificate, seconds since 1970-01-01T00:00:00Z.
    pub not_before: u64,
    /// Of its certificate, seconds since 1970-01-01T00:00:00Z.
    pub not_after: u64,
    /// Index of the device's services root that its chain ends at.
    pub anchor: usize,
}
