//! What a board does with keys and certificates for the agent: it holds them and computes, and decides nothing.

use alloc::{borrow::ToOwned as _, string::String, vec::Vec};
use core::fmt;

pub use wasmbed_agent::ChainFacts;
use wasmbed_protocol::{DeviceUid, KeyHash};

/// Keys and certificates. No call does I/O; each may take some hundred milliseconds of computing.
///
/// A device that joins has an *operational key* that it made itself. The agent keeps it in the identity record and commits
/// that before the key is used; here it is held in memory only.
pub trait Identity {
    /// What the board was provisioned with. The same during one run.
    fn provisioned(&self) -> Provisioned;
    /// The time of day in Unix seconds as far as the board knows it by itself: it is this late or later.
    fn unix_s(&self) -> Option<u64>;
    /// A new operational key on P-256, PKCS #8 DER, from a random source fit for keys. It is not used before
    /// [`Identity::use_key`].
    ///
    /// # Errors
    /// See [`IdentityError`].
    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError>;
    /// Takes this operational key into use, as [`Identity::make_key`] once gave it. Answers the hash of its
    /// `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// The bytes are no such key.
    fn use_key(&mut self, pkcs8: &[u8]) -> Result<KeyHash, IdentityError>;
    /// A PKCS #10 request for the operational key, which is the provisioned one with [`Provisioned::Operational`]: empty
    /// subject, DER.
    ///
    /// # Errors
    /// See [`IdentityError`].
    fn request(&mut self) -> Result<Vec<u8>, IdentityError>;
    /// The join proof over the `JoinStatement` of this Device, the operational key and the board's own trust domain, by the
    /// factory key or the pairing token.
    ///
    /// # Errors
    /// See [`IdentityError`].
    fn prove(&mut self, namespace: &str, name: &str, device_uid: DeviceUid)
    -> Result<Vec<u8>, IdentityError>;
    /// Whether a chain is one for the operational key: DER certificates one after the other, the leaf's key is that key and
    /// its id is a device's in the board's trust domain.
    ///
    /// # Errors
    /// It is not; says what is wrong.
    fn check(&self, chain: &[u8]) -> Result<ChainFacts, IdentityError>;
    /// What the link presents from its next [`Link::connect`](crate::platform::Link::connect) on.
    ///
    /// # Errors
    /// TLS can't use it.
    fn present(&mut self, what: Presented<'_>) -> Result<(), IdentityError>;
}

/// What a board was provisioned with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provisioned {
    /// An operational chain and key that the device never renews: what a platform without the rest of [`Identity`] has.
    Fixed,
    /// An operational chain and its key, which the device renews.
    Operational {
        /// Of the `SubjectPublicKeyInfo`.
        key: KeyHash,
        /// Of the chain.
        facts: ChainFacts,
    },
    /// A factory chain and key: the device joins with them.
    Factory {
        /// Of the `SubjectPublicKeyInfo`.
        key: KeyHash,
    },
    /// A pairing token: the device joins with it once.
    Pairing {
        /// The token's id.
        id: String,
    },
}

/// What a device presents to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presented<'a> {
    /// The provisioned chain; with a pairing token a self-signed certificate of the operational key.
    Provisioned,
    /// A chain for the operational key that [`Identity::check`] took.
    Chain(&'a [u8]),
}

/// Why a board could not do what was asked of its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// Bug: the board has nothing to do this with, for example no operational key yet.
    Unavailable,
    /// I/O: no random bytes, or a computation failed; for people.
    Failed(String),
    /// Bug or I/O: what the identity record holds is not what this board made; for people.
    Key(String),
    /// Peer: a chain that is not one for this device; for people.
    Chain(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("this board has no key to do that with"),
            Self::Failed(problem) => f.write_str(problem),
            Self::Key(problem) => write!(f, "key not usable: {problem}"),
            Self::Chain(problem) => write!(f, "chain not usable: {problem}"),
        }
    }
}

impl core::error::Error for IdentityError {}

/// The identity of a platform that neither joins nor renews.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedIdentity;

impl Identity for FixedIdentity {
    fn provisioned(&self) -> Provisioned {
        Provisioned::Fixed
    }

    fn unix_s(&self) -> Option<u64> {
        None
    }

    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn use_key(&mut self, _pkcs8: &[u8]) -> Result<KeyHash, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn request(&mut self) -> Result<Vec<u8>, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn prove(&mut self, _: &str, _: &str, _: DeviceUid) -> Result<Vec<u8>, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn check(&self, _chain: &[u8]) -> Result<ChainFacts, IdentityError> {
        Err(IdentityError::Chain("this board takes none".to_owned()))
    }

    fn present(&mut self, what: Presented<'_>) -> Result<(), IdentityError> {
        match what {
            Presented::Provisioned => Ok(()),
            Presented::Chain(_) => Err(IdentityError::Unavailable),
        }
    }
}
