//! A Kubernetes API that answers badly, and one whose objects others write, too.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::api::ListParams;
use serde_json::json;
use tokio::time::timeout;
use wasmbed_api::{Application, Device};
use wasmbed_e2e::{
    CONTROLLERS, ControlPlane, FaultyApi, GATEWAYS, Passed, Site, SiteOptions, TIMEOUT, fixtures,
};
use wasmbed_testbed::{Cluster, User};

use super::support::{connected, is_undisturbed, settled, status};

wasmbed_e2e::both!(an_api_that_answers_badly, what_others_write_into_a_status_stays);

const DEVICES: usize = 20;
const ROUNDS: usize = 3;
/// Requests for each that was spoilt, beside those that the work itself takes.
const REQUESTS_PER_FAULT_MAX: u64 = 8;
/// What 20 devices and three deployments take, Leases and Events included, several times over.
const REQUESTS_MAX: u64 = 1_000;
/// How often a proxy's counts are looked at.
const POLL: Duration = Duration::from_millis(50);

async fn an_api_that_answers_badly(plane: ControlPlane) -> Result<()> {
    let cluster = Cluster::shared(plane).await?;
    let gateway = FaultyApi::start(&cluster, &User::gateway(GATEWAYS[0])).await?;
    let controller = FaultyApi::start(&cluster, &User::controller(CONTROLLERS[0])).await?;
    let kubeconfigs = [(GATEWAYS[0], gateway.kubeconfig()), (CONTROLLERS[0], controller.kubeconfig())];
    let kubeconfigs = kubeconfigs.map(|(name, path)| (name.to_owned(), path)).into();
    let mut site = Site::start_at(cluster, SiteOptions { kubeconfigs, ..SiteOptions::default() }).await?;

    gateway.set_faults(true);
    controller.set_faults(true);
    site.start_fleet(DEVICES)?;
    connected(&site, DEVICES).await?;
    for round in 0..ROUNDS {
        let name = format!("round-{round}");
        site.deploy(&name, &fixtures::large_ticker(&name, 1_000, 20 * 1_024)).await?;
        gateway.cut();
        controller.cut();
        site.complete(&name, DEVICES).await?;
    }
    // Watches that end are resumed from where they were, which is too old now and then.
    for proxy in [&gateway, &controller] {
        let expired = async {
            while proxy.passed().expired == 0 {
                let before = proxy.passed().requests;
                proxy.cut();
                while proxy.passed().requests == before {
                    tokio::time::sleep(POLL).await;
                }
            }
        };
        timeout(TIMEOUT, expired).await.with_context(|| format!("no 410: {:?}", proxy.passed()))?;
    }
    site.deploy("last", &fixtures::ticker("last", 1_000)).await?;
    site.complete("last", DEVICES).await?;
    let all = ROUNDS + 1;
    site.all_devices("undisturbed", |devices| devices.iter().all(|device| is_undisturbed(device, all)))
        .await?;
    for (who, proxy) in [("the gateway", &gateway), ("the controller", &controller)] {
        let passed = proxy.passed();
        println!("{plane:?}: {who}: {passed:?}");
        let Passed { throttled, failed, broken, .. } = passed;
        ensure!(throttled > 0 && failed > 0 && broken > 0, "too few faults: {passed:?}");
        let bound = REQUESTS_MAX + REQUESTS_PER_FAULT_MAX * passed.spoilt();
        ensure!(passed.requests < bound, "{who} tries too hard: {passed:?}");
    }
    Ok(())
}

/// Two writers of one status: the gateway or the controller, and somebody who adds a condition of their own.
async fn what_others_write_into_a_status_stays(plane: ControlPlane) -> Result<()> {
    let mut site = Site::start(plane, SiteOptions::default()).await?;
    settled(&mut site, 4, "app", &fixtures::ticker("app", 1_000)).await?;
    let conditions = |conditions: &[_]| {
        let mut conditions = json!(conditions);
        if let Some(list) = conditions.as_array_mut() {
            list.push(json!({
                "type": "Inspected", "status": "True", "reason": "Visited", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }));
        }
        conditions
    };
    for device in site.devices().await? {
        let name = device.metadata.name.clone().unwrap_or_default();
        let change = |device: &Device| {
            json!({
                "metadata": { "resourceVersion": device.metadata.resource_version },
                "status": { "conditions": conditions(&status(device).conditions) },
            })
        };
        // As everyone who writes with a resourceVersion does: again, from what is there now.
        while let Err(error) =
            site.merge_status::<Device>(&name, &change(&site.api::<Device>().get(&name).await?)).await
        {
            ensure!(matches!(&error, kube::Error::Api(status) if status.code == 409), "{error}");
        }
    }
    let application = site.api::<Application>().get("app").await?;
    let held = application.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let change = json!({ "status": { "conditions": conditions(&held) } });
    site.merge_status::<Application>("app", &change).await?;

    // Both write again: a session ends and begins, an application comes.
    site.kill(GATEWAYS[0])?;
    site.start_gateway(GATEWAYS[0])?;
    site.deploy("more", &fixtures::ticker("more", 1_000)).await?;
    site.complete("more", 4).await?;
    site.merge_status::<Application>("app", &json!({ "status": { "ready": "0/0" } })).await?;
    site.complete("app", 4).await?;
    let inspected = |conditions: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition]| {
        conditions.iter().any(|condition| condition.type_ == "Inspected")
            && conditions.iter().any(|condition| condition.type_ != "Inspected")
    };
    site.all_devices("undisturbed", |devices| devices.iter().all(|device| is_undisturbed(device, 2))).await?;
    for device in site.api::<Device>().list(&ListParams::default()).await? {
        ensure!(inspected(&status(&device).conditions), "{:?}", status(&device).conditions);
    }
    let application = site.api::<Application>().get("app").await?;
    let held = application.status.map(|status| status.conditions).unwrap_or_default();
    ensure!(inspected(&held), "{held:?}");
    Ok(())
}
