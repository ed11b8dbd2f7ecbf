//! ChaCha20-Poly1305 (RFC 8439) on TLS 1.3 records (RFC 8446, section 5.2).

use alloc::boxed::Box;

use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305 as Cipher, KeyInit};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion,
    crypto::cipher::{
        AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
        OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
        UnsupportedOperationError, make_tls13_aad,
    },
};

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// The AEAD of the one cipher suite.
#[derive(Clone, Copy, Debug)]
pub struct ChaCha20Poly1305;

impl Tls13AeadAlgorithm for ChaCha20Poly1305 {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Direction { cipher: cipher(&key), iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Direction { cipher: cipher(&key), iv })
    }

    fn key_len(&self) -> usize {
        KEY_BYTES
    }

    fn extract_keys(
        &self,
        _key: AeadKey,
        _iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

fn cipher(key: &AeadKey) -> Cipher {
    // rustls makes keys of `key_len` bytes.
    Cipher::new(chacha20poly1305::Key::from_slice(&key.as_ref()[..KEY_BYTES]))
}

/// One direction of a connection. The cipher overwrites its key when it is dropped.
struct Direction {
    cipher: Cipher,
    iv: Iv,
}

impl MessageEncrypter for Direction {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let total = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(total);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        let nonce = Nonce::new(&self.iv, sequence).0;
        let tag = self
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &make_tls13_aad(total), payload.as_mut())
            .map_err(|_| Error::EncryptError)?;
        payload.extend_from_slice(&tag);
        // RFC 8446, section 5.2: the outer version is TLS 1.2's.
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload: usize) -> usize {
        payload + 1 + TAG_BYTES
    }
}

impl MessageDecrypter for Direction {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let aad = make_tls13_aad(message.payload.len());
        let nonce = Nonce::new(&self.iv, sequence).0;
        let (sealed, tag) = message.payload.split_last_chunk_mut::<TAG_BYTES>().ok_or(Error::DecryptError)?;
        self.cipher
            .decrypt_in_place_detached(&nonce.into(), &aad, sealed, &(*tag).into())
            .map_err(|_| Error::DecryptError)?;
        let length = sealed.len();
        message.payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}
