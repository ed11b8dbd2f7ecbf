//! What stands for certificates, requests and proofs of devices that join. Nothing is signed: whoever knows the name of a key could make
//! all of it, and nobody here does who does not hold the key.
//!
//! The API takes requests and certificates that can be parsed and no others. So each is a real one, the same for all, and what it stands for
//! is in the line above it, where PEM allows what it does not read (RFC 7468 section 2).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use wasmbed_agent::{ChainFacts, Provisioned};
use wasmbed_control::{
    ObjectKey,
    gateway::{Issued, RequestFlaw},
    signer::{Annotated, Evidence, Spoken},
};
use wasmbed_protocol::{DeviceUid, KeyHash};
use wasmbed_supervisor::memory::identity;

use crate::api::NAMESPACE;

const REQUEST: &str = include_str!("certificates/request.pem");
const CERTIFICATE: &str = include_str!("certificates/certificate.pem");
const STANDS_FOR: &str = "stands for ";
const FACTORY: &[u8] = b"factory certificate:";

/// A device's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Name of the Device.
    pub(crate) name: String,
    pub(crate) device_uid: DeviceUid,
    pub(crate) public_key: Vec<u8>,
    pub(crate) facts: ChainFacts,
}

impl Certificate {
    pub(crate) fn key(&self) -> KeyHash {
        KeyHash::of(&self.public_key)
    }

    /// What the device presents, and reads itself: what it does not read stands behind that.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = identity::chain(self.key(), self.facts, 0);
        bytes.extend(self.device_uid.0);
        // A name is a DNS label.
        bytes.push(self.name.len() as u8);
        bytes.extend(self.name.as_bytes());
        bytes.extend(&self.public_key);
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (key, facts) = identity::read_chain(bytes)?;
        let rest = bytes.get(identity::chain(key, facts, 0).len()..)?;
        let (uid, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (name, public_key) = rest.split_at_checked(usize::from(*length))?;
        let certificate = Self {
            name: String::from_utf8(name.to_vec()).ok()?,
            device_uid: DeviceUid(*uid),
            public_key: public_key.to_vec(),
            facts,
        };
        (certificate.key() == key).then_some(certificate)
    }

    /// For a gateway.
    pub(crate) fn issued(pem: &[u8]) -> Result<Issued, &'static str> {
        let bytes = standing_for(pem).ok_or("it stands for nothing")?;
        let certificate = Self::read(&bytes).ok_or("it is no certificate")?;
        Ok(Issued {
            key: certificate.key(),
            device: Some(ObjectKey::new(NAMESPACE, certificate.name.as_str())),
            not_after_unix_s: certificate.facts.not_after_s,
            chain: [bytes].into(),
        })
    }

    /// For the status of a request.
    pub(crate) fn to_pem(&self) -> String {
        pem("CERTIFICATE", &[&self.to_bytes()])
    }
}

/// The key that a factory gave the device of this serial.
pub(crate) fn factory_key(serial: &str) -> KeyHash {
    KeyHash::of(format!("factory key of {serial}").as_bytes())
}

/// What the device of this serial presents until it has joined.
pub(crate) fn factory_certificate(serial: &str) -> Vec<u8> {
    [FACTORY, serial.as_bytes()].concat()
}

/// Writes blocks of a label.
pub(crate) fn pem(label: &'static str, blocks: &[&[u8]]) -> String {
    let valid = if label == "CERTIFICATE" { CERTIFICATE } else { REQUEST };
    blocks.iter().map(|block| format!("{STANDS_FOR}{}\n{valid}", BASE64_STANDARD.encode(block))).collect()
}

/// What the first block stands for.
fn standing_for(pem: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(pem).ok()?;
    BASE64_STANDARD.decode(text.strip_prefix(STANDS_FOR)?.lines().next()?).ok()
}

/// For a gateway: the key of a device's own request.
pub(crate) fn read_request(request: &[u8]) -> Result<KeyHash, RequestFlaw> {
    identity::requested_key(request).ok_or_else(|| RequestFlaw("it is none".to_owned()))
}

/// The public key in `spec.request`.
pub(crate) fn requested_public_key(pem: &[u8]) -> Option<Vec<u8>> {
    identity::requested_public_key(&standing_for(pem)?).map(<[u8]>::to_vec)
}

/// What speaks for a request, as a signer finds out. `knows_token`: the Secret of the token that it names is there.
pub(crate) fn examine(asked: &Annotated<'_>, key: KeyHash, knows_token: bool, unix_s: u64) -> Evidence {
    let refuted = |why: &str| Evidence::Refuted(why.to_owned());
    let proves = |by: &Provisioned, given: &str| {
        let ObjectKey { namespace, name } = &asked.device;
        let proof = identity::proof(by, key, namespace, name, asked.device_uid);
        proof.is_some_and(|proof| BASE64_STANDARD.encode(proof) == given)
    };
    match asked.spoken {
        Spoken::None => Evidence::None,
        Spoken::Factory { chain, signature } => {
            let certificate = standing_for(chain.as_bytes()).unwrap_or_default();
            let serial = certificate.strip_prefix(FACTORY).map(String::from_utf8_lossy);
            let Some(serial) = serial else { return refuted("it is by no factory") };
            let factory_key = factory_key(&serial);
            if !proves(&Provisioned::Factory { key: factory_key }, signature) {
                return refuted("it is not by the factory key");
            }
            Evidence::Factory { device_name: serial.to_string(), serial: serial.into_owned(), factory_key }
        }
        Spoken::Pairing { id, .. } if !knows_token => refuted(&format!("{id} is unknown, or used")),
        Spoken::Pairing { id, mac } if proves(&Provisioned::Pairing { id: id.to_owned() }, mac) => {
            Evidence::Pairing { id: id.to_owned() }
        }
        Spoken::Pairing { .. } => refuted("it is not by the token"),
        Spoken::Renewal { chain } => {
            let bytes = standing_for(chain.as_bytes()).unwrap_or_default();
            let certificate = Certificate::read(&bytes);
            let renewed = certificate.filter(|certificate| {
                certificate.name == asked.device.name && certificate.facts.not_after_s > unix_s
            });
            match renewed {
                Some(renewed) => {
                    Evidence::Renewal { device_uid: Some(renewed.device_uid), key: renewed.key() }
                }
                None => refuted("it is no certificate of this Device that lasts"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_as_it_was_written_and_is_its_key_s() {
        let facts = ChainFacts { not_before_s: 5, not_after_s: 9 };
        let (name, device_uid) = ("device-1".to_owned(), DeviceUid([7; 16]));
        let certificate = Certificate { name, device_uid, public_key: b"key".to_vec(), facts };
        let bytes = certificate.to_bytes();
        assert_eq!(Certificate::read(&bytes), Some(certificate.clone()));
        let issued = Certificate::issued(certificate.to_pem().as_bytes()).unwrap();
        assert_eq!((issued.key, issued.chain.concat()), (certificate.key(), bytes.clone()));
        let swapped = [&bytes[..bytes.len() - 3], b"abc"].concat();
        assert_eq!(Certificate::read(&swapped), None);
    }
}
