//! `wasmbed signer`.

use anyhow::Result;
use wasmbed_signer::{Config, HealthConfig, OperatorsConfig, PkiFiles};

use super::{Common, host_name, resolve};
use crate::{
    cluster::kubeconfig,
    config::{SignerFile, SignerOperators, SignerSection, load},
    runtime::{shutdown_on_signal, start_logging},
};

/// How to run a signer. Everything else stands in the configuration file, whose keys are in docs/configuration.md.
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
    let section = load::<SignerFile>("signer", arguments.common.config.as_deref(), &flags)?.signer;
    start_logging(&section.logging.format, &section.logging.level)?;
    let shutdown = shutdown_on_signal()?;
    let signer = wasmbed_signer::start(configure(section).await?, shutdown).await?;
    tracing::info!(health = %signer.health, "the signer runs");
    Ok(signer.wait().await?)
}

/// Resolves a section of configuration to what the process takes.
///
/// # Errors
/// When an address can't be resolved or no Kubernetes API is found.
pub(crate) async fn configure(section: SignerSection) -> Result<Config> {
    let SignerOperators { issuer, services_ca_file, lifetime } = section.operators;
    let operators = issuer.map(|issuer| OperatorsConfig {
        certificate: issuer.cert_file,
        key: issuer.key_file,
        services_roots: services_ca_file,
        lifetime: lifetime.0,
    });
    Ok(Config {
        name: section.name.clone().map_or_else(host_name, Ok)?,
        trust_domain: section.trust_domain,
        files: PkiFiles {
            certificate: section.issuer.cert_file,
            key: section.issuer.key_file,
            devices_roots: section.devices_ca_file,
            factory_roots: section.factory_ca_file,
        },
        lifetime: section.lifetime.0,
        operators,
        secrets_namespace: section.namespace,
        health: HealthConfig {
            listen: resolve(&section.health.host, section.health.port).await?,
            path: section.health.path,
        },
        kube: kubeconfig::client_config(section.kubernetes.kubeconfig.as_ref()).await?,
    })
}
