//! Statements beside those of `coset`, and what is refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::LazyLock;

use coset::{
    CborSerializable as _, CoseSign1, CoseSign1Builder, HeaderBuilder, Label, TaggedCborSerializable as _,
    cbor::Value, iana,
};
use p256::ecdsa::{
    DerSignature, Signature, SigningKey, VerifyingKey,
    signature::{Signer as _, Verifier as _},
};
use proptest::prelude::*;
use wasmbed_protocol::{DeviceUid, Nonce};
use wasmbed_statement::{
    CERTIFICATES_MAX, Erased, ORDER_CONTENT_TYPE, Order, PROOF_CONTENT_TYPE, Proof, SignError, SignedOrder,
    SignedProof, StatementError,
};

const ORDER: Order<'_> = Order {
    device: "spiffe://example.org/ns/plant/device/board-17",
    device_uid: DeviceUid([0x11; 16]),
    nonce: Nonce([0x22; 16]),
};
const PROOF: Proof =
    Proof { device_uid: DeviceUid([0x11; 16]), nonce: Nonce([0x22; 16]), erased: Erased::ALL };
const CERTIFICATE: &[u8] = &[0x30, 0x03, 0x02, 0x01, 0x05];
const AUTHORITY: &[u8] = &[0x30, 0x00];

fn key() -> SigningKey {
    SigningKey::from_slice(&[7; 32]).unwrap()
}

/// Nonces follow RFC 6979: the same bytes each time.
fn sign(message: &[u8]) -> Result<Vec<u8>, std::convert::Infallible> {
    let signature: DerSignature = key().sign(message);
    Ok(signature.as_bytes().to_vec())
}

fn verify(key: &SigningKey) -> impl Fn(&[u8], &[u8]) -> Result<(), p256::ecdsa::Error> {
    let key = VerifyingKey::from(key);
    move |message, signature| key.verify(message, &Signature::from_der(signature)?)
}

/// Made once: signing takes milliseconds.
static STATEMENTS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [order(&[CERTIFICATE, AUTHORITY]), proof()]);

fn order(chain: &[&[u8]]) -> Vec<u8> {
    ORDER.sign(chain, sign).unwrap()
}

fn proof() -> Vec<u8> {
    PROOF.sign(sign).unwrap()
}

/// The same by `coset`, with whatever headers.
fn by_coset(content_type: &str, payload: Vec<u8>, chain: Option<Value>) -> Vec<u8> {
    let head =
        HeaderBuilder::new().algorithm(iana::Algorithm::ES256).content_type(content_type.to_owned()).build();
    let mut unprotected = HeaderBuilder::new();
    if let Some(chain) = chain {
        unprotected = unprotected.value(33, chain);
    }
    let sign = |message: &[u8]| {
        let signature: Signature = key().sign(message);
        signature.to_bytes().to_vec()
    };
    let statement = CoseSign1Builder::new()
        .protected(head)
        .unprotected(unprotected.build())
        .payload(payload)
        .create_signature(b"", sign);
    statement.build().to_tagged_vec().unwrap()
}

fn payload(statement: &[u8]) -> Vec<u8> {
    CoseSign1::from_tagged_slice(statement).unwrap().payload.unwrap()
}

#[test]
fn an_order_is_what_coset_makes_of_it_and_reads() {
    for chain in [&[CERTIFICATE][..], &[CERTIFICATE, AUTHORITY], &[CERTIFICATE, AUTHORITY, AUTHORITY]] {
        let bytes = order(chain);
        let values: Vec<Value> = chain.iter().map(|one| Value::Bytes(one.to_vec())).collect();
        let value = if let [one] = values.as_slice() { one.clone() } else { Value::Array(values) };
        assert_eq!(bytes, by_coset(ORDER_CONTENT_TYPE, payload(&bytes), Some(value.clone())));

        let read = CoseSign1::from_tagged_slice(&bytes).unwrap();
        assert_eq!(read.unprotected.rest, [(Label::Int(33), value)]);
        read.verify_signature(b"", |signature, message| {
            VerifyingKey::from(&key()).verify(message, &Signature::from_slice(signature)?)
        })
        .unwrap();
        let map = Value::from_slice(&read.payload.unwrap()).unwrap();
        let expected = [
            (1.into(), ORDER.device.into()),
            (2.into(), Value::Bytes(ORDER.device_uid.0.to_vec())),
            (3.into(), Value::Bytes(ORDER.nonce.0.to_vec())),
        ];
        assert_eq!(map, Value::Map(expected.to_vec()));

        let ours = SignedOrder::decode(&bytes).unwrap();
        assert_eq!((ours.order(), ours.chain()), (&ORDER, chain));
        ours.verify(verify(&key())).unwrap();
        assert!(ours.verify(verify(&SigningKey::from_slice(&[8; 32]).unwrap())).is_err());
    }
}

#[test]
fn a_proof_is_what_coset_makes_of_it_and_reads() {
    let bytes = proof();
    assert_eq!(bytes, by_coset(PROOF_CONTENT_TYPE, payload(&bytes), None));
    let map = Value::from_slice(&payload(&bytes)).unwrap();
    let expected = [
        (1.into(), Value::Bytes(PROOF.device_uid.0.to_vec())),
        (2.into(), Value::Bytes(PROOF.nonce.0.to_vec())),
        (3.into(), 7.into()),
    ];
    assert_eq!(map, Value::Map(expected.to_vec()));
    let ours = SignedProof::decode(&bytes).unwrap();
    assert_eq!(ours.proof(), &PROOF);
    ours.verify(verify(&key())).unwrap();
    assert!(ours.verify(verify(&SigningKey::from_slice(&[8; 32]).unwrap())).is_err());
}

#[test]
fn the_bytes_of_statements_never_change() {
    assert_eq!(hex(&order(&[CERTIFICATE, AUTHORITY])), include_str!("order.hex").trim());
    assert_eq!(hex(&proof()), include_str!("proof.hex").trim());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn one_statement_is_not_another() {
    assert_eq!(SignedOrder::decode(&proof()).unwrap_err(), StatementError::ContentType(ORDER_CONTENT_TYPE));
    assert_eq!(
        SignedProof::decode(&order(&[AUTHORITY])).unwrap_err(),
        StatementError::ContentType(PROOF_CONTENT_TYPE)
    );
    let crossed = by_coset(ORDER_CONTENT_TYPE, payload(&proof()), Some(Value::Bytes(AUTHORITY.to_vec())));
    assert_eq!(SignedOrder::decode(&crossed).unwrap_err(), StatementError::Payload);
    let crossed = by_coset(PROOF_CONTENT_TYPE, payload(&order(&[AUTHORITY])), None);
    assert_eq!(SignedProof::decode(&crossed).unwrap_err(), StatementError::Payload);
}

#[test]
fn certificates_are_as_many_as_the_statement_has() {
    let payload_of_order = payload(&order(&[AUTHORITY]));
    let without = by_coset(ORDER_CONTENT_TYPE, payload_of_order.clone(), None);
    let expected = StatementError::Certificates { found: 0, expected: "1 to 4" };
    assert_eq!(SignedOrder::decode(&without).unwrap_err(), expected);
    let many = |count| Some(Value::Array(vec![Value::Bytes(AUTHORITY.to_vec()); count]));
    let five = by_coset(ORDER_CONTENT_TYPE, payload_of_order.clone(), many(5));
    let expected = StatementError::Certificates { found: 5, expected: "1 to 4" };
    assert_eq!(SignedOrder::decode(&five).unwrap_err(), expected);
    // One certificate, or none, in an array is another encoding.
    for count in [0, 1, 6, 1_000] {
        let bytes = by_coset(ORDER_CONTENT_TYPE, payload_of_order.clone(), many(count));
        assert_eq!(SignedOrder::decode(&bytes).unwrap_err(), StatementError::Form, "{count}");
    }
    let proof = by_coset(PROOF_CONTENT_TYPE, payload(&proof()), Some(Value::Bytes(AUTHORITY.to_vec())));
    let expected = StatementError::Certificates { found: 1, expected: "0" };
    assert_eq!(SignedProof::decode(&proof).unwrap_err(), expected);

    assert_eq!(ORDER.sign(&[], sign).unwrap_err(), SignError::Certificates(0));
    assert_eq!(ORDER.sign(&[AUTHORITY; CERTIFICATES_MAX + 1], sign).unwrap_err(), SignError::Certificates(5));
}

#[test]
fn what_is_too_long_is_neither_made_nor_read() {
    let long = [0x30; 3_400];
    let error = ORDER.sign(&[&long], sign).unwrap_err();
    assert!(matches!(error, SignError::TooLong { bytes_max: 3_500, .. }), "{error}");
    let bytes = by_coset(
        ORDER_CONTENT_TYPE,
        payload(&order(&[AUTHORITY])),
        Some(Value::Bytes([0x30; 3_400].to_vec())),
    );
    let error = SignedOrder::decode(&bytes).unwrap_err();
    assert_eq!(error, StatementError::TooLong { length: bytes.len(), bytes_max: 3_500 });
    // Three certificates as large as ours fit.
    assert!(order(&[&[0x30; 700][..]; CERTIFICATES_MAX]).len() <= 3_500);
}

#[test]
fn an_algorithm_of_another_kind_is_refused_by_its_number() {
    let bytes = proof();
    let at = bytes.windows(2).position(|pair| pair == [0x01, 0x26]).unwrap() + 1;
    let mut other = bytes.clone();
    other[at] = 0x27;
    assert_eq!(SignedProof::decode(&other).unwrap_err(), StatementError::Algorithm(-8));
}

#[test]
fn a_signature_that_is_no_two_numbers_is_not_put_into_a_statement() {
    for der in [&[][..], &[0x30, 0], &[0x30, 3, 2, 1, 1], &[0x30, 6, 2, 1, 1, 2, 1, 0x81], &[0; 70]] {
        let sign = |_: &[u8]| Ok::<_, std::convert::Infallible>(der.to_vec());
        assert_eq!(PROOF.sign(sign).unwrap_err(), SignError::Signature, "{der:?}");
    }
    let failing = |_: &[u8]| Err::<Vec<u8>, _>(std::fmt::Error);
    assert_eq!(PROOF.sign(failing).unwrap_err(), SignError::Key(std::fmt::Error));
}

/// Other bytes for the same statement, which every lenient reader takes.
#[test]
fn a_statement_has_one_encoding() {
    let bytes = proof();
    let replaced = |from: &[u8], to: &[u8]| {
        let at = bytes.windows(from.len()).position(|found| found == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    for other in [
        bytes[1..].to_vec(),                       // untagged
        [&[0xd8, 18], &bytes[1..]].concat(),       // a longer tag
        replaced(&[0xd2, 0x84], &[0xd2, 0x98, 4]), // a longer array head
        [&replaced(&[0xd2, 0x84], &[0xd2, 0x9f]), &[0xff][..]].concat(),
        [&bytes, &[0][..]].concat(),
        replaced(&[0x03, 0x78, 0x2b], &[0x18, 3, 0x78, 0x2b]),
    ] {
        assert_eq!(SignedProof::decode(&other).unwrap_err(), StatementError::Form, "{other:02x?}");
    }
    // In the payload: a longer number, keys in another order, one key more.
    let statement = |payload: &[u8]| by_coset(PROOF_CONTENT_TYPE, payload.to_vec(), None);
    let inner = payload(&bytes);
    let reordered = [&[0xa3][..], &inner[19..37], &inner[1..19], &inner[37..]].concat();
    let more = [&[0xa4][..], &inner[1..], &[4, 0]].concat();
    let longer = [&inner[..inner.len() - 1], &[0x18, 7]].concat();
    assert!(SignedProof::decode(&statement(&inner)).is_ok());
    for other in [&reordered, &more, &longer, &inner[..inner.len() - 1].to_vec()] {
        assert_eq!(SignedProof::decode(&statement(other)).unwrap_err(), StatementError::Payload);
    }
}

proptest! {
    #[test]
    fn what_is_signed_is_read_as_it_was(
        device in "spiffe://[a-z]{1,20}/ns/[a-z]{1,63}/device/[a-z]{1,253}",
        uid: [u8; 16],
        nonce: [u8; 16],
        erased: u32,
        chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 1..=CERTIFICATES_MAX),
        scalar in 1u8..255,
    ) {
        let key = SigningKey::from_slice(&[scalar; 32]).unwrap();
        let sign = |message: &[u8]| {
            let signature: DerSignature = key.sign(message);
            Ok::<_, std::convert::Infallible>(signature.as_bytes().to_vec())
        };
        let (device_uid, nonce) = (DeviceUid(uid), Nonce(nonce));
        let order = Order { device: &device, device_uid, nonce };
        let chain: Vec<&[u8]> = chain.iter().map(Vec::as_slice).collect();
        let bytes = order.sign(&chain, sign).unwrap();
        let read = SignedOrder::decode(&bytes).unwrap();
        prop_assert_eq!((read.order(), read.chain()), (&order, &chain[..]));
        prop_assert!(read.verify(verify(&key)).is_ok());

        let proof = Proof { device_uid, nonce, erased: Erased(erased) };
        let bytes = proof.sign(sign).unwrap();
        let read = SignedProof::decode(&bytes).unwrap();
        prop_assert_eq!(read.proof(), &proof);
        prop_assert!(read.verify(verify(&key)).is_ok());
    }

    /// Every byte counts: a changed one is refused, or the signature does not hold, unless it is the certificates'.
    #[test]
    fn a_changed_byte_is_noticed(at: usize, to: u8) {
        for bytes in &*STATEMENTS {
            let mut changed = bytes.clone();
            let at = at % bytes.len();
            changed[at] = to;
            if changed == *bytes {
                continue;
            }
            if let Ok(order) = SignedOrder::decode(&changed) {
                let same_chain = order.chain() == [CERTIFICATE, AUTHORITY];
                prop_assert!(!same_chain || order.verify(verify(&key())).is_err());
            }
            if let Ok(proof) = SignedProof::decode(&changed) {
                prop_assert!(proof.verify(verify(&key())).is_err());
            }
        }
    }

    #[test]
    fn no_part_is_a_statement(cut: usize) {
        for bytes in &*STATEMENTS {
            let part = &bytes[..cut % bytes.len()];
            prop_assert!(SignedOrder::decode(part).is_err() && SignedProof::decode(part).is_err());
        }
    }

    /// What is taken is what it was read as, and `coset` reads it too.
    #[test]
    fn other_bytes_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0usize..100) {
        let _ = SignedOrder::decode(&bytes);
        let _ = SignedProof::decode(&bytes);
        let mut spliced = STATEMENTS[0].clone();
        let from = from.min(spliced.len());
        spliced.truncate(from);
        spliced.extend_from_slice(&bytes);
        if SignedOrder::decode(&spliced).is_ok() {
            prop_assert!(CoseSign1::from_tagged_slice(&spliced).is_ok());
        }
    }
}
