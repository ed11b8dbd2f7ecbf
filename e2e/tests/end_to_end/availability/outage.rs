//! A Kubernetes API that is away for longer than every Lease: nobody is taken for dead because of that.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use wasmbed_api::DevicePhase;
use wasmbed_e2e::{CONTROLLERS, ControlPlane, GATEWAYS, Site, SiteOptions, fixtures, until};
use wasmbed_testbed::{Part, SYSTEM_NAMESPACE};

use super::support::{Phases, is_undisturbed, settled};

wasmbed_e2e::both!(nobody_is_unreachable_because_the_api_was_away);

/// Lease and grace of a gateway as this test sets them.
const LEASE_AND_GRACE: Duration = Duration::from_secs(15 + 1);
const DEVICES: usize = 6;

async fn nobody_is_unreachable_because_the_api_was_away(plane: ControlPlane) -> Result<()> {
    let controller_set = vec!["lease.gateway_grace=1".to_owned()];
    let mut site = Site::start(plane, SiteOptions { controller_set, ..SiteOptions::default() }).await?;
    settled(&mut site, DEVICES, "app", &fixtures::ticker("app", 1_000)).await?;
    let phases = Phases::watch(&site);

    let away = Instant::now();
    site.cluster().kill(Part::ApiServer)?;
    // Its stream would prove that the gateway lives. Without it and without the API, nothing does; and what the gateway needs to
    // serve its devices it has on its disk.
    site.kill(GATEWAYS[0])?;
    site.start_gateway(GATEWAYS[0])?;
    site.process(GATEWAYS[0])?.signal("STOP")?;
    site.process(CONTROLLERS[0])?.wait_for_line("that the API is away", |line| {
        line.contains("released leadership") || line.contains("leadership changed")
    })?;
    // Time is what this is about: the outage is longer than all that anyone waits for.
    let over = away + LEASE_AND_GRACE + Duration::from_secs(1);
    tokio::time::sleep_until(over.into()).await;

    site.cluster().start_part(Part::ApiServer).await?;
    site.process(GATEWAYS[0])?.signal("CONT")?;
    // The controller has seen the gateway's Lease renewed for as long as it would have waited for it.
    let name = format!("gateway-{}", GATEWAYS[0]);
    let mut first = None;
    until(site.client(), SYSTEM_NAMESPACE, &name, "renewed for a Lease and a grace", {
        let seen = std::cell::RefCell::new(&mut first);
        move |lease: &Lease| {
            let Some(renewed) = lease.spec.as_ref().and_then(|spec| spec.renew_time.clone()) else {
                return false;
            };
            let begun = *seen.borrow_mut().get_or_insert(renewed.0);
            renewed.0.duration_since(begun).unsigned_abs() >= LEASE_AND_GRACE
        }
    })
    .await?;
    let unreachable = phases.of(DevicePhase::Unreachable);
    ensure!(unreachable.is_empty(), "{unreachable:?} were called unreachable");
    site.all_devices("undisturbed", |devices| devices.iter().all(|device| is_undisturbed(device, 1))).await?;
    site.deploy("after", &fixtures::ticker("after", 1_000)).await?;
    site.complete("after", DEVICES).await.map(drop)
}
