//! Why bytes are no statement, or none was made.

use thiserror::Error;

/// Peer: bytes that are not the statement that they should be. Nothing in it is the peer's own text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StatementError {
    /// More than the receiver takes.
    #[error("it has {length} bytes and may have {bytes_max}")]
    TooLong {
        /// What it has, bytes.
        length: usize,
        /// What it may have, bytes.
        bytes_max: usize,
    },
    /// Not the structure, or another encoding of it than the deterministic one.
    #[error("it is not a COSE_Sign1 of this form in deterministic CBOR")]
    Form,
    /// Signed with something else.
    #[error("its algorithm is {0}, not -7 (ES256)")]
    Algorithm(i64),
    /// A statement about something else.
    #[error("its content type is not {0}")]
    ContentType(&'static str),
    /// Certificates are missing, too many, or not expected.
    #[error("it carries {found} certificates, not {expected}")]
    Certificates {
        /// How many it carries.
        found: usize,
        /// How many it may carry.
        expected: &'static str,
    },
    /// The payload is not what this content type says.
    #[error("its payload is not the map that its content type has")]
    Payload,
}

/// A statement could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignError<E> {
    /// The key did not sign.
    #[error(transparent)]
    Key(#[from] E),
    /// Configuration: the key signs with something else.
    #[error("the key's signature is not an ECDSA signature on P-256, which statements have")]
    Signature,
    /// Configuration: with these certificates, or this id, it has more bytes than receivers take.
    #[error("it has {length} bytes and may have {bytes_max}: its certificates are too long")]
    TooLong {
        /// What it would have, bytes.
        length: usize,
        /// What it may have, bytes.
        bytes_max: usize,
    },
    /// Configuration: no certificate, or too many.
    #[error("the chain has {0} certificates, not 1 to {max}", max = crate::CERTIFICATES_MAX)]
    Certificates(usize),
}
