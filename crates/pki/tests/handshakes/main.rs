//! Who gets through a handshake and who is refused, with which words.

#![cfg(test)]

mod joining;

use std::sync::Arc;

use rustls::{ClientConnection, Connection, ServerConnection, time_provider::TimeProvider};
use rustls_pki_types::UnixTime;
use wasmbed_pki::{
    Authorities, Identity, Refusal, Role, SpiffeId,
    tls::{self, ClientParams, PeerError, Profile},
};

struct World {
    _folder: tempfile::TempDir,
    authorities: Authorities,
}

fn world(trust_domain: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let authorities = Authorities::create_or_open(folder.path(), trust_domain).unwrap();
    World { _folder: folder, authorities }
}

impl World {
    fn gateway(&self) -> Identity {
        self.authorities.issue_gateway("wasmbed-system", "gateway-0", &[]).unwrap()
    }

    fn device(&self) -> Identity {
        self.authorities.issue_device("default", "board-1").unwrap()
    }

    fn controller(&self) -> Identity {
        self.authorities.issue_controller("wasmbed-system", "controller-0").unwrap()
    }

    fn server(&self, profile: Profile, identity: &Identity) -> ServerConnection {
        let root = match profile {
            Profile::Device => self.authorities.devices_root(),
            Profile::Service => self.authorities.services_root(),
        };
        let config = tls::server_config(profile, identity, tls::roots([root.clone()]).unwrap()).unwrap();
        ServerConnection::new(config).unwrap()
    }

    fn client(&self, profile: Profile, identity: &Identity) -> ClientConnection {
        self.client_with(profile, identity, None, None)
    }

    fn client_with(
        &self,
        profile: Profile,
        identity: &Identity,
        gateway: Option<SpiffeId>,
        time: Option<Arc<dyn TimeProvider>>,
    ) -> ClientConnection {
        let params = ClientParams {
            profile,
            identity,
            roots: tls::roots([self.authorities.services_root().clone()]).unwrap(),
            trust_domain: self.authorities.trust_domain(),
            gateway,
            time,
        };
        ClientConnection::new(tls::client_config(params).unwrap(), tls::server_name()).unwrap()
    }
}

/// Carries bytes both ways until the handshake is over or one side refuses; the words of the one that did.
fn handshake(client: ClientConnection, server: ServerConnection) -> Result<(Connection, Connection), String> {
    let (mut client, mut server) = (Connection::from(client), Connection::from(server));
    for _ in 0..16 {
        carry(&mut client, &mut server)?;
        carry(&mut server, &mut client)?;
        if !client.is_handshaking()
            && !server.is_handshaking()
            && !client.wants_write()
            && !server.wants_write()
        {
            return Ok((client, server));
        }
    }
    panic!("the handshake did not end");
}

fn carry(from: &mut Connection, to: &mut Connection) -> Result<(), String> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        to.process_new_packets().map_err(|error| tls::handshake_reason(&error))?;
    }
    Ok(())
}

#[test]
fn a_device_and_a_gateway_know_each_other_afterwards() {
    let world = world("example.org");
    let device = world.device();
    let (client, server) =
        handshake(world.client(Profile::Device, &device), world.server(Profile::Device, &world.gateway()))
            .unwrap();
    let peer = tls::authenticate_client(Profile::Device, &server, "example.org").unwrap();
    assert_eq!(peer.id, SpiffeId::new("example.org", "default", Role::Device, "board-1").unwrap());
    assert_eq!(peer.facts.public_key_base64(), device.public_key_base64());
    let peer = tls::authenticate_gateway(Profile::Device, &client, "example.org").unwrap();
    assert_eq!(peer.id.role(), Role::Gateway);
    assert_eq!(server.alpn_protocol(), Some(tls::ALPN_DEVICE));
}

#[test]
fn controllers_and_operators_speak_the_service_profile_alone() {
    let world = world("example.org");
    let operator = world.authorities.issue_operator("wasmbed-system", "admin").unwrap();
    for identity in [world.controller(), operator] {
        let (_, server) = handshake(
            world.client(Profile::Service, &identity),
            world.server(Profile::Service, &world.gateway()),
        )
        .unwrap();
        assert_eq!(server.alpn_protocol(), Some(b"h2".as_slice()));
        let peer = tls::authenticate_client(Profile::Service, &server, "example.org").unwrap();
        assert_eq!(peer.id, identity.spiffe_id().unwrap());
        let error = tls::authenticate_client(Profile::Device, &server, "example.org").unwrap_err();
        assert!(matches!(error, PeerError::Alpn { .. }), "{error}");
    }
}

#[test]
fn a_client_below_the_other_root_is_refused_on_both_profiles() {
    let world = world("example.org");
    for (profile, identity) in [(Profile::Device, world.controller()), (Profile::Service, world.device())] {
        let error = handshake(world.client(profile, &identity), world.server(profile, &world.gateway()))
            .err()
            .unwrap();
        assert!(error.contains("does not chain to a trusted root"), "{error}");
    }
}

#[test]
fn a_gateways_certificate_is_no_client_and_a_controllers_no_server() {
    let world = world("example.org");
    let gateway = world.gateway();
    let error = handshake(world.client(Profile::Service, &gateway), world.server(Profile::Service, &gateway))
        .err()
        .unwrap();
    assert!(error.contains("not meant for this purpose"), "{error}");
    let error = handshake(
        world.client(Profile::Device, &world.device()),
        world.server(Profile::Device, &world.controller()),
    )
    .err()
    .unwrap();
    assert!(error.contains("not meant for this purpose"), "{error}");
}

#[test]
fn another_trust_domain_below_a_trusted_root_is_refused_by_both_sides() {
    // The same root, whose authority issues for two names: what a mistake in a shared root would look like.
    let folder = tempfile::tempdir().unwrap();
    let ours = World {
        authorities: Authorities::create_or_open(folder.path(), "example.org").unwrap(),
        _folder: tempfile::tempdir().unwrap(),
    };
    let theirs = Authorities::create_or_open(folder.path(), "other.example").unwrap();
    let device = theirs.issue_device("default", "board-1").unwrap();
    let (_, server) =
        handshake(ours.client(Profile::Device, &device), ours.server(Profile::Device, &ours.gateway()))
            .unwrap();
    let error = tls::authenticate_client(Profile::Device, &server, "example.org").unwrap_err();
    assert!(matches!(error, PeerError::Refused(Refusal::TrustDomain { .. })), "{error}");

    let gateway = theirs.issue_gateway("wasmbed-system", "gateway-0", &[]).unwrap();
    let error =
        handshake(ours.client(Profile::Device, &ours.device()), ours.server(Profile::Device, &gateway))
            .err()
            .unwrap();
    assert!(error.contains("not in the trust domain example.org"), "{error}");
}

#[test]
fn another_fleets_gateway_and_device_are_refused() {
    let (ours, theirs) = (world("example.org"), world("example.org"));
    for (client, server) in [
        (ours.client(Profile::Device, &ours.device()), theirs.server(Profile::Device, &theirs.gateway())),
        (theirs.client(Profile::Device, &theirs.device()), theirs.server(Profile::Device, &ours.gateway())),
        (theirs.client(Profile::Device, &ours.device()), theirs.server(Profile::Device, &theirs.gateway())),
    ] {
        let error = handshake(client, server).err().unwrap();
        assert!(error.contains("does not chain to a trusted root"), "{error}");
    }
}

#[test]
fn a_client_may_insist_on_one_gateway() {
    let world = world("example.org");
    let expected = SpiffeId::new("example.org", "wasmbed-system", Role::Gateway, "gateway-1").unwrap();
    let client = world.client_with(Profile::Service, &world.controller(), Some(expected), None);
    let error = handshake(client, world.server(Profile::Service, &world.gateway())).err().unwrap();
    assert!(
        error.contains("gateway-0 answered where") && error.contains("gateway-1 was expected"),
        "{error}"
    );
}

#[derive(Debug)]
struct At(i64);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.0.cast_unsigned())))
    }
}

#[test]
fn a_certificate_is_refused_before_and_after_its_time() {
    let world = world("example.org");
    let gateway = world.gateway();
    for (time, words) in
        [(gateway.facts().not_after + 1, "expired at"), (gateway.facts().not_before - 1, "is valid from")]
    {
        let client = world.client_with(Profile::Device, &world.device(), None, Some(Arc::new(At(time))));
        let error = handshake(client, world.server(Profile::Device, &gateway)).err().unwrap();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_client_with_no_certificate_or_another_alpn_name_is_refused() {
    let world = world("example.org");
    let roots = tls::roots([world.authorities.services_root().clone()]).unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::ALPN_DEVICE.to_vec()];
    let gateway =
        world.authorities.issue_gateway("wasmbed-system", "gateway-0", &["127.0.0.1".to_owned()]).unwrap();
    let client = ClientConnection::new(Arc::new(config), tls::server_name()).unwrap();
    let error = handshake(client, world.server(Profile::Device, &gateway)).err().unwrap();
    assert_eq!(error, "the peer sent no certificate");

    let client = world.client(Profile::Service, &world.controller());
    let error = handshake(client, world.server(Profile::Device, &gateway)).err().unwrap();
    assert_eq!(error, "the peers have no ALPN name in common");
}

/// A leaf that a root signed itself, as cert-manager's CA issuer does: the chain is the leaf alone.
fn below_root(folder: &std::path::Path, id: &SpiffeId, days: i64) -> Identity {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
    let stem = if id.role() == Role::Device { "devices-root" } else { "services-root" };
    let read = |extension: &str| std::fs::read_to_string(folder.join(format!("{stem}.{extension}"))).unwrap();
    let root = Issuer::from_ca_cert_pem(&read("crt"), KeyPair::from_pem(&read("key")).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = params.not_before.replace_year(2_020).unwrap();
    params.not_after = params.not_before.replace_year(2_020 + i32::try_from(days / 365).unwrap()).unwrap();
    let certificate = params.signed_by(&key, &root).unwrap();
    Identity::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap()
}

#[test]
fn leaves_directly_below_a_root_are_let_in_and_refused_like_others() {
    let world = world("example.org");
    let folder = world._folder.path();
    let id = |namespace, role, name| SpiffeId::new("example.org", namespace, role, name).unwrap();
    let gateway = below_root(folder, &id("wasmbed-system", Role::Gateway, "gateway-0"), 80 * 365);
    assert_eq!(gateway.chain().len(), 1);
    let device = below_root(folder, &id("default", Role::Device, "board-1"), 80 * 365);
    let controller = below_root(folder, &id("wasmbed-system", Role::Controller, "c"), 80 * 365);
    for (profile, client) in [(Profile::Device, &device), (Profile::Service, &controller)] {
        let (client, server) =
            handshake(world.client(profile, client), world.server(profile, &gateway)).unwrap();
        tls::authenticate_client(profile, &server, "example.org").unwrap();
        tls::authenticate_gateway(profile, &client, "example.org").unwrap();
    }
    // Beside one with an issuing authority, either way round.
    handshake(world.client(Profile::Device, &world.device()), world.server(Profile::Device, &gateway))
        .unwrap();
    handshake(world.client(Profile::Device, &device), world.server(Profile::Device, &world.gateway()))
        .unwrap();

    let refused = |profile, client: &Identity, words: &str| {
        let server = world.server(profile, &gateway);
        let error = handshake(world.client(profile, client), server).err().unwrap();
        assert!(error.contains(words), "{error}");
    };
    refused(Profile::Device, &controller, "does not chain to a trusted root");
    refused(Profile::Service, &device, "does not chain to a trusted root");
    let expired = below_root(folder, &id("default", Role::Device, "board-1"), 365);
    refused(Profile::Device, &expired, "expired at");
    let other = self::world("example.org");
    let strange = below_root(other._folder.path(), &id("default", Role::Device, "board-1"), 80 * 365);
    refused(Profile::Device, &strange, "does not chain to a trusted root");
}

#[test]
fn the_profile_follows_from_the_alpn_names_offered() {
    assert_eq!(Profile::select([b"wasmbed/1".as_slice()]), Some(Profile::Device));
    assert_eq!(Profile::select([b"h3".as_slice(), b"http/1.1"]), Some(Profile::Service));
    assert_eq!(Profile::select([b"wasmbed/2".as_slice()]), None);
    assert_eq!(Profile::select([]), None);
}
