//! Whether an order to decommission is for this device, and by somebody who may give it: the same for boards and hosts.

use alloc::{boxed::Box, vec::Vec};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use thiserror::Error;
use wasmbed_statement::{DeviceUid, SignedOrder, StatementError};
use webpki::KeyUsage;

use crate::{
    chain::Leaf,
    refusal::Refusal,
    spiffe::{Role, SpiffeId},
};

/// Whom an order has to name: the device, as the certificate that it presents says.
#[derive(Clone, Copy, Debug)]
pub struct Addressee<'a> {
    /// Its id.
    pub id: &'a SpiffeId,
    /// The Device's UID, if the certificate has one: those that the signer issued do.
    pub device_uid: Option<DeviceUid>,
}

/// By what a controller's chain is judged.
#[derive(Clone, Copy)]
pub struct OrderRules<'a> {
    /// The roots of the services.
    pub anchors: &'a [TrustAnchor<'a>],
    /// For the certificates.
    pub algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    /// ECDSA on P-256 with SHA-256, for the order itself.
    pub es256: &'a dyn SignatureVerificationAlgorithm,
    /// When.
    pub now: UnixTime,
}

/// Why an order is not followed. Peer: of the gateway that passed it on, or of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderRefusal {
    /// The bytes are no order.
    #[error("not an order: {0}")]
    Statement(#[from] StatementError),
    /// Its signer is no controller of this fleet.
    #[error("{}", .0.describe("signer"))]
    Signer(#[from] Refusal),
    /// Another key signed it, or it was changed.
    #[error("the order is not signed by its signer's key")]
    Signature,
    /// It names another device.
    #[error("the order is for another device than {0}")]
    Device(Box<SpiffeId>),
    /// It names an earlier or later Device of that name.
    #[error("the order is for the Device {ordered}, this one is {own}")]
    DeviceUid {
        /// The Device that it names.
        ordered: DeviceUid,
        /// The Device of the certificate.
        own: DeviceUid,
    },
}

/// Checks an order.
///
/// # Errors
/// It is not to be followed.
pub fn check_order(
    signed: &SignedOrder<'_>,
    to: &Addressee<'_>,
    rules: &OrderRules<'_>,
) -> Result<(), OrderRefusal> {
    let chain: Vec<CertificateDer<'_>> =
        signed.chain().iter().map(|der| CertificateDer::from(*der)).collect();
    let (leaf, above) = chain.split_first().ok_or(Refusal::NoCertificate)?;
    let leaf = Leaf::parse(leaf)?;
    leaf.verify(above, rules.anchors, KeyUsage::client_auth(), rules.algorithms, rules.now)?;
    let id = leaf.spiffe_id().map_err(Refusal::Certificate)?;
    id.require(to.id.trust_domain(), &[Role::Controller])?;
    signed
        .verify(|message, signature| leaf.verify_signature(rules.es256, message, signature))
        .map_err(|_| OrderRefusal::Signature)?;
    let order = signed.order();
    if order.device != to.id.as_str() {
        return Err(OrderRefusal::Device(Box::new(to.id.clone())));
    }
    match to.device_uid {
        Some(own) if own != order.device_uid => {
            Err(OrderRefusal::DeviceUid { ordered: order.device_uid, own })
        }
        Some(_) | None => Ok(()),
    }
}
