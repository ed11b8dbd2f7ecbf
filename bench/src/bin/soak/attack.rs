//! Attackers: each a process of its own, so that all of them together can be bound to one core. Each is bounded in what it opens
//! and ends by itself.

mod api;
mod device;
mod health;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
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
const FLAPPING: [(&str, usize); 1] = [("attack-states", 1)];
const FAILING: [(&str, usize); 2] = [("attack-failures-0", 8), ("attack-failures-1", 8)];
/// Devices that send lines.
const LOGGERS: usize = 4;
/// The device that sends errors.
const NOTIFIER: &str = "attack-errors";
/// The Device that hostile patches are for.
const PATCHED: &str = "attack-patches";
/// Devices that the watches are over, beside those of the honest.
const WATCHED: usize = 1_700;
/// Pause of an attacker after something failed.
const PAUSE: Duration = Duration::from_millis(50);

fn logger(index: usize) -> String {
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

    async fn run(self, stage: Stage) -> Result<()> {
        match self {
            Self::Logs => device::logs(stage).await,
            Self::Errors => device::errors(stage).await,
            Self::States => device::states(stage).await,
            Self::Failures => device::failures(stage).await,
            Self::IdleClients => api::idle_clients(stage).await,
            Self::Watches => api::watches(stage).await,
            Self::Patches => api::patches(stage).await,
            Self::HalfRequests => health::half_requests(stage).await,
        }
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
struct Stage {
    target: Arc<Target>,
    end: Instant,
    tally: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Stage {
    fn lasts(&self) -> bool {
        Instant::now() < self.end
    }

    fn count(&self, what: &'static str, number: u64) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += number;
    }

    /// TLS of an enrolled device.
    fn device(&self, name: &str) -> Result<Arc<tokio_rustls::rustls::ClientConfig>> {
        let layout = Layout::create_or_open(&self.target.site)?;
        let files = layout.device_identity("default", name)?;
        let identity = wasmbed_pki::Identity::read(&files.certificate, &files.key)?;
        wasmbed_bench::peer::tls(layout.authorities(), &identity)
    }

    /// Does something again and again until the end; what fails is counted and tried again after a pause.
    async fn again(&self, failed: &'static str, mut act: impl AsyncFnMut() -> Result<()>) {
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

/// Plays one attack and prints what was sent.
pub(crate) fn run(target: Target) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let begun = Instant::now();
    let end = begun + Duration::from_secs(target.seconds);
    let attack = target.attack;
    let stage = Stage { target: Arc::new(target), end, tally: Arc::default() };
    runtime.block_on(attack.run(stage.clone())).with_context(|| format!("{attack:?}"))?;
    let tally = stage.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = begun.elapsed().as_secs_f64();
    let rate = |number: u64| number as f64 / seconds;
    let told: Vec<String> =
        tally.iter().map(|(what, number)| format!("{number} {what} ({:.1}/s)", rate(*number))).collect();
    println!("attackers: {}", if told.is_empty() { "nothing was sent".to_owned() } else { told.join(", ") });
    Ok(())
}
