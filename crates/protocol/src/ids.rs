//! Newtypes of the protocol: ids, digests, counters.

use core::fmt;

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

bytes_newtype!(
    /// SHA-256 (FIPS 180-4) of a module's bytes.
    ModuleDigest,
    32
);
bytes_newtype!(
    /// SHA-256 (FIPS 180-4) of the encoded [`Spec`](crate::Spec) of an assignment.
    SpecHash,
    32
);
bytes_newtype!(
    /// The `metadata.uid` of an Application (RFC 9562), so that a recreated name inherits nothing.
    ApplicationUid,
    16
);
bytes_newtype!(
    /// Follows one change from the controller through the gateway to the device and back; shown as 32 hex digits.
    CorrelationId,
    16
);

/// Drawn at random at each start of a device. It tells two starts, and two devices with one identity, apart; whoever knows
/// it could pass for that start, so it has no text form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BootId(pub [u8; 8]);

impl BootId {
    /// Length in bytes.
    pub const LEN: usize = 8;
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootId(..)")
    }
}

macro_rules! counter_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The next value; saturates, so that a counter never goes back.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter_newtype!(
    /// Orders the sessions of one device across all gateways; the newest wins.
    Epoch
);
counter_newtype!(
    /// Number of a device's desired set; issued by the controller alone, one more for each change of content.
    Revision
);
counter_newtype!(
    /// Counts heartbeats within a session and log lines of an application.
    Sequence
);
counter_newtype!(
    /// Counts the starts of a device; see [`Hello::boot_counter`](crate::Hello::boot_counter).
    BootCounter
);
