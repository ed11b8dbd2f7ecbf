//! What a proof proves.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use thiserror::Error;
use wasmbed_control::signer::Evidence;
use wasmbed_identity::{CertificateError, Leaf, PairingKey, Refusal, Role};
use wasmbed_pki::{CertificateFacts, tls};
use wasmbed_protocol::{
    EncodeError, JoinStatement, KeyHash, encode_join_statement, limits::JOIN_STATEMENT_BYTES_MAX,
};
use webpki::{KeyUsage, anchor_from_trusted_cert};

use crate::request::{Asked, Proof};

/// Verifies proofs for one trust domain.
pub struct Verifier {
    trust_domain: String,
    factory_roots: Vec<TrustAnchor<'static>>,
    devices_roots: Vec<TrustAnchor<'static>>,
    algorithms: &'static [&'static dyn SignatureVerificationAlgorithm],
}

impl Verifier {
    /// `factory_roots` may be empty: then no factory certificate counts.
    ///
    /// # Errors
    /// A root is not a certificate.
    pub fn new(
        trust_domain: &str,
        factory_roots: &[CertificateDer<'_>],
        devices_roots: &[CertificateDer<'_>],
    ) -> Result<Self, VerifierError> {
        let anchors = |roots: &[CertificateDer<'_>]| {
            let anchor = |root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned());
            roots.iter().map(anchor).collect::<Result<Vec<_>, _>>().map_err(|_| VerifierError)
        };
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            factory_roots: anchors(factory_roots)?,
            devices_roots: anchors(devices_roots)?,
            algorithms: tls::provider().signature_verification_algorithms.all,
        })
    }

    /// What speaks for a request. `pairing` is the key of the token that it names, if there is one; `now_s` are seconds since
    /// 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn examine(&self, asked: &Asked, pairing: Option<&PairingKey>, now_s: u64) -> Evidence {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
        let examined = match &asked.proof {
            Proof::None => Ok(Evidence::None),
            Proof::Factory { chain, signature } => self.factory(asked, chain, signature, now),
            Proof::Pairing { id, mac } => self.pairing(asked, id, mac, pairing),
            Proof::Renewal { chain } => self.renewal(asked, chain, now),
        };
        examined.unwrap_or_else(|flaw| Evidence::Refuted(flaw.to_string()))
    }

    fn factory(
        &self,
        asked: &Asked,
        chain: &[CertificateDer<'_>],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<Evidence, Flaw> {
        let leaf = self.below(&self.factory_roots, chain, now)?;
        let id = leaf.factory_id()?;
        if id.trust_domain() != self.trust_domain {
            return Err(Flaw::TrustDomain { id: id.to_string(), expected: self.trust_domain.clone() });
        }
        let statement = self.statement(asked)?;
        let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            leaf.verify_signature(*algorithm, &statement, signature).is_ok()
        };
        if !self.algorithms.iter().any(signed) {
            return Err(Flaw::Signature);
        }
        Ok(Evidence::Factory {
            serial: id.serial().to_owned(),
            device_name: id.device_name(),
            factory_key: KeyHash::of(&leaf.public_key_info()),
        })
    }

    fn pairing(
        &self,
        asked: &Asked,
        id: &str,
        mac: &[u8],
        key: Option<&PairingKey>,
    ) -> Result<Evidence, Flaw> {
        let key = key.ok_or(Flaw::Token)?;
        if !key.proves(&self.statement(asked)?, mac) {
            return Err(Flaw::Mac);
        }
        Ok(Evidence::Pairing { id: id.to_owned() })
    }

    fn renewal(&self, asked: &Asked, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Evidence, Flaw> {
        let leaf = self.below(&self.devices_roots, chain, now)?;
        let id = leaf.spiffe_id()?;
        let id = id.require(&self.trust_domain, &[Role::Device])?;
        if id.namespace() != asked.device.namespace || id.name() != asked.device.name {
            return Err(Flaw::OtherDevice(id.to_string()));
        }
        let facts = CertificateFacts::parse(&chain[0])?;
        let device_uid =
            facts.subject_serial.map(|serial| serial.parse().map_err(|_| Flaw::SubjectSerial)).transpose()?;
        Ok(Evidence::Renewal { device_uid, key: KeyHash::of(&leaf.public_key_info()) })
    }

    fn below<'a>(
        &self,
        anchors: &[TrustAnchor<'_>],
        chain: &'a [CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf<'a>, Flaw> {
        let (leaf, above) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let leaf = Leaf::parse(leaf)?;
        leaf.verify(above, anchors, KeyUsage::client_auth(), self.algorithms, now)?;
        Ok(leaf)
    }

    /// What the proof has to be over: what the request says, in this trust domain.
    fn statement(&self, asked: &Asked) -> Result<Vec<u8>, Flaw> {
        let statement = JoinStatement {
            key: asked.key,
            trust_domain: &self.trust_domain,
            namespace: &asked.device.namespace,
            name: &asked.device.name,
            device_uid: asked.device_uid,
        };
        let mut bytes = vec![0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// Why a proof does not hold; the peer, or the gateway that passed it on, is at fault.
#[derive(Debug, Error)]
enum Flaw {
    #[error("{}", .0.describe("device"))]
    Chain(#[from] Refusal),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("{id} is not of the trust domain {expected}")]
    TrustDomain { id: String, expected: String },
    #[error("the signature is not by the factory key over this key and this Device")]
    Signature,
    #[error("the pairing token is unknown, used or expired")]
    Token,
    #[error("the MAC is not under the pairing token over this key and this Device")]
    Mac,
    #[error("the certificate to renew is {0}'s")]
    OtherDevice(String),
    #[error("the certificate's subject serial number is not a UUID")]
    SubjectSerial,
    #[error("no proof can be over this Device: {0}")]
    Statement(#[from] EncodeError),
}

/// Configuration: a root is not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a trusted root is not a certificate")]
pub struct VerifierError;
