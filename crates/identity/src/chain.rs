//! A peer's certificate and the chain above it.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::factory::FactoryId;
use crate::operator::OperatorId;
use crate::refusal::{CertificateError, Refusal};
use crate::spiffe::{Role, SpiffeId};

/// What stands before the 65 bytes of an uncompressed point in the DER `SubjectPublicKeyInfo` of an ECDSA P-256 key (RFC 5480).
pub const P256_KEY_INFO_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A peer's own certificate: the first of its chain.
pub struct Leaf<'a>(EndEntityCert<'a>);

impl<'a> Leaf<'a> {
    /// Reads a DER certificate; nothing of it is verified.
    ///
    /// # Errors
    /// It can't be understood.
    pub fn parse(der: &'a CertificateDer<'a>) -> Result<Self, Refusal> {
        EndEntityCert::try_from(der).map(Self).map_err(|error| Refusal::from(&error))
    }

    /// Its `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn public_key_info(&self) -> rustls_pki_types::SubjectPublicKeyInfoDer<'static> {
        self.0.subject_public_key_info()
    }

    /// Its one SPIFFE id.
    ///
    /// # Errors
    /// It names no URI or several, or one that is not an id of Wasmbed.
    pub fn spiffe_id(&self) -> Result<SpiffeId, CertificateError> {
        Ok(self.uri()?.parse()?)
    }

    /// Its one id from a factory.
    ///
    /// # Errors
    /// It names no URI or several, or one that is not such an id.
    pub fn factory_id(&self) -> Result<FactoryId, CertificateError> {
        Ok(self.uri()?.parse()?)
    }

    /// Its one id of a person who uses gateways.
    ///
    /// # Errors
    /// It names no URI or several, or one that is not such an id.
    pub fn operator_id(&self) -> Result<OperatorId, CertificateError> {
        Ok(self.uri()?.parse()?)
    }

    fn uri(&self) -> Result<&str, CertificateError> {
        let mut uris = self.0.valid_uri_names();
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Ok(uri),
            (first, second) => {
                let counted = usize::from(first.is_some()) + usize::from(second.is_some());
                Err(CertificateError::UriCount(counted + uris.count()))
            }
        }
    }

    /// Verifies a signature over a message by this certificate's key.
    ///
    /// # Errors
    /// It is another's, over another message, or not of this algorithm.
    pub fn verify_signature(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        self.0.verify_signature(algorithm, message, signature).map_err(|error| Refusal::from(&error))
    }

    /// Verifies the chain at a moment and returns the index of the trust anchor that it ends at.
    ///
    /// # Errors
    /// There is no chain to an anchor, or something in it is not valid then, or not for this usage.
    pub fn verify(
        &self,
        above: &[CertificateDer<'_>],
        anchors: &[TrustAnchor<'_>],
        usage: KeyUsage,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        now: UnixTime,
    ) -> Result<usize, Refusal> {
        let path = self
            .0
            .verify_for_usage(algorithms, anchors, above, now, usage, None, None)
            .map_err(|error| Refusal::from(&error))?;
        let anchor = anchors.iter().position(|anchor| is_same(anchor, path.anchor()));
        debug_assert!(anchor.is_some(), "a path ends at one of the anchors");
        Ok(anchor.unwrap_or(0))
    }
}

impl core::fmt::Debug for Leaf<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Leaf")
    }
}

fn is_same(one: &TrustAnchor<'_>, other: &TrustAnchor<'_>) -> bool {
    one.subject == other.subject && one.subject_public_key_info == other.subject_public_key_info
}

impl SpiffeId {
    /// The id, if it is of this trust domain and has one of these roles.
    ///
    /// # Errors
    /// It is of another trust domain, or has another role.
    pub fn require(self, trust_domain: &str, roles: &'static [Role]) -> Result<Self, Refusal> {
        if self.trust_domain() != trust_domain {
            return Err(Refusal::TrustDomain { id: self.into(), expected: trust_domain.into() });
        }
        if !roles.contains(&self.role()) {
            return Err(Refusal::Role { id: self.into(), expected: roles });
        }
        Ok(self)
    }
}
