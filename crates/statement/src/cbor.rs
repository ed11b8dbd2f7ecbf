//! Deterministic CBOR, both ways: bytes are taken only if they are what encoding what they say gives.

use alloc::vec::Vec;
use core::convert::Infallible;

use minicbor::{Decoder, Encoder, decode, encode};

pub(crate) type Encoded = Result<(), encode::Error<Infallible>>;

/// A value with its one encoding.
pub(crate) trait Cbor {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a vector can't fail: its error type has no values.
        let _ = self.write(&mut Encoder::new(&mut bytes));
        bytes
    }

    /// Whether these bytes are its encoding.
    fn is(&self, bytes: &[u8]) -> bool {
        self.to_bytes() == bytes
    }
}

/// The entries of a map, or of an array, whose number stands before them.
pub(crate) fn counted(count: Option<u64>) -> Result<u64, decode::Error> {
    count.ok_or_else(|| decode::Error::message("without a length"))
}

pub(crate) fn key(d: &mut Decoder<'_>, expected: u8) -> Result<(), decode::Error> {
    if d.u8()? == expected { Ok(()) } else { Err(decode::Error::message("another key")) }
}

pub(crate) fn array<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], decode::Error> {
    d.bytes()?.try_into().map_err(|_| decode::Error::message("another length"))
}
