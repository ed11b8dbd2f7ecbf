//! Clients' chains, checked without verifying one issuing authority's signature thousands of times.
//!
//! All devices of a fleet have certificates from the same few issuing authorities. Once a whole chain was verified, its issuing
//! authority is remembered by all its bytes; a later chain with exactly these bytes needs only the leaf verified. What can
//! change is checked each time: the leaf as a whole, and that the authority is within its time. Anything else that differs,
//! also any refusal, goes the long way, whose word alone counts. So this never refuses and never widens what is accepted.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::CertificateFacts;

/// Issuing authorities that are remembered: an old and a new one of some fleets. Further ones are verified each time.
const ISSUERS_MAX: usize = 16;

/// Verifies clients below the given roots.
pub(crate) struct ClientVerifier {
    roots: Arc<RootCertStore>,
    /// Verifies whole chains.
    whole: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    issuers: RwLock<Vec<Arc<Issuer>>>,
}

/// An issuing authority that was found directly below a root.
struct Issuer {
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    not_before: u64,
    not_after: u64,
}

impl Issuer {
    fn is_valid_at(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now.as_secs())
    }
}

impl ClientVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let algorithms = provider.signature_verification_algorithms;
        let whole = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider).build()?;
        Ok(Self { roots, whole, algorithms, issuers: RwLock::default() })
    }

    fn known(&self, certificate: &CertificateDer<'_>) -> Option<Arc<Issuer>> {
        let issuers = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        issuers.iter().find(|issuer| issuer.certificate == *certificate).cloned()
    }

    /// Whether a known authority signed the leaf, with everything that the long way checks of the leaf.
    fn stands_below(&self, leaf: &CertificateDer<'_>, issuer: &Issuer, now: UnixTime) -> bool {
        let anchors = std::slice::from_ref(&issuer.anchor);
        EndEntityCert::try_from(leaf).is_ok_and(|leaf| {
            let usage = KeyUsage::client_auth();
            leaf.verify_for_usage(self.algorithms.all, anchors, &[], now, usage, None, None).is_ok()
        })
    }

    /// Remembers the authority of a chain that was verified, if it is what the chain was verified with.
    fn remember(&self, leaf: &CertificateDer<'_>, issuer: &CertificateDer<'_>, now: UnixTime) {
        if self.known(issuer).is_some() {
            return;
        }
        let Some(found) = self.examine(leaf, issuer, now) else { return };
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        if issuers.len() < ISSUERS_MAX && !issuers.iter().any(|known| known.certificate == found.certificate)
        {
            issuers.push(Arc::new(found));
        }
    }

    fn examine(
        &self,
        leaf: &CertificateDer<'_>,
        issuer: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Option<Issuer> {
        let leaf = EndEntityCert::try_from(leaf).ok()?;
        let intermediates = std::slice::from_ref(issuer);
        let usage = KeyUsage::client_auth();
        let path = leaf
            .verify_for_usage(self.algorithms.all, &self.roots.roots, intermediates, now, usage, None, None)
            .ok()?;
        // A certificate that was sent and not needed was not verified.
        let mut used = path.intermediate_certificates();
        if used.next()?.der() != *issuer || used.next().is_some() {
            return None;
        }
        // A root's constraints on names bind the leaf too, and would be left out.
        if path.anchor().name_constraints.is_some() {
            return None;
        }
        let facts = CertificateFacts::parse(issuer).ok()?;
        Some(Issuer {
            anchor: anchor_from_trusted_cert(issuer).ok()?.to_owned(),
            not_before: u64::try_from(facts.not_before).ok()?,
            not_after: u64::try_from(facts.not_after).ok()?,
            certificate: issuer.clone().into_owned(),
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.whole.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let [issuer] = intermediates else {
            return self.whole.verify_client_cert(end_entity, intermediates, now);
        };
        if let Some(known) = self.known(issuer)
            && known.is_valid_at(now)
            && self.stands_below(end_entity, &known, now)
        {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.whole.verify_client_cert(end_entity, intermediates, now)?;
        self.remember(end_entity, issuer, now);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.whole.supported_verify_schemes()
    }
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientVerifier").field("roots", &self.roots.roots.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
        KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
    };

    use super::*;
    use crate::tls::provider;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn authority(name: &str, years: (i32, i32), above: Option<&Authority>) -> Authority {
        authority_with(name, years, above, |_| {})
    }

    fn authority_with(
        name: &str,
        (from, to): (i32, i32),
        above: Option<&Authority>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        match above {
            Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
            None => CertifiedIssuer::self_signed(params, key).unwrap(),
        }
    }

    fn leaf(
        below: &Authority,
        (from, to): (i32, i32),
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["device.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params.signed_by(&KeyPair::generate().unwrap(), below).unwrap().into()
    }

    fn client(below: &Authority) -> CertificateDer<'static> {
        leaf(below, (2020, 2060), ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn verifier(root: &Authority) -> ClientVerifier {
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).unwrap();
        ClientVerifier::new(Arc::new(roots), provider()).unwrap()
    }

    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600 + 100 * 24 * 3_600))
    }

    fn remembered(verifier: &ClientVerifier) -> usize {
        verifier.issuers.read().unwrap().len()
    }

    #[test]
    fn an_authority_is_remembered_and_its_leaves_are_still_verified() {
        let root = authority("root", (2020, 2060), None);
        let issuing = authority("issuing", (2020, 2040), Some(&root));
        let verifier = verifier(&root);
        let chain = [issuing.der().clone()];
        let check =
            |leaf: &CertificateDer<'_>, at| verifier.verify_client_cert(leaf, &chain, year(at)).is_ok();
        assert!(check(&client(&issuing), 2030));
        assert_eq!(remembered(&verifier), 1);
        assert!(check(&client(&issuing), 2030));
        assert_eq!(remembered(&verifier), 1);

        // Its key signed none of these, or they are not what they should be.
        let forged = authority("issuing", (2020, 2040), None);
        assert!(!check(&client(&forged), 2030));
        assert!(!check(&leaf(&issuing, (2020, 2025), ExtendedKeyUsagePurpose::ClientAuth), 2030));
        assert!(!check(&leaf(&issuing, (2035, 2060), ExtendedKeyUsagePurpose::ClientAuth), 2030));
        assert!(!check(&leaf(&issuing, (2020, 2060), ExtendedKeyUsagePurpose::ServerAuth), 2030));
        assert!(!check(issuing.der(), 2030));
        let mut spoilt = client(&issuing).to_vec();
        *spoilt.last_mut().unwrap() ^= 1;
        assert!(!check(&spoilt.into(), 2030));
    }

    #[test]
    fn an_authority_that_is_remembered_is_refused_once_its_time_is_over() {
        let root = authority("root", (2020, 2060), None);
        let issuing = authority("issuing", (2025, 2040), Some(&root));
        let verifier = verifier(&root);
        let (leaf, chain) = (client(&issuing), [issuing.der().clone()]);
        assert!(verifier.verify_client_cert(&leaf, &chain, year(2030)).is_ok());
        assert_eq!(remembered(&verifier), 1);
        for at in [2024, 2041] {
            let error = verifier.verify_client_cert(&leaf, &chain, year(at)).unwrap_err();
            let reason = crate::tls::handshake_reason(&error);
            assert!(reason.contains("expired at") || reason.contains("is valid from"), "{at}: {reason}");
        }
        assert!(verifier.verify_client_cert(&leaf, &chain, year(2039)).is_ok());
    }

    #[test]
    fn only_an_authority_that_the_chain_was_verified_with_is_remembered() {
        let root = authority("root", (2020, 2060), None);
        let stranger = authority("stranger", (2020, 2060), None);
        let verifier = verifier(&root);
        // Directly below the root: what is sent beside it is not looked at, and must not become trusted.
        let chain = [stranger.der().clone()];
        assert!(verifier.verify_client_cert(&client(&root), &chain, year(2030)).is_ok());
        assert_eq!(remembered(&verifier), 0);
        assert!(verifier.verify_client_cert(&client(&stranger), &chain, year(2030)).is_err());
        assert_eq!(remembered(&verifier), 0);
    }

    #[test]
    fn roots_that_constrain_names_are_asked_each_time() {
        let root = authority_with("root", (2020, 2060), None, |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: vec![GeneralSubtree::DnsName("example".to_owned())],
                excluded_subtrees: Vec::new(),
            });
        });
        let issuing = authority("issuing", (2020, 2060), Some(&root));
        let verifier = verifier(&root);
        assert!(verifier.verify_client_cert(&client(&issuing), &[issuing.der().clone()], year(2030)).is_ok());
        assert_eq!(remembered(&verifier), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let root = authority("root", (2020, 2060), None);
        let verifier = verifier(&root);
        for index in 0..ISSUERS_MAX + 2 {
            let issuing = authority(&format!("issuing {index}"), (2020, 2060), Some(&root));
            let chain = [issuing.der().clone()];
            assert!(verifier.verify_client_cert(&client(&issuing), &chain, year(2030)).is_ok());
        }
        assert_eq!(remembered(&verifier), ISSUERS_MAX);
    }
}
