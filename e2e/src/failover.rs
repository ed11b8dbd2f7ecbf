//! What is killed while a fleet deploys, and how long it takes until all is as it should be.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use wasmbed_api::{Device, DevicePhase};
use wasmbed_testbed::{ControlPlane, Part};

use crate::{GATEWAYS, Site, fixtures};

/// Large enough that downloads are under way when something dies.
const MODULE_BYTES: usize = 60 * 1_024;

/// One death during a deployment.
#[derive(Clone, Debug)]
pub struct Failover {
    /// What died.
    pub what: String,
    /// From the death until another was in its place; none where it is started again by whoever killed it.
    pub replaced: Option<Duration>,
    /// From the death, which comes right after the deployment began, until the Application was complete on every device.
    pub converged: Duration,
}

impl Failover {
    /// Starts a fleet and kills, while it deploys, one after the other: nothing, the leading controller, the API server, etcd where
    /// there is one, and a gateway. Whoever died is started again afterwards, so that each begins with everything in place.
    ///
    /// # Errors
    /// When something does not converge.
    pub async fn all(site: &mut Site, devices: usize) -> Result<Vec<Self>> {
        site.start_fleet(devices)?;
        let connected = |found: &[Device]| {
            let phase = |device: &Device| device.status.as_ref().map(|status| status.phase);
            found.iter().filter(|device| phase(device) == Some(DevicePhase::Connected)).count() == devices
        };
        site.all_devices("Connected", connected).await?;
        let begun = Instant::now();
        deploy(site, "nothing").await?;
        let nothing = Self::since(site, "nothing", devices, begun, None).await?;
        let mut all = vec![nothing, Self::of_the_leader(site, devices).await?];
        for part in site.cluster().parts() {
            all.push(Self::of_a_part(site, devices, part).await?);
        }
        all.push(Self::of_a_gateway(site, devices).await?);
        Ok(all)
    }

    async fn of_the_leader(site: &mut Site, devices: usize) -> Result<Self> {
        let (leader, term) = site.leader(|_| true).await?;
        deploy(site, "leader").await?;
        let begun = Instant::now();
        site.kill(&leader)?;
        let (_, next) = site.leader(|holder| holder != leader).await?;
        let replaced = begun.elapsed();
        ensure!(next > term, "term {next} follows {term}");
        let ended = Self::since(site, "leader", devices, begun, Some(replaced)).await?;
        site.start_controller(&leader)?;
        Ok(Self { what: "the leading controller".to_owned(), ..ended })
    }

    /// It is started again at once, as an init system or a kubelet does.
    async fn of_a_part(site: &mut Site, devices: usize, part: Part) -> Result<Self> {
        let (name, what) = match (part, site.cluster().plane()) {
            (Part::ApiServer, ControlPlane::Embedded) => ("apiserver", "the embedded API server"),
            (Part::ApiServer, ControlPlane::Kubernetes) => ("apiserver", "kube-apiserver"),
            (Part::Etcd, _) => ("etcd", "etcd"),
            (Part::ControllerManager, _) => ("controller-manager", "kube-controller-manager"),
        };
        deploy(site, name).await?;
        let begun = Instant::now();
        site.cluster().kill(part)?;
        site.cluster().start_part(part).await?;
        let replaced = begun.elapsed();
        let ended = Self::since(site, name, devices, begun, Some(replaced)).await?;
        Ok(Self { what: what.to_owned(), ..ended })
    }

    /// Its devices go to the other one.
    async fn of_a_gateway(site: &mut Site, devices: usize) -> Result<Self> {
        let [lost, other] = GATEWAYS;
        deploy(site, "gateway").await?;
        let begun = Instant::now();
        site.kill(lost)?;
        let moved = |found: &[Device]| {
            found.len() == devices
                && found.iter().all(|device| {
                    device.status.as_ref().is_some_and(|status| {
                        status.phase == DevicePhase::Connected && status.gateway.as_deref() == Some(other)
                    })
                })
        };
        site.all_devices("at the other gateway", moved).await?;
        let replaced = begun.elapsed();
        let ended = Self::since(site, "gateway", devices, begun, Some(replaced)).await?;
        site.start_gateway(lost)?;
        Ok(Self { what: "one of two gateways".to_owned(), ..ended })
    }

    async fn since(
        site: &Site,
        name: &str,
        devices: usize,
        begun: Instant,
        replaced: Option<Duration>,
    ) -> Result<Self> {
        site.complete(name, devices).await?;
        Ok(Self { what: name.to_owned(), replaced, converged: begun.elapsed() })
    }
}

async fn deploy(site: &Site, name: &str) -> Result<()> {
    site.deploy(name, &fixtures::large_ticker(name, 60_000, MODULE_BYTES)).await
}
