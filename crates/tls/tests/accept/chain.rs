//! A chain as a gateway sends it to a device that asked for a certificate, for the device beside this file. Shared by the fuzz
//! target and the test that replays its corpus.

use std::sync::OnceLock;

use wasmbed_tls::{Credentials, CredentialsError, OwnId, P256Key};

/// Panics if a chain is taken that is none.
pub fn accept(bytes: &[u8]) -> Result<(), CredentialsError> {
    static KEY: OnceLock<P256Key> = OnceLock::new();
    let key =
        KEY.get_or_init(|| P256Key::from_pkcs8(include_bytes!("device.key.der")).expect("the file is a key"));
    let credentials = Credentials::device_of_bytes(bytes, key)?;
    assert!(matches!(credentials.id(), OwnId::Device(_)));
    // It is of certificates and nothing else.
    for length in [bytes.len() - 1, bytes.len() / 2] {
        let cut = Credentials::device_of_bytes(&bytes[..length], key);
        assert!(cut.is_err() || length <= bytes.len() / 2, "a chain without its last byte is none");
    }
    let doubled = [bytes, &bytes[..1]].concat();
    assert!(Credentials::device_of_bytes(&doubled, key).is_err(), "a chain with a byte more is none");
    Ok(())
}
