//! What a board does with keys and certificates for the agent: it holds them and computes, and decides nothing.

use alloc::{borrow::ToOwned as _, vec::Vec};

use wasmbed_agent::{ChainFacts, IdentityError, Ordered, Presented, Provisioned};
use wasmbed_protocol::{DeviceUid, KeyHash};
use wasmbed_statement::Proof;

/// Keys and certificates. No call does I/O; each may take some hundred milliseconds of computing.
///
/// A device that joins has an *operational key* that it made itself. The agent keeps it in the identity record and commits
/// that before the key is used; here it is held in memory only.
pub trait Identity {
    /// What the board was provisioned with. The same during one run.
    fn provisioned(&self) -> Provisioned;
    /// The time of day in Unix seconds as far as the board knows it by itself: it is this late or later.
    fn unix_s(&self) -> Option<u64>;
    /// A new operational key on P-256, PKCS #8 DER of at most [`KEY_BYTES_MAX`](wasmbed_agent::KEY_BYTES_MAX), from a random source fit for keys. It is not used before
    /// [`Identity::use_key`].
    ///
    /// # Errors
    /// See [`IdentityError`].
    fn make_key(&mut self) -> Result<Vec<u8>, IdentityError>;
    /// Takes this operational key into use, as [`Identity::make_key`] once gave it. Answers the hash of its
    /// `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`IdentityError::Key`] if the bytes are no such key: the device then makes another one and begins anew.
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
    /// Whether an order to decommission is for this device and by somebody who may give it: a
    /// [`SignedOrder`](wasmbed_statement::SignedOrder) by a controller of the board's trust domain, whose chain ends at a root
    /// of the services and is valid by the rules that gateways' certificates are held to; with the id of the chain that is
    /// presented, and the Device UID in it if there is one.
    ///
    /// # Errors
    /// [`IdentityError::Order`] says to both ends why it is not followed.
    fn check_order(&mut self, order: &[u8]) -> Result<Ordered, IdentityError>;
    /// The proof, signed with the operational key: see [`Proof::sign`].
    ///
    /// # Errors
    /// See [`IdentityError`].
    fn sign_proof(&mut self, proof: &Proof) -> Result<Vec<u8>, IdentityError>;
    /// Drops every key: nothing is presented or signed any more.
    fn forget_keys(&mut self);
}

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

    fn check_order(&mut self, _order: &[u8]) -> Result<Ordered, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn sign_proof(&mut self, _proof: &Proof) -> Result<Vec<u8>, IdentityError> {
        Err(IdentityError::Unavailable)
    }

    fn forget_keys(&mut self) {}
}
