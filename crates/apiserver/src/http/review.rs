//! Reviews: who the client is (`SelfSubjectReview`), what it may do (`SelfSubjectAccessReview`), and what somebody else may do
//! (`SubjectAccessReview`), which needs a right.

use serde_json::{Value, json};

use crate::access::{Access, Decision, Policy, User, Verb};
use crate::resource::CREDENTIAL;
use crate::status::{Cause, Details, Reason, Status};

/// Kind of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// `SelfSubjectAccessReview`.
    Access,
    /// `SelfSubjectReview`.
    Identity,
    /// `SubjectAccessReview`.
    Subject,
}

impl Review {
    pub(super) const ALL: [Review; 3] = [Review::Access, Review::Identity, Review::Subject];

    pub(super) fn group(self) -> &'static str {
        match self {
            Review::Access | Review::Subject => "authorization.k8s.io",
            Review::Identity => "authentication.k8s.io",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Review::Access => "SelfSubjectAccessReview",
            Review::Identity => "SelfSubjectReview",
            Review::Subject => "SubjectAccessReview",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Review::Access => "selfsubjectaccessreviews",
            Review::Identity => "selfsubjectreviews",
            Review::Subject => "subjectaccessreviews",
        }
    }

    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<Review> {
        let is = |review: &Review| version == "v1" && review.group() == group && review.plural() == plural;
        Review::ALL.into_iter().find(is)
    }

    /// Whether the user may ask: of itself everybody may.
    pub(super) fn authorize(self, policy: &Policy, user: &User) -> Result<(), Status> {
        match self {
            Review::Access | Review::Identity => Ok(()),
            Review::Subject => {
                let (group, resource) = (self.group(), self.plural());
                let access = Access { verb: Verb::Create, group, resource, namespace: None, name: "" };
                let Decision::Denied(why) = policy.decide(user, &access) else { return Ok(()) };
                let target = Some((group.to_owned(), resource.to_owned()));
                Err(Status::new(Reason::Forbidden, format!("{resource}.{group} is forbidden: {why}"))
                    .with(Details { target, ..Details::default() }))
            }
        }
    }

    /// The answer to a review that was posted.
    pub(super) fn answer(self, policy: &Policy, user: &User, posted: &Value) -> Result<Value, Status> {
        let api_version = format!("{}/v1", self.group());
        if posted["kind"] != self.kind() || posted["apiVersion"] != api_version {
            return Err(Status::bad_request(format!("the body must be a {} of {api_version}", self.kind())));
        }
        match self {
            Review::Identity => Ok(json!({
                "kind": self.kind(), "apiVersion": api_version,
                "metadata": {"creationTimestamp": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()},
                "status": {"userInfo": {"username": user.name, "groups": user.all_groups(),
                    "extra": {CREDENTIAL: [user.credential]}}},
            })),
            Review::Access => self.decide(policy, user, &posted["spec"]),
            Review::Subject => {
                let spec = &posted["spec"];
                let groups = spec["groups"].as_array().into_iter().flatten();
                let subject = User {
                    name: spec["user"].as_str().unwrap_or_default().to_owned(),
                    groups: groups.filter_map(|group| group.as_str().map(str::to_owned)).collect(),
                    credential: String::new(),
                };
                if subject.name.is_empty() && subject.groups.is_empty() {
                    let why = "at least one of user or group must be specified";
                    return Err(self.invalid(Cause::invalid("spec.user", "\"\"", why)));
                }
                self.decide(policy, &subject, spec)
            }
        }
    }

    fn decide(self, policy: &Policy, user: &User, spec: &Value) -> Result<Value, Status> {
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let allowed = match (resource.is_object(), path.is_object()) {
            (true, false) => may(policy, user, resource),
            // Every user may read non-resource paths.
            (false, true) => user.is_administrator() || path["verb"] == "get",
            (_, _) => return Err(self.neither_or_both()),
        };
        Ok(json!({
            "kind": self.kind(), "apiVersion": format!("{}/v1", self.group()), "metadata": {}, "spec": spec,
            "status": {"allowed": allowed},
        }))
    }

    fn neither_or_both(self) -> Status {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        self.invalid(Cause::invalid("spec.resourceAttributes", "null", why))
    }

    fn invalid(self, cause: Cause) -> Status {
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
