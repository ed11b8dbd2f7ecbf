//! The provider against published vectors, and against ring.
//!
//! Vectors: Google's Wycheproof (<https://github.com/C2SP/wycheproof>), RFC 6979, RFC 8448.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use proptest::prelude::*;
use rcgen::PublicKeyData as _;
use rustls::crypto::{
    ActiveKeyExchange, SupportedKxGroup,
    cipher::{AeadKey, InboundOpaqueMessage, Iv, OutboundPlainMessage},
    hmac::Hmac,
    tls13::{Hkdf, HkdfExpander},
};
use rustls::{ContentType, ProtocolVersion, sign::SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, SignatureVerificationAlgorithm};
use wasmbed_tls::RandomSource;
use wasmbed_tls::provider::{
    EcdsaP256Sha256, HkdfSha256, HmacSha256, P256Key, Random, TLS13_CHACHA20_POLY1305_SHA256, X25519,
};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn wycheproof_ecdsa_p256_sha256() {
    let set = wycheproof::ecdsa::TestSet::load(wycheproof::ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let found = EcdsaP256Sha256.verify_signature(&group.key.key, &test.msg, &test.sig).is_ok();
            assert_eq!(found, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count > 400, "{count}");
}

struct Fixed(Vec<u8>);

impl RandomSource for Fixed {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

/// A key exchange with this private key.
fn exchange(private: &[u8]) -> Box<dyn ActiveKeyExchange> {
    let source: &'static Fixed = Box::leak(Box::new(Fixed(private.to_vec())));
    X25519(Box::leak(Box::new(Random(source)))).start().unwrap()
}

#[test]
fn wycheproof_x25519() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        match exchange(&test.private_key).complete(&test.public_key) {
            Ok(shared) => {
                assert_ne!(test.result, TestResult::Invalid, "{}: {}", test.tc_id, test.comment);
                assert_eq!(
                    shared.secret_bytes(),
                    &test.shared_secret[..],
                    "{}: {}",
                    test.tc_id,
                    test.comment
                );
                agreed += 1;
            }
            Err(_) => {
                // RFC 8446 demands it of shared secrets of zeroes, which Wycheproof leaves open.
                assert_ne!(test.result, TestResult::Valid, "{}: {}", test.tc_id, test.comment);
                let length = test.public_key.len();
                assert!(length != 32 || test.shared_secret.iter().all(|byte| *byte == 0), "{}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 10, "{agreed} {refused}");
}

#[test]
fn wycheproof_hmac_sha256() {
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let mut count = 0;
    for group in &set.test_groups {
        for test in &group.tests {
            let tag = HmacSha256.with_key(&test.key).sign(&[&test.msg]);
            let found = tag.as_ref()[..group.tag_size / 8] == test.tag[..];
            assert_eq!(found, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn wycheproof_hkdf_sha256() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut count = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let expander = HkdfSha256.extract_from_secret(Some(&test.salt), &test.ikm);
        // In two parts, as TLS gives them.
        let (first, second) = test.info.split_at(test.info.len() / 2);
        match expander.expand_slice(&[first, second], &mut okm) {
            Ok(()) => {
                assert_eq!(test.result, TestResult::Valid, "{}: {}", test.tc_id, test.comment);
                assert_eq!(okm, test.okm[..], "{}: {}", test.tc_id, test.comment);
            }
            Err(_) => assert_eq!(test.result, TestResult::Invalid, "{}: {}", test.tc_id, test.comment),
        }
        count += 1;
    }
    assert!(count > 80, "{count}");
}

/// The vectors have associated data that TLS never has, so they meet the cipher itself; its use in records is compared
/// with ring's below.
#[test]
fn wycheproof_chacha20_poly1305() {
    use chacha20poly1305::{AeadInPlace, ChaCha20Poly1305, KeyInit, Nonce, Tag};
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::ChaCha20Poly1305).unwrap();
    let mut count = 0;
    for group in set.test_groups.iter().filter(|group| group.nonce_size == 96 && group.tag_size == 128) {
        for test in &group.tests {
            let cipher = ChaCha20Poly1305::new_from_slice(&test.key).unwrap();
            let nonce = Nonce::from_slice(&test.nonce);
            let mut text = test.ct.to_vec();
            let opened = cipher
                .decrypt_in_place_detached(nonce, &test.aad, &mut text, Tag::from_slice(&test.tag))
                .is_ok();
            assert_eq!(opened, test.result == TestResult::Valid, "{}: {}", test.tc_id, test.comment);
            if opened {
                assert_eq!(text, test.pt[..]);
                let tag = cipher.encrypt_in_place_detached(nonce, &test.aad, &mut text).unwrap();
                assert_eq!((text, tag.to_vec()), (test.ct.to_vec(), test.tag.to_vec()));
            }
            count += 1;
        }
    }
    assert!(count > 250, "{count}");
}

fn pkcs8(scalar: &str, point: &str) -> PrivateKeyDer<'static> {
    let der = format!(
        "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420{scalar}a14403420004{point}"
    );
    PrivatePkcs8KeyDer::from(hex(&der)).into()
}

/// RFC 6979, appendix A.2.5.
#[test]
fn rfc_6979_p256_sha256() {
    let key = P256Key::from_der(&pkcs8(
        "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
        "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
         7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299",
    ))
    .unwrap();
    let signer = key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let expected = "3046\
        022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
        022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
    assert_eq!(signer.sign(b"sample").unwrap(), hex(expected));
    assert!(key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP384_SHA384]).is_none());
}

/// RFC 8448, section 3: its key exchange, and its key schedule as far as it does not depend on the AEAD.
#[test]
fn rfc_8448_simple_1_rtt_handshake() {
    let private = hex("49af42ba7f7994852d713ef2784bcbcaa7911de26adc5642cb634540e7ea5005");
    let server_public = hex("c9828876112095fe66762bdbf7c672e156d6cc253b833df1dd69b1b04e751f0f");
    let exchange = exchange(&private);
    assert_eq!(exchange.pub_key(), hex("99381de560e4bd43d23d8e435a7dbafeb3c06e51c13cae4d5413691e529aaf2c"));
    let shared = exchange.complete(&server_public).unwrap();
    let expected = "8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d";
    assert_eq!(shared.secret_bytes(), hex(expected));

    let empty = hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let early = HkdfSha256.extract_from_zero_ikm(None);
    let derived = expand_label(&*early, "derived", &empty);
    assert_eq!(derived, hex("6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba"));
    let handshake = HkdfSha256.extract_from_secret(Some(&derived), shared.secret_bytes());
    let hello = hex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8");
    assert_eq!(
        expand_label(&*handshake, "c hs traffic", &hello),
        hex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
    );
    assert_eq!(
        expand_label(&*handshake, "s hs traffic", &hello),
        hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    );
    let derived = expand_label(&*handshake, "derived", &empty);
    assert_eq!(derived, hex("43de77e0c77713859a944db9db2590b53190a65b3ee2e4f12dd7a0bb7ce254b4"));
    let master = HkdfSha256.extract_from_zero_ikm(Some(&derived));
    let finished = hex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13");
    assert_eq!(
        expand_label(&*master, "c ap traffic", &finished),
        hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
    );
    assert_eq!(
        expand_label(&*master, "s ap traffic", &finished),
        hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
    );
}

/// RFC 8446, section 7.1, of 32 bytes; by both ways to expand.
fn expand_label(expander: &dyn HkdfExpander, label: &str, context: &[u8]) -> Vec<u8> {
    let label = format!("tls13 {label}");
    let info: [&[u8]; 5] =
        [&[0, 32], &[label.len() as u8], label.as_bytes(), &[context.len() as u8], context];
    let block = expander.expand_block(&info).as_ref().to_vec();
    let mut slice = [0; 32];
    expander.expand_slice(&info, &mut slice).unwrap();
    assert_eq!(block, slice);
    block
}

fn both_aeads() -> [&'static dyn rustls::crypto::cipher::Tls13AeadAlgorithm; 2] {
    let ring = rustls::crypto::ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256.tls13().unwrap();
    [TLS13_CHACHA20_POLY1305_SHA256.aead_alg, ring.aead_alg]
}

/// The record as it stands on the network.
fn seal(
    aead: &dyn rustls::crypto::cipher::Tls13AeadAlgorithm,
    (key, iv, sequence): ([u8; 32], [u8; 12], u64),
    plain: &[u8],
) -> Vec<u8> {
    let message = OutboundPlainMessage {
        typ: ContentType::ApplicationData,
        version: ProtocolVersion::TLSv1_2,
        payload: plain.into(),
    };
    aead.encrypter(AeadKey::from(key), Iv::from(iv)).encrypt(message, sequence).unwrap().encode()
}

fn open(
    aead: &dyn rustls::crypto::cipher::Tls13AeadAlgorithm,
    (key, iv, sequence): ([u8; 32], [u8; 12], u64),
    record: &[u8],
) -> Result<Vec<u8>, rustls::Error> {
    let mut payload = record[5..].to_vec();
    let message =
        InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut payload);
    aead.decrypter(AeadKey::from(key), Iv::from(iv))
        .decrypt(message, sequence)
        .map(|message| message.payload.to_vec())
}

proptest! {
    #[test]
    fn records_are_ring_s(
        key: [u8; 32],
        iv: [u8; 12],
        sequence: u64,
        plain in proptest::collection::vec(any::<u8>(), 0..5_000),
        flip in any::<proptest::sample::Index>(),
    ) {
        let secret = (key, iv, sequence);
        let [ours, rings] = both_aeads();
        let record = seal(ours, secret, &plain);
        prop_assert_eq!(&record, &seal(rings, secret, &plain));
        prop_assert_eq!(&open(ours, secret, &record).unwrap(), &plain);
        let mut changed = record.clone();
        changed[5 + flip.index(record.len() - 5)] ^= 1;
        prop_assert!(open(ours, secret, &changed).is_err());
        prop_assert!(open(ours, (key, iv, sequence ^ 1), &record).is_err());
    }

    #[test]
    fn records_that_are_too_short_are_refused(length in 0usize..17) {
        let [ours, _] = both_aeads();
        let record = vec![0; 5 + length];
        prop_assert!(open(ours, ([0; 32], [0; 12], 0), &record).is_err());
    }

    #[test]
    fn ring_verifies_what_is_signed(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        let pair = rcgen::KeyPair::generate().unwrap();
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let key = P256Key::from_der(&der).unwrap();
        prop_assert!(key.belongs_to(&pair.subject_public_key_info()));
        let signer = key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
        let signature = signer.sign(&message).unwrap();
        let ring = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        let scheme = rustls::SignatureScheme::ECDSA_NISTP256_SHA256;
        let (_, algorithms) = ring.mapping.iter().find(|(known, _)| *known == scheme).unwrap();
        let public = pair.public_key_raw();
        let verified = algorithms
            .iter()
            .filter(|algorithm| algorithm.public_key_alg_id() == EcdsaP256Sha256.public_key_alg_id())
            .any(|algorithm| algorithm.verify_signature(public, &message, &signature).is_ok());
        prop_assert!(verified);
        prop_assert!(EcdsaP256Sha256.verify_signature(public, &message, &signature).is_ok());
    }
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let scalar = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721";
    let point = "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                 7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    let good = pkcs8(scalar, point);
    for (at, value) in [(5, 1), (20, 0), (26, 6), (6, 0), (0, 0x31)] {
        let mut der = good.secret_der().to_vec();
        der[at] = value;
        assert!(P256Key::from_der(&PrivatePkcs8KeyDer::from(der).into()).is_none(), "{at}");
    }
    // Not between 1 and the order of the curve.
    for scalar in ["00".repeat(32), "ff".repeat(32)] {
        assert!(P256Key::from_der(&pkcs8(&scalar, point)).is_none());
    }
    let mut longer = good.secret_der().to_vec();
    longer.push(0);
    assert!(P256Key::from_der(&PrivatePkcs8KeyDer::from(longer).into()).is_none());
}
