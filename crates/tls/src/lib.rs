//! TLS 1.3 for microcontrollers: a client without I/O that proves who the device is and verifies that a gateway answers.
//!
//! It may not open a socket, read a clock, know the device protocol, or use memory without a bound: bytes, randomness and
//! time are its caller's. It needs an allocator that does not fail; an application's arena is not one.
//!
//! The protocol is rustls's, chains are verified by webpki. The cryptography is a provider cut to what Wasmbed's
//! certificates need: ECDSA P-256 with SHA-256, X25519, ChaCha20-Poly1305 (see [`provider`]).
//!
//! Files, lower first: `peer`, `error` <- `request` <- `time`, `credentials` <- `verifier` <- `session` <- `client`.
//!
//! ```text
//!            connect                receive / transmit             gateway verified
//! Client ──────────────► Session: Handshaking ──────────────────────────────────────► Up
//!                                     │ failure, close                                 │ failure, close, close_notify
//!                                     ▼                                                ▼
//!                                   Closed: transmit what is left, drop the connection
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod client;
mod credentials;
mod der;
mod error;
mod peer;
pub mod provider;
mod request;
mod session;
mod time;
mod verifier;

pub use client::Client;
pub use credentials::{Credentials, OwnId};
pub use error::{CredentialsError, Misbehavior, REASON_BYTES_MAX, TlsError};
pub use peer::Gateway;
pub use provider::{P256Key, RandomSource};
pub use request::certification_request;
pub use session::{PLAIN_BYTES_MAX, RECORD_BYTES_MAX, Session, SessionState};
pub use time::Time;
pub use wasmbed_identity as identity;
