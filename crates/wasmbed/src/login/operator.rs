//! A person's certificate, and what gateways are known by.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject as _};
use wasmbed_pki::{
    CertificateFacts, Identity, OperatorId, SpiffeId, lifetime, parse_certificates, pem_of, read_certificates,
};

/// A person at gateways.
#[derive(Debug)]
pub struct Operator {
    /// Certificate and key.
    pub identity: Identity,
    /// Below which the gateways stand.
    pub services_roots: Vec<CertificateDer<'static>>,
    /// The gateways' trust domain.
    pub trust_domain: String,
}

impl Operator {
    /// From PEM of a certificate and the authorities behind it, then the roots of the services, and PEM of the key.
    ///
    /// # Errors
    /// It is no certificate of a person, not of this key, or there is no root.
    pub(crate) fn from_pem(certificates: &str, key: &str) -> Result<Self> {
        let all = parse_certificates(certificates.as_bytes())?;
        let is_root =
            |der: &CertificateDer<'_>| CertificateFacts::parse(der).is_ok_and(|facts| facts.is_self_issued);
        let (services_roots, chain): (Vec<_>, Vec<_>) = all.into_iter().partition(is_root);
        ensure!(!services_roots.is_empty(), "no root comes with the certificate by which gateways are known");
        let chain = pem_of("CERTIFICATE", chain.iter().map(AsRef::as_ref));
        // What stands beside the key stays behind.
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).context("no private key in PKCS#8")?;
        let identity = Identity::from_pem(&chain, &pem_of("PRIVATE KEY", [key.secret_pkcs8_der()]))?;
        let trust_domain = id_of(&identity)?.trust_domain().to_owned();
        Ok(Self { identity, services_roots, trust_domain })
    }

    /// PEM that [`Operator::from_pem`] reads, the key among it.
    pub(crate) fn to_pem(&self) -> String {
        let roots = pem_of("CERTIFICATE", self.services_roots.iter().map(AsRef::as_ref));
        self.identity.key_pem.clone() + &self.identity.chain_pem + &roots
    }

    /// Files in a folder, as `wasmbed pki issue operator` writes them. Also those of older versions, for gateways of older versions.
    ///
    /// # Errors
    /// A file is missing or can't be used.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let (chain, key) = Identity::files(folder, "operator");
        let identity = Identity::read(&chain, &key).context(
            "no operator's identity: wasmbed pki issue operator makes one, and without --pki wasmbed login is used",
        )?;
        let former = identity.spiffe_id().map(|id: SpiffeId| id.trust_domain().to_owned());
        let trust_domain = match former {
            Ok(trust_domain) => trust_domain,
            Err(_) => id_of(&identity)
                .with_context(|| format!("{} can't be used", chain.display()))?
                .trust_domain()
                .to_owned(),
        };
        let issued = folder.join("services-ca.crt");
        let root = if issued.is_file() { issued } else { folder.join("services-root.crt") };
        Ok(Self { identity, services_roots: read_certificates(&root)?, trust_domain })
    }

    /// Whom the certificate names.
    ///
    /// # Errors
    /// It is of an older version, and names no user.
    pub(crate) fn id(&self) -> Result<OperatorId> {
        id_of(&self.identity)
    }

    /// End of the certificate, seconds since 1970-01-01T00:00:00Z.
    pub(crate) fn not_after(&self) -> i64 {
        self.identity.facts().not_after
    }

    /// Whether the certificate has ended, or has not begun.
    pub(crate) fn is_over(&self) -> bool {
        let now = unix_now();
        let facts = self.identity.facts();
        now >= facts.not_after || now < facts.not_before
    }

    /// Whether less than a third of the certificate's life is left.
    pub(crate) fn should_renew(&self) -> bool {
        self.should_renew_at(unix_now())
    }

    fn should_renew_at(&self, now: i64) -> bool {
        let facts = self.identity.facts();
        // It says that it began earlier, for clocks that are behind.
        let begun = facts.not_before.saturating_add_unsigned(lifetime::BACKDATE_SECONDS);
        facts.not_after.saturating_sub(now) < facts.not_after.saturating_sub(begun) / 3
    }
}

fn id_of(identity: &Identity) -> Result<OperatorId> {
    match identity.facts().uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        uris => anyhow::bail!("the certificate names {} URIs, not exactly one", uris.len()),
    }
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use wasmbed_pki::{Authorities, CertificationRequest, DeviceKey, OperatorAuthority, OperatorIssuer};

    use super::*;

    #[test]
    fn what_was_issued_is_kept_and_renewed_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let services = Authorities::create_or_open(folder.path(), "example.org").unwrap();
        OperatorAuthority::create_or_open(folder.path(), "example.org").unwrap();
        let (certificate, authority_key) = Identity::files(folder.path(), "operators-issuing");
        let issuer = OperatorIssuer::open(&certificate, &authority_key, "example.org").unwrap();
        let key = DeviceKey::generate().unwrap();
        let request = CertificationRequest::parse(&key.request().unwrap()).unwrap();
        let hours = 12 * 3_600;
        let chain = issuer.issue(&request, "ada", ["dev"], hours).unwrap().chain_pem;
        let key_pem = pem_of("PRIVATE KEY", [key.pkcs8()]);
        assert!(Operator::from_pem(&chain, &key_pem).is_err(), "no root of the services");
        let operator = Operator::from_pem(&(chain + services.services_root_pem()), &key_pem).unwrap();
        assert_eq!(operator.services_roots, [services.services_root().clone()]);
        assert_eq!(operator.identity.chain().len(), 2);
        let pem = operator.to_pem();
        let again = Operator::from_pem(&pem, &pem).unwrap();
        assert_eq!((again.id().unwrap().user(), again.trust_domain.as_str()), ("ada", "example.org"));
        assert_eq!(again.to_pem(), pem);
        let begun = operator.not_after() - hours as i64;
        assert!(!operator.should_renew_at(begun) && !operator.should_renew_at(begun + 8 * 3_600));
        assert!(operator.should_renew_at(begun + 8 * 3_600 + 60));
        let other = pem_of("PRIVATE KEY", [DeviceKey::generate().unwrap().pkcs8()]);
        assert!(Operator::from_pem(&pem, &other).is_err(), "of another key");
    }
}
