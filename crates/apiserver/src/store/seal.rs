//! Encryption of Secrets in the file.
//!
//! A value is a mark, the id of the key, 24 random bytes, and the object under XChaCha20-Poly1305 with the name in the store as
//! associated data, so that a value can't be moved to another name. What has no mark is not encrypted.
//!
//! Keys are in a file of their own: whoever has a copy of the store without it reads no Secret. The first one encrypts; the
//! others decrypt what was written before the first one was added.

use std::path::Path;

use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};

use super::storage::StorageError;

/// Names in the store of what is encrypted begin with this: Secrets.
pub(super) const ENCRYPTED: &str = "/secrets/";
/// First byte of an encrypted value. JSON can't begin with it.
const MARK: u8 = 1;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const HEAD_BYTES: usize = 1 + ID_BYTES + NONCE_BYTES;
const KEY_BYTES: usize = 32;
/// Keys in a file.
const KEYS_MAX: usize = 16;

/// Why the file of keys can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It can't be read or made.
    #[error("encryption keys {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: std::io::Error,
    },
    /// Its content is none.
    #[error(
        "encryption keys {path}: each line must be a key of 64 hexadecimal digits, and there must be 1 to {KEYS_MAX}"
    )]
    Content {
        /// The file.
        path: String,
    },
    /// The store was written under a key that the file does not have.
    #[error(
        "encryption keys {path}: the Secrets in the store are encrypted under another key; restore the file that was used before"
    )]
    Lost {
        /// The file.
        path: String,
    },
}

/// Encrypts and decrypts values.
pub(super) struct Sealer {
    keys: Vec<SealingKey>,
}

struct SealingKey {
    id: [u8; ID_BYTES],
    cipher: XChaCha20Poly1305,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("keys", &self.keys.len()).finish()
    }
}

impl SealingKey {
    fn new(key: &[u8; KEY_BYTES]) -> SealingKey {
        let mut id = [0; ID_BYTES];
        let digest = Sha256::new().chain_update("wasmbed encryption key").chain_update(key).finalize();
        id.copy_from_slice(&digest[..ID_BYTES]);
        SealingKey { id, cipher: XChaCha20Poly1305::new(&Key::from(*key)) }
    }

    /// As a line of the file.
    fn parse(line: &str) -> Option<SealingKey> {
        let mut key = [0; KEY_BYTES];
        if line.len() != 2 * KEY_BYTES || !line.is_ascii() {
            return None;
        }
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&line[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(SealingKey::new(&key))
    }
}

impl Sealer {
    /// Reads the keys. Without a file, one with a new key is made, unless `known` says that something is encrypted already:
    /// the id of the key that was used.
    pub(super) fn open(path: &Path, known: Option<u64>) -> Result<Sealer, KeyFileError> {
        let shown = || path.display().to_string();
        let failed = |error| KeyFileError::File { path: shown(), error };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && known.is_none() => {
                let key = XChaCha20Poly1305::generate_key(&mut OsRng);
                let text: String =
                    key.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect();
                wasmbed_files::write_private(path, text.as_bytes()).map_err(failed)?;
                text
            }
            Err(error) => return Err(failed(error)),
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<SealingKey>> = lines.map(SealingKey::parse).collect();
        let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()));
        let sealer = Sealer { keys: keys.ok_or_else(|| KeyFileError::Content { path: shown() })? };
        if known.is_some_and(|id| !sealer.keys.iter().any(|key| u64::from_be_bytes(key.id) == id)) {
            return Err(KeyFileError::Lost { path: shown() });
        }
        Ok(sealer)
    }

    /// The id of the key that encrypts.
    pub(super) fn id(&self) -> u64 {
        self.keys.first().map_or(0, |key| u64::from_be_bytes(key.id))
    }

    /// The bytes to store; `None` if the object is stored as it is.
    pub(super) fn seal(&self, name: &str, object: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        if !name.starts_with(ENCRYPTED) {
            return Ok(None);
        }
        let failed = || StorageError::Failed("a Secret can't be encrypted".into());
        let key = self.keys.first().ok_or_else(failed)?;
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let sealed = key.cipher.encrypt(&nonce, Payload { msg: object, aad: name.as_bytes() });
        let mut bytes = vec![MARK];
        bytes.extend_from_slice(&key.id);
        bytes.extend_from_slice(&nonce);
        bytes.append(&mut sealed.map_err(|_| failed())?);
        Ok(Some(bytes))
    }

    /// The object that was stored.
    pub(super) fn unseal<'a>(
        &self,
        name: &str,
        stored: &'a [u8],
    ) -> Result<std::borrow::Cow<'a, [u8]>, StorageError> {
        if stored.first() != Some(&MARK) {
            return Ok(stored.into());
        }
        let damaged = || StorageError::Failed(format!("{name} can't be decrypted: it is damaged"));
        let (head, sealed) = stored.split_at_checked(HEAD_BYTES).ok_or_else(damaged)?;
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        let Some(key) = self.keys.iter().find(|key| key.id == id) else {
            return Err(StorageError::Failed(format!(
                "{name} is encrypted under a key that is not in the file of keys"
            )));
        };
        let sealed = Payload { msg: sealed, aad: name.as_bytes() };
        let object = key.cipher.decrypt(XNonce::from_slice(nonce), sealed);
        Ok(object.map_err(|_| damaged())?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "/secrets/default/token";
    const OBJECT: &[u8] = br#"{"data":{"a":"c2VjcmV0"}}"#;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn line(digit: char) -> String {
        format!("{}\n", String::from(digit).repeat(2 * KEY_BYTES))
    }

    #[test]
    fn a_secret_comes_back_under_its_own_name_alone() {
        let folder = folder();
        let sealer = Sealer::open(&folder.path().join("keys"), None).unwrap();
        let sealed = sealer.seal(NAME, OBJECT).unwrap().unwrap();
        assert!(!sealed.windows(4).any(|window| OBJECT.windows(4).any(|plain| plain == window)));
        assert_eq!(&*sealer.unseal(NAME, &sealed).unwrap(), OBJECT);
        assert!(sealer.unseal("/secrets/default/other", &sealed).is_err());
        assert_ne!(sealer.seal(NAME, OBJECT).unwrap().unwrap(), sealed, "each time with other random bytes");
        // Without its mark it is no object: JSON begins otherwise.
        for index in 1..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(sealer.unseal(NAME, &damaged).is_err(), "byte {index}");
        }
        assert!(sealer.unseal(NAME, &sealed[..20]).is_err());
    }

    #[test]
    fn other_kinds_are_stored_as_they_are() {
        let folder = folder();
        let sealer = Sealer::open(&folder.path().join("keys"), None).unwrap();
        assert_eq!(sealer.seal("/events/default/e", OBJECT).unwrap(), None);
        assert_eq!(&*sealer.unseal("/events/default/e", OBJECT).unwrap(), OBJECT);
    }

    #[test]
    fn a_key_is_replaced_by_one_before_it() {
        let folder = folder();
        let path = folder.path().join("keys");
        std::fs::write(&path, line('1')).unwrap();
        let before = Sealer::open(&path, None).unwrap();
        let sealed = before.seal(NAME, OBJECT).unwrap().unwrap();
        std::fs::write(&path, line('2') + &line('1')).unwrap();
        let after = Sealer::open(&path, Some(before.id())).unwrap();
        assert_ne!(after.id(), before.id());
        assert_eq!(&*after.unseal(NAME, &sealed).unwrap(), OBJECT);
        let again = after.seal(NAME, OBJECT).unwrap().unwrap();
        assert!(before.unseal(NAME, &again).unwrap_err().to_string().contains("not in the file of keys"));
    }

    #[test]
    fn a_lost_or_wrong_file_is_refused_and_nothing_is_made_in_its_place() {
        let folder = folder();
        let path = folder.path().join("keys");
        let known = Sealer::open(&path, None).unwrap().id();
        assert!(Sealer::open(&path, Some(known)).is_ok(), "the file that was made is read again");
        std::fs::write(&path, line('3')).unwrap();
        assert!(matches!(Sealer::open(&path, Some(known)), Err(KeyFileError::Lost { .. })));
        for wrong in ["", "abc\n", &line('g'), &line('1').repeat(KEYS_MAX + 1)] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Sealer::open(&path, None), Err(KeyFileError::Content { .. })), "{wrong}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Sealer::open(&path, Some(known)), Err(KeyFileError::File { .. })));
        assert!(!path.exists());
    }
}
