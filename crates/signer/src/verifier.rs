//! What a proof proves.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use thiserror::Error;
use wasmbed_control::signer::Evidence;
use wasmbed_identity::{Leaf, PairingKey, Refusal, Role};
use wasmbed_pki::{CertificateFacts, tls};
use wasmbed_protocol::{JoinStatement, KeyHash, encode_join_statement, limits::JOIN_STATEMENT_BYTES_MAX};
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
        examined.unwrap_or_else(Evidence::Refuted)
    }

    fn factory(
        &self,
        asked: &Asked,
        chain: &[CertificateDer<'_>],
        signature: &[u8],
        now: UnixTime,
    ) -> Result<Evidence, String> {
        let leaf = self.below(&self.factory_roots, chain, now)?;
        let id = leaf.factory_id().map_err(|error| error.to_string())?;
        if id.trust_domain() != self.trust_domain {
            return Err(format!("{id} is not of the trust domain {}", self.trust_domain));
        }
        let statement = self.statement(asked)?;
        let signed = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            leaf.verify_signature(*algorithm, &statement, signature).is_ok()
        };
        if !self.algorithms.iter().any(signed) {
            return Err("the signature is not by the factory key over this key and this Device".to_owned());
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
    ) -> Result<Evidence, String> {
        let key = key.ok_or("the pairing token is unknown, used or expired")?;
        if !key.proves(&self.statement(asked)?, mac) {
            return Err("the MAC is not under the pairing token over this key and this Device".to_owned());
        }
        Ok(Evidence::Pairing { id: id.to_owned() })
    }

    fn renewal(
        &self,
        asked: &Asked,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Evidence, String> {
        let leaf = self.below(&self.devices_roots, chain, now)?;
        let id = leaf.spiffe_id().map_err(|error| error.to_string())?;
        let id = id.require(&self.trust_domain, &[Role::Device]).map_err(|refusal| describe(&refusal))?;
        if id.namespace() != asked.device.namespace || id.name() != asked.device.name {
            return Err(format!("the certificate to renew is {id}'s"));
        }
        let facts = CertificateFacts::parse(&chain[0]).map_err(|error| error.to_string())?;
        let device_uid = facts
            .subject_serial
            .map(|serial| serial.parse().map_err(|_| "the certificate's subject serial number is not a UUID"))
            .transpose()?;
        Ok(Evidence::Renewal { device_uid, key: KeyHash::of(&leaf.public_key_info()) })
    }

    fn below<'a>(
        &self,
        anchors: &[TrustAnchor<'_>],
        chain: &'a [CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Leaf<'a>, String> {
        let (leaf, above) = chain.split_first().ok_or("there is no certificate")?;
        let leaf = Leaf::parse(leaf).map_err(|refusal| describe(&refusal))?;
        leaf.verify(above, anchors, KeyUsage::client_auth(), self.algorithms, now)
            .map_err(|refusal| describe(&refusal))?;
        Ok(leaf)
    }

    /// What the proof has to be over: what the request says, in this trust domain.
    fn statement(&self, asked: &Asked) -> Result<Vec<u8>, String> {
        let statement = JoinStatement {
            key: asked.key,
            trust_domain: &self.trust_domain,
            namespace: &asked.device.namespace,
            name: &asked.device.name,
            device_uid: asked.device_uid,
        };
        let mut bytes = vec![0; JOIN_STATEMENT_BYTES_MAX];
        let length = encode_join_statement(&statement, &mut bytes).map_err(|error| error.to_string())?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

fn describe(refusal: &Refusal) -> String {
    refusal.describe("device").to_string()
}

/// Configuration: a root is not a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a trusted root is not a certificate")]
pub struct VerifierError;
