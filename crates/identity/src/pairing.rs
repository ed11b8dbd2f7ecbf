//! Pairing tokens: what a person types into a device that has no factory identity.

use core::{fmt, str::FromStr};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use thiserror::Error;
use zeroize::Zeroizing;

/// What the pairing key is derived for.
const CONTEXT: &[u8] = b"wasmbed-pairing-1";
/// What SHA-256 works on at once (FIPS 180-4).
const SHA256_BLOCK_BYTES: usize = 64;

/// One Device's token, `ID.SECRET`: 8 and 32 hex digits. The id is no secret; the 128 bits after it are, and overwrite themselves.
pub struct PairingToken {
    id: [u8; PairingToken::ID_BYTES],
    secret: Zeroizing<[u8; PairingToken::SECRET_BYTES]>,
}

impl PairingToken {
    /// Bytes that name a token.
    pub const ID_BYTES: usize = 4;
    /// Bytes that have to be random.
    pub const SECRET_BYTES: usize = 16;

    /// A token of random bytes.
    #[must_use]
    pub fn new(id: [u8; Self::ID_BYTES], secret: [u8; Self::SECRET_BYTES]) -> Self {
        Self { id, secret: Zeroizing::new(secret) }
    }

    /// Its id as a Device and its Secret name it: 8 hex digits.
    pub fn id(&self) -> impl fmt::Display + use<> {
        let id = self.id;
        fmt::from_fn(move |f| write_hex(f, &id))
    }

    /// Whether a text is an id as [`PairingToken::id`] shows it.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == Self::ID_BYTES * 2 && text.bytes().all(digit)
    }

    /// The token as it is typed. Whoever reads it can join as that Device.
    pub fn reveal(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            write_hex(f, &self.id)?;
            f.write_str(".")?;
            write_hex(f, &*self.secret)
        })
    }

    /// The key of its join proofs.
    #[must_use]
    pub fn key(&self) -> PairingKey {
        // HKDF (RFC 5869) of one block: no salt, so that the key follows from the token alone.
        let extracted = Zeroizing::new(mac(&[0; 32], &[&*self.secret]));
        PairingKey(Zeroizing::new(mac(&extracted, &[CONTEXT, &[1]])))
    }
}

impl FromStr for PairingToken {
    type Err = PairingTokenError;

    fn from_str(text: &str) -> Result<Self, PairingTokenError> {
        let (id, secret) = text.trim().split_once('.').ok_or(PairingTokenError)?;
        let mut token = Self::new([0; Self::ID_BYTES], [0; Self::SECRET_BYTES]);
        read_hex(id, &mut token.id).ok_or(PairingTokenError)?;
        read_hex(secret, &mut *token.secret).ok_or(PairingTokenError)?;
        Ok(token)
    }
}

impl fmt::Debug for PairingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingToken({}..)", self.id())
    }
}

/// What is kept of a token on the side that checks: as secret as the token itself. It overwrites itself.
#[derive(Clone)]
pub struct PairingKey(Zeroizing<[u8; 32]>);

impl PairingKey {
    /// A key that was kept; none if it has not 32 bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The bytes to keep.
    #[must_use]
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    /// The proof over a join statement: HMAC-SHA-256 (RFC 2104).
    #[must_use]
    pub fn prove(&self, statement: &[u8]) -> [u8; 32] {
        mac(&self.0, &[statement])
    }

    /// Whether a proof is over this statement, in a time that tells nothing of the proof that would be right.
    #[must_use]
    pub fn proves(&self, statement: &[u8], proof: &[u8]) -> bool {
        keyed(&self.0).chain_update(statement).verify_slice(proof).is_ok()
    }
}

impl fmt::Debug for PairingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PairingKey(..)")
    }
}

fn keyed(key: &[u8; 32]) -> Hmac<Sha256> {
    // A block's length of key, zeros behind the 32 bytes, is the same key, and has no length that could be refused.
    let mut block = Zeroizing::new([0; SHA256_BLOCK_BYTES]);
    block[..key.len()].copy_from_slice(key);
    Hmac::new((&*block).into())
}

fn mac(key: &[u8; 32], message: &[&[u8]]) -> [u8; 32] {
    let parts = message.iter().fold(keyed(key), |mac, part| mac.chain_update(part));
    parts.finalize().into_bytes().into()
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Exactly these bytes of hex, in either case.
fn read_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let digits = text.as_bytes();
    if digits.len() != out.len() * 2 {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |index: usize| pair.get(index).and_then(|digit| (*digit as char).to_digit(16));
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(())
}

/// A text is no pairing token. It is not repeated: it may be one with a slip of the hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a pairing token is 8 hex digits, a dot and 32 hex digits")]
pub struct PairingTokenError;

#[cfg(test)]
mod tests {
    use std::{format, string::ToString as _};

    use super::*;

    const TEXT: &str = "0a1b2c3d.000102030405060708090a0b0c0d0e0f";

    #[test]
    fn a_token_is_read_as_it_is_shown() {
        let token: PairingToken = TEXT.parse().unwrap();
        assert_eq!(token.reveal().to_string(), TEXT);
        assert_eq!(token.id().to_string(), "0a1b2c3d");
        assert!(PairingToken::is_id("0a1b2c3d"));
        for text in ["", "0a1b2c3", "0a1b2c3d0", "0A1B2C3D", "0a1b2c3g", "../0a1b2", "0a1b2c3\u{e9}"] {
            assert!(!PairingToken::is_id(text), "{text}");
        }
        assert_eq!(
            format!("\n{} ", TEXT.to_uppercase()).parse::<PairingToken>().unwrap().reveal().to_string(),
            TEXT
        );
        assert_eq!(format!("{token:?} {:?}", token.key()), "PairingToken(0a1b2c3d..) PairingKey(..)");
        for text in
            ["", ".", "0a1b2c3d", &TEXT[1..], &TEXT[..40], &format!("{TEXT}0"), &TEXT.replace('f', "g")]
        {
            assert!(text.parse::<PairingToken>().is_err(), "{text}");
        }
    }

    /// Computed with Python's `hmac`: `hmac(hmac(zeros, secret), context + b"\1")`.
    #[test]
    fn the_key_is_derived_as_rfc_5869_says() {
        let token: PairingToken = TEXT.parse().unwrap();
        let hex = |bytes: &[u8]| fmt::from_fn(|f| write_hex(f, bytes)).to_string();
        assert_eq!(
            hex(token.key().reveal()),
            "091991f7b7655de1bbf546383d8029831f5d21a9a6c210b27c86667ea6517cff"
        );
        assert_eq!(
            hex(&token.key().prove(b"statement")),
            "dbaf0da6c4fd4a55d3906e7a4e7479da0e00c9106ecbec6f1254896ca5f6288b"
        );
    }

    #[test]
    fn a_proof_holds_for_its_statement_alone() {
        let key = TEXT.parse::<PairingToken>().unwrap().key();
        let proof = key.prove(b"one");
        assert!(key.proves(b"one", &proof));
        assert!(!key.proves(b"two", &proof));
        assert!(!key.proves(b"one", &proof[..31]));
        assert!(!key.proves(b"one", &[]));
        assert!(!PairingKey::from_bytes(&[0; 32]).unwrap().proves(b"one", &proof));
        assert!(PairingKey::from_bytes(&[0; 31]).is_none());
    }
}
