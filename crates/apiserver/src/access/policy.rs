//! Permissions as data: roles by group, rules by resource and verb, conditions on objects in CEL.

use std::sync::Arc;

use serde::Deserialize;

use super::User;
use crate::schema::ExpressionError;
use crate::store::Constraint;

/// Who may do what, administrators apart.
#[derive(Clone, Debug)]
pub struct Policy {
    roles: Arc<Vec<Role>>,
}

/// Why a policy can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not the expected YAML.
    #[error("policy: {0}")]
    Shape(String),
    /// A condition doesn't compile.
    #[error("policy: constraint {constraint:?}: {error}")]
    Constraint {
        /// Its text.
        constraint: String,
        /// Why.
        #[source]
        error: ExpressionError,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    group: String,
    rules: Vec<RuleText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    constraint: Option<String>,
    #[serde(default)]
    message: String,
}

#[derive(Debug)]
struct Role {
    group: String,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    /// Empty: any.
    names: Vec<String>,
    constraint: Option<Arc<Constraint>>,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    /// `devices` or `devices/status`.
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// Empty where the request names no object.
    pub(crate) name: &'a str,
}

/// Whether it may.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Yes, if the object fulfils these.
    Allowed(Vec<Arc<Constraint>>),
    /// No; why, in the words of Kubernetes.
    Denied(String),
}

impl Policy {
    /// The permissions of gateways and controllers.
    pub fn standard() -> Result<Policy, PolicyError> {
        Policy::parse(include_str!("roles.yaml"))
    }

    /// Reads a policy in the form of the standard one.
    pub fn parse(text: &str) -> Result<Policy, PolicyError> {
        let roles: Vec<RoleText> =
            serde_saphyr::from_str(text).map_err(|error| PolicyError::Shape(error.to_string()))?;
        let rule = |rule: RuleText| {
            let constraint = match rule.constraint {
                None => None,
                Some(constraint) => match Constraint::compile(&constraint, &rule.message) {
                    Ok(compiled) => Some(Arc::new(compiled)),
                    Err(error) => return Err(PolicyError::Constraint { constraint, error }),
                },
            };
            let RuleText { groups, resources, verbs, names, .. } = rule;
            Ok(Rule { groups, resources, verbs, names, constraint })
        };
        let role = |role: RoleText| {
            let rules = role.rules.into_iter().map(rule).collect::<Result<_, _>>()?;
            Ok(Role { group: role.group, rules })
        };
        Ok(Policy { roles: Arc::new(roles.into_iter().map(role).collect::<Result<_, _>>()?) })
    }

    pub(crate) fn decide(&self, user: &User, access: &Access<'_>) -> Decision {
        if user.is_administrator() {
            return Decision::Allowed(Vec::new());
        }
        let roles = self.roles.iter().filter(|role| user.groups.contains(&role.group));
        match roles.flat_map(|role| &role.rules).find(|rule| rule.covers(user, access)) {
            Some(rule) => Decision::Allowed(rule.constraint.iter().cloned().collect()),
            None => Decision::Denied(denial(user, access)),
        }
    }

    /// Whether the user might be allowed once the object's name is known.
    pub(crate) fn may_for_some_name(&self, user: &User, access: &Access<'_>) -> bool {
        let roles = self.roles.iter().filter(|role| user.groups.contains(&role.group));
        user.is_administrator() || roles.flat_map(|role| &role.rules).any(|rule| rule.is_about(access))
    }
}

impl Rule {
    fn is_about(&self, access: &Access<'_>) -> bool {
        self.groups.iter().any(|group| group == access.group)
            && self.resources.iter().any(|resource| resource == access.resource)
            && self.verbs.iter().any(|verb| verb == access.verb)
    }

    fn covers(&self, user: &User, access: &Access<'_>) -> bool {
        let named = |pattern: &String| pattern.replace("{name}", user.short_name()) == access.name;
        self.is_about(access) && (self.names.is_empty() || self.names.iter().any(named))
    }
}

fn denial(user: &User, access: &Access<'_>) -> String {
    let place = match access.namespace {
        Some(namespace) => format!("in the namespace {namespace:?}"),
        None => "at the cluster scope".into(),
    };
    format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {place}",
        user.name, access.verb, access.resource, access.group
    )
}

#[cfg(test)]
mod tests {
    use super::{Access, Decision, Policy};
    use crate::access::User;

    fn decide(user: &str, group: &str, verb: &str, resource: &str, name: &str) -> Decision {
        let user = User { name: user.into(), groups: vec![group.into()] };
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "events" | "namespaces" => "",
            _ => "wasmbed.github.io",
        };
        let access = Access { verb, group, resource, namespace: Some("default"), name };
        Policy::standard().unwrap().decide(&user, &access)
    }

    fn allowed(user: &str, group: &str, verb: &str, resource: &str, name: &str) -> bool {
        matches!(decide(user, group, verb, resource, name), Decision::Allowed(_))
    }

    #[test]
    fn gateways_write_what_is_theirs() {
        let may = |verb, resource, name| allowed("gateway:g1", "wasmbed:gateways", verb, resource, name);
        assert!(may("list", "devices", ""));
        assert!(may("patch", "devices/status", "d"));
        assert!(may("update", "devicegateways", "g1"));
        assert!(may("update", "leases", "gateway-g1"));
        assert!(may("create", "events", "e"));
        assert!(!may("update", "devicegateways", "g2"));
        assert!(!may("update", "leases", "gateway-g2"));
        assert!(!may("patch", "devices", "d"));
        assert!(!may("delete", "devices", "d"));
        assert!(!may("patch", "applications/status", "a"));
        assert!(!may("deletecollection", "devices", ""));
        match decide("gateway:g1", "wasmbed:gateways", "create", "devices", "d") {
            Decision::Allowed(constraints) => assert_eq!(constraints.len(), 1),
            Decision::Denied(why) => panic!("{why}"),
        }
    }

    #[test]
    fn controllers_do_not_touch_specs_of_devices() {
        let may = |verb, resource, name| allowed("controller:c", "wasmbed:controllers", verb, resource, name);
        assert!(may("patch", "applications/status", "a"));
        assert!(may("patch", "applications", "a"));
        assert!(may("update", "leases", "wasmbed-controller"));
        assert!(!may("patch", "devices", "d"));
        assert!(!may("create", "applications", "a"));
    }

    #[test]
    fn strangers_are_told_what_they_may_not() {
        assert!(allowed("admin", "system:masters", "deletecollection", "devices", ""));
        match decide("eve", "nobody", "get", "devices", "d") {
            Decision::Denied(why) => assert_eq!(
                why,
                "User \"eve\" cannot get resource \"devices\" in API group \"wasmbed.github.io\" in the namespace \"default\""
            ),
            Decision::Allowed(_) => panic!("eve may not"),
        }
    }
}
