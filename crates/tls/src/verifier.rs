//! Whether who answers is a gateway of this fleet.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

use once_cell::race::OnceBox;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
};
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::{SpiffeId, TlsError, client::Identity, der::Validity, provider::ALGORITHMS, time::Moment};

/// A gateway that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its SPIFFE id.
    pub id: String,
    /// Of its certificate, seconds since 1970-01-01T00:00:00Z.
    pub not_before: u64,
    /// Of its certificate, seconds since 1970-01-01T00:00:00Z.
    pub not_after: u64,
    /// Which of the device's services roots it stands below, counted from 0.
    pub anchor: usize,
}

/// The verifier of one session.
pub(crate) struct Verifier {
    pub(crate) identity: Arc<Identity>,
    pub(crate) moment: Moment,
    pub(crate) verdict: OnceBox<Result<Gateway, TlsError>>,
}

impl Verifier {
    /// Why a connection failed: the verifier's own words if it refused.
    pub(crate) fn reason(&self, error: &Error) -> TlsError {
        match self.verdict.get() {
            Some(Err(refused)) => refused.clone(),
            Some(Ok(_)) | None => TlsError::from_rustls(error),
        }
    }

    fn verify(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<Gateway, TlsError> {
        let malformed = TlsError::Certificate("it is no certificate of X.509 version 3");
        let certificate = EndEntityCert::try_from(leaf).map_err(|error| refusal(&error))?;
        let validity = Validity::of(leaf).ok_or(malformed)?;
        // An authority may have been renewed after it signed the leaf.
        let newest = above.iter().filter_map(|der| Validity::of(der)).map(|above| above.not_before).max();
        let at = self.moment.for_chain(validity.not_before.max(newest.unwrap_or(0)));
        let at = UnixTime::since_unix_epoch(core::time::Duration::from_secs(at));
        let anchors = &self.identity.anchors;
        let usage = KeyUsage::server_auth();
        let path = certificate
            .verify_for_usage(ALGORITHMS.all, anchors, above, at, usage, None, None)
            .map_err(|error| refusal(&error))?;
        let anchor = anchors.iter().position(|anchor| is_same(anchor, path.anchor())).unwrap_or(0);
        let id = spiffe_id(&certificate).map_err(TlsError::Certificate)?;
        if id.trust_domain() != self.identity.id.trust_domain() {
            return Err(TlsError::TrustDomain { id: TlsError::shown(id.as_str()) });
        }
        if id.role() != "gateway" {
            return Err(TlsError::Role { id: TlsError::shown(id.as_str()) });
        }
        let Validity { not_before, not_after } = validity;
        Ok(Gateway { id: id.as_str().into(), not_before, not_after, anchor })
    }
}

/// The one SPIFFE id of a certificate.
pub(crate) fn spiffe_id(certificate: &EndEntityCert<'_>) -> Result<SpiffeId, &'static str> {
    let mut uris = certificate.valid_uri_names();
    match (uris.next(), uris.next()) {
        (Some(uri), None) => SpiffeId::parse(uri).ok_or("its URI is no SPIFFE id of Wasmbed"),
        (None, _) => Err("it has no SPIFFE id"),
        (Some(_), Some(_)) => Err("it has more than one SPIFFE id"),
    }
}

fn is_same(one: &TrustAnchor<'_>, other: &TrustAnchor<'_>) -> bool {
    one.subject == other.subject && one.subject_public_key_info == other.subject_public_key_info
}

/// What webpki refuses a chain for.
fn refusal(error: &webpki::Error) -> TlsError {
    use webpki::Error as Bad;
    match error {
        Bad::CertExpired { time, not_after } => {
            TlsError::Expired { not_after: not_after.as_secs(), now: time.as_secs() }
        }
        Bad::CertNotValidYet { time, not_before } => {
            TlsError::NotYetValid { not_before: not_before.as_secs(), now: time.as_secs() }
        }
        // Another fleet's root may have the same name; then it is the signature that tells.
        Bad::UnknownIssuer | Bad::InvalidSignatureForPublicKey => TlsError::Issuer,
        Bad::EndEntityUsedAsCa => TlsError::NoAuthority,
        Bad::CaUsedAsEndEntity => TlsError::AuthorityAsGateway,
        Bad::RequiredEkuNotFoundContext(_) | Bad::EmptyEkuExtension => TlsError::Purpose,
        Bad::NameConstraintViolation => TlsError::Certificate("its authority may not sign this name"),
        Bad::PathLenConstraintViolated => TlsError::Certificate("more authorities in a row than are allowed"),
        Bad::UnsupportedSignatureAlgorithmContext(_)
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            TlsError::Certificate("it is not signed with ECDSA P-256 and SHA-256")
        }
        Bad::UnsupportedCriticalExtension => {
            TlsError::Certificate("it has a critical extension that is not known")
        }
        Bad::MaximumPathBuildCallsExceeded
        | Bad::MaximumPathDepthExceeded
        | Bad::MaximumSignatureChecksExceeded
        | Bad::MaximumNameConstraintComparisonsExceeded => TlsError::Certificate("its chain is too long"),
        _ => TlsError::Certificate("it is not in order"),
    }
}

/// What the gateway is told: an alert follows from it.
fn alert(error: &TlsError) -> CertificateError {
    match error {
        TlsError::Issuer | TlsError::NoAuthority => CertificateError::UnknownIssuer,
        TlsError::Expired { .. } => CertificateError::Expired,
        TlsError::NotYetValid { .. } => CertificateError::NotValidYet,
        TlsError::Purpose | TlsError::AuthorityAsGateway => CertificateError::InvalidPurpose,
        TlsError::TrustDomain { .. } | TlsError::Role { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        _ => CertificateError::BadEncoding,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = self.verify(end_entity, intermediates);
        let answer = match &found {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(error) => Err(Error::InvalidCertificate(alert(error))),
        };
        // A handshake has one certificate message; a second verdict would find the first in its place.
        self.verdict.set(Box::new(found)).map_err(|_| Error::General(String::new()))?;
        answer
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &ALGORITHMS)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ALGORITHMS.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("moment", &self.moment).finish_non_exhaustive()
    }
}
