//! 200 devices are being given an application while something dies: the leading controller, the API server, etcd, one of two gateways.

use anyhow::{Result, ensure};
use wasmbed_e2e::{ControlPlane, Failover, Site, SiteOptions};

use super::support::is_undisturbed;

wasmbed_e2e::both!(something_dies_while_200_devices_deploy);

const DEVICES: usize = 200;

async fn something_dies_while_200_devices_deploy(plane: ControlPlane) -> Result<()> {
    let options = SiteOptions { gateways: 2, controllers: 2, ..SiteOptions::default() };
    let mut site = Site::start(plane, options).await?;
    let failovers = Failover::all(&mut site, DEVICES).await?;
    for Failover { what, converged, .. } in &failovers {
        println!("{plane:?}: {what}: converged after {:.1} s", converged.as_secs_f64());
    }
    let devices = site
        .all_devices("undisturbed", |devices| {
            devices.iter().all(|device| is_undisturbed(device, failovers.len()))
        })
        .await?;
    ensure!(devices.len() == DEVICES, "{} devices", devices.len());
    Ok(())
}
