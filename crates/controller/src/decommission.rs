//! Orders to take devices out of service, signed with the controller's own key, and proofs of devices, verified.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use thiserror::Error;
use wasmbed_api::Erased;
use wasmbed_control::{
    ObjectKey,
    fleet::{Order, ProofCheck, ProofEvidence},
    gateway_api::DecommissionOrder,
};
use wasmbed_pki::{DeviceKey, Identity, PkiError, Role, SpiffeError, SpiffeId, is_signed_by};
use wasmbed_statement as statement;

/// Why an order could not be made.
#[derive(Debug, Error)]
pub(crate) enum OrderError {
    /// The Device has a name that no certificate can have.
    #[error("{0}")]
    Name(#[from] SpiffeError),
    /// Configuration: the controller's key is no ECDSA key on P-256.
    #[error("the controller's key: {0}")]
    Key(PkiError),
    /// Configuration: another kind of key, or too large a chain.
    #[error(transparent)]
    Sign(#[from] statement::SignError<PkiError>),
}

/// 16 bytes, of which 122 bits are random (RFC 9562, section 5.4).
pub(crate) fn draw() -> [u8; 16] {
    *uuid::Uuid::new_v4().as_bytes()
}

/// An order is signed anew after this long, so that it carries a certificate that is valid.
const SIGNED_FOR: Duration = Duration::from_secs(3_600);

/// Orders as they were signed: signatures differ each time, and a device would be given another order whenever those of others
/// change. As many as were sent within the hour.
#[derive(Default)]
pub(crate) struct Signed(Mutex<BTreeMap<ObjectKey, Kept>>);

struct Kept {
    order: Order,
    signed: String,
    at: Instant,
}

impl Signed {
    fn forget_old(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, kept| kept.at.elapsed() < SIGNED_FOR);
    }

    fn get(&self, order: &Order) -> Option<String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&order.device).filter(|kept| kept.order == *order).map(|kept| kept.signed.clone())
    }

    fn keep(&self, order: &Order, signed: &str) {
        let new = Kept { order: order.clone(), signed: signed.to_owned(), at: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(order.device.clone(), new);
    }
}

/// The orders, each signed by `identity` with its chain.
pub(crate) fn sign(
    before: &Signed,
    identity: &Identity,
    trust_domain: &str,
    orders: &[Order],
) -> Result<Vec<DecommissionOrder>, OrderError> {
    let key = DeviceKey::of(identity).map_err(OrderError::Key)?;
    let certificates = identity.chain();
    let chain: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    before.forget_old();
    let signed = orders.iter().map(|order| {
        if let Some(signed) = before.get(order) {
            return Ok(DecommissionOrder { device: order.device.clone(), order: signed });
        }
        let Order { device, device_uid, nonce } = order;
        let id = SpiffeId::new(trust_domain, &device.namespace, Role::Device, &device.name)?.to_string();
        let said = statement::Order { device: &id, device_uid: *device_uid, nonce: *nonce };
        let bytes = said.sign(&chain, |message| key.sign(message))?;
        let signed = STANDARD.encode(bytes);
        before.keep(order, &signed);
        Ok(DecommissionOrder { device: device.clone(), order: signed })
    });
    signed.collect()
}

/// What a proof is: whether it is signed by the key that its device has to have.
pub(crate) fn verify(check: &ProofCheck) -> ProofEvidence {
    examine(check).unwrap_or_else(|flaw| ProofEvidence::Refuted(flaw.to_string()))
}

/// Why a proof does not count; the device, or the gateway that passed it on, is at fault.
#[derive(Debug, Error)]
enum Flaw {
    #[error("it is not base64")]
    Base64(#[from] base64::DecodeError),
    #[error(transparent)]
    Statement(#[from] statement::StatementError),
    #[error("it is not signed by the Device's key (spec.public_key, or status.public_key)")]
    Signature,
}

fn examine(check: &ProofCheck) -> Result<ProofEvidence, Flaw> {
    let (proof, key) = (STANDARD.decode(&check.proof)?, STANDARD.decode(&check.key)?);
    let signed = statement::SignedProof::decode(&proof)?;
    signed.verify(
        |message, signature| {
            if is_signed_by(&key, message, signature) { Ok(()) } else { Err(Flaw::Signature) }
        },
    )?;
    let said = signed.proof();
    Ok(ProofEvidence::Signed { device_uid: said.device_uid, nonce: said.nonce, erased: erased(said.erased) })
}

/// What of it this version knows.
fn erased(bits: statement::Erased) -> Vec<Erased> {
    let known = [
        (statement::Erased::ASSIGNMENTS, Erased::Assignments),
        (statement::Erased::MODULES, Erased::Modules),
        (statement::Erased::KEY_VALUE_DATA, Erased::KeyValueData),
    ];
    known.into_iter().filter(|(bit, _)| bits.contains(*bit)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use wasmbed_pki::Authorities;
    use wasmbed_protocol::{DeviceUid, Nonce};

    use super::*;

    const UID: DeviceUid = DeviceUid([1; 16]);
    const NONCE: Nonce = Nonce([2; 16]);

    fn authorities() -> (tempfile::TempDir, Authorities) {
        let folder = tempfile::tempdir().unwrap();
        let authorities = Authorities::create_or_open(&folder.path().join("pki"), "example").unwrap();
        (folder, authorities)
    }

    #[test]
    fn an_order_carries_the_controller_s_chain_and_names_the_device() {
        let (_folder, authorities) = authorities();
        let controller = authorities.issue_controller("wasmbed-system", "c").unwrap();
        let order = Order { device: ObjectKey::new("default", "pump"), device_uid: UID, nonce: NONCE };
        let before = Signed::default();
        let signed = sign(&before, &controller, "example", std::slice::from_ref(&order)).unwrap();
        let again = sign(&before, &controller, "example", std::slice::from_ref(&order)).unwrap();
        assert_eq!(again, signed, "it is the same order for the device");
        let other = Order { nonce: Nonce([3; 16]), ..order.clone() };
        assert_ne!(sign(&before, &controller, "example", &[other]).unwrap(), signed);
        assert_eq!(signed[0].device, order.device);
        let bytes = STANDARD.decode(&signed[0].order).unwrap();
        let read = statement::SignedOrder::decode(&bytes).unwrap();
        assert_eq!(read.order().device, "spiffe://example/ns/default/device/pump");
        assert_eq!((read.order().device_uid, read.order().nonce), (UID, NONCE));
        let chain: Vec<&[u8]> = read.chain().to_vec();
        assert_eq!(chain, controller.chain().iter().map(AsRef::as_ref).collect::<Vec<&[u8]>>());
        let by_it = |message: &[u8], signature: &[u8]| {
            is_signed_by(&controller.facts().public_key, message, signature).then_some(()).ok_or(())
        };
        assert_eq!(read.verify(by_it), Ok(()));
    }

    fn proof_by(key: &DeviceKey) -> String {
        let proof = statement::Proof { device_uid: UID, nonce: NONCE, erased: statement::Erased::ALL };
        STANDARD.encode(proof.sign(|message| key.sign(message)).unwrap())
    }

    fn check(key: &DeviceKey, proof: String) -> ProofCheck {
        ProofCheck {
            gateway: "g".to_owned(),
            device: ObjectKey::new("default", "pump"),
            key: STANDARD.encode(key.public_key_info()),
            proof,
        }
    }

    #[test]
    fn a_proof_counts_by_the_device_s_key_alone() {
        let (device, gateway) = (DeviceKey::generate().unwrap(), DeviceKey::generate().unwrap());
        let erased = vec![Erased::Assignments, Erased::Modules, Erased::KeyValueData];
        let signed = ProofEvidence::Signed { device_uid: UID, nonce: NONCE, erased };
        assert_eq!(verify(&check(&device, proof_by(&device))), signed);
        // A gateway can sign with whatever keys it has.
        let refuted = |proof: String, why: &str| match verify(&check(&device, proof)) {
            ProofEvidence::Refuted(said) => assert!(said.contains(why), "{said}"),
            ProofEvidence::Signed { .. } => panic!("it is no proof of this device: {why}"),
        };
        refuted(proof_by(&gateway), "not signed by the Device's key");
        // Or change what the device signed.
        let mut changed = STANDARD.decode(proof_by(&device)).unwrap();
        let place = changed.windows(16).position(|bytes| bytes == NONCE.0).unwrap();
        changed[place] ^= 1;
        refuted(STANDARD.encode(changed), "not signed by the Device's key");
        refuted("?".to_owned(), "not base64");
        refuted(STANDARD.encode(b"proof"), "COSE_Sign1");
    }
}
