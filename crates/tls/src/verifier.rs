//! Verifies that the other side is a gateway of this device's trust domain.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;

use once_cell::race::OnceBox;
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use wasmbed_identity::{CertificateError, Leaf, Refusal, Role};
use webpki::KeyUsage;

use crate::{
    credentials::Trust, der::Validity, error::TlsError, peer::Gateway, provider::ALGORITHMS, time::Moment,
};

/// The verifier of one session.
pub(crate) struct Verifier {
    trust: Arc<Trust>,
    moment: Moment,
    verdict: OnceBox<Result<Gateway, Refusal>>,
}

impl Verifier {
    pub(crate) fn new(trust: Arc<Trust>, moment: Moment) -> Self {
        Self { trust, moment, verdict: OnceBox::new() }
    }

    /// What became of the gateway's certificate, once it has sent one.
    pub(crate) fn verdict(&self) -> Option<&Result<Gateway, Refusal>> {
        self.verdict.get()
    }

    /// Why a connection failed: the verifier's own reason if it refused.
    pub(crate) fn reason(&self, error: &Error) -> TlsError {
        match self.verdict.get() {
            Some(Err(refusal)) => refusal.clone().into(),
            Some(Ok(_)) | None => TlsError::from_rustls(error),
        }
    }

    fn verify(&self, leaf: &CertificateDer<'_>, above: &[CertificateDer<'_>]) -> Result<Gateway, Refusal> {
        let certificate = Leaf::parse(leaf)?;
        let Validity { not_before, not_after } =
            Validity::of(leaf).ok_or(Refusal::Certificate(CertificateError::Malformed))?;
        let at = when(self.moment, not_before, above);
        let anchors = &self.trust.anchors;
        let anchor = certificate.verify(above, anchors, KeyUsage::server_auth(), ALGORITHMS.all, at)?;
        let id = certificate.spiffe_id()?.require(&self.trust.trust_domain, &[Role::Gateway])?;
        Ok(Gateway { id: id.as_str().into(), not_before, not_after, anchor })
    }
}

/// When a chain is checked whose leaf begins then.
pub(crate) fn when(moment: Moment, not_before: u64, above: &[CertificateDer<'_>]) -> UnixTime {
    // An authority may have been renewed after it signed the leaf.
    let newest = above.iter().filter_map(|der| Validity::of(der)).map(|above| above.not_before).max();
    let at = moment.for_chain(not_before.max(newest.unwrap_or(0)));
    UnixTime::since_unix_epoch(core::time::Duration::from_secs(at))
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
            Err(refusal) => Err(Error::InvalidCertificate(refusal.to_rustls())),
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
