//! Who may join over the device port, and that nobody there is taken for somebody else.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SanType,
};
use rustls::{Connection, ServerConnection};
use wasmbed_pki::{
    DeviceClients, DevicePeer, DeviceServer, Identity,
    tls::{self, PeerError, Profile},
};

use super::{World, handshake, world};

type Factory = CertifiedIssuer<'static, KeyPair>;

fn factory() -> Factory {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "factory");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn params(uri: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = uri.map(|uri| SanType::URI(uri.try_into().unwrap())).into_iter().collect();
    params
}

fn below(issuer: &Issuer<'_, KeyPair>, uri: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(Some(uri)).signed_by(&key, issuer).unwrap();
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

fn self_signed(uri: Option<&str>) -> Identity {
    let key = KeyPair::generate().unwrap();
    let certificate = params(uri).self_signed(&key).unwrap();
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

/// The devices' own root, as a mistake in a factory would have it.
fn devices_root(world: &World) -> Issuer<'static, KeyPair> {
    let read = |extension: &str| {
        std::fs::read_to_string(world._folder.path().join(format!("devices-root.{extension}"))).unwrap()
    };
    Issuer::from_ca_cert_pem(&read("crt"), KeyPair::from_pem(&read("key")).unwrap()).unwrap()
}

fn server(world: &World, factory: Option<&Factory>, self_signed: bool) -> DeviceServer {
    let clients = DeviceClients {
        devices: tls::roots([world.authorities.devices_root().clone()]).unwrap(),
        factory: factory.map(|factory| tls::roots([factory.der().clone()]).unwrap()),
        self_signed,
    };
    DeviceServer::new(&world.gateway(), clients).unwrap()
}

/// Who a client is taken for, or the words with which it is refused.
fn peer(world: &World, server: &DeviceServer, client: &Identity) -> Result<DevicePeer, String> {
    let connection = ServerConnection::new(server.config().clone()).unwrap();
    let (_, connection) = handshake(world.client(Profile::Device, client), connection)?;
    let Connection::Server(connection) = connection else { panic!("the server's side") };
    server.authenticate(&connection, "example.org").map_err(|error: PeerError| error.to_string())
}

const FACTORY_ID: &str = "spiffe://example.org/factory/SN-17";
const DEVICE_ID: &str = "spiffe://example.org/ns/default/device/board-1";

#[test]
fn each_kind_of_client_is_taken_for_what_it_is() {
    let (world, factory) = (world("example.org"), factory());
    let server = server(&world, Some(&factory), true);
    let DevicePeer::Device(device) = peer(&world, &server, &world.device()).unwrap() else {
        panic!("a device of the fleet")
    };
    assert_eq!(device.id.as_str(), DEVICE_ID);
    let new = below(&factory, FACTORY_ID);
    let DevicePeer::Factory { id, facts } = peer(&world, &server, &new).unwrap() else {
        panic!("a device from the factory")
    };
    assert_eq!((id.serial(), facts.public_key_base64()), ("SN-17", new.public_key_base64()));
    let token = self_signed(None);
    let DevicePeer::SelfSigned(facts) = peer(&world, &server, &token).unwrap() else {
        panic!("a device with a token")
    };
    assert_eq!(facts.public_key_base64(), token.public_key_base64());
}

#[test]
fn a_port_without_joining_takes_devices_of_the_fleet_alone() {
    let (world, factory) = (world("example.org"), factory());
    let server = server(&world, None, false);
    assert!(matches!(peer(&world, &server, &world.device()), Ok(DevicePeer::Device(_))));
    for client in [below(&factory, FACTORY_ID), self_signed(None), self_signed(Some(DEVICE_ID))] {
        let error = peer(&world, &server, &client).unwrap_err();
        assert!(error.contains("does not chain to a trusted root"), "{error}");
    }
    // An id of a factory below the devices' root is nobody's.
    let error = peer(&world, &server, &below(&devices_root(&world), FACTORY_ID)).unwrap_err();
    assert!(error.contains("SPIFFE") || error.contains("spiffe"), "{error}");
}

#[test]
fn no_root_vouches_for_what_is_the_other_s() {
    let (world, factory) = (world("example.org"), factory());
    let server = server(&world, Some(&factory), true);
    for client in [
        below(&factory, DEVICE_ID),
        below(&devices_root(&world), FACTORY_ID),
        below(&self::factory(), FACTORY_ID),
        self_signed(Some(DEVICE_ID)),
        self_signed(Some(FACTORY_ID)),
    ] {
        let error = peer(&world, &server, &client).unwrap_err();
        assert!(error.contains("does not chain to a trusted root"), "{error}");
    }
    let error = peer(&world, &server, &below(&factory, "spiffe://other.example/factory/SN-17")).unwrap_err();
    assert!(error.contains("not of the trust domain example.org"), "{error}");
}

#[test]
fn a_self_signed_certificate_is_checked_and_bounded() {
    let world = world("example.org");
    let server = server(&world, None, true);
    let refused = |client: &Identity, words: &str| {
        let error = peer(&world, &server, client).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    // Of this key, signed by another one of the same name.
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let forged = params(None).signed_by(&key, &Issuer::new(params(None), other)).unwrap();
    refused(&Identity::from_pem(&forged.pem(), &key.serialize_pem()).unwrap(), "not signed by its own key");

    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let other_curve = params(None).self_signed(&key).unwrap();
    refused(&Identity::from_pem(&other_curve.pem(), &key.serialize_pem()).unwrap(), "P-256");

    let key = KeyPair::generate().unwrap();
    let mut long = params(None);
    long.distinguished_name.push(rcgen::DnType::CommonName, "x".repeat(1_000));
    let long = long.self_signed(&key).unwrap();
    refused(&Identity::from_pem(&long.pem(), &key.serialize_pem()).unwrap(), "longer than 1,024 bytes");

    let one = self_signed(None);
    let two = format!("{}{}", one.chain_pem, self_signed(None).chain_pem);
    refused(&Identity::from_pem(&two, &one.key_pem).unwrap(), "comes with further certificates");
}
