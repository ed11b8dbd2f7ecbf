//! Certificates for keys that devices made themselves.

use std::path::Path;

use crate::{
    CertificateFacts, CertificationRequest, PkiError, Role, SpiffeId,
    issuer::{Authority, Clock, LeafPlan},
    lifetime,
};

/// The devices' issuing authority alone: the root's key is not needed and better not here.
pub struct DeviceIssuer {
    trust_domain: String,
    authority: Authority,
    not_after: i64,
}

impl DeviceIssuer {
    /// Opens the authority's certificate and private key, both PEM.
    ///
    /// # Errors
    /// A file can't be read or understood, the key is another's, or the authority has expired.
    pub fn open(certificate: &Path, key: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        Self::open_with(certificate, key, trust_domain, Clock::System)
    }

    /// The same for a clock that shows `unix_s` (seconds since 1970-01-01T00:00:00Z).
    ///
    /// # Errors
    /// As [`DeviceIssuer::open`].
    pub fn open_at(
        certificate: &Path,
        key: &Path,
        trust_domain: &str,
        unix_s: i64,
    ) -> Result<Self, PkiError> {
        Self::open_with(certificate, key, trust_domain, Clock::At(unix_s))
    }

    fn open_with(certificate: &Path, key: &Path, trust_domain: &str, clock: Clock) -> Result<Self, PkiError> {
        let authority = Authority::open_existing(certificate, key, clock)?;
        let facts = CertificateFacts::parse(authority.certificate())
            .map_err(|error| PkiError::File { path: certificate.to_owned(), problem: error.to_string() })?;
        Ok(Self { trust_domain: trust_domain.to_owned(), authority, not_after: facts.not_after })
    }

    /// The trust domain of what it issues.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// A client certificate for the key of a request in the name of a Device, for so many seconds, at most a year and never
    /// beyond the authority's own end; PEM, the authority behind it. The id, the usages and the lifetime are this authority's. The
    /// Device's UID stands in the subject's serial number.
    ///
    /// # Errors
    /// A name that a certificate can't carry.
    pub fn issue(
        &self,
        request: &CertificationRequest,
        namespace: &str,
        name: &str,
        uid: &str,
        seconds: u64,
    ) -> Result<String, PkiError> {
        let id = SpiffeId::new(&self.trust_domain, namespace, Role::Device, name).map_err(|error| {
            PkiError::Name {
                what: "identity",
                value: error.id,
                expected: "a Kubernetes namespace and a Kubernetes name",
            }
        })?;
        let seconds = seconds.min(lifetime::ISSUED_DEVICE_SECONDS_MAX);
        let leaf = LeafPlan { serial: Some(uid.to_owned()), ..LeafPlan::spiffe(&id, &[], 0)? };
        self.authority.certify(request.public_key_info(), leaf, seconds, self.not_after)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
    use rustls_pki_types::CertificateDer;
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

    use super::*;
    use crate::{Authorities, Identity, identity::parse_certificates, tls::provider};

    const NOW: i64 = 1_800_000_000;
    const UID: &str = "30313233-3435-3637-3839-616263646566";

    fn request() -> CertificationRequest {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        CertificationRequest::parse(request.der()).unwrap()
    }

    fn verify(chain: &[CertificateDer<'_>], root: &CertificateDer<'_>, usage: KeyUsage) -> bool {
        let anchors = [anchor_from_trusted_cert(root).unwrap()];
        let algorithms = provider().signature_verification_algorithms;
        let now = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW as u64));
        let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
        leaf.verify_for_usage(algorithms.all, &anchors, &chain[1..], now, usage, None, None).is_ok()
    }

    #[test]
    fn a_certificate_is_for_the_key_and_the_device_and_a_year_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open_at(folder.path(), "example.org", NOW).unwrap();
        // The root's key is elsewhere.
        std::fs::remove_file(folder.path().join("devices-root.key")).unwrap();
        let (certificate, key) = Identity::files(folder.path(), "devices-issuing");
        let issuer = DeviceIssuer::open_at(&certificate, &key, "example.org", NOW).unwrap();
        let request = request();
        let mut serials = std::collections::BTreeSet::new();
        for (asked, given) in [(3_600, 3_600), (u64::MAX, lifetime::ISSUED_DEVICE_SECONDS_MAX)] {
            let pem = issuer.issue(&request, "plant", "board-17", UID, asked).unwrap();
            let chain = parse_certificates(pem.as_bytes()).unwrap();
            let facts = CertificateFacts::parse(&chain[0]).unwrap();
            assert_eq!(facts.public_key, request.public_key_info());
            assert_eq!(facts.uris, ["spiffe://example.org/ns/plant/device/board-17"]);
            assert_eq!(facts.subject_serial.as_deref(), Some(UID));
            assert_eq!(facts.not_after, NOW + given as i64);
            assert!(serials.insert(facts.serial), "two certificates of one authority have the same number");
            assert_eq!(chain.len(), 2, "the authority behind it");
            assert!(verify(&chain, authorities.devices_root(), KeyUsage::client_auth()));
            assert!(!verify(&chain, authorities.devices_root(), KeyUsage::server_auth()), "no server");
        }
    }

    #[test]
    fn nothing_outlives_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        Authorities::create_or_open_at(folder.path(), "example.org", NOW).unwrap();
        let (certificate, key) = Identity::files(folder.path(), "devices-issuing");
        let end = NOW + (lifetime::ISSUING_DAYS * 86_400) as i64;
        let issuer = DeviceIssuer::open_at(&certificate, &key, "example.org", end - 60).unwrap();
        let pem = issuer.issue(&request(), "plant", "board-17", UID, 3_600).unwrap();
        let chain = parse_certificates(pem.as_bytes()).unwrap();
        assert_eq!(CertificateFacts::parse(&chain[0]).unwrap().not_after, end);
    }
}
