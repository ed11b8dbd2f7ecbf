//! Permissions as data: roles of groups, rules by resource and verb, and admission: constraints on written objects in
//! CEL.

use std::sync::Arc;

use serde::Deserialize;

use super::identity::User;
use super::verb::Verb;
use crate::resource::{Author, Signers};
use crate::schema::ExpressionError;
use crate::store::Constraint;

/// Permissions of everybody but administrators.
#[derive(Clone, Debug)]
pub struct Policy {
    roles: Arc<Vec<Role>>,
    /// Namespaces whose owner lets controllers read Secrets.
    secret_namespaces: Arc<[String]>,
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

/// Namespace of the objects of gateways and controllers.
const SYSTEM_NAMESPACE: &str = "wasmbed-system";
/// Namespace of the keys of pairing tokens.
const PAIRING_NAMESPACE: &str = "wasmbed-pairing";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleText {
    group: String,
    rules: Vec<Rule>,
    #[serde(default)]
    admission: Vec<AdmissionText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Absent: all namespaces.
    namespace: Option<Place>,
    groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<Verb>,
    /// For deployments whose rights are those of a namespace; here all rules apply to objects in no namespace as well.
    #[serde(rename = "cluster", default)]
    _cluster: bool,
    /// Empty: any.
    #[serde(default)]
    names: Vec<String>,
    /// For deployments that know the names of all processes beforehand; here admission restricts each to its own objects.
    #[serde(rename = "own")]
    _own: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    System,
    Pairing,
    /// Those whose owner says so: in a cluster by a RoleBinding, here by [`Policy::with_secret_namespaces`].
    Bound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Operation {
    Create,
    Update,
    Delete,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionText {
    #[serde(rename = "name")]
    _name: String,
    groups: Vec<String>,
    resources: Vec<String>,
    operations: Vec<Operation>,
    expression: String,
    message: String,
}

#[derive(Debug)]
struct Role {
    group: String,
    rules: Vec<Rule>,
    admission: Vec<Admission>,
}

#[derive(Debug)]
struct Admission {
    groups: Vec<String>,
    resources: Vec<String>,
    operations: Vec<Operation>,
    constraint: Constraint,
}

/// An access to authorize.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) verb: Verb,
    pub(crate) group: &'a str,
    /// `devices` or `devices/status`.
    pub(crate) resource: &'a str,
    pub(crate) namespace: Option<&'a str>,
    /// Empty where the request names no object.
    pub(crate) name: &'a str,
}

/// Whether an access is allowed.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Allowed, if the object fulfils these constraints.
    Allowed(Vec<Arc<Constraint>>),
    /// Denied; the message of Kubernetes.
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
        let admission = |text: AdmissionText| match Constraint::compile(&text.expression, &text.message) {
            Ok(constraint) => {
                let AdmissionText { groups, resources, operations, .. } = text;
                Ok(Admission { groups, resources, operations, constraint })
            }
            Err(error) => Err(PolicyError::Constraint { constraint: text.expression, error }),
        };
        let role = |role: RoleText| {
            let RoleText { group, rules, admission: texts } = role;
            Ok(Role { group, rules, admission: texts.into_iter().map(admission).collect::<Result<_, _>>()? })
        };
        let roles = Arc::new(roles.into_iter().map(role).collect::<Result<_, _>>()?);
        Ok(Policy { roles, secret_namespaces: Arc::default() })
    }

    /// The same with the rules that hold in these namespaces alone: controllers get Secrets there.
    #[must_use]
    pub fn with_secret_namespaces(self, namespaces: impl IntoIterator<Item = String>) -> Policy {
        Policy { secret_namespaces: namespaces.into_iter().collect(), ..self }
    }

    pub(crate) fn decide(&self, user: &User, access: &Access<'_>) -> Decision {
        if user.is_administrator() {
            return Decision::Allowed(Vec::new());
        }
        if !self.rules_of(user).any(|rule| rule.covers(access, &self.secret_namespaces)) {
            return Decision::Denied(denial(user, access));
        }
        let admission = self.roles_of(user).flat_map(|role| &role.admission);
        let constraints = admission.filter(|admission| admission.is_about(access));
        let name = user.short_name();
        Decision::Allowed(constraints.map(|found| Arc::new(found.constraint.for_client(name))).collect())
    }

    /// Whether the access is allowed for some object, whose name isn't known yet.
    pub(crate) fn allows_some_name(&self, user: &User, access: &Access<'_>) -> bool {
        user.is_administrator()
            || self.rules_of(user).any(|rule| rule.is_about(access, &self.secret_namespaces))
    }

    /// The user as the author of writes.
    pub(crate) fn author(&self, user: &User) -> Author {
        Author {
            name: user.name.clone(),
            groups: user.all_groups(),
            credential: Some(user.credential.clone()),
            approves: self.signers(user, Verb::Approve),
            signs: self.signers(user, Verb::Sign),
        }
    }

    /// Signers for which the user has a verb. Kubernetes asks the same of its authorizer, as access to objects that nobody
    /// stores.
    fn signers(&self, user: &User, verb: Verb) -> Signers {
        let access =
            Access { verb, group: "certificates.k8s.io", resource: "signers", namespace: None, name: "" };
        let rules = self.rules_of(user).filter(|rule| rule.is_about(&access, &self.secret_namespaces));
        let mut names = Vec::new();
        for rule in rules {
            if rule.names.is_empty() {
                return Signers::All;
            }
            names.extend(rule.names.iter().cloned());
        }
        if user.is_administrator() { Signers::All } else { Signers::Named(names.into()) }
    }

    fn roles_of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Role> {
        self.roles.iter().filter(|role| user.groups.contains(&role.group))
    }

    fn rules_of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Rule> {
        self.roles_of(user).flat_map(|role| &role.rules)
    }
}

impl Rule {
    /// `bound` are the namespaces whose owner lets controllers read Secrets.
    fn is_about(&self, access: &Access<'_>, bound: &[String]) -> bool {
        let here = match self.namespace {
            None => true,
            Some(Place::System) => access.namespace == Some(SYSTEM_NAMESPACE),
            Some(Place::Pairing) => access.namespace == Some(PAIRING_NAMESPACE),
            Some(Place::Bound) => {
                access.namespace.is_some_and(|namespace| bound.iter().any(|bound| bound == namespace))
            }
        };
        here && self.groups.iter().any(|group| group == access.group)
            && self.resources.iter().any(|resource| resource == access.resource)
            && self.verbs.contains(&access.verb)
    }

    fn covers(&self, access: &Access<'_>, bound: &[String]) -> bool {
        self.is_about(access, bound)
            && (self.names.is_empty() || self.names.iter().any(|name| name == access.name))
    }
}

impl Admission {
    fn is_about(&self, access: &Access<'_>) -> bool {
        let operation = match access.verb {
            Verb::Create => Operation::Create,
            Verb::Patch | Verb::Update => Operation::Update,
            Verb::Delete | Verb::DeleteCollection => Operation::Delete,
            Verb::Get | Verb::List | Verb::Watch | Verb::Approve | Verb::Sign => return false,
        };
        self.operations.contains(&operation)
            && self.groups.iter().any(|group| group == access.group)
            && self.resources.iter().any(|resource| resource == access.resource)
    }
}

fn denial(user: &User, access: &Access<'_>) -> String {
    // Requests on a Namespace count as requests in it.
    let own = (access.resource.starts_with("namespaces") && !access.name.is_empty()).then_some(access.name);
    let place = match access.namespace.or(own) {
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
    use crate::access::{User, Verb};

    fn decide(user: &str, group: &str, verb: &str, resource: &str, name: &str) -> Decision {
        let user = User { name: user.into(), groups: vec![group.into()], credential: String::new() };
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "events" | "namespaces" => "",
            "subjectaccessreviews" => "authorization.k8s.io",
            _ if resource.starts_with("certificatesigningrequests") || resource == "signers" => {
                "certificates.k8s.io"
            }
            _ => "wasmbed.github.io",
        };
        let kind = resource.split('/').next();
        let namespace =
            if matches!(kind, Some("leases" | "devicegateways")) { "wasmbed-system" } else { "default" };
        let verb = Verb::parse(verb).unwrap();
        let access = Access { verb, group, resource, namespace: Some(namespace), name };
        Policy::standard().unwrap().decide(&user, &access)
    }

    fn allowed(user: &str, group: &str, verb: &str, resource: &str, name: &str) -> bool {
        matches!(decide(user, group, verb, resource, name), Decision::Allowed(_))
    }

    #[test]
    fn gateways_write_their_own_objects() {
        let may = |verb, resource, name| allowed("gateway:g1", "wasmbed:gateways", verb, resource, name);
        assert!(may("list", "devices", ""));
        assert!(may("patch", "devices/status", "d"));
        assert!(may("update", "devicegateways", "g1"));
        assert!(may("update", "leases", "gateway-g1"));
        assert!(may("create", "events", "e"));
        assert!(!may("list", "applications", ""));
        assert!(!may("list", "leases", ""));
        assert!(may("get", "leases", "wasmbed-controller"));
        assert!(!may("patch", "devices", "d"));
        assert!(!may("delete", "devices", "d"));
        assert!(!may("patch", "applications/status", "a"));
        assert!(!may("deletecollection", "devices", ""));
        for (verb, resource) in [("create", "devices"), ("patch", "devicegateways"), ("update", "leases")] {
            match decide("gateway:g1", "wasmbed:gateways", verb, resource, "d") {
                Decision::Allowed(constraints) => assert_eq!(constraints.len(), 1, "{verb} {resource}"),
                Decision::Denied(why) => panic!("{why}"),
            }
        }
    }

    #[test]
    fn controllers_do_not_touch_specs_of_devices() {
        let may = |verb, resource, name| allowed("controller:c", "wasmbed:controllers", verb, resource, name);
        assert!(may("patch", "applications/status", "a"));
        assert!(may("patch", "applications", "a"));
        assert!(may("update", "leases", "wasmbed-controller"));
        assert!(!may("update", "leases", "gateway-g1"));
        match decide("controller:c", "wasmbed:controllers", "patch", "devices", "d") {
            Decision::Allowed(constraints) => assert_eq!(constraints.len(), 2, "its spec and its metadata"),
            Decision::Denied(why) => panic!("{why}"),
        }
        assert!(!may("create", "devices", "d"));
        assert!(may("patch", "devicegateways/status", "g1"));
        assert!(!may("update", "devicegateways/status", "g1"));
        assert!(!may("patch", "devicegateways", "g1"));
        assert!(!may("create", "applications", "a"));
    }

    #[test]
    fn each_has_its_part_of_issuing() {
        let requests = "certificatesigningrequests";
        let (approval, status) = ("certificatesigningrequests/approval", "certificatesigningrequests/status");
        let (device, operator) = ("wasmbed.github.io/device", "wasmbed.github.io/operator");
        let may = |verb, resource, name| allowed("gateway:g1", "wasmbed:gateways", verb, resource, name);
        assert!(
            may("create", requests, "r")
                && may("get", requests, "r")
                && may("create", "subjectaccessreviews", "")
        );
        assert!(!may("list", requests, "") && !may("update", approval, "r") && !may("update", status, "r"));
        assert!(!may("delete", requests, "r") && !may("patch", requests, "r"));
        assert!(!may("approve", "signers", device) && !may("sign", "signers", device));
        let may = |verb, resource, name| allowed("controller:c", "wasmbed:controllers", verb, resource, name);
        assert!(may("watch", requests, "") && may("update", approval, "r"));
        assert!(may("approve", "signers", device) && may("approve", "signers", operator));
        assert!(!may("approve", "signers", "example.com/other") && !may("approve", "signers", ""));
        assert!(
            !may("sign", "signers", device) && !may("update", status, "r") && !may("create", requests, "r")
        );
        assert!(may("create", "subjectaccessreviews", "") && !may("get", "subjectaccessreviews", ""));
        let may = |verb, resource, name| allowed("signer:s", "wasmbed:signers", verb, resource, name);
        assert!(!may("create", "subjectaccessreviews", ""));
        assert!(may("watch", requests, "") && may("update", status, "r") && may("sign", "signers", device));
        assert!(may("sign", "signers", operator) && !may("sign", "signers", "example.com/other"));
        assert!(!may("approve", "signers", device) && !may("update", approval, "r"));
        assert!(!may("create", requests, "r") && !may("delete", requests, "r"));
        assert!(may("patch", "devices/status", "d") && !may("patch", "devices", "d"));
    }

    #[test]
    fn operators_read_log_in_and_change_nothing() {
        let may = |verb, resource, name| allowed("ada", "wasmbed:operators", verb, resource, name);
        let read = ["applications/log", "devices/log", "devices/messages", "devices/settings"];
        for resource in read.into_iter().chain(["applications", "devices", "devicegateways"]) {
            assert!(may("get", resource, "a"), "{resource}");
            for verb in ["create", "update", "patch", "delete", "deletecollection"] {
                assert!(!may(verb, resource, "a"), "{verb} {resource}");
            }
        }
        assert!(may("create", "devicegateways/login", ""));
        let requests = "certificatesigningrequests";
        assert!(may("create", requests, "r") && may("get", requests, "r") && !may("list", requests, ""));
        assert!(!may("update", "certificatesigningrequests/approval", "r"));
        assert!(!may("approve", "signers", "wasmbed.github.io/operator"));
        assert!(!may("create", "subjectaccessreviews", ""));
        assert!(!may("get", "secrets", "s") && !may("get", "modules", "m"));
        for group in ["wasmbed:gateways", "wasmbed:controllers", "wasmbed:signers"] {
            for (verb, resource) in
                [("create", "devicegateways/login")].into_iter().chain(read.map(|resource| ("get", resource)))
            {
                assert!(!allowed("x", group, verb, resource, ""), "{group} {verb} {resource}");
            }
        }
    }

    #[test]
    fn a_signer_reads_and_deletes_keys_of_pairing_tokens_one_by_one() {
        let may = |group: &str, verb, namespace| {
            let user = User { name: "x".into(), groups: vec![group.into()], credential: String::new() };
            let verb = Verb::parse(verb).unwrap();
            let access =
                Access { verb, group: "", resource: "secrets", namespace: Some(namespace), name: "s" };
            matches!(Policy::standard().unwrap().decide(&user, &access), Decision::Allowed(_))
        };
        assert!(may("wasmbed:signers", "get", "wasmbed-pairing"));
        assert!(may("wasmbed:signers", "delete", "wasmbed-pairing"));
        for verb in ["list", "watch", "create", "update", "patch", "deletecollection"] {
            assert!(!may("wasmbed:signers", verb, "wasmbed-pairing"), "{verb}");
        }
        for namespace in ["wasmbed-system", "default"] {
            assert!(
                !may("wasmbed:signers", "get", namespace) && !may("wasmbed:signers", "delete", namespace)
            );
        }
        for group in ["wasmbed:gateways", "wasmbed:controllers"] {
            assert!(!may(group, "get", "wasmbed-pairing") && !may(group, "delete", "wasmbed-pairing"));
        }
    }

    #[test]
    fn a_controller_gets_secrets_where_the_namespace_s_owner_says_so() {
        let bound = Policy::standard().unwrap().with_secret_namespaces(["plant".to_owned()]);
        let may = |policy: &Policy, group: &str, verb, namespace| {
            let user = User { name: "x".into(), groups: vec![group.into()], credential: String::new() };
            let verb = Verb::parse(verb).unwrap();
            let access =
                Access { verb, group: "", resource: "secrets", namespace: Some(namespace), name: "s" };
            matches!(policy.decide(&user, &access), Decision::Allowed(_))
        };
        assert!(may(&bound, "wasmbed:controllers", "get", "plant"));
        assert!(!may(&Policy::standard().unwrap(), "wasmbed:controllers", "get", "plant"), "nobody said so");
        for namespace in ["default", "wasmbed-system", "wasmbed-pairing", "plant2"] {
            assert!(!may(&bound, "wasmbed:controllers", "get", namespace), "{namespace}");
        }
        for verb in ["list", "watch", "create", "update", "patch", "delete", "deletecollection"] {
            assert!(!may(&bound, "wasmbed:controllers", verb, "plant"), "{verb}");
        }
        for group in ["wasmbed:gateways", "wasmbed:signers"] {
            assert!(!may(&bound, group, "get", "plant"), "{group}");
        }
    }

    #[test]
    fn an_author_has_the_signers_of_its_roles() {
        let policy = Policy::standard().unwrap();
        let author = |group: &str| {
            policy.author(&User { name: "x".into(), groups: vec![group.into()], credential: "c".into() })
        };
        let names = ["wasmbed.github.io/device", "wasmbed.github.io/operator", "example.com/other"];
        let rights = |group: &str| {
            let author = author(group);
            names.map(|name| (author.approves.has(name), author.signs.has(name)))
        };
        assert_eq!(rights("system:masters"), [(true, true); 3]);
        assert_eq!(rights("wasmbed:controllers"), [(true, false), (true, false), (false, false)]);
        assert_eq!(rights("wasmbed:signers"), [(false, true), (false, true), (false, false)]);
        assert_eq!(rights("wasmbed:gateways"), [(false, false); 3]);
        assert_eq!(author("a").groups, ["a", "system:authenticated"]);
    }

    #[test]
    fn denials_have_the_message_of_kubernetes() {
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
