//! HMAC-SHA256 (RFC 2104) and HKDF (RFC 5869), whose states are overwritten when they are dropped.
//!
//! They are built on SHA-256's compression function: the `sha2` that p256 0.13 brings does not overwrite its state, and
//! what rustls has for providers without an HKDF leaves the pseudo-random key on the heap. The generation after it was
//! tried: `sha2` 0.11 does overwrite its state, but `hmac` 0.13 leaves the padded key on the stack, and with p256 0.14 the
//! image of mps2-an385 grows by 18,956 bytes (3.2 %).

use alloc::boxed::Box;

use rustls::crypto::{
    hmac::{Hmac, Key, Tag},
    tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError},
};
use sha2::digest::generic_array::GenericArray;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const BLOCK_BYTES: usize = 64;
const HASH_BYTES: usize = 32;
/// FIPS 180-4, section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

type Digest = Zeroizing<[u8; HASH_BYTES]>;

/// A hash of secrets.
#[derive(Zeroize, ZeroizeOnDrop)]
struct State {
    words: [u32; 8],
    block: [u8; BLOCK_BYTES],
    /// Bytes of `block` that are filled, fewer than all.
    filled: usize,
    /// Bytes that went in.
    total: u64,
}

impl State {
    fn new() -> Self {
        Self::after(INITIAL, 0)
    }

    /// After `total` bytes, whole blocks of them.
    fn after(words: [u32; 8], total: u64) -> Self {
        Self { words, block: [0; BLOCK_BYTES], filled: 0, total }
    }

    fn update(&mut self, mut data: &[u8]) {
        self.total += data.len() as u64;
        while !data.is_empty() {
            let (now, later) = data.split_at(data.len().min(BLOCK_BYTES - self.filled));
            self.block[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            data = later;
            if self.filled == BLOCK_BYTES {
                self.compress();
            }
        }
    }

    fn compress(&mut self) {
        let block = GenericArray::from_slice(&self.block);
        sha2::compress256(&mut self.words, core::slice::from_ref(block));
        self.filled = 0;
    }

    fn finish(mut self) -> Digest {
        let bits = self.total * 8;
        self.update(&[0x80]);
        if self.filled > BLOCK_BYTES - 8 {
            self.block[self.filled..].fill(0);
            self.compress();
        }
        self.block[self.filled..BLOCK_BYTES - 8].fill(0);
        self.block[BLOCK_BYTES - 8..].copy_from_slice(&bits.to_be_bytes());
        self.compress();
        let mut digest = Digest::default();
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

/// The states after the key's inner and outer block.
#[derive(Zeroize, ZeroizeOnDrop)]
struct HmacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl HmacKey {
    fn new(key: &[u8]) -> Self {
        let mut block = Zeroizing::new([0; BLOCK_BYTES]);
        if key.len() > BLOCK_BYTES {
            let mut state = State::new();
            state.update(key);
            block[..HASH_BYTES].copy_from_slice(&*state.finish());
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let keyed = |pad: u8| {
            let mut state = State::new();
            let mut padded = Zeroizing::new(*block);
            padded.iter_mut().for_each(|byte| *byte ^= pad);
            state.update(&*padded);
            state.words
        };
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    fn sign<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut state = State::after(self.inner, BLOCK_BYTES as u64);
        parts.into_iter().for_each(|part| state.update(part));
        let inner = state.finish();
        let mut state = State::after(self.outer, BLOCK_BYTES as u64);
        state.update(&*inner);
        state.finish()
    }
}

impl Key for HmacKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> Tag {
        let middle = middle.iter().copied();
        Tag::new(&*self.sign(core::iter::once(first).chain(middle).chain(core::iter::once(last))))
    }

    fn tag_len(&self) -> usize {
        HASH_BYTES
    }
}

/// HMAC-SHA256.
#[derive(Clone, Copy, Debug)]
pub struct HmacSha256;

impl Hmac for HmacSha256 {
    fn with_key(&self, key: &[u8]) -> Box<dyn Key> {
        Box::new(HmacKey::new(key))
    }

    fn hash_output_len(&self) -> usize {
        HASH_BYTES
    }
}

/// HKDF-SHA256.
#[derive(Clone, Copy, Debug)]
pub struct HkdfSha256;

impl Hkdf for HkdfSha256 {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        self.extract_from_secret(salt, &[0; HASH_BYTES])
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        // A key of zeroes and none at all are the same to HMAC.
        let extracted = HmacKey::new(salt.unwrap_or_default()).sign([secret]);
        Box::new(Expander(HmacKey::new(&*extracted)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(HmacKey::new(okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        Tag::new(&*HmacKey::new(key.as_ref()).sign([message]))
    }
}

struct Expander(HmacKey);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > 255 * HASH_BYTES {
            return Err(OutputLengthError);
        }
        let mut term = Digest::default();
        for (counter, chunk) in (1..=255).zip(output.chunks_mut(HASH_BYTES)) {
            let before: &[u8] = if counter == 1 { &[] } else { &*term };
            let counter = [counter];
            let parts = core::iter::once(before).chain(info.iter().copied()).chain([&counter[..]]);
            let next = self.0.sign(parts);
            chunk.copy_from_slice(&next[..chunk.len()]);
            term = next;
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(&*self.0.sign(info.iter().copied().chain([&[1][..]])))
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }
}
