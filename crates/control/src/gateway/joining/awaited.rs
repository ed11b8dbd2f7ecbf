//! What a request waits for, in the words of its device and of its Device.

use std::fmt;

use wasmbed_api::ReasonCode;
use wasmbed_protocol::KeyHash;

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// Nobody vouches for its key: a person who compares it.
    KeyConfirmation(KeyHash),
    /// The Device's approval.
    DeviceApproval,
    /// Its own, which follows from the Device's where a controller runs.
    RequestApproval,
    /// The signer.
    Signature,
}

/// What is known of a request and its Device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// Of the request.
    pub(super) key: KeyHash,
    /// The request carries a proof.
    pub(super) is_proven: bool,
    /// The Device's `confirmed_key`.
    pub(super) confirmed: Option<KeyHash>,
    /// The Device's `approved`.
    pub(super) device_approved: bool,
    /// Whether the request is approved.
    pub(super) request_approved: bool,
}

pub(super) fn plan_awaited(standing: &Standing) -> Awaited {
    let Standing { key, is_proven, confirmed, device_approved, request_approved } = *standing;
    if !is_proven && confirmed != Some(key) {
        Awaited::KeyConfirmation(key)
    } else if !device_approved {
        Awaited::DeviceApproval
    } else if !request_approved {
        Awaited::RequestApproval
    } else {
        Awaited::Signature
    }
}

impl Awaited {
    /// What the Device's condition gives as its reason: what a person is to do there, or that nothing is.
    pub(super) fn shown(self) -> ReasonCode {
        match self {
            Self::KeyConfirmation(_) => ReasonCode::KeyNotConfirmed,
            Self::DeviceApproval => ReasonCode::PendingApproval,
            Self::RequestApproval | Self::Signature => ReasonCode::Approved,
        }
    }

    /// The condition's message.
    pub(super) fn sentence(self) -> String {
        match self {
            Self::KeyConfirmation(key) => format!(
                "The device joins without a proof. Compare the fingerprint of its key, sha256:{key}, with what the device shows, and set spec.confirmed_key to {key}."
            ),
            Self::DeviceApproval | Self::RequestApproval | Self::Signature => {
                self.shown().sentence().to_owned()
            }
        }
    }
}

/// For the device: at most what an answer carries.
impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyConfirmation(key) => write!(f, "a person has to confirm this key: sha256:{key}"),
            Self::DeviceApproval => f.write_str("the Device waits for approval"),
            Self::RequestApproval => f.write_str("the CertificateSigningRequest waits for approval"),
            Self::Signature => f.write_str("the signer has not issued the certificate yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmbed_protocol::limits::DETAIL_BYTES_MAX;

    use super::*;

    const KEY: KeyHash = KeyHash([0xab; 32]);

    #[test]
    fn what_comes_first_is_said_first() {
        let all = Standing {
            key: KEY,
            is_proven: false,
            confirmed: Some(KeyHash([1; 32])),
            device_approved: false,
            request_approved: false,
        };
        assert_eq!(plan_awaited(&all), Awaited::KeyConfirmation(KEY));
        let confirmed = Standing { confirmed: Some(KEY), ..all };
        assert_eq!(plan_awaited(&confirmed), Awaited::DeviceApproval);
        let proven = Standing { is_proven: true, ..all };
        assert_eq!(plan_awaited(&proven), Awaited::DeviceApproval);
        let approved = Standing { device_approved: true, ..proven };
        assert_eq!(plan_awaited(&approved), Awaited::RequestApproval);
        assert_eq!(plan_awaited(&Standing { request_approved: true, ..approved }), Awaited::Signature);
    }

    #[test]
    fn the_device_and_its_owner_are_told_the_whole_fingerprint() {
        let awaited = Awaited::KeyConfirmation(KEY);
        assert!(awaited.to_string().contains(&format!("sha256:{KEY}")));
        assert!(awaited.to_string().len() <= DETAIL_BYTES_MAX);
        assert!(awaited.sentence().contains(&format!("sha256:{KEY}")));
    }
}
