//! Reviews of the client itself: who it is (`SelfSubjectReview`) and what it may do (`SelfSubjectAccessReview`).

use serde_json::{Value, json};

use crate::access::{Access, Decision, Policy, User, Verb};
use crate::status::{Cause, Details, Reason, Status};

/// Kind of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// `SelfSubjectAccessReview`.
    Access,
    /// `SelfSubjectReview`.
    Identity,
}

impl Review {
    pub(super) const ALL: [Review; 2] = [Review::Access, Review::Identity];

    pub(super) fn group(self) -> &'static str {
        match self {
            Review::Access => "authorization.k8s.io",
            Review::Identity => "authentication.k8s.io",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Review::Access => "SelfSubjectAccessReview",
            Review::Identity => "SelfSubjectReview",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Review::Access => "selfsubjectaccessreviews",
            Review::Identity => "selfsubjectreviews",
        }
    }

    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<Review> {
        let is = |review: &Review| version == "v1" && review.group() == group && review.plural() == plural;
        Review::ALL.into_iter().find(is)
    }

    /// The answer to a review that was posted.
    pub(super) fn answer(self, policy: &Policy, user: &User, posted: &Value) -> Result<Value, Status> {
        let api_version = format!("{}/v1", self.group());
        if posted["kind"] != self.kind() || posted["apiVersion"] != api_version {
            return Err(Status::bad_request(format!("the body must be a {} of {api_version}", self.kind())));
        }
        match self {
            Review::Identity => {
                let groups = user.groups.iter().map(String::as_str).chain(["system:authenticated"]);
                let groups: Vec<&str> = groups.collect();
                Ok(json!({
                    "kind": self.kind(), "apiVersion": api_version,
                    "metadata": {"creationTimestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
                    "status": {"userInfo": {"username": user.name, "groups": groups}},
                }))
            }
            Review::Access => {
                let spec = &posted["spec"];
                let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
                let allowed = match (resource.is_object(), path.is_object()) {
                    (true, false) => may(policy, user, resource),
                    // Every user may read non-resource paths.
                    (false, true) => user.is_administrator() || path["verb"] == "get",
                    (_, _) => return Err(self.neither_or_both()),
                };
                Ok(json!({
                    "kind": self.kind(), "apiVersion": api_version, "metadata": {}, "spec": spec,
                    "status": {"allowed": allowed},
                }))
            }
        }
    }

    fn neither_or_both(self) -> Status {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let cause = Cause::invalid("spec.resourceAttributes", "null", why);
        let group = self.group().to_owned();
        let message = format!(".{group} \"\" is invalid: {}: {}", cause.field(), cause.message());
        let details =
            Details { target: Some((group, String::new())), causes: vec![cause], ..Details::default() };
        Status::new(Reason::Invalid, message).with(details)
    }
}

fn may(policy: &Policy, user: &User, asked: &Value) -> bool {
    let text = |name: &str| asked[name].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        below => format!("{}/{below}", text("resource")),
    };
    let namespace = Some(text("namespace")).filter(|namespace| !namespace.is_empty());
    // Nobody but an administrator has a verb that isn't known here.
    let Some(verb) = Verb::parse(text("verb")) else { return user.is_administrator() };
    let access = Access { verb, group: text("group"), resource: &resource, namespace, name: text("name") };
    matches!(policy.decide(user, &access), Decision::Allowed(_))
}
