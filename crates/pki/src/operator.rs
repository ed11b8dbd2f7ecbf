//! Certificates of people who use gateways, below a root of their own.

use std::path::Path;

use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rustls_pki_types::CertificateDer;
use wasmbed_identity::OperatorId;

use crate::{
    CertificateFacts, CertificationRequest, Identity, PkiError,
    authority::{Tier, TierNames, check_trust_domain},
    issuer::{Authority, Clock, LeafPlan},
    lifetime,
};

const OPERATORS: TierNames = TierNames {
    root: "operators-root",
    issuing: "operators-issuing",
    kind: "operators",
    days: lifetime::ISSUING_DAYS,
};

/// A root of people with its issuing authority. Nothing else is below that root, and nobody below it is a service or a device.
///
/// Files: `operators-root` and `operators-issuing`, each `.crt` and `.key`.
pub struct OperatorAuthority {
    trust_domain: String,
    tier: Tier,
}

impl OperatorAuthority {
    /// Opens the authority in `folder`, or makes it.
    ///
    /// # Errors
    /// As [`Authorities::create_or_open`](crate::Authorities::create_or_open).
    pub fn create_or_open(folder: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::System)
    }

    /// The same for a clock that shows `unix_s` (seconds since 1970-01-01T00:00:00Z): certificates begin there.
    ///
    /// # Errors
    /// As [`OperatorAuthority::create_or_open`].
    pub fn create_or_open_at(folder: &Path, trust_domain: &str, unix_s: i64) -> Result<Self, PkiError> {
        Self::open(folder, trust_domain, Clock::At(unix_s))
    }

    fn open(folder: &Path, trust_domain: &str, clock: Clock) -> Result<Self, PkiError> {
        check_trust_domain(trust_domain)?;
        let tier = Tier::create_or_open(folder, &OPERATORS, vec![ClientAuth], trust_domain, clock)?;
        Ok(Self { trust_domain: trust_domain.to_owned(), tier })
    }

    /// Files whose certificates had not begun and were made anew, as
    /// [`Authorities::begun_anew`](crate::Authorities::begun_anew).
    pub fn begun_anew(&self) -> impl Iterator<Item = &Path> {
        self.tier.begun_anew()
    }

    /// What gateways trust in people.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        self.tier.root.certificate()
    }

    /// [`root`](Self::root) as PEM.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        self.tier.root.certificate_pem()
    }

    /// Issues the identity of a user of Kubernetes, for a year. Whoever can do this can be anybody there is.
    ///
    /// # Errors
    /// A name that an id can't carry, or a key that is not here.
    pub fn issue(&self, user: &str, groups: &[String]) -> Result<Identity, PkiError> {
        let id = operator_id(&self.trust_domain, user, groups.iter().map(String::as_str))?;
        self.tier.issue(LeafPlan::operator(&id)?)
    }
}

/// The operators' issuing authority alone, as the signer holds it.
pub struct OperatorIssuer {
    trust_domain: String,
    authority: Authority,
    not_after: i64,
}

impl OperatorIssuer {
    /// Opens the authority's certificate and private key, both PEM.
    ///
    /// # Errors
    /// A file can't be read or understood, the key is another's, or the authority has expired.
    pub fn open(certificate: &Path, key: &Path, trust_domain: &str) -> Result<Self, PkiError> {
        Self::open_with(certificate, key, trust_domain, Clock::System)
    }

    fn open_with(certificate: &Path, key: &Path, trust_domain: &str, clock: Clock) -> Result<Self, PkiError> {
        let authority = Authority::open_existing(certificate, key, clock)?;
        let facts = CertificateFacts::parse(authority.certificate())
            .map_err(|error| PkiError::File { path: certificate.to_owned(), problem: error.to_string() })?;
        Ok(Self { trust_domain: trust_domain.to_owned(), authority, not_after: facts.not_after })
    }

    /// A client certificate for the key of a request in the name of a user of Kubernetes with as many of its groups as fit, for so
    /// many seconds, at most a day and never beyond the authority's own end; PEM, the authority behind it. Of the request nothing
    /// but the key is used.
    ///
    /// # Errors
    /// A name that an id can't carry.
    pub fn issue<'a>(
        &self,
        request: &CertificationRequest,
        user: &str,
        groups: impl IntoIterator<Item = &'a str>,
        seconds: u64,
    ) -> Result<IssuedOperator, PkiError> {
        let id = operator_id(&self.trust_domain, user, groups)?;
        let seconds = seconds.min(lifetime::OPERATOR_SECONDS_MAX);
        let leaf = LeafPlan::operator(&id)?;
        let chain_pem = self.authority.certify(request.public_key_info(), leaf, seconds, self.not_after)?;
        Ok(IssuedOperator { id, chain_pem })
    }
}

/// What was issued.
#[derive(Clone, Debug)]
pub struct IssuedOperator {
    /// Whose it is: the groups that are in it are those that fitted.
    pub id: OperatorId,
    /// PEM: the certificate, then its authority.
    pub chain_pem: String,
}

fn operator_id<'a>(
    trust_domain: &str,
    user: &str,
    groups: impl IntoIterator<Item = &'a str>,
) -> Result<OperatorId, PkiError> {
    OperatorId::fitting(trust_domain, user, groups).map_err(|_| PkiError::Name {
        what: "user",
        value: user.chars().take(64).collect(),
        expected: "1 to 512 bytes without control characters",
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
    use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

    use super::*;
    use crate::{identity::parse_certificates, tls::provider};

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn a_certificate_is_for_the_key_and_the_user_and_for_nothing_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let authority = OperatorAuthority::create_or_open_at(folder.path(), "example.org", NOW).unwrap();
        // The root's key is elsewhere.
        std::fs::remove_file(folder.path().join("operators-root.key")).unwrap();
        let (certificate, key) = Identity::files(folder.path(), "operators-issuing");
        let issuer = OperatorIssuer::open_with(&certificate, &key, "example.org", Clock::At(NOW)).unwrap();
        let mut asked = CertificateParams::new(vec!["gateway.example.org".to_owned()]).unwrap();
        asked.distinguished_name.push(DnType::CommonName, "admin");
        asked.distinguished_name.push(DnType::OrganizationName, "system:masters");
        let other = "spiffe://example.org/operator/admin/system_3Amasters";
        asked.subject_alt_names.push(SanType::URI(other.try_into().unwrap()));
        let own = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let request = CertificationRequest::parse(asked.serialize_request(&own).unwrap().der()).unwrap();
        for (asked, given) in [(3_600, 3_600), (u64::MAX, lifetime::OPERATOR_SECONDS_MAX)] {
            let issued = issuer.issue(&request, "ada@example.org", ["dev"], asked).unwrap();
            let chain = parse_certificates(issued.chain_pem.as_bytes()).unwrap();
            let facts = CertificateFacts::parse(&chain[0]).unwrap();
            assert_eq!(facts.uris, ["spiffe://example.org/operator/ada_40example.org/dev"]);
            assert_eq!(facts.uris, [issued.id.as_str()]);
            assert_eq!(facts.common_name.as_deref(), Some("operator ada@example.org"));
            assert_eq!(facts.public_key, request.public_key_info());
            assert_eq!(facts.not_after, NOW + given as i64);
            let anchors = [anchor_from_trusted_cert(authority.root()).unwrap()];
            let now =
                rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW as u64));
            let verify = |usage: KeyUsage| {
                let leaf = EndEntityCert::try_from(&chain[0]).unwrap();
                let algorithms = provider().signature_verification_algorithms;
                leaf.verify_for_usage(algorithms.all, &anchors, &chain[1..], now, usage, None, None).is_ok()
            };
            assert!(verify(KeyUsage::client_auth()) && !verify(KeyUsage::server_auth()), "no server");
        }
        assert!(issuer.issue(&request, "", [], 60).is_err());
    }

    #[test]
    fn a_folder_of_an_older_version_gets_it_added() {
        let folder = tempfile::tempdir().unwrap();
        crate::Authorities::create_or_open(folder.path(), "example.org").unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let before = ["services-root.crt", "services-issuing.key", "devices-issuing.crt"].map(read);
        let made = OperatorAuthority::create_or_open(folder.path(), "example.org").unwrap();
        let again = OperatorAuthority::create_or_open(folder.path(), "example.org").unwrap();
        assert_eq!(made.root(), again.root());
        assert_eq!(before, ["services-root.crt", "services-issuing.key", "devices-issuing.crt"].map(read));
    }
}
