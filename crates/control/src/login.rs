//! Whether a person gets the certificate that it asked for, with which gateways know it.
//!
//! ```text
//! controller:  request ── a process of ours asks ──> Refuse
//!                      └─ the API says that the user may log in ──> Approve      (else a person decides)
//! signer:      request ── a process of ours asks, or more is asked for ──> Refuse
//!                      └─ not approved ──> Wait, approved ──> Issue
//! ```
//!
//! Who asks is what the API server wrote into `spec.username` and `spec.groups`; whatever else a request says of it is nobody's word.

use std::fmt;

use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::json;
use wasmbed_api::OPERATOR_SIGNER;

/// Groups of our processes: none of them is a person, whoever approves.
pub const PROCESS_GROUPS: [&str; 3] = ["wasmbed:gateways", "wasmbed:controllers", "wasmbed:signers"];
/// What a certificate is for; a request may leave out the second one.
const USAGES: [&str; 2] = ["client auth", "digital signature"];

/// A request for a person's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRequest {
    /// Whether it was approved.
    pub approved: bool,
    /// `spec.username`.
    pub user: String,
    /// `spec.groups`.
    pub groups: Vec<String>,
    /// `spec.usages`.
    pub usages: Vec<String>,
}

impl LoginRequest {
    /// Reads a request that waits for something; none if it is another signer's, or has come to its end.
    #[must_use]
    pub fn open(object: &CertificateSigningRequest) -> Option<Self> {
        let status = object.status.clone().unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let has = |name: &str| conditions.iter().any(|condition| condition.type_ == name);
        let is_over = status.certificate.is_some() || has("Denied") || has("Failed");
        if object.spec.signer_name != OPERATOR_SIGNER || is_over {
            return None;
        }
        let spec = &object.spec;
        Some(Self {
            approved: has("Approved"),
            user: spec.username.clone().unwrap_or_default(),
            groups: spec.groups.clone().unwrap_or_default(),
            usages: spec.usages.clone().unwrap_or_default(),
        })
    }
}

/// The merge patch (RFC 7396) of a request's conditions that approves it, of this version of the request alone.
#[must_use]
pub fn approval_patch(object: &CertificateSigningRequest, now: Time) -> serde_json::Value {
    let approved = CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("MayLogIn".to_owned()),
        message: Some("the user may create devicegateways/login".to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    };
    let kept = object.status.as_ref().and_then(|status| status.conditions.clone());
    let conditions: Vec<_> = kept.into_iter().flatten().chain([approved]).collect();
    json!({
        "metadata": { "resourceVersion": object.metadata.resource_version },
        "status": { "conditions": conditions },
    })
}

/// What becomes of a request at the signer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginDecision {
    /// A certificate for its key, in the user's name.
    Issue,
    /// Nothing yet: it is not approved.
    Wait,
    /// None, ever.
    Refuse(LoginRefusal),
}

/// Why a request fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginRefusal {
    /// The API server wrote no user into it.
    NoUser,
    /// It is of a process of ours, by this group.
    Process(&'static str),
    /// It asks for a certificate for something else than being a client.
    Usages,
}

impl LoginRefusal {
    /// The reason of the condition `Failed`.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoUser => "NoUser",
            Self::Process(_) => "NoPerson",
            Self::Usages => "WrongUsages",
        }
    }
}

impl fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser => f.write_str("spec.username is empty: the API server knows nobody who asks"),
            Self::Process(group) => {
                write!(
                    f,
                    "a process of the group {group} asks, and gateways know processes by other certificates"
                )
            }
            Self::Usages => f.write_str(
                "spec.usages has to be \"client auth\", and \"digital signature\" or nothing else",
            ),
        }
    }
}

/// Decides at the signer. What is refused is refused whoever approved it.
#[must_use]
pub fn plan_login(request: &LoginRequest) -> LoginDecision {
    if let Some(refusal) = flaw(request) {
        LoginDecision::Refuse(refusal)
    } else if request.approved {
        LoginDecision::Issue
    } else {
        LoginDecision::Wait
    }
}

/// Whether the API is worth asking about a request: whoever may log in by a right gets an approval without a person.
#[must_use]
pub fn may_be_approved(request: &LoginRequest) -> bool {
    !request.approved && flaw(request).is_none()
}

fn flaw(request: &LoginRequest) -> Option<LoginRefusal> {
    let process = PROCESS_GROUPS.into_iter().find(|group| request.groups.iter().any(|own| own == group));
    let usages = &request.usages;
    let is_client = usages.iter().any(|usage| usage == USAGES[0])
        && usages.iter().all(|usage| USAGES.contains(&usage.as_str()));
    if request.user.is_empty() {
        Some(LoginRefusal::NoUser)
    } else if let Some(group) = process {
        Some(LoginRefusal::Process(group))
    } else if !is_client {
        Some(LoginRefusal::Usages)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(approved: bool) -> LoginRequest {
        LoginRequest {
            approved,
            user: "ada".to_owned(),
            groups: vec!["system:authenticated".to_owned()],
            usages: USAGES.map(str::to_owned).into(),
        }
    }

    #[test]
    fn a_person_who_was_approved_gets_a_certificate() {
        assert_eq!(plan_login(&request(true)), LoginDecision::Issue);
        assert_eq!(plan_login(&request(false)), LoginDecision::Wait);
        assert!(may_be_approved(&request(false)) && !may_be_approved(&request(true)));
    }

    #[test]
    fn processes_and_other_usages_are_refused_whoever_approved() {
        for group in PROCESS_GROUPS {
            for approved in [false, true] {
                let process =
                    LoginRequest { groups: vec!["a".to_owned(), group.to_owned()], ..request(approved) };
                assert_eq!(plan_login(&process), LoginDecision::Refuse(LoginRefusal::Process(group)));
                assert!(!may_be_approved(&process));
            }
        }
        let nobody = LoginRequest { user: String::new(), ..request(true) };
        assert_eq!(plan_login(&nobody), LoginDecision::Refuse(LoginRefusal::NoUser));
        for usages in [&["server auth", "client auth"][..], &["digital signature"], &[], &["any"]] {
            let usages = usages.iter().map(|usage| (*usage).to_owned()).collect();
            let more = LoginRequest { usages, ..request(true) };
            assert_eq!(plan_login(&more), LoginDecision::Refuse(LoginRefusal::Usages));
        }
        let less = LoginRequest { usages: vec!["client auth".to_owned()], ..request(true) };
        assert_eq!(plan_login(&less), LoginDecision::Issue);
    }

    #[test]
    fn the_user_is_the_one_that_the_api_server_recorded() {
        let object = |spec: serde_json::Value, status: serde_json::Value| {
            let mut whole = json!({
                "metadata": { "name": "r", "annotations": { "wasmbed.github.io/user": "admin" }, "resourceVersion": "7" },
                "spec": { "request": "", "signerName": OPERATOR_SIGNER, "usages": ["client auth"] },
                "status": status,
            });
            whole["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            serde_json::from_value::<CertificateSigningRequest>(whole).unwrap()
        };
        let ada = object(json!({ "username": "ada", "groups": ["dev"] }), json!({}));
        let read = LoginRequest::open(&ada).unwrap();
        assert_eq!((read.user.as_str(), read.groups, read.approved), ("ada", vec!["dev".to_owned()], false));
        let nobody = LoginRequest::open(&object(json!({}), json!({}))).unwrap();
        assert_eq!(plan_login(&nobody), LoginDecision::Refuse(LoginRefusal::NoUser));
        let approval = approval_patch(&ada, Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(approval["metadata"]["resourceVersion"], "7");
        let approved = object(json!({ "username": "ada" }), approval["status"].clone());
        assert!(LoginRequest::open(&approved).unwrap().approved);
        for over in ["Denied", "Failed"] {
            let status = json!({ "conditions": [{ "type": over, "status": "True" }] });
            assert_eq!(LoginRequest::open(&object(json!({}), status)), None);
        }
        assert_eq!(LoginRequest::open(&object(json!({}), json!({ "certificate": "AA==" }))), None);
        assert_eq!(
            LoginRequest::open(&object(json!({ "signerName": "example.com/other" }), json!({}))),
            None
        );
    }

    proptest! {
        /// Nothing is issued without an approval, and none turns a refusal around.
        #[test]
        fn approval_decides_and_turns_nothing_around(
            user in "[a-z]{0,2}",
            groups in proptest::collection::vec("wasmbed:(gateways|operators)|dev", 0..3),
            usages in proptest::collection::vec("(client|server) auth|digital signature", 0..3),
        ) {
            let request = |approved| LoginRequest { approved, user: user.clone(), groups: groups.clone(), usages: usages.clone() };
            let [without, with] = [false, true].map(|approved| plan_login(&request(approved)));
            prop_assert_ne!(&without, &LoginDecision::Issue);
            if with == LoginDecision::Issue {
                prop_assert_eq!(without, LoginDecision::Wait);
                prop_assert!(!user.is_empty() && !groups.iter().any(|group| group == "wasmbed:gateways"));
                prop_assert!(!usages.iter().any(|usage| usage == "server auth"));
            } else {
                prop_assert_eq!(without, with);
            }
        }
    }
}
