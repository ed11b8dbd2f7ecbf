//! The attacks, what each needs to be there before it begins, and what it has at hand while it lasts.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::{Parser, ValueEnum};
use wasmbed::machine::layout::Layout;
use wasmbed_api::DeviceSpec;
use wasmbed_e2e::{Site, application, fixtures};

/// An attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// Four devices send lines of applications that nobody knows, 256 to a session, and connect again.
    Logs,
    /// 128 clients without a certificate keep HTTP/2 connections to the API that do nothing but answer pings.
    IdleClients,
    /// 3,600 requests to the health port that never end.
    HalfRequests,
    /// A device sends 47,000 errors a second.
    Errors,
    /// A device reports another state of its application as fast as it is let.
    States,
    /// 16 applications of two devices fail, each time with another reason and message.
    Failures,
    /// A client opens 1,200 watches over 1,900 Devices and reads none.
    Watches,
    /// Patches and bodies that take work out of proportion to their size.
    Patches,
}

/// What attackers are told of the site.
#[derive(Clone, Parser)]
pub(crate) struct Target {
    #[arg(long)]
    pub(crate) gateway: SocketAddr,
    #[arg(long)]
    pub(crate) health: SocketAddr,
    #[arg(long)]
    pub(crate) api: SocketAddr,
    /// Folder of the authorities of devices.
    #[arg(long)]
    pub(crate) site: PathBuf,
    /// Folder of the authority of the API's clients.
    #[arg(long)]
    pub(crate) cluster: PathBuf,
    #[arg(long)]
    pub(crate) seconds: u64,
    #[arg(value_enum)]
    pub(crate) attack: Attack,
}

/// Devices whose reports are false, with the number of their applications.
pub(super) const FLAPPING: [(&str, usize); 1] = [("attack-states", 1)];
pub(super) const FAILING: [(&str, usize); 2] = [("attack-failures-0", 8), ("attack-failures-1", 8)];
/// Devices that send lines.
pub(super) const LOGGERS: usize = 4;
/// The device that sends errors.
pub(super) const NOTIFIER: &str = "attack-errors";
/// The Device that hostile patches are for.
pub(super) const PATCHED: &str = "attack-patches";
/// Devices that the watches are over, beside those of the honest.
const WATCHED: usize = 1_700;
/// Pause of an attacker after something failed.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn logger(index: usize) -> String {
    format!("attack-logs-{index}")
}

impl Attack {
    /// What the attack needs to be there, made by the administrator.
    pub(crate) async fn prepare(self, site: &Site) -> Result<()> {
        match self {
            Self::Logs => {
                for index in 0..LOGGERS {
                    enroll(site, &logger(index)).await?;
                }
            }
            Self::Errors => enroll(site, NOTIFIER).await?,
            Self::States => reporters(site, &FLAPPING).await?,
            Self::Failures => reporters(site, &FAILING).await?,
            Self::Watches => {
                for index in 0..WATCHED {
                    // Neither approved nor labelled: nothing is to be deployed to them.
                    let object =
                        wasmbed_api::Device::new(&format!("watched-{index:04}"), DeviceSpec::default());
                    site.create(&object).await?;
                }
            }
            Self::Patches => enroll(site, PATCHED).await?,
            Self::IdleClients | Self::HalfRequests => {}
        }
        Ok(())
    }
}

async fn enroll(site: &Site, name: &str) -> Result<()> {
    let files = site.layout().device_identity("default", name)?;
    let identity = wasmbed_pki::Identity::read(&files.certificate, &files.key)?;
    site.create(&wasmbed_e2e::device(name, &identity.public_key_base64())).await?;
    Ok(())
}

/// Devices with applications of their own. What those would do is of no interest: they need no more than any device has.
async fn reporters(site: &Site, devices: &[(&str, usize)]) -> Result<()> {
    for (name, applications) in devices {
        enroll(site, name).await?;
        for index in 0..*applications {
            let wasm = fixtures::endless_loop();
            site.create(&application(&format!("{name}-{index}"), &wasm, &[name])).await?;
        }
    }
    Ok(())
}

/// What one attack has at hand.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) target: Arc<Target>,
    pub(super) end: Instant,
    pub(super) tally: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Stage {
    pub(super) fn lasts(&self) -> bool {
        Instant::now() < self.end
    }

    pub(super) fn count(&self, what: &'static str, number: u64) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += number;
    }

    /// TLS of an enrolled device.
    pub(super) fn device(&self, name: &str) -> Result<Arc<tokio_rustls::rustls::ClientConfig>> {
        let layout = Layout::create_or_open(&self.target.site)?;
        let files = layout.device_identity("default", name)?;
        let identity = wasmbed_pki::Identity::read(&files.certificate, &files.key)?;
        wasmbed_bench::peer::tls(layout.authorities(), &identity)
    }

    /// Does something again and again until the end; what fails is counted and tried again after a pause.
    pub(super) async fn again(&self, failed: &'static str, mut act: impl AsyncFnMut() -> Result<()>) {
        while self.lasts() {
            let left = self.end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, act()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => {
                    self.count(failed, 1);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
