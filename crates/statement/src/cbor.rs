//! Deterministic CBOR, both ways: bytes are taken only if they are what encoding what they say gives.

use alloc::vec::Vec;

use minicbor::{Decoder, Encoder, decode, encode};

pub(crate) type Encoded<W> = Result<(), encode::Error<<W as encode::Write>::Error>>;

/// A value with its one encoding.
pub(crate) trait Cbor {
    fn write<W: encode::Write>(&self, e: &mut Encoder<W>) -> Encoded<W>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to a vector can't fail: its error type has no values.
        let _ = self.write(&mut Encoder::new(&mut bytes));
        bytes
    }

    /// Whether these bytes are its encoding.
    fn is(&self, bytes: &[u8]) -> bool {
        let mut expected = Expected(bytes);
        self.write(&mut Encoder::new(&mut expected)).is_ok() && expected.0.is_empty()
    }
}

/// What is still to be written.
struct Expected<'a>(&'a [u8]);

/// Something else was written.
struct Differs;

impl encode::Write for Expected<'_> {
    type Error = Differs;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Differs> {
        self.0 = self.0.strip_prefix(bytes).ok_or(Differs)?;
        Ok(())
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
