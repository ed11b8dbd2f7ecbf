//! Devices that know two gateways: they go to the other one when theirs dies, keep what they run also where nobody knows what that
//! should be, and nobody calls them unreachable.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use wasmbed_api::{Device, DeviceGateway, DevicePhase};
use wasmbed_e2e::{CONTROLLERS, ControlPlane, GATEWAYS, Site, SiteOptions, fixtures};
use wasmbed_testbed::SYSTEM_NAMESPACE;

use super::support::{Phases, connected, epochs, is_at, is_undisturbed, settled, status};

wasmbed_e2e::both!(
    devices_go_to_the_other_gateway_and_only_those_without_one_are_unreachable,
    a_gateway_that_knows_nothing_changes_nothing,
    a_killed_gateway_is_unknown_and_starts_again_at_once_whoever_else_has_its_name,
);

const DEVICES: usize = 8;

async fn two_gateways(plane: ControlPlane) -> Result<Site> {
    let controller_set = vec!["lease.gateway_grace=1".to_owned()];
    Site::start(plane, SiteOptions { gateways: 2, controller_set, ..SiteOptions::default() }).await
}

/// How many of them are connected at each gateway.
fn spread(devices: &[Device]) -> [usize; 2] {
    GATEWAYS.map(|gateway| devices.iter().filter(|device| is_at(device, gateway)).count())
}

async fn devices_go_to_the_other_gateway_and_only_those_without_one_are_unreachable(
    plane: ControlPlane,
) -> Result<()> {
    let mut site = two_gateways(plane).await?;
    site.add_device("lonely", &GATEWAYS[..1]).await?;
    site.device("lonely", "Connected", |device| is_at(device, GATEWAYS[0])).await?;
    site.start_fleet(DEVICES)?;
    connected(&site, DEVICES + 1).await?;
    site.deploy("app", &fixtures::ticker("app", 1_000)).await?;
    site.complete("app", DEVICES + 1).await?;
    each_gateway_says_that_it_is_there(&site).await?;
    let before = site.devices().await?;
    ensure!(spread(&before) == [DEVICES / 2 + 1, DEVICES / 2], "{:?}", spread(&before));
    let phases = Phases::watch(&site);

    let begun = Instant::now();
    site.kill(GATEWAYS[0])?;
    let moved = site.all_devices("at the other gateway", |devices| spread(devices)[1] == DEVICES).await?;
    println!("{plane:?}: fail-over of {} devices: {:.1} s", DEVICES / 2, begun.elapsed().as_secs_f64());
    let (was, is) = (epochs(&before), epochs(&moved));
    for device in before.iter().filter(|device| is_at(device, GATEWAYS[0]) && device.name_any() != "lonely") {
        let name = device.name_any();
        ensure!(is[&name] > was[&name], "{name}: epoch {} follows {}", is[&name], was[&name]);
    }
    // Its application ran all the time, where it could be told and where not.
    site.all_devices("undisturbed", |devices| {
        devices.iter().filter(|device| is_at(device, GATEWAYS[1])).all(|device| is_undisturbed(device, 1))
    })
    .await?;
    site.device("lonely", "Unreachable", |device| status(device).phase == DevicePhase::Unreachable).await?;
    println!("{plane:?}: unreachable after {:.1} s", begun.elapsed().as_secs_f64());

    site.start_gateway(GATEWAYS[0])?;
    site.device("lonely", "Connected and undisturbed", |device| {
        is_at(device, GATEWAYS[0]) && is_undisturbed(device, 1)
    })
    .await?;
    site.complete("app", DEVICES + 1).await?;
    ensure!(phases.of(DevicePhase::Unreachable) == ["lonely"], "{:?}", phases.of(DevicePhase::Unreachable));
    Ok(())
}

async fn each_gateway_says_that_it_is_there(site: &Site) -> Result<()> {
    let gateways: Api<DeviceGateway> = Api::namespaced(site.client().clone(), SYSTEM_NAMESPACE);
    let leases: Api<Lease> = Api::namespaced(site.client().clone(), SYSTEM_NAMESPACE);
    for name in GATEWAYS {
        let gateway = gateways.get(name).await?;
        ensure!(gateway.spec.address == site.gateway_address(name)?.to_string(), "{}", gateway.spec.address);
        let lease = leases.get(&format!("gateway-{name}")).await?.spec.context("a spec")?;
        let holder = lease.holder_identity.context("a holder")?;
        ensure!(holder == site.gateway_id(name)?, "{holder} holds the Lease of {name}");
        ensure!(ready(&gateway) == "True", "{:?}", gateway.status);
    }
    Ok(())
}

async fn a_gateway_that_knows_nothing_changes_nothing(plane: ControlPlane) -> Result<()> {
    let mut site = two_gateways(plane).await?;
    settled(&mut site, DEVICES, "app", &fixtures::ticker("app", 1_000)).await?;
    // Nobody is left who could tell the other gateway what the devices are to run.
    site.kill(CONTROLLERS[0])?;
    site.kill(GATEWAYS[0])?;
    let here = |devices: &[Device]| {
        devices.iter().all(|device| is_at(device, GATEWAYS[1]) && is_undisturbed(device, 1))
    };
    site.all_devices("undisturbed at the other gateway", here).await?;
    // A controller finds them as they are, and can change what they run.
    site.start_controller(CONTROLLERS[0])?;
    site.deploy("another", &fixtures::ticker("another", 1_000)).await?;
    site.complete("another", DEVICES).await?;
    site.all_devices("undisturbed with both", |devices| {
        devices.iter().all(|device| is_undisturbed(device, 2))
    })
    .await
    .map(drop)
}

/// Status of the condition Ready.
fn ready(gateway: &DeviceGateway) -> String {
    let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|c| c.type_ == "Ready").map(|c| c.status.clone()).next().unwrap_or_default()
}

async fn a_killed_gateway_is_unknown_and_starts_again_at_once_whoever_else_has_its_name(
    plane: ControlPlane,
) -> Result<()> {
    let controller_set = vec!["lease.gateway_grace=1".to_owned()];
    let mut site = Site::start(plane, SiteOptions { controller_set, ..SiteOptions::default() }).await?;
    let name = GATEWAYS[0];
    site.add_device("a", &[name]).await?;
    site.device("a", "Connected", |device| is_at(device, name)).await?;
    let gateways: Api<DeviceGateway> = Api::namespaced(site.client().clone(), SYSTEM_NAMESPACE);
    let address = site.gateway_address(name)?.to_string();

    // A second process of its name takes nothing over, says who holds it, and leaves nothing behind.
    let health = site.start_namesake(name, "namesake")?;
    let id = site.gateway_id(name)?;
    let deadline = Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let (code, body) = wasmbed_e2e::get(health.address(), "/ready").await?;
        if code == 503 && body.contains(&id) {
            break;
        }
        ensure!(Instant::now() < deadline, "{code} {body}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    site.stop("namesake")?;
    let gateway = gateways.get(name).await?;
    ensure!(gateway.spec.address == address && ready(&gateway) == "True", "{gateway:?}");
    site.device("a", "Connected", |device| is_at(device, name)).await?;

    // After kill -9 it is back before its Lease has run out.
    let leases: Api<Lease> = Api::namespaced(site.client().clone(), SYSTEM_NAMESPACE);
    let lease = async || {
        let spec = leases.get(&format!("gateway-{name}")).await?.spec.context("a spec")?;
        anyhow::Ok((spec.holder_identity, spec.lease_transitions.unwrap_or_default()))
    };
    let before = lease().await?;
    let epoch = |device: &Device| device.status.as_ref().and_then(|status| status.epoch);
    let earlier = epoch(&site.device("a", "Connected", |device| is_at(device, name)).await?);
    site.kill(name)?;
    site.start_gateway(name)?;
    // Its status goes on saying Connected until there is another session.
    site.device("a", "Connected again", |device| is_at(device, name) && epoch(device) > earlier).await?;
    let after = lease().await?;
    ensure!(after.0 == before.0 && after.1 > before.1, "{before:?} {after:?}");

    site.kill(name)?;
    site.device_gateway(name, "Ready Unknown", |gateway| ready(gateway) == "Unknown").await?;
    site.start_gateway(name)?;
    site.device_gateway(name, "Ready True", |gateway| ready(gateway) == "True").await?;
    site.device("a", "Connected", |device| is_at(device, name)).await.map(drop)
}
