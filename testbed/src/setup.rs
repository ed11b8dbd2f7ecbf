//! What a cluster has before a test begins, and what it no longer has when the next one does.

use anyhow::{Context, Result};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Event, Namespace},
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
use wasmbed_api::{Application, Device, DeviceGateway, Module};

use crate::{Cluster, ControlPlane, SYSTEM_NAMESPACE, User};

/// The definitions, the namespaces and the rights.
pub(crate) async fn prepare(cluster: &Cluster) -> Result<()> {
    let client = cluster.client(&User::administrator()).await?;
    match cluster.plane() {
        // It has both by itself.
        ControlPlane::Embedded => {}
        ControlPlane::Kubernetes => {
            install_definitions(&client).await?;
            cluster.apply(include_str!("interim.yaml")).context("can't apply the roles")?;
        }
    }
    let namespaces: Api<Namespace> = Api::all(client);
    let metadata = ObjectMeta { name: Some(SYSTEM_NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        created => drop(created.context("can't create the namespace of the system")?),
    }
    // kube-apiserver makes it by itself, after it has begun to serve.
    let exists = await_condition(namespaces, "default", exists());
    exists.await.context("can't wait for the namespace default")?;
    Ok(())
}

fn exists() -> impl Condition<Namespace> {
    |namespace: Option<&Namespace>| namespace.is_some()
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
    remove_all::<Lease>(&client).await?;
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
        answer => Ok(drop(answer?)),
    }
}
