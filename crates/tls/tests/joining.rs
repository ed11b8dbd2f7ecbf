//! A key that a device made, its request, its first certificates, and credentials that are replaced between two sessions.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use rcgen::KeyPair;
use rustls::crypto::ring;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::*;
use wasmbed_pki::{CertificationRequest, DeviceClients, DevicePeer, DeviceServer, Identity, tls::roots};
use wasmbed_tls::{
    Client, Credentials, CredentialsError, OwnId, P256Key, RandomSource, Time, TlsError,
    certification_request,
    identity::{CertificateError, FactoryIdError},
};

const FACTORY: &str = "spiffe://example.org/factory/SN-1";
const MANY: usize = 300;

/// Bytes that are the same in each run.
struct Counting(std::sync::atomic::AtomicU32);

impl RandomSource for Counting {
    fn fill(&self, buffer: &mut [u8]) {
        let number = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let bytes = digest(&number.to_le_bytes());
        buffer.copy_from_slice(&bytes[..buffer.len()]);
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    use rustls::crypto::hash::Hash as _;
    wasmbed_tls::provider::Sha256.hash(bytes).as_ref().try_into().unwrap()
}

/// The fleet's device port; factory identities stand below the devices' root here, which saves one more.
fn port(fleet: &Fleet) -> DeviceServer {
    let root = || roots([fleet.devices_root.der().clone()]).unwrap();
    let clients = DeviceClients { devices: root(), factory: Some(root()), self_signed: true };
    DeviceServer::new(&fleet.gateway(), clients).unwrap()
}

fn seen(client: &Client, port: &DeviceServer) -> DevicePeer {
    let pair = Pair::up(client, Arc::clone(port.config()));
    port.authenticate(&pair.server, "example.org").unwrap()
}

fn factory(fleet: &Fleet) -> Identity {
    leaf(&fleet.devices, &[FACTORY], ClientAuth, |_| {})
}

fn bytes(identity: &Identity) -> Vec<u8> {
    identity.chain().iter().flat_map(|der| der.to_vec()).collect()
}

#[test]
fn keys_requests_and_first_certificates_are_what_hosts_read() {
    let random = Counting(0.into());
    let (mut largest, mut different) = (0, std::collections::BTreeSet::new());
    for _ in 0..MANY {
        let key = P256Key::generate(&random);
        let info = key.public_key_info();
        assert!(different.insert(info));
        assert!(key.belongs_to(&info));

        let pkcs8 = key.to_pkcs8();
        let host = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pkcs8.to_vec()));
        let host = KeyPair::try_from(&host).expect("rcgen reads the key");
        assert_eq!(rcgen::PublicKeyData::subject_public_key_info(&host), info);
        assert!(P256Key::from_pkcs8(&pkcs8).unwrap().belongs_to(&info));

        let request = certification_request(&key).unwrap();
        largest = largest.max(request.len());
        assert_eq!(CertificationRequest::parse(&request).unwrap().public_key_info(), info);

        let first = Credentials::pairing("example.org", &key).unwrap();
        assert_eq!((first.not_before(), first.not_after()), (0, 253_402_300_799));
        assert_eq!(*first.id(), OwnId::Pairing("example.org".into()));
    }
    println!("{MANY} keys, requests of at most {largest} bytes");
    assert!(largest <= 512);
}

#[test]
fn a_key_out_of_range_is_drawn_again() {
    struct Poor(std::sync::Mutex<Vec<[u8; 32]>>);
    impl RandomSource for Poor {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.copy_from_slice(&self.0.lock().unwrap().pop().expect("no more is drawn than needed"));
        }
    }
    let good = [0x42; 32];
    let key = P256Key::generate(&Poor(vec![good, [0; 32], [0xFF; 32]].into()));
    assert!(key.to_pkcs8().windows(32).any(|window| window == good));
}

#[test]
fn a_signature_is_the_factory_keys_over_the_statement() {
    use wasmbed_tls::identity::Leaf;
    let fleet = Fleet::new();
    let identity = factory(&fleet);
    let signature = key(&identity).sign_der(b"statement").unwrap();
    let chain = identity.chain();
    let leaf = Leaf::parse(&chain[0]).unwrap();
    let verified = |message| {
        let all = ring::default_provider().signature_verification_algorithms.all;
        all.iter().any(|algorithm| leaf.verify_signature(*algorithm, message, &signature).is_ok())
    };
    assert!(verified(b"statement".as_slice()) && !verified(b"another".as_slice()));
    assert!(signature.len() <= 72);
}

#[test]
fn what_is_presented_is_replaced_without_another_client() {
    let fleet = Fleet::new();
    let (identity, port) = (factory(&fleet), port(&fleet));
    let services = [fleet.services_root.der().clone()];
    let mut client = Client::new("example.org", &services, &Random).unwrap();
    assert_eq!(client.id(), None);
    let error = client.connect(&Time::new(0), 0).unwrap_err();
    assert_eq!(error, CredentialsError::NoCertificate.into());
    client.present(Credentials::factory(identity.chain(), &key(&identity)).unwrap()).unwrap();
    assert_eq!(client.id(), Some(&OwnId::Factory(FACTORY.parse().unwrap())));
    let mut first = Pair::up(&client, Arc::clone(port.config()));
    let DevicePeer::Factory { id, .. } = port.authenticate(&first.server, "example.org").unwrap() else {
        panic!("a device from a factory")
    };
    assert_eq!(id.as_str(), FACTORY);

    let own = P256Key::generate(&Random);
    client.present(Credentials::pairing("example.org", &own).unwrap()).unwrap();
    let DevicePeer::SelfSigned(facts) = seen(&client, &port) else { panic!("one with its own certificate") };
    assert_eq!(facts.public_key, own.public_key_info());
    assert_eq!((facts.uris.len(), facts.common_name), (0, None));

    for _ in 0..20 {
        client.present(Credentials::pairing("example.org", &P256Key::generate(&Random)).unwrap()).unwrap();
        assert!(matches!(seen(&client, &port), DevicePeer::SelfSigned(_)), "whatever the key");
    }

    let device = leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {});
    client.present(Credentials::device_of_bytes(&bytes(&device), &key(&device)).unwrap()).unwrap();
    assert_eq!(client.id(), Some(&OwnId::Device(DEVICE.parse().unwrap())));
    let DevicePeer::Device(peer) = seen(&client, &port) else { panic!("a device of the fleet") };
    assert_eq!(peer.id.as_str(), DEVICE);
    // The session that was begun before is not touched.
    first.device_writes(b"still here");
    assert_eq!(first.server_reads(), b"still here");

    let elsewhere = Credentials::pairing("example.com", &own).unwrap();
    assert_eq!(client.present(elsewhere), Err(CredentialsError::TrustDomain));
    assert_eq!(client.id(), Some(&OwnId::Device(DEVICE.parse().unwrap())));
}

#[test]
fn credentials_of_another_kind_are_refused() {
    let fleet = Fleet::new();
    let (device, factory) = (leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {}), factory(&fleet));
    let refused = Credentials::factory(device.chain(), &key(&device)).unwrap_err();
    let expected = CertificateError::from(FactoryIdError { id: DEVICE.into() });
    assert_eq!(refused, CredentialsError::Id(expected));
    let refused = Credentials::device(factory.chain(), &key(&factory)).unwrap_err();
    assert!(matches!(refused, CredentialsError::Id(_)), "{refused}");
    let chain = bytes(&device);
    let refused = |chain: &[u8]| Credentials::device_of_bytes(chain, &key(&device)).unwrap_err();
    assert_eq!(refused(&chain[..chain.len() - 1]), CredentialsError::Malformed);
    assert_eq!(refused(&[&chain[..], b"x"].concat()), CredentialsError::Malformed);
    assert_eq!(refused(&[]), CredentialsError::NoCertificate);
    assert_eq!(refused(&chain.repeat(3)), CredentialsError::ChainLength);
    let other = Credentials::device_of_bytes(&chain, &P256Key::generate(&Random)).unwrap_err();
    assert_eq!(TlsError::from(other), CredentialsError::KeyMismatch.into());
}
