//! Who the device is to its gateways: what it was provisioned with, the key that it made, and the chains it was given for it.
//!
//! ```text
//!   start -> Reading --Effect::Storage(ReadIdentity)--> the record, or none, or another device's
//!               |                                        |
//!            failed: again, later                        +-- a factory identity or pairing token, and no key yet
//!                                                        |        Making --Effect::MakeKey--> Keeping --committed-+
//!                                                        +-- there is a key ------------------------------------- + --> Loading
//!                                                        +-- provisioned operational identity --> Ready              |
//!                                                                                                    ^-- Effect::UseKey
//! ```
//! Nothing connects before it is ready. Then each attempt presents one of
//!
//! - `next`, the chain received last, until a session was established with it; then it is `current`;
//! - `current`, the chain of the last session, and every other time while `next` is turned away;
//! - what was provisioned: while there is no other chain, when the others are known to be over, and every so often when they are
//!   turned away without a word; an operational chain also in place of `current` if it is the newer one. With a factory identity
//!   or a pairing token such a connection joins: see [`exchange`]. A pairing token is presented until the first session.
//!
//! A device that was decommissioned has its proof in the record, and connects to send it. Once that was acknowledged the record
//! has neither key nor chain, and nothing connects any more: with a factory identity not before the next start, which begins
//! anew; with a provisioned identity or a token, not before the device was provisioned anew.
//!
//! A key is on storage before it is used. A chain is on storage before it is used, unless storage fails: what a cut then takes
//! is asked for again.

pub(crate) mod credentials;
pub(crate) mod exchange;
pub(crate) mod pause;
pub(crate) mod record;

use alloc::string::String;
use core::fmt;

use wasmbed_protocol::{
    DeviceUid, KeyHash,
    limits::{CHAIN_BYTES_MAX, DECOMMISSION_PROOF_BYTES_MAX},
};

/// An operational key at most, PKCS #8: on P-256 it has 138 bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// The identity record at most: the key, the chain in use, the next one, a proof, and some words about them.
pub const IDENTITY_BYTES_MAX: usize =
    2 * CHAIN_BYTES_MAX as usize + KEY_BYTES_MAX + DECOMMISSION_PROOF_BYTES_MAX + 256;

/// Attempts to read the record after which a device with an operational identity goes on without it.
pub(crate) const READ_ATTEMPTS: u32 = 5;

/// Attempts in a row that a gateway ends without a word, after which a device with a factory identity joins anew: the
/// certificate may be over, and a board without a clock can't know.
pub(crate) const UNHEARD_MAX: u32 = 3;

/// A gateway that has not answered Join by then is given up. It may have to ask the Kubernetes API first.
pub const JOIN_ANSWER_TIMEOUT_MS: u64 = 30_000;

/// A gateway lets a device wait in joining for ten minutes; one that has not ended it a while later is given up.
pub const JOINING_MS_MAX: u64 = 630_000;

/// Proofs in one connection: the Device may have been made anew once meanwhile.
pub(crate) const PROOFS_MAX: u32 = 2;

/// What a device's certificate says about its time, Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFacts {
    /// Its `notBefore`.
    pub not_before_s: u64,
    /// Its `notAfter`.
    pub not_after_s: u64,
}

/// What a device was provisioned with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provisioned {
    /// An operational chain and key that the device never renews: what a platform has that knows nothing of joining.
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
    /// A chain for the operational key.
    Chain(&'a [u8]),
}

/// The Device that a join proof is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinDevice {
    /// The Device's namespace.
    pub namespace: String,
    /// The Device's name.
    pub name: String,
    /// The Device's UID.
    pub device_uid: DeviceUid,
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
    /// Peer: an order that this device does not follow; for people, at the other end too.
    Order(String),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("this board has no key to do that with"),
            Self::Failed(problem) => f.write_str(problem),
            Self::Key(problem) => write!(f, "key not usable: {problem}"),
            Self::Chain(problem) => write!(f, "chain not usable: {problem}"),
            Self::Order(problem) => write!(f, "order not followed: {problem}"),
        }
    }
}

impl core::error::Error for IdentityError {}
