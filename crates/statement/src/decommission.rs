//! Taking a device out of service: a controller's order, and the device's proof that it did so.

use alloc::vec::Vec;
use core::fmt;

use minicbor::{Decoder, Encoder, decode};
use wasmbed_protocol::{
    DeviceUid, Nonce,
    limits::{DECOMMISSION_ORDER_BYTES_MAX, DECOMMISSION_PROOF_BYTES_MAX},
};

use crate::{
    cbor::{Cbor, Encoded, array, counted, key},
    error::{SignError, StatementError},
    sign1::{self, Form, Sign1},
};

/// Content type of an order.
pub const ORDER_CONTENT_TYPE: &str = "application/vnd.wasmbed.decommission+cbor";
/// Content type of a proof.
pub const PROOF_CONTENT_TYPE: &str = "application/vnd.wasmbed.decommissioned+cbor";

const ORDER: Form =
    Form { content_type: ORDER_CONTENT_TYPE, bytes_max: DECOMMISSION_ORDER_BYTES_MAX, has_chain: true };
const PROOF: Form =
    Form { content_type: PROOF_CONTENT_TYPE, bytes_max: DECOMMISSION_PROOF_BYTES_MAX, has_chain: false };

/// What a device is to do: erase everything, and prove it with this nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order<'a> {
    /// SPIFFE id of the device.
    pub device: &'a str,
    /// The Device that is meant: one of the same name that was created later is another one.
    pub device_uid: DeviceUid,
    /// Drawn for this order; the proof repeats it.
    pub nonce: Nonce,
}

impl Cbor for Order<'_> {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        e.map(3)?.u8(1)?.str(self.device)?;
        e.u8(2)?.bytes(&self.device_uid.0)?.u8(3)?.bytes(&self.nonce.0)?.ok()
    }
}

impl<'a> Order<'a> {
    /// The order, signed. `chain`: the signer's certificate and the authorities above it but the root, DER each. `sign` answers
    /// an ECDSA signature on P-256 with SHA-256 over its argument, DER.
    ///
    /// # Errors
    /// The key does not sign, or not with ECDSA on P-256, or the chain has too many certificates or bytes.
    pub fn sign<E>(
        &self,
        chain: &[&[u8]],
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, SignError<E>> {
        sign1::sign(&ORDER, chain, &self.to_bytes(), sign)
    }

    fn read(bytes: &'a [u8]) -> Result<Self, decode::Error> {
        let mut d = Decoder::new(bytes);
        counted(d.map()?)?;
        key(&mut d, 1)?;
        let device = d.str()?;
        key(&mut d, 2)?;
        let device_uid = DeviceUid(array(&mut d)?);
        key(&mut d, 3)?;
        Ok(Self { device, device_uid, nonce: Nonce(array(&mut d)?) })
    }
}

/// An order as it was received.
#[derive(Clone)]
pub struct SignedOrder<'a> {
    order: Order<'a>,
    statement: Sign1<'a>,
}

impl<'a> SignedOrder<'a> {
    /// Reads an order; whether somebody who may give it signed it is for [`verify`](Self::verify).
    ///
    /// # Errors
    /// The bytes are no order.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, StatementError> {
        let statement = Sign1::decode(bytes, &ORDER)?;
        let order = Order::read(statement.payload).map_err(|_| StatementError::Payload)?;
        if !order.is(statement.payload) {
            return Err(StatementError::Payload);
        }
        Ok(Self { order, statement })
    }

    /// What it says.
    #[must_use]
    pub fn order(&self) -> &Order<'a> {
        &self.order
    }

    /// The certificate that it was signed with, then those above it, DER; at least one and at most [`crate::CERTIFICATES_MAX`].
    #[must_use]
    pub fn chain(&self) -> &[&'a [u8]] {
        &self.statement.chain
    }

    /// Calls `verify` with what was signed and the signature over it, an ECDSA signature on P-256 with SHA-256, DER.
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify<E>(&self, verify: impl FnOnce(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.statement.verify(verify)
    }
}

impl fmt::Debug for SignedOrder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedOrder").field(&self.order).finish()
    }
}

/// What a device erased, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased(pub u32);

impl Erased {
    /// The assignments and every record about them.
    pub const ASSIGNMENTS: Self = Self(1);
    /// The modules.
    pub const MODULES: Self = Self(2);
    /// What applications had stored.
    pub const KEY_VALUE_DATA: Self = Self(4);
    /// All of these.
    pub const ALL: Self = Self(7);

    /// Whether all that `other` names is among it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a device did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Of the order.
    pub device_uid: DeviceUid,
    /// Of the order.
    pub nonce: Nonce,
    /// What it erased.
    pub erased: Erased,
}

impl Cbor for Proof {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        e.map(3)?.u8(1)?.bytes(&self.device_uid.0)?;
        e.u8(2)?.bytes(&self.nonce.0)?.u8(3)?.u32(self.erased.0)?.ok()
    }
}

impl Proof {
    /// The proof, signed. `sign` answers an ECDSA signature on P-256 with SHA-256 over its argument, DER.
    ///
    /// # Errors
    /// The key does not sign, or not with ECDSA on P-256.
    pub fn sign<E>(&self, sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, SignError<E>> {
        sign1::sign(&PROOF, &[], &self.to_bytes(), sign)
    }

    fn read(bytes: &[u8]) -> Result<Self, decode::Error> {
        let mut d = Decoder::new(bytes);
        counted(d.map()?)?;
        key(&mut d, 1)?;
        let device_uid = DeviceUid(array(&mut d)?);
        key(&mut d, 2)?;
        let nonce = Nonce(array(&mut d)?);
        key(&mut d, 3)?;
        Ok(Self { device_uid, nonce, erased: Erased(d.u32()?) })
    }
}

/// A proof as it was received.
#[derive(Clone)]
pub struct SignedProof<'a> {
    proof: Proof,
    statement: Sign1<'a>,
}

impl<'a> SignedProof<'a> {
    /// Reads a proof; whether the device signed it is for [`verify`](Self::verify).
    ///
    /// # Errors
    /// The bytes are no proof.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, StatementError> {
        let statement = Sign1::decode(bytes, &PROOF)?;
        let proof = Proof::read(statement.payload).map_err(|_| StatementError::Payload)?;
        if !proof.is(statement.payload) {
            return Err(StatementError::Payload);
        }
        Ok(Self { proof, statement })
    }

    /// What it says.
    #[must_use]
    pub fn proof(&self) -> &Proof {
        &self.proof
    }

    /// Calls `verify` with what was signed and the signature over it, an ECDSA signature on P-256 with SHA-256, DER.
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify<E>(&self, verify: impl FnOnce(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        self.statement.verify(verify)
    }
}

impl fmt::Debug for SignedProof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedProof").field(&self.proof).finish()
    }
}
