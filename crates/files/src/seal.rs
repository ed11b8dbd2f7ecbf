//! Encryption of values in databases, and the files of keys for it.
//!
//! A value is a mark, the id of the key, 24 random bytes, and the bytes under XChaCha20-Poly1305 with the name in the database as
//! associated data, so that a value can't be moved to another name. What has no mark is not encrypted.
//!
//! Keys are in a file of their own: whoever has a copy of the database without it reads no value. The first one encrypts; the
//! others decrypt what was written before the first one was added.

use std::{borrow::Cow, io, path::Path};

use chacha20poly1305::aead::{Aead as _, AeadCore as _, KeyInit as _, OsRng, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

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
        error: io::Error,
    },
    /// Its content is none.
    #[error(
        "encryption keys {path}: each line must be a key of 64 hexadecimal digits, and there must be 1 to {KEYS_MAX}"
    )]
    Content {
        /// The file.
        path: String,
    },
    /// What is encrypted already is so under a key that the file does not have.
    #[error(
        "encryption keys {path}: the Secrets in the store are encrypted under another key; restore the file that was used before"
    )]
    Lost {
        /// The file.
        path: String,
    },
}

/// Why a value can't be encrypted or decrypted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is longer than the cipher takes.
    #[error("{0} can't be encrypted")]
    TooLong(String),
    /// It was changed, or belongs to another name.
    #[error("{0} can't be decrypted: it is damaged")]
    Damaged(String),
    /// The file of keys lacks its key.
    #[error("{0} is encrypted under a key that is not in the file of keys")]
    OtherKey(String),
}

/// A key of a file: 32 bytes that are in no output and are erased.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataKey")
    }
}

impl DataKey {
    /// The first key of a file.
    ///
    /// # Errors
    /// The file can't be read or holds no keys.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut keys = read_keys(path)?;
        Ok(keys.swap_remove(0))
    }

    /// Makes a file with a new key, of mode 0600, if there is none.
    ///
    /// # Errors
    /// It can't be made.
    pub fn provide(path: &Path) -> Result<(), KeyFileError> {
        let failed = |error| KeyFileError::File { path: path.display().to_string(), error };
        if path.try_exists().map_err(failed)? {
            return Ok(());
        }
        let key = Zeroizing::new(<[u8; KEY_BYTES]>::from(XChaCha20Poly1305::generate_key(&mut OsRng)));
        let text: String = key.iter().map(|byte| format!("{byte:02x}")).chain(["\n".into()]).collect();
        crate::write_private(path, Zeroizing::new(text).as_bytes()).map_err(failed)
    }

    /// Its bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// As a line of the file.
    fn parse(line: &str) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if line.len() != 2 * KEY_BYTES || !line.is_ascii() {
            return None;
        }
        for (index, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&line[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Self(key))
    }
}

/// The keys of a file: 1 to [`KEYS_MAX`].
fn read_keys(path: &Path) -> Result<Vec<DataKey>, KeyFileError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| KeyFileError::File { path: shown(), error })?;
    let text = Zeroizing::new(text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let keys: Option<Vec<DataKey>> = lines.map(DataKey::parse).collect();
    let keys = keys.filter(|keys| (1..=KEYS_MAX).contains(&keys.len()));
    keys.ok_or_else(|| KeyFileError::Content { path: shown() })
}

/// Encrypts and decrypts values.
pub struct Sealer {
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
    fn new(key: &DataKey) -> SealingKey {
        let mut id = [0; ID_BYTES];
        let digest =
            Sha256::new().chain_update("wasmbed encryption key").chain_update(key.expose()).finalize();
        id.copy_from_slice(&digest[..ID_BYTES]);
        SealingKey { id, cipher: XChaCha20Poly1305::new(Key::from_slice(key.expose())) }
    }
}

impl Sealer {
    /// Reads the keys. Without a file, one with a new key is made, unless `known` says that something is encrypted already:
    /// the id of the key that was used.
    ///
    /// # Errors
    /// The file can't be read or made, or lacks that key.
    pub fn open(path: &Path, known: Option<u64>) -> Result<Sealer, KeyFileError> {
        if known.is_none() {
            DataKey::provide(path)?;
        }
        let sealer = Sealer::read(path)?;
        if known.is_some_and(|id| !sealer.keys.iter().any(|key| u64::from_be_bytes(key.id) == id)) {
            return Err(KeyFileError::Lost { path: path.display().to_string() });
        }
        Ok(sealer)
    }

    /// Reads the keys of a file that has to be there.
    ///
    /// # Errors
    /// The file can't be read or holds no keys.
    pub fn read(path: &Path) -> Result<Sealer, KeyFileError> {
        Ok(Sealer { keys: read_keys(path)?.iter().map(SealingKey::new).collect() })
    }

    /// The id of the key that encrypts.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.keys.first().map_or(0, |key| u64::from_be_bytes(key.id))
    }

    /// The bytes to store.
    ///
    /// # Errors
    /// The value is too long for the cipher.
    pub fn seal(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let failed = || SealError::TooLong(name.to_owned());
        let key = self.keys.first().ok_or_else(failed)?;
        let nonce = XChaCha20Poly1305::generate_nonce(&mut OsRng);
        let sealed = key.cipher.encrypt(&nonce, Payload { msg: value, aad: name.as_bytes() });
        let mut bytes = vec![MARK];
        bytes.extend_from_slice(&key.id);
        bytes.extend_from_slice(&nonce);
        bytes.append(&mut sealed.map_err(|_| failed())?);
        Ok(bytes)
    }

    /// The value that was stored.
    ///
    /// # Errors
    /// It is damaged, belongs to another name, or is encrypted under a key that the file lacks.
    pub fn unseal<'a>(&self, name: &str, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, SealError> {
        if !is_sealed(stored) {
            return Ok(stored.into());
        }
        let damaged = || SealError::Damaged(name.to_owned());
        let (head, sealed) = stored.split_at_checked(HEAD_BYTES).ok_or_else(damaged)?;
        let (id, nonce) = head[1..].split_at(ID_BYTES);
        let Some(key) = self.keys.iter().find(|key| key.id == id) else {
            return Err(SealError::OtherKey(name.to_owned()));
        };
        let sealed = Payload { msg: sealed, aad: name.as_bytes() };
        let value = key.cipher.decrypt(XNonce::from_slice(nonce), sealed);
        Ok(value.map_err(|_| damaged())?.into())
    }
}

/// Whether what was stored is encrypted.
#[must_use]
pub fn is_sealed(stored: &[u8]) -> bool {
    stored.first() == Some(&MARK)
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
        let sealed = sealer.seal(NAME, OBJECT).unwrap();
        assert!(!sealed.windows(4).any(|window| OBJECT.windows(4).any(|plain| plain == window)));
        assert_eq!(&*sealer.unseal(NAME, &sealed).unwrap(), OBJECT);
        assert!(sealer.unseal("/secrets/default/other", &sealed).is_err());
        assert_ne!(sealer.seal(NAME, OBJECT).unwrap(), sealed, "each time with other random bytes");
        // Without its mark it is no object: JSON begins otherwise.
        for index in 1..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[index] ^= 1;
            assert!(sealer.unseal(NAME, &damaged).is_err(), "byte {index}");
        }
        assert!(sealer.unseal(NAME, &sealed[..20]).is_err());
    }

    #[test]
    fn what_is_not_encrypted_is_read_as_it_is() {
        let folder = folder();
        let sealer = Sealer::open(&folder.path().join("keys"), None).unwrap();
        assert_eq!(&*sealer.unseal(NAME, OBJECT).unwrap(), OBJECT);
    }

    #[test]
    fn a_key_is_shown_nowhere() {
        let folder = folder();
        let path = folder.path().join("keys");
        std::fs::write(&path, line('a')).unwrap();
        let key = DataKey::read(&path).unwrap();
        assert_eq!(key.expose(), &[0xaa; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "DataKey");
        DataKey::provide(&path).unwrap();
        assert_eq!(DataKey::read(&path).unwrap(), key, "a file that is there is left as it is");
        assert!(matches!(DataKey::read(&folder.path().join("none")), Err(KeyFileError::File { .. })));
    }

    #[test]
    fn a_key_is_replaced_by_one_before_it() {
        let folder = folder();
        let path = folder.path().join("keys");
        std::fs::write(&path, line('1')).unwrap();
        let before = Sealer::open(&path, None).unwrap();
        let sealed = before.seal(NAME, OBJECT).unwrap();
        std::fs::write(&path, line('2') + &line('1')).unwrap();
        let after = Sealer::open(&path, Some(before.id())).unwrap();
        assert_ne!(after.id(), before.id());
        assert_eq!(&*after.unseal(NAME, &sealed).unwrap(), OBJECT);
        let again = after.seal(NAME, OBJECT).unwrap();
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
