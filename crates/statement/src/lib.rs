//! Statements: what somebody signed so that it holds wherever it is carried, as COSE_Sign1 (RFC 9052) with ES256 (RFC 9053).
//!
//! It may not hold a key, judge a certificate or read a clock: signing and verifying are its callers', with signatures in DER
//! (X9.62) as certificates have them. It needs an allocator and no `std`.
//!
//! ```text
//! COSE_Sign1 = 18([protected, unprotected, payload, signature])
//! protected   = bstr .cbor {1: -7 (ES256), 3: content type}
//! unprotected = {? 33: certificate / [2* certificate]}           ; x5chain (RFC 9360): the signer's first, without the root
//! payload     = bstr .cbor map
//! signature   = r and s, 32 bytes each
//! ```
//! There is one encoding of each statement, the deterministic one (RFC 8949, section 4.2.1); anything else is refused. The
//! structures are written here, since the firmware of riscv32-virt has 86 kB more with `coset`; the tests compare with it.
//!
//! | statement | by | content type | payload |
//! |---|---|---|---|
//! | [`Order`] | a controller's key, with its chain | [`ORDER_CONTENT_TYPE`] | {1: device id, 2: Device UID, 3: nonce} |
//! | [`Proof`] | a device's operational key | [`PROOF_CONTENT_TYPE`] | {1: Device UID, 2: nonce, 3: what was erased} |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cbor;
mod decommission;
mod error;
mod sign1;
mod signature;

pub use decommission::{
    Erased, ORDER_CONTENT_TYPE, Order, PROOF_CONTENT_TYPE, Proof, SignedOrder, SignedProof,
};
pub use error::{SignError, StatementError};
pub use sign1::CERTIFICATES_MAX;
pub use wasmbed_protocol::{DeviceUid, Nonce};
