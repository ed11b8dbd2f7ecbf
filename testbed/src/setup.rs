//! Preparing a cluster for a test, and cleaning it up for the next one.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        certificates::v1::CertificateSigningRequest,
        coordination::v1::Lease,
        core::v1::{Event, Namespace, ResourceQuota, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        conditions::is_crd_established,
        wait::{Condition, await_condition},
    },
};
use serde::de::DeserializeOwned;
use serde_json::json;
use wasmbed_api::{Application, Device, DeviceGateway, DeviceSpec, MessageBroker, Module, PAIRING_NAMESPACE};

use crate::{Cluster, ControlPlane, SECRETS_NAMESPACE, SYSTEM_NAMESPACE, User};

/// Permissions of gateways and controllers, for users with client certificates.
const ROLES: &str = include_str!("../../deploy/rbac/clients.yaml");
/// How long kube-apiserver may take to act on an admission policy: it compiles them every second or so.
const POLICY_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval of the checks.
const POLL: Duration = Duration::from_millis(100);

/// The same for every cluster, in the real one's words: what a seed depends on.
pub(crate) fn installed() -> Result<String> {
    let definitions = serde_json::to_string(&wasmbed_api::crds()).context("can't write the definitions")?;
    Ok([&definitions, ROLES, &secrets_bound(), SYSTEM_NAMESPACE, PAIRING_NAMESPACE].join("\n"))
}

/// The definitions, the namespaces and the rights. A seeded cluster has them.
pub(crate) async fn prepare(cluster: &Cluster, is_seeded: bool) -> Result<()> {
    if !is_seeded {
        install(cluster).await?;
    }
    serves(cluster).await
}

/// Waits until the rights hold.
pub(crate) async fn serves(cluster: &Cluster) -> Result<()> {
    match cluster.plane() {
        ControlPlane::Embedded => Ok(()),
        ControlPlane::Kubernetes => policies_hold(cluster).await,
    }
}

async fn install(cluster: &Cluster) -> Result<()> {
    let client = cluster.client(&User::administrator()).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in [SYSTEM_NAMESPACE, PAIRING_NAMESPACE] {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        match namespaces.create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            created => drop(created.with_context(|| format!("can't create the namespace {name}"))?),
        }
    }
    match cluster.plane() {
        // It creates both by itself.
        ControlPlane::Embedded => {}
        ControlPlane::Kubernetes => {
            install_definitions(&client).await?;
            cluster.apply(ROLES).context("can't apply the roles")?;
        }
    }
    // kube-apiserver creates it after it has begun to serve.
    let exists = await_condition(namespaces, "default", exists());
    exists.await.context("can't wait for the namespace default")?;
    if cluster.plane() == ControlPlane::Kubernetes {
        cluster.apply(&secrets_bound()).context("can't let controllers read Secrets")?;
    }
    Ok(())
}

/// What the owner of a namespace writes to let controllers read its Secrets.
fn secrets_bound() -> String {
    format!(
        "apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{ name: wasmbed-secret-reader, namespace: {SECRETS_NAMESPACE} }}
roleRef: {{ apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: wasmbed-secret-reader }}
subjects: [{{ apiGroup: rbac.authorization.k8s.io, kind: Group, name: 'wasmbed:controllers' }}]
"
    )
}

fn exists() -> impl Condition<Namespace> {
    |namespace: Option<&Namespace>| namespace.is_some()
}

/// Waits until a gateway can no longer do what only an admission policy forbids.
async fn policies_hold(cluster: &Cluster) -> Result<()> {
    let devices: Api<Device> = Api::namespaced(cluster.client(&User::gateway("testbed")).await?, "default");
    let approved = Device::new("approved", DeviceSpec { approved: true, ..DeviceSpec::default() });
    let try_only = PostParams { dry_run: true, ..PostParams::default() };
    let refused = async {
        loop {
            match devices.create(&try_only, &approved).await {
                Err(kube::Error::Api(status))
                    if status.is_forbidden() && status.message.contains("ValidatingAdmissionPolicy") =>
                {
                    return;
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    };
    tokio::time::timeout(POLICY_TIMEOUT, refused).await.context("the admission policies don't take effect")
}

async fn install_definitions(client: &Client) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = wasmbed_api::crds();
    for definition in &definitions {
        let name = definition.name_any();
        api.create(&PostParams::default(), definition)
            .await
            .with_context(|| format!("can't create {name}"))?;
    }
    for definition in &definitions {
        let name = definition.name_any();
        await_condition(api.clone(), &name, is_crd_established())
            .await
            .with_context(|| format!("can't wait for {name}"))?;
    }
    Ok(())
}

/// Removes what a test may have left.
pub(crate) async fn clean(cluster: &Cluster) -> Result<()> {
    let client = cluster.client(&User::administrator()).await?;
    remove_all::<Application>(&client).await?;
    remove_all::<Device>(&client).await?;
    remove_all::<Module>(&client).await?;
    remove_all::<DeviceGateway>(&client).await?;
    remove_all::<MessageBroker>(&client).await?;
    remove_all::<Lease>(&client).await?;
    remove_all::<Secret>(&client).await?;
    remove_all::<ResourceQuota>(&client).await?;
    // They are in no namespace.
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    requests.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    remove_all::<Event>(&client).await
}

/// Deletes every object of a kind, also where its finalizer's owner no longer runs.
async fn remove_all<K>(client: &Client) -> Result<()>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let kind = K::kind(&());
    let all: Api<K> = Api::all(client.clone());
    for object in all.list(&ListParams::default()).await.with_context(|| format!("can't list {kind}"))? {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        if !object.finalizers().is_empty() {
            let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
            missing_is_fine(api.patch(&name, &PatchParams::default(), &none).await)?;
        }
        missing_is_fine(api.delete(&name, &DeleteParams::default()).await)
            .with_context(|| format!("can't delete {kind} {namespace}/{name}"))?;
    }
    Ok(())
}

fn missing_is_fine<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
