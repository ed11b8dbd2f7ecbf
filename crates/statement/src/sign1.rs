//! COSE_Sign1 (RFC 9052, section 4.2) in the one form that statements have.

use alloc::vec::Vec;

use minicbor::{Decoder, Encoder, data::Tag, decode};

use crate::{
    cbor::{Cbor, Encoded, counted, key},
    error::{SignError, StatementError},
    signature::{RAW_BYTES, from_der, to_der},
};

/// Certificates of a chain at most: the signer's and three authorities above it, as in a device's handshake.
pub const CERTIFICATES_MAX: usize = 4;

const TAG: Tag = Tag::new(18);
/// Labels of headers (RFC 9052, section 3.1; RFC 9360).
const ALGORITHM: u8 = 1;
const CONTENT_TYPE: u8 = 3;
const X5CHAIN: u8 = 33;
/// RFC 9053, section 2.1.
const ES256: i64 = -7;

/// What is said about a payload before it is signed.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    pub(crate) content_type: &'static str,
    /// Of the whole statement.
    pub(crate) bytes_max: usize,
    /// Whether the signer's certificates come with it.
    pub(crate) has_chain: bool,
}

/// A statement that was read; nobody's signature was checked.
#[derive(Clone)]
pub(crate) struct Sign1<'a> {
    head: Head<'a>,
    pub(crate) chain: Vec<&'a [u8]>,
    pub(crate) payload: &'a [u8],
    signature: [u8; RAW_BYTES],
}

/// The protected header.
#[derive(Clone, Copy)]
struct Head<'a> {
    algorithm: i64,
    content_type: &'a str,
}

impl Cbor for Head<'_> {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        e.map(2)?.u8(ALGORITHM)?.i64(self.algorithm)?.u8(CONTENT_TYPE)?.str(self.content_type)?.ok()
    }
}

/// What is signed (RFC 9052, section 4.4).
struct ToBeSigned<'a> {
    head: &'a [u8],
    payload: &'a [u8],
}

impl Cbor for ToBeSigned<'_> {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        e.array(4)?.str("Signature1")?.bytes(self.head)?.bytes(&[])?.bytes(self.payload)?.ok()
    }
}

impl Cbor for Sign1<'_> {
    fn write(&self, e: &mut Encoder<&mut Vec<u8>>) -> Encoded {
        e.tag(TAG)?.array(4)?.bytes(&self.head.to_bytes())?;
        match self.chain.as_slice() {
            [] => _ = e.map(0)?,
            [one] => _ = e.map(1)?.u8(X5CHAIN)?.bytes(one)?,
            chain => {
                e.map(1)?.u8(X5CHAIN)?.array(chain.len() as u64)?;
                for certificate in chain {
                    e.bytes(certificate)?;
                }
            }
        }
        e.bytes(self.payload)?.bytes(&self.signature)?.ok()
    }
}

impl<'a> Sign1<'a> {
    pub(crate) fn decode(bytes: &'a [u8], form: &Form) -> Result<Self, StatementError> {
        if bytes.len() > form.bytes_max {
            return Err(StatementError::TooLong { length: bytes.len(), bytes_max: form.bytes_max });
        }
        let read = Self::read(bytes).map_err(|_| StatementError::Form)?;
        if !read.is(bytes) {
            return Err(StatementError::Form);
        }
        if read.head.algorithm != ES256 {
            return Err(StatementError::Algorithm(read.head.algorithm));
        }
        if read.head.content_type != form.content_type {
            return Err(StatementError::ContentType(form.content_type));
        }
        let (may_have, expected) =
            if form.has_chain { (1..=CERTIFICATES_MAX, "1 to 4") } else { (0..=0, "0") };
        if !may_have.contains(&read.chain.len()) {
            return Err(StatementError::Certificates { found: read.chain.len(), expected });
        }
        Ok(read)
    }

    fn read(bytes: &'a [u8]) -> Result<Self, decode::Error> {
        let mut d = Decoder::new(bytes);
        if d.tag()? != TAG || d.array()? != Some(4) {
            return Err(decode::Error::message("another structure"));
        }
        let head = Self::read_head(d.bytes()?)?;
        let chain = match counted(d.map()?)? {
            0 => Vec::new(),
            _ => Self::read_chain(&mut d)?,
        };
        let payload = d.bytes()?;
        let signature = crate::cbor::array(&mut d)?;
        Ok(Self { head, chain, payload, signature })
    }

    fn read_head(bytes: &'a [u8]) -> Result<Head<'a>, decode::Error> {
        let mut d = Decoder::new(bytes);
        counted(d.map()?)?;
        key(&mut d, ALGORITHM)?;
        let algorithm = d.i64()?;
        key(&mut d, CONTENT_TYPE)?;
        Ok(Head { algorithm, content_type: d.str()? })
    }

    /// At most so many certificates that it is seen whether there are too many.
    fn read_chain(d: &mut Decoder<'a>) -> Result<Vec<&'a [u8]>, decode::Error> {
        key(d, X5CHAIN)?;
        let mut chain = Vec::new();
        if d.datatype()? == minicbor::data::Type::Bytes {
            chain.push(d.bytes()?);
            return Ok(chain);
        }
        let count = counted(d.array()?)?;
        if count > CERTIFICATES_MAX as u64 + 1 {
            return Err(decode::Error::message("too many certificates"));
        }
        for _ in 0..count {
            chain.push(d.bytes()?);
        }
        Ok(chain)
    }

    /// Asks whether the signature, DER, is over what is signed.
    pub(crate) fn verify<E>(&self, verify: impl FnOnce(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let head = self.head.to_bytes();
        let message = ToBeSigned { head: &head, payload: self.payload }.to_bytes();
        verify(&message, &to_der(&self.signature))
    }
}

/// A statement of this payload. `sign` answers an ECDSA signature on P-256 over SHA-256 of its argument, DER.
pub(crate) fn sign<E>(
    form: &Form,
    chain: &[&[u8]],
    payload: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, SignError<E>> {
    if form.has_chain && !(1..=CERTIFICATES_MAX).contains(&chain.len()) {
        return Err(SignError::Certificates(chain.len()));
    }
    let head = Head { algorithm: ES256, content_type: form.content_type };
    let message = ToBeSigned { head: &head.to_bytes(), payload }.to_bytes();
    let signature = from_der(&sign(&message)?).ok_or(SignError::Signature)?;
    let bytes = Sign1 { head, chain: chain.to_vec(), payload, signature }.to_bytes();
    if bytes.len() > form.bytes_max {
        return Err(SignError::TooLong { length: bytes.len(), bytes_max: form.bytes_max });
    }
    Ok(bytes)
}
