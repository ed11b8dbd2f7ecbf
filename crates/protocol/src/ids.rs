//! Newtypes of the protocol: ids, digests, counters.

use core::{
    fmt::{self, Write as _},
    str::FromStr,
};

use sha2::{Digest as _, Sha256};

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal, $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                Self::parse(text).ok_or(ParseIdError { expected: $format })
            }
        }
    };
}

/// Text forms of an id that is shown as plain hex.
macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_hex(f, &self.0)
            }
        }

        impl $name {
            fn parse(text: &str) -> Option<Self> {
                parse_hex(text.bytes()).map(Self)
            }
        }
    };
}

/// Text forms of a UUID.
macro_rules! uuid_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut begin = 0;
                for end in HYPHENS {
                    write_hex(f, &self.0[begin..end])?;
                    f.write_char('-')?;
                    begin = end;
                }
                write_hex(f, &self.0[begin..])
            }
        }

        impl $name {
            fn parse(text: &str) -> Option<Self> {
                let hyphens =
                    text.bytes().enumerate().filter(|(_, byte)| *byte == b'-').map(|(index, _)| index);
                let grouped = hyphens.clone().eq([8, 13, 18, 23]);
                let plain = hyphens.count() == 0;
                (grouped || plain).then(|| parse_hex(text.bytes().filter(|byte| *byte != b'-')))?.map(Self)
            }
        }
    };
}

/// SHA-256 of bytes.
macro_rules! digest_of {
    ($name:ident) => {
        impl $name {
            /// The digest of these bytes.
            #[must_use]
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }
        }
    };
}

bytes_newtype!(
    /// SHA-256 (FIPS 180-4) of a module's bytes, shown as 64 hex digits.
    ModuleDigest,
    32,
    "64 hex digits"
);
hex_text!(ModuleDigest);
digest_of!(ModuleDigest);

impl ModuleDigest {
    const PREFIX: &str = "sha256:";

    /// The form that Kubernetes resources use: `sha256:` and 64 hex digits.
    #[must_use]
    pub fn prefixed(&self) -> impl fmt::Display {
        let digest = *self;
        fmt::from_fn(move |f| write!(f, "{}{digest}", Self::PREFIX))
    }

    /// Reads the form of resources; the prefix may be missing.
    ///
    /// # Errors
    /// Any other text.
    pub fn from_prefixed(text: &str) -> Result<Self, ParseIdError> {
        let error = ParseIdError { expected: "sha256: and 64 hex digits" };
        Self::parse(text.strip_prefix(Self::PREFIX).unwrap_or(text)).ok_or(error)
    }
}

bytes_newtype!(
    /// SHA-256 (FIPS 180-4) of the encoded [`Spec`](crate::Spec) of an assignment, shown as 64 hex digits.
    SpecHash,
    32,
    "64 hex digits"
);
hex_text!(SpecHash);
digest_of!(SpecHash);

bytes_newtype!(
    /// 16 bytes of HMAC-SHA-256 (RFC 2104) over what a [`Spec`](crate::Spec) has of Secrets, under a key of the controllers: who
    /// knows the spec's hash and everything but the key can't try values. Shown as 32 hex digits.
    ValuesMac,
    16,
    "32 hex digits"
);
hex_text!(ValuesMac);

bytes_newtype!(
    /// The `metadata.uid` of an Application, so that a recreated name inherits nothing. Shown in the hyphenated form of
    /// RFC 9562, section 4; read with or without hyphens.
    ApplicationUid,
    16,
    "a UUID: 32 hex digits in groups of 8, 4, 4, 4 and 12"
);
uuid_text!(ApplicationUid);

bytes_newtype!(
    /// The `metadata.uid` of a Device, so that no proof of its identity serves a Device of the same name that was created later.
    /// Text forms as [`ApplicationUid`].
    DeviceUid,
    16,
    "a UUID: 32 hex digits in groups of 8, 4, 4, 4 and 12"
);
uuid_text!(DeviceUid);

bytes_newtype!(
    /// SHA-256 (FIPS 180-4) of a DER `SubjectPublicKeyInfo`, shown as 64 hex digits.
    KeyHash,
    32,
    "64 hex digits"
);
hex_text!(KeyHash);
digest_of!(KeyHash);

bytes_newtype!(
    /// Follows one change from the controller through the gateway to the device and back; shown as 32 hex digits.
    CorrelationId,
    16,
    "32 hex digits"
);
hex_text!(CorrelationId);

bytes_newtype!(
    /// Drawn at random for one order to decommission a device, so that no earlier proof answers it; shown as 32 hex digits.
    Nonce,
    16,
    "32 hex digits"
);
hex_text!(Nonce);

/// Text that is not the id it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError {
    /// The form that is accepted, for people.
    pub expected: &'static str,
}

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl core::error::Error for ParseIdError {}

/// Offsets of the bytes before which a hyphen stands.
const HYPHENS: [usize; 4] = [4, 6, 8, 10];

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Exactly `N` bytes of hex, in either case.
fn parse_hex<const N: usize>(mut digits: impl Iterator<Item = u8>) -> Option<[u8; N]> {
    let mut digit = || (digits.next()? as char).to_digit(16);
    let mut bytes = [0; N];
    for byte in &mut bytes {
        // Both digits are below 16.
        *byte = (digit()? * 16 + digit()?) as u8;
    }
    digits.next().is_none().then_some(bytes)
}

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

/// Groups of messages that came after the first ones, one bit each. Bits that are not known are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageGroups(pub u64);

impl MessageGroups {
    /// [`Trap`](crate::Trap).
    pub const TRAPS: Self = Self(1);
    /// [`Join`](crate::Join) within a session, which renews a certificate.
    pub const RENEWAL: Self = Self(2);
    /// [`Decommission`](crate::Decommission) and [`Decommissioned`](crate::Decommissioned).
    pub const DECOMMISSION: Self = Self(4);
    /// [`Publish`](crate::Publish) and [`PublishAck`](crate::PublishAck).
    pub const MESSAGES: Self = Self(8);
    /// [`Deliver`](crate::Deliver) and [`DeliverAck`](crate::DeliverAck).
    pub const DELIVERIES: Self = Self(16);
    /// [`Settings`](crate::Settings) and [`SettingsAnswer`](crate::SettingsAnswer).
    pub const SETTINGS: Self = Self(32);
    /// All of these.
    pub const ALL: Self = Self(63);

    /// These but those.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether all of these are among them.
    #[must_use]
    pub const fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn ids_are_read_from_their_text() {
        let uid = ApplicationUid(*b"0123456789abcdef");
        assert_eq!(uid.to_string(), "30313233-3435-3637-3839-616263646566");
        assert_eq!(uid.to_string().parse(), Ok(uid));
        assert_eq!("30313233343536373839616263646566".parse(), Ok(uid));
        let digest = ModuleDigest::of(b"abc");
        assert!(digest.to_string().starts_with("ba7816bf8f01cfea"), "FIPS 180-4, appendix B.1");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.to_string().to_uppercase().parse(), Ok(digest));
        assert_eq!(ModuleDigest::from_prefixed(&digest.prefixed().to_string()), Ok(digest));
        assert_eq!(ModuleDigest::from_prefixed(&digest.to_string()), Ok(digest));
        assert!(ModuleDigest::from_prefixed("sha256:00").is_err());
        assert_eq!(SpecHash([9; 32]).to_string().parse(), Ok(SpecHash([9; 32])));
        assert_eq!(CorrelationId([3; 16]).to_string().parse(), Ok(CorrelationId([3; 16])));
    }

    #[test]
    fn other_text_is_rejected_with_the_expected_form() {
        let hex = |digits: usize| "0".repeat(digits);
        for text in ["", "-", "3031323-33435-3637-3839-616263646566", "30313233-3435-3637-3839-61626364656"] {
            assert!(text.parse::<ApplicationUid>().is_err(), "{text}");
        }
        assert!(hex(1_000).parse::<ApplicationUid>().is_err());
        assert!(hex(63).parse::<ModuleDigest>().is_err());
        assert!(hex(66).parse::<ModuleDigest>().is_err());
        let error = "g".repeat(64).parse::<SpecHash>().unwrap_err();
        assert_eq!(error.to_string(), "expected 64 hex digits");
    }
}
