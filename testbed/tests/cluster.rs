//! The test bed itself: both control planes come up, forget nothing when they are killed, and leave nothing behind.

#![cfg(test)]

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::{api::core::v1::Namespace, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
    runtime::{conditions::is_deleted, wait::await_condition},
};
use wasmbed_api::{Device, DeviceSpec};
use wasmbed_testbed::{Cluster, ControlPlane, Options, Part, Process, User};

fn device(name: &str) -> Device {
    Device::new(name, DeviceSpec::default())
}

async fn devices(cluster: &Cluster, user: &User) -> Result<Api<Device>> {
    Ok(Api::namespaced(cluster.client(user).await?, "default"))
}

/// Each part dies and comes back; what was acknowledged is still there.
async fn survives(plane: ControlPlane) -> Result<()> {
    let cluster = Cluster::start(plane).await?;
    let api = devices(&cluster, &User::administrator()).await?;
    for part in cluster.parts() {
        let name = format!("{part:?}").to_lowercase();
        api.create(&PostParams::default(), &device(&name)).await?;
        cluster.kill(part)?;
        assert!(cluster.kill(part).is_err(), "it no longer runs");
        if part == Part::ApiServer {
            assert!(api.get(&name).await.is_err(), "nobody answers");
        }
        cluster.start_part(part).await?;
        assert!(cluster.start_part(part).await.is_err(), "it runs already");
        // Its connections to etcd come back by themselves.
        let again = tokio::time::timeout(std::time::Duration::from_secs(60), async {
            while api.get(&name).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        });
        again.await.with_context(|| format!("{name} is lost"))?;
    }
    cluster.stop(Part::ApiServer).await?;
    cluster.start_part(Part::ApiServer).await?;
    assert_eq!(api.list(&ListParams::default()).await?.items.len(), cluster.parts().len());
    Ok(())
}

/// Users have the rights of their group and no others.
async fn users(plane: ControlPlane) -> Result<()> {
    let cluster = Cluster::shared(plane).await?;
    let mut unapproved = device("by-gateway");
    unapproved.spec.approved = false;
    let by_gateway = devices(&cluster, &User::gateway("e2e")).await?;
    by_gateway.create(&PostParams::default(), &unapproved).await?;
    for user in [User::gateway("e2e"), User::controller("e2e"), User::new("nobody", "nothing")] {
        let api = devices(&cluster, &user).await?;
        let refused = api.delete("by-gateway", &DeleteParams::default()).await.expect_err("not its right");
        assert!(matches!(&refused, kube::Error::Api(status) if status.is_forbidden()), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn the_embedded_one_survives() -> Result<()> {
    survives(ControlPlane::Embedded).await
}

#[tokio::test]
async fn the_real_one_survives() -> Result<()> {
    survives(ControlPlane::Kubernetes).await
}

#[tokio::test]
async fn users_of_the_embedded_one() -> Result<()> {
    users(ControlPlane::Embedded).await
}

#[tokio::test]
async fn users_of_the_real_one() -> Result<()> {
    users(ControlPlane::Kubernetes).await
}

#[tokio::test]
async fn the_controller_manager_ends_a_namespace() -> Result<()> {
    let options = Options { controller_manager: true, ..Options::default() };
    let cluster = Cluster::start_with(ControlPlane::Kubernetes, options).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client(&User::administrator()).await?);
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("short-lived".to_owned());
    let made = namespaces.create(&PostParams::default(), &namespace).await?;
    namespaces.delete("short-lived", &DeleteParams::default()).await?;
    let uid = made.metadata.uid.context("a uid")?;
    let gone = await_condition(namespaces, "short-lived", is_deleted(&uid));
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.context("it stays")??;
    Ok(())
}

#[tokio::test]
async fn one_that_is_made_anew_is_no_older_than_that() -> Result<()> {
    // Leaves what others take over, where nothing is yet.
    drop(Cluster::start(ControlPlane::Kubernetes).await?);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let begun = Timestamp::now();
    let options = Options { anew: true, ..Options::default() };
    let cluster = Cluster::start_with(ControlPlane::Kubernetes, options).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client(&User::administrator()).await?);
    let made = namespaces.get("default").await?.metadata.creation_timestamp.context("when it was made")?;
    // It is of whole seconds.
    assert!(made.0.as_second() >= begun.as_second(), "{made:?} is before {begun}");
    Ok(())
}

#[tokio::test]
async fn a_borrowed_one_comes_back_clean_and_a_dropped_one_leaves_nothing() -> Result<()> {
    let plane = ControlPlane::Embedded;
    let (address, dir) = {
        let cluster = Cluster::shared(plane).await?;
        let api = devices(&cluster, &User::administrator()).await?;
        let mut held = device("held");
        held.metadata.finalizers = Some(vec!["wasmbed.github.io/undeploy".to_owned()]);
        api.create(&PostParams::default(), &held).await?;
        (cluster.address(), cluster.dir().to_owned())
    };
    let cluster = Cluster::shared(plane).await?;
    if cluster.address() == address {
        let api = devices(&cluster, &User::administrator()).await?;
        assert!(api.list(&ListParams::default()).await?.items.is_empty());
    }
    assert!(dir.exists(), "it waits for the next test");

    let own = Cluster::start(plane).await?;
    let pid = own.with_process(Part::ApiServer, |process: &mut Process| Ok(process.id()))?;
    let dir = own.dir().to_owned();
    drop(own);
    assert!(!dir.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}
