//! Who a device is. The handshake that would prove it is not simulated; what stands for its key has the form of one.

use wasmbed_protocol::KeyHash;

/// Stands for the `SubjectPublicKeyInfo` of the device of this name.
pub(crate) fn public_key_info(name: &str) -> Vec<u8> {
    format!("{name:-<60}").into_bytes()
}

/// Its key.
pub(crate) fn key_of(name: &str) -> KeyHash {
    KeyHash::of(&public_key_info(name))
}

/// The id in its certificate.
pub(crate) fn id_of(name: &str) -> String {
    format!("spiffe://memory/ns/default/device/{name}")
}
