//! The device protocol `wasmbed/1`: frames, messages and their deterministic CBOR form, for gateways and devices alike.
//!
//! It may not allocate, do I/O, keep time or know Kubernetes. The normative text is `wasmbed.cddl` beside this crate.

#![no_std]
#![forbid(unsafe_code)]

mod enumeration;
mod ids;
pub mod limits;
mod list;
mod message;

pub use ids::*;
pub use list::{Item, List};
pub use message::*;

/// The ALPN name (RFC 7301); its number is the protocol's major version.
pub const ALPN: &[u8] = b"wasmbed/1";
