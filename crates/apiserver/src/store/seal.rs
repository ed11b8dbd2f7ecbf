//! Encryption of Secrets in the file: which objects are encrypted. How, and where the keys are, is [`Sealer`]'s.

use std::borrow::Cow;

use wasmbed_files::Sealer;

use super::storage::StorageError;

/// Names in the store of what is encrypted begin with this: Secrets.
pub(super) const ENCRYPTED: &str = "/secrets/";

/// The bytes to store; `None` if the object is stored as it is.
pub(super) fn seal(sealer: &Sealer, name: &str, object: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    if !name.starts_with(ENCRYPTED) {
        return Ok(None);
    }
    sealer.seal(name, object).map(Some).map_err(|error| StorageError::Failed(error.to_string()))
}

/// The object that was stored.
pub(super) fn unseal<'a>(
    sealer: &Sealer,
    name: &str,
    stored: &'a [u8],
) -> Result<Cow<'a, [u8]>, StorageError> {
    sealer.unseal(name, stored).map_err(|error| StorageError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_are_stored_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(&folder.path().join("keys"), None).unwrap();
        let object = br#"{"data":{"a":"c2VjcmV0"}}"#;
        assert_eq!(seal(&sealer, "/events/default/e", object).unwrap(), None);
        assert_eq!(&*unseal(&sealer, "/events/default/e", object).unwrap(), object);
        let sealed = seal(&sealer, "/secrets/default/s", object).unwrap().unwrap();
        assert_eq!(&*unseal(&sealer, "/secrets/default/s", &sealed).unwrap(), object);
    }
}
