//! `wasmbed controller`.

use anyhow::{Context as _, Result};
use wasmbed_controller::{
    Config, GatewayConfig, HealthConfig, LeaseConfig, ReconciliationConfig, TlsFiles, ValuesKey,
};
use wasmbed_files::DataKey;

use super::{Common, host_name, resolve};
use crate::{
    cluster::kubeconfig,
    config::{ControllerFile, ControllerSection, load},
    runtime::shutdown_on_signal,
    runtime::start_logging,
};

/// How to run a controller. Everything else stands in the configuration file, whose keys are in docs/configuration.md.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
}

/// Runs until a signal.
///
/// # Errors
/// When it can't start, or fails.
pub(crate) async fn run(arguments: Args) -> Result<()> {
    let flags = arguments.common.flags();
    let section =
        load::<ControllerFile>("controller", arguments.common.config.as_deref(), &flags)?.controller;
    start_logging(&section.logging.format, &section.logging.level)?;
    let shutdown = shutdown_on_signal()?;
    let config = configure(section).await?;
    let controller = wasmbed_controller::start(config, shutdown).await?;
    tracing::info!(health = %controller.health, "the controller runs");
    Ok(controller.wait().await?)
}

/// Resolves a section of configuration to what the process takes.
///
/// # Errors
/// When a file can't be read, an address can't be resolved or no Kubernetes API is found.
pub(crate) async fn configure(section: ControllerSection) -> Result<Config> {
    let values_key = section.data_key_file.as_deref().map(DataKey::read).transpose();
    let values_key = values_key.context("controller.data_key_file")?;
    Ok(Config {
        name: section.name.clone().map_or_else(host_name, Ok)?,
        system_namespace: section.namespace,
        namespace: section.watch_namespace,
        tls: TlsFiles {
            certificate: section.tls.cert_file,
            key: section.tls.key_file,
            services_roots: section.tls.ca_file,
        },
        trust_domain: section.trust_domain,
        gateway: GatewayConfig { url: section.gateway.url, timeout: section.gateway.timeout.0 },
        reconciliation: ReconciliationConfig {
            interval: section.reconciliation.interval.0,
            max_retries: section.reconciliation.max_retries,
            backoff_multiplier: section.reconciliation.backoff_multiplier,
        },
        health: HealthConfig {
            listen: resolve(&section.health.host, section.health.port).await?,
            path: section.health.path,
        },
        values_key: values_key.map(|key| ValuesKey::new(key.expose())),
        kube: kubeconfig::client_config(section.kubernetes.kubeconfig.as_ref()).await?,
        lease: LeaseConfig {
            duration: section.lease.duration.0,
            renew: section.lease.duration.0.mul_f64(0.3),
            gateway_grace: section.lease.gateway_grace.0,
        },
    })
}
