//! `wasmbed simulate`.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wasmbed_device::{
    DeviceIdentity, Progress,
    fleet::{self, FleetConfig, FleetStorage},
};
use wasmbed_pki::{Authorities, FactoryAuthority};
use wasmbed_telemetry::with_causes;

use crate::{
    machine::layout::TRUST_DOMAIN, output, runtime::shutdown_on_signal, runtime::start_logging, values,
};

/// How often the counts are looked at.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// How many devices to run, and against what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many devices.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// A gateway as host:port; may be given again. Each device knows all of them and begins with another one.
    #[arg(
        long = "gateway",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:8080",
        value_delimiter = ',',
        value_parser = values::gateway
    )]
    gateways: Vec<String>,
    /// Folder of the authorities below which the devices' identities are issued, for example DIR/pki of `wasmbed up`.
    #[arg(long, value_name = "DIR")]
    pki: PathBuf,
    /// First part of all SPIFFE ids.
    #[arg(long, default_value = TRUST_DOMAIN)]
    trust_domain: String,
    /// Namespace of the devices.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Names are this and a number.
    #[arg(long, default_value = "simulated-")]
    prefix: String,
    /// Folder in which the devices keep what they hold [default: in memory, gone at the end].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Devices switched on per second [default: all at once].
    #[arg(long, value_name = "N")]
    starts_per_second: Option<NonZeroUsize>,
    /// Threads to spread the devices over.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    threads: NonZeroUsize,
    /// Write the devices' manifests, approved and with their keys pinned, to this file and run nothing. `kubectl apply` it first where
    /// the gateway's enrollment policy is not open.
    #[arg(long, value_name = "FILE")]
    manifests: Option<PathBuf>,
    /// Let the devices join with factory identities, which are issued from the factory authority in this folder: the serials are the
    /// names. What they joined for is gone at the end without --data-dir.
    #[arg(long, value_name = "DIR", conflicts_with = "manifests")]
    factory: Option<PathBuf>,
    /// A level, or `target=level` pairs with commas.
    #[arg(long, env = "WASMBED_LOG", default_value = "warn")]
    log_level: String,
    /// auto, json or text.
    #[arg(long, env = "WASMBED_LOG_FORMAT", default_value = "auto")]
    log_format: String,
}

/// Runs until a signal, with the counts on screen whenever they changed.
///
/// # Errors
/// When the devices can't start, or one of their threads fails.
pub(crate) async fn run(arguments: Args) -> Result<()> {
    start_logging(&arguments.log_format, &arguments.log_level)?;
    let shutdown = shutdown_on_signal()?;
    let authorities = Arc::new(Authorities::create_or_open(&arguments.pki, &arguments.trust_domain)?);
    let roots = vec![authorities.services_root().clone()];
    let factory = match &arguments.factory {
        Some(folder) => Some(FactoryAuthority::create_or_open(folder, &arguments.trust_domain)?),
        None => None,
    };
    let store = KeptIdentities {
        authorities,
        dir: arguments.factory.unwrap_or(arguments.pki).join("simulated"),
        factory,
        namespace: arguments.namespace,
        prefix: arguments.prefix,
    };
    if let Some(path) = arguments.manifests {
        return store.write_manifests(arguments.devices, &path);
    }
    let issue: fleet::Issue = Arc::new(move |index| {
        store.device_identity(index).map_err(|error| with_causes(error.as_ref()).into())
    });
    let mut config = FleetConfig::new(arguments.devices, issue, roots, arguments.gateways);
    config.storage = arguments.data_dir.map_or(FleetStorage::Memory, FleetStorage::Files);
    config.threads = arguments.threads;
    config.starts_per_second = arguments.starts_per_second;
    let fleet = fleet::start(config)?;
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(PROGRESS_EVERY);
    let mut shown = Progress::default();
    while !fleet.is_finished() {
        tokio::select! {
            () = shutdown.cancelled() => { fleet.stop(); break }
            _ = ticks.tick() => {}
        }
        let progress = fleet.progress();
        if progress != shown {
            output::print_line(&render(&progress, begun.elapsed()));
            shown = progress;
        }
    }
    Ok(tokio::task::spawn_blocking(move || fleet.wait()).await.context("the fleet's waiter panicked")??)
}

fn render(progress: &Progress, elapsed: Duration) -> String {
    let Progress {
        devices,
        started,
        connected,
        sessions,
        applications_running,
        attempts_failed,
        last_failure,
    } = progress;
    let mut line = format!(
        "{:7.1} s  {started} of {devices} started, {connected} connected, {sessions} sessions, {applications_running} applications running",
        elapsed.as_secs_f64()
    );
    if let Some(failure) = last_failure {
        line.push_str(&format!(", {attempts_failed} attempts failed (last: {failure})"));
    }
    line
}

/// Identities that stay the same from run to run, so that a gateway that pinned their keys knows them again.
struct KeptIdentities {
    authorities: Arc<Authorities>,
    /// Issues instead, to devices that join.
    factory: Option<FactoryAuthority>,
    dir: PathBuf,
    namespace: String,
    prefix: String,
}

impl KeptIdentities {
    fn name(&self, index: usize) -> String {
        format!("{}{:05}", self.prefix, index + 1)
    }

    fn device_identity(&self, index: usize) -> Result<DeviceIdentity> {
        let identity = self.identity(index)?;
        Ok(match &self.factory {
            Some(_) => DeviceIdentity::Factory(identity),
            None => DeviceIdentity::Operational(identity),
        })
    }

    fn identity(&self, index: usize) -> Result<wasmbed_pki::Identity> {
        let name = self.name(index);
        let stem = format!("{}-{name}", self.namespace);
        let (certificate, key) = wasmbed_pki::Identity::files(&self.dir, &stem);
        if key.exists() {
            return Ok(wasmbed_pki::Identity::read(&certificate, &key)?);
        }
        let identity = match &self.factory {
            Some(factory) => factory.issue(&name)?,
            None => self.authorities.issue_device(&self.namespace, &name)?,
        };
        identity.write(&self.dir, &stem)?;
        Ok(identity)
    }

    fn write_manifests(&self, devices: usize, path: &std::path::Path) -> Result<()> {
        let mut text = String::new();
        for index in 0..devices {
            let identity = self.identity(index)?;
            let spec = wasmbed_api::DeviceSpec {
                device_type: "linux-simulated".to_owned(),
                public_key: Some(identity.public_key_base64()),
                approved: true,
                ..wasmbed_api::DeviceSpec::default()
            };
            let mut device = wasmbed_api::Device::new(&self.name(index), spec);
            device.metadata.namespace = Some(self.namespace.clone());
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(&device).context("can't write a Device as YAML")?);
        }
        std::fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
        output::print_line(&format!("{devices} Devices written; now: kubectl apply -f {}", path.display()));
        Ok(())
    }
}
