//! The device protocol `wasmbed/1`: frames, messages and their deterministic CBOR form, for gateways and devices alike.
//!
//! It may not allocate, do I/O, keep time or know Kubernetes. The normative text is `wasmbed.cddl` beside this crate.
//!
//! ```
//! use wasmbed_protocol::{
//!     DeviceMessage, Frames, Heartbeat, Sequence, decode_device, encode_device, limits::FRAME_BYTES_MAX,
//! };
//!
//! let sent = DeviceMessage::Heartbeat(Heartbeat {
//!     sequence: Sequence(7),
//!     uptime_ms: 61_000,
//!     memory_used_bytes: 65_536,
//!     cpu_ms: 120,
//! });
//! let mut buffer = [0; FRAME_BYTES_MAX];
//! let length = encode_device(&sent, &mut buffer)?;
//!
//! // What arrives is split into frames; the last one may not be there as a whole yet.
//! let mut frames = Frames::new(&buffer[..length]);
//! let body = frames.next().expect("a whole frame arrived")?;
//! assert_eq!(decode_device(body)?, sent);
//! assert_eq!((frames.next(), frames.consumed()), (None, length));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod cddl;
mod codec;
mod enumeration;
mod error;
mod error_code;
mod field;
mod frame;
mod ids;
pub mod limits;
mod list;
mod message;
pub mod rate;
mod reader;
mod setting_value;
mod settings;
mod text;
mod trace;

pub use codec::{
    decode_device, decode_gateway, decode_setting_values, decode_spec, encode_device, encode_gateway,
    encode_join_statement, encode_setting_values, encode_spec, tag,
};
pub use error::{DecodeError, DecodeFault, EncodeError, FrameError, Violation};
pub use frame::{FRAME_HEAD_BYTES, Frames, frame_length};
pub use ids::*;
pub use list::{Item, List};
pub use message::*;
pub use setting_value::SettingValue;
pub use settings::{SCHEMA_SECTION, Schema, SchemaError, SchemaFault, SettingSchema, SettingType};
pub use text::Harmless;
pub use trace::show_frames;

/// The ALPN name (RFC 7301); its number is the protocol's major version.
pub const ALPN: &[u8] = b"wasmbed/1";
