//! What gateways, controllers, signers and operators may do, asked of both control planes by one table: every verb on every resource under
//! each identity, then what rules say about the objects themselves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use wasmbed_api::PAIRING_NAMESPACE;
use wasmbed_pki::CertificationRequest;
use wasmbed_protocol::KeyHash;
use wasmbed_testbed::{Cluster, ControlPlane, SECRETS_NAMESPACE, SYSTEM_NAMESPACE, User};

use crate::access::Access;

/// A request for a certificate, as a specification has it.
pub(crate) const REQUEST: &str = include_str!("../../../../crates/apiserver/tests/accept/request.base64");
/// Fingerprint of its key.
pub(crate) fn request_key() -> Result<String> {
    use base64::Engine as _;
    use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
    let pem = base64::engine::general_purpose::STANDARD.decode(REQUEST.trim())?;
    let der = CertificateSigningRequestDer::from_pem_slice(&pem).context("PEM of a request")?;
    Ok(KeyHash::of(CertificationRequest::parse(&der)?.public_key_info()).to_string())
}

const VERBS: [&str; 8] = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// The Secret with the key of a pairing token.
const PAIRING: &str = "wasmbed-pairing-0a1b2c3d";

/// `y` may, `r` and `s` may by its role and not by its rules, `-` may not, `.` is no request: the resource has no such
/// verb.
const GATEWAY: &str = "
    devices                 y y y y - - - -
    devices/status          - . . . y y . .
    applications            - - - - - - - -
    applications/status     - . . . - - . .
    modules                 - - - - - - - -
    messagebrokers          - - - - - - - -
    messagebrokers/status   - . . . - y . .
    devicegateways          y - - y y y - -
    devicegateways/status   y . . . y y . .
    leases                  y - - y y y - -
    events                  - - - y - y - -
    namespaces              - - - - - - - .
    certificatesigningrequests           y - - y - - - -
    certificatesigningrequests/status    - . . . - - . .
    certificatesigningrequests/approval  - . . . - - . .
    secrets                 - - - - - - - -
    resourcequotas          - - - - - - - -
    resourcequotas/status   - . . . - - . .
    subjectaccessreviews    . . . y . . . .
";
const CONTROLLER: &str = "
    devices                 y y y - r r - -
    devices/status          - . . . y y . .
    applications            y y y - y y - -
    applications/status     - . . . y y . .
    modules                 y y y - - - - -
    messagebrokers          y y y - - - - -
    messagebrokers/status   - . . . - - . .
    devicegateways          y y y - - - - -
    devicegateways/status   - . . . - s . .
    leases                  y y y y y y - -
    events                  - - - y - y - -
    namespaces              - - - - - - - .
    certificatesigningrequests           y y y - - - - -
    certificatesigningrequests/status    - . . . - - . .
    certificatesigningrequests/approval  - . . . y y . .
    secrets                 - - - - - - - -
    resourcequotas          - y y - - - - -
    resourcequotas/status   - . . . - y . .
    subjectaccessreviews    . . . y . . . .
";
const SIGNER: &str = "
    devices                 y y y - - - - -
    devices/status          - . . . - y . .
    applications            - - - - - - - -
    applications/status     - . . . - - . .
    modules                 - - - - - - - -
    messagebrokers          - - - - - - - -
    messagebrokers/status   - . . . - - . .
    devicegateways          - - - - - - - -
    devicegateways/status   - . . . - - . .
    leases                  - - - - - - - -
    events                  - - - y - y - -
    namespaces              - - - - - - - .
    certificatesigningrequests           y y y - - - - -
    certificatesigningrequests/status    - . . . y y . .
    certificatesigningrequests/approval  - . . . - - . .
    secrets                 y - - - - - y -
    resourcequotas          - - - - - - - -
    resourcequotas/status   - . . . - - . .
    subjectaccessreviews    . . . - . . . .
";

const OPERATOR: &str = "
    devices                 y y y - - - - -
    devices/status          - . . . - - . .
    applications            y y y - - - - -
    applications/status     - . . . - - . .
    modules                 - - - - - - - -
    messagebrokers          - - - - - - - -
    messagebrokers/status   - . . . - - . .
    devicegateways          y y y - - - - -
    devicegateways/status   - . . . - - . .
    leases                  - - - - - - - -
    events                  - - - - - - - -
    namespaces              - - - - - - - .
    certificatesigningrequests           y - - . - - - -
    certificatesigningrequests/status    - . . . - - . .
    certificatesigningrequests/approval  - . . . - - . .
    secrets                 - - - - - - - -
    resourcequotas          - - - - - - - -
    resourcequotas/status   - . . . - - . .
    subjectaccessreviews    . . . - . . . .
";

/// What the rules say of any other change of a Device's metadata; the table's writes change labels.
const ONLY_FINALIZERS: &str = "of a Device's metadata a controller may change only its own finalizer";

/// Roles and rules as a cluster has them, with one object of each kind.
pub(crate) struct Asked<'a> {
    pub(crate) client: Client,
    pub(crate) admin: &'a Client,
    /// The name in refusals.
    pub(crate) user: String,
    /// Where processes have what is theirs.
    pub(crate) system: &'a str,
}

#[tokio::test]
async fn the_embedded_server_allows_and_refuses_by_the_table() -> Result<()> {
    by_the_table(ControlPlane::Embedded).await
}

#[tokio::test]
async fn kubernetes_allows_and_refuses_by_the_table() -> Result<()> {
    by_the_table(ControlPlane::Kubernetes).await
}

async fn by_the_table(plane: ControlPlane) -> Result<()> {
    let cluster = Cluster::start(plane).await?;
    let admin = cluster.client(&User::administrator()).await?;
    prepare(&admin).await?;
    let ask = async |user: User| {
        anyhow::Ok(Asked {
            client: cluster.client(&user).await?,
            admin: &admin,
            user: user.name().to_owned(),
            system: SYSTEM_NAMESPACE,
        })
    };
    let gateway = ask(User::gateway("g1")).await?;
    policies_hold(&gateway).await?;
    gateway.matrix(GATEWAY, |resource| if resource == "leases" { "gateway-g1" } else { "g1" }).await?;
    gateway_rules(&gateway).await?;
    let controller = ask(User::controller("c1")).await?;
    controller.matrix(CONTROLLER, |_| "wasmbed-controller").await?;
    controller_rules(&controller).await?;
    let signer = ask(User::new("signer:s1", "wasmbed:signers")).await?;
    signer.matrix(SIGNER, |_| "wasmbed-controller").await?;
    signer_rules(&signer).await?;
    let operator = ask(User::new("ada", "wasmbed:operators")).await?;
    operator.matrix(OPERATOR, |_| "wasmbed-controller").await?;
    operator_rules(&operator).await?;
    operators_use_gateways(&cluster).await?;
    // In no group: nothing at all.
    let stranger = ask(User::new("gateway:g1", "wasmbed:strangers")).await?;
    let nothing: String = GATEWAY.replace(" y", " -");
    stranger.matrix(&nothing, |_| "g1").await
}

async fn operator_rules(operator: &Asked<'_>) -> Result<()> {
    let requests = "certificatesigningrequests";
    let of = |signer: &str| {
        let mut request = object(requests, "of-a-person");
        request["spec"]["signerName"] = json!(signer);
        request
    };
    operator.create(requests, of("wasmbed.github.io/operator")).await.allowed()?;
    let alone = "an operator may request certificates only of the signer wasmbed.github.io/operator";
    for other in ["wasmbed.github.io/device", "kubernetes.io/kube-apiserver-client"] {
        operator.create(requests, of(other)).await.refused_by_rule(alone)?;
    }
    Ok(())
}

/// What gateways and controllers ask about people: nobody serves these, and the Kubernetes API answers all the same.
async fn operators_use_gateways(cluster: &Cluster) -> Result<()> {
    let ada = Access::of(cluster, &User::new("ada", "wasmbed:operators")).await?;
    let signer = User::new("signer:s1", "wasmbed:signers");
    let mut others = Vec::new();
    for other in [User::gateway("g1"), User::controller("c1"), signer, User::new("eve", "nobody")] {
        others.push((other.name().to_owned(), Access::of(cluster, &other).await?));
    }
    for (verb, resource, below) in
        [("get", "applications", "log"), ("get", "devices", "log"), ("create", "devicegateways", "login")]
    {
        let what = ResourceAttributes {
            verb: Some(verb.to_owned()),
            group: Some("wasmbed.github.io".to_owned()),
            resource: Some(resource.to_owned()),
            subresource: Some(below.to_owned()),
            ..ResourceAttributes::default()
        };
        ensure!(ada.may(what.clone()).await?, "{verb} {resource}/{below}");
        for (name, other) in &others {
            ensure!(!other.may(what.clone()).await?, "{name} may {verb} {resource}/{below}");
        }
    }
    Ok(())
}

/// Keys of pairing tokens: a signer takes and deletes one by its name, in their namespace alone.
#[tokio::test]
async fn a_signer_has_the_keys_of_pairing_tokens_and_no_other_secret() -> Result<()> {
    for plane in [ControlPlane::Embedded, ControlPlane::Kubernetes] {
        only_keys_of_pairing_tokens(plane).await?;
    }
    Ok(())
}

async fn only_keys_of_pairing_tokens(plane: ControlPlane) -> Result<()> {
    let name = "wasmbed-pairing-ffffffff";
    let cluster = Cluster::start(plane).await?;
    let kubectl = cluster.kubectl(&User::administrator())?;
    for namespace in [PAIRING_NAMESPACE, SYSTEM_NAMESPACE, "default"] {
        kubectl.run(&["-n", namespace, "create", "secret", "generic", name, "--from-literal=key=k"])?;
    }
    let signer = User::new("signer:s1", "wasmbed:signers");
    let its = Access::of(&cluster, &signer).await?;
    let gateways = Access::of(&cluster, &User::gateway("g1")).await?;
    let controllers = Access::of(&cluster, &User::controller("c1")).await?;
    for verb in VERBS {
        let may = its.may_secret(verb, PAIRING_NAMESPACE, name).await?;
        ensure!(may == matches!(verb, "get" | "delete"), "{verb}");
        for namespace in [SYSTEM_NAMESPACE, "default"] {
            let may = its.may_secret(verb, namespace, name).await?;
            ensure!(!may, "a signer may {verb} secrets in {namespace}");
        }
        for (who, other) in [("gateway", &gateways), ("controller", &controllers)] {
            let may = other.may_secret(verb, PAIRING_NAMESPACE, name).await?;
            ensure!(!may, "a {who} may {verb} keys of pairing tokens");
        }
    }
    let as_signer = cluster.kubectl(&signer)?;
    as_signer.run(&["-n", PAIRING_NAMESPACE, "get", "secret", name])?;
    as_signer.run(&["-n", PAIRING_NAMESPACE, "delete", "secret", name])?;
    ensure!(as_signer.run(&["-n", PAIRING_NAMESPACE, "get", "secrets"]).is_err(), "it may not list them");
    ensure!(as_signer.run(&["-n", SYSTEM_NAMESPACE, "get", "secret", name]).is_err(), "nor take another");
    for namespace in [SYSTEM_NAMESPACE, "default"] {
        kubectl.run(&["-n", namespace, "delete", "secret", name])?;
    }
    Ok(())
}

/// Secrets for env_from: a controller gets one by its name, where the namespace's owner has bound the role and nowhere else.
#[tokio::test]
async fn a_controller_gets_secrets_one_by_one_where_its_role_is_bound() -> Result<()> {
    for plane in [ControlPlane::Embedded, ControlPlane::Kubernetes] {
        only_where_bound(plane).await?;
    }
    Ok(())
}

async fn only_where_bound(plane: ControlPlane) -> Result<()> {
    let cluster = Cluster::start(plane).await?;
    let kubectl = cluster.kubectl(&User::administrator())?;
    kubectl.run(&["create", "namespace", "unbound"])?;
    let unbound = [SYSTEM_NAMESPACE, PAIRING_NAMESPACE, "unbound"];
    for namespace in unbound.into_iter().chain([SECRETS_NAMESPACE]) {
        kubectl.run(&["-n", namespace, "create", "secret", "generic", "one", "--from-literal=key=k"])?;
    }
    let controller = User::controller("c1");
    let its = Access::of(&cluster, &controller).await?;
    let gateways = Access::of(&cluster, &User::gateway("g1")).await?;
    for verb in VERBS {
        let may = its.may_secret(verb, SECRETS_NAMESPACE, "one").await?;
        ensure!(may == (verb == "get"), "a controller: {verb}");
        ensure!(!gateways.may_secret(verb, SECRETS_NAMESPACE, "one").await?, "a gateway: {verb}");
        for namespace in unbound {
            let may = its.may_secret(verb, namespace, "one").await?;
            ensure!(!may, "a controller may {verb} secrets in {namespace}");
        }
    }
    let as_controller = cluster.kubectl(&controller)?;
    as_controller.run(&["-n", SECRETS_NAMESPACE, "get", "secret", "one"])?;
    ensure!(as_controller.run(&["-n", SECRETS_NAMESPACE, "get", "secrets"]).is_err(), "it may not list them");
    ensure!(
        as_controller.run(&["-n", SECRETS_NAMESPACE, "delete", "secret", "one"]).is_err(),
        "nor delete one"
    );
    for namespace in unbound {
        let refused = as_controller.refused(&["-n", namespace, "get", "secret", "one"])?;
        ensure!(refused.contains("secrets \"one\" is forbidden"), "{refused}");
    }
    Ok(())
}

/// Where a role allows too much, the admission policies still hold.
#[tokio::test]
async fn policies_hold_where_roles_are_too_wide() -> Result<()> {
    let cluster = Cluster::start(ControlPlane::Kubernetes).await?;
    let admin = cluster.client(&User::administrator()).await?;
    prepare(&admin).await?;
    cluster.apply(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: too-wide }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin }
subjects:
  - { apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'wasmbed:gateways' }
  - { apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'wasmbed:controllers' }
",
    )?;
    let user = User::gateway("g1");
    let gateway = Asked {
        client: cluster.client(&user).await?,
        admin: &admin,
        user: user.name().to_owned(),
        system: SYSTEM_NAMESPACE,
    };
    policies_hold(&gateway).await?;
    let keeps = "a gateway may not change a spec";
    gateway.patch("devices", "one", json!({"spec": {"approved": true}})).await.refused_by_rule(keeps)?;
    gateway
        .patch("applications", "one", json!({"spec": {"description": "mine"}}))
        .await
        .refused_by_rule(keeps)?;
    for (resource, name) in
        [("devices", "one"), ("applications", "one"), ("leases", "gateway-g1"), ("devicegateways", "g1")]
    {
        gateway.delete(resource, name).await.refused_by_rule("a gateway may not delete anything")?;
    }
    gateway
        .create("modules", object("modules", "new"))
        .await
        .refused_by_rule("a gateway may not create Applications, Modules or MessageBrokers")?;
    gateway_rules(&gateway).await?;
    let user = User::controller("c1");
    let controller = Asked {
        client: cluster.client(&user).await?,
        admin: &admin,
        user: user.name().to_owned(),
        system: SYSTEM_NAMESPACE,
    };
    let keeps = "a controller may change metadata and status, and no spec";
    controller.patch("devices", "one", json!({"spec": {"approved": true}})).await.refused_by_rule(keeps)?;
    let address = json!({"spec": {"address": "10.0.0.9:1"}});
    controller.patch("devicegateways", "g1", address).await.refused_by_rule(keeps)?;
    controller.delete("devices", "one").await.refused_by_rule("a controller may not delete anything")?;
    controller
        .create("devices", object("devices", "new"))
        .await
        .refused_by_rule("a controller may create only Events and its Lease")?;
    let holds = "a controller may write only the Lease wasmbed-controller";
    controller.patch("leases", "gateway-g1", label()).await.refused_by_rule(holds)
}

async fn gateway_rules(gateway: &Asked<'_>) -> Result<()> {
    let approves = "a gateway may create a Device only with approved: false; a person approves it";
    let device = |spec: Value| {
        let mut device = object("devices", "new");
        device["spec"] = spec;
        device
    };
    gateway.create("devices", device(json!({"device_type": "t", "approved": false}))).await.allowed()?;
    for spec in [
        json!({"device_type": "t", "approved": true}),
        // Approved is what a Device is where nobody says otherwise.
        json!({"device_type": "t"}),
        json!({"device_type": "t", "approved": false, "revoked": true}),
        json!({"device_type": "t", "approved": false, "decommission": true}),
    ] {
        gateway.create("devices", device(spec)).await.refused_by_rule(approves)?;
    }
    // What a status write says about a spec is dropped, not taken.
    let both = json!({"spec": {"approved": true}, "status": {"phase": "Connected"}});
    let answer = gateway.patch("devices/status", "one", both).await;
    ensure!(answer.body["spec"]["approved"] == false && answer.code == 200, "{answer:?}");

    let key = "a gateway may not change status.public_key of a Device; a signer writes it";
    key_rules(gateway, Some(key)).await?;
    let finished = "a gateway may not change status.finished of a Device; a controller writes it";
    gateway.patch("devices/status", "one", result()).await.refused_by_rule(finished)?;
    let decommission = "a gateway may not change status.decommission or the condition Decommissioned of a Device; a controller writes them";
    decommission_rules(gateway, Some(decommission)).await?;

    let own = "a gateway may write only the DeviceGateway of its own name";
    gateway.create("devicegateways", object("devicegateways", "g3")).await.refused_by_rule(own)?;
    gateway.patch("devicegateways", "g2", label()).await.refused_by_rule(own)?;
    gateway
        .patch("devicegateways/status", "g2", json!({"status": {"connected": 1}}))
        .await
        .refused_by_rule(own)?;
    gateway.update("devicegateways", "g2").await.refused_by_rule(own)?;
    let entries = |gateways: &[&str]| {
        let entries: Vec<Value> =
            gateways.iter().map(|name| json!({"gateway": name, "connected": true})).collect();
        json!({"status": {"gateways": entries}})
    };
    gateway.patch("messagebrokers/status", "one", entries(&["g1"])).await.allowed()?;
    let own = "of a MessageBroker's status a gateway may write only its own entry";
    for others in [&["g2"][..], &["g1", "g2"]] {
        gateway.patch("messagebrokers/status", "one", entries(others)).await.refused_by_rule(own)?;
    }
    let requests = "a gateway may request certificates only of the signer wasmbed.github.io/device";
    for signer in ["wasmbed.github.io/operator", "example.com/other", "kubernetes.io/kube-apiserver-client"] {
        let mut request = object("certificatesigningrequests", "new");
        request["spec"]["signerName"] = json!(signer);
        gateway.create("certificatesigningrequests", request).await.refused_by_rule(requests)?;
    }
    // The leader's Lease is read, and no other that is not its own.
    gateway.get("leases", "wasmbed-controller").await.allowed()?;
    let own = "a gateway may write only its own Lease, gateway- and its name";
    gateway.create("leases", object("leases", "gateway-g3")).await.refused_by_rule(own)?;
    for name in ["gateway-g2", "wasmbed-controller"] {
        gateway
            .patch("leases", name, json!({"spec": {"holderIdentity": "me"}}))
            .await
            .refused_by_rule(own)?;
        gateway.update("leases", name).await.refused_by_rule(own)?;
    }
    Ok(())
}

/// What an application left behind that ended on a device.
fn result() -> Value {
    let entry = json!({
        "uid": "00000000-0000-4000-8000-000000000001", "state": "Completed", "spec_hash": "0".repeat(64),
    });
    json!({"status": {"finished": [entry]}})
}

async fn controller_rules(controller: &Asked<'_>) -> Result<()> {
    let key = "a controller may not change status.public_key of a Device; a signer writes it";
    key_rules(controller, Some(key)).await?;
    controller.patch("devices/status", "one", result()).await.allowed()?;
    decommission_rules(controller, None).await?;
    let finalizer = json!({"metadata": {"finalizers": ["wasmbed.github.io/undeploy"]}});
    controller.patch("applications", "one", finalizer).await.allowed()?;
    controller
        .patch("applications", "one", json!({"spec": {"description": "mine"}}))
        .await
        .refused_by_rule("a controller may change metadata and status, and no spec")?;
    for ty in ["Approved", "Denied"] {
        controller.patch("certificatesigningrequests/approval", "one", condition(ty)).await.allowed()?;
        let refused = controller.patch("certificatesigningrequests/approval", "foreign", condition(ty)).await;
        refused.refused_by_rule(
            "user not permitted to approve requests with signerName \"example.com/other\"",
        )?;
    }
    let device = json!({"metadata": {"finalizers": ["wasmbed.github.io/undeploy"]}});
    controller.patch("devices", "one", device).await.allowed()?;
    for spec in [
        json!({"approved": true}),
        json!({"revoked": true}),
        json!({"decommission": true}),
        json!({"device_type": "mine"}),
    ] {
        controller
            .patch("devices", "one", json!({"spec": spec}))
            .await
            .refused_by_rule("a controller may change metadata and status, and no spec")?;
    }
    for metadata in [
        label()["metadata"].clone(),
        json!({"annotations": {"asked": "yes"}}),
        json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Namespace", "name": "default", "uid": "x"}]}),
        json!({"finalizers": ["example.com/mine"]}),
        json!({"finalizers": ["wasmbed.github.io/undeploy", "example.com/mine"]}),
    ] {
        controller
            .patch("devices", "one", json!({"metadata": metadata}))
            .await
            .refused_by_rule(ONLY_FINALIZERS)?;
    }
    let holds = "a controller may write only the Lease wasmbed-controller";
    controller.create("leases", object("leases", "gateway-g9")).await.refused_by_rule(holds)?;
    let refused = controller.patch("leases", "gateway-g1", label()).await;
    refused.refused_by_role(&controller.user, "patch", "leases")?;
    let says = "of a DeviceGateway a controller may change only the condition Ready, to Unknown";
    let ready = |status: &str| {
        json!({"type": "Ready", "status": status, "reason": "LeaseExpired", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let status = |status: Value| json!({"status": status});
    let of = "devicegateways/status";
    controller.patch(of, "g1", status(json!({"conditions": [ready("Unknown")]}))).await.allowed()?;
    for more in [
        json!({"conditions": [ready("True")]}),
        json!({"conditions": [ready("False")]}),
        json!({"conditions": []}),
        json!({"conditions": [ready("Unknown")], "connected": 7}),
        json!({"conditions": [ready("Unknown")], "boot_id": "0".repeat(32)}),
        json!({"conditions": [ready("Unknown")], "version": "9"}),
        json!({"connected": 7}),
    ] {
        controller.patch(of, "g1", status(more)).await.refused_by_rule(says)?;
    }
    quota_rules(controller).await
}

/// What a controller may say of a ResourceQuota.
async fn quota_rules(controller: &Asked<'_>) -> Result<()> {
    let of = "resourcequotas/status";
    controller.patch(of, "one", used("7")).await.allowed()?;
    let alone = "of a ResourceQuota a controller may change only what its status says of wasmbed.github.io/module-bytes used";
    let key = "wasmbed.github.io/module-bytes";
    for status in [
        json!({"used": {"count/secrets": "0"}}),
        json!({"used": {key: "7", "pods": "0"}}),
        json!({"hard": {key: "9"}}),
        json!({"hard": {key: "9"}, "used": {key: "7"}}),
    ] {
        controller.patch(of, "one", json!({ "status": status })).await.refused_by_rule(alone)?;
    }
    // Nor may it change or take away what others count.
    let counted = |used: Value| json!({"status": {"hard": {key: "1Mi"}, "used": used}});
    let path = item(controller.system, of, "one");
    let answer =
        send(controller.admin, "PATCH", &path, Some(counted(json!({"pods": "1"}))), "merge-patch+json").await;
    ensure!(answer.code == 200, "{answer:?}");
    // The embedded server counts itself what it knows.
    let path = item(controller.system, "resourcequotas", "one");
    if send(controller.admin, "GET", &path, None, "").await.body["status"]["used"]["pods"] == "1" {
        for used in [json!({"pods": "2"}), json!({"pods": null}), json!({"pods": null, key: "7"})] {
            controller.patch(of, "one", counted(used)).await.refused_by_rule(alone)?;
        }
    }
    // Metadata come through in a cluster.
    let answer = controller.patch(of, "one", label()).await;
    ensure!(
        answer.code == 200 && answer.body["metadata"]["labels"].is_null()
            || answer.refused_by_rule(alone).is_ok(),
        "{answer:?}"
    );
    let spec = json!({"spec": {"hard": {key: "9Gi"}}});
    let refused = controller.patch("resourcequotas", "one", spec).await;
    refused.refused_by_role(&controller.user, "patch", "resourcequotas")
}

/// A condition as whoever approves or denies sets it.
fn condition(ty: &str) -> Value {
    json!({"status": {"conditions": [{"type": ty, "status": "True", "reason": "Asked", "message": "m"}]}})
}

/// What gateways and controllers may do with what is said of taking a device out of service. What a controller wrote stays for those
/// who are refused to change it.
async fn decommission_rules(asked: &Asked<'_>, refused: Option<&str>) -> Result<()> {
    let confirmed = |at: &str| {
        json!({"nonce": "0".repeat(32), "requested_at": "2026-01-01T00:00:00Z", "confirmed_at": at,
            "erased": ["Modules"]})
    };
    let says = json!({"type": "Decommissioned", "status": "True", "reason": "Confirmed", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let of = "devices/status";
    let Some(message) = refused else {
        let status = json!({"decommission": confirmed("2026-01-01T00:01:00Z"), "conditions": [says]});
        asked.patch(of, "one", json!({ "status": status })).await.allowed()?;
        return asked
            .patch(of, "one", json!({"status": {"decommission": null, "conditions": []}}))
            .await
            .allowed();
    };
    for status in [
        json!({"decommission": confirmed("2026-01-01T00:01:00Z")}),
        json!({"phase": "Connected", "decommission": confirmed("2026-01-01T00:01:00Z")}),
        json!({"conditions": [says]}),
    ] {
        asked.patch(of, "one", json!({ "status": status })).await.refused_by_rule(message)?;
    }
    // Nor may it change or remove what stands there.
    let status = json!({"decommission": confirmed("2026-01-01T00:01:00Z"), "conditions": [says]});
    let set = async |status: Value| {
        let body = json!({ "status": status });
        let answer =
            send(asked.admin, "PATCH", &item(asked.system, of, "one"), Some(body), "merge-patch+json").await;
        ensure!(answer.code == 200, "{answer:?}");
        anyhow::Ok(())
    };
    set(status).await?;
    for status in [
        json!({"decommission": {"confirmed_at": "2026-01-01T00:02:00Z"}}),
        json!({"decommission": {"nonce": "1".repeat(32)}}),
        json!({"decommission": null}),
        json!({"conditions": []}),
    ] {
        asked.patch(of, "one", json!({ "status": status })).await.refused_by_rule(message)?;
    }
    asked.patch(of, "one", json!({"status": {"phase": "Disconnected"}})).await.allowed()?;
    set(json!({"decommission": null, "conditions": null})).await
}

/// What gateways, controllers and signers may do with the key that a signer certified.
async fn key_rules(asked: &Asked<'_>, refused: Option<&str>) -> Result<()> {
    let key = |letter: &str| json!({"status": {"public_key": letter.repeat(44)}});
    let answer = asked.patch("devices/status", "one", key("A")).await;
    let Some(message) = refused else { return answer.allowed() };
    answer.refused_by_rule(message)?;
    let both = json!({"status": {"phase": "Connected", "public_key": "B".repeat(44)}});
    asked.patch("devices/status", "one", both).await.refused_by_rule(message)
}

async fn signer_rules(signer: &Asked<'_>) -> Result<()> {
    key_rules(signer, None).await?;
    let alone = "of a Device a signer may change only status.public_key";
    for status in [
        json!({"phase": "Connected"}),
        json!({"phase": "Connected", "public_key": "A".repeat(44)}),
        json!({"gateway": "g9", "public_key": "A".repeat(44)}),
        json!({"decommission": {"nonce": "0".repeat(32), "requested_at": "2026-01-01T00:00:00Z"}}),
        json!({"conditions": [{"type": "Connected", "status": "True", "reason": "Asked", "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
    ] {
        signer.patch("devices/status", "one", json!({ "status": status })).await.refused_by_rule(alone)?;
    }
    let tokens = "of Secrets a signer may delete only the keys of pairing tokens";
    signer.delete("secrets", "one").await.refused_by_rule(tokens)?;
    let of = "certificatesigningrequests/status";
    let failed = condition("Failed");
    signer.patch(of, "one", failed.clone()).await.allowed()?;
    let refused = signer.patch(of, "foreign", failed).await;
    refused.refused_by_rule("user not permitted to sign requests with signerName \"example.com/other\"")?;
    for ty in ["Approved", "Denied"] {
        let answer = signer.patch(of, "one", condition(ty)).await;
        ensure!(answer.code == 422, "a signer approves nothing: {answer:?}");
    }
    Ok(())
}

/// One object of every kind.
pub(crate) async fn prepare(admin: &Client) -> Result<()> {
    for (resource, names) in [
        ("devices", &["one"][..]),
        ("applications", &["one"]),
        ("modules", &["one"]),
        ("messagebrokers", &["one"]),
        ("devicegateways", &["g1", "g2"]),
        ("leases", &["gateway-g1", "gateway-g2", "wasmbed-controller"]),
        ("events", &["one"]),
        ("certificatesigningrequests", &["one", "foreign"]),
        ("secrets", &["one", PAIRING]),
        ("resourcequotas", &["one"]),
    ] {
        for name in names {
            let made = send(
                admin,
                "POST",
                &collection(SYSTEM_NAMESPACE, resource),
                Some(object(resource, name)),
                "json",
            )
            .await;
            ensure!(made.code == 201, "{resource} {name}: {made:?}");
        }
    }
    let ready = json!({"type": "Ready", "status": "True", "reason": "Serving", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"connected": 1, "conditions": [ready]}});
    let path = item(SYSTEM_NAMESPACE, "devicegateways/status", "g1");
    let said = send(admin, "PATCH", &path, Some(status), "merge-patch+json").await;
    ensure!(said.code == 200, "{said:?}");
    Ok(())
}

/// Policies take effect a moment after they were made.
pub(crate) async fn policies_hold(gateway: &Asked<'_>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut device = object("devices", "new");
    device["spec"]["approved"] = json!(true);
    loop {
        let answer = gateway.create("devices", device.clone()).await;
        // The last policy of all is a controller's; they are compiled together.
        if answer.code == 403 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the policies do not hold: {answer:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Asked<'_> {
    /// Asks every verb of a table; writes are dry runs.
    pub(crate) async fn matrix(&self, table: &str, own: impl Fn(&str) -> &'static str) -> Result<()> {
        for line in table.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let resource = words.next().context("a line begins with a resource")?;
            let kind = resource.split('/').next().unwrap_or(resource);
            let name = match kind {
                "devicegateways" if own(kind) == "wasmbed-controller" => "g1",
                "devicegateways" | "leases" => own(kind),
                "namespaces" => "default",
                "secrets" => PAIRING,
                _ => "one",
            };
            for (verb, expected) in VERBS.into_iter().zip(words) {
                if expected == "." {
                    continue;
                }
                let answer = self.ask(verb, resource, name).await?;
                let told = || format!("{} {verb} {resource} {name}", self.user);
                match expected {
                    "y" => answer.allowed().with_context(told)?,
                    "r" => answer.refused_by_rule(ONLY_FINALIZERS).with_context(told)?,
                    // Allowed by role, and refused by rule as it was asked.
                    "s" => answer.refused_by_rule(
                        "of a DeviceGateway a controller may change only the condition Ready",
                    )?,
                    "-" => answer.refused_by_role(&self.user, verb, resource).with_context(told)?,
                    other => bail!("{other} means nothing in the table"),
                }
            }
        }
        Ok(())
    }

    async fn ask(&self, verb: &str, resource: &str, name: &str) -> Result<Answer> {
        Ok(match verb {
            "get" => send(&self.client, "GET", &item(self.system, resource, name), None, "").await,
            "list" => send(&self.client, "GET", &collection(self.system, resource), None, "").await,
            "watch" => {
                let path = format!("{}?watch=true&timeoutSeconds=1", collection(self.system, resource));
                send(&self.client, "GET", &path, None, "").await
            }
            // The own object is there already: then another answer than a refusal is a permission, too.
            "create" => self.create(resource, object(resource, name)).await,
            "update" => self.update(resource, name).await,
            // A controller may write this alone.
            "patch" if resource == "resourcequotas/status" => self.patch(resource, name, used("1")).await,
            "patch" => self.patch(resource, name, label()).await,
            "delete" => self.delete(resource, name).await,
            "deletecollection" => {
                send(
                    &self.client,
                    "DELETE",
                    &format!("{}?dryRun=All", collection(self.system, resource)),
                    None,
                    "",
                )
                .await
            }
            other => bail!("{other} is no verb"),
        })
    }

    pub(crate) async fn create(&self, resource: &str, object: Value) -> Answer {
        let path = format!("{}?dryRun=All", collection(self.system, resource));
        send(&self.client, "POST", &path, Some(object), "json").await
    }

    /// Writes back what is there.
    pub(crate) async fn update(&self, resource: &str, name: &str) -> Answer {
        let kind = resource.split('/').next().unwrap_or(resource);
        let mut held = send(self.admin, "GET", &item(self.system, kind, name), None, "").await.body;
        held["metadata"]["labels"] = json!({"asked": "yes"});
        let path = format!("{}?dryRun=All", item(self.system, resource, name));
        send(&self.client, "PUT", &path, Some(held), "json").await
    }

    pub(crate) async fn patch(&self, resource: &str, name: &str, patch: Value) -> Answer {
        let path = format!("{}?dryRun=All", item(self.system, resource, name));
        send(&self.client, "PATCH", &path, Some(patch), "merge-patch+json").await
    }

    pub(crate) async fn get(&self, resource: &str, name: &str) -> Answer {
        send(&self.client, "GET", &item(self.system, resource, name), None, "").await
    }

    pub(crate) async fn delete(&self, resource: &str, name: &str) -> Answer {
        send(&self.client, "DELETE", &format!("{}?dryRun=All", item(self.system, resource, name)), None, "")
            .await
    }
}

/// What a server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
}

impl Answer {
    fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// An object that is there already was asked for by one who may.
    pub(crate) fn allowed(&self) -> Result<()> {
        ensure!(matches!(self.code, 200 | 201 | 409), "not allowed: {self:?}");
        Ok(())
    }

    pub(crate) fn refused_by_role(&self, user: &str, verb: &str, resource: &str) -> Result<()> {
        let expected = format!("User \"{user}\" cannot {verb} resource \"{resource}\" in API group ");
        self.refused(&expected)
    }

    pub(crate) fn refused_by_rule(&self, message: &str) -> Result<()> {
        self.refused(message)
    }

    fn refused(&self, message: &str) -> Result<()> {
        let forbidden = self.code == 403 && self.body["reason"] == "Forbidden";
        ensure!(forbidden && self.message().contains(message), "expected {message:?}, got {self:?}");
        Ok(())
    }
}

async fn send(client: &Client, method: &str, path: &str, body: Option<Value>, form: &str) -> Answer {
    let mut request = http::Request::builder().method(method).uri(path);
    if body.is_some() {
        request = request.header(http::header::CONTENT_TYPE, format!("application/{form}"));
    }
    let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    let response = client.send(request.body(Body::from(bytes)).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    if code == 200 && path.contains("watch=true") {
        return Answer { code, body: Value::Null };
    }
    let bytes = response.into_body().collect_bytes().await.unwrap();
    Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_default() }
}

/// Path of a resource's objects where the processes have theirs.
fn collection(system: &str, resource: &str) -> String {
    let kind = resource.split('/').next().unwrap_or(resource);
    match kind {
        "namespaces" => "/api/v1/namespaces".to_owned(),
        "certificatesigningrequests" => "/apis/certificates.k8s.io/v1/certificatesigningrequests".to_owned(),
        "subjectaccessreviews" => "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
        "events" => "/api/v1/namespaces/default/events".to_owned(),
        "resourcequotas" => "/api/v1/namespaces/default/resourcequotas".to_owned(),
        "secrets" => format!("/api/v1/namespaces/{PAIRING_NAMESPACE}/secrets"),
        "leases" => format!("/apis/coordination.k8s.io/v1/namespaces/{system}/leases"),
        "devicegateways" => {
            format!("/apis/wasmbed.github.io/v1alpha1/namespaces/{system}/devicegateways")
        }
        other => format!("/apis/wasmbed.github.io/v1alpha1/namespaces/default/{other}"),
    }
}

fn item(system: &str, resource: &str, name: &str) -> String {
    match resource.split_once('/') {
        Some((kind, part)) => format!("{}/{name}/{part}", collection(system, kind)),
        None => format!("{}/{name}", collection(system, resource)),
    }
}

/// What a controller says of the bytes of modules.
fn used(bytes: &str) -> Value {
    json!({"status": {"used": {"wasmbed.github.io/module-bytes": bytes}}})
}

fn label() -> Value {
    json!({"metadata": {"labels": {"asked": "yes"}}})
}

/// A valid object of a kind; a Device is one that a gateway may create.
pub(crate) fn object(resource: &str, name: &str) -> Value {
    let ours = "wasmbed.github.io/v1alpha1";
    let (version, kind, rest) = match resource.split('/').next().unwrap_or(resource) {
        "devices" => (ours, "Device", json!({"spec": {"device_type": "t", "approved": false}})),
        "applications" => (ours, "Application", json!({"spec": {"name": "one", "module": "one"}})),
        "modules" => (ours, "Module", json!({"spec": {"wasm_bytes": "AGFzbQEAAAA="}})),
        "messagebrokers" => {
            (ours, "MessageBroker", json!({"spec": {"type": "Mqtt", "url": "mqtts://broker"}}))
        }
        "devicegateways" => (ours, "DeviceGateway", json!({"spec": {"address": "10.0.0.1:8080"}})),
        "secrets" => ("v1", "Secret", json!({"data": {"key": "AAAA"}})),
        "resourcequotas" => {
            ("v1", "ResourceQuota", json!({"spec": {"hard": {"wasmbed.github.io/module-bytes": "1Mi"}}}))
        }
        "leases" => ("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": "x"}})),
        "certificatesigningrequests" => {
            let signer = if name == "foreign" { "example.com/other" } else { "wasmbed.github.io/device" };
            let spec =
                json!({"request": REQUEST.trim_end(), "signerName": signer, "usages": ["client auth"]});
            ("certificates.k8s.io/v1", "CertificateSigningRequest", json!({ "spec": spec }))
        }
        "subjectaccessreviews" => {
            let asked = json!({"verb": "get", "group": "wasmbed.github.io", "resource": "devices"});
            let spec = json!({"user": "somebody", "resourceAttributes": asked});
            ("authorization.k8s.io/v1", "SubjectAccessReview", json!({ "spec": spec }))
        }
        "events" => {
            let about = json!({"kind": "Device", "name": "one", "namespace": "default"});
            (
                "v1",
                "Event",
                json!({"involvedObject": about, "reason": "Asked", "message": "m", "type": "Normal"}),
            )
        }
        _ => ("v1", "Namespace", json!({})),
    };
    let mut object = rest;
    object["apiVersion"] = json!(version);
    object["kind"] = json!(kind);
    // A review isn't stored.
    if kind != "SubjectAccessReview" {
        object["metadata"] = json!({"name": name});
    }
    object
}
