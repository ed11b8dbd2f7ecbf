//! Whether a user may do what a request asks for, and under which constraints.

use std::sync::Arc;

use super::route::Target;
use crate::access::{Access, Decision, Policy, User, Verb};
use crate::status::{Details, Reason, Status};
use crate::store::Constraint;

/// Constraints on the objects that a request writes.
pub(super) type Constraints = Vec<Arc<Constraint>>;

/// Authorizes `verb` on the object `name` of the target; 403 if the policy denies it.
pub(super) fn authorize(
    policy: &Policy,
    user: &User,
    verb: Verb,
    target: &Target,
    name: &str,
) -> Result<Constraints, Status> {
    match policy.decide(user, &access(verb, target, &target.resource(), name)) {
        Decision::Allowed(constraints) => Ok(constraints),
        Decision::Denied(message) => Err(denied(target, name, &message)),
    }
}

/// Authorizes a create whose object isn't known yet: 403 if the user may create none of the kind.
pub(super) fn authorize_some_create(policy: &Policy, user: &User, target: &Target) -> Result<(), Status> {
    if policy.allows_some_name(user, &access(Verb::Create, target, &target.resource(), "")) {
        return Ok(());
    }
    authorize(policy, user, Verb::Create, target, "").map(|_| ())
}

fn access<'a>(verb: Verb, target: &'a Target, resource: &'a str, name: &'a str) -> Access<'a> {
    Access { verb, group: &target.kind.group, resource, namespace: target.namespace.as_deref(), name }
}

fn denied(target: &Target, name: &str, message: &str) -> Status {
    if !name.is_empty() {
        return Status::forbidden(target.kind.names(), name, message);
    }
    let about = Some((target.kind.group.clone(), target.kind.plural.clone()));
    Status::new(Reason::Forbidden, format!("{} is forbidden: {message}", target.kind.qualified()))
        .with(Details { target: about, ..Details::default() })
}
