//! A hostile gateway with a factory's and a fleet's real certificates in its hands, but for their private keys.

#![cfg(test)]

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SigningKey as _, date_time_ymd,
};
use tempfile::TempDir;
use wasmbed_api::{DEVICE_SIGNER, request_annotation as annotation};
use wasmbed_control::signer::{AnnotationFlaw, Candidate, Decision, Evidence, Request, plan_signature};
use wasmbed_identity::PairingToken;
use wasmbed_pki::{Authorities, CertificationRequest, DeviceIssuer, Identity};
use wasmbed_protocol::{DeviceUid, JoinStatement, KeyHash, encode_join_statement};
use wasmbed_signer::{Asked, Malformed, Verifier};

const NOW: i64 = 1_800_000_000;
const UID: DeviceUid = DeviceUid(*b"0123456789abcdef");
const OTHER_UID: DeviceUid = DeviceUid(*b"fedcba9876543210");
const TOKEN: &str = "0a1b2c3d.000102030405060708090a0b0c0d0e0f";

type Factory = CertifiedIssuer<'static, KeyPair>;

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn factory() -> Factory {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
    CertifiedIssuer::self_signed(params, key()).unwrap()
}

/// What a board leaves the factory with.
struct Board {
    key: KeyPair,
    chain_pem: String,
}

impl Board {
    fn new(factory: &Factory, uri: &str) -> Self {
        let key = key();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2050, 1, 1));
        let chain_pem = params.signed_by(&key, factory).unwrap().pem();
        Self { key, chain_pem }
    }
}

struct World {
    _folder: TempDir,
    factory: Factory,
    issuer: DeviceIssuer,
    verifier: Verifier,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open_at(folder.path(), "example.org", NOW).unwrap();
        let factory = factory();
        let (certificate, key) = Identity::files(folder.path(), "devices-issuing");
        let issuer = DeviceIssuer::open_at(&certificate, &key, "example.org", NOW).unwrap();
        let roots = [authorities.devices_root().clone()];
        let verifier = Verifier::new("example.org", &[factory.der().clone()], &roots).unwrap();
        Self { _folder: folder, factory, issuer, verifier }
    }

    fn board(&self, serial: &str) -> Board {
        Board::new(&self.factory, &format!("spiffe://example.org/factory/{serial}"))
    }

    fn decide(&self, csr: &CertificateSigningRequest, device: &Candidate) -> Decision {
        self.decide_at(csr, device, NOW)
    }

    /// As if a person had approved it.
    fn decide_at(&self, csr: &CertificateSigningRequest, device: &Candidate, now: i64) -> Decision {
        let asked = Asked::read(csr).unwrap();
        let pairing = TOKEN.parse::<PairingToken>().unwrap().key();
        let evidence = self.verifier.examine(&asked, Some(&pairing), now as u64);
        let request = Request { approved: true, device_uid: asked.device_uid, key: asked.key, evidence };
        plan_signature(&request, Some(device))
    }

    fn refusal(&self, csr: &CertificateSigningRequest, device: &Candidate) -> &'static str {
        match self.decide(csr, device) {
            Decision::Refuse(refusal) => refusal.reason(),
            other => panic!("{other:?}"),
        }
    }
}

fn device() -> Candidate {
    Candidate {
        uid: UID,
        name: "sn-17".into(),
        is_deleting: false,
        is_approved: true,
        is_revoked: false,
        is_decommissioned: false,
        serial: None,
        factory_key: None,
        pairing_id: None,
        pinned_key: None,
        confirmed_key: None,
    }
}

fn csr(key: &KeyPair, uid: DeviceUid, proofs: &[(&str, String)]) -> CertificateSigningRequest {
    let pem = CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    let mut annotations = BTreeMap::from([
        (annotation::DEVICE.to_owned(), "plant/sn-17".to_owned()),
        (annotation::DEVICE_UID.to_owned(), uid.to_string()),
    ]);
    annotations.extend(proofs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    CertificateSigningRequest {
        metadata: ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: DEVICE_SIGNER.to_owned(),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

fn statement(key: &KeyPair, trust_domain: &str, uid: DeviceUid) -> Vec<u8> {
    let statement = JoinStatement {
        key: KeyHash::of(&key.subject_public_key_info()),
        trust_domain,
        namespace: "plant",
        name: "sn-17",
        device_uid: uid,
    };
    let mut bytes = [0; 700];
    let length = encode_join_statement(&statement, &mut bytes).unwrap();
    bytes[..length].to_vec()
}

fn proven(board: &Board, key: &KeyPair, over: &[u8], uid: DeviceUid) -> CertificateSigningRequest {
    let signature = STANDARD.encode(board.key.sign(over).unwrap());
    csr(
        key,
        uid,
        &[(annotation::JOIN_PROOF, signature), (annotation::FACTORY_CHAIN, board.chain_pem.clone())],
    )
}

#[test]
fn a_board_with_its_factory_key_joins() {
    let (world, own) = (World::new(), key());
    let board = world.board("SN_17");
    let request = proven(&board, &own, &statement(&own, "example.org", UID), UID);
    assert_eq!(world.decide(&request, &device()), Decision::Issue);
}

#[test]
fn a_gateway_gets_no_certificate_for_a_key_of_its_own() {
    let (world, own, gateways) = (World::new(), key(), key());
    let board = world.board("SN_17");
    // The board's proof, which the gateway saw, with the gateway's key in the request.
    let swapped = proven(&board, &gateways, &statement(&own, "example.org", UID), UID);
    assert_eq!(world.refusal(&swapped, &device()), "ProofRefused");
    // No proof at all waits for a person who compares keys, however often the request was approved.
    let bare = csr(&gateways, UID, &[]);
    assert!(matches!(world.decide(&bare, &device()), Decision::Wait(_)));
}

#[test]
fn a_proof_is_for_one_device_and_one_trust_domain() {
    let (world, own) = (World::new(), key());
    let board = world.board("SN_17");
    // Replayed for a Device of the same name that was created later.
    let replayed = proven(&board, &own, &statement(&own, "example.org", UID), OTHER_UID);
    let recreated = Candidate { uid: OTHER_UID, ..device() };
    assert_eq!(world.refusal(&replayed, &recreated), "ProofRefused");
    let old = proven(&board, &own, &statement(&own, "example.org", UID), UID);
    assert_eq!(world.refusal(&old, &recreated), "DeviceRecreated");
    let elsewhere = proven(&board, &own, &statement(&own, "example.com", UID), UID);
    assert_eq!(world.refusal(&elsewhere, &device()), "ProofRefused");
}

#[test]
fn another_board_s_factory_key_does_not_do() {
    let (world, own) = (World::new(), key());
    let over = statement(&own, "example.org", UID);
    assert_eq!(world.refusal(&proven(&world.board("SN_18"), &own, &over, UID), &device()), "WrongDevice");
    // A second certificate for the serial, as a factory that was broken into gives: the pre-registered key counts.
    let first = world.board("SN_17");
    let registered =
        Candidate { factory_key: Some(KeyHash::of(&first.key.subject_public_key_info())), ..device() };
    assert_eq!(world.decide(&proven(&first, &own, &over, UID), &registered), Decision::Issue);
    assert_eq!(world.refusal(&proven(&world.board("SN_17"), &own, &over, UID), &registered), "WrongDevice");
    // Certificates of no factory.
    for board in [
        Board::new(&factory(), "spiffe://example.org/factory/SN_17"),
        Board::new(&world.factory, "spiffe://example.com/factory/SN_17"),
        Board::new(&world.factory, "spiffe://example.org/ns/plant/device/sn-17"),
    ] {
        assert_eq!(world.refusal(&proven(&board, &own, &over, UID), &device()), "ProofRefused");
    }
}

#[test]
fn a_token_proves_for_its_device_alone() {
    let (world, own) = (World::new(), key());
    let pairing = TOKEN.parse::<PairingToken>().unwrap().key();
    let asks = |key: &KeyPair, over: &[u8], uid| {
        csr(
            key,
            uid,
            &[
                (annotation::JOIN_PROOF, STANDARD.encode(pairing.prove(over))),
                (annotation::PAIRING_ID, "0a1b2c3d".to_owned()),
            ],
        )
    };
    let over = statement(&own, "example.org", UID);
    let named = Candidate { pairing_id: Some("0a1b2c3d".into()), ..device() };
    assert_eq!(world.decide(&asks(&own, &over, UID), &named), Decision::Issue);
    assert_eq!(world.refusal(&asks(&own, &over, UID), &device()), "WrongDevice");
    assert_eq!(world.refusal(&asks(&key(), &over, UID), &named), "ProofRefused");
    let recreated = Candidate { uid: OTHER_UID, ..named };
    assert_eq!(world.refusal(&asks(&own, &over, OTHER_UID), &recreated), "ProofRefused");
    // The token was used: its key is gone.
    let asked = Asked::read(&asks(&own, &over, UID)).unwrap();
    assert!(matches!(world.verifier.examine(&asked, None, NOW as u64), Evidence::Refuted(_)));
}

#[test]
fn a_renewal_is_by_the_key_of_a_certificate_that_has_not_ended() {
    let (world, own) = (World::new(), key());
    let parsed = |key: &KeyPair| {
        CertificationRequest::parse(CertificateParams::default().serialize_request(key).unwrap().der())
            .unwrap()
    };
    let issue = |name: &str, seconds| {
        world.issuer.issue(&parsed(&own), "plant", name, &UID.to_string(), seconds).unwrap()
    };
    let renews = |key: &KeyPair, chain: String| csr(key, UID, &[(annotation::RENEWS, chain)]);
    let held = renews(&own, issue("sn-17", 3_600));
    assert_eq!(world.decide(&held, &device()), Decision::Issue);
    let refused = |decision| matches!(decision, Decision::Refuse(_));
    assert!(refused(world.decide_at(&held, &device(), NOW + 3_601)), "it has ended");
    assert_eq!(world.refusal(&renews(&key(), issue("sn-17", 3_600)), &device()), "WrongDevice");
    assert_eq!(world.refusal(&renews(&own, issue("sn-18", 3_600)), &device()), "ProofRefused");
    let recreated = Candidate { uid: OTHER_UID, ..device() };
    let mut again = held.clone();
    again
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert(annotation::DEVICE_UID.to_owned(), OTHER_UID.to_string());
    assert_eq!(world.refusal(&again, &recreated), "WrongDevice");
    let revoked = Candidate { is_revoked: true, ..device() };
    assert_eq!(world.refusal(&held, &revoked), "Revoked");
    let decommissioned = Candidate { is_decommissioned: true, ..device() };
    assert_eq!(world.refusal(&held, &decommissioned), "Decommissioned");
    // A board's factory certificate renews nothing.
    assert_eq!(world.refusal(&renews(&own, world.board("SN_17").chain_pem), &device()), "ProofRefused");
}

#[test]
fn what_is_not_understood_is_refused_with_what_is_wrong() {
    let own = key();
    let problem = |change: &dyn Fn(&mut CertificateSigningRequest)| {
        let mut object = csr(&own, UID, &[]);
        change(&mut object);
        Asked::read(&object).map(|_| ()).unwrap_err()
    };
    let set = |name: &'static str, value: &str| {
        let value = value.to_owned();
        move |object: &mut CertificateSigningRequest| {
            let annotations = object.metadata.annotations.as_mut().unwrap();
            annotations.insert(name.to_owned(), value.clone());
        }
    };
    let name = |error: Malformed| match error {
        Malformed::Annotations(AnnotationFlaw::Annotation { name, .. }) => name,
        other => panic!("{other}"),
    };
    assert_eq!(
        problem(&|object| object.spec.signer_name = "kubernetes.io/kubelet-serving".into()),
        Malformed::Signer
    );
    assert_eq!(name(problem(&set(annotation::DEVICE, "sn-17"))), annotation::DEVICE);
    assert_eq!(name(problem(&set(annotation::DEVICE_UID, "17"))), annotation::DEVICE_UID);
    assert_eq!(name(problem(&set(annotation::RENEWS, ""))), annotation::RENEWS);
    assert_eq!(name(problem(&set(annotation::RENEWS, &"x".repeat(20_000)))), annotation::RENEWS);
    assert_eq!(problem(&set(annotation::JOIN_PROOF, "AAAA")), AnnotationFlaw::Proofs.into());
    assert!(matches!(problem(&|object| object.spec.request = ByteString(vec![0; 9])), Malformed::Request(_)));
}
