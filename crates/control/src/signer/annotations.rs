//! What a request's annotations say of it. None of them is believed, and nothing in them is decoded here.

use std::collections::BTreeMap;

use thiserror::Error;
use wasmbed_api::request_annotation as annotation;
use wasmbed_protocol::DeviceUid;

use crate::ObjectKey;

/// What the annotations of a request say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotated<'a> {
    /// The Device that the certificate is to name.
    pub device: ObjectKey,
    /// Its UID, as whoever wrote the request saw it.
    pub device_uid: DeviceUid,
    /// What speaks for it.
    pub spoken: Spoken<'a>,
}

/// What speaks for a request, as its annotations have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken<'a> {
    /// Nothing.
    None,
    /// A signature by a factory key.
    Factory {
        /// PEM of the factory certificate, then of the authorities below the factory root.
        chain: &'a str,
        /// Base64 of the signature.
        signature: &'a str,
    },
    /// A MAC under a token's key.
    Pairing {
        /// Id of the token.
        id: &'a str,
        /// Base64 of the MAC.
        mac: &'a str,
    },
    /// The certificate that is to be renewed; the request itself is signed by its key.
    Renewal {
        /// PEM of the certificate, then of its authority.
        chain: &'a str,
    },
}

impl<'a> Annotated<'a> {
    /// Reads a request's annotations.
    ///
    /// # Errors
    /// What is needed is missing, or is not what it has to be.
    pub fn read(annotations: Option<&'a BTreeMap<String, String>>) -> Result<Self, AnnotationFlaw> {
        let value = |name: &'static str| {
            annotations.and_then(|annotations| annotations.get(name)).map(String::as_str)
        };
        let flaw = |name, problem| AnnotationFlaw::Annotation { name, problem };
        let present = |name| value(name).ok_or_else(|| flaw(name, "is missing"));
        let device = present(annotation::DEVICE)?;
        let (namespace, name) =
            device.split_once('/').ok_or_else(|| flaw(annotation::DEVICE, "is not namespace/name"))?;
        let device_uid = present(annotation::DEVICE_UID)?
            .parse()
            .map_err(|_| flaw(annotation::DEVICE_UID, "is not a UUID"))?;
        let named =
            [annotation::RENEWS, annotation::JOIN_PROOF, annotation::FACTORY_CHAIN, annotation::PAIRING_ID];
        let spoken = match named.map(value) {
            [None, None, _, _] => Spoken::None,
            [Some(chain), None, None, None] => Spoken::Renewal { chain },
            [None, Some(signature), Some(chain), None] => Spoken::Factory { chain, signature },
            [None, Some(mac), None, Some(id)] => Spoken::Pairing { id, mac },
            _ => return Err(AnnotationFlaw::Proofs),
        };
        Ok(Self { device: ObjectKey::new(namespace, name), device_uid, spoken })
    }
}

/// Annotations can't be used, ever. Whoever wrote them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AnnotationFlaw {
    /// One that is needed is missing, or is not what it has to be.
    #[error("annotation {name} {problem}")]
    Annotation {
        /// Which.
        name: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// More than one kind of proof, or half of one.
    #[error(
        "its annotations are no proof of one kind: a join proof goes with a factory chain or a pairing id, a renewal with neither"
    )]
    Proofs,
}
