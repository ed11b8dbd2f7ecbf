//! What a device port reads of clients that nobody knows yet: certificates in the handshake, and requests after it. Shared by the
//! fuzz target and the test that replays its corpus.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use wasmbed_pki::{CertificateFacts, CertificationRequest, DeviceClients, OperatorId, tls::roots};

/// When the certificates beside this file are valid, seconds since 1970-01-01T00:00:00Z.
pub const NOW_S: u64 = 1_800_000_000;
/// First byte of a certification request; any other one precedes a certificate.
pub const REQUEST: u8 = 0;

fn verifier() -> &'static Arc<dyn ClientCertVerifier> {
    static VERIFIER: OnceLock<Arc<dyn ClientCertVerifier>> = OnceLock::new();
    VERIFIER.get_or_init(|| {
        let trust = |der: &'static [u8]| roots([CertificateDer::from(der)]).expect("the file is a root");
        DeviceClients {
            devices: trust(include_bytes!("devices-root.der")),
            factory: Some(trust(include_bytes!("factory-root.der"))),
            self_signed: true,
        }
        .verifier()
        .expect("there are roots")
    })
}

/// The key of the request or the certificate, if that is taken.
pub fn accept(bytes: &[u8]) -> Option<Vec<u8>> {
    let (kind, der) = bytes.split_first()?;
    if *kind == REQUEST {
        return CertificationRequest::parse(der).ok().map(|request| request.public_key_info().to_vec());
    }
    // A person's name has one spelling.
    let uris = CertificateFacts::parse(der).map(|facts| facts.uris).unwrap_or_default();
    for id in uris.iter().filter_map(|uri| uri.parse::<OperatorId>().ok()) {
        let groups = id.groups().iter().map(String::as_str);
        assert_eq!(OperatorId::fitting(id.trust_domain(), id.user(), groups).as_ref(), Ok(&id));
    }
    let issuing: [&'static [u8]; 2] =
        [include_bytes!("devices-issuing.der"), include_bytes!("factory-issuing.der")];
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW_S));
    let leaf = CertificateDer::from(der);
    let alone = verifier().verify_client_cert(&leaf, &[], now).is_ok();
    let below = issuing
        .map(|issuing| verifier().verify_client_cert(&leaf, &[CertificateDer::from(issuing)], now).is_ok());
    // What it names decides below what it has to stand.
    let ways = usize::from(alone) + below.into_iter().filter(|below| *below).count();
    assert!(ways <= 1, "a client is taken for more than one thing");
    (ways == 1).then(|| CertificateFacts::parse(der).expect("what is taken is a certificate").public_key)
}
