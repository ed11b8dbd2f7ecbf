//! Whether a device gets the certificate that it asked for.
//!
//! ```text
//! request ── not approved ──> Wait      Device ── gone, another, revoked, leaving ──> Refuse
//!                                       evidence ── of another, or does not hold ──> Refuse
//!                                                ── none, and no person has confirmed the key ──> Wait
//!                                                ── holds, or a person has confirmed the key ──> Issue
//! ```
//!
//! A person may approve what has to be refused; what is decided here does not depend on who approved. Whoever verifies
//! signatures says what they prove in [`Evidence`]; this decides whether it is enough.

mod annotations;
mod candidate;
mod waiting;
mod work;

use std::fmt;

use wasmbed_protocol::{DeviceUid, KeyHash};

pub use annotations::{Annotated, AnnotationFlaw, Spoken};
pub use waiting::{Version, Waiting, version};
pub use work::{Asked, Step, Work, has, is_finished, used_token};

/// What was found out about the key of a request, by signatures and MACs alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The request carries no proof.
    None,
    /// A factory key below the factory root signed that this key is the Device's.
    Factory {
        /// Serial in the factory certificate.
        serial: String,
        /// The name that a Device of this serial has if nobody gave it another.
        device_name: String,
        /// Of the factory certificate's key.
        factory_key: KeyHash,
    },
    /// Whoever knows a pairing token says that this key is the Device's.
    Pairing {
        /// Id of the token.
        id: String,
    },
    /// The request is signed by the key of a certificate that was issued to this Device and has not ended.
    Renewal {
        /// The Device that it was issued to; none in a certificate of the time before they named it.
        device_uid: Option<DeviceUid>,
        /// Of that certificate.
        key: KeyHash,
    },
    /// There is a proof and it does not hold, for this reason.
    Refuted(String),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether the request was approved.
    pub approved: bool,
    /// UID of the Device that it names.
    pub device_uid: DeviceUid,
    /// Of the key that gets the certificate.
    pub key: KeyHash,
    /// What speaks for it.
    pub evidence: Evidence,
}

/// What the Device says that a request names, as the API has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// `metadata.uid`.
    pub uid: DeviceUid,
    /// `metadata.name`.
    pub name: String,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// `spec.approved`.
    pub is_approved: bool,
    /// `spec.revoked`.
    pub is_revoked: bool,
    /// Whether it is or was decommissioned.
    pub is_decommissioned: bool,
    /// `spec.serial`.
    pub serial: Option<String>,
    /// `spec.factory_key_hash`.
    pub factory_key: Option<KeyHash>,
    /// `spec.pairing_id`.
    pub pairing_id: Option<String>,
    /// Of `spec.public_key`: no other key is the Device's. It vouches for nothing: a gateway writes it when it creates the Device.
    pub pinned_key: Option<KeyHash>,
    /// `spec.confirmed_key`: a person has compared this key with what the device shows, and no gateway may write it.
    pub confirmed_key: Option<KeyHash>,
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A certificate for its key, in the Device's name.
    Issue,
    /// Nothing yet; what is missing may come.
    Wait(Missing),
    /// None, ever: the request fails for this reason.
    Refuse(Refusal),
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Its own approval.
    Approval,
    /// The Device's.
    DeviceApproval,
    /// A person who compares the key with what the device shows, and confirms it in the Device.
    KeyConfirmation,
}

/// Why a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such Device.
    DeviceMissing,
    /// There is one of that name, created later.
    DeviceRecreated,
    /// It is being deleted.
    DeviceDeleting,
    /// It is revoked.
    DeviceRevoked,
    /// It is being decommissioned, or was.
    DeviceDecommissioned,
    /// Another key is pinned.
    KeyMismatch,
    /// The proof is for another Device, or by another's factory key or token.
    WrongDevice(&'static str),
    /// The proof does not hold.
    Refuted(String),
}

impl Refusal {
    /// The reason of the condition `Failed`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::DeviceMissing => "DeviceMissing",
            Self::DeviceRecreated => "DeviceRecreated",
            Self::DeviceDeleting => "DeviceDeleting",
            Self::DeviceRevoked => "Revoked",
            Self::DeviceDecommissioned => "Decommissioned",
            Self::KeyMismatch => "KeyMismatch",
            Self::WrongDevice(_) => "WrongDevice",
            Self::Refuted(_) => "ProofRefused",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceMissing => f.write_str("there is no such Device"),
            Self::DeviceRecreated => {
                f.write_str("the Device was created again since; the device will ask anew")
            }
            Self::DeviceDeleting => f.write_str("the Device is being deleted"),
            Self::DeviceRevoked => f.write_str("the Device is revoked"),
            Self::DeviceDecommissioned => f.write_str("the Device is decommissioned"),
            Self::KeyMismatch => f.write_str(
                "the Device's spec.public_key is another key: remove it if the device has a new one, which a factory identity or a pairing token makes",
            ),
            Self::WrongDevice(detail) => f.write_str(detail),
            Self::Refuted(detail) => write!(f, "the proof does not hold: {detail}"),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Approval => "the request is not approved",
            Self::DeviceApproval => "the Device is not approved: set spec.approved to true",
            Self::KeyConfirmation => {
                "no proof came with the request: compare the key's fingerprint with what the device shows, and set spec.confirmed_key"
            }
        })
    }
}

/// Decides about a request, given the Device of the name that it asks for, or that there is none.
#[must_use]
pub fn plan_signature(request: &Request, device: Option<&Candidate>) -> Decision {
    let device = match standing(request, device) {
        Ok(device) => device,
        Err(refusal) => return Decision::Refuse(refusal),
    };
    // A refused request says so even before anyone approves it: nobody has to decide about it.
    let is_proven = match weigh(request, device) {
        Ok(is_proven) => is_proven,
        Err(refusal) => return Decision::Refuse(refusal),
    };
    // What only a person can do is said first: a controller approves the request by itself after that.
    if !device.is_approved {
        Decision::Wait(Missing::DeviceApproval)
    } else if !is_proven && device.confirmed_key != Some(request.key) {
        Decision::Wait(Missing::KeyConfirmation)
    } else if !request.approved {
        Decision::Wait(Missing::Approval)
    } else {
        Decision::Issue
    }
}

/// The Device, if it is one that may have a certificate at all.
fn standing<'a>(request: &Request, device: Option<&'a Candidate>) -> Result<&'a Candidate, Refusal> {
    let device = device.ok_or(Refusal::DeviceMissing)?;
    if device.uid != request.device_uid {
        Err(Refusal::DeviceRecreated)
    } else if device.is_revoked {
        Err(Refusal::DeviceRevoked)
    } else if device.is_decommissioned {
        Err(Refusal::DeviceDecommissioned)
    } else if device.is_deleting {
        Err(Refusal::DeviceDeleting)
    } else if device.pinned_key.is_some_and(|pinned| pinned != request.key) {
        Err(Refusal::KeyMismatch)
    } else {
        Ok(device)
    }
}

/// Whether what speaks for the request proves that its key is this Device's; refused if it speaks for another.
fn weigh(request: &Request, device: &Candidate) -> Result<bool, Refusal> {
    match &request.evidence {
        Evidence::None => Ok(false),
        Evidence::Refuted(detail) => Err(Refusal::Refuted(detail.clone())),
        Evidence::Factory { serial, device_name, factory_key } => {
            let names_serial = match &device.serial {
                Some(named) => named == serial,
                None => *device_name == device.name,
            };
            if !names_serial {
                return Err(Refusal::WrongDevice("the factory certificate's serial is not the Device's"));
            }
            match &device.factory_key {
                Some(named) if named != factory_key => {
                    Err(Refusal::WrongDevice("the factory key is not the Device's spec.factory_key_hash"))
                }
                Some(_) | None => Ok(true),
            }
        }
        Evidence::Pairing { id } => match &device.pairing_id {
            Some(named) if named == id => Ok(true),
            Some(_) | None => Err(Refusal::WrongDevice("the pairing token is not the Device's")),
        },
        Evidence::Renewal { device_uid, key } => {
            if device_uid.is_none_or(|uid| uid == device.uid) && *key == request.key {
                Ok(true)
            } else {
                Err(Refusal::WrongDevice("the certificate to renew is another Device's, or of another key"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: DeviceUid = DeviceUid([1; 16]);
    const KEY: KeyHash = KeyHash([2; 32]);
    const OTHER: KeyHash = KeyHash([3; 32]);
    const FACTORY_KEY: KeyHash = KeyHash([4; 32]);

    fn request(evidence: Evidence) -> Request {
        Request { approved: true, device_uid: UID, key: KEY, evidence }
    }

    fn device() -> Candidate {
        Candidate {
            uid: UID,
            name: "sn-17".into(),
            is_deleting: false,
            is_approved: true,
            is_revoked: false,
            is_decommissioned: false,
            serial: None,
            factory_key: None,
            pairing_id: None,
            pinned_key: None,
            confirmed_key: None,
        }
    }

    fn factory(serial: &str) -> Evidence {
        Evidence::Factory {
            serial: serial.into(),
            device_name: serial.to_lowercase().replace('_', "-"),
            factory_key: FACTORY_KEY,
        }
    }

    fn refusal(request: &Request, device: &Candidate) -> &'static str {
        match plan_signature(request, Some(device)) {
            Decision::Refuse(refusal) => refusal.reason(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_factory_proof_is_enough_for_the_device_of_its_serial() {
        assert_eq!(plan_signature(&request(factory("SN_17")), Some(&device())), Decision::Issue);
        let registered = Candidate {
            name: "pump-east".into(),
            serial: Some("SN_17".into()),
            factory_key: Some(FACTORY_KEY),
            ..device()
        };
        assert_eq!(plan_signature(&request(factory("SN_17")), Some(&registered)), Decision::Issue);
        // Two serials that have one name as Devices: only the one that the Device names is it.
        assert_eq!(refusal(&request(factory("sn-17")), &registered), "WrongDevice");
        assert_eq!(refusal(&request(factory("SN_18")), &device()), "WrongDevice");
        let swapped = Candidate { factory_key: Some(OTHER), ..registered };
        assert_eq!(refusal(&request(factory("SN_17")), &swapped), "WrongDevice");
    }

    #[test]
    fn a_token_is_enough_for_the_device_that_names_it() {
        let pairing = request(Evidence::Pairing { id: "0a1b2c3d".into() });
        let named = Candidate { pairing_id: Some("0a1b2c3d".into()), ..device() };
        assert_eq!(plan_signature(&pairing, Some(&named)), Decision::Issue);
        assert_eq!(refusal(&pairing, &device()), "WrongDevice");
        assert_eq!(
            refusal(&pairing, &Candidate { pairing_id: Some("ffffffff".into()), ..device() }),
            "WrongDevice"
        );
    }

    #[test]
    fn a_key_without_proof_waits_for_the_person_who_confirms_it() {
        let bare = request(Evidence::None);
        assert_eq!(plan_signature(&bare, Some(&device())), Decision::Wait(Missing::KeyConfirmation));
        let confirmed = |key| Candidate { confirmed_key: Some(key), ..device() };
        assert_eq!(plan_signature(&bare, Some(&confirmed(KEY))), Decision::Issue);
        assert_eq!(plan_signature(&bare, Some(&confirmed(OTHER))), Decision::Wait(Missing::KeyConfirmation));
        // What a gateway wrote when it created the Device.
        let pinned = |key| Candidate { pinned_key: Some(key), ..device() };
        assert_eq!(plan_signature(&bare, Some(&pinned(KEY))), Decision::Wait(Missing::KeyConfirmation));
        assert_eq!(refusal(&bare, &pinned(OTHER)), "KeyMismatch");
    }

    #[test]
    fn a_renewal_is_for_the_same_device_and_key() {
        let renewal = |device_uid, key| request(Evidence::Renewal { device_uid, key });
        assert_eq!(plan_signature(&renewal(Some(UID), KEY), Some(&device())), Decision::Issue);
        assert_eq!(plan_signature(&renewal(None, KEY), Some(&device())), Decision::Issue);
        assert_eq!(refusal(&renewal(Some(DeviceUid([9; 16])), KEY), &device()), "WrongDevice");
        assert_eq!(refusal(&renewal(Some(UID), OTHER), &device()), "WrongDevice");
    }

    /// Gateways of the version before pinned the key that they saw first; `wasmbed pki` issued certificates without a UID.
    #[test]
    fn a_device_of_the_version_before_renews_with_its_key_and_a_person_makes_way_for_another() {
        let pinned = Candidate { pinned_key: Some(KEY), ..device() };
        let renewal = request(Evidence::Renewal { device_uid: None, key: KEY });
        assert_eq!(plan_signature(&renewal, Some(&pinned)), Decision::Issue);
        let mut anew = request(factory("sn-17"));
        anew.key = OTHER;
        assert_eq!(refusal(&anew, &pinned), "KeyMismatch");
        assert_eq!(plan_signature(&anew, Some(&device())), Decision::Issue, "spec.public_key was removed");
    }

    #[test]
    fn approval_is_waited_for_and_refusals_are_said_before() {
        let unapproved = |evidence| Request { approved: false, ..request(evidence) };
        assert_eq!(
            plan_signature(&unapproved(factory("sn-17")), Some(&device())),
            Decision::Wait(Missing::Approval)
        );
        assert_eq!(refusal(&unapproved(factory("sn-18")), &device()), "WrongDevice");
        let both = Candidate { is_approved: false, ..device() };
        assert_eq!(
            plan_signature(&unapproved(Evidence::None), Some(&both)),
            Decision::Wait(Missing::DeviceApproval)
        );
        assert_eq!(
            plan_signature(&unapproved(Evidence::None), Some(&device())),
            Decision::Wait(Missing::KeyConfirmation),
            "what a person has to do, before what follows from it"
        );
        let waiting = Candidate { is_approved: false, ..device() };
        let proven = request(factory("sn-17"));
        assert_eq!(plan_signature(&proven, Some(&waiting)), Decision::Wait(Missing::DeviceApproval));
        assert_eq!(plan_signature(&proven, None), Decision::Refuse(Refusal::DeviceMissing));
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let key = || prop_oneof![Just(KEY), Just(OTHER)];
        let uid = prop_oneof![Just(None), Just(Some(UID)), Just(Some(DeviceUid([9; 16])))];
        prop_oneof![
            Just(Evidence::None),
            ("sn-1[78]", prop_oneof![Just(FACTORY_KEY), Just(OTHER)]).prop_map(|(serial, factory_key)| {
                Evidence::Factory { device_name: serial.clone(), serial, factory_key }
            }),
            "id[12]".prop_map(|id| Evidence::Pairing { id }),
            (uid, key()).prop_map(|(device_uid, key)| Evidence::Renewal { device_uid, key }),
            Just(Evidence::Refuted("bad signature".into())),
        ]
    }

    fn candidate() -> impl Strategy<Value = Candidate> {
        let key = || proptest::option::of(prop_oneof![Just(KEY), Just(OTHER)]);
        (
            (any::<[bool; 4]>(), any::<bool>()),
            (proptest::option::of("sn-1[78]"), proptest::option::of("id[12]")),
            (proptest::option::of(prop_oneof![Just(FACTORY_KEY), Just(OTHER)]), key(), key()),
        )
            .prop_map(
                |((flags, is_same), (serial, pairing_id), (factory_key, pinned_key, confirmed_key))| {
                    Candidate {
                        uid: if is_same { UID } else { DeviceUid([9; 16]) },
                        name: "sn-17".into(),
                        is_deleting: flags[0],
                        is_approved: flags[1],
                        is_revoked: flags[2],
                        is_decommissioned: flags[3],
                        serial,
                        factory_key,
                        pairing_id,
                        pinned_key,
                        confirmed_key,
                    }
                },
            )
    }

    proptest! {
        /// Whatever anyone approves: a certificate is only issued for a Device that stands, and for a key that someone vouches for.
        #[test]
        fn what_is_issued_is_vouched_for(approved: bool, evidence in evidence(), device in candidate()) {
            let request = Request { approved, ..request(evidence) };
            if plan_signature(&request, Some(&device)) != Decision::Issue {
                return Ok(());
            }
            prop_assert!(approved && device.is_approved && device.uid == UID);
            prop_assert!(!device.is_revoked && !device.is_deleting && !device.is_decommissioned);
            prop_assert!(device.pinned_key.is_none_or(|pinned| pinned == KEY));
            let vouched = match &request.evidence {
                Evidence::None => device.confirmed_key == Some(KEY),
                Evidence::Refuted(_) => false,
                Evidence::Factory { serial, factory_key, .. } => {
                    device.serial.as_ref().unwrap_or(&device.name) == serial
                        && device.factory_key.is_none_or(|named| named == *factory_key)
                }
                Evidence::Pairing { id } => device.pairing_id.as_ref() == Some(id),
                Evidence::Renewal { device_uid, key } => device_uid.is_none_or(|uid| uid == UID) && *key == KEY,
            };
            prop_assert!(vouched, "{:?} for {:?}", request, device);
        }

        /// Approval of the request and of the Device are all that a refusal does not depend on.
        #[test]
        fn no_approval_turns_a_refusal_around(evidence in evidence(), device in candidate()) {
            let decide = |approved, is_approved| {
                let device = Candidate { is_approved, ..device.clone() };
                plan_signature(&Request { approved, ..request(evidence.clone()) }, Some(&device))
            };
            let refused = |decision: &Decision| matches!(decision, Decision::Refuse(_));
            let all = [decide(false, false), decide(false, true), decide(true, false), decide(true, true)];
            prop_assert!(all.iter().all(refused) || !all.iter().any(refused), "{:?}", all);
        }
    }
}
