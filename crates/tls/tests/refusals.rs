//! Which gateways are rejected, and how the error describes it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use rcgen::{GeneralSubtree, NameConstraints, SanType};
use rustls::{ServerConfig, sign::CertifiedKey};
use support::*;
use wasmbed_pki::Identity;
use wasmbed_tls::{
    Client, Credentials, Misbehavior, P256Key, SessionState, Time, TlsError,
    identity::{Alert, CertificateError, Constraint, Refusal, SpiffeProblem},
};

fn refused(fleet: &Fleet, gateway: &Identity) -> TlsError {
    refusal(&fleet.client(), fleet.server(gateway), &Time::new(0))
}

#[test]
fn a_gateway_certificate_from_another_authority() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    // The other fleet's authorities have the same names: only the signature tells.
    let error = refused(&fleet, &other.gateway());
    assert_eq!(error, Refusal::Issuer.into());
    assert_eq!(error.to_string(), "the gateway's certificate does not chain to a trusted root");
    let stranger = authority("stranger", &[], None);
    assert_eq!(refused(&fleet, &leaf(&stranger, &[GATEWAY], ServerAuth, |_| {})), Refusal::Issuer.into());
}

#[test]
fn a_gateway_certificate_with_another_role() {
    let fleet = Fleet::new();
    for role in ["device", "controller", "operator"] {
        let id = format!("spiffe://example.org/ns/wasmbed/{role}/one");
        let error = refused(&fleet, &leaf(&fleet.services, &[&id], ServerAuth, |_| {}));
        assert_eq!(error.to_string(), format!("{id} is not a gateway"));
    }
}

#[test]
fn a_gateway_certificate_with_another_trust_domain() {
    let fleet = Fleet::new();
    let id = "spiffe://example.com/ns/wasmbed/gateway/one";
    let error = refused(&fleet, &leaf(&fleet.services, &[id], ServerAuth, |_| {}));
    assert_eq!(error.to_string(), format!("{id} is not in the trust domain example.org"));
}

#[test]
fn a_gateway_certificate_with_another_name() {
    let fleet = Fleet::new();
    let no_id = leaf(&fleet.services, &[], ServerAuth, |params| {
        params.subject_alt_names = vec![SanType::DnsName("gateway.example.org".try_into().unwrap())];
    });
    let uris = |count| TlsError::PeerRefused(Refusal::Certificate(CertificateError::UriCount(count)));
    assert_eq!(refused(&fleet, &no_id), uris(0));
    let two = leaf(&fleet.services, &[GATEWAY, DEVICE], ServerAuth, |_| {});
    let error = refused(&fleet, &two);
    assert_eq!(error, uris(2));
    assert_eq!(
        error.to_string(),
        "the gateway's certificate was refused: the certificate names 2 URIs, not exactly one"
    );
    for (id, problem) in [
        ("https://example.org/ns/wasmbed/gateway/one", SpiffeProblem::Scheme),
        ("spiffe://example.org/ns/wasmbed/gateway/one/two", SpiffeProblem::Path),
    ] {
        let error = refused(&fleet, &leaf(&fleet.services, &[id], ServerAuth, |_| {})).to_string();
        assert_eq!(
            error,
            format!("the gateway's certificate was refused: its URI is not a SPIFFE id: {problem}")
        );
    }
}

#[test]
fn an_expired_gateway_certificate() {
    let fleet = Fleet::new();
    let server = fleet.server(&fleet.gateway());
    let mut clock = Time::new(0);
    clock.set_rtc(Some(year(2036)), 0);
    let error = refusal(&fleet.client(), Arc::clone(&server), &clock);
    assert!(matches!(error, TlsError::PeerRefused(Refusal::Expired { now, .. }) if now == year(2036)));
    assert!(error.to_string().starts_with("the gateway's certificate expired at 2051222400, now it is 20"));
    // Without a clock: an authority signed a later moment.
    let error = refusal(&fleet.client(), Arc::clone(&server), &Time::new(year(2036)));
    assert!(matches!(error, TlsError::PeerRefused(Refusal::Expired { .. })));
    // Its authority expired.
    clock.set_rtc(Some(year(2046)), 0);
    let error = refusal(&fleet.client(), server, &clock);
    assert!(matches!(error, TlsError::PeerRefused(Refusal::Expired { .. })));
}

#[test]
fn a_gateway_certificate_that_is_not_valid_yet() {
    let fleet = Fleet::new();
    let server = fleet.server(&fleet.gateway());
    let mut clock = Time::new(0);
    clock.set_rtc(Some(year(2024)), 0);
    let error = refusal(&fleet.client(), Arc::clone(&server), &clock);
    assert!(
        error.to_string().starts_with("the gateway's certificate is valid from 1735689600, now it is 17")
    );
    // A board without a clock knows no better, and learns from it.
    let mut time = Time::new(year(2024));
    let mut pair = Pair::new(&fleet.client(), server, &time);
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.session.state(), SessionState::Up);
    assert_eq!(time.handle_verified(pair.session.peer().unwrap()), Some(1_735_689_600));
}

#[test]
fn an_authority_that_was_renewed_after_the_leaf_does_not_lock_a_board_without_a_clock_out() {
    let fleet = Fleet::new();
    let renewed = authority_with("services issuing", &[], Some(&fleet.services_root), |params| {
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
    });
    let server = fleet.server(&leaf(&renewed, &[GATEWAY], ServerAuth, |_| {}));
    let mut pair = Pair::new(&fleet.client(), server, &Time::new(0));
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.session.state(), SessionState::Up);
}

#[test]
fn a_device_certificate_posing_as_a_gateway() {
    let fleet = Fleet::new();
    // A stolen board's certificate as it is.
    assert_eq!(
        refused(&fleet, &leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {})),
        Refusal::Purpose.into()
    );
    // One that a careless devices authority gave a gateway's name and purpose.
    assert_eq!(
        refused(&fleet, &leaf(&fleet.devices, &[GATEWAY], ServerAuth, |_| {})),
        Refusal::Purpose.into()
    );
    assert_eq!(
        refused(&fleet, &leaf(&fleet.devices_root, &[GATEWAY], ServerAuth, |_| {})),
        Refusal::Issuer.into()
    );
    // One root for both sides: still it is no server, and no gateway.
    let one_root = |gateway| {
        refusal(&fleet.client_trusting(&[&fleet.devices_root]), fleet.server(gateway), &Time::new(0))
    };
    let device = leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {});
    assert_eq!(one_root(&device).to_string(), "the gateway's certificate is not meant for this purpose");
    assert_eq!(one_root(&leaf(&fleet.devices, &[GATEWAY], ServerAuth, |_| {})), Refusal::Purpose.into());
}

#[test]
fn a_device_certificate_used_as_an_authority() {
    let fleet = Fleet::new();
    // Whoever holds a leaf's key signs a gateway with it, and shows the whole chain.
    for above in [&fleet.devices, &fleet.services] {
        let stolen = authority_with("stolen", &[], Some(above), |params| {
            params.is_ca = rcgen::IsCa::ExplicitNoCa;
            params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
            params.subject_alt_names = vec![SanType::URI(DEVICE.try_into().unwrap())];
        });
        let fake = leaf(&stolen, &[GATEWAY], ServerAuth, |_| {});
        let fake = Identity::from_pem(&(fake.chain_pem.clone() + &above.pem()), &fake.key_pem).unwrap();
        let client = fleet.client_trusting(&[&fleet.services_root, &fleet.devices_root]);
        let error = refusal(&client, fleet.server(&fake), &Time::new(0));
        assert_eq!(error, Refusal::NotAuthority.into());
        assert_eq!(
            error.to_string(),
            "the gateway's certificate was signed by a certificate that is not an authority's"
        );
    }
}

#[test]
fn a_certificate_for_clients_alone() {
    let fleet = Fleet::new();
    let error = refused(&fleet, &leaf(&fleet.services, &[GATEWAY], ClientAuth, |_| {}));
    assert_eq!(error.to_string(), "the gateway's certificate is not meant for this purpose");
    // The authority above it is for clients alone.
    let clients = authority("clients", &[ClientAuth], Some(&fleet.services_root));
    assert_eq!(refused(&fleet, &leaf(&clients, &[GATEWAY], ServerAuth, |_| {})), Refusal::Purpose.into());
}

#[test]
fn an_authoritys_own_certificate() {
    let fleet = Fleet::new();
    let gateway = leaf(&fleet.services, &[GATEWAY], ServerAuth, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    assert_eq!(refused(&fleet, &gateway), Refusal::AuthorityAsPeer.into());
}

#[test]
fn a_chain_that_is_longer_than_its_authority_allows() {
    let fleet = Fleet::new();
    let below = authority("below", &[], Some(&fleet.services));
    let gateway = leaf(&below, &[GATEWAY], ServerAuth, |_| {});
    let gateway =
        Identity::from_pem(&(gateway.chain_pem.clone() + &fleet.services.pem()), &gateway.key_pem).unwrap();
    let error = refused(&fleet, &gateway);
    assert_eq!(error, Refusal::Constraint(Constraint::PathLength).into());
    assert_eq!(
        error.to_string(),
        "the gateway's certificate was refused: more authorities in a row than are allowed"
    );
}

#[test]
fn a_name_that_its_authority_may_not_sign() {
    let fleet = Fleet::new();
    let constrained = authority_with("constrained", &[], Some(&fleet.services_root), |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let gateway = leaf(&constrained, &[GATEWAY], ServerAuth, |params| {
        params.subject_alt_names.push(SanType::DnsName("gateway.example.com".try_into().unwrap()));
    });
    assert_eq!(refused(&fleet, &gateway), Refusal::Constraint(Constraint::Name).into());
}

#[test]
fn a_gateway_that_does_not_hold_the_key_of_its_certificate() {
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Thief {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let fleet = Fleet::new();
    let (shown, held) = (fleet.gateway(), fleet.gateway());
    let mut config = ServerConfig::clone(&fleet.server(&shown));
    let key = rustls::crypto::ring::sign::any_supported_type(&held.key()).unwrap();
    config.cert_resolver = Arc::new(Thief(Arc::new(CertifiedKey::new(shown.chain(), key))));
    let error = refusal(&fleet.client(), Arc::new(config), &Time::new(0));
    assert_eq!(error.to_string(), "the gateway did not prove that its certificate is its own");
}

#[test]
fn a_server_of_tls_1_2() {
    let fleet = Fleet::new();
    // RFC 5246: a ServerHello of version 3.3 that picks TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, without extensions.
    let mut hello = vec![0x16, 3, 3, 0, 42, 2, 0, 0, 38, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2b, 0]);
    let mut session = fleet.client().connect(&Time::new(0), 0).unwrap();
    let error = session.receive(&hello).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the gateway offers no TLS 1.3 with X25519, ChaCha20-Poly1305 and ECDSA P-256"
    );
    // One that refuses to speak 1.3 by itself.
    let mut session = fleet.client().connect(&Time::new(0), 0).unwrap();
    let error = session.receive(&[0x15, 3, 3, 0, 2, 2, 70]).unwrap_err();
    assert_eq!(error.to_string(), "the gateway refused with the alert protocol_version (70)");
}

#[test]
fn a_server_of_another_protocol() {
    let fleet = Fleet::new();
    let mut session = fleet.client().connect(&Time::new(0), 0).unwrap();
    let error = session.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap_err();
    assert_eq!(error.to_string(), "the gateway does not speak TLS 1.3 as it should");
}

#[test]
fn a_server_with_other_cryptography() {
    let fleet = Fleet::new();
    let gateway = fleet.gateway();
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(gateway.chain(), gateway.key())
        .unwrap();
    let error = refusal(&fleet.client(), Arc::new(config), &Time::new(0));
    assert_eq!(error.to_string(), "the gateway refused with the alert handshake_failure (40)");
}

#[test]
fn a_server_that_asks_for_no_certificate() {
    let fleet = Fleet::new();
    let gateway = fleet.gateway();
    let mut config = ServerConfig::builder_with_provider(wasmbed_pki::tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(gateway.chain(), gateway.key())
        .unwrap();
    config.alpn_protocols = vec![b"wasmbed/1".to_vec()];
    let error = refusal(&fleet.client(), Arc::new(config), &Time::new(0));
    assert_eq!(error.to_string(), "the gateway did not ask for this device's certificate");
}

#[test]
fn what_a_refused_server_sends_with_its_handshake_is_not_read() {
    let fleet = Fleet::new();
    let mut config = ServerConfig::clone(&fleet.server(&fleet.gateway()));
    config.alpn_protocols = Vec::new();
    let mut pair = Pair::new(&fleet.client(), Arc::new(config), &Time::new(0));
    pair.move_to_server(usize::MAX);
    pair.server_writes(b"with the handshake");
    assert_eq!(pair.run(usize::MAX), Err(Misbehavior::Alpn.into()));
    assert_eq!(pair.read, b"");
    // A gateway's is.
    let mut pair = Pair::new(&fleet.client(), fleet.server(&fleet.gateway()), &Time::new(0));
    pair.move_to_server(usize::MAX);
    pair.server_writes(b"with the handshake");
    pair.run(usize::MAX).unwrap();
    assert_eq!(pair.read, b"with the handshake");
    assert_eq!(pair.session.state(), SessionState::Up);
}

#[test]
fn a_server_with_another_alpn_name() {
    let fleet = Fleet::new();
    let mut config = ServerConfig::clone(&fleet.server(&fleet.gateway()));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = refusal(&fleet.client(), Arc::new(config.clone()), &Time::new(0));
    assert_eq!(error.to_string(), "the gateway refused with the alert no_application_protocol (120)");
    config.alpn_protocols = Vec::new();
    let error = refusal(&fleet.client(), Arc::new(config), &Time::new(0));
    assert_eq!(error.to_string(), "the gateway did not agree on the ALPN name wasmbed/1");
}

#[test]
fn a_gateway_that_refuses_this_device() {
    let fleet = Fleet::new();
    let stranger = leaf(&Fleet::new().devices, &[DEVICE], ClientAuth, |_| {});
    let client = client(&stranger, vec![fleet.services_root.der().clone()]).unwrap();
    let error = refusal_after_up(&client, &fleet);
    assert!(error.to_string().starts_with("the gateway refused with the alert "), "{error}");
}

fn refusal_after_up(client: &wasmbed_tls::Client, fleet: &Fleet) -> TlsError {
    let mut pair = Pair::new(client, fleet.server(&fleet.gateway()), &Time::new(0));
    let error = pair.run(usize::MAX).unwrap_err();
    assert_eq!(pair.session.state(), SessionState::Closed);
    error
}

#[test]
fn a_reason_fits_on_a_line() {
    let fleet = Fleet::new();
    let id = format!("spiffe://example.org/ns/wasmbed/controller/{}", "a".repeat(250));
    let error = refused(&fleet, &leaf(&fleet.services, &[&id], ServerAuth, |_| {}));
    assert!(error.to_string().len() < 150);
    for alert in 0..=255 {
        assert!(TlsError::PeerAlert(Alert(alert)).to_string().len() < 150);
    }
}

#[test]
fn credentials_that_do_not_fit_together() {
    let fleet = Fleet::new();
    let (device, other) = (
        leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {}),
        leaf(&fleet.devices, &[DEVICE], ClientAuth, |_| {}),
    );
    let root = fleet.services_root.der().clone();
    let new = |chain, key: rustls_pki_types::PrivateKeyDer<'static>, services_roots: Vec<_>| {
        let key = P256Key::from_der(&key).unwrap();
        let client = Client::new("example.org", &services_roots, &Random);
        match (client, Credentials::device(chain, &key)) {
            (Err(error), _) => error.to_string(),
            (Ok(_), credentials) => TlsError::from(credentials.unwrap_err()).to_string(),
        }
    };
    let prefix = "this device's credentials are not usable: ";
    for (words, expected) in [
        (
            new(device.chain(), other.key(), vec![root.clone()]),
            "the private key does not belong to the certificate",
        ),
        (new(Vec::new(), device.key(), vec![root.clone()]), "no certificate"),
        (new(device.chain(), device.key(), Vec::new()), "not one or two services roots"),
        (new(device.chain(), device.key(), vec![root.clone(); 3]), "not one or two services roots"),
        (new(device.chain(), device.key(), vec![vec![1].into()]), "a services root is malformed"),
        (new(vec![vec![1].into()], device.key(), vec![root.clone()]), "the certificate is malformed"),
        (
            new(fleet.gateway().chain(), fleet.gateway().key(), vec![root.clone()]),
            "the private key does not belong to the certificate",
        ),
    ] {
        assert_eq!(words, format!("{prefix}{expected}"));
    }
    let gateway = fleet.gateway();
    let words = new(gateway.chain(), gateway.key(), vec![root]);
    assert_eq!(words, format!("{prefix}the certificate is not a device's"));
}
